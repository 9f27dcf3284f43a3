"""A real HTTP server on this machine that gives parts of files, counts the bytes it gives, and misbehaves on demand."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Answer = Callable[["Handler"], None]


@dataclass
class Request:
    """What was asked for (None: all bytes), and how many bytes of the body were given."""

    path: str
    asked: tuple[int, int] | None
    headers: dict[str, str]
    given: int = 0


class RangeServer:
    """Serves ``files``, by path. ``answers`` replaces what is answered from the n-th request (from 0) on."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[int, Answer] = {}
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"owner": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def given(self) -> int:
        """Bytes of all bodies."""
        return sum(request.given for request in self.requests)

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.port}/{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    owner: RangeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        number = len(self.owner.requests)
        self.close_connection = True
        self.request_seen = Request(self.path, self.asked, dict(self.headers))
        self.owner.requests.append(self.request_seen)
        answer = next((a for n, a in sorted(self.owner.answers.items(), reverse=True) if n <= number), part)
        answer(self)

    @property
    def asked(self) -> tuple[int, int] | None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return (int(found[1]), int(found[2]) + 1) if found else None

    @property
    def content(self) -> bytes:
        return self.owner.files[self.path.partition("?")[0].removeprefix("/")]

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def give(self, body: bytes) -> None:
        self.request_seen.given += len(body)  # before the client can know of it
        self.wfile.write(body)

    def drop(self) -> None:
        """Break the connection off, not end it."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()


def part(handler: Handler, *, etag: str = '"1"') -> None:
    """What a good server does."""
    if handler.path.partition("?")[0].removeprefix("/") not in handler.owner.files:
        return handler.head(404, Content_Length=0)
    content, asked = handler.content, handler.asked
    if asked is None:
        return whole(handler)
    start, stop = asked[0], min(asked[1], len(content))
    if start >= stop:
        return handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
    handler.head(206, Content_Range=f"bytes {start}-{stop - 1}/{len(content)}", Content_Length=stop - start, ETag=etag)
    return handler.give(content[start:stop])


def whole(handler: Handler) -> None:
    """A server without ranges, such as Python's own."""
    handler.head(200, Content_Length=len(handler.content))
    handler.give(handler.content)


def whole_of_unknown_length(handler: Handler) -> None:
    handler.head(200)
    handler.give(handler.content)


def status(code: int) -> Answer:
    return lambda handler: handler.head(code, Content_Length=0)


def redirect(url: str) -> Answer:
    return lambda handler: handler.head(302, Location=url, Content_Length=0)


def changed(handler: Handler) -> None:
    """The same size, and another ETag."""
    part(handler, etag='"2"')


def grown(handler: Handler) -> None:
    """Another size, and no ETag."""
    assert handler.asked
    start, stop = handler.asked
    size = len(handler.content) + 1
    handler.head(206, Content_Range=f"bytes {start}-{stop - 1}/{size}", Content_Length=stop - start)
    handler.give(handler.content[start:stop])


def claim(part: str | None, body: bytes = b"", length: int | None = None) -> Answer:
    """Any Content-Range, body and Content-Length."""

    def answer(handler: Handler) -> None:
        headers = {"Content_Range": part} if part else {}
        handler.head(206, Content_Length=len(body) if length is None else length, ETag='"1"', **headers)
        handler.give(body)

    return answer


def cut(after: int, *, drop: bool) -> Answer:
    """The right headers, and a body that ends early: in order, or with the connection dropped."""

    def answer(handler: Handler) -> None:
        assert handler.asked
        start, stop = handler.asked
        stop = min(stop, len(handler.content))
        handler.head(
            206, Content_Range=f"bytes {start}-{stop - 1}/{len(handler.content)}", Content_Length=stop - start,
            ETag='"1"',
        )  # fmt: skip
        handler.give(handler.content[start : start + after])
        if drop:
            handler.drop()

    return answer
