"""One training of the comparison, in this process: ``python -m benchmarks.accuracy.job '{"task": ...}' DATA BASE``.

Every method reads the same files by the same code and spends the same epochs in batches of the same size, with a
linear schedule and a tenth of the steps to warm up; the model after the last step is what counts. Passes are in
bfloat16 while training; what is trained, and every evaluation, is in float32.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from benchmarks.accuracy import compressed, peft_methods, plan
from benchmarks.accuracy.data import cut
from benchmarks.accuracy.picks import scale_of
from benchmarks.accuracy.plan import BATCH, KEPT, PRECISION, SCALES, Job
from benchmarks.report import peak_memory
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import open_mask
from maskhub.runtime.evaluate import measure, task_model
from maskhub.runtime.load import processor_from
from maskhub.runtime.quiet import quiet_transformers
from maskhub.tasks import REGISTRY
from maskhub.tasks.data import read_file
from maskhub.tasks.examples import Columns, Examples
from maskhub.training.settings import settings_from
from maskhub.training.train import learn

# A form in which the training is shipped: its name, its bytes, and the model as who gets it has it.
Shipped = tuple[str, int, Any]


@dataclasses.dataclass
class Training:
    """What a method is given, and where it notes what was measured of the training."""

    job: Job
    base: Path
    file: Path
    examples: Examples
    folder: Path
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)

    def model(self) -> Any:
        """A task model with a head drawn by the job's seed."""
        kind = REGISTRY[self.examples.task]
        set_seed(self.job.seed)
        with quiet_transformers():
            return getattr(transformers, kind.model).from_pretrained(
                self.base, **kind.config(self.examples.label_names)
            )


def masking(training: Training) -> Iterator[Shipped]:
    """MaskHub, as its command line does it."""
    job, budget = training.job, training.job.budget
    given = {
        "base": str(training.base),
        "train_file": str(training.file),
        "task": training.examples.task,
        "epochs": budget.epochs,
        "batch_size": BATCH,
        "max_length": budget.max_length,
        "seed": job.seed,
        "eval_steps": 1 << 30,
        "learning_rate": job.learning_rate,
        "dense_learning_rate": job.head_learning_rate,
        "precision": PRECISION,
    }
    clock = Clock()
    result = learn(settings_from(**given | job.settings), training.folder / "run", report=clock.step)
    summary = open_mask(result.mask).summary()
    training.numbers |= clock.numbers() | {
        "bits_per_weight": summary.bits_per_weight,
        "sparsity": summary.sparsity,
        "dense_bytes": summary.dense_bytes,
    }
    yield "msk", summary.file_bytes, task_model(open_checkpoint(training.base), open_mask(result.mask, whole=True))


def finetuning(training: Training) -> Iterator[Shipped]:
    """All parameters, by AdamW; shipped whole, and as what differs from the base: some values' signs, or all."""
    model = _finetuned(training)
    forms = _precisions(model)
    yield next(forms)
    if not training.job.pick:
        start = training.model()
        for kept in KEPT:
            if scale := scale_of(kept):
                yield f"compeft-{kept:g}", *compressed.sparse(start, model, kept, scale)
        yield "bitdelta", *compressed.signs(start, model)
    yield from forms


def compeft(training: Training) -> Iterator[Shipped]:
    """Finetuning, its difference from the base compressed at all scales, so that the best can be picked."""
    model, start = _finetuned(training), training.model()
    for kept in KEPT:
        for scale in SCALES:
            yield f"compeft-{kept:g}-{scale:g}", *compressed.sparse(start, model, kept, scale)


def bitfit(training: Training) -> Iterator[Shipped]:
    """Biases, of LayerNorms too, and the head."""
    model = training.model()
    new = peft_methods.heads(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith("bias") or name.split(".")[0] in new
    _fit(model, training)
    yield from _precisions(model)


def adapter(training: Training) -> Iterator[Shipped]:
    """A method of PEFT's; the head is trained and shipped beside it, as PEFT does."""
    model = peft_methods.adapted(training.model(), training.job.method)
    _fit(model, training)
    yield from _precisions(model)


METHODS: dict[str, Callable[[Training], Iterator[Shipped]]] = {
    "masking": masking,
    "finetuning": finetuning,
    "compeft": compeft,
    "bitfit": bitfit,
}


class Clock(TrainerCallback):
    """Seconds of the processor from the first step to the last, and the process's peak memory then."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def step(self, done: int, *_: Any) -> None:
        """So many steps are done."""
        self._last = done, time.process_time()
        self._first = self._first or self._last
        self._peak = peak_memory()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._first is None:
            self.step(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step(state.global_step)

    def numbers(self) -> dict[str, float]:
        assert self._first is not None
        (before, start), (steps, end) = self._first, self._last
        seconds = (end - start) * steps / max(1, steps - before)
        return {"steps": steps, "seconds": round(seconds, 1), "peak_memory_mb": round(self._peak, 1)}


def _finetuned(training: Training) -> Any:
    model = training.model()
    _fit(model, training)
    return model


def _precisions(model: Any) -> Iterator[Shipped]:
    """What was trained in float32 and, rounded, in bfloat16."""
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(parameter.to(dtype))
        yield name, peft_methods.file_bytes(model, dtype), model


def _fit(model: Any, training: Training) -> None:
    job, budget, kind = training.job, training.job.budget, REGISTRY[training.examples.task]
    processor = processor_from(training.base, str(training.base), kind.type)
    rows = kind.encode(training.examples, processor, training.examples.label_names, budget.max_length)
    steps = round(-(-len(rows) // BATCH) * budget.epochs)
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(training.folder / "trainer"),
            use_cpu=not torch.accelerator.is_available(),
            bf16=PRECISION == "bf16",
            num_train_epochs=budget.epochs,
            per_device_train_batch_size=BATCH,
            lr_scheduler_type="linear",
            warmup_steps=round(0.1 * steps),
            seed=job.seed,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=rows,
        data_collator=kind.collator(processor),
        optimizers=(_optimizer(model, job), None),
        callbacks=[clock],
    )
    trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # evaluated in float32, not as it was trained
    training.numbers |= clock.numbers()


def _optimizer(model: Any, job: Job) -> torch.optim.Optimizer:
    """AdamW, the head by a rate of its own; vectors do not decay."""
    new = peft_methods.heads(model)
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            head = not new.isdisjoint(name.split("."))
            rate = job.head_learning_rate if head else job.learning_rate
            decay = 0.01 if parameter.ndim > 1 else 0.0
            group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
            group["params"].append(parameter)
    return torch.optim.AdamW(groups.values(), fused=True)


def run(job: Job, data: Path, base: Path) -> dict[str, Any]:
    """Train, evaluate each form that is shipped, and say what it took.

    The first form is the training's own; memory is the process's peak above what the libraries hold.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, budget = Path(name), job.budget
        file, evaluation = cut(job, data, folder)
        examples = read_file(file, Columns())
        unseen = read_file(evaluation, Columns(), examples.task)
        unseen = dataclasses.replace(unseen, label_names=examples.label_names)
        training = Training(job, base, file, examples, folder)
        processor = processor_from(base, str(base), REGISTRY[examples.task].type)
        before, shipped = peak_memory(), {}
        for form, size, model in METHODS.get(job.method, adapter)(training):
            model.eval()
            metrics = measure(model, processor, unseen, max_length=budget.max_length)
            shipped[form] = {"bytes": size, "metric": metrics[budget.metric], "metrics": metrics}
            if job.pick and job.method != "compeft":
                break  # rates are picked by the first form
        training.numbers["peak_memory_mb"] -= before
        return {
            "job": dataclasses.asdict(job),
            "budget": dataclasses.asdict(budget),
            "precision": PRECISION,
            **next(iter(shipped.values())),
            "shipped": shipped,
            "train_examples": len(examples),
            "evaluation_examples": len(unseen),
            **training.numbers,
            "process_seconds": round(time.process_time(), 1),
            "command": f"python -m benchmarks.accuracy.job '{json.dumps(dataclasses.asdict(job))}' DATA BASE",
            "versions": {name: version(name) for name in ("maskhub", "torch", "transformers", "peft", "numpy")},
            "threads": torch.get_num_threads(),
        }


if __name__ == "__main__":
    if len(sys.argv) > 4:
        plan.RESULTS = Path(sys.argv[4])  # where the scales of compressed vectors were picked
    print(json.dumps(run(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))))
