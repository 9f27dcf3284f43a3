"""Only regular files are opened; nothing is waited for."""

import os
import socket
from pathlib import Path

import pytest

from maskhub.errors import FormatError, MissingError
from maskhub.storage.regular import open_regular


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"bytes"


def test_what_is_no_file_is_refused_by_its_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for path, kind in {"pipe": "a pipe", "link": "a pipe", "folder": "a folder", "socket": "a socket"}.items():
            with pytest.raises(FormatError, match=f"/{path}: {kind}, not a file"):
                open_regular(tmp_path / path)
    with pytest.raises(FormatError, match="a device, not a file"):
        open_regular("/dev/zero")


def test_a_missing_file_is_called_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"task\.msk: no such file"):
        open_regular(tmp_path / "gone", "task.msk")
