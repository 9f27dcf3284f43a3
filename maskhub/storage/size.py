"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from maskhub.errors import ArgumentError


def parse_size(size: int | str) -> int:
    """Bytes of a size as people write it: ``500MB``, ``5GB``, ``1000000``. Raises ArgumentError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)B?", str(size).strip(), re.IGNORECASE)
    count = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if count < 1:
        raise ArgumentError(f"{size!r} is no size such as 500MB or 5GB", hint="Give bytes, or a number with KB to TB.")
    return count
