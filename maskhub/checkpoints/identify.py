"""Which model on the Hub a local checkpoint is a copy of: so that masks can name it as others know it."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from maskhub.checkpoints.checkpoint import Checkpoint, blobs
from maskhub.errors import MaskhubError
from maskhub.masks.binding import HubRevision
from maskhub.storage.address import Hub, exists
from maskhub.storage.hubfile import ask, client
from maskhub.storage.regular import open_regular

ID = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")
Files = dict[str, tuple[int, str]]  # size and SHA-256


def identify(checkpoint: Checkpoint, *, name: str | None = None, token: str | None = None) -> HubRevision | None:
    """The model on the Hub whose weight files a checkpoint has; None where none is found.

    It is looked for in the Hub's cache, and on the Hub under ``name``, and what the checkpoint's configuration or
    folder is called by; where there is no network, in the cache alone. Files are hashed where a model has files of the
    same names and sizes.
    """
    if checkpoint.hub:
        return checkpoint.hub
    paths = {Path(shard.path).name: Path(shard.path) for shard in checkpoint.shards}

    @cache
    def sha256(file: str) -> str:
        with open_regular(paths[file]) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]

    names = dict.fromkeys(filter(None, [name, *_names(checkpoint)]))
    for id, commit, files in chain(_in_cache(), (found for n in names for found in _on_hub(n, token))):
        alike = all(n in files and path.stat().st_size == files[n][0] for n, path in paths.items())
        if alike and all(sha256(n) == files[n][1] for n in paths):
            return HubRevision(id, commit, {n: sha256(n) for n in sorted(paths)})
    return None


def base_warning(name: str, found: HubRevision | None = None, *, cure: str = "--base-name") -> str | None:
    """What is wrong with the name that a mask has for its base: others cannot find it. None where they can.

    ``found`` is what ``identify`` gave for it.
    """
    if ID.fullmatch(name) and not exists(name):
        return None
    known = f", whose files are those of {found.id}@{found.commit[:12]}" if found else ""
    return f"others cannot find the base {name}{known}: name it by {cure} {found.id if found else 'user/repo'}"


def _names(checkpoint: Checkpoint) -> Iterator[str]:
    """Hub ids that a checkpoint may have come from."""
    with contextlib.suppress(MaskhubError):
        asked = checkpoint.config().get("_name_or_path")
        if isinstance(asked, str) and ID.fullmatch(asked) and not exists(asked):
            yield asked
    folder = checkpoint.folder.absolute().name.removeprefix("models--")
    if "--" in folder and ID.fullmatch(id := folder.replace("--", "/")):
        yield id


def _in_cache() -> Iterator[tuple[str, str, Files]]:
    """What the Hub's cache holds, of each repo its newest commit first."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for repo in sorted(Path(HF_HUB_CACHE).glob("models--*")):
        newest = repo / "refs" / "main"
        main = newest.read_text().strip() if newest.is_file() else ""
        for snapshot in sorted(repo.glob("snapshots/*"), key=lambda path: (path.name != main, path.name)):
            found = blobs(snapshot.iterdir())
            files = {name: (blob.stat().st_size, blob.name) for name, blob in found.items() if blob.exists()}
            yield repo.name.removeprefix("models--").replace("--", "/", 1), snapshot.name, files


def _on_hub(name: str, token: str | None) -> Iterator[tuple[str, str, Files]]:
    id, _, revision = name.partition("@")
    place = Hub(id, revision=revision or None)
    try:
        info = ask(place, client(token).model_info, id, revision=place.revision, files_metadata=True, timeout=10)
    except MaskhubError:
        return
    if info.sha:
        yield info.id, info.sha, {s.rfilename: (s.lfs.size, s.lfs.sha256) for s in info.siblings or () if s.lfs}
