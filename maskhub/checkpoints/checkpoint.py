"""Checkpoints, base or dense, as named tensors on disk: a safetensors or PyTorch file, or shards with an index."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskhub.errors import ArgumentError, CheckpointError, FormatError, MaskhubError, MissingError, same_kind
from maskhub.masks.binding import HubRevision
from maskhub.storage import address, digest
from maskhub.storage.regular import lfs_pointer, open_regular
from maskhub.storage.safetensors import TensorFile
from maskhub.storage.tensor import FLOATS, Bytes, RawTensor, Spec
from maskhub.storage.torch import TorchFile

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_WEIGHTS = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"
TORCH_SUFFIXES = (".bin", ".pt", ".pth")
CONFIG = "config.json"
# Keys of config.json that say how quantisers and sparsifiers stored the weights.
PACKING = ("quantization_config", "compression_config", "sparsity_config")
# What a tokenizer needs; everything else in a folder (other formats' weights, code) is left alone.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja",
)  # fmt: skip
# What the parts of a model of sentence-transformers keep their configurations, weights and vocabularies in.
PART_SUFFIXES = (".json", ".safetensors", ".bin", ".txt", ".model")

Shard = TensorFile | TorchFile  # one file of a checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """``name`` is what the caller asked for; ``tensors`` maps tensor names to the shard that holds each.

    ``stored`` has the names under which tensors lie in their shards, where these are others.
    """

    name: str
    folder: Path
    shards: tuple[Shard, ...]
    tensors: Mapping[str, Shard]
    hub: HubRevision | None = None
    stored: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def info(self, name: str) -> Spec:
        return self.tensors[name].tensors[self.stored.get(name, name)]

    def read(self, name: str) -> RawTensor:
        """One tensor, row-major, as it is stored now: what is read twice may differ."""
        return self.tensors[name].read(self.stored.get(name, name))

    def chunks(self, name: str, size: int) -> Iterator[Bytes]:
        """The bytes of a tensor, so many at a time: each chunk is overwritten by the next."""
        return self.tensors[name].chunks(self.stored.get(name, name), size)

    def renamed(self, stored: Mapping[str, str]) -> Checkpoint:
        """The same checkpoint, in which tensors have other names, too: new names to those that are there."""
        tensors = {**self.tensors, **{name: self.tensors[old] for name, old in stored.items()}}
        return replace(self, tensors=tensors, stored={**self.stored, **stored})

    @property
    def floats(self) -> set[str]:
        """The floating-point dtypes that its tensors are stored in."""
        found = {self.info(name).dtype for name in self}
        return {dtype for dtype in found if dtype in FLOATS or dtype.startswith("F8")}

    def digest(self, name: str) -> str:
        tensor = self.read(name)
        return digest.tensor_digest(tensor.dtype, tensor.shape, tensor.data)

    def config(self) -> dict[str, Any]:
        """The contents of ``config.json``."""
        return read_json(self.folder / CONFIG)

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)


def open_checkpoint(
    source: str | Path | Checkpoint, *, revision: str | None = None, token: str | None = None
) -> Checkpoint:
    """Open a checkpoint folder, one file, or a model on the Hub (``user/repo``, ``user/repo@revision``).

    Of safetensors and PyTorch files beside each other the former are taken; the latter need torch. A checkpoint is
    given back as it is. Raises MissingError where there is none, and FormatError where a file of it is damaged.
    """
    if isinstance(source, Checkpoint):
        return source
    name = str(source)
    hub = None
    path = Path(name)
    exists = address.exists(path)
    if exists and revision:
        raise ArgumentError(f"{name}: a local checkpoint has no revision {revision!r}", hint="Leave it out.")
    if exists and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        name = f"./{name}"  # masks record it, and must not take it for an id on the Hub
    if not exists:
        if not (match := re.fullmatch(r"(?:hf://)?([\w.-]+/[\w.-]+?|[\w.-]+)(?:@([\w./-]+))?", name)) or name.endswith(
            (".safetensors", *TORCH_SUFFIXES)
        ):
            raise MissingError(
                f"{name}: no such folder", hint="Name a folder with config.json and model.safetensors, or a Hub id."
            )
        name = match[1]
        path, hub = _download(match[1], revision or match[2], token)
    if not path.is_dir():
        if path.suffix != ".safetensors" and path.suffix not in TORCH_SUFFIXES:
            raise CheckpointError(
                f"{name}: not a checkpoint: expected a folder, a .safetensors or a PyTorch file (.bin)"
            )
        return _open_file(name, path, hub)
    # In transformers' order: an index beside a single file is of an earlier save.
    for weights, index in (WEIGHTS, INDEX), (TORCH_WEIGHTS, TORCH_INDEX):
        if (path / weights).exists():
            return _open_file(name, path / weights, hub)
        if (path / index).exists():
            return _open_sharded(name, path / index, hub)
    here = [one.relative_to(path).as_posix() for pattern in ("*", "*/*") for one in path.glob(pattern)]
    raise _without_weights(name, "folder", here)


# What lies in folders that have no weights of the kinds that are read, and what to do then.
INSTEAD = {
    "adapter_model.*": ("an adapter of PEFT's", "Name the model that it was made for, or merge it into that."),
    "*.gguf": ("a GGUF file", "Load it with transformers (gguf_file=...) and save it, or name the original."),
    "tf_model*.h5": ("TensorFlow's weights", "Take the safetensors or PyTorch files of the same model."),
    "flax_model*.msgpack": ("Flax's weights", "Take the safetensors or PyTorch files of the same model."),
    "*.onnx": ("an ONNX file", "Take the safetensors or PyTorch files of the same model."),
    "consolidated*": ("the weights of another library than transformers", "Take those that transformers loads."),
    "model.*.safetensors": ("a variant of the weights", "In a folder here, rename it to model.safetensors."),
    "pytorch_model.*.bin": ("a variant of the weights", "In a folder here, rename it to pytorch_model.bin."),
    "model-*-of-*.safetensors": ("shards without their index", f"Get {INDEX}, too."),
    "pytorch_model-*-of-*.bin": ("shards without their index", f"Get {TORCH_INDEX}, too."),
    "*/model*.safetensors": ("weights in a folder of their own", "Name that folder, as one that lies here."),
    "*/pytorch_model*.bin": ("weights in a folder of their own", "Name that folder, as one that lies here."),
    "*.safetensors": ("weights under another name", "Name the file itself, as one that lies here."),
}  # fmt: skip


def _without_weights(name: str, what: str, files: list[str]) -> MaskhubError:
    """What is wrong with a folder or repo that has these files."""
    for pattern, (instead, cure) in INSTEAD.items():
        if found := sorted(fnmatch.filter(files, pattern), key=lambda file: (file.count("/"), file)):
            return CheckpointError(f"{name}: the {what} has {instead} ({found[0]}), and no {WEIGHTS}", hint=cure)
    return MissingError(f"{name}: the {what} has neither {WEIGHTS} nor {TORCH_WEIGHTS}, nor an index of shards")


def packed_as(found: Any) -> str | None:
    """How weights are quantised or packed, by what a ``config.json`` says of it; None where they lie there plainly."""
    if not isinstance(found, dict) or not found:
        return None
    inner = [found[key] for key in PACKING if key in found]
    if found.get("config_groups") or not (found.get("format") == "dense" or (inner and "format" not in found)):
        named = found.get("quant_method"), *(key for key in found if key.startswith("load_in_")), found.get("format")
        return str(next(filter(None, named), "unknown"))
    return next(filter(None, map(packed_as, inner)), None)


# How names of tensors end beside or in place of quantised weights, also where config.json tells of none.
PACKED = {
    ".qweight": "GPTQ or AWQ", ".absmax": "bitsandbytes", ".SCB": "bitsandbytes",
    ".weight_packed": "compressed-tensors", ".bitmask": "compressed-tensors",
}  # fmt: skip


def refuse_quantised(base: Checkpoint) -> None:
    """Raises CheckpointError for a base whose weights are quantised: a mask belongs to floating-point ones."""
    config = base.config()
    said = (packed_as(config.get(key)) for key in PACKING)
    found = (kind for end, kind in PACKED.items() if any(name.endswith(end) for name in base))
    if kind := next(filter(None, (*said, *found)), None):
        raise CheckpointError(
            f"{base.name}: its weights are quantised or packed ({kind}), and masks need them as floating-point numbers",
            hint="Name the model that it was made from.",
        )


@contextlib.contextmanager
def for_transformers(base: Checkpoint) -> Iterator[Path]:
    """A folder from which transformers loads just this checkpoint's files, whatever else lies beside them.

    An adapter, other variants or an old index would be taken, too; and of a quantiser that left the weights as they
    are its library would be asked for.
    """
    with TemporaryDirectory(prefix="maskhub-") as name:
        folder = Path(name)
        config = {key: value for key, value in base.config().items() if key not in PACKING}
        (folder / CONFIG).write_text(json.dumps(config))
        files = {"generation_config.json": base.folder / "generation_config.json"}
        paths = [Path(shard.path) for shard in base.shards]
        weights, index = (WEIGHTS, INDEX) if paths[0].suffix == ".safetensors" else (TORCH_WEIGHTS, TORCH_INDEX)
        files |= {weights: paths[0]} if len(paths) == 1 else {path.name: path for path in paths}
        for link, path in files.items():
            if path.exists():
                (folder / link).symlink_to(path.absolute())
        if len(paths) > 1:
            weight_map = {base.stored.get(name, name): Path(shard.path).name for name, shard in base.tensors.items()}
            (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        yield folder


def _open_file(name: str, path: Path, hub: HubRevision | None) -> Checkpoint:
    file: Shard = TensorFile(path) if path.suffix == ".safetensors" else TorchFile(path)
    return Checkpoint(name, path.parent, (file,), dict.fromkeys(file, file), hub)


def _open_sharded(name: str, index: Path, hub: HubRevision | None) -> Checkpoint:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(f, str) and Path(f).name == f for f in weight_map.values()
    ):
        raise FormatError(f"{index}: the field 'weight_map' does not map tensors to files beside it")
    paths = {shard: index.parent / shard for shard in sorted(set(weight_map.values()))}
    for path in paths.values():
        if not path.exists() or path.is_dir():
            raise MissingError(f"{path}: the shard is missing, and {index.name} names it")
    opener: type[Shard] = TensorFile if index.name == INDEX else TorchFile
    files: dict[str, Shard] = {shard: opener(path) for shard, path in paths.items()}
    tensors = {tensor: files[shard] for tensor, shard in weight_map.items()}
    for tensor, file in tensors.items():
        if tensor not in file.tensors:
            raise FormatError(f"{file.path}: {index.name} places tensor {tensor} here, but the shard lacks it")
    return Checkpoint(name, index.parent, tuple(files.values()), tensors, hub)


def _download(repo: str, revision: str | None, token: str | None) -> tuple[Path, HubRevision]:
    from huggingface_hub import snapshot_download

    from maskhub.storage.hubfile import ask, client

    client(token)  # which refuses a token that no header can carry

    def snapshot(revision: str | None, files: list[str], *ignored: str) -> Path:
        place = address.Hub(repo, revision=revision)

        def get() -> str:
            return snapshot_download(
                repo, revision=revision, token=token, allow_patterns=files, ignore_patterns=[*ignored]
            )

        try:
            return Path(ask(place, get))
        except MaskhubError as error:
            why = error.message.removeprefix(f"{place}: ").removeprefix(f"{repo}: ")
            hint = f"{error.hint or ''} Or name a folder here.".lstrip()
            raise type(error)(f"{place}: no such folder, and not from the Hub: {why}", hint=hint) from error

    folder = snapshot(revision, ["model*.safetensors", "*.json", "*.py", *TOKENIZER_FILES], "*/*")
    if not any((folder / f).is_file() for f in (INDEX, WEIGHTS)):
        there: list[str] = []
        with contextlib.suppress(MaskhubError):  # offline
            place = address.Hub(repo, revision=folder.name)
            there = ask(place, client(token).list_repo_files, repo, revision=folder.name)
        if there and not {TORCH_WEIGHTS, TORCH_INDEX} & {*there}:
            raise _without_weights(repo, "repo", there)
        snapshot(folder.name, [TORCH_WEIGHTS, "pytorch_model-*.bin"], "*/*")
    if (folder / "modules.json").is_file():  # of sentence-transformers: its parts lie in folders such as 1_Pooling
        snapshot(folder.name, [f"[0-9]*_*/*{suffix}" for suffix in (*PART_SUFFIXES, ".py")])
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    return folder, HubRevision(repo, folder.name, {name: blob.name for name, blob in blobs(files).items()})


def blobs(files: Iterable[Path]) -> dict[str, Path]:
    """By name, where large files of a snapshot in the Hub's cache lie: they are links to what their SHA-256 names."""
    found = {file.name: file.resolve() for file in files if file.is_symlink()}
    return {name: blob for name, blob in found.items() if re.fullmatch("[0-9a-f]{64}", blob.name)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; MissingError or FormatError where there is none."""
    try:
        with open_regular(path) as file:
            content = file.read()
        if pointer := lfs_pointer(path, content):
            raise pointer
        value = json.loads(content)
    except MaskhubError:
        raise
    except OSError as error:
        raise same_kind(error, CheckpointError)(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object")
    return value
