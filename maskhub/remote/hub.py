"""Masks in repos on the Hub: pushed in one commit with their card, fetched through the Hub's cache, and listed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from maskhub.container.reader import MaskFile
from maskhub.errors import ArgumentError, MaskhubError, MissingError, RemoteError
from maskhub.remote import card, signing
from maskhub.remote.entry import Entry, Fetched, Listed, Pushed, claim_name
from maskhub.remote.fit import Opener
from maskhub.storage.address import SUFFIX, Hub, is_name, short
from maskhub.storage.hubfile import RefusedError, ask, client, download, named

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

TRIES = 10  # while others push to the repo, too
READERS = 8  # headers read at once


def push(
    file: MaskFile,
    entry: Entry,
    place: Hub,
    *,
    signature: bytes | None,
    message: str | None,
    private: bool,
    revision: str | None,
    create_pr: bool,
    force: bool,
    token: str | None,
) -> Pushed:
    """One commit with the mask, its card and its signature; none where all is there already. Raises RemoteError."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError

    if place.revision and revision and place.revision != revision:
        raise ArgumentError(f"{place}: another revision than {revision}", hint="Leave one of them out.")
    place = Hub(place.repo, entry.name, revision or place.revision)
    api = client(token)
    tries = TRIES
    while True:
        info = ask(place, _repo, api, place, private, create_pr)
        present = {s.rfilename: s for s in info.siblings or ()}
        now = replace(place, revision=info.sha)
        text = None
        if card.FILE in present:
            text = download(replace(now, name=card.FILE), token).read_bytes().decode(errors="surrogateescape")
        if entry.name in present and not force and not _same(present[entry.name], file.content()):
            claim_name(file, partial(MaskFile, f"hf://{now}", token=token), f"{place.repo}/{entry.name}")
        changes = _changes(file, entry, place.repo, present, text, signature)
        pushed = Pushed(str(place), f"{api.endpoint}/{place.repo}", entry.id, bool(changes))
        if not changes:
            return pushed
        try:
            commit = ask(
                place,
                api.create_commit,
                place.repo,
                [CommitOperationAdd(name, content) for name, content in changes.items()],
                commit_message=message or f"Add the mask {entry.name}",
                revision=place.revision,
                create_pr=create_pr,
                parent_commit=info.sha,
            )
        except RemoteError as error:
            tries -= 1
            cause = error.__cause__
            if not tries or not isinstance(cause, HfHubHTTPError) or cause.response.status_code != 412:
                raise  # 412: there is a newer commit
        else:
            if commit.pr_revision:  # the mask is on no branch yet
                pushed = replace(pushed, address=str(replace(place, revision=commit.pr_revision)))
            return replace(pushed, url=commit.pr_url or commit.commit_url)


def _repo(api: HfApi, place: Hub, private: bool, create_pr: bool) -> ModelInfo:
    """The repo as it is now; made if it is missing, as is a branch of it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    def look() -> ModelInfo:
        return api.model_info(place.repo, revision=place.revision, files_metadata=True)

    try:
        found = look()
    except GatedRepoError:
        raise
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        if isinstance(error, RepositoryNotFoundError):
            api.create_repo(place.repo, private=private or None, exist_ok=True)
        if place.revision:
            if create_pr:
                raise
            api.create_branch(place.repo, branch=place.revision, exist_ok=True)
        return look()
    if private and not found.private:
        raise RemoteError(f"{place.repo}: the repo exists, and is public", hint="Change that on its settings page.")
    return found


def _changes(
    file: MaskFile,
    entry: Entry,
    repo: str,
    present: Mapping[str, RepoSibling],
    text: str | None,
    signature: bytes | None,
) -> dict[str, Path | bytes]:
    """What has to be committed, by the names of files; ``text`` is the card that is there."""
    contents: dict[str, Path | bytes] = {}
    content = file.content()
    if not _same(present.get(entry.name), content):
        contents[entry.name] = file.path if isinstance(file.path, Path) else bytes(content)
    signed = entry.name + signing.SUFFIX
    if signature and not _same(present.get(signed), signature):
        contents[signed] = signature
    new = card.updated(text, entry, repo, present)
    if new != text:
        contents[card.FILE] = new.encode()
    return contents


def _same(there: RepoSibling | None, content: bytes | memoryview) -> bool:
    """Whether a file of the repo has this content, by the digest that the Hub keeps of it."""
    if there is None or there.size != len(content):
        return False
    if there.lfs is not None:
        return there.lfs.sha256 == hashlib.sha256(content).hexdigest()
    blob = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    blob.update(content)
    return there.blob_id == blob.hexdigest()


def fetch(place: Hub, *, token: str | None = None, again: bool = False, signed: bool = False) -> Fetched:
    """A mask's file in the Hub's cache, which gets it if it lacks it, or ``again``; its signature where ``signed``.

    Raises RemoteError.
    """
    place, name = named(place, token)
    path = download(place, token, again=again)
    commit = path.parts[-1 - len(name.split("/"))]  # the folder of a snapshot is called so
    exact = replace(place, revision=commit)
    signature = None
    if signed:
        with contextlib.suppress(MissingError):
            signature = download(replace(exact, name=name + signing.SUFFIX), token, again=again).read_bytes()
    return Fetched(path, str(exact), signature)


def entries(
    place: Hub | None,
    *,
    base: str | None = None,
    author: str | None = None,
    search: str | None = None,
    limit: int | None = None,
    token: str | None = None,
) -> list[tuple[Listed, Opener]]:
    """Masks of one repo, or of all on the Hub, as their cards tell or else their headers, and how to open each.

    Of all, those of the first ``limit`` repos for a ``base`` that cards name. Raises RemoteError.
    """
    api = client(token)
    revision = place.revision if place else None
    if place:
        repos = [ask(place, api.model_info, place.repo, revision=revision)]
    else:
        filters = [card.TAG, *([f"base_model:{base}"] if base else [])]

        def look(cards: bool) -> list[ModelInfo]:
            found = api.list_models(
                filter=filters, author=author, search=search, limit=limit, full=True, cardData=cards
            )
            return list(found)

        try:
            repos = ask(None, look, True)
        except RefusedError:  # the client refuses all of a list for one card that it cannot take in
            repos = ask(None, look, False)
    with ThreadPoolExecutor(READERS) as pool:
        found_in = [(info, name, revision, token) for info in repos for name in _mask_files(info)]
        return list(pool.map(lambda one: _listed(*one), found_in))


def _mask_files(info: ModelInfo) -> list[str]:
    """A repo's files that are called masks, by names of any kind."""
    return sorted(s.rfilename for s in info.siblings or () if s.rfilename.endswith(SUFFIX))


def _listed(info: ModelInfo, name: str, revision: str | None, token: str | None) -> tuple[Listed, Opener]:
    place = Hub(info.id, name, revision)
    updated = str(info.last_modified or "") or None
    described = {entry.name: entry for entry in card.entries(info.card_data)}

    def opener() -> MaskFile:
        return MaskFile(f"hf://{place}", token=token)

    if not is_name(name):
        return Listed(str(place), None, updated, f"{info.id}: {short(name)}: not a name for a mask; left out"), opener
    try:
        entry = described[name] if name in described else Entry.of(opener().maskset().summary(), name)
    except MaskhubError as error:
        return Listed(str(place), None, updated, error.message), opener
    return Listed(str(place), entry, updated), opener
