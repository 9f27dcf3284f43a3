"""Toy tasks that a tiny model can learn: each class has words of its own."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

from maskhub.training.processes import Report
from maskhub.training.settings import Method, TrainSettings, method_from, settings_from

WORDS = {
    "film": ("good", "bad", "film"),
    "spam": ("free", "win", "prize", "call"),
    "trivia": ("who", "what", "when", "where"),
    "towns": ("man", "city", "year"),
}


def rows(count: int, classes: int = 2, *, pairs: bool = False, seed: int = 0) -> list[dict[str, str]]:
    """Rows of all classes by turns; texts of different lengths."""
    rng = random.Random(seed)
    table = []
    for i in range(count):
        label, words = list(WORDS.items())[i % classes]
        text, partner = (" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(2))
        table.append({"sentence1": text, "sentence2": partner} if pairs else {"text": text})
        table[-1]["label"] = label
    return table


def tagged(count: int, *, entities: bool = True, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences of one to three names of a class, each a word or two, between words of none."""
    rng = random.Random(seed)
    table = []
    for _ in range(count):
        tokens: list[str] = []
        tags: list[str] = []
        for _ in range(rng.randint(1, 3)):
            kind = rng.choice(("film", "towns"))
            name = rng.choices(WORDS[kind], k=rng.randint(1, 2))
            tokens += [*name, rng.choice(WORDS["trivia"])]
            tags += [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1), "O"] if entities else [*[kind] * len(name), "other"]
        table.append({"tokens": tokens, "tags": tags})
    return table


def choices(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Prompts and three continuations, of which the right one is about towns, whatever the prompt."""
    rng = random.Random(seed)
    table = []
    for i in range(count):
        given = [" ".join(rng.choices(WORDS["film"], k=3)) for _ in range(3)]
        given[i % 3] = " ".join(rng.choices(WORDS["towns"], k=3))
        table.append({"prompt": "who is it", "choices": given, "label": i % 3})
    return table


def scored(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with the share of words that are about prizes."""
    rng = random.Random(seed)
    table = []
    for _ in range(count):
        share = rng.randint(0, 8)
        words = rng.choices(WORDS["spam"], k=share) + rng.choices(WORDS["towns"], k=8 - share)
        table.append({"text": " ".join(rng.sample(words, 8)), "score": share / 8})
    return table


def spoken(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts in which each word follows from the one before it."""
    rng = random.Random(seed)
    words = ("who", "is", "the", "man", "in", "a", "city")
    starts = (rng.randint(0, 6) for _ in range(count))
    return [{"text": " ".join(words[(start + i) % 7] for i in range(12))} for start in starts]


def write_images(folder: Path, count: int, seed: int = 0) -> Path:
    """Small pictures, mostly red or mostly blue, in a folder for each class."""
    from PIL import Image

    rng = random.Random(seed)
    for i in range(count):
        kind, channel = (("red", 0), ("blue", 2))[i % 2]
        pixels = bytes(rng.randint(150, 255) if n % 3 == channel else rng.randint(0, 100) for n in range(16 * 16 * 3))
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.frombytes("RGB", (16, 16), pixels).save(folder / kind / f"{i:03}.png")
    return folder


def write_rows(path: Path, table: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def write_task(folder: Path, classes: int = 2, *, pairs: bool = False, count: int = 40) -> tuple[Path, Path]:
    """Examples to train and to evaluate on, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    train = write_rows(folder / "train.jsonl", rows(count, classes, pairs=pairs))
    return train, write_rows(folder / "eval.jsonl", rows(24, classes, pairs=pairs, seed=1))


def paper(**given: Any) -> Method:
    """The paper's method, but for what is given."""
    return method_from(**{"recipe": "paper"} | given)


def settings(base: Path, folder: Path, **given: Any) -> TrainSettings:
    """Settings for a run of seconds on a task in ``folder``: the paper's, ten batches, three evaluations."""
    values = {
        "recipe": "paper", "base": str(base),
        "train_file": str(folder / "train.jsonl"), "eval_file": str(folder / "eval.jsonl"),
        "max_length": 32, "batch_size": 8, "epochs": 2.0, "eval_steps": 4, "learning_rate": 1e-2,
    }  # fmt: skip
    return settings_from(**(values | given))


def interrupt_after(step: int) -> Report:
    """A ``report`` that presses Ctrl-C after a step, once training listens to it."""
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(done: int, total: int, numbers: object) -> None:
        if done == step and signal.getsignal(signal.SIGINT) is not handler:  # a second one stops at once
            os.kill(os.getpid(), signal.SIGINT)

    return interrupt


def options(settings: TrainSettings) -> list[str]:
    """The command line of these settings, after ``maskhub train``."""
    fields = {name: getattr(settings, name) for name in settings.__struct_fields__ if name != "base"}
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in fields.items() if value is not None}
    flags = [name if value == "True" else f"{name}={value}" for name, value in given.items() if value != "False"]
    return [settings.base, *flags]
