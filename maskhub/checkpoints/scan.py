"""One pass over a base: every tensor is read once, in chunks, for its digest and for whoever else wants its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.storage import digest
from maskhub.storage.tensor import Bytes, Spec
from maskhub.storage.work import Progress, workers

# Offset in the tensor's bytes, and a chunk of them, which may be changed, but not kept: the next one takes its place.
Sink = Callable[[int, Bytes], None]

# Bytes worked on at a time: fits a core's cache, and is whole in every dtype, and in bytes of a packed mask.
CHUNK = 1 << 19


def scan(
    base: Checkpoint,
    names: Iterable[str],
    sinks: Callable[[str, Spec], Sequence[Sink]] = lambda name, spec: (),
    *,
    digests: bool = True,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Read tensors of the base, several at once, and hand their bytes to the ``sinks`` that each gets.

    ``sinks`` is called once for a tensor, and its sinks one after the other, from the thread that reads the tensor.
    Returns the digest of each, or nothing without ``digests``. It is that of the very bytes that the sinks got,
    whatever becomes of the file meanwhile. Memory does not grow with the tensors.
    """

    def one(name: str) -> tuple[str, int, str]:
        spec = base.info(name)
        wanted = sinks(name, spec)
        hasher = digest.tensor_hasher(spec.dtype, spec.shape) if digests else None
        start = 0
        for chunk in base.chunks(name, CHUNK):
            if hasher:
                hasher.update(chunk.data)
            for sink in wanted[:-1]:
                sink(start, chunk.copy())
            for sink in wanted[-1:]:
                sink(start, chunk)
            start += chunk.size
        return name, start, hasher.hexdigest() if hasher else ""

    names = list(names)
    total = sum(base.info(name).nbytes for name in names)
    found = {}
    done = 0
    with ThreadPoolExecutor(workers()) as pool:
        for name, size, value in pool.map(one, names):
            found[name] = value
            done += size
            if progress:
                progress(done, total)
    return found if digests else {}


def digests(
    base: Checkpoint, names: Iterable[str] | None = None, *, progress: Progress | None = None
) -> dict[str, str]:
    """The digest of each of these tensors of the base, or of all: what masks are bound to."""
    return scan(base, base if names is None else names, progress=progress)
