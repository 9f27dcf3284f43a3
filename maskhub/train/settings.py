"""What a training run is asked to do. The defaults are those of Zhao et al. 2020 and their code (maskbert)."""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import msgspec

from maskhub.errors import TrainingError
from maskhub.tasks import REGISTRY
from maskhub.tasks.examples import Columns

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Number = Annotated[int, msgspec.Meta(ge=1)]


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of ``train``. Lengths are in tokens, ``eval_steps`` and ``patience`` in batches and evaluations."""

    base: str
    revision: str | None = None
    base_name: str | None = None  # recorded in the mask in place of ``base``
    train_file: str | None = None
    eval_file: str | None = None
    dataset: str | None = None
    columns: Columns = Columns()
    task: str | None = None  # found from the examples where None
    metric: str | None = None  # picks the best evaluation; the task's first where None

    threshold: float = 1e-2
    initial_sparsity: Share = 0.05
    layers: str = "default"
    classifier: Literal["masked", "frozen", "dense"] = "masked"

    learning_rate: Positive = 1e-3
    epochs: Positive = 10.0
    batch_size: Number = 32
    gradient_accumulation: Number = 1
    max_length: Number = 128
    warmup: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1  # share of the steps
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0
    eval_steps: Number = 60
    patience: Number = 10
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    report_to: str = "none"


def check(settings: TrainSettings) -> TrainSettings:
    """The settings, if their values are allowed. Raises TrainingError naming the first that is not."""
    try:
        checked = msgspec.convert(msgspec.to_builtins(settings), TrainSettings)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).rpartition(" - at ")
        field = field.strip("`$.")
        kind = get_type_hints(TrainSettings).get(field)
        hint = f"It is one of: {', '.join(get_args(kind))}." if get_origin(kind) is Literal else None
        raise TrainingError(f"training settings: {field}: {reason}", hint=hint) from error
    for field, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise TrainingError(f"training settings: {field}: {value} is no number to work with")
    if (settings.train_file is None) == (settings.dataset is None):
        raise TrainingError("training settings: give either a training file or a dataset")
    if settings.task is not None and settings.task not in REGISTRY:
        raise TrainingError(
            f"training settings: task: there is no {settings.task!r}", hint=f"It is one of: {', '.join(REGISTRY)}."
        )
    if settings.threshold <= -SCORE_MARGIN:
        raise TrainingError(f"training settings: threshold must be above {-SCORE_MARGIN}")
    return checked


SCORE_MARGIN = 2e-2  # maskbert's ``c``: how far below 0 scores start
