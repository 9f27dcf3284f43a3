"""Live tasks of every family and kind: exactly what ``load_model`` gives, and in mixed batches all but for rounding."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import ArgumentError, DataError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import MaskSet
from maskhub.runtime.live import BASE, Tasks, load_tasks
from maskhub.runtime.load import load_model
from maskhub.runtime.predict import predict
from maskhub.storage.tensor import RawTensor
from tests import tiny
from tests.runtime.test_live import same

THREE = ("a", "b", "c")
CLASSES = ("ForSequenceClassification", "ForTokenClassification", "ForMultipleChoice")
T5 = r"(Attention|DenseReluDense)\.(q|k|v|o|wi|wo)\."
# Of each family the ends of the base's class and of the tasks' classes.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bert": ("Model", CLASSES),
    "roberta": ("Model", CLASSES),
    "distilbert": ("Model", CLASSES),
    "electra": ("Model", CLASSES),
    "albert": ("Model", CLASSES),
    "gpt2": ("LMHeadModel", ("LMHeadModel", *CLASSES[:2])),
    "llama": ("ForCausalLM", ("ForCausalLM", *CLASSES[:2])),
    "t5": ("Model", CLASSES[:2]),
    "vit": ("Model", ("ForImageClassification",)),
}
Family = tuple[Checkpoint, dict[str, MaskSet], dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Family]:
    """A family's base, its tasks' masks, and the models that ``load_model`` makes of them.

    Of each kind one drops few weights, one many, and of classifiers one gives numbers.
    """
    found: dict[str, Family] = {}

    def once(family: str) -> Family:
        if family not in found:
            folder = tmp_path_factory.mktemp(family)
            end, kinds = KINDS[family]
            still = {"pad_token_id": 0} if family in ("gpt2", "llama") else {}
            base = tiny.tiny_model(family, folder / "base", head=end, initializer_range=0.3)
            where = {"layers": T5} if family == "t5" else {}
            masks = {}
            for kind in kinds:
                labelled = kind.endswith("Classification")
                ways: list[tuple[float, tuple[str, ...], dict[str, Any]]] = [
                    (0.95, THREE if labelled else (), {}),
                    (0.5, THREE[:2] if labelled else (), {}),
                ]
                if kind == CLASSES[0]:
                    ways.append((0.9, ("score",), {"problem_type": "regression"}))
                for kept, names, options in ways:
                    there = tiny.packed_on(
                        base, folder / f"{kind}-{kept}", f"{tiny.FAMILIES[family]}{kind}", names, seed=len(masks),
                        kept=kept, **where, **still, **options,
                    )  # fmt: skip
                    masks[f"{kind}-{kept}"] = there.mask
            opened = open_checkpoint(base)
            found[family] = opened, masks, {name: load_model(opened, mask) for name, mask in masks.items()}
        return found[family]

    return once


def live(base: Checkpoint, masks: dict[str, MaskSet], **options: Any) -> Tasks:
    tasks = Tasks(base, **options)
    for name, maskset in masks.items():
        tasks.load_task(maskset, name)
    return tasks


def inputs(family: str, rows: int, seed: int = 0, *, choices: int = 0, tokens: int = 7) -> dict[str, Tensor]:
    """A random batch; the rows of texts are of several lengths, and padded."""
    generator = torch.Generator().manual_seed(seed)
    if family == "vit":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    if choices:
        flat = inputs(family, rows * choices, seed, tokens=tokens)
        return {key: value.view(rows, choices, -1) for key, value in flat.items()}
    lengths = torch.randint(3, tokens + 1, (rows,), generator=generator)
    lengths[:1] = tokens
    ids = torch.randint(5, 40, (rows, tokens), generator=generator)
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    pad = 1 if family == "roberta" else 0
    ids = torch.where(mask.bool(), ids, pad)
    ids[torch.arange(rows), lengths - 1] = 3  # T5's end of a text
    return {"input_ids": ids, "attention_mask": mask}


def alone(base: Checkpoint, expected: dict[str, Any], name: str, batch: dict[str, Tensor], row: int) -> Tensor:
    """What one row's task answers to it alone: logits, or the base's last hidden state."""
    only = {key: value[row : row + 1] for key, value in batch.items()}
    with torch.no_grad():
        if name == BASE:
            plain = transformers.AutoModel.from_pretrained(base.folder, dtype=torch.float32).eval()
            return plain(**only)[0][0]  # type: ignore[no-any-return]
        return expected[name](**only).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", KINDS)
def test_after_any_switches_all_is_as_load_model_has_it(made: Callable[[str], Family], family: str) -> None:
    base, masks, expected = made(family)
    tasks, rng = live(base, masks), random.Random(0)
    choices = {name: 3 if "Choice" in name else 0 for name in masks}
    for turn in range(25):
        name = rng.choice([*masks, None])
        if name is None:
            tasks.set_task(None)
            continue
        assert type(tasks[name]) is type(expected[name])
        batch = inputs(family, 3, turn, choices=choices[name])
        with torch.no_grad():
            assert torch.equal(tasks[name](**batch).logits, expected[name](**batch).logits)
        assert same(tasks[name], expected[name])
        one, two = (model.config.to_dict() | {"_name_or_path": ""} for model in (tasks[name], expected[name]))
        assert one == two
    with tasks.disable_tasks():
        tasks.verify()
    assert tasks.memory().base == sum(weight.nbytes for weight in tasks.shared.weights.values())


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("tokens", [7, 6])  # rows are 6, too
def test_rows_of_many_tasks_and_kinds(made: Callable[[str], Family], family: str, tokens: int) -> None:
    base, masks, expected = made(family)
    tasks, rng = live(base, masks), random.Random(0)
    rowwise = [name for name in masks if "Choice" not in name]
    several = [name for name in masks if "Choice" in name]
    for turn, rows in enumerate((6, 6, 1, 6)):
        for known, choices in ((rowwise, 0), (several, 3)):
            if not known:
                continue
            names = rng.choices([*known, *([BASE] if family != "t5" and not choices else [])], k=rows)
            batch = inputs(family, rows, turn, choices=choices, tokens=tokens)
            found = tasks(**batch, task_names=names).logits
            for row, name in enumerate(names):
                right = alone(base, expected, name, batch, row)
                assert found[row].shape == right.shape
                if name == BASE and "attention_mask" in batch:  # states of what is padded tell nothing
                    there = batch["attention_mask"][row].bool()
                    found[row], right = found[row][there], right[there]
                assert (found[row] - right).abs().max() <= 2e-5 * (1 + right.abs().max()), (row, name)
                assert name == BASE or torch.equal(found[row].argmax(-1), right.argmax(-1))
    tasks.verify()
    assert {*tasks._batches._mixes.values()} == {True}


def test_predictions_of_all_kinds_in_one_call(made: Callable[[str], Family]) -> None:
    base, masks, _ = made("bert")
    tasks = live(base, masks)
    choices = {"prompt": "who is the man", "choices": ["in city", "win a prize", "bad film"]}
    asked = {name: choices if "Choice" in name else f"{name[3:11]} wins , free" for name in masks}
    names = [*masks, *reversed(masks), *masks]
    said = tasks.predict([asked[name] for name in names], names, batch_size=4)
    for name, answer in zip(names, said, strict=True):
        (right,) = predict(base, masks[name], [asked[name]])
        assert _rounded(answer) == _rounded(right)


def test_errors_tell_rows_of_the_callers_list(made: Callable[[str], Family]) -> None:
    base, masks, _ = made("gpt2")
    tasks, (writer, _, one, two, *_) = live(base, masks), masks
    texts = ["who", "is", "the", ""]
    for names in (one, [one] * 4, [two, one, one, one], [two, two, one, one], [one, one, one, writer], [writer] * 4):
        with pytest.raises(DataError, match=r"^inputs: row 4 has no text that the tokenizer knows"):
            tasks.predict(texts, names)


def test_errors_tell_rows_of_the_callers_list_where_two_are_told(made: Callable[[str], Family]) -> None:
    base, masks, _ = made("bert")
    tasks = live(base, masks)
    chosen, texts = ([name for name in masks if kind in name] for kind in ("Choice", "Sequence"))
    asked = ["a", {"prompt": "b", "choices": ["c", "d"]}, "e", {"prompt": "f", "choices": ["g"]}]
    for other in chosen:
        with pytest.raises(DataError, match=r"^inputs: row 4 has 1 choices, and row 2 has 2"):
            tasks.predict(asked, [texts[0], chosen[0], texts[1], other])


def test_a_folder_of_images_is_an_input_for_each(made: Callable[[str], Family], tmp_path: Path) -> None:
    base, masks, _ = made("vit")
    tasks, (one, two) = live(base, masks), masks
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    assert tasks.predict([tmp_path], one) == predict(base, masks[one], [tmp_path])
    for names in ([one, one], [one, two]):
        with pytest.raises(ArgumentError, match=r"^2 inputs hold 3\. Give each"):
            tasks.predict([tmp_path / "a.png", tmp_path], names)


def test_what_is_no_input_is_refused_alone_and_in_a_list(made: Callable[[str], Family]) -> None:
    base, masks, _ = made("vit")
    tasks, name, image = live(base, masks), next(iter(masks)), Image.new("RGB", (16, 16))
    for given in (image, [image], b"image", [b"image"], 7, None):
        for ask in (partial(tasks.predict, given, name), partial(predict, base, masks[name], given)):
            with pytest.raises(ArgumentError, match="is no path"):
                ask()


def test_texts_go_on_as_long_as_is_asked(made: Callable[[str], Family]) -> None:
    base, masks, _ = made("gpt2")
    tasks, texts = live(base, masks), ["who is the man", "win a"]
    one, other = (name for name in masks if "LMHead" in name)
    right = {name: predict(base, masks[name], texts, max_new_tokens=3) for name in (one, other)}
    assert right[one] != predict(base, masks[one], texts, max_new_tokens=9)
    assert tasks.predict(texts, one, max_new_tokens=3) == right[one]
    assert tasks.predict(texts, [one, other], max_new_tokens=3) == [
        predict(base, masks[name], text, max_new_tokens=3)[0] for name, text in zip((one, other), texts, strict=True)
    ]
    with pytest.raises(ArgumentError, match="max_new_tokens 0: it is 1 or more"):
        tasks.predict(texts, one, max_new_tokens=0)


def _rounded(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: _rounded(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_rounded(one) for one in answer]
    return pytest.approx(answer, abs=1e-5) if isinstance(answer, float) else answer


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("Longformer", {"attention_window": [4, 4], "max_position_embeddings": 70}),
        ("XLNet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    ],
)
@pytest.mark.parametrize("rows", [4, 8, 5])  # 8 tokens: rows could be taken for tokens
def test_layers_that_see_tokens_first_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, config: dict[str, Any], rows: int
) -> None:
    monkeypatch.setitem(tiny.FAMILIES, family.lower(), family)
    sizes = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    monkeypatch.setattr(tiny, "_sizes", lambda *_: sizes | {"num_attention_heads": 4, "pad_token_id": 0} | config)
    opened = open_checkpoint(tiny.tiny_model(family.lower(), tmp_path / "base", initializer_range=0.3))
    masks = {
        str(seed): tiny.packed_on(
            tmp_path / "base", tmp_path / str(seed), f"{family}ForSequenceClassification", THREE, seed=seed, kept=0.9
        ).mask
        for seed in range(3)
    }
    tasks, expected = live(opened, masks), {name: load_model(opened, mask) for name, mask in masks.items()}
    for turn in range(2):
        names = [str((row + turn) % 3) for row in range(rows)]
        batch = inputs("bert", rows, turn, tokens=8)
        for row, said in enumerate(tasks(**batch, task_names=names).logits):
            assert torch.allclose(said, alone(opened, expected, names[row], batch, row), atol=1e-5)
    assert True not in tasks._batches._mixes.values()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_texts_that_two_threads_write(made: Callable[[str], Family], family: str) -> None:
    base, masks, expected = made(family)
    tasks = live(base, masks)
    ids = torch.tensor([[5, 9, 12], [7, 6, 30]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    names = [name for name in masks if hasattr(expected[name], "generate")]
    assert len(names) == 2
    right = {name: expected[name].generate(ids, **options).tolist() for name in names}
    assert right[names[0]] != right[names[1]]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda turn: tasks[names[turn % 2]].generate(ids, **options).tolist(), range(12)))
    assert found == [right[names[turn % 2]] for turn in range(12)]


def test_generate_of_encoder_and_decoder(tmp_path: Path) -> None:
    """Whose encoder is called by itself."""
    base = tiny.tiny_model("t5", tmp_path / "base", head="ForConditionalGeneration", initializer_factor=4.0)
    opened = open_checkpoint(base)
    masks = {
        str(seed): tiny.packed_on(
            base, tmp_path / str(seed), "T5ForConditionalGeneration", seed=seed, kept=0.5, layers=T5
        ).mask
        for seed in range(2)
    }
    tasks = live(opened, masks)
    ids = torch.tensor([[5, 9, 12, 3]])
    right = [load_model(opened, mask).generate(ids, max_new_tokens=12).tolist() for mask in masks.values()]
    assert right[0] != right[1]
    for turn in (0, 1, 1, 0):
        tasks.set_task(str(1 - turn))
        assert tasks[str(turn)].generate(ids, max_new_tokens=12).tolist() == right[turn]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("stored", [True, False])  # in the base's file, or asked for
def test_halves(tmp_path: Path, dtype: str, stored: bool) -> None:
    base = tiny.tiny_model("bert", tmp_path / "base", initializer_range=0.3)
    asked = {"dtype": dtype}
    if stored:
        transformers.AutoModel.from_pretrained(base, dtype=dtype).save_pretrained(base)
        asked = {}
    opened = open_checkpoint(base)
    masks = {str(seed): tiny.tiny_maskset(opened, seed=seed, sparsity=0.1 + seed / 4) for seed in range(2)}
    tasks = live(opened, masks, **asked)
    expected = {name: load_model(opened, mask, **asked) for name, mask in masks.items()}
    batch = inputs("bert", 5)
    for name in ("0", "1", "0"):
        with torch.no_grad():
            assert tasks[name](**batch).logits.dtype == getattr(torch, dtype)
            assert torch.equal(tasks[name](**batch).logits, expected[name](**batch).logits)
        assert same(tasks[name], expected[name])
    names = ["1", "0", "0", "1", "0"]
    for row, said in enumerate(tasks(**batch, task_names=names).logits):
        rows = {key: value[[at for at in range(5) if names[at] == names[row]]] for key, value in batch.items()}
        with torch.no_grad():  # not mixed, which rounds otherwise
            right = expected[names[row]](**rows).logits[names[:row].count(names[row])]
        assert torch.equal(said, right)
    assert tasks.memory().base == sum(weight.nbytes for weight in tasks.shared.weights.values())
    assert next(iter(tasks.shared.weights.values())).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("table", ["word_embeddings", "position_embeddings", "token_type_embeddings"])
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_masks_of_embeddings(tmp_path: Path, table: str, kept: float) -> None:
    base = tiny.tiny_model("bert", tmp_path / "base", initializer_range=0.3)
    opened = open_checkpoint(base)
    masks = {
        str(seed): tiny.packed_on(
            base, tmp_path / str(seed), "BertForSequenceClassification", THREE, seed=seed, kept=kept, layers=table
        ).mask
        for seed in range(3)
    }
    assert all([*mask] == [f"embeddings.{table}.weight"] for mask in masks.values())
    tasks, expected = live(opened, masks), {name: load_model(opened, mask) for name, mask in masks.items()}
    for rows in (6, 7, 14):
        names = [str(row % 3) for row in range(rows)]
        batch = inputs("bert", rows, rows)
        for row, said in enumerate(tasks(**batch, task_names=names).logits):
            assert torch.allclose(said, alone(opened, expected, names[row], batch, row), atol=1e-5)
        with torch.no_grad():
            assert torch.equal(tasks["1"](**batch).logits, expected["1"](**batch).logits)


def test_a_task_with_a_pooler_of_its_own(tmp_path: Path) -> None:
    base = tiny.tiny_model("bert", tmp_path / "base", initializer_range=0.3)
    opened = open_checkpoint(base)
    shared, own, also = (tiny.tiny_maskset(opened, seed=seed) for seed in range(3))
    own, also = _with_pooler(opened, own), _with_pooler(opened, also)
    sets = {"shared": shared, "own": own, "also": also, "own again": own}
    tasks, expected = live(opened, sets), {name: load_model(opened, mask) for name, mask in sets.items()}
    names = [*sets, *sets]
    batch = inputs("bert", 8)
    for row, said in enumerate(tasks(**batch, task_names=names).logits):
        assert torch.allclose(said, alone(opened, expected, names[row], batch, row), atol=1e-5)
    for name in (*sets, *sets):
        assert same(tasks[name], expected[name])
    tasks.delete_task("own")
    kinds = len(tasks.shared._first)
    assert same(tasks["own again"], expected["own again"])
    for _ in range(3):  # nothing of them stays
        tasks.load_task(sets["own"], "own")
        tasks.delete_task("own")
    assert len(tasks.shared._first) <= kinds


def _with_pooler(base: Checkpoint, maskset: MaskSet) -> MaskSet:
    """The same, whose pooler's biases are no longer the base's."""
    name = "pooler.dense.bias"
    binding = maskset.base
    kept = {n: base.digest(n) for n in binding.tensors if n != name}
    parameters = {n: binding.parameter(n) for n in kept}
    bias = RawTensor.from_numpy(np.arange(32, dtype=np.float32) / 32)
    return dataclasses.replace(
        maskset,
        base=BaseBinding.of(binding.name, kept, parameters, None),
        dense={**maskset.dense, f"bert.{name}": bias},
    )


def test_a_base_with_other_names(tmp_path: Path) -> None:
    """As a whole BERT for masked words has, which are matched by what lies there."""
    bare = tiny.tiny_model("bert", tmp_path / "bare", initializer_range=0.3)
    opened = open_checkpoint(bare)
    masks = {str(seed): tiny.tiny_maskset(opened, seed=seed) for seed in range(2)}
    whole = transformers.BertForPreTraining.from_pretrained(bare)
    whole.save_pretrained(tmp_path / "whole")
    tiny.write_tokenizer(tmp_path / "whole")
    with pytest.warns(UserWarning, match="matched by their digests"):
        tasks = load_tasks(tmp_path / "whole", masks)
    expected = {name: load_model(opened, mask) for name, mask in masks.items()}
    for name in ("0", "1", "0"):
        assert same(tasks[name], expected[name])
