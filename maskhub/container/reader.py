"""Reading ``.msk`` files: the manifest at once, masks and dense tensors when asked for, each checked as it is read."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskhub.container import cache, codecs
from maskhub.container.codecs.delta import Delta
from maskhub.container.codecs.drift import Draws, Drift
from maskhub.container.codecs.gaps import Gaps
from maskhub.container.manifest import FORMAT, MANIFEST, MASKS, check_shape, check_version, parse, unpack
from maskhub.errors import (
    ArgumentError,
    CodecError,
    FormatError,
    IntegrityError,
    MaskhubError,
    OutOfMemoryError,
    ParentError,
)
from maskhub.masks.mask import LazyMask, Mask, MaskSet, Stored, count_ones, ones, packed_size
from maskhub.storage import address, digest
from maskhub.storage.safetensors import TensorFile
from maskhub.storage.source import InMemory, LocalFile, Source, read
from maskhub.storage.tensor import Bytes, RawTensor

MAX_CHAIN = 64  # masks coded against one another, each of which is decoded inside the next


class MaskFile:
    """An opened ``.msk`` file.

    ``manifest`` is parsed and checked against the file's payloads, and where all bytes are at hand, the seal over them
    is; nothing is decoded yet. Of a remote file only what is asked for is fetched, or with ``whole`` all of it at once.
    Masks that are coded against a parent are decoded with the one of ``parents`` (mask sets or files), or of the local
    cache, that has its id. ``path`` may be a URL, or a place on the Hub, for which ``token`` is. Raises FormatError for
    a file that is no mask, and names what is wrong, IntegrityError for a damaged one, and RemoteError where it cannot
    be had.
    """

    def __init__(
        self,
        path: str | Path | Source,
        parents: Iterable[str | Path | MaskSet] = (),
        *,
        whole: bool = False,
        token: str | None = None,
    ) -> None:
        self._file = TensorFile(_source(path, token, whole) if isinstance(path, str | Path) else path)
        self.path = self._file.path
        self._plain = self._file.metadata
        if self._plain.get("format") != FORMAT:
            raise _no_mask(self.path, self._plain)
        check_version(self._plain.get("version"), str(self.path))
        if missing := {"id", "base", "seal"} - self._plain.keys():
            raise FormatError(f"{self.path}: the metadata has no {min(missing)!r}", hint=IntegrityError.cure)
        if whole or self._file.source.whole:
            self.check_seal()
        self._check_reserved()
        self.manifest_text = unpack(self._file.read(MANIFEST).data, str(self.path))
        self.manifest, self.extra = parse(self.manifest_text, str(self.path))
        self._parents, self._token = tuple(parents), token
        self._children = 0  # masks in a chain that are coded against this one
        self._trusted: set[str] = set()  # masks of which a base is known to have the shape
        self._draws: Draws | None = None  # what it shares with other masks
        self._decoded: MaskFile | None = None  # where bits may lie in the local cache
        self._places = self._check_masks()
        self._check_dense()
        self._check_plain()

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return self._file.size

    def content(self) -> memoryview:
        """The bytes of the whole file, the seal over them checked; of a remote one, got in one request."""
        content = bytearray(self._file.header)
        for piece in self._file.body():
            content += piece.data
        self._check_seal([memoryview(content)[len(self._file.header) :]])
        return memoryview(content)

    def check_seal(self) -> None:
        """Check that the file is, byte for byte, what was written. Raises IntegrityError."""
        self._check_seal(self._file.body())

    def _check_seal(self, body: Iterable[Any]) -> None:
        head, seal = self._file.header, self._plain["seal"]
        place = head.find(seal.encode())
        if len(seal) != len(digest.NONE) or place < 0 or digest.seal(head, place, body) != seal:
            raise IntegrityError(f"{self.path}: the file was changed or damaged after it was written (seal)")

    @cached_property
    def parent(self) -> MaskSet:
        """The mask set that masks are coded against. Raises ParentError where it is not at hand."""
        return self._parent.maskset() if isinstance(self._parent, MaskFile) else self._parent

    def chain(self) -> list[tuple[str, str | None]]:
        """Ids of the parent, its parent and so on, and the file of each; None for one that is not at hand."""
        links: list[tuple[str, str | None]] = []
        file: MaskFile | MaskSet = self
        while isinstance(file, MaskFile) and file.manifest.parent:
            try:
                found = file._parent
            except ParentError:
                return [*links, (file.manifest.parent, None)]
            links.append((file.manifest.parent, str(found.path) if isinstance(found, MaskFile) else "in memory"))
            file = found
        return links

    @cached_property
    def _parent(self) -> MaskFile | MaskSet:
        wanted = self.manifest.parent
        if wanted is None:
            raise FormatError(f"{self.path}: a mask is coded against a parent, and the manifest names none")
        if self._children == MAX_CHAIN:
            raise ParentError(f"{self.path}: more than {MAX_CHAIN} masks are coded against one another")
        for parent in self._parents:
            # A parent may have a parent itself; it is looked for among the others, so that no loop is followed.
            others = [other for other in self._parents if other is not parent]
            found = parent if isinstance(parent, MaskSet) else MaskFile(parent, others, token=self._token)
            if (found.id if isinstance(found, MaskSet) else found.manifest.id) == wanted:
                break
        else:
            if (cached := find_cached(wanted)) is None:
                raise ParentError(
                    f"{self.path}: coded against the mask {wanted}, which is not at hand",
                    hint="Name its file: --parent FILE.",
                )
            found = cached
        if isinstance(found, MaskFile):
            found._children = self._children + 1
        return found

    def mask(self, name: str) -> Mask:
        """One mask by its base tensor's name; its ``bits`` are decoded, and checked, each time they are asked for.

        That raises IntegrityError or CodecError where they are damaged, and FormatError where they would take more
        memory than a file of this size may ask for, and nobody has said that a base has a tensor of this shape.
        """
        entry = self.manifest.masks[name]
        return LazyMask(
            entry.shape,
            lambda: self._bits(name),
            keeps_all=lambda: self._keeps_all(name),
            dropped=lambda: self._dropped(name),
            trust_shape=lambda: self._trusted.add(name),
            kept=entry.kept,
            digest=entry.digest,
        )

    def _bits(self, name: str) -> Bytes:
        return self._read(name)[0]

    def _dropped(self, name: str) -> NDArray[np.integer]:
        bits, dropped = self._read(name, places=True)
        entry = self.manifest.masks[name]
        count = math.prod(entry.shape) - entry.kept
        if dropped is None:
            return ones(~bits)[:count]
        if dropped.size != count:  # where a change is there twice
            raise self._other_mask(name)
        return dropped

    def _read(self, name: str, *, places: bool = False) -> tuple[Bytes, NDArray[np.integer] | None]:
        """The bits of a mask, checked, and if wanted, where the dropped weights are, if the codec tells them, too."""
        entry = self.manifest.masks[name]
        if self._decoded is not None and self._decoded.manifest.masks[name].kept == entry.kept:  # digests make ids
            with contextlib.suppress(MaskhubError):  # it was damaged after it was opened
                return self._decoded._bits(name), None
        self._check_size(name)
        payload = self._file.part(MASKS, *self._places[name])
        with self._explained(name):
            codec = codecs.from_dict(entry.codec)
            parent = self.parent.masks.get(name) if isinstance(codec, Delta) else None
            if parent is not None and name in self._trusted and parent.shape == entry.shape:
                parent.trust_shape()
            target = codecs.Target(name, entry.shape, entry.kept, self.manifest.initial, parent, self._draws)
            dropped: NDArray[np.integer] | None = None
            if places and isinstance(codec, Drift) and target.draws:
                bits, dropped = codec.dropped(payload, target)
            else:
                bits = codec.decode(payload, target)
        if digest.mask_digest(entry.shape, bits) != entry.digest or count_ones(bits) != entry.kept:
            raise self._other_mask(name)
        try:
            return Mask(entry.shape, bits).bits, dropped
        except ArgumentError as error:  # padding that is not 0
            raise FormatError(f"{self.path}: {name}: {error.message}") from error

    def _keeps_all(self, name: str) -> bool:
        """Whether a mask keeps every weight, where that is told, and checked, without making its bits."""
        entry = self.manifest.masks[name]
        nothing = entry.codec["name"] == Gaps.name and not entry.bytes
        if not nothing or entry.kept != math.prod(entry.shape):
            return False
        self._check_size(name)  # of what is hashed
        if digest.full_mask_digest(entry.shape) != entry.digest:
            raise self._other_mask(name)
        return True

    def _other_mask(self, name: str) -> IntegrityError:
        return IntegrityError(f"{self.path}: {name}: the decoded mask does not match its digest in the manifest")

    def _check_size(self, name: str) -> None:
        """A few bytes can claim masks of any size: those of a file must be in proportion to it, or be the base's."""
        if name in self._trusted:
            return
        masks, stored = self.manifest.masks, self.file_size
        if not self._file.source.whole:  # what the rest of it holds is only said
            known = len(self._file.header) + self._file.tensors[MANIFEST].nbytes
            masks, stored = {name: masks[name]}, known + masks[name].bytes
        needed = sum(packed_size(entry.shape) for other, entry in masks.items() if other not in self._trusted)
        if needed > codecs.most(stored):
            raise FormatError(
                f"{self.path}: {stored:,} bytes that claim masks of {needed:,} bytes; without a base the limit is "
                f"{codecs.most(stored):,}",
                hint=f"Give the base: maskhub verify {self.path} --base {self.manifest.base.name}",
            )

    def dense(self, name: str) -> RawTensor:
        """One dense tensor by the task model's parameter name; its ``data`` are read, and checked, when asked for.

        That raises IntegrityError where they are damaged.
        """
        info = self._file.tensors[name]
        return _LazyTensor(info.dtype, info.shape, lambda: self._dense(name))

    def _dense(self, name: str) -> Bytes:
        tensor = self._file.read(name)
        if digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data) != self.manifest.dense[name]:
            raise IntegrityError(f"{self.path}: {name}: the tensor does not match its digest in the manifest")
        return tensor.data

    def maskset(self) -> MaskSet:
        """The whole file as a mask set that decodes each entry when its content is asked for."""
        manifest = self.manifest
        masks = {name: self.mask(name) for name in manifest.masks}
        maskset = manifest.maskset(masks, {name: self.dense(name) for name in manifest.dense}, self.extra)
        stored = Stored(
            path=str(self.path),
            bytes=self.file_size,
            version=manifest.version,
            manifest=self.manifest_text,
            sizes={name: entry.bytes for name, entry in manifest.masks.items()},
            codecs={name: str(entry.codec["name"]) for name, entry in manifest.masks.items()},
            chain=self.chain,
        )
        vars(maskset).update(id=manifest.id, stored=stored)  # frozen: a changed copy must not have them
        return maskset

    def verify(self) -> None:
        """Check every byte: the seal over the file, each payload, each decoded mask.

        Raises IntegrityError, FormatError or CodecError naming the first thing that is wrong.
        """
        self.check_seal()
        for name in self.manifest.masks:
            if not self._keeps_all(name):
                self._bits(name)
        for name in self.manifest.dense:
            self._dense(name)

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except CodecError as error:
            raise CodecError(f"{self.path}: {name}: {error.message}", hint=error.hint) from error
        except MemoryError:
            shape = list(self.manifest.masks[name].shape)
            raise OutOfMemoryError(f"{self.path}: {name}: not enough memory for a mask of shape {shape}") from None

    def _check_reserved(self) -> None:
        """Manifest and masks must be there, as bytes."""
        for name in (MANIFEST, MASKS):
            if (info := self._file.tensors.get(name)) is None:
                raise FormatError(f"{self.path}: the payload {name} is missing")
            if info.dtype != "U8" or len(info.shape) != 1:
                shape = str(list(info.shape))[:100]
                raise FormatError(f"{self.path}: the payload {name} is {info.dtype} {shape}, not U8 [n]")

    def _check_masks(self) -> dict[str, tuple[int, int]]:
        """Where the bytes of each mask lie in their payload, which they fill in the order of names."""
        places, place = {}, 0
        for name, entry in sorted(self.manifest.masks.items()):
            check_shape(name, entry.shape, str(self.path))
            with self._explained(name):
                codecs.from_dict(entry.codec)
            if entry.kept > math.prod(entry.shape):
                raise FormatError(f"{self.path}: {name} keeps {entry.kept} weights, more than its shape has")
            places[name] = place, place + entry.bytes
            place += entry.bytes
        if place != (size := self._file.tensors[MASKS].nbytes):
            raise FormatError(f"{self.path}: masks of {place} bytes in a payload of {size}")
        return places

    def _check_dense(self) -> None:
        """The manifest and the file must name the same tensors."""
        there = self._file.tensors.keys() - {MANIFEST, MASKS}
        if missing := sorted(self.manifest.dense.keys() ^ there):
            where = "manifest" if missing[0] in there else "file"
            raise FormatError(f"{self.path}: the dense tensor {missing[0][:1024]} is missing from the {where}")
        for name in there:
            check_shape(name, self._file.tensors[name].shape, str(self.path))
        try:
            self.maskset()
        except ArgumentError as error:
            raise FormatError(f"{self.path}: {error.message}") from error

    def _check_plain(self) -> None:
        """What people read in the metadata must be what the manifest says."""
        for key in ("format", "version", "id", "base", "task"):
            if (said := self._plain.get(key)) != (right := self.manifest.plain.get(key)):
                said, right = said and said[:100], right and right[:100]
                raise IntegrityError(f"{self.path}: the metadata's {key!r} is {said!r}, and by the manifest {right!r}")


def _no_mask(path: Path | str, metadata: dict[str, str]) -> FormatError:
    if "maskhub" in metadata:
        return FormatError(
            f"{path}: a mask file of MaskHub 0.1, whose layout is not read any more",
            hint="Make it anew from its run: maskhub pack RUN.",
        )
    return FormatError(
        f"{path}: a safetensors file, but no mask: its metadata's 'format' is not {FORMAT!r}",
        hint="Masks are made by: maskhub pack.",
    )


def _source(path: str | Path, token: str | None, whole: bool) -> Source:
    if (place := address.hub(path)) is not None:
        from maskhub.storage.hubfile import open_hub

        return open_hub(place, token, whole=whole)
    if address.exists(path) and not Path(path).is_dir():
        return LocalFile(path)
    from maskhub.storage.folderfile import open_folder

    return open_folder(path, whole=whole)


class _LazyTensor(RawTensor):
    """A tensor that is read, and checked, when its data are asked for."""

    def __init__(self, dtype: str, shape: tuple[int, ...], read: Callable[[], Bytes]) -> None:
        self.__dict__.update(dtype=dtype, shape=shape, _read=read)

    @cached_property
    def data(self) -> Bytes:
        data: Bytes = self.__dict__["_read"]()
        return data


def open_mask(
    path: str | Path | MaskSet,
    parents: Iterable[str | Path | MaskSet] = (),
    *,
    whole: bool = False,
    cached: bool = False,
    token: str | None = None,
) -> MaskSet:
    """Open a ``.msk`` file as a mask set. Masks are decoded, and checked, when their bits are asked for.

    ``parents`` are mask sets or files that it may be coded against. ``path`` may be a URL, or ``user/repo/name`` on the
    Hub (with ``token``, if it is private): what is asked for is fetched then, or with ``whole`` all of it now. The seal
    is checked where all is at hand. With ``cached`` bits come from the local cache, where they lie decoded, and are
    checked by the file's digests; they are put there the first time. A mask set is given back as it is.
    """
    if isinstance(path, MaskSet):
        return path
    file = MaskFile(path, parents, whole=whole, token=token)
    if cached:
        file._decoded = in_cache(file.maskset())
    return file.maskset()


def read_mask(path: str | Path | MaskSet, *, draws: Draws | None = None, token: str | None = None) -> MaskSet:
    """As ``open_mask`` of all of a file, which is read once, and whose bytes stay in memory; no file stays open.

    With ``draws`` masks of one seed decode quickly after the first.
    """
    if isinstance(path, MaskSet):
        return path
    source = _source(path, token, whole=True)
    file = MaskFile(InMemory(read(source, 0, source.open()), source.name))
    file._draws = draws
    return file.maskset()


def find_cached(id: str, *, verify: bool = False) -> MaskFile | None:
    """The mask set of this id in the local cache; None where it has none, or only a damaged or misnamed file.

    Bits are checked when they are asked for, or with ``verify`` now.
    """
    path = cache.path(id)
    with contextlib.suppress(MaskhubError):
        if path is not None and (found := MaskFile(path)).manifest.id == id:
            if verify:
                found.verify()
            return found
    return None


def in_cache(maskset: MaskSet, *, verify: bool = False) -> MaskFile:
    """A mask set's file in the local cache, with its masks decoded; made anew where there is no good one."""
    return find_cached(maskset.id, verify=verify) or MaskFile(cache.keep(maskset))
