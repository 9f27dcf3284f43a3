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
from typing import Annotated

import typer

from maskhub_cli.commands.train import learn
from maskhub_cli.options import FormatOption, JsonOption, QuietOption
from maskhub_cli.output import Format, Output


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder.")] = Path("maskhub-demo"),
    base: Annotated[
        str | None, typer.Option(metavar="BASE", help="Default: MiniLM-L6 from its package.", show_default=False)
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training messages.")] = 1.0,
    examples: Annotated[
        int | None, typer.Option(metavar="N", help="Use only the first N training messages, and N test messages.")
    ] = None,
    format: FormatOption = Format.AUTO,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn to tell spam from ham as a mask of MiniLM-L6, rebuild dense weights, and compare.

    Trains on 4,574 messages of the SMS Spam Collection in about two minutes on two cores, packs, inspects and verifies
    the mask, applies it, loads the result with plain transformers in another process, and checks that the logits of
    all test messages are the same, bit for bit. --quiet prints the accuracy.

    Example: maskhub demo -o demo
    """
    import msgspec
    import numpy as np

    from maskhub import demo as material
    from maskhub.checkpoints.apply import apply, verify_base
    from maskhub.checkpoints.checkpoint import open_checkpoint
    from maskhub.container import writer
    from maskhub.container.reader import MaskFile
    from maskhub.errors import IntegrityError
    from maskhub.masks.summary import summarize, to_fields
    from maskhub.pictures.plots import save_picture, sparsity_map
    from maskhub.storage.atomic import claim_folder
    from maskhub.tasks.data import read_file
    from maskhub.training.run import maskset_from_run
    from maskhub.training.settings import TrainSettings

    out = Output(format, json, quiet)
    claim_folder(output)
    checkpoint = open_checkpoint(base or material.base_folder())
    train_file, test_file = material.copy_data(output / "data", examples)
    mask, dense, logits_file = output / "spam.msk", output / "dense", output / "logits.npy"
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str, *command: object) -> Iterator[None]:
        if command:
            out.hint("")
            out.hint(f"$ {shlex.join(map(str, command))}")
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    settings = TrainSettings(
        base=checkpoint.name,
        base_name=base or material.BASE_NAME,
        train_file=str(train_file),
        eval_file=str(test_file),
        epochs=epochs,
        batch_size=16,
        eval_steps=1_000_000,  # once, at the end: nothing is chosen by its result on the test messages
    )
    defaults = TrainSettings(base="")
    asked = {
        f"--{name.replace('_', '-')}": value
        for name, value in msgspec.to_builtins(settings).items()
        if name != "base" and value != getattr(defaults, name) and not isinstance(value, dict)
    }
    options = [text for pair in asked.items() for text in pair]
    with step("train", "maskhub", "train", checkpoint.name, *options, "-o", output / "run"):
        result = learn(settings, output / "run", out)
    with step("pack", "maskhub", "pack", output / "run", "-o", mask):
        writer.save(maskset_from_run(output / "run"), mask)
    with step("info", "maskhub", "info", mask):
        file = MaskFile(mask)
        summary = summarize(file.maskset())
    if out.format is Format.HUMAN:
        out.show(None, quiet="", fields=to_fields(summary))
    with step("verify", "maskhub", "verify", mask, "--base", checkpoint.name):
        file.verify()
        verify_base(checkpoint, file.maskset())
    with step("apply", "maskhub", "apply", checkpoint.name, mask, "-o", dense):
        apply(checkpoint, file.maskset(), dense)
    plain = [material.PLAIN_TRANSFORMERS, dense, test_file, settings.max_length, logits_file]
    with step("plain transformers", "python", *plain):
        quiet_bars = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        subprocess.run([sys.executable, *map(str, plain)], check=True, stdout=sys.stderr, env=quiet_bars)
    with step("compare"):
        from maskhub.runtime.evaluate import predict

        test = read_file(test_file)
        with out.progress("Evaluating", unit="examples") as progress:
            trained = predict(result.model, result.tokenizer, test, max_length=settings.max_length, progress=progress)
        if trained.tobytes() != np.load(logits_file).tobytes():
            raise IntegrityError(f"{dense}: its logits differ from the trained masked model's")
    picture = output / "sparsity.png"
    title = f"Dropped weights of the spam mask of {Path(base or material.BASE_NAME).name}"
    save_picture(sparsity_map(file.maskset().masks, title), picture)

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
    out.hint("")
    out.show(
        {
            "metrics": result.metrics,
            "bytes": sizes,
            "bits_per_weight": summary.bits_per_weight,
            "seconds": seconds,
            "logits_equal": True,
            "picture": str(picture),
        },
        quiet=result.metrics["accuracy"],
        title=f"On all {len(test):,} test messages the dense checkpoint gives the trained model's logits, bit for bit.",
        fields=table | {"picture": str(picture)},
    )
    out.hint(f"Next: look at {picture}, or train on your own examples: maskhub train --help")
