"""Files elsewhere, over HTTP or on any file system of fsspec: only what is asked for is fetched, and only once."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from maskhub import __version__
from maskhub.errors import ForbiddenError, MaskhubError, MissingError, RemoteError, reason
from maskhub.storage.atomic import write_at
from maskhub.storage.regular import open_regular
from maskhub.storage.source import read_at
from maskhub.storage.tensor import Bytes
from maskhub.storage.url import public_name, without_logins

HEAD = 1 << 14  # bytes that the first request asks for: all of most masks but their bits
FIRST = 1 << 20  # the same where the whole file is wanted: all of most masks
MAX_SIZE = 1 << 40  # of a file
WHOLE = 1 << 26  # bytes taken from a server that gives files only whole; also kept in memory at most
CHUNK = 1 << 20
FILLED = 0.9  # of what a disk has free: more is not taken
RIGHTS = "You lack the rights, or credentials are missing or wrong."
TIMEOUT = 30  # seconds without an answer
# Where the packages that fsspec takes look for credentials, by the schemes of URLs.
AWS = "For S3 they are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile that AWS_PROFILE names."
GOOGLE = "For Google they are in the file that GOOGLE_APPLICATION_CREDENTIALS names, or of 'gcloud auth'."
AZURE = "For Azure they are in AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY."
SSH = "For SSH they are the keys of the agent or in ~/.ssh, or stand in the URL: ssh://USER:PASSWORD@HOST."
LOGINS = {
    "s3": AWS, "s3a": AWS, "gs": GOOGLE, "gcs": GOOGLE, "az": AZURE, "abfs": AZURE, "abfss": AZURE, "adl": AZURE,
    "ssh": SSH, "sftp": SSH, "ftp": "For FTP they stand in the URL: ftp://USER:PASSWORD@HOST.",
}  # fmt: skip
NETWORK = "Check the name and the network."


class RemoteFile:
    """A remote file as a sparse local copy without a name, which fills with what is fetched; ``first`` bytes at once.

    Raises RemoteError where bytes cannot be had.
    """

    def __init__(self, url: str, first: int = HEAD) -> None:
        self.name: Path | str = public_name(url)
        self._url, self._first = url, first
        self._fetched: list[tuple[int, int]] = []

    def open(self) -> int:
        self._handle, name = tempfile.mkstemp(prefix="maskhub-")
        weakref.finalize(self, os.close, self._handle)
        Path(name).unlink()
        self._start(self._url)
        size = self._reader.size
        if size > MAX_SIZE:
            raise RemoteError(f"{self.name}: said to have {size:,} bytes, which no mask has")
        os.truncate(self._handle, size)
        return size

    @property
    def whole(self) -> bool:
        place = 0
        for first, last in sorted(self._fetched):
            if first > place:
                return False
            place = max(place, last)
        return place >= self._reader.size

    def read_into(self, start: int, into: Bytes) -> None:
        self.fetch(start, start + into.size)
        read_at(self._handle, start, into, self.name)

    def fetch(self, start: int, stop: int) -> None:
        for first, last in sorted(self._fetched):
            if start < first < stop:
                self._take(start, first)
            if first < stop:
                start = max(start, last)
        if start < stop:
            need_room(stop - start, Path(tempfile.gettempdir()), str(self.name))
            self._take(start, stop)

    def _start(self, url: str) -> None:
        self._reader = _reader(url)
        self._take(0, self._first)

    def _take(self, start: int, stop: int) -> None:
        place = start
        for chunk in self._reader.read(start, stop):
            try:
                place = write_at(self._handle, chunk, place)
            except OSError as error:
                folder = tempfile.gettempdir()
                raise RemoteError(
                    f"{self.name}: no room for it in {folder}: {error.strerror}",
                    hint="The variable TMPDIR names another folder.",
                ) from error
        self._fetched.append((start, place))


def read_small(url: str, limit: int) -> bytes:
    """A whole file of at most ``limit`` bytes, as it is at one time.

    Raises MissingError, RemoteError, and FormatError for what is here and no file.
    """
    if _is_http(url):
        content = b"".join(_reader(url).read(0, limit + 1))
    else:
        system, path = file_system(url)
        if system.async_impl:  # object stores: a second request could meet another file
            content = ask(url, system.cat_file, path, start=0, end=limit + 1)
        else:
            content = b"".join(FileReader(url, public_name(url)).read(0, limit + 1))
    if len(content) > limit:
        raise RemoteError(f"{public_name(url)}: larger than {limit:,} bytes")
    return content


def read_whole(url: str, folder: Path) -> Iterator[bytes]:
    """A file in pieces, to be written to ``folder``. Raises MissingError, RemoteError, FormatError as ``read_small``.

    Its size is what its server says; where there is no room for that, nothing is given.
    """
    reader = _reader(url)
    for number, chunk in enumerate(reader.read(0, MAX_SIZE)):
        if number == 0:
            need_room(reader.size, folder, public_name(url))
        yield chunk


def need_room(size: int, folder: Path, name: str) -> None:
    """RemoteError where a file of this size is none that a mask can have, or would fill the disk of ``folder``."""
    if size > MAX_SIZE:
        raise RemoteError(f"{name}: said to have {size:,} bytes, which no mask has")
    free = shutil.disk_usage(folder).free
    if size > free * FILLED:
        raise RemoteError(
            f"{name}: no room for its {size:,} bytes: the disk of {folder} has {free:,}",
            hint="The variables MASKHUB_CACHE and TMPDIR name other folders.",
        )


def file_system(url: str) -> tuple[Any, str]:
    """Fsspec's file system of a URL or path, and its name for the place. Call it by ``ask``."""
    import fsspec

    system, path = ask(url, fsspec.url_to_fs, url)
    system.invalidate_cache()  # of what lies where: others write, too
    return system, path


def ask(url: str, call: Callable[..., Any], *args: Any, doing: str = "read", **options: Any) -> Any:
    """What a call of a file system gives; what it raises becomes a RemoteError (or MissingError, ...) about ``url``."""
    name = public_name(url)
    try:
        return call(*args, **options)
    except MaskhubError:
        raise
    except FileNotFoundError as error:
        raise MissingError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise MissingError(f"{name}: a folder, not a file") from error
    except Exception as error:  # every file system raises its own kinds
        schemes = re.findall(r"([a-z0-9+.-]+)(?=://)", url.lower())
        where = next((LOGINS[scheme] for scheme in schemes if scheme in LOGINS), None)
        what = f"{name}: cannot be {doing}: {brief(error)}"
        if isinstance(error, PermissionError):
            raise ForbiddenError(what, hint=f"{RIGHTS} {where}" if where else RIGHTS) from error
        hint = where if re.search("credential", brief(error), re.IGNORECASE) else None
        raise RemoteError(what, hint=NETWORK if unknown_host(error) else hint) from error


def _reader(url: str) -> Reader:
    return (HttpReader if _is_http(url) else FileReader)(url, public_name(url))


def _is_http(url: str) -> bool:
    return re.match("https?://", url, re.IGNORECASE) is not None


class HttpReader:
    """A file on a web server, which must give parts of it, or all of it if it is small.

    ``size`` is that of the file, known when something was read.
    """

    def __init__(self, url: str, name: str, login: str | None = None) -> None:
        self.size = 0
        self._name = name
        self._version: tuple[int, str | None] | None = None
        try:
            parts = urlsplit(url)
            user, _, host = parts.netloc.rpartition("@")
            self._url = quote(urlunsplit(parts._replace(netloc=host, fragment="")), safe="%/:=&?~+!$,;'@()*[]")
        except ValueError as error:
            raise RemoteError(f"{name}: not a valid URL") from error
        self._login = "Basic " + base64.b64encode(unquote(user).encode()).decode() if user else login
        self._opener = request.OpenerDirector()
        for handler in (
            request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, request.HTTPRedirectHandler,
            request.HTTPErrorProcessor, request.HTTPDefaultErrorHandler, request.UnknownHandler,
        ):  # fmt: skip
            self._opener.add_handler(handler())

    def moved(self, url: str, login: str | None = None) -> HttpReader:
        """The same file at another URL, which must be no other version of it."""
        there = HttpReader(url, self._name, login)
        there.size, there._version = self.size, self._version
        return there

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """These bytes, or those up to the file's end; more where they can only be had whole."""
        asked = request.Request(  # noqa: S310  # the opener knows HTTP alone
            self._url,
            headers={
                "Range": f"bytes={start}-{stop - 1}",
                "Accept-Encoding": "identity",
                "User-Agent": f"maskhub/{__version__}",
            },
        )
        if self._login:
            asked.add_unredirected_header("Authorization", self._login)  # another host must not get it
        done, length = 0, None
        try:
            with self._opener.open(asked, timeout=TIMEOUT) as response:
                length = self._length(response, start, stop)
                most = WHOLE if length is None else length
                while chunk := response.read(min(CHUNK, most - done)):
                    done += len(chunk)
                    yield chunk
                if length is None:
                    if response.read(1):
                        raise self._only_whole(f"more than {WHOLE:,}")
                    self.size = length = done
        except HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start == 0:
                return  # an empty file
            raise self._refused(error.code) from error
        except (InvalidURL, UnicodeError) as error:
            raise RemoteError(f"{self._name}: not a valid URL") from error
        except MaskhubError:
            raise
        except (OSError, HTTPException) as error:
            if length is None and not done:
                if unknown_host(error):
                    raise RemoteError(f"{self._name}: its host is not found", hint=NETWORK) from error
                raise RemoteError(f"{self._name}: cannot be reached: {brief(error)}") from error
            raise self._ended(done, length, brief(error)) from error
        if done < length:
            raise self._ended(done, length)

    def _length(self, response: HTTPResponse, start: int, stop: int) -> int | None:
        """How many bytes come; None where the server gives the whole file, and does not say how long it is."""
        if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise self._refused(response.status)
        whole = response.status == HTTPStatus.OK
        part = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("Content-Range", ""))
        if not whole and not part:
            raise RemoteError(f"{self._name}: the server does not say which part of the file it gives")
        first, last, size = map(int, part.groups()) if part and not whole else (0, -1, response.length or 0)
        version = size, response.headers.get("ETag") or response.headers.get("Last-Modified")
        if self._version not in (None, version):
            raise RemoteError(f"{self._name}: the file changed while it was read", hint="Run it again.")
        self._version, self.size = version, size
        if whole:
            if start or size > WHOLE:
                raise self._only_whole(f"{size:,}" if size else "an unknown number of")
            return response.length
        if (first, last + 1) != (start, min(stop, size)):
            raise RemoteError(f"{self._name}: the server gives another part of the file than was asked for")
        return last + 1 - first

    def _only_whole(self, size: str) -> RemoteError:
        return RemoteError(
            f"{self._name}: the server gives no parts of files (range requests), and this one has {size} bytes",
            hint="Download it, and name the file.",
        )

    def _refused(self, status: int) -> MaskhubError:
        phrase = f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""
        hint = "A login or a token is missing, wrong or too old." if status in (401, 403) else None
        kinds: dict[int, type[MaskhubError]] = {401: ForbiddenError, 403: ForbiddenError, 404: MissingError}
        return kinds.get(status, RemoteError)(f"{self._name}: the server answers {status}{phrase}", hint=hint)

    def _ended(self, done: int, length: int | None, why: str = "") -> RemoteError:
        total = "" if length is None else f" of {length:,}"
        return RemoteError(
            f"{self._name}: the connection ended after {done:,}{total} bytes{f': {why}' if why else ''}",
            hint="Run it again.",
        )


class FileReader:
    """A file on a file system of fsspec, or here."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()  # the file has one position
        self._url = url
        self._system, path = file_system(url)  # kept: an archive closes its files when it goes
        self._file, self.size = ask(url, self._open, path)

    def _open(self, path: str) -> tuple[Any, int]:
        from fsspec.implementations.local import LocalFileSystem

        if isinstance(self._system, LocalFileSystem) and not self._system.isdir(path):
            file: Any = open_regular(path, self._name)
        else:
            file = self._system.open(path, "rb", cache_type="none")  # nothing is read ahead
        file.seek(0, os.SEEK_END)
        size = int(file.tell())
        if not size and self._system.isdir(path):  # object stores open those, too
            raise IsADirectoryError(path)
        return file, size

    def _read(self, start: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return bytes(self._file.read(size))

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        stop = min(stop, self.size)
        while start < stop:
            chunk = ask(self._url, self._read, start, min(WHOLE, stop - start))
            if not chunk:
                raise RemoteError(f"{self._name}: ends after {start:,} of {self.size:,} bytes")
            yield chunk[: stop - start]
            start += len(chunk)


Reader = HttpReader | FileReader


def unknown_host(error: BaseException | None) -> bool:
    """Whether an error came of a host's name that nobody knows, or of having no network to ask."""
    for _ in range(20):  # a loop of causes, at worst
        if error is None or isinstance(error, socket.gaierror):
            break
        wrapped = error.reason if isinstance(error, URLError) else None
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__ or error.__context__
    return isinstance(error, socket.gaierror)


def brief(error: BaseException) -> str:
    """What went wrong in a few words, without secrets: other libraries' messages name URLs."""
    cause = error.reason if isinstance(error, URLError) else error
    text = cause if isinstance(cause, str) else getattr(cause, "strerror", None) or reason(cause)
    return re.sub(r"(\w://[^\s?#]*)[?#]\S*", r"\1", without_logins(text)).rstrip(" .")
