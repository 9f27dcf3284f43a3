"""Checkpoints, base or dense, as named tensors on disk: one safetensors file, or shards with an index."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskhub import digest
from maskhub.errors import CheckpointError, FormatError
from maskhub.mask import HubRevision
from maskhub.tensor import RawTensor
from maskhub.tensorfile import TensorFile, TensorInfo

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
# What a tokenizer needs; everything else in a folder (other formats' weights, code) is left alone.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """``name`` is what the caller asked for; ``tensors`` maps tensor names to the shard that holds each."""

    name: str
    folder: Path
    shards: tuple[TensorFile, ...]
    tensors: dict[str, TensorFile]
    hub: HubRevision | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def info(self, name: str) -> TensorInfo:
        return self.tensors[name].tensors[name]

    def read(self, name: str) -> RawTensor:
        """One tensor as a view of its memory-mapped shard."""
        return self.tensors[name].read(name)

    def release(self, name: str, start: int, stop: int) -> None:
        """Let go of the memory that these bytes of a tensor take, once they have been read."""
        self.tensors[name].release(name, start, stop)

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


def open_checkpoint(source: str | Path, *, revision: str | None = None, token: str | None = None) -> Checkpoint:
    """Open a checkpoint folder, one safetensors file, or a model on the Hub (``user/repo``, ``user/repo@revision``).

    Raises CheckpointError where there is none, and FormatError where a file of it is damaged.
    """
    name = str(source)
    hub = None
    path = Path(name)
    exists = _exists(path)
    if exists and revision:
        raise CheckpointError(f"{name}: a local checkpoint has no revision {revision!r}", hint="Leave it out.")
    if not exists:
        if not (match := re.fullmatch(r"(?:hf://)?([\w.-]+/[\w.-]+?|[\w.-]+)(?:@([\w./-]+))?", name)) or name.endswith(
            ".safetensors"
        ):
            raise CheckpointError(
                f"{name}: no such folder", hint="Name a folder with config.json and model.safetensors, or a Hub id."
            )
        name = match[1]
        path, hub = _download(match[1], revision or match[2], token)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{name}: not a checkpoint: expected a folder or a .safetensors file")
        file = TensorFile(path)
        return Checkpoint(name, path.parent, (file,), dict.fromkeys(file, file), hub)
    if (path / INDEX).is_file():
        return _open_sharded(name, path, hub)
    if (path / WEIGHTS).is_file():
        file = TensorFile(path / WEIGHTS)
        return Checkpoint(name, path, (file,), dict.fromkeys(file, file), hub)
    raise CheckpointError(f"{name}: the folder has neither {WEIGHTS} nor {INDEX}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for this system
        return False


def _open_sharded(name: str, folder: Path, hub: HubRevision | None) -> Checkpoint:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(f, str) and Path(f).name == f for f in weight_map.values()
    ):
        raise FormatError(f"{folder / INDEX}: the field 'weight_map' does not map tensors to files beside it")
    files: dict[str, TensorFile] = {}
    for shard in sorted(set(weight_map.values())):
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard}: the shard is missing, and {INDEX} names it")
        files[shard] = TensorFile(folder / shard)
    tensors = {tensor: files[shard] for tensor, shard in weight_map.items()}
    for tensor, file in tensors.items():
        if tensor not in file.tensors:
            raise FormatError(f"{file.path}: {INDEX} places tensor {tensor} here, but the shard lacks it")
    return Checkpoint(name, folder, tuple(files.values()), tensors, hub)


def _download(repo: str, revision: str | None, token: str | None) -> tuple[Path, HubRevision]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                token=token,
                allow_patterns=["model*.safetensors", INDEX, "*.json", *TOKENIZER_FILES],
                ignore_patterns=["*/*"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{repo}: no such folder, and the Hub could not give it: {str(error).splitlines()[0]}",
            hint="Check the name, the token (for private models) and the network, or name a local folder.",
        ) from error
    # In the Hub cache a snapshot's files are links to blobs, and large blobs are named by their SHA-256.
    blobs = {f.name: f.resolve().name for f in sorted(folder.glob("*.safetensors")) if f.is_symlink()}
    return folder, HubRevision(repo, folder.name, {f: b for f, b in blobs.items() if re.fullmatch("[0-9a-f]{64}", b)})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CheckpointError or FormatError where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object")
    return value
