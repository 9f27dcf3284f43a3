"""Selection: few flips are kept, a file has the size that is asked for, and a run can be packed smaller."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch.optim import SGD, Adam
from transformers import AutoModel, Trainer, TrainingArguments

import maskhub
import maskhub.training as learning
from maskhub.container.reader import open_mask
from maskhub.errors import ArgumentError, MaskhubError, TrainingError
from maskhub.training.flips import read_flips
from maskhub.training.loop import TrainResult
from maskhub.training.masking import masked_weights, masks_of, scores_of
from maskhub.training.run import CONFIG, FLIPS, write_record
from maskhub.training.selection import rounds, selected
from maskhub.training.settings import method_from
from maskhub.training.train import learn, ready
from tests import tiny, toy
from tests.training.test_train_methods import logits, own_model, packed, rows_of

LONG = {"epochs": 6.0, "l2_sp": 0.0}  # 30 steps, in which much flips


def own(model: Any, rows: Any, steps: int, optimizer: torch.optim.Optimizer | None = None) -> torch.optim.Optimizer:
    """So many steps of a loop of one's own."""
    if optimizer is None:
        optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    learning.attach(model, optimizer, steps=steps)
    for step in range(steps):
        start = 8 * step % 40
        model(**rows[start : start + 8]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose masks take more than what else a file holds."""
    folder = tmp_path_factory.mktemp("wide") / "wide"
    return tiny.tiny_model("bert", folder, initializer_range=0.1, hidden_size=128, intermediate_size=256)


@pytest.fixture(scope="module")
def run(wide: Path, task: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return learn(toy.settings(wide, task, keep_flips=0.5, **LONG), tmp_path_factory.mktemp("selected") / "run")


@pytest.mark.parametrize(
    ("given", "steps", "found"),
    [
        ({"keep_flips": 0.3}, 100, [50, 65, 80]),
        ({"bits": 0.03, "selection_rounds": 1}, 100, [50]),
        ({"size": "60KB", "selection_start": 0.4, "selection_end": 0.4}, 10, [4]),
        (
            {"keep_flips": 0.3, "selection_start": 0.2, "selection_end": 0.7, "selection_rounds": 6},
            10,
            [2, 3, 4, 5, 6, 7],
        ),
        ({"recipe": "paper"}, 100, []),
        ({"keep_flips": 1.0}, 100, []),
    ],
)
def test_when_flips_are_selected(given: dict[str, Any], steps: int, found: list[int]) -> None:
    assert rounds(method_from(**given), steps) == found


def test_what_is_pinned_is_as_it_began_and_takes_no_memory(bert: Path, task: Path) -> None:
    model = own_model(bert).train()
    learning.mask_model(model, l2_sp=0.0, keep_flips=0.25, selection_rounds=1, recipe="paper")
    first, scores = masks_of(model), sum(s.numel() for s in scores_of(model).values())
    rows = rows_of(bert, task)
    optimizer = own(model, rows, 9)  # 10 are told of, and the selection is after the fifth
    flips = {name: (mask ^ first[name]).kept for name, mask in masks_of(model).items() if name.startswith("bert")}
    left = {name: s.numel() for name, s in scores_of(model).items() if name.startswith("bert")}
    assert 0 < sum(left.values()) < 0.05 * scores
    assert all(flips[name] <= left[name] for name in left)  # what is left may flip back, and nothing else flips
    for name, one in masked_weights(model).items():
        state = optimizer.state[one.scores]
        assert {len(state[key].view(-1)) for key in ("exp_avg", "exp_avg_sq")} == {one.scores.numel()}, name
    held = sum(b.nbytes for n, one in masked_weights(model).items() if n in left for b in one.buffers())
    assert held <= 12 * sum(left.values())


def test_the_highest_by_fisher_times_way_are_kept(bert: Path, task: Path) -> None:
    """Two models that train alike: of one, what it would keep is worked out by hand before it selects."""
    rows = rows_of(bert, task)
    kept = []
    for selects in (False, True):
        torch.manual_seed(3)
        model = own_model(bert).eval()  # no chance in it
        start = 0.5 if selects else 0.9
        learning.mask_model(
            model, l2_sp=0.0, keep_flips=0.25, selection_start=start, selection_end=start, selection_rounds=1
        )
        model.train()
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        learning.attach(model, optimizer, steps=10)
        for step in range(5):
            model(**rows[8 * step : 8 * step + 8]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if selects:
            kept.append({one.key: one.places.tolist() for one, _ in selected(model)})
            continue
        places, matter = [], []
        for one, _ in selected(model):
            state, moved = optimizer.state[one.scores], one.scores.detach() - one.first()
            value = (state["exp_avg_sq"] * moved.abs()).view(-1)
            flat = torch.nonzero(one.changed().view(-1)).view(-1)
            places += [(one.key, int(place)) for place in flat]
            matter += value[flat].tolist()
        best = np.argsort(-np.array(matter), kind="stable")[: round(0.25 * len(matter))]
        chosen: dict[str, list[int]] = {one.key: [] for one, _ in selected(model)}
        for key, place in sorted(places[i] for i in best):
            chosen[key].append(place)
        kept.append(chosen)
    assert kept[0] == kept[1]


@pytest.mark.parametrize("size", ["4.5KB", "5500", "6.5KB"])
def test_a_file_has_the_size_that_is_asked_for(wide: Path, task: Path, tmp_path: Path, size: str) -> None:
    result = learn(toy.settings(wide, task, size=size, **LONG), tmp_path / "run")
    wanted = int(float(size.replace("KB", "")) * (1000 if "KB" in size else 1))
    assert 0.97 * wanted <= result.mask.stat().st_size <= wanted
    assert logits(result.model, wide, task) == logits(maskhub.load_model(wide, result.mask), wide, task)
    measured = maskhub.evaluate(wide, result.mask, file=task / "eval.jsonl")[0].metrics
    assert measured["accuracy"] == result.metrics["accuracy"]


def test_masks_take_the_bits_that_are_asked_for(wide: Path, task: Path, tmp_path: Path) -> None:
    result = learn(toy.settings(wide, task, bits=0.05, **LONG), tmp_path / "run")
    assert 0.97 * 0.05 <= maskhub.open(result.mask).summary().bits_per_weight <= 0.05


def test_a_size_below_what_else_a_file_holds(wide: Path, task: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ArgumentError, match=r"size: 2,000 bytes, and what a file holds besides flips takes ([\d,]+)"
    ) as e:
        ready(toy.settings(wide, task, size="2KB"))
    least = int(str(e.value.message).rpartition(" ")[2].replace(",", ""))
    result = learn(toy.settings(wide, task, size=str(round(1.08 * least)), **LONG), tmp_path / "run")
    assert least < result.mask.stat().st_size <= 1.08 * least
    assert not (tmp_path / "x").exists()


def test_a_size_in_ones_own_loop(wide: Path, task: Path, tmp_path: Path) -> None:
    model = own_model(wide).train()
    learning.mask_model(model, l2_sp=0.0, size="5KB")
    own(model, rows_of(wide, task), 20)
    packed(model, wide, task, tmp_path / "own.msk")
    assert 0.97 * 5_000 <= (tmp_path / "own.msk").stat().st_size <= 5_000


@pytest.mark.parametrize(
    ("given", "make", "steps", "message"),
    [
        ({"keep_flips": 0.5}, SGD, 10, "selection_measure fisher: SGD keeps no mean square of each gradient"),
        ({"keep_flips": 0.5, "score_margin": 1e-4}, Adam, 10, "nothing has flipped before the selection"),
        ({"keep_flips": 1e-9}, Adam, 10, "the selection keeps no flip"),
        ({"keep_flips": 0.5}, Adam, None, "a selection of flips needs to know all steps of the training"),
    ],
)
def test_selections_that_cannot_be(
    bert: Path, task: Path, given: dict[str, Any], make: Any, steps: int | None, message: str
) -> None:
    model = own_model(bert).train()
    learning.mask_model(model, l2_sp=0.0, selection_rounds=1, **given)
    optimizer = make([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    rows = rows_of(bert, task)

    def train() -> None:
        learning.attach(model, optimizer, steps=steps)
        for step in range(5):
            model(**rows[8 * step : 8 * step + 8]).loss.backward()
            if "score_margin" in given:
                for scores in scores_of(model).values():
                    scores.grad.zero_()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()

    with pytest.raises(TrainingError, match=message):
        train()


def test_a_run_knows_what_its_flips_matter(run: TrainResult) -> None:
    mask = open_mask(run.mask)
    flips = read_flips(run.folder / FLIPS, mask)
    assert flips.masks(flips.count) == {name: mask[name] for name in flips.first}
    assert flips.masks(0) == flips.first
    least = min(value for values in flips.values.values() for value in values)
    assert least >= 0


def test_a_run_is_packed_smaller(run: TrainResult, wide: Path, task: Path, tmp_path: Path) -> None:
    whole = run.mask.stat().st_size
    bare = maskhub.open(run.mask)
    for share in (0.9, 0.8):
        size = round(share * whole)
        small = maskhub.pack(run.folder, tmp_path / f"{share}.msk", size=str(size), eval_file=task / "eval.jsonl")
        assert 0.97 * size <= (tmp_path / f"{share}.msk").stat().st_size <= size
        assert small.metrics == maskhub.evaluate(wide, small, file=task / "eval.jsonl")[0].metrics
        assert small.lineage["size"] == size
        assert maskhub.diff(small, bare).total.differing > 0
    unmeasured = maskhub.pack(run.folder, tmp_path / "unmeasured.msk", size=str(round(0.9 * whole)))
    assert unmeasured.metrics == {}
    same = maskhub.pack(run.folder, tmp_path / "same.msk", size="1MB")
    assert same.id == bare.id
    with pytest.raises(ArgumentError, match="size: 2,000 bytes, and what a file holds besides flips takes"):
        maskhub.pack(run.folder, tmp_path / "x.msk", size="2KB")
    with pytest.raises(ArgumentError, match="no run's folder, which a size is for"):
        maskhub.pack(run.mask, tmp_path / "x.msk", size="10KB")
    with pytest.raises(ArgumentError, match="eval_file is for a size"):
        maskhub.pack(run.folder, tmp_path / "x.msk", eval_file=task / "eval.jsonl")
    assert not (tmp_path / "x.msk").exists()


def test_a_run_whose_base_moved_is_told_where_it_is(run: TrainResult, wide: Path, task: Path, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    record = (tmp_path / "run/run.json").read_text()
    (tmp_path / "run/run.json").write_text(record.replace(f'"base": "{wide}"', f'"base": "{wide}-before"'))
    small = {"size": str(round(0.9 * run.mask.stat().st_size)), "eval_file": task / "eval.jsonl"}
    with pytest.raises(MaskhubError) as caught:
        maskhub.pack(tmp_path / "run", tmp_path / "small.msk", **small)
    assert str(caught.value).endswith("name where it is now: --base BASE.")
    assert maskhub.pack(tmp_path / "run", tmp_path / "small.msk", base=wide, **small).metrics


def test_a_run_without_a_selection_cannot_be_packed_smaller(bert: Path, task: Path, tmp_path: Path) -> None:
    learn(toy.settings(bert, task, epochs=1.0), tmp_path / "run")
    with pytest.raises(TrainingError, match="the run does not know which flips matter"):
        maskhub.pack(tmp_path / "run", tmp_path / "x.msk", size="10KB")


def test_a_record_that_is_damaged(run: TrainResult, tmp_path: Path) -> None:
    record = tmp_path / FLIPS
    record.write_bytes((run.folder / FLIPS).read_bytes()[:-4])
    with pytest.raises(maskhub.MaskhubError, match=str(record)):
        read_flips(record, open_mask(run.mask))


def test_settings_of_a_run_that_selects_are_in_its_lineage(run: TrainResult) -> None:
    assert open_mask(run.mask).lineage["settings"]["keep_flips"] == 0.5
    record = json.loads((run.folder / "run.json").read_bytes())
    assert record["settings"]["selection_start"] == 0.5


def test_a_run_is_packed_at_several_sizes(wide: Path, task: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    given = {name: getattr(toy.settings(wide, task), name) for name in ("train_file", "eval_file", "max_length")}
    more = {"recipe": "paper", "batch_size": 8, "eval_steps": 4, "learning_rate": 1e-2, "sizes": "5KB,6.5KB,4.5KB"}
    result = maskhub.train(wide, tmp_path / "run", **given, **LONG, **more)
    assert [one.mask.name for one in result.sizes] == ["mask.msk", "mask-5KB.msk", "mask-4.5KB.msk"]
    for one, wanted in zip(result.sizes, (6500, 5000, 4500), strict=True):
        assert 0.97 * wanted <= one.mask.stat().st_size <= wanted
        measured = maskhub.evaluate(wide, one.mask, file=task / "eval.jsonl")[0].metrics
        assert one.metrics["accuracy"] == measured["accuracy"] == maskhub.open(one.mask).metrics["accuracy"]
    assert logits(result.model, wide, task) == logits(maskhub.load_model(wide, result.mask), wide, task)
    assert json.loads((tmp_path / "run/metrics.json").read_bytes())["sizes"][1]["size"] == "5KB"
    assert (tmp_path / "run/sizes.png").stat().st_size > 5_000
    with pytest.raises(ArgumentError, match="size and sizes say the same"):
        toy.settings(wide, task, size="7KB", sizes="5KB,6KB")
    with pytest.raises(ArgumentError, match="'huge' is no size such as"):
        toy.settings(wide, task, sizes="5KB,huge")


@pytest.mark.parametrize("way", ["held", "summed", "compiled"])
def test_graphs_that_are_held_over_a_selection(bert: Path, task: Path, way: str) -> None:
    """Torch keeps a parameter's old shape for those."""
    rows, masks = rows_of(bert, task), []
    for plain in (True, False):
        model = own_model(bert).eval()
        learning.mask_model(model, l2_sp=0.0, keep_flips=0.3)
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        called: Any = torch.compile(model, backend="aot_eager") if way == "compiled" and not plain else model
        model.train()
        optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        learning.attach(model, optimizer, steps=10)
        held: list[Any] = []
        total = torch.zeros(())
        for step in range(10):
            start = 8 * step % 40
            loss = called(**rows[start : start + 8]).loss
            loss.backward()
            held += [loss] if way == "held" and not plain else []
            total = total + (loss if way == "summed" and not plain else 0)
            optimizer.step()
            optimizer.zero_grad()
        masks.append(masks_of(model))
    assert masks[0] == masks[1]


def test_the_share_is_kept_however_the_rounds_fall(bert: Path, task: Path) -> None:
    left = []
    for given in ({"selection_rounds": 1}, {"selection_rounds": 20}, {"selection_end": 0.5}):
        model = own_model(bert).train()
        learning.mask_model(model, l2_sp=0.0, keep_flips=0.1, **given)
        own(model, rows_of(bert, task), 20)
        left.append(sum(one.scores.numel() for one, _ in selected(model)))
    assert max(left) < 2 * min(left)


def test_sizes_that_cannot_be_are_refused_before_training(wide: Path, task: Path) -> None:
    for given in ({"sizes": "2KB,6KB"}, {"bits": 1e-5}):
        with pytest.raises(ArgumentError, match=r"holds besides flips takes|without any flip take"):
            ready(toy.settings(wide, task, **given))
    assert (
        toy.settings(wide, task, size=6000).file_size == toy.settings(wide, task, sizes=(5000, 6000)).file_size == 6000
    )


def test_a_model_without_a_gradient_for_all_scores(bert: Path, task: Path, tmp_path: Path) -> None:
    """As by mean pooling: the pooler has none."""
    model: Any = AutoModel.from_pretrained(bert).train()
    learning.mask_model(model, l2_sp=0.0, keep_flips=0.3)
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    learning.attach(model, optimizer, steps=10)
    rows = rows_of(bert, task)
    for step in range(10):
        batch = {k: v for k, v in rows[8 * step % 40 : 8 * step % 40 + 8].items() if k != "labels"}
        model(**batch).last_hidden_state.mean(1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    learning.pack(model, tmp_path / "own.msk")


@pytest.mark.parametrize("step", [5, 15])
def test_a_trainer_of_ones_own_goes_on_to_its_size(wide: Path, task: Path, tmp_path: Path, step: int) -> None:
    rows, files = rows_of(wide, task), []
    for resumed in (False, True):
        model = own_model(wide)
        learning.mask_model(model, l2_sp=0.0, size="5KB", recipe="paper", classifier="dense")
        arguments = TrainingArguments(
            str(tmp_path / "out"), max_steps=20, per_device_train_batch_size=8, learning_rate=1e-2, use_cpu=True,
            report_to="none", save_steps=5, eval_steps=5, eval_strategy="steps", disable_tqdm=True,
            load_best_model_at_end=True, metric_for_best_model="loss", save_total_limit=None,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[learning.MaskCallback()])
        trainer.train(resume_from_checkpoint=str(tmp_path / f"out/checkpoint-{step}") if resumed else None)
        assert trainer.state.best_global_step is None or trainer.state.best_global_step >= 15  # the last selection's 16
        learning.pack(model, tmp_path / f"{resumed}.msk")
        files.append(tmp_path / f"{resumed}.msk")
        assert files[-1].stat().st_size <= 5_000
    assert maskhub.open(files[0]).masks == maskhub.open(files[1]).masks


def test_a_state_of_another_selection_is_refused(bert: Path, task: Path) -> None:
    model = own_model(bert).train()
    learning.mask_model(model, l2_sp=0.0, keep_flips=0.3, selection_rounds=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own(model, rows_of(bert, task), 10)
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(after)
    with pytest.raises((TrainingError, RuntimeError), match=r"size mismatch|were selected after this state was saved"):
        model.load_state_dict(before)
    other = own_model(bert).train()
    learning.mask_model(other, l2_sp=0.0, keep_flips=0.6, selection_rounds=1, seed=1)
    own(other, rows_of(bert, task), 10)
    with pytest.raises(TrainingError, match="were selected after this state was saved"):
        other.load_state_dict(after)


def test_a_run_that_does_not_select_is_packed_smaller_too(wide: Path, task: Path, tmp_path: Path) -> None:
    result = learn(toy.settings(wide, task, epochs=6.0, l2_sp=0.001), tmp_path / "run")
    assert result.mask is not None
    size = round(0.93 * result.mask.stat().st_size)
    maskhub.pack(tmp_path / "run", tmp_path / "small.msk", size=size)
    assert 0.95 * size <= (tmp_path / "small.msk").stat().st_size <= size
    with pytest.raises(ArgumentError, match="a size is that of a file by the codec auto"):
        maskhub.pack(tmp_path / "run", tmp_path / "x.msk", size=size, codec="gaps")


def test_a_configuration_with_sizes_can_be_asked_for_others(wide: Path, task: Path, tmp_path: Path) -> None:
    write_record(tmp_path, ready(toy.settings(wide, task, sizes="5KB,6KB")).record)
    asked = {"config": tmp_path / CONFIG, "dry_run": True}
    maskhub.train(wide, **asked)
    maskhub.train(wide, **asked, size="7KB")
    maskhub.train(wide, **asked, keep_flips=0.5)
