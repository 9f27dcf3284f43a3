"""What a person's words for a mask mean: a file or folder here, a URL, or a repo on the Hub."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from maskhub.errors import RemoteError
from maskhub.storage.url import SCHEMES, is_url, public_name

SUFFIX = ".msk"
LONGEST = 200  # bytes of a part of a name: with what is put before and after it, it is still a file's
INDEX = "index"  # in a folder of masks: a JSON file for each name
# `user/repo@REVISION/name.msk`, as URLs have it, or `user/repo/name@REVISION`; a revision may hold slashes.
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<early>[^@]+?)(?=/[^/@]+\.msk$|$))?(?:/(?P<rest>.+))?")
_OTHER_KINDS = ("datasets", "spaces", "buckets")  # of repos, which hf:// URLs name first


@dataclass(frozen=True)
class Hub:
    """A repo on the Hub. ``name`` is a mask's file in it, None where it goes without saying."""

    repo: str
    name: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, [self.repo, self.name])) + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Folder:
    """A folder here or on any file system that fsspec knows. ``name`` is a mask's in it, if one was named."""

    url: str
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.url.rstrip('/')}/{self.name}" if self.name else self.url


def hub(text: str | Path) -> Hub | None:
    """The Hub address that ``text`` is; None where it is a path here or another URL.

    What exists here is meant, and any name in a folder of masks, which has an index. What does not is on the Hub if it
    could be: two components or more (``folder/x.msk``, a file in a folder, is not), and no path from the root, ``.`` or
    ``~``.
    """
    if isinstance(text, Path):
        return None
    if text.startswith("hf://"):
        rest = text.removeprefix("hf://")
        if rest.partition("/")[0] in _OTHER_KINDS:
            return None
        if (found := _parse(rest)) is None:
            raise RemoteError(f"{text}: not a place on the Hub", hint="Name it as hf://user/repo/name.msk@revision.")
        return found
    if is_url(text) or text.startswith(("/", ".", "~")) or exists(text):
        return None
    path = Path(text.removesuffix(SUFFIX))
    if exists(path.parent / INDEX):
        return None
    if text.count("/") == 1 and "@" not in text and text.endswith(SUFFIX):
        return None
    return _parse(text)


def parse(text: str) -> Hub | Folder:
    """Where masks are pushed to and pulled from: a repo on the Hub, or a folder."""
    if (found := hub(text)) is not None:
        return found
    if text.endswith(SUFFIX):
        url, _, name = text.rpartition("/")
        return Folder(url or ".", name)
    return Folder(text)


def file_name(mask: str | Path) -> str:
    """The last part of what a mask is called: a file's name, decoded if it is in a URL; of a repo alone, its name."""
    if (place := hub(mask)) is not None:
        return PurePosixPath(place.name or place.repo).name
    return PurePosixPath(unquote(public_name(mask))).name if is_url(mask) else Path(mask).name


def distinct_names(masks: Sequence[str | Path]) -> list[str]:
    """The shortest names that tell masks apart: of their files, with as many folders before as that takes.

    They can be names of folders. A ``mask.msk``, as every run has one, is always called with its folder: ``run-mask``.
    What is named twice gets a number.
    """
    paths = [_components(mask) for mask in masks]
    depths = [2 if path[-1] == "mask" else 1 for path in paths]
    while True:
        names = ["-".join(path[-depth:]) for path, depth in zip(paths, depths, strict=True)]
        shared = Counter(name for name, _ in set(zip(names, paths, strict=True)))
        short = [i for i, name in enumerate(names) if shared[name] > 1 and depths[i] < len(paths[i])]
        if not short:
            break
        for i in short:
            depths[i] += 1
    found: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found.append(name if name not in found else next(n for n in numbered if n not in {*found, *names}))
    return found


def _components(mask: str | Path) -> tuple[str, ...]:
    """The names of the folders that a mask is in, from the outermost, and its file's without the suffix."""
    if (place := hub(mask)) is not None:
        user, repo = place.repo.split("/")
        parts = [user, *((place.name and [repo]) or ()), place.revision or "", *(place.name or repo).split("/")]
    elif is_url(mask):
        parts = [unquote(part) for part in SCHEMES.sub("", public_name(mask)).split("/")]
    else:
        parts = list((Path(mask).resolve() if ".." in Path(mask).parts else Path(mask)).parts)
    *folders, _ = parts or [""]
    name = file_name(mask).removesuffix(SUFFIX)
    return *(f.replace("/", "-") for f in folders if f.strip("./")), name if name.strip(".") else "mask"


def with_suffix(name: str) -> str:
    """A mask's file name. Raises RemoteError for one that leads elsewhere, is hidden, or cannot be a file's."""
    found = "/".join(PurePosixPath(name).parts).removesuffix(SUFFIX) + SUFFIX
    if name.startswith("/") or not is_name(found):
        raise RemoteError(f"{short(name)}: not a name for a mask", hint="Take letters, digits, '-', '_' and '.'.")
    return found


def is_name(name: str) -> bool:
    """Whether a mask's file in a repo can be called so: a path of plain names. ``@`` is where a revision begins."""
    return (
        name.isprintable()
        and not set(name) & set("\\@")
        and len(name.encode()) <= 5 * LONGEST
        and all(part and not part.startswith(".") and len(part.encode()) <= LONGEST for part in name.split("/"))
    )


def short(name: str) -> str:
    """A name in quotes, of a very long one its start."""
    return repr(name if len(name) <= LONGEST else f"{name[:40]}…")


def _parse(text: str) -> Hub | None:
    match = _REPO.fullmatch(text)
    if match is None:
        return None
    rest, at, late = (match["rest"] or "").partition("@")
    if at and (match["early"] or not late or not rest):
        return None
    try:
        return Hub(match["repo"], with_suffix(rest) if rest else None, match["early"] or late or None)
    except RemoteError:
        return None


def exists(text: str | Path) -> bool:
    """Whether there is such a path here."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or with a null byte
        return False
