"""Text that others wrote, made safe to show: names, labels and messages in files come from strangers."""

from __future__ import annotations

import html
import re


def printable(text: str) -> str:
    """``text`` with what does not show escaped, as Python writes it: it must neither steer a terminal nor hide.

    That is control characters (line ends, too), those that turn the direction of writing, and halves of characters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def markdown(text: str) -> str:
    """``text`` as a piece of a line of Markdown, also in a table, that cannot be anything but text there."""
    shown = html.escape(printable(text), quote=False)
    return re.sub(r"([\\`*_\[\]|~:@$^{}!])|(?<=www)(\.)", r"\\\g<0>", shown, flags=re.IGNORECASE)
