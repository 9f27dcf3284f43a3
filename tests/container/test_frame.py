"""Frames of any size can be read again."""

from __future__ import annotations

import numpy as np
import pytest

from maskhub.container import frame


@pytest.mark.parametrize("level", [3, 22])
@pytest.mark.parametrize("size", [0, 1, frame.WINDOW, frame.WINDOW + 1, 5 * frame.WINDOW])
def test_what_is_packed_is_unpacked(size: int, level: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    packed = np.frombuffer(frame.pack(content, level), np.uint8)
    assert frame.content_size(packed) == size
    assert frame.unpack(packed) == content
