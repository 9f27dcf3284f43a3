from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zstandard
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

import maskhub
from maskhub.container.reader import MaskFile, open_mask
from maskhub.container.writer import save
from maskhub.errors import ForbiddenError, FormatError, IntegrityError, MissingError, RemoteError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.storage import digest, remotefile
from maskhub.storage.remotefile import HEAD
from maskhub.storage.url import public_name
from tests.storage import rangeserver
from tests.storage.rangeserver import Answer, Handler, RangeServer
from tests.tiny import read_parts, told

BIG = ("a", "b", "c")  # with payloads of 256 KiB


def make(path: Path, *, read: int = 0, weights: int = 1 << 21) -> Path:
    """A mask whose payloads are far larger than its manifest; ``read`` more base tensors make that longer."""
    rng = np.random.default_rng(0)
    masks = {name: Mask.from_bool(rng.random((1024, weights >> 10)) < 0.5) for name in BIG}
    names = (*masks, *(f"read.{i}" for i in range(read)))
    digests = {name: digest.mask_digest((), name.encode()) for name in names}
    base = BaseBinding.of("base", digests, {name: name for name in digests}, None)
    save(MaskSet(base, masks), path, codec="bits")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("big") / "big.msk")


@pytest.fixture
def server(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with RangeServer() as server:
        server.files["big.msk"] = path.read_bytes()
        yield server


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, in which nothing may stay."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def asked(server: RangeServer) -> list[tuple[int, int] | None]:
    return [request.asked for request in server.requests]


def place(file: MaskFile, name: str) -> tuple[int, int]:
    first = file._file.tensors["maskhub.masks"].start
    start, stop = file._places[name]
    return first + start, first + stop


def test_what_a_mask_is_takes_one_small_request(server: RangeServer, path: Path) -> None:
    url = server.url("big.msk")
    summary, local = maskhub.open(url).summary(), maskhub.open(path).summary()
    assert summary.file == url
    assert summary.file_bytes == path.stat().st_size > 3 << 18
    assert (summary.id, summary.masks) == (local.id, local.masks)
    assert asked(server) == [(0, HEAD)]
    assert server.given == HEAD == 16_384


def test_one_tensor_takes_its_payload_and_no_byte_more(server: RangeServer, path: Path, temporary: Path) -> None:
    local = MaskFile(path)
    maskset = maskhub.open(server.url("big.msk"))
    assert not list(temporary.iterdir())  # also while it is open
    assert np.array_equal(maskset.masks["b"].bits, local.mask("b").bits)
    assert asked(server) == [(0, HEAD), place(local, "b")]
    assert server.given == HEAD + (1 << 18)
    maskset.masks["b"].to_bool()
    assert len(server.requests) == 2  # fetched once
    assert np.array_equal(maskset.masks["a"].bits, local.mask("a").bits)
    assert asked(server)[2:] == [(HEAD, place(local, "a")[1])]  # the first request brought its beginning
    assert len({r.headers["Range"] for r in server.requests}) == 3
    assert {r.headers["Accept-Encoding"] for r in server.requests} == {"identity"}


def test_a_long_manifest_takes_two_requests(server: RangeServer, tmp_path: Path) -> None:
    long = make(tmp_path / "long.msk", read=2000)
    server.files["long.msk"] = long.read_bytes()
    file = MaskFile(server.url("long.msk"))
    stop = MaskFile(long)._file.tensors["maskhub.manifest"].stop
    assert asked(server) == [(0, HEAD), (HEAD, stop)]
    assert server.given == stop > HEAD
    assert len(file.manifest.base.tensors) == 2003


def test_a_check_of_all_takes_every_byte_once(server: RangeServer, path: Path) -> None:
    file = MaskFile(server.url("big.msk"))
    file.mask("b").bits  # noqa: B018
    file.verify()
    size, (start, stop) = path.stat().st_size, place(file, "b")
    assert asked(server) == [(0, HEAD), (start, stop), (HEAD, start), (stop, size)]
    assert server.given == size


def test_verify_takes_one_request(server: RangeServer, path: Path) -> None:
    assert maskhub.verify(server.url("big.msk")).file_bytes == path.stat().st_size == server.given
    assert len(server.requests) == 1


def test_a_mask_wanted_whole_takes_one_request(server: RangeServer, path: Path, tmp_path: Path) -> None:
    maskset = open_mask(server.url("big.msk"), whole=True)
    save(maskset, tmp_path / "copy.msk", codec="bits")
    assert (tmp_path / "copy.msk").read_bytes() == path.read_bytes()
    assert asked(server) == [(0, remotefile.FIRST)]


def test_a_large_mask_wanted_whole_takes_two_requests(server: RangeServer, tmp_path: Path) -> None:
    large = make(tmp_path / "large.msk", weights=1 << 22)
    server.files["large.msk"] = large.read_bytes()
    open_mask(server.url("large.msk"), whole=True)
    assert asked(server) == [(0, remotefile.FIRST), (remotefile.FIRST, large.stat().st_size)]


def test_many_threads_may_read_it(server: RangeServer, path: Path, tmp_path: Path) -> None:
    save(maskhub.open(server.url("big.msk")), tmp_path / "copy.msk", codec="bits")
    assert (tmp_path / "copy.msk").read_bytes() == path.read_bytes()
    assert server.given == path.stat().st_size


def test_a_small_mask_comes_with_the_first_request(server: RangeServer, mask_path: Path, maskset: MaskSet) -> None:
    server.files["t.msk"] = mask_path.read_bytes()
    remote = maskhub.open(server.url("t.msk"))
    assert all(np.array_equal(mask.bits, maskset.masks[name].bits) for name, mask in remote.masks.items())
    assert remote.dense["classifier.weight"].data.tobytes() == maskset.dense["classifier.weight"].data.tobytes()
    assert server.given == mask_path.stat().st_size
    assert len(server.requests) == 1


def test_a_damaged_payload_is_found(server: RangeServer, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    server.files["big.msk"] = bytes(content)
    maskset = maskhub.open(server.url("big.msk"))
    maskset.masks["a"].bits  # noqa: B018
    with pytest.raises(IntegrityError, match=r"/big.msk: c: the decoded mask does not match its digest"):
        maskset.masks["c"].bits  # noqa: B018
    with pytest.raises(IntegrityError, match=r"changed or damaged after it was written \(seal\)"):
        MaskFile(server.url("big.msk")).verify()


@pytest.mark.parametrize("answer", [rangeserver.whole, rangeserver.whole_of_unknown_length])
def test_a_server_without_ranges_gives_the_whole_file_once(server: RangeServer, path: Path, answer: Answer) -> None:
    server.answers[0] = answer
    file = MaskFile(server.url("big.msk"))
    file.verify()
    assert file.file_size == path.stat().st_size == server.given
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [rangeserver.whole, rangeserver.whole_of_unknown_length])
def test_a_large_file_is_not_taken_whole(
    server: RangeServer, path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotefile, "WHOLE", path.stat().st_size - 1)
    server.answers[0] = answer
    with pytest.raises(RemoteError, match=r"gives no parts of files \(range requests\), and this one has") as caught:
        MaskFile(server.url("big.msk"))
    assert caught.value.hint == "Download it, and name the file."
    monkeypatch.setattr(remotefile, "WHOLE", path.stat().st_size)
    MaskFile(server.url("big.msk")).verify()


NOT_ASKED = "the server gives another part of the file than was asked for"
FIRST: dict[str, tuple[Answer, str]] = {
    "missing": (rangeserver.status(404), "the server answers 404 Not Found"),
    "forbidden": (rangeserver.status(403), "the server answers 403 Forbidden"),
    "broken": (rangeserver.status(500), "the server answers 500 Internal Server Error"),
    "odd": (rangeserver.status(599), "the server answers 599"),
    "no content": (rangeserver.status(204), "the server answers 204 No Content"),
    "cut": (rangeserver.cut(1000, drop=False), r"the connection ended after 1,000 of 16,384 bytes"),
    "dropped": (rangeserver.cut(1000, drop=True), r"the connection ended after [\d,]+ of 16,384 bytes: Conn"),
    "silent": (lambda handler: handler.drop(), "cannot be reached: "),
    "no range": (rangeserver.claim(None, b"x"), "the server does not say which part of the file it gives"),
    "no size": (rangeserver.claim("bytes 0-65535/*"), "the server does not say which part"),
    "no numbers": (rangeserver.claim("bytes 0-65535/" + "9" * 5000), "the server does not say which part"),
    "late": (rangeserver.claim("bytes 1-65536/99999", b"x"), NOT_ASKED),
    "short": (rangeserver.claim("bytes 0-9/99999", b"0123456789"), NOT_ASKED),
    "long": (rangeserver.claim("bytes 0-99998/99999", b"x"), NOT_ASKED),
    "backwards": (rangeserver.claim("bytes 0-65535/10", b"x"), NOT_ASKED),
    "huge": (rangeserver.claim(f"bytes 0-{HEAD - 1}/{1 << 59}", bytes(HEAD)), f"said to have {1 << 59:,} bytes"),
    "loop": (lambda handler: rangeserver.redirect(handler.path)(handler), "the server answers 302 Found"),
    "elsewhere": (rangeserver.redirect("file:///etc/passwd"), "the server answers 302 Found"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIRST)
def test_what_goes_wrong_at_first(server: RangeServer, case: str) -> None:
    server.answers[0], message = FIRST[case]
    url = server.url("big.msk", login="bob:secret@") + "?token=hidden#part"
    with pytest.raises(OSError, match=message) as caught:
        MaskFile(url)
    assert str(caught.value).startswith(f"{server.url('big.msk')}: ")
    assert not any(word in str(caught.value) for word in ("\n", "bob", "secret", "hidden"))


LATER: dict[str, tuple[Answer, str]] = {
    "changed": (rangeserver.changed, "the file changed while it was read"),
    "another size": (rangeserver.grown, "the file changed while it was read"),
    "whole": (rangeserver.whole, "the file changed while it was read"),
    "gone": (rangeserver.status(404), "the server answers 404 Not Found"),
    "empty": (rangeserver.status(416), "the server answers 416"),
    "cut": (rangeserver.cut(1000, drop=False), r"the connection ended after 1,000 of 262,144 bytes"),
    "dropped": (rangeserver.cut(200_000, drop=True), r"the connection ended after [\d,]+ of 262,144 bytes: Conn"),
}


@pytest.mark.parametrize("case", LATER)
def test_what_goes_wrong_later_and_goes_well_again(server: RangeServer, path: Path, case: str) -> None:
    maskset = maskhub.open(server.url("big.msk"))
    server.answers[1], message = LATER[case]
    with pytest.raises(OSError, match=message):
        maskset.masks["b"].bits  # noqa: B018
    server.answers.clear()
    assert np.array_equal(maskset.masks["b"].bits, MaskFile(path).mask("b").bits)


def test_a_server_that_keeps_still(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = threading.Event()

    def still(handler: Handler) -> None:
        handler.head(206, Content_Range=f"bytes 0-{HEAD - 1}/{1 << 20}", Content_Length=HEAD)
        handler.give(b"x" * 1000)
        woken.wait(20)

    monkeypatch.setattr(remotefile, "TIMEOUT", 0.2)
    for answer, message in ((still, "the connection ended after "), (lambda _: woken.wait(20), "cannot be reached: ")):
        server.answers[0] = answer
        with pytest.raises(RemoteError, match=f"{message}.*timed out"):
            MaskFile(server.url("big.msk"))
    woken.set()


def test_a_server_that_stops_giving_parts(server: RangeServer) -> None:
    def whole(handler: Handler) -> None:
        handler.head(200, Content_Length=len(handler.content), ETag='"1"')

    maskset = maskhub.open(server.url("big.msk"))
    server.answers[1] = whole
    with pytest.raises(RemoteError, match="gives no parts of files"):
        maskset.masks["b"].bits  # noqa: B018


def test_what_cannot_be_reached(server: RangeServer) -> None:
    with RangeServer() as other:
        closed = other.port
    for url, message in {
        f"http://127.0.0.1:{closed}/x.msk?token=hidden": f"http://127.0.0.1:{closed}/x.msk: cannot be reached: Conn",
        "http://u:pw@nowhere.invalid/x.msk": "http://nowhere.invalid/x.msk: its host is not found. Check the name and ",
        f"https://127.0.0.1:{server.port}/big.msk": f"https://127.0.0.1:{server.port}/big.msk: cannot be reached: ",
        "http://127.0.0.1:port/x.msk": "http://127.0.0.1:port/x.msk: not a valid URL",
        "http://[::1/x.msk": "http://[::1/x.msk: not a valid URL",
        "http:///x.msk": "http:///x.msk: cannot be reached: no host given",
    }.items():
        with pytest.raises(RemoteError) as caught:
            MaskFile(url)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


ADVICE = {
    "s3": "AWS_ACCESS_KEY_ID", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_KEY", "abfs": "AZURE_STORAGE_ACCOUNT_KEY", "ssh": "~/.ssh", "sftp": "~/.ssh",
    "ftp": "ftp://USER", "odd": None,
}  # fmt: skip


@pytest.mark.parametrize("scheme", ADVICE)
@pytest.mark.parametrize(
    "error", [PermissionError("Forbidden"), ValueError("Your default Credentials were not found.")], ids=str
)
def test_the_advice_is_for_the_place(scheme: str, error: Exception) -> None:
    """These are errors as s3fs, gcsfs, adlfs and sshfs raise them."""

    def refuse() -> None:
        raise error

    for url in (f"{scheme}://u:secret@bucket/x.msk?sig=1", f"simplecache::{scheme.upper()}://bucket/x.msk"):
        with pytest.raises(RemoteError if isinstance(error, ValueError) else ForbiddenError) as caught:
            remotefile.ask(url, refuse)
        assert caught.value.message == f"{public_name(url)}: cannot be read: {str(error).rstrip('.')}"
        advice, hint = ADVICE[scheme], caught.value.hint or ""
        assert [word for word in set(ADVICE.values()) if word and word in hint] == ([advice] if advice else [])


def test_what_is_wrong_with_the_caller_is_not_the_files_fault(path: Path) -> None:
    """Only the file system's own call is explained."""

    def use(chunks: Iterator[bytes]) -> None:
        for _ in chunks:
            raise AttributeError("ours")

    for chunks in (remotefile.read_whole(str(path), path.parent), remotefile.FileReader(str(path), "x").read(0, 10)):
        with pytest.raises(AttributeError, match="ours"):
            use(chunks)


def test_an_empty_file_is_no_mask(server: RangeServer) -> None:
    server.files["empty.msk"] = b""
    fsspec.filesystem("memory").pipe_file("/empty.msk", b"")
    for url in (server.url("empty.msk"), "memory://empty.msk"):
        with pytest.raises(FormatError, match="not a safetensors file, or cut short"):
            MaskFile(url)


def test_logins_and_tokens_go_to_the_server_they_are_for(server: RangeServer, path: Path) -> None:
    with RangeServer() as other:
        other.files["big.msk"] = path.read_bytes()
        server.answers[1] = rangeserver.redirect(other.url("big.msk?signed=1"))
        maskset = maskhub.open(server.url("big.msk", login="ann:p%40ss@") + "?token=t")
        maskset.masks["b"].bits  # noqa: B018
    assert [r.path for r in server.requests] == ["/big.msk?token=t"] * 2
    basic = "Basic " + base64.b64encode(b"ann:p@ss").decode()
    assert [r.headers["Authorization"] for r in server.requests] == [basic] * 2
    (there,) = other.requests
    assert there.path == "/big.msk?signed=1"
    assert "Authorization" not in there.headers
    assert there.asked == server.requests[1].asked  # a redirected request still asks for the part only


def test_odd_names_reach_the_server(server: RangeServer, path: Path) -> None:
    server.files["a%20b%C3%A9.msk"] = path.read_bytes()
    for name in ("a bé.msk", "a%20b%C3%A9.msk"):
        assert len(maskhub.open(server.url(name)).masks) == 3


@pytest.mark.parametrize(
    ("url", "name"),
    {
        "https://u:p@host:8/a/b.msk?token=x#y": "https://host:8/a/b.msk",
        "https://u@p@host/b@1.msk": "https://host/b@1.msk",
        "hf://user/repo@main/b.msk": "hf://user/repo@main/b.msk",
        "zip://b.msk::https://u:p@host/a.zip?sig=x": "zip://b.msk::https://host/a.zip",
        "a/b?c#d.msk": "a/b?c#d.msk",
        "c:b.msk": "c:b.msk",
    }.items(),
)
def test_names_without_secrets(url: str, name: str) -> None:
    assert public_name(url) == name


HOSTILE = """if True:
    import resource, sys, time
    from maskhub.container.reader import MaskFile
    from maskhub.errors import MaskhubError
    MaskFile  # imported before the clock starts
    import maskhub.storage.remotefile
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        print(MaskFile(sys.argv[1]).file_size)
    except MaskhubError as error:
        print(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert peak < 64 << 10, peak  # kilobytes
    assert time.monotonic() - start < 10
"""


def opened_by_another(url: str) -> str:
    """What a process of its own, in bounded memory and time, says of a URL."""
    result = subprocess.run([sys.executable, "-c", HOSTILE, url], capture_output=True, text=True, timeout=60)
    assert not result.returncode, result.stderr
    return result.stdout.strip()


def test_sizes_that_are_lies_cost_nothing(server: RangeServer) -> None:
    tera = 1 << 40
    filled = bytes(HEAD)
    for length, size, message in (
        (1 << 62, tera, "not a safetensors file, or cut short (Error while deserializing header: header too large)"),
        ((1 << 64) - 1, tera, "header too large"),
        (100_000_001, tera, "header too large"),
        (99_999_999, 1 << 20, "invalid header length"),
        (99_999_999, tera, "the server gives another part of the file than was asked for"),
    ):
        server.requests.clear()
        head = struct.pack("<Q", length) + filled[8:]
        server.answers[0] = rangeserver.claim(f"bytes 0-{HEAD - 1}/{size}", head)
        assert message in opened_by_another(server.url("big.msk"))
        assert server.given <= 2 * HEAD


def test_a_payload_of_nearly_a_terabyte_is_not_fetched_for_info(server: RangeServer, path: Path) -> None:
    manifest, _ = read_parts(path)
    manifest["masks"]["c"]["bytes"] = 1 << 39
    frame = zstandard.compress(json.dumps(manifest).encode())
    sizes = {"maskhub.manifest": len(frame), "maskhub.masks": sum(m["bytes"] for m in manifest["masks"].values())}
    header: dict[str, Any] = {"__metadata__": told(manifest)}
    stop = 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [stop, stop + size]}
        stop += size
    text = json.dumps(header).encode()
    head = (struct.pack("<Q", len(text)) + text + frame).ljust(HEAD, b"\0")
    total = 8 + len(text) + stop
    server.answers[0] = rangeserver.claim(f"bytes 0-{HEAD - 1}/{total}", head)
    assert opened_by_another(server.url("big.msk")) == str(total)
    assert server.given == HEAD


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_no_copy_stays_open(server: RangeServer, temporary: Path) -> None:
    def copies() -> list[str]:
        gc.collect()
        found = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a connection that the server has just closed
                found.append(os.readlink(link))
        return [name for name in found if name.startswith(str(temporary))]

    maskset = maskhub.open(server.url("big.msk"))
    bits = maskset.masks["b"].bits
    assert copies()
    del maskset, bits
    assert not copies()
    server.answers[0] = rangeserver.cut(10, drop=False)
    with pytest.raises(RemoteError):
        MaskFile(server.url("big.msk"))
    assert not copies()


class Counted(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.fetched.append((start, end))
        return Path(self.path).read_bytes()[start:end]


class Counting(AbstractFileSystem):
    """A file system of fsspec's usual kind, which notes the ranges it is asked for."""

    protocol = "counting"
    cachable = True

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[tuple[int, int]] = []

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Counted:
        return Counted(self, path, mode, block_size or "default", **options)


def test_file_systems_are_asked_for_exact_ranges(path: Path) -> None:
    fsspec.register_implementation("counting", Counting, clobber=True)
    maskset = maskhub.open(f"counting://{path}")
    assert np.array_equal(maskset.masks["b"].bits, MaskFile(path).mask("b").bits)
    assert fsspec.filesystem("counting").fetched == [(0, HEAD), place(MaskFile(path), "b")]


def test_other_places(path: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/there/big.msk", path.read_bytes())
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(path, "big.msk")
    for url in (f"file://{path}", "memory://there/big.msk", f"zip://big.msk::file://{tmp_path}/x.zip"):
        file = MaskFile(url)
        file.verify()
        assert (file.path, file.file_size) == (url, path.stat().st_size)
        assert np.array_equal(file.mask("b").bits, MaskFile(path).mask("b").bits)


def test_what_goes_wrong_in_other_places(path: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/cut.msk", path.read_bytes()[:-1])
    for url, error, message in (
        ("memory://none.msk", MissingError, "memory://none.msk: no such file"),
        (f"file://{tmp_path}", MissingError, f"file://{tmp_path}: a folder, not a file"),
        ("nothing://u:pw@x/y.msk?a=b", RemoteError, "nothing://x/y.msk: cannot be read: Protocol not known: nothing"),
        ("memory://cut.msk", FormatError, "memory://cut.msk: not a safetensors file, or cut short"),
        ("hf://user/repo/x.msk", RemoteError, "user/repo/x.msk: not in the Hub's cache, and offline mode is on"),
    ):
        with pytest.raises(error) as caught:
            MaskFile(url)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_a_file_that_shrinks_is_an_error(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x.msk"
    copy.write_bytes(path.read_bytes())
    maskset = maskhub.open(f"file://{copy}")
    os.truncate(copy, 100_000)
    with pytest.raises(RemoteError, match=r"x.msk: ends after [\d,]+ of [\d,]+ bytes"):
        maskset.masks["c"].bits  # noqa: B018


def modules(url: object) -> set[str]:
    script = "import sys, maskhub; maskhub.open(sys.argv[1]); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script, str(url)], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_only_what_a_place_needs_is_imported(server: RangeServer, path: Path) -> None:
    local, remote = modules(path), modules(server.url("big.msk"))
    others = {"fsspec", "huggingface_hub", "httpx", "httpx2", "aiohttp", "requests"}
    assert "maskhub.storage.safetensors" in local
    assert not local & {
        "maskhub.storage.remotefile",
        "urllib.request",
        "http.client",
        *others,
    }
    assert "maskhub.storage.remotefile" in remote
    assert not remote & others
    assert not modules(f"file://{path}") & (others - {"fsspec"})


def test_no_room_for_the_copy(server: RangeServer) -> None:
    script = """if True:
        import resource, signal, sys, maskhub
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            maskhub.open(sys.argv[1])
        except maskhub.MaskhubError as error:
            print(error)
    """
    ran = subprocess.run([sys.executable, "-c", script, server.url("big.msk")], capture_output=True, text=True)
    assert f"{server.url('big.msk')}: no room for it in " in ran.stdout, ran.stderr
