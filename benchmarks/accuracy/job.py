"""One training of the comparison, in this process: ``python -m benchmarks.accuracy.job '{"task": ...}' DATA BASE``.

Every method reads the same files by the same code and spends the same epochs in batches of the same size, with a
linear schedule and a tenth of the steps to warm up; the model after the last step is what counts.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from benchmarks.accuracy.data import cut
from benchmarks.accuracy.plan import BATCH, LORA_RANK, Job
from benchmarks.report import peak_memory
from maskhub.container.reader import open_mask
from maskhub.runtime.evaluate import measure
from maskhub.runtime.load import processor_from
from maskhub.runtime.quiet import quiet_transformers
from maskhub.tasks import REGISTRY
from maskhub.tasks.data import read_file
from maskhub.tasks.examples import Columns, Examples
from maskhub.training.settings import settings_from
from maskhub.training.train import learn

Trained = tuple[Any, dict[str, float]]  # the model, and what was measured of its training


def masking(job: Job, base: Path, training: Path, examples: Examples, folder: Path) -> Trained:
    """MaskHub, as its command line does it."""
    budget = job.budget
    settings = settings_from(
        base=str(base),
        train_file=str(training),
        task=examples.task,
        epochs=budget.epochs,
        batch_size=BATCH,
        max_length=budget.max_length,
        seed=job.seed,
        eval_steps=1 << 30,
        learning_rate=job.learning_rate,
        l2_sp=job.l2_sp,
        score_margin=job.score_margin,
        initial_sparsity=job.sparsity,
        layers=job.layers,
        beta2=job.beta2,
    )
    clock = Clock()
    result = learn(settings, folder / "run", report=clock.step)
    summary = open_mask(result.mask).summary()
    numbers = {
        "bytes": summary.file_bytes,
        "bits_per_weight": summary.bits_per_weight,
        "sparsity": summary.sparsity,
        "dense_bytes": summary.dense_bytes,
    }
    return result.model, numbers | clock.numbers()


def finetuning(job: Job, base: Path, training: Path, examples: Examples, folder: Path) -> Trained:
    """All parameters, by AdamW."""
    model = _model(job, base, examples)
    clock = _fit(model, job, base, examples, folder)
    model.save_pretrained(folder / "model")
    return model, {"bytes": (folder / "model" / "model.safetensors").stat().st_size} | clock.numbers()


def lora(job: Job, base: Path, training: Path, examples: Examples, folder: Path) -> Trained:
    """PEFT's LoRA on query and value; the head is trained and saved beside it, as PEFT does."""
    from peft import LoraConfig, get_peft_model

    model = _model(job, base, examples)
    head = [
        n for n, part in model.named_children() if n != model.base_model_prefix and any(True for _ in part.parameters())
    ]
    config = LoraConfig(
        r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.0, target_modules=["query", "value"], modules_to_save=head
    )
    adapted = get_peft_model(model, config)
    clock = _fit(adapted, job, base, examples, folder)
    adapted.save_pretrained(folder / "adapter")
    size = (folder / "adapter" / "adapter_model.safetensors").stat().st_size
    return adapted, {"bytes": size} | clock.numbers()


METHODS: dict[str, Callable[[Job, Path, Path, Examples, Path], Trained]] = {
    "masking": masking,
    "finetuning": finetuning,
    "lora": lora,
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


def _model(job: Job, base: Path, examples: Examples) -> Any:
    """A task model with a head drawn by the job's seed."""
    kind = REGISTRY[examples.task]
    set_seed(job.seed)
    with quiet_transformers():
        return getattr(transformers, kind.model).from_pretrained(base, **kind.config(examples.label_names))


def _fit(model: Any, job: Job, base: Path, examples: Examples, folder: Path) -> Clock:
    budget, kind = job.budget, REGISTRY[examples.task]
    processor = processor_from(base, str(base), kind.type)
    rows = kind.encode(examples, processor, examples.label_names, budget.max_length)
    steps = -(-len(rows) // BATCH) * budget.epochs
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            use_cpu=not torch.accelerator.is_available(),
            learning_rate=job.learning_rate,
            weight_decay=0.01,
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
        callbacks=[clock],
    )
    trainer.train()
    return clock


def command(job: Job) -> str:
    """What repeats a job, with folders of one's own."""
    given = {name: value for name, value in dataclasses.asdict(job).items() if value is not None}
    return f"python -m benchmarks.accuracy.job '{json.dumps(given)}' DATA BASE"


def run(job: Job, data: Path, base: Path) -> dict[str, Any]:
    """Train, evaluate, and say what it took; memory is the process's peak above what the libraries hold."""
    with tempfile.TemporaryDirectory() as name:
        folder, budget = Path(name), job.budget
        training, evaluation = cut(job, data, folder)
        examples = read_file(training, Columns())
        unseen = read_file(evaluation, Columns(), examples.task)
        unseen = dataclasses.replace(unseen, label_names=examples.label_names)
        before = peak_memory()
        model, numbers = METHODS[job.method](job, base, training, examples, folder)
        numbers["peak_memory_mb"] -= before
        model.eval()
        processor = processor_from(base, str(base), REGISTRY[examples.task].type)
        metrics = measure(model, processor, unseen, max_length=budget.max_length)
        return {
            "job": dataclasses.asdict(job),
            "budget": dataclasses.asdict(budget),
            "metric": metrics[budget.metric],
            "metrics": metrics,
            "train_examples": len(examples),
            "evaluation_examples": len(unseen),
            **numbers,
            "command": command(job),
            "versions": {name: version(name) for name in ("maskhub", "torch", "transformers", "peft", "numpy")},
            "threads": torch.get_num_threads(),
        }


if __name__ == "__main__":
    print(json.dumps(run(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))))
