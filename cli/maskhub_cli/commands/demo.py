"""``maskhub demo``: the whole way on embedded data."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from maskhub.options import Option
from maskhub_cli.commands.train import reported
from maskhub_cli.output import Format, Output


def demo(
    out: Output,
    *,
    output: Annotated[str, Option("A new folder.", "DIR", ("-o",))] = "maskhub-demo",
    base: Annotated[str | None, Option("MiniLM-L6 from its package if left.", "BASE")] = None,
    epochs: Annotated[float, Option("Passes over the training messages.")] = 1.0,
    examples: Annotated[int | None, Option("Use only the first N training messages, and N test messages.", "N")] = None,
) -> None:
    """Learn to tell spam from ham as a mask of MiniLM-L6, rebuild dense weights, and compare.

    Trains on 4,574 messages of the SMS Spam Collection, packs, inspects and verifies the mask, applies it, loads the
    result with plain transformers in another process, checks that the logits of all test messages are the same, bit for
    bit, and tells two more messages apart. It takes about three minutes on two cores. --quiet prints the accuracy.

    Example: maskhub demo -o demo
    """
    import numpy as np

    import maskhub
    from maskhub import demo as material
    from maskhub.errors import IntegrityError
    from maskhub.masks.summary import to_fields
    from maskhub.storage.atomic import claim_folder

    folder = Path(output)
    claim_folder(folder)
    checkpoint = maskhub.open_checkpoint(base or material.base_folder())
    train_file, test_file = material.copy_data(folder / "data", examples)
    run, mask, dense, logits_file = (folder / name for name in ("run", "spam.msk", "dense", "logits.npy"))
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str, *command: object) -> Iterator[None]:
        if command:
            out.say("")
            out.say(f"$ {shlex.join(map(str, command))}")
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    settings: dict[str, Any] = {
        "base_name": base or material.BASE_NAME,
        "train_file": train_file,
        "eval_file": test_file,
        "epochs": epochs,
        "batch_size": 16,
        "eval_steps": 1_000_000,  # once, at the end: nothing is chosen by its result on the test messages
    }
    options = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    with (
        step("train", "maskhub", "train", checkpoint.name, *options, "-o", run),
        reported(out) as reports,
    ):
        result = maskhub.train(checkpoint, run, **reports, **settings)
    with step("pack", "maskhub", "pack", run, "-o", mask):
        maskhub.pack(run, mask)
    with step("info", "maskhub", "info", mask):
        summary = maskhub.info(mask)
    if out.format is Format.HUMAN:
        out.show(None, quiet="", fields=to_fields(summary))
    with step("verify", "maskhub", "verify", mask, "--base", checkpoint.name):
        maskhub.verify(mask, base=checkpoint)
    with step("apply", "maskhub", "apply", checkpoint.name, mask, "-o", dense):
        maskhub.apply(checkpoint, mask, dense)
    length = summary.task.max_length if summary.task else None
    plain = [material.PLAIN_TRANSFORMERS, dense, test_file, length, logits_file]
    with step("plain transformers", "python", *plain):
        quiet_bars = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        subprocess.run([sys.executable, *map(str, plain)], check=True, stdout=sys.stderr, env=quiet_bars)
    with step("compare"):
        from maskhub.runtime.evaluate import logits_of
        from maskhub.tasks.data import read_file

        test = read_file(test_file)
        with out.progress("Evaluating", unit="examples") as progress:
            trained = logits_of(result.model, result.tokenizer, test, max_length=length, progress=progress)
        if trained.tobytes() != np.load(logits_file).tobytes():
            raise IntegrityError(f"{dense}: its logits differ from the trained masked model's")
    with step("predict", "maskhub", "predict", checkpoint.name, mask, *material.SENTENCES):
        told = [str(answer["label"]) for answer in maskhub.predict(checkpoint, mask, list(material.SENTENCES))]
    for sentence, label in zip(material.SENTENCES, told, strict=True):
        out.say(f"{label}: {sentence}")
    if base is None and examples is None and told != list(material.SENTENCES.values()):
        raise IntegrityError(f"{mask}: takes {', '.join(material.SENTENCES)} for {', '.join(told)}")
    picture = maskhub.plot(mask, folder / "sparsity.png")

    sizes = {
        "base": checkpoint.size,
        "mask": summary.file_bytes,
        "dense copy": (dense / "model.safetensors").stat().st_size,
    }
    table = {
        "accuracy of the mask": f"{result.metrics['accuracy']:.4f}",
        "accuracy of always guessing the majority": f"{result.metrics['majority_accuracy']:.4f}",
        **{f"bytes of the {name}": f"{size:,}" for name, size in sizes.items()},
        "bits a masked weight": f"{summary.bits_per_weight:.4f}",
        **{f"seconds to {name}": f"{value:.2f}" for name, value in seconds.items()},
    }
    out.say("")
    out.show(
        {
            "metrics": result.metrics,
            "bytes": sizes,
            "bits_per_weight": summary.bits_per_weight,
            "seconds": seconds,
            "predictions": dict(zip(material.SENTENCES, told, strict=True)),
            "logits_equal": True,
            "picture": str(picture),
        },
        quiet=result.metrics["accuracy"],
        title=f"On all {len(test):,} test messages the dense checkpoint gives the trained model's logits, bit for bit.",
        fields=table | {"picture": str(picture)},
    )
    out.hint(f"Next: look at {picture}, or train on your own examples: maskhub train --help")
