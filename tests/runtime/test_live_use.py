"""Live tasks in threads, in blocks inside each other, and in other processes; what nobody may change, and freeing."""

# ruff: noqa: F811
from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
import transformers

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import ArgumentError, BaseChangedError, FormatError, UnknownTaskError
from maskhub.masks.binding import BaseBinding
from maskhub.masks.mask import Mask, MaskSet
from maskhub.runtime.live import Tasks
from maskhub.runtime.load import load_model
from tests import tiny
from tests.runtime.test_live import BATCH, base, expected, masks, same, tasks  # noqa: F401


def right(tasks: Tasks, expected: dict[str, Any], name: str) -> bool:
    return torch.equal(tasks[name](**BATCH).logits, expected[name](**BATCH).logits)


def test_heads_that_someone_changed(base: Checkpoint, masks: dict[str, MaskSet]) -> None:
    changes = [
        lambda layer: layer.weight.zero_(),
        lambda layer: setattr(layer.weight, "data", layer.weight.data + 1),
        lambda layer: setattr(layer, "bias", torch.nn.Parameter(layer.bias + 1)),
        lambda layer: layer.weight.data.add_(1),  # which torch does not count
    ]
    for change in changes:
        for name in ("spam", "trec"):  # the first model of its kind, and another one
            live = Tasks(base)
            for one in ("spam", "trec"):
                live.load_task(masks[one], one)
            with torch.no_grad():
                change(live[name].classifier)
            for way in (
                lambda live=live, name=name: live[name](**BATCH),
                lambda live=live: live(**BATCH, task_names=["spam", "trec"]),
                live.verify,
            ):
                with pytest.raises(BaseChangedError, match=r"^classifier\.\w+ was changed"):
                    way()


def test_one_value_of_a_head_is_found_when_asked_for(tasks: Tasks) -> None:
    tasks["spam"].classifier.bias.data[1] += 1e-3
    with pytest.raises(BaseChangedError, match=r"classifier\.bias"):
        tasks.verify()


def test_a_head_of_the_bases_own_that_someone_replaced(tmp_path: Path) -> None:
    base = tiny.tiny_model("llama", tmp_path / "base", head="ForCausalLM", tie_word_embeddings=False)
    mask = tiny.packed_on(base, tmp_path / "a", "LlamaForCausalLM", (), layers="layers|lm_head", pad_token_id=0).mask
    live = Tasks(open_checkpoint(base))
    live.load_task(mask, "a")
    model = live["a"]
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 2)
    for way in (lambda: model(torch.tensor([[5, 9]])), live.verify):
        with pytest.raises(BaseChangedError, match=r"lm_head\.weight was changed"):
            way()


def test_no_task_computes_in_training_mode(tasks: Tasks, expected: dict[str, Any]) -> None:
    models = [tasks[name] for name in expected]
    for part in (models[0], models[0].bert.encoder.layer[1].output.dropout):
        part.train()
        for way in (lambda: tasks["trec"](**BATCH), lambda: tasks(**BATCH, task_names=["trec", "many"])):
            with pytest.raises(ArgumentError, match=r"training mode.*Call \.eval\(\)"):
                way()
        models[0].eval()
        assert all(right(tasks, expected, name) for name in expected)


def test_each_thread_has_its_own_active_task(tasks: Tasks, expected: dict[str, Any]) -> None:
    tasks.set_task("spam")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: tasks.active_task).result() is None
        with pytest.raises(ArgumentError, match="no task is active"):
            pool.submit(lambda: tasks(**BATCH)).result()
        assert pool.submit(right, tasks, expected, "many").result()
        assert pool.submit(lambda: tasks.active_task).result() == "many"
        assert tasks.active_task == "spam"
        assert torch.equal(tasks(**BATCH).logits, expected["spam"](**BATCH).logits)
        assert torch.equal(pool.submit(lambda: tasks(**BATCH).logits).result(), expected["many"](**BATCH).logits)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_task_that_is_used_within_anothers_pass(
    tasks: Tasks, expected: dict[str, Any], mixed: bool, inside: bool
) -> None:
    model, asked = tasks["spam"], iter([True])

    def ask(*_: Any) -> None:
        if next(asked, False):
            if mixed:
                tasks(**BATCH, task_names=["trec", "many"])
            else:
                tasks["many"](**BATCH)

    hook = model.bert.encoder.layer[0].register_forward_hook(ask)
    with tasks.disable_tasks() if inside else contextlib.nullcontext():
        assert right(tasks, expected, "spam")
    hook.remove()
    assert tasks.active_task == (None if inside else "spam")


def test_blocks_that_end_in_another_order(tasks: Tasks, expected: dict[str, Any], base: Checkpoint) -> None:
    plain, encoder = transformers.AutoModel.from_pretrained(base.folder), tasks["spam"].bert
    tasks.set_task("spam")
    one, two = tasks.disable_tasks(), tasks.disable_tasks()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert tasks.active_task is None
    assert same(encoder, plain)
    tasks.set_task("many")  # is live where the block ends
    assert tasks.active_task is None
    assert same(encoder, plain)
    two.__exit__(None, None, None)
    assert tasks.active_task == "many"
    assert same(encoder, expected["many"].bert)


def test_a_block_for_the_parts_of_a_model(tasks: Tasks, expected: dict[str, Any]) -> None:
    tasks.set_task("trec")
    with tasks.use("spam") as model:
        assert tasks.active_task == "spam"
        assert right(tasks, expected, "many")
        assert same(model.bert, expected["spam"].bert)
        with pytest.raises(ArgumentError, match="'spam' is in use"):
            tasks.delete_task("spam")
        with pytest.raises(ArgumentError, match="'spam' is in use"):
            tasks.close()
    assert tasks.active_task == "trec"
    assert same(model.bert, expected["trec"].bert)


def test_a_state_stays_what_it_was(tasks: Tasks, expected: dict[str, Any]) -> None:
    state = tasks["spam"].state_dict()
    tasks.set_task("many")
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected["spam"].state_dict().items())


def test_settings_of_one_task_are_not_anothers(tmp_path: Path) -> None:
    base = tiny.tiny_model("gpt2", tmp_path / "base", head="LMHeadModel")
    opened, live = open_checkpoint(base), Tasks(open_checkpoint(base))
    sets = {n: tiny.packed_on(base, tmp_path / n, "GPT2LMHeadModel", (), seed=int(n)).mask for n in "012"}
    for name, mask in sets.items():
        live.load_task(mask, name)
    live["0"].generation_config.max_new_tokens = 2
    live["0"].config.output_hidden_states = True
    for name in "12":
        alone = load_model(opened, sets[name])
        assert live[name].generation_config.to_dict() == alone.generation_config.to_dict()
        assert live[name](torch.tensor([[5, 9]])).hidden_states is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process(tasks: Tasks, expected: dict[str, Any]) -> None:
    tasks.set_task("spam")
    answer = expected["trec"](**BATCH).logits

    def fork() -> int:
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                os._exit(0 if torch.equal(tasks["trec"](**BATCH).logits, answer) else 3)
            finally:
                os._exit(4)
        end = time.monotonic() + 20
        while (found := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
            time.sleep(0.05)
        if found[0] == 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1
        return os.waitstatus_to_exitcode(found[1])

    assert fork() == 0
    with tasks.lock, ThreadPoolExecutor(1) as pool:  # which another thread holds
        assert pool.submit(fork).result() == 0
    assert right(tasks, expected, "spam")


def test_inference_mode(base: Checkpoint, masks: dict[str, MaskSet], expected: dict[str, Any]) -> None:
    live = Tasks(base)
    with torch.inference_mode():
        for name, mask in masks.items():
            live.load_task(mask, name)
        assert all(right(live, expected, name) for name in masks)
    assert not any(p.is_inference() for name in masks for p in live[name].parameters())
    assert all(right(live, expected, name) for name in masks)
    live.verify()


def test_a_base_that_stores_tied_tensors_twice(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = tiny.tiny_model("gpt2", tmp_path / "base", head="LMHeadModel", initializer_range=0.3)
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    opened = open_checkpoint(base)
    ids = torch.tensor([[5, 9, 12]])
    names = ["transformer.wte.weight", "lm_head.weight"]
    layers, table = (
        tiny.packed_on(base, tmp_path / where, "GPT2LMHeadModel", (), layers=where, pad_token_id=0).mask
        for where in ("attn", "wte|lm_head")
    )
    binding = BaseBinding.of("base", {n: opened.digest(n) for n in opened}, {n: n for n in opened}, None)
    one = next(iter(table.values()))
    layers, table = (dataclasses.replace(mask, base=binding) for mask in (layers, table))
    both = dataclasses.replace(table, masks=dict.fromkeys(names, one))
    live = Tasks(opened)
    for name, mask in (("layers", layers), ("both", both)):
        live.load_task(mask, name)
        alone = load_model(opened, mask)
        for _ in range(2):
            assert torch.equal(live[name](ids).logits, alone(ids).logits), name
            live.set_task(None)
    live.verify()
    for other in ({names[0]: one}, {names[1]: one}, dict(zip(names, (one, another_mask(one)), strict=True))):
        with pytest.raises(FormatError, match="are one parameter of GPT2LMHeadModel, and the mask differs in them"):
            live.load_task(dataclasses.replace(table, masks=other), "other")


def another_mask(like: Mask) -> Mask:
    """Another one of its shape."""
    return tiny.random_mask(like.shape, np.random.default_rng(7), 0.5)


def test_what_is_closed_is_freed(base: Checkpoint, masks: dict[str, MaskSet], expected: dict[str, Any]) -> None:
    gc.disable()
    try:
        with Tasks(base) as live:
            live.load_task(masks["spam"], "spam")
            live.load_task(masks["trec"], "trec")
            assert right(live, expected, "spam")
            held = live["trec"]
            weight = weakref.ref(live["spam"].bert.pooler.dense.weight)
        with pytest.raises(UnknownTaskError, match="'trec' was deleted"):
            held(**BATCH)
        assert same(held.bert, transformers.AutoModel.from_pretrained(base.folder))
        del held
        assert weight() is None
    finally:
        gc.enable()
    with pytest.raises(UnknownTaskError, match="no task is called 'spam'"):
        live["spam"]


def test_a_switch_writes_what_two_tasks_drop_however_many_are_loaded(
    base: Checkpoint, masks: dict[str, MaskSet]
) -> None:
    """Of many adapters each takes its part in every switch elsewhere (diffusers 11816), and in each load (peft 981)."""

    def written(others: int) -> tuple[int, int]:
        live = Tasks(base)
        for name in ("spam", "trec"):
            live.load_task(masks[name], name)
        for number in range(others):
            live.load_task(masks["spam"], f"other {number}")
        for name in ("spam", "trec"):
            live.set_task(name)
        before = {name: weight._version for name, weight in live.shared.weights.items()}
        live.set_task("spam")
        changes = sum(weight._version - before[name] for name, weight in live.shared.weights.items())
        return changes, len(live.decoded)

    assert written(0) == written(40)
    assert written(0)[0] > 0
