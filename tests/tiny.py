"""Tiny base checkpoints, models and mask sets for tests. Only ``tiny_model`` and ``packed`` need torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard

from maskhub.checkpoints import apply
from maskhub.checkpoints.checkpoint import INDEX, WEIGHTS, Checkpoint, open_checkpoint
from maskhub.checkpoints.pruned import from_pruned
from maskhub.container.writer import save
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import Mask, MaskSet
from maskhub.masks.scores import Initial
from maskhub.storage import digest
from maskhub.storage.safetensors import write_tensors
from maskhub.storage.tensor import ITEM_SIZE, Bytes, RawTensor
from maskhub.tasks.task import classes_config

HIDDEN, INTERMEDIATE, LAYERS = 6, 10, 2
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
LABELS = {"id2label": {"0": "ham", "1": "spam"}, "label2id": {"ham": 0, "spam": 1}}
TASK = Task("text-classification", "BertForSequenceClassification", LABELS)
WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "?", "!",
    "who", "what", "when", "where", "how", "is", "the", "of", "in", "to", "man", "city", "year",
    "free", "win", "prize", "call", "now", "good", "bad", "film",
)  # fmt: skip
VOCAB = [*WORDS, *string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase)]

SHAPES: dict[str, tuple[int, ...]] = {
    "embeddings.word_embeddings.weight": (len(VOCAB), HIDDEN),
    **{
        f"encoder.layer.{layer}.{name}": shape
        for layer in range(LAYERS)
        for name, shape in {
            "attention.self.query.weight": (HIDDEN, HIDDEN),
            "attention.self.query.bias": (HIDDEN,),
            "attention.output.dense.weight": (HIDDEN, HIDDEN),
            "attention.output.LayerNorm.weight": (HIDDEN,),
            "intermediate.dense.weight": (INTERMEDIATE, HIDDEN),
            "output.dense.weight": (HIDDEN, INTERMEDIATE),
        }.items()
    },
    "pooler.dense.weight": (HIDDEN, HIDDEN),
    "pooler.dense.bias": (HIDDEN,),
}
MASKED = tuple(name for name, shape in SHAPES.items() if len(shape) == 2 and not name.startswith("embeddings."))


def random_tensor(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> RawTensor:
    """Normally distributed values; random bytes for the 8-bit dtypes. None of them is zero."""
    values = rng.normal(size=shape).astype(np.float32)
    data: Bytes
    if dtype == "BF16":
        data = (values.reshape(-1).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    elif ITEM_SIZE[dtype] == 1:
        data = rng.integers(1, 127, values.size, dtype=np.uint8)
    else:
        data = values.reshape(-1).astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).view(np.uint8)
    return RawTensor(dtype, shape, data)


def base_tensors(dtype: str = "F32", *, seed: int = 0, integers: bool = False) -> dict[str, RawTensor]:
    """The tensors of ``SHAPES``; with ``integers`` also a buffer of positions, as older BERT checkpoints have."""
    rng = np.random.default_rng(seed)
    tensors = {name: random_tensor(dtype, shape, rng) for name, shape in SHAPES.items()}
    if integers:
        tensors["embeddings.position_ids"] = RawTensor.from_numpy(np.arange(16, dtype=np.int64).reshape(1, 16))
    return tensors


def write_checkpoint(
    folder: Path, tensors: dict[str, RawTensor], *, shards: int = 1, config: dict[str, Any] | None = None
) -> Path:
    """A checkpoint folder: weights in one file or in shards with an index, configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)] if shards > 1 else [WEIGHTS]
    parts = np.array_split(np.array(list(tensors), dtype=object), shards)
    for filename, part in zip(names, parts, strict=True):
        with open(folder / filename, "wb") as file:
            write_tensors(file, {name: tensors[name] for name in part}, {"format": "pt"})
    if shards > 1:
        index = {
            "metadata": {"total_size": sum(t.data.nbytes for t in tensors.values())},
            "weight_map": {name: filename for filename, part in zip(names, parts, strict=True) for name in part},
        }
        (folder / INDEX).write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config or bert_config()))
    write_tokenizer(folder)
    return folder


def write_base(folder: Path, dtype: str = "F32", *, shards: int = 1, seed: int = 0, integers: bool = False) -> Path:
    """The tiny base checkpoint as a folder."""
    return write_checkpoint(folder, base_tensors(dtype, seed=seed, integers=integers), shards=shards)


def bert_config() -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "vocab_size": len(VOCAB),
    }


def write_tokenizer(folder: Path) -> None:
    """A WordPiece tokenizer that knows every letter, as transformers stores it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {word: i for i, word in enumerate(VOCAB)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64})
    )


def random_mask(shape: tuple[int, ...], rng: np.random.Generator, sparsity: float = 0.05) -> Mask:
    """A random mask that drops at least one weight."""
    keep = rng.random(shape) >= sparsity
    keep.reshape(-1)[rng.integers(keep.size)] = False
    return Mask.from_bool(keep)


def random_masks(base: Checkpoint, *, seed: int = 0, sparsity: float = 0.05) -> dict[str, Mask]:
    """Masks for the matrices of ``base`` inside its layers and its pooler."""
    rng = np.random.default_rng(seed)
    return {name: random_mask(base.info(name).shape, rng, sparsity) for name in maskable(base)}


def maskable(base: Checkpoint) -> Iterator[str]:
    for name in sorted(base):
        if len(base.info(name).shape) == 2 and ("layer." in name or name.startswith("pooler.")):
            yield name


def tiny_maskset(
    base: Checkpoint | Path, *, seed: int = 0, sparsity: float = 0.05, prefix: str = "bert.", name: str = "tiny-bert"
) -> MaskSet:
    """A task on the tiny base: random masks, a dense classifier, labels, metrics and lineage."""
    base = base if isinstance(base, Checkpoint) else open_checkpoint(base)
    rng = np.random.default_rng(seed)
    hidden = base.config()["hidden_size"]
    floats = [n for n in base if base.info(n).dtype in FLOATS]
    return MaskSet(
        base=BaseBinding.of(name, {n: base.digest(n) for n in floats}, {n: prefix + n for n in floats}, None),
        masks=random_masks(base, seed=seed, sparsity=sparsity),
        dense={
            "classifier.bias": RawTensor.from_numpy(np.zeros(2, np.float32)),
            "classifier.weight": random_tensor("F32", (2, hidden), rng),
        },
        task=TASK,
        initial=Initial(seed, 3277, -0.02, 0.58),
        metrics={"accuracy": 0.9},
        lineage={"operation": "train", "seed": seed},
    )


def build(base: Checkpoint, maskset: MaskSet, output: Path, **options: Any) -> Path:
    """The dense checkpoint of one mask set; its folder."""
    return apply.build(base, [(maskset, output)], **options)[0]


def tiny_head(seed: int) -> dict[str, RawTensor]:
    """The dense tensors of a ``tiny_maskset``, with other values."""
    weight = random_tensor("F32", (2, HIDDEN), np.random.default_rng(seed))
    return {"classifier.bias": RawTensor.from_numpy(np.zeros(2, np.float32)), "classifier.weight": weight}


def megabyte(path: Path, size: int = 1) -> None:
    """A mask whose file has about a megabyte, or that many."""
    keep = np.random.default_rng(0).random((2900 * size, 2900)) < 0.5
    base = BaseBinding.of("base", {"w": "0" * 64}, {"w": "w"}, None)
    save(MaskSet(base, {"w": Mask.from_bool(keep)}), path, codec="bits")
    assert 1_000_000 < path.stat().st_size / size < 1_100_000


def hub_cache(cache: Path, repo: str, folder: Path) -> tuple[Path, str]:
    """``folder`` as huggingface_hub keeps a downloaded model: a snapshot of links to read-only blobs."""
    commit = "c0ffee" + "0" * 34
    root = cache / ("models--" + repo.replace("/", "--"))
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    for file in folder.iterdir():
        content = file.read_bytes()
        large = file.suffix in (".safetensors", ".bin")  # small files are named by git's hash
        blob = root / "blobs" / (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        blob.write_bytes(content)
        blob.chmod(0o444)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot, commit


# Files of folders and repos that hold no weights which are read, and what they are called.
NO_WEIGHTS = {
    "adapter_model.safetensors": "an adapter of PEFT's", "adapter_model.bin": "an adapter of PEFT's",
    "model-q4.gguf": "a GGUF file", "tf_model.h5": "TensorFlow's weights", "model.onnx": "an ONNX file",
    "onnx/model.onnx": "an ONNX file", "flax_model.msgpack": "Flax's weights",
    "consolidated.00.pth": "the weights of another library", "model.fp16.safetensors": "a variant of the weights",
    "pytorch_model.fp16.bin": "a variant of the weights", "weights.safetensors": "weights under another name",
    "model-00001-of-00002.safetensors": "shards without their index",
    "0_Transformer/model.safetensors": "weights in a folder of their own",
    "0_Transformer/pytorch_model.bin": "weights in a folder of their own",
}  # fmt: skip

# What opens one, told as JSON: a process of its own has its own cache.
OPEN = """
import json, sys
from maskhub.checkpoints.checkpoint import open_checkpoint
c = open_checkpoint(sys.argv[1])
print(json.dumps([c.name, str(c.folder), c.hub.id, c.hub.commit, c.hub.files, len(list(c))]))
"""

FAMILIES = {
    "bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "electra": "Electra", "albert": "Albert",
    "gpt2": "GPT2", "llama": "Llama", "t5": "T5", "vit": "ViT",
}  # fmt: skip


def tiny_model(family: str, folder: Path, *, layers: int = 2, seed: int = 0, head: str = "Model", **more: Any) -> Path:
    """A random base model of ``family``, saved by transformers with its tokenizer or image processor.

    ``head`` ends the name of its class, and ``more`` goes to its configuration.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    processor = _processor(family)
    config = getattr(transformers, f"{FAMILIES[family]}Config")(**_sizes(family, processor, layers) | more)
    model = getattr(transformers, f"{FAMILIES[family]}{head}")(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class Packed(NamedTuple):
    base: Path
    dense: Path
    mask: MaskSet


def packed(
    folder: Path, family: str, architecture: str, names: tuple[str, ...] = (), *, head: str = "Model", **config: Any
) -> Packed:
    """A task model on a tiny base, some of whose weights are dropped, and its mask."""
    base = tiny_model(family, folder / "base", head=head, initializer_range=0.7)
    return packed_on(base, folder / "dense", architecture, names, **config)


def packed_on(
    base: Path,
    dense: Path,
    architecture: str,
    names: tuple[str, ...] = (),
    *,
    seed: int | None = None,
    kept: float = 0.8,
    layers: str = r"layers?\.\d|\.h\.\d",
    **config: Any,
) -> Packed:
    """A task model on a base, of whose ``layers`` a share of the weights is ``kept``, and its mask."""
    import torch
    import transformers

    if names:
        config |= classes_config(names)
        config["id2label"] = {int(i): name for i, name in config["id2label"].items()}
    if seed is not None:  # of a new head, too
        torch.manual_seed(seed)
    model = getattr(transformers, architecture).from_pretrained(base, **config)
    generator = torch.Generator().manual_seed(seed or 0)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and re.search(layers, name):
            weight.data *= torch.rand(weight.shape, generator=generator) < kept
    model.save_pretrained(dense)
    return Packed(base, dense, from_pruned(open_checkpoint(base), open_checkpoint(dense)))


def _sizes(family: str, processor: Any, layers: int) -> dict[str, Any]:
    """A small configuration of a family."""
    blocks = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4}
    if family == "vit":
        return blocks | {"image_size": 16, "patch_size": 4}
    text = {"vocab_size": len(processor), "pad_token_id": processor.pad_token_id, "max_position_embeddings": 66}
    ends = {"bos_token_id": processor.eos_token_id, "eos_token_id": processor.eos_token_id}
    match family:
        case "distilbert":
            return text | {"dim": 32, "hidden_dim": 64, "n_layers": layers, "n_heads": 4}
        case "gpt2":
            return text | ends | {"n_positions": 66, "n_embd": 32, "n_inner": 64, "n_layer": layers, "n_head": 4}
        case "llama":
            return text | ends | blocks | {"num_key_value_heads": 2}
        case "t5":
            sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": layers, "num_heads": 4}
            return text | ends | sizes | {"decoder_start_token_id": processor.pad_token_id}
        case "electra" | "albert":
            return text | blocks | {"embedding_size": 16}
        case _:
            return text | blocks


def _processor(family: str) -> Any:
    """A family's tokenizer or image processor."""
    match family:
        case "roberta":
            return _roberta_tokenizer()
        case "gpt2" | "llama":
            return _gpt2_tokenizer()
        case "t5":
            return _t5_tokenizer()
        case "vit":
            from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

            return ViTImageProcessorPil(size={"height": 16, "width": 16})
        case _:
            return _bert_tokenizer(family)


def _bert_tokenizer(family: str) -> Any:
    from transformers import BertTokenizerFast

    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if family != "distilbert" else [])
    ids = {word: i for i, word in enumerate(VOCAB)}
    return BertTokenizerFast(vocab=ids, model_max_length=64, model_input_names=inputs)


def _roberta_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizerFast

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    return RobertaTokenizerFast(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=64)


def _gpt2_tokenizer() -> Any:
    """Of bytes, with a token that ends a text and none to pad with."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2TokenizerFast

    words = ["<|endoftext|>", *sorted(ByteLevel.alphabet())]
    return GPT2TokenizerFast(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=64)


def _t5_tokenizer() -> Any:
    """Of the same words as BERT's, each text ended by [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(VOCAB)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("$A [SEP]", "$A [SEP] $B [SEP]", [("[SEP]", ids["[SEP]"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]", model_max_length=64
    )


def read_parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A ``.msk`` file's manifest, the bytes of each mask and the array of each dense tensor, read without MaskHub."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        parts: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    manifest = json.loads(zstandard.decompress(parts.pop("maskhub.manifest").tobytes()))
    masks = parts.pop("maskhub.masks").tobytes()
    for name in sorted(manifest["masks"]):
        size = manifest["masks"][name]["bytes"]
        parts[name], masks = masks[:size], masks[size:]
    return manifest, parts


def write_parts(path: Path, manifest: dict[str, Any] | str, parts: dict[str, Any], **plain: str) -> Path:
    """A ``.msk`` file of any manifest and parts, written without MaskHub; metadata follow, but for ``plain``."""
    from safetensors.numpy import save_file

    masks = {name: part for name, part in parts.items() if isinstance(part, bytes)}
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    arrays = {name: part for name, part in parts.items() if not isinstance(part, bytes)}
    arrays["maskhub.manifest"] = np.frombuffer(zstandard.compress(text.encode()), np.uint8)
    arrays["maskhub.masks"] = np.frombuffer(b"".join(masks[name] for name in sorted(masks)), np.uint8)
    save_file(arrays, path, metadata=({} if isinstance(manifest, str) else told(manifest)) | plain)
    return sealed(path) if "seal" not in plain else path


def told(manifest: dict[str, Any]) -> dict[str, str]:
    """The metadata that follow from a manifest, but for the seal."""
    base, task = manifest["base"], manifest.get("task")
    prefix, named = base.get("parameter_prefix", ""), base.get("parameters", {})
    parameters = {name: named.get(name) or prefix + name for name in base["tensors"]}
    masks = {name: entry["digest"] for name, entry in manifest["masks"].items()}
    id = digest.mask_id(base["root"], masks, manifest.get("dense", {}), parameters, task)
    plain = {"format": manifest["format"], "version": manifest["version"], "id": id, "base": base["name"]}
    return plain | ({"task": task["type"]} if task else {}) | {"seal": digest.NONE}


def sealed(path: Path) -> Path:
    """Put a right seal into a file, if it has a place for one."""
    content = path.read_bytes()
    if found := re.search(rb'"seal": ?"([0-9a-f]{64})"', content):
        place = found.start(1)
        path.write_bytes(content[:place] + digest.seal(content, place).encode() + content[place + 64 :])
    return path
