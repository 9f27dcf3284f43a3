"""moto's S3 in a process of its own, and a proxy before it that breaks connections off on demand."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

SERVER = """if True:
    import sys
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def moto(**environment: str) -> Iterator[int]:
    """The port of a running server."""
    import os

    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@dataclass
class Fault:
    """What happens to a request whose first line matches: the connection breaks when so many bytes have passed.

    ``answer`` counts those of the answer, else those of the request. ``hold`` stops there instead, for ever.
    """

    pattern: str
    after: int = 0
    answer: bool = False
    hold: bool = False
    times: int = 1


@dataclass
class Proxy:
    """Passes everything on to ``port``; ``requests`` are the first lines of what was asked."""

    target: int
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Proxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self.target))
        fault: list[Fault] = []  # of the request in progress
        threading.Thread(target=self._answers, args=(server, client, fault), daemon=True).start()
        passed = 0
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if found := re.match(rb"(?:GET|HEAD|PUT|POST|DELETE) \S+", data):
                    line = found[0].decode()
                    self.requests.append(line)
                    fault[:] = [f for f in self.faults if re.match(f.pattern, line) and f.times][:1]
                    passed = 0
                    for one in fault:
                        one.times -= 1
                if fault and not fault[0].answer and passed + len(data) > fault[0].after:
                    server.sendall(data[: fault[0].after - passed])
                    self._end(fault[0], client, server)
                    return
                passed += len(data)
                server.sendall(data)
        _close(server)

    def _answers(self, server: socket.socket, client: socket.socket, fault: list[Fault]) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if fault and fault[0].answer:
                    if passed + len(data) > fault[0].after:
                        client.sendall(data[: fault[0].after - passed])
                        self._end(fault[0], client, server)
                        return
                    passed += len(data)
                client.sendall(data)
        _close(client)

    def _end(self, fault: Fault, client: socket.socket, server: socket.socket) -> None:
        if fault.hold:
            self.held.set()
            with contextlib.suppress(OSError):
                while client.recv(1 << 16):
                    pass  # and nothing is passed on
        for one in (client, server):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            _close(one)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
