"""One Zstandard frame that says how large its content is, and nothing around it: of the manifest, and of ``zstd``."""

from __future__ import annotations

import zstandard

from maskhub.errors import CodecError
from maskhub.storage.tensor import Bytes

WINDOW = 1 << 23  # bytes that a decoder may have to look back; what RFC 8878 asks every decoder to support
DENSEST = 1 << 15  # bytes that a byte of a frame can stand for: a block takes 4 and gives at most 2**17


def content_size(frame: Bytes) -> int:
    """The bytes that a frame says it holds, which can be true; CodecError for what is no such frame."""
    if frame[:4].tobytes() != zstandard.FRAME_HEADER:  # a skippable frame is none
        raise CodecError("the payload does not begin with a frame")
    try:
        size = zstandard.frame_content_size(frame.data)
        window = zstandard.get_frame_parameters(frame.data).window_size
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from error
    if size < 0:
        raise CodecError("the frame does not say how large its content is")
    if size > frame.size * DENSEST:
        raise CodecError(f"a frame of {frame.size} bytes cannot hold the {size} it declares")
    if window > WINDOW:
        raise CodecError(f"a window of {window} bytes, and {WINDOW} is the limit")
    return size


def unpack(frame: Bytes) -> bytes:
    """The content of a frame, for which the caller finds the memory; CodecError for a damaged one, or bytes behind."""
    try:
        if content_size(frame) == 0:  # which ``decompress`` takes for an empty frame without reading on
            stream = zstandard.ZstdDecompressor().decompressobj()
            if stream.decompress(frame.data) or not stream.eof or stream.unused_data:
                raise CodecError("not an empty frame")
            return b""
        return zstandard.ZstdDecompressor().decompress(frame.data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from error


def pack(content: bytes | memoryview, level: int) -> bytes:
    """A frame of this content, whose window ``content_size`` takes."""
    size = memoryview(content).nbytes
    if size <= WINDOW:
        return zstandard.ZstdCompressor(level=level).compress(content)
    chosen = zstandard.ZstdCompressionParameters.from_level(level, source_size=size)
    log = min(chosen.window_log, WINDOW.bit_length() - 1)  # the highest levels look further back
    parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=size, window_log=log)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(content)
