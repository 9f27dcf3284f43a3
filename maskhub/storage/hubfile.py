"""Masks in repos on the Hub: found, read in parts, taken through the Hub's cache; its errors as one line each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from maskhub import __version__
from maskhub.errors import ForbiddenError, MaskhubError, MissingError, RemoteError, listed
from maskhub.storage.address import SUFFIX, Hub, is_name
from maskhub.storage.remotefile import (
    HEAD,
    FileReader,
    HttpReader,
    Reader,
    RemoteFile,
    brief,
    unknown_host,
)
from maskhub.storage.source import LocalFile, Source

if TYPE_CHECKING:
    from huggingface_hub import HfApi

P = ParamSpec("P")
T = TypeVar("T")
LIBRARY: dict[str, Any] = {"library_name": "maskhub", "library_version": __version__}
LOG_IN = "Log in with 'hf auth login', set HF_TOKEN, or pass --token."


class UnreachableError(RemoteError):
    """The Hub gives no answer, or may not be asked. What lies in the cache can be used all the same."""


class RefusedError(RemoteError):
    """The Hub's client does not take what it is given, by us or by the Hub."""


def client(token: str | None) -> HfApi:
    """The Hub's client. Raises RemoteError for a token that no header can carry."""
    from huggingface_hub import HfApi, get_token

    if not re.fullmatch(r"[\x21-\x7e]*", token or get_token() or ""):
        raise RemoteError("the token has characters that no token of the Hub has", hint=LOG_IN)
    return HfApi(token=token, **LIBRARY)


def open_hub(place: Hub, token: str | None = None, *, whole: bool = False) -> Source:
    """A mask on the Hub, to be read: of one that the Hub's cache lacks, only what is asked for is fetched.

    A ``whole`` one comes through that cache.
    """
    from huggingface_hub import hf_hub_url

    place, name = named(place, token)
    if whole:
        return LocalFile(download(place, token), str(place))
    try:
        url = hf_hub_url(place.repo, name, revision=place.revision)
        found = ask(place, client(token).get_hf_file_metadata, url=url)
    except UnreachableError:
        if (path := cached(place)) is None:
            raise
        return LocalFile(path, str(place))
    exact = replace(place, revision=found.commit_hash)
    path = cached(exact)
    return LocalFile(path, str(place)) if path else _HubFile(exact, str(place), token, found.location)


class _HubFile(RemoteFile):
    """A mask read in parts. Asked for as a whole it comes through the Hub's cache, and stays there.

    ``location`` is where its bytes lie now: it is asked at first, and the Hub later, as such places are not for long.
    """

    def __init__(self, place: Hub, name: str, token: str | None, location: str) -> None:
        from huggingface_hub import hf_hub_url

        assert place.name is not None
        super().__init__(hf_hub_url(place.repo, place.name, revision=place.revision))
        self.name = name
        self._place, self._token, self._location = place, token, location

    def _start(self, url: str) -> None:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        login = build_hf_headers(token=client(self._token).token, **LIBRARY).get("authorization")
        there = urlsplit(self._location).netloc == urlsplit(url).netloc  # no other host gets the token
        first = HttpReader(self._location, str(self.name), login if there else None)
        self._reader: Reader = first
        self._take(0, HEAD)
        self._reader = first.moved(url, login)

    def fetch(self, start: int, stop: int) -> None:
        if (start, stop) == (0, self._reader.size) and stop > HEAD:
            self._reader = FileReader(str(download(self._place, self._token)), str(self.name))
        super().fetch(start, stop)


def download(place: Hub, token: str | None = None, *, again: bool = False) -> Path:
    """A file of a repo, in the Hub's cache; with ``again`` fetched anew. Raises RemoteError."""
    assert place.name is not None
    try:
        get = client(token).hf_hub_download
        path = ask(place, get, place.repo, place.name, revision=place.revision, force_download=again)
    except UnreachableError:
        if again or (found := cached(place)) is None:
            raise
        return found
    return Path(path)


def cached(place: Hub) -> Path | None:
    """A file of a repo, if it lies in the Hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    found = ask(place, try_to_load_from_cache, place.repo, place.name or "", revision=place.revision)
    return Path(found) if isinstance(found, str) else None


def named(place: Hub, token: str | None = None) -> tuple[Hub, str]:
    """The place with the name of its mask: the only one of the repo where none was given. Raises RemoteError."""
    if place.name is not None:
        return place, place.name
    try:
        info = ask(place, client(token).model_info, place.repo, revision=place.revision)
        names = masks(s.rfilename for s in info.siblings or ())
    except UnreachableError:
        names = _cached_names(place)
        if not names:
            raise
    if not names:
        raise RemoteError(f"{place}: the repo has no mask, no file *{SUFFIX}", hint="Masks get there by: maskhub push.")
    if len(names) > 1:
        raise RemoteError(
            f"{place}: the repo has several masks: {listed(names, 10)}",
            hint=f"Name one: {replace(place, name=names[0])}",
        )
    return replace(place, name=names[0]), names[0]


def masks(files: Iterable[str]) -> list[str]:
    """Which of a repo's files are masks with names that can be asked for, and that lead nowhere else."""
    return sorted(name for name in files if name.endswith(SUFFIX) and is_name(name))


def _cached_names(place: Hub) -> list[str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            place.repo, revision=place.revision, allow_patterns=f"*{SUFFIX}", local_files_only=True
        )
    except LocalEntryNotFoundError:
        return []
    return masks(path.relative_to(found).as_posix() for path in Path(found).rglob(f"*{SUFFIX}"))


def ask(place: Hub | None, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """What a call of the Hub's client gives, over a place or over none.

    What it raises becomes a RemoteError, MissingError or ForbiddenError. Its messages are not passed on as they are:
    they hold URLs, some of them signed.
    """
    try:
        return call(*args, **options)
    except MaskhubError:
        raise
    except Exception as error:
        if (known := _explain(place, error)) is None:
            raise
        raise known from error


def _explain(place: Hub | None, error: BaseException) -> MaskhubError | None:
    from huggingface_hub import errors

    chain = [error]  # and what it came from
    while (cause := chain[-1].__cause__) and len(chain) < 20:
        chain.append(cause)

    def find(kind: type[BaseException]) -> Any:
        return next((e for e in chain if isinstance(e, kind)), None)

    repo = place.repo if place else "the Hub"
    if find(errors.OfflineModeIsEnabled):
        what = f"{place}: not in the Hub's cache, and offline mode is on" if place else "offline mode is on"
        return UnreachableError(what, hint="Unset HF_HUB_OFFLINE.")
    if find(errors.GatedRepoError):
        return ForbiddenError(f"{repo}: gated, and you have no access", hint=f"Ask for it on the repo's page. {LOG_IN}")
    if find(errors.RevisionNotFoundError):
        revision = (place and place.revision) or "main"
        return MissingError(f"{repo}: no revision {revision}", hint="Name a branch, a tag or a commit.")
    if find(errors.RemoteEntryNotFoundError):
        return MissingError(f"{place}: no such file in the repo", hint=f"See what there is: maskhub list {repo}")
    if find(errors.HFValidationError):
        return MissingError(f"{repo}: neither a file here nor a name that the Hub allows", hint="Name it as user/repo.")
    response: Any = getattr(find(errors.HfHubHTTPError), "response", None)
    status = response.status_code if response is not None else 0
    if find(errors.RepositoryNotFoundError) or status == 404:
        return MissingError(
            f"{place}: no such file here, and no repo {repo} on the Hub that you may see",
            hint=f"Check the name. If it is private: {LOG_IN[0].lower()}{LOG_IN[1:]}",
        )
    if status == 401:
        refused = "authorization" in response.request.headers
        return ForbiddenError(f"{repo}: {'the token is not accepted' if refused else 'a token is needed'}", hint=LOG_IN)
    if status == 403:
        return ForbiddenError(
            f"{repo}: the token does not permit this", hint="Use one with write access, or --create-pr."
        )
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        when = f"in {wait} seconds" if wait.isdigit() else "later"
        return UnreachableError(f"{repo}: too many requests", hint=f"Run it again {when}.")
    if status >= 500:
        return UnreachableError(f"{repo}: the server answers {status}", hint="Run it again later.")
    if status:
        return RemoteError(f"{repo}: the server answers {status}: {brief(find(errors.HfHubHTTPError))}")
    if local := next((e for e in chain if isinstance(e, OSError) and e.errno and e.filename), None):
        return RemoteError(f"{local.filename}: the Hub's client cannot use it: {local.strerror}")
    if unknown_host(error):
        from huggingface_hub.constants import ENDPOINT

        return UnreachableError(
            f"{repo}: the Hub's host {urlsplit(ENDPOINT).hostname} is not found",
            hint="Check the network, and the variable HF_ENDPOINT if it is set.",
        )
    # The client's own library for HTTP differs between its versions.
    if wire := [e for e in chain if isinstance(e, OSError) or type(e).__module__.startswith("httpx")]:
        # Of what came too short, the client says so with the end of a signed URL.
        why = "the file ended early" if "Consistency check" in str(wire[-1]) else brief(wire[-1])
        return UnreachableError(f"{repo}: cannot be reached, or broke off: {why}", hint="Run it again.")
    if isinstance(error, ValueError | TypeError | KeyError):  # of a repo that says of itself what nobody expected
        return RefusedError(f"{repo}: the Hub's client refuses it: {brief(error)}")
    return None
