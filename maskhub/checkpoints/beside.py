"""What lies beside a dense checkpoint's weights: its configuration and card, and what is the base's own."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

from maskhub.checkpoints.checkpoint import CONFIG, PACKING, PART_SUFFIXES, TOKENIZER_FILES, Checkpoint, packed_as
from maskhub.errors import CheckpointError, FormatError, MaskhubError, listed, same_kind
from maskhub.masks.mask import MaskSet
from maskhub.storage.regular import lfs_pointer, open_regular
from maskhub.storage.tensor import FLOATS
from maskhub.text import markdown, printable

CARD = "README.md"
# Beside weights and config.json: what a tokenizer, a processor or text generation needs.
COPIED = {*TOKENIZER_FILES, "generation_config.json", "preprocessor_config.json", "processor_config.json"}
# Of a model that sentence-transformers loads: its parts, and the folders that they lie in.
MODULES = "modules.json"
SENTENCES = ("config_sentence_transformers.json", "sentence_*_config.json")
OF_PARTS = "sentence_transformers."  # begins the names of its own parts' classes
VECTORS = {"feature-extraction", "sentence-similarity"}  # tasks that such a model is for
# Keys of config.json that name code, or kernels of the Hub: a mask is data, and must not bring them.
CODE = {
    "auto_map", "custom_pipelines",
    "attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation",
}  # fmt: skip
# Keys of config.json that say what, or how many, the base's own labels are.
COUNTS = {"num_labels", "_num_labels", "id2label"}
LABELS = {*COUNTS, "label2id", "problem_type"}


def own_files(base: Checkpoint, *, code: bool = False) -> dict[str, bytes]:
    """What lies beside the base's weights and is copied for any task; with ``code`` its Python files, too.

    Raises CheckpointError, or one of its kind.
    """
    wanted = (path for path in base.folder.iterdir() if path.name in COPIED or (code and path.suffix == ".py"))
    files = {path.name: _own_file(base, path) for path in (base.folder / CONFIG, *wanted)}
    files.pop(CONFIG)  # written anew
    return files


def sentence_files(base: Checkpoint, maskset: MaskSet, *, code: bool = False) -> dict[str, bytes]:
    """What makes sentence vectors of the base's (pooling, normalisation), for a task that has these.

    Of its parts the data alone are copied, with ``code`` their Python files, too; what cannot be opened so is warned
    of. None where the base is no model of sentence-transformers. Raises FormatError for a list of parts that is none.
    """
    path = base.folder / MODULES
    if not path.exists() or (maskset.task and maskset.task.type not in VECTORS):
        return {}
    files = {MODULES: _own_file(base, path)}
    files |= {one.name: _own_file(base, one) for name in SENTENCES for one in base.folder.glob(name)}
    try:
        modules = json.loads(files[MODULES])
        places = [PurePosixPath(module["path"]) for module in modules]
        own = sorted(
            {kind for module in modules if not (kind := str(module.get("type", OF_PARTS))).startswith(OF_PARTS)}
        )
        if any(place.is_absolute() or ".." in place.parts for place in places):
            raise ValueError("a part lies outside the folder")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{path}: no list of the parts of a model of sentence-transformers: {error}") from error
    left = []
    for place in places:
        for one in sorted((base.folder / place).rglob("*")) if place.parts else ():
            name = one.relative_to(base.folder).as_posix()
            if one.suffix in PART_SUFFIXES or (code and one.suffix == ".py"):
                files[name] = _own_file(base, one)
            elif not one.is_dir():
                left.append(name)
    if own and (left or not code):
        warnings.warn(
            f"{base.name}: {listed(own)} of its parts is its own code, and SentenceTransformer may need what is left "
            f"out: {listed(left if code else ['its Python files (--code copies them)', *left])}",
            stacklevel=2,
        )
    return files


def _own_file(base: Checkpoint, path: Path) -> bytes:
    """A file of a base that goes into others' hands. CheckpointError for a link to what is not the base's.

    What belongs to a base lies in its folder, or, of a snapshot in the Hub's cache, beside it in ``blobs``.
    """
    found, own = Path(os.path.realpath(path)), [base.folder.resolve()]
    if own[0].parent.name == "snapshots":
        own.append(own[0].parent.parent / "blobs")
    try:
        with open_regular(found, path) as file:
            if not any(found.is_relative_to(folder) for folder in own):
                raise CheckpointError(
                    f"{path}: a link that leads out of the base's folder, and would be copied into the output",
                    hint="Put the file itself there, if it belongs to the base.",
                )
            content = file.read()
        if pointer := lfs_pointer(path, content):
            raise pointer
        return content
    except MaskhubError:
        raise
    except OSError as error:
        raise same_kind(error, CheckpointError)(f"{path}: cannot be read: {error.strerror}") from error


def task_config(base: Checkpoint, maskset: MaskSet, *, dtype: str | None = None, code: bool = False) -> dict[str, Any]:
    """The base's ``config.json`` with what the task changes, and under ``maskhub`` what it was made of."""
    config = base.config()
    if not any(packed_as(config.get(key)) for key in PACKING):  # a dense form, for which its tool's library is asked
        config = {key: value for key, value in config.items() if key not in PACKING}
    if not code:
        config = {key: value for key, value in config.items() if key not in CODE}
    if maskset.task:
        if COUNTS & maskset.task.config.keys():  # which count alone: another number of them would not load
            config = {key: value for key, value in config.items() if key not in LABELS}
        config |= {key: value for key, value in maskset.task.config.items() if key not in CODE}
        config["architectures"] = [maskset.task.architecture]
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    stored = {base.info(name).dtype for name in maskset.base.tensors} & FLOATS.keys()
    if dtype is not None:
        config[key] = FLOATS[dtype]
    elif len(stored) == 1 and key in config:  # which may say another one than the files have
        config[key] = FLOATS[stored.pop()]
    noted: dict[str, Any] = {"base": maskset.base.root, "mask": maskset.id}
    if maskset.task:  # what transformers' configurations have no place for
        noted |= {"tokenizer": maskset.task.tokenizer, "max_length": maskset.task.max_length}
    return config | {"maskhub": {key: value for key, value in noted.items() if value is not None}}


def card(base: Checkpoint, maskset: MaskSet) -> str:
    """A model card that says what the checkpoint was built from."""
    front: dict[str, Any] = {"library_name": "transformers", "base_model": maskset.base.name, "tags": ["maskhub"]}
    if maskset.task:
        front["pipeline_tag"] = maskset.task.type
    lines = [f"{key}: {printable(json.dumps(value, ensure_ascii=False))}" for key, value in front.items()]  # as YAML
    return "\n".join(
        [
            "---",
            *lines,
            "---",
            "",
            "A dense checkpoint built by MaskHub: the weights of the base, those that the mask drops set to 0.",
            "",
            f"- base: {markdown(maskset.base.name)}, root `{maskset.base.root}`",
            f"- mask: `{maskset.id}`",
            *(f"- {markdown(name)}: {value:.4f}" for name, value in sorted(maskset.metrics.items())),
            "",
        ]
    )
