"""How the accuracy benchmark picks rates, cuts data, compresses what finetuning changed, and compares."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import picks, plan, table
from benchmarks.accuracy.data import cut
from benchmarks.accuracy.picks import Rates, jobs, pick
from benchmarks.accuracy.plan import KEPT, METHODS, PICK_TASKS, SCALES, SEEDS, TASKS, Job
from tests import tiny, toy

Metric = Callable[[Job], float]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results."""
    monkeypatch.setattr(plan, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def keep(job: Job, metric: float, size: int = 1000, **shipped: float) -> None:
    """A result as a job writes it, with more forms that are shipped."""
    forms = {"float32": {"metric": metric, "bytes": size}}
    forms |= {form: {"metric": value, "bytes": size // 2} for form, value in shipped.items()}
    job.path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"metric": metric, "bytes": size, "seconds": 1, "peak_memory_mb": 1, "bits_per_weight": 0.1}
    job.path.write_text(json.dumps({"budget": asdict(job.budget), "shipped": forms, **numbers}))


def decide(method: str, metric: Metric) -> Rates:
    """Keep what is asked for until the pick is made."""
    for _ in range(20):
        found = pick(method)
        if found.rates:
            return found.rates
        assert found.jobs
        for job in found.jobs:
            keep(job, metric(job))
    raise AssertionError("no pick is ever made")


def near(rate: float, head: float) -> Metric:
    """A metric that is best at these rates."""
    return lambda job: 1 / (1 + abs(np.log2(job.learning_rate / rate)) + 0.1 * abs(job.head_learning_rate - head))


@pytest.mark.parametrize("factor", [1 / 8, 1, 8])
def test_a_grid_goes_on_until_its_best_rate_is_inside(results: Path, factor: float) -> None:
    grid = METHODS["finetuning"].rates
    best = grid[1] * factor

    rates = decide("finetuning", near(best, 4e-3))

    tried = {rates.rate for rates in pick("finetuning").means}
    assert rates == Rates(pytest.approx(best), 4e-3)
    assert min(tried) < best < max(tried)


def test_a_rate_is_picked_by_the_mean_over_all_tasks(results: Path) -> None:
    low, high = METHODS["finetuning"].rates[1:3]

    def metric(job: Job) -> float:
        if job.learning_rate == low:
            return 0.9 if job.task == PICK_TASKS[-1] else 0.5
        return 0.6 if job.learning_rate == high else 0.0

    assert decide("finetuning", metric).rate == high


def test_every_grid_has_four_rates_and_no_pick_looks_at_a_task_that_is_held_out(results: Path) -> None:
    for name, method in METHODS.items():
        assert len(method.rates) >= 4 or (method.shares and not method.rates), name
        assert method.shares is None or METHODS[method.shares].shares is None
        assert {job.task for job in pick(name).jobs} <= set(PICK_TASKS)
    assert "sms_spam" not in PICK_TASKS


@pytest.mark.parametrize(("rank", "other"), [(2, 1), (4, 8), (16, 8)])
def test_ranks_of_lora_share_a_pick(results: Path, rank: int, other: int) -> None:
    rates = decide(f"lora-qv-{other}", near(4e-3, 1e-3))

    assert pick(f"lora-qv-{rank}").rates == rates
    assert {(job.learning_rate, job.head_learning_rate) for job in jobs(f"lora-qv-{rank}")} == {rates}


def test_a_compressed_vector_takes_the_scale_that_was_best_on_held_out_examples(results: Path) -> None:
    assert picks.scale_of(KEPT[0]) is None
    decide("finetuning", near(1e-4, 1e-3))
    for job in pick("compeft").jobs:
        keep(job, 0.5, **{f"compeft-{k:g}-{s:g}": k * (s == SCALES[2]) for k, s in itertools.product(KEPT, SCALES)})

    assert picks.scale_of(KEPT[0]) == SCALES[2]
    assert not jobs("compeft")


def test_every_result_has_a_place_of_its_own() -> None:
    base = Job("trec", "masking", 0, 4e-3, 1e-3)
    others = [
        Job("cola", "masking", 0, 4e-3, 1e-3),
        Job("trec", "finetuning", 0, 4e-3, 1e-3),
        Job("trec", "masking", 1, 4e-3, 1e-3),
        Job("trec", "masking", 0, 2e-3, 1e-3),
        Job("trec", "masking", 0, 4e-3, 2e-3),
        Job("trec", "masking", 0, 4e-3, 1e-3, pick=True),
        Job("trec", "masking", 0, 4e-3, 1e-3, long=True),
        Job("trec", "masking", 0, 4e-3, 1e-3, settings={"size": "60KB"}),
        Job("trec", "masking", 0, 4e-3, 1e-3, settings={"size": "30KB"}),
        *(Job("trec", "masking", 0, 4e-3, 1e-3, settings={"pattern": "x" * 100 + end}) for end in "ab"),
    ]

    names = [job.path for job in (base, *others)]
    assert len(set(names)) == len(names)
    assert all(len(path.name) < 200 and path.parent.parent == plan.RESULTS for path in names)
    assert "size=60KB" in names[8].name


def test_what_rates_are_picked_on_is_no_part_of_what_is_trained_on_then(tmp_path: Path) -> None:
    (tmp_path / "trec").mkdir()
    for name in ("train", "test"):
        with gzip.open(tmp_path / "trec" / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"text": f"{name} {i}", "label": "x"}) + "\n" for i in range(1500))

    train, held_out = (
        p.read_text().splitlines() for p in cut(Job("trec", "bitfit", 100, 1, 1, True), tmp_path, tmp_path)
    )
    assert len(train) == 960
    assert len(held_out) == 240
    assert not set(train) & set(held_out)
    assert not any("test" in line for line in (*train, *held_out))

    train, test = (p.read_text().splitlines() for p in cut(Job("trec", "bitfit", 0, 1, 1), tmp_path, tmp_path))
    assert len(train) == len(test) == 1500
    assert all('"test' in line for line in test)


def compared(*, mask: float, size: int) -> table.Comparison:
    """Kept results of finetuning, LoRAs and masking: finetuning has 0.5, LoRA 0.4 by 0.01 more a rank."""
    for method in ("finetuning", "masking", "lora-all-8", "lora-all-1"):
        decide(method, near(METHODS[method].rates[1], 1e-3))
        for number, job in enumerate(jobs(method)):
            noise = 0.001 * (number % 5)
            if method == "masking":
                keep(job, mask + noise, size)
            elif method == "finetuning":
                keep(job, 0.5 + 0.002 * (number % 3), 90_000_000, bitdelta=0.3)
    for method in ("lora-all-1", "lora-all-8"):
        rank = int(method.rpartition("-")[2])
        for job in jobs(method):
            keep(job, 0.4 + 0.01 * rank, 100 * rank, bf16=0.39 + 0.01 * rank)
    return table.Comparison()


def test_masks_are_held_against_the_best_lora_of_at_most_twice_their_bytes(results: Path) -> None:
    found = compared(mask=0.6, size=200)

    assert [found.lora(size) and found.lora(size).name for size in (400, 800, 40)] == [  # type: ignore[union-attr]
        "LoRA, all linear layers, r = 8, bf16", "LoRA, all linear layers, r = 8", None,
    ]  # fmt: skip


def test_a_paired_test_counts_the_seeds_of_all_tasks(results: Path) -> None:
    found = compared(mask=0.6, size=200)
    mask, tuned = found.row("masking"), found.row("finetuning")
    assert mask
    assert tuned

    test = table.paired(mask, tuned)

    assert test
    assert test.pairs == len(TASKS) * len(SEEDS)
    assert test.difference == pytest.approx(0.1, abs=0.005)
    assert max(test.wilcoxon, test.t) < 1e-4
    assert table.paired(mask, mask) == (test.pairs, 0.0, 1.0, 1.0)
    assert "none" in table.tests(found)


def test_where_masks_lose_is_said(results: Path) -> None:
    assert "trec -10.1" in table.tests(compared(mask=0.4, size=200))


def test_a_result_that_is_missing_is_named_and_its_method_has_no_mean(results: Path) -> None:
    compared(mask=0.6, size=200)
    lost = [job for job in jobs("masking") if job.task == "cola"]
    for job in lost:
        job.path.unlink()

    found = table.Comparison()

    row = found.row("masking")
    assert row
    assert not row.whole
    assert {f"masking/{job.path.stem}" for job in lost} <= set(found.missing)
    assert "vera: no rates were picked" in found.missing
    assert found.masks == []
    table.markdown(found), table.brief(found), table.costs(found), table.tests(found), table.rates()


def test_the_picture_has_a_line_a_method(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.accuracy.picture import draw

    draw(compared(mask=0.6, size=200), tmp_path / "x.png")

    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def pair(tiny_bert: Path) -> tuple[object, object]:
    """A model and what it became by training, with a new head."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification as Auto

    torch.manual_seed(0)
    before, after = (Auto.from_pretrained(tiny_bert, num_labels=3) for _ in range(2))
    with torch.no_grad():
        for parameter in after.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return before, after


@pytest.mark.parametrize("kept", [0.01, 0.3])
def test_a_sparse_change_is_the_largest_values_signs_with_a_scale_a_tensor(pair: tuple, kept: float) -> None:  # type: ignore[type-arg]
    import torch

    from benchmarks.accuracy.compressed import sparse

    before, after = pair
    size, built = sparse(before, after, kept, 2.0)

    changed = total = 0
    for (name, old), tuned, new in zip(before.named_parameters(), after.parameters(), built.parameters(), strict=True):
        change = (new - old).detach()
        if name.startswith("classifier"):
            assert torch.equal(new, tuned.bfloat16().float())
            continue
        at = change != 0
        changed, total = changed + int(at.sum()), total + at.numel()
        assert torch.equal(change[at].sign(), (tuned - old)[at].sign())
        if at.any():
            mean = (tuned - old)[at].abs().mean()
            assert torch.allclose(change[at].abs(), 2 * mean, atol=1e-5)
            assert at.all() or (tuned - old)[at].abs().min() >= (tuned - old)[~at].abs().max()
    assert changed == round(kept * total)
    assert changed / 8 < size < total


def test_one_bit_a_change_keeps_vectors_and_embeddings(pair: tuple) -> None:  # type: ignore[type-arg]
    import torch

    from benchmarks.accuracy.compressed import signs

    before, after = pair
    size, built = signs(before, after)

    least = 0
    for (name, old), tuned, new in zip(before.named_parameters(), after.parameters(), built.parameters(), strict=True):
        matrix = old.ndim == 2 and "embedding" not in name and "classifier" not in name
        least += old.numel() // 8 if matrix else 2 * old.numel()
        if matrix:
            assert torch.allclose((new - old).abs(), (tuned - old).abs().mean(), atol=1e-6)
            assert torch.equal((new - old).sign(), torch.where(tuned > old, 1.0, -1.0))
        else:
            assert torch.equal(new, tuned.bfloat16().float())
    assert least < size < least + 1500


@pytest.mark.parametrize("method", ["finetuning", "bitfit", "lora-all-1", "lora-qv-2", "unilora", "masking"])
def test_a_job_trains_and_tells_each_form_that_is_shipped(
    method: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Path
) -> None:
    pytest.importorskip("peft")
    from benchmarks.accuracy import job as job_of

    monkeypatch.setitem(plan.TASKS, "trec", plan.Budget("test", 1, 16, "accuracy"))
    (tmp_path / "trec").mkdir()
    for seed, name in enumerate(("train", "test")):
        with gzip.open(tmp_path / "trec" / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in toy.rows(64, seed=seed))

    result = job_of.run(Job("trec", method, 0, 1e-3, 1e-3), tmp_path, tiny_bert)

    forms = {"finetuning": ["float32", "bitdelta", "bf16"], "masking": ["msk"]}.get(method, ["float32", "bf16"])
    assert list(result["shipped"]) == forms
    assert result["precision"] == "bf16"
    assert result["steps"] == 2
    if "bf16" in forms:
        sizes = [result["shipped"][form]["bytes"] for form in ("float32", "bf16")]
        assert sizes[1] < sizes[0]
    assert all(0 <= form["metric"] <= 1 for form in result["shipped"].values())


@pytest.mark.parametrize(("family", "linear"), [("bert", 6 * 2 + 1), ("llama", 7 * 2)])
def test_lora_is_on_every_linear_layer_but_the_head(family: str, linear: int, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForSequenceClassification as Auto

    from benchmarks.accuracy.peft_methods import adapted, file_bytes, heads

    for method in ("lora-all-2", "ia3", "fourierft", "unilora", "vera"):
        model = Auto.from_pretrained(
            tiny.tiny_model(family, tmp_path / f"{family}-{method}", hidden_size=64), num_labels=3
        )
        (head,) = heads(model)
        adapter = adapted(model, method)
        if method == "lora-all-2":
            assert sum(name.endswith("lora_A.default") for name, _ in adapter.named_modules()) == linear
        trained = [name for name, parameter in adapter.named_parameters() if parameter.requires_grad]
        assert any(head in name for name in trained)
        numbers = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
        assert 0 <= file_bytes(adapter, torch.float32) - 4 * numbers < 20_000  # nothing that was not trained


def test_a_result_of_another_budget_counts_as_missing(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decide("finetuning", near(1e-4, 1e-3))

    monkeypatch.setitem(plan.TASKS, "trec", plan.Budget("test", 5, 64, "accuracy"))

    found = pick("finetuning")
    assert found.rates is None
    assert {job.task for job in found.jobs} == {"trec"}
