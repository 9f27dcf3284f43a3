"""Many tasks live on one base: switches, batches of many tasks, memory, and whether all of it is right. Beside PEFT.

The base has BERT-base's shape and random weights; the masks are of one seed, as trainings of one recipe are, and drop
1 to 2 % of its layers' weights. PEFT holds as many LoRA adapters (r = 8) on all linear layers of the same base. How
mixed batches round is measured on trained masks: ``--data DIR`` names the data sets of eight tasks, of which masks that
are not kept are learned first (ten minutes in all); else those that are kept read the demo's messages.
"""

from __future__ import annotations

import gzip
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import maskhub
from benchmarks import samples
from benchmarks.report import Report, medians
from benchmarks.trained import MASKS
from maskhub.checkpoints.scan import digests
from maskhub.demo import TEST, base_folder
from maskhub.masks.binding import BaseBinding, Task
from maskhub.masks.mask import MaskSet
from maskhub.masks.scores import Initial
from maskhub.runtime.live import Tasks
from maskhub.runtime.quiet import quiet_transformers
from maskhub.storage.tensor import RawTensor
from maskhub.storage.torch import from_torch
from maskhub.storage.work import workers
from maskhub.tasks import TaskType, label_names, of_mask
from maskhub.tasks.data import read_file
from maskhub.tasks.examples import Columns
from maskhub.tasks.metrics import IGNORED

LAYERS, HIDDEN = 12, 768
TASKS, MANY = 32, 1000
ROWS, TOKENS = 32, 32
INITIAL, REACH = Initial(seed=0, cut=800, low=-0.02, high=0.58), 600  # 1.3 % dropped, 0.028 bits a weight
LABELS = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
DECODED = 8  # tasks that are used in turn before memory is looked at
SWITCHES, LOOKS, SMALL = 10_000, 100, 20
PICTURE = Path(__file__).parent / "live.png"  # memory, as measured
# What each task is evaluated on; of LEARNED no trained mask is kept (a second seed of what no other task is like).
DATA = {
    "sms_spam": "test", "sst2": "validation", "trec": "test", "cola": "validation", "mrpc": "test",
    "conll2003": "test", "ewt_pos": "test", "codah": "test",
}  # fmt: skip
LEARNED, EXAMPLES = ("cola", "mrpc", "conll2003", "ewt_pos", "codah", "codah/1"), 400


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = _base(folder / "base", LAYERS, HIDDEN)
        masks = _masks(base, folder)
        tasks = maskhub.load_tasks(base, masks, memory="4GB")
        peft = _peft(base)
        _switches(report, base, masks, tasks, peft)
        _batches(report, tasks, peft)
        del tasks, peft
        _memory(report, base, masks)
        _right(report, folder)
    _rounding(report)


def _base(folder: Path, layers: int, hidden: int) -> Path:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=hidden // 64, intermediate_size=4 * hidden
    )
    with quiet_transformers():
        transformers.BertModel(config).save_pretrained(folder)
    return folder


def _masks(base: Path, folder: Path) -> dict[str, Path]:
    """A file for each task."""
    checkpoint = maskhub.open_checkpoint(base)
    binding = _binding(base)

    def make(seed: int) -> Path:
        shapes = {name: checkpoint.info(name).shape for name in samples.encoder(LAYERS, HIDDEN)}
        masks = samples.drifted(shapes, INITIAL, reach=REACH, seed=seed)
        path = folder / f"task{seed}.msk"
        maskhub.save(_task(binding, masks, seed, initial=INITIAL), path, codec="drift")
        return path

    with ThreadPoolExecutor(workers()) as pool:
        return {path.stem: path for path in pool.map(make, range(TASKS))}


def _binding(base: Path) -> BaseBinding:
    found = digests(maskhub.open_checkpoint(base))
    return BaseBinding.of(base.name, found, {name: f"bert.{name}" for name in found}, None)


def _task(binding: BaseBinding, masks: Mapping[str, Any], seed: int, **more: Any) -> MaskSet:
    """A classifier of two labels, with a head of its own."""
    hidden = next(iter(masks.values())).shape[-1]
    head = np.random.default_rng(seed).normal(size=(2, hidden)).astype(np.float32)
    dense = {"classifier.weight": RawTensor.from_numpy(head), "classifier.bias": RawTensor.from_numpy(head[:, 0])}
    return MaskSet(binding, masks, dense, Task("text-classification", "BertForSequenceClassification", LABELS), **more)


def _peft(base: Path) -> Any:
    """The same base with an adapter for each task."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, target_modules=r".*encoder\.layer.*\.(query|key|value|dense)", init_lora_weights=False)
    with quiet_transformers():
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    model = get_peft_model(plain, config, adapter_name="task0")
    for i in range(1, TASKS):
        model.add_adapter(f"task{i}", config)
    return model.eval()


def _switches(report: Report, base: Path, masks: Mapping[str, Path], tasks: Tasks, peft: Any) -> None:
    names = list(masks)
    two = maskhub.load_tasks(base, {name: masks[name] for name in names[:2]}, memory="4GB")
    start = time.perf_counter()
    files = {f"more{i}": masks[names[-1]] for i in range(MANY - TASKS)}  # which are read each by itself
    many = maskhub.load_tasks(base, {**masks, **files}, memory="4GB")
    loaded = time.perf_counter() - start
    none = maskhub.load_tasks(base, masks, memory=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in names:
        tasks.set_task(name)  # decodes it
    for name in names[:2]:
        two.set_task(name)
        many.set_task(name)
    seconds = medians(
        {
            "one of 32 tasks": _turns(tasks.set_task, names),
            "one of 2": _turns(two.set_task, names[:2]),
            "one of 1,000": _turns(many.set_task, names[:2]),
            "PEFT: set_adapter, one of 32": _turns(peft.set_adapter, names),
        },
        31,
    )
    seconds |= medians({"first use, decoded now": _turns(none.set_task, names)}, 11)
    torch.set_num_threads(threads)
    first = many.mask(names[0]).summary()
    report.table(
        "switches",
        f"A switch, {first.weights / 1e6:.0f} M masked weights, {first.sparsity:.2%} dropped",
        [{"what": what, "ms": 1000 * taken} for what, taken in seconds.items()],
        note=f"One thread, decoded before but for the last row; medians. {first.bits_per_weight:.4f} bits a weight. "
        f"Loading 1,000 tasks took {loaded:.1f} s.",
    )
    ms = {what: 1000 * taken for what, taken in seconds.items()}
    report.check("live: a switch, ms", ms["one of 32 tasks"], at_most=20)
    report.check(
        "live: a switch over PEFT's set_adapter",
        ms["one of 32 tasks"] / ms["PEFT: set_adapter, one of 32"],
        at_most=0.5,
    )
    report.check("live: a switch with 1,000 tasks over one with 2", ms["one of 1,000"] / ms["one of 2"], at_most=1.1)
    report.check("live: first use of a task, ms", ms["first use, decoded now"], at_most=60)


def _turns(switch: Callable[[str], object], names: list[str]) -> Callable[[], object]:
    """A function that switches to the next one, whenever it is called."""
    state = {"next": 0}

    def step() -> None:
        state["next"] = (state["next"] + 1) % len(names)
        switch(names[state["next"]])

    return step


@torch.no_grad()
def _batches(report: Report, tasks: Tasks, peft: Any) -> None:
    names = tasks.task_names
    batch = {"input_ids": torch.randint(1000, 30_000, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])

    def row_by_row() -> None:
        for row, name in enumerate(names):
            tasks[name](**{key: value[row : row + 1] for key, value in batch.items()})

    def plain() -> None:
        with peft.disable_adapter():
            peft(**batch)

    ways: dict[str, Callable[[], object]] = {
        "one task's batch": lambda: tasks[names[0]](**batch),
        "32 tasks, mixed": lambda: tasks(**batch, task_names=names),
        "PEFT: the plain base": plain,
        "PEFT: 32 adapters, adapter_names": lambda: peft(**batch, adapter_names=names),
    }
    for way in ways.values():
        way()
    seconds = medians(ways, 5) | medians({"32 tasks, row by row, exact": row_by_row}, 3)
    one = seconds["one task's batch"]
    report.table(
        "batches",
        f"A batch of {ROWS} rows of {TOKENS} tokens",
        [{"what": what, "ms": 1000 * taken, "over one task's batch": taken / one} for what, taken in seconds.items()],
        note=f"{torch.get_num_threads()} threads, medians of turns.",
    )
    mixed, adapters = seconds["32 tasks, mixed"], seconds["PEFT: 32 adapters, adapter_names"]
    report.check("live: a mixed batch over one task's", mixed / one, at_most=1.25)
    report.check("live: a mixed batch over PEFT's, of adapter_names", mixed / adapters, at_most=1.0)


def _memory(report: Report, base: Path, masks: Mapping[str, Path]) -> None:
    """What processes hold after they have answered, each in a process of its own."""
    paths = [*map(str, masks.values())]
    held = {"the base's model alone, all weights read": _held(ALONE + TOUCH, base)}
    held["the same, after one text: rows of embeddings stay on the disk"] = _held(ALONE, base)
    live = {n: _held(LIVE, base, str(n), *paths) for n in (1, TASKS, 100, MANY)}
    dense = {n: _held(DENSE, base, str(n), *paths) for n in (1, 2, 4, 8)}
    held |= {f"live tasks: {n:,}": mb for n, mb in live.items()}
    held |= {f"dense copies, a model for each task: {n}": mb for n, mb in dense.items()}
    whole, hundred, thousand = next(iter(held.values())), live[100], live[MANY]
    report.table(
        "memory",
        "Memory of a process that has answered",
        [{"what": what, "MB": mb, "over the base alone": mb / whole} for what, mb in held.items()],
        note=f"VmRSS, with Python and its libraries; memory='32MB', and {DECODED} tasks used. transformers maps the "
        "file, and live tasks have all of it in memory.",
    )
    _draw_memory(dense, live, whole)
    report.check("live: memory of 100 tasks over the base's model alone", hundred / whole, at_most=1.25)
    report.check("live: memory of 1,000 tasks over that", thousand / whole, at_most=2.5)


def _draw_memory(dense: Mapping[int, float], live: Mapping[int, float], base: float) -> None:
    """What was measured, over the number of tasks; a model for each is drawn on to where it fits no machine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    each = (dense[8] - dense[1]) / 7
    axes.plot([8, MANY], [dense[8], dense[8] + each * (MANY - 8)], ":", color="#D55E00", linewidth=1)
    axes.plot([*dense], [*dense.values()], "s-", color="#D55E00", label="a model for each task (dotted: not run)")
    axes.plot([*live], [*live.values()], "o-", color="#0072B2", label="live tasks on one base")
    axes.axhline(base, color="0.4", linewidth=0.8, linestyle="--", label="the base's model alone")
    axes.set(
        xscale="log", yscale="log", ylim=(400, None), xlabel="tasks", ylabel="memory of the process, MB (measured)"
    )
    for ticks in (axes.xaxis, axes.yaxis):
        ticks.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for count in (TASKS, 100, MANY):
        axes.annotate(f"{live[count]:,.0f} MB", (count, live[count]), (0, 7), textcoords="offset points", ha="center")
    axes.annotate(f"{dense[8]:,.0f} MB", (8, dense[8]), (-8, 4), textcoords="offset points", ha="right")
    axes.set_title("Tasks on a base of BERT-base's shape", fontsize=11)
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=9, frameon=False)
    figure.savefig(PICTURE, dpi=150)


def _held(program: str, base: Path, *arguments: str) -> float:
    """Megabytes that a program holds at its end."""
    command = [sys.executable, "-c", program + HELD, str(base), *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) / 1024


# Programs that answer.
ALONE = """
import sys, torch, transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1])
with torch.no_grad():
    model(input_ids=torch.arange(1000, 1032)[None])
"""
LIVE = f"""
import sys, torch, maskhub
base, count, *paths = sys.argv[1:]
tasks = maskhub.load_tasks(base, {{f"task{{i}}": paths[i % len(paths)] for i in range(int(count))}}, memory="32MB")
for name in tasks.task_names[:{DECODED}]:
    tasks[name](input_ids=torch.arange(1000, 1032)[None])
"""
DENSE = """
import sys, torch, maskhub
base, count, *paths = sys.argv[1:]
models = [maskhub.load_model(base, path) for path in paths[: int(count)]]
for model in models:
    model(input_ids=torch.arange(1000, 1032)[None])
"""
TOUCH = "for weight in model.parameters(): weight.sum()\n"
HELD = """
status = open("/proc/self/status").read()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
"""


def _right(report: Report, folder: Path) -> None:
    """Random switches on a small base, some of tasks that drop many weights; nothing stays decoded for long."""
    base = _base(folder / "small", 2, 64)
    shapes, binding = samples.encoder(2, 64), _binding(base)
    sets = {}
    for i in range(SMALL):
        initial = Initial(seed=0, cut=(800, 20_000)[i % 5 == 4], low=0, high=1)
        masks = samples.drifted(shapes, initial, reach=REACH, seed=i)
        sets[f"task{i}"] = _task(binding, masks, i)
    right = {name: _bytes(maskhub.load_model(base, maskset)) for name, maskset in sets.items()}
    plain = _bytes(transformers.AutoModel.from_pretrained(base))
    tasks = maskhub.load_tasks(base, sets, memory="100KB")
    chosen = random.Random(0)
    looks, wrong = {*chosen.sample(range(SWITCHES), LOOKS), SWITCHES - 1}, 0
    for step in range(SWITCHES):
        name = chosen.choice(tasks.task_names)
        tasks.set_task(name)
        if step in looks:
            wrong += _bytes(tasks[name]) != right[name]
    with tasks.disable_tasks():
        model: Any = tasks["task0"]
        wrong += _bytes(model.bert) != plain
    report.check(
        f"live: of {len(looks)} looks in {SWITCHES:,} random switches, those not bit for bit right", wrong, at_most=0
    )


def _bytes(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: from_torch(tensor).data.tobytes() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def _rounding(report: Report) -> None:
    """Mixed batches beside exact ones, on trained masks of MiniLM-L6: of all tasks of the data sets, where they are."""
    with tempfile.TemporaryDirectory() as name:
        kept = {path.stem: path for path in sorted(MASKS.glob("*.msk"))}
        tasks = maskhub.load_tasks(base_folder(), kept | (_learned(report.data, Path(name)) if report.data else {}))
        rows = {task: _read(tasks, task, report.data) for task in tasks}
    found = {task: Rounded() for task in tasks}
    kinds: dict[TaskType, list[tuple[str, Any]]] = {}
    for task, mine in rows.items():
        kinds.setdefault(of_mask(tasks.mask(task).task), []).extend((task, row) for row in mine)
    for kind, asked in kinds.items():
        collate = kind.collator(tasks.processor(asked[0][0]))
        random.Random(0).shuffle(asked)
        for start in range(0, len(asked), ROWS):
            names, encoded = zip(*asked[start : start + ROWS], strict=True)
            batch = collate([{key: value for key, value in row.items() if key != "length"} for row in encoded])
            labels = batch.pop("labels")
            mixed = tasks(**batch, task_names=names).logits
            for task in {*names}:
                here = [row for row, one in enumerate(names) if one == task]
                exact = tasks[task](**{key: value[here] for key, value in batch.items()}).logits
                found[task].add(torch.stack([mixed[row] for row in here]), exact, labels[here])
    report.table(
        "rounding",
        "Mixed batches beside exact ones, trained masks of MiniLM-L6",
        [
            {
                "task": task,
                "rows": len(rows[task]),
                "largest difference of a logit": one.largest,
                "largest logit": one.spread,
                "other predictions": one.other,
            }
            for task, one in found.items()
        ],
        note=f"Each task's own data; masks that are not kept are trained on {EXAMPLES} examples first."
        if report.data
        else "All tasks read the demo's messages: no --data.",
    )
    most = max(one.largest for one in found.values())
    report.check("live: largest difference of a logit, mixed and exact", most, at_most=1e-4)
    report.check("live: predictions that differ", sum(one.other for one in found.values()), at_most=0)


@dataclass
class Rounded:
    """How far mixed logits of a task are from exact ones."""

    largest: float = 0.0
    spread: float = 0.0
    other: int = 0

    def add(self, mixed: torch.Tensor, exact: torch.Tensor, labels: torch.Tensor) -> None:
        self.largest = max(self.largest, float((mixed - exact).abs().max()))
        self.spread = max(self.spread, float(exact.abs().max()))
        differ = mixed.argmax(-1) != exact.argmax(-1)
        self.other += int((differ & (labels != IGNORED) if differ.shape == labels.shape else differ).sum())


@torch.enable_grad()
def _learned(data: Path, folder: Path) -> dict[str, Path]:
    """Masks of the tasks that none is kept of, after a short training; of a kind with one task alone there are two."""
    found = {}
    for name in LEARNED:
        task, seed = name.split("/")[0], int(name.partition("/")[2] or 0)
        with gzip.open(data / task / "train.jsonl.gz", "rt") as file:
            (folder / f"{task}.jsonl").write_text("".join(itertools.islice(file, EXAMPLES)))
        given = {"train_file": folder / f"{task}.jsonl", "epochs": 1, "max_length": 64, "seed": seed}
        run = maskhub.train(base_folder(), folder / f"{task}-{seed}", **given)
        found[name] = run.mask
    return found


def _read(tasks: Tasks, name: str, data: Path | None) -> Any:
    """A task's examples to test on, as its model reads them; the demo's without data sets."""
    maskset = tasks.mask(name)
    assert maskset.task is not None
    kind, task = of_mask(maskset.task), name.split("/")[0]
    path = data / task / f"{DATA[task]}.jsonl.gz" if data else TEST
    examples = replace(read_file(path, Columns(), kind.name), labels=[])
    return kind.encode(examples, tasks.processor(name), label_names(maskset.task), 128)
