"""URLs: what is one, and how one is shown without its secrets."""

from __future__ import annotations

import re
from pathlib import Path

SCHEMES = re.compile(r"(?:[a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # chained ones, too


def is_url(path: str | Path) -> bool:
    """Whether this is a URL, not a path."""
    return SCHEMES.match(str(path)) is not None


def public_name(path: str | Path) -> str:
    """A path as it is; a URL without what may be secret: user, password, query."""
    return without_logins(re.split(r"[?#]", str(path))[0]) if is_url(path) else str(path)


def without_logins(text: str) -> str:
    """Text with user and password taken out of its URLs."""
    return re.sub(r"://[^\s/?#]*@", "://", text)
