"""What a training run is asked to do: ``Method``, how masks are learned, and ``TrainSettings``, all of a run."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from maskhub.errors import TrainingError
from maskhub.tasks import REGISTRY
from maskhub.tasks.examples import Columns

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=1)]

SCORE_MARGIN = 2e-2  # maskbert's ``c``: how far below 0 scores start

# What differs between recipes: that of Zhao et al. 2020 and their code (maskbert), and ours, whose masks begin with
# almost all weights and whose scores are pulled to where they began, which allows a larger learning rate.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "learning_rate": 1e-3,
        "beta2": 0.999,
        "pull": 0.0,
        "band": None,
        "initial_sparsity": 0.05,
        "spread": None,
        "layers": "upper",
        "classifier": "masked",
    },
    "pull": {
        "learning_rate": 4e-3,
        "beta2": 0.95,  # with 0.999 steps are longer where gradients grow, and more scores flip for nothing
        "pull": None,  # by the length of the training
        "band": None,
        "initial_sparsity": 0.005,
        "spread": 0.6,  # as wide as the paper's: the same share of the scores lies within reach of the threshold
        "layers": "all",
        "classifier": "dense",
    },
}
DEFAULT_RECIPE = "pull"
# What scores have learned fades by the pull. A long training is to forget no sooner, in parts of its length; but the
# weaker the pull, the further scores walk at random, and the larger the mask.
LOWEST_PULL, HIGHEST_PULL = 0.0015, 0.007
PULL_OVER_TRAINING = 3.0
_DEFAULT = RECIPES[DEFAULT_RECIPE]


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How masks are learned. docs/training.md says what each does."""

    binarizer: Literal["threshold", "sign", "bernoulli", "topk", "nm"] = "threshold"
    threshold: float = 1e-2
    topk_scope: Literal["tensor", "global"] = "tensor"
    nm: str = "2:4"
    initialisation: Literal["uniform", "magnitude", "random"] = "uniform"
    initial_sparsity: Share = _DEFAULT["initial_sparsity"]
    spread: Positive | None = _DEFAULT["spread"]  # width of the range of uniform scores; maskbert's where None
    final_sparsity: Share | None = None
    sparsity_schedule: Literal["cubic", "steps"] = "cubic"
    sparsity_penalty: NotNegative = 0.0
    structure: Literal["weights", "heads", "rows", "layers"] = "weights"
    pull: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = _DEFAULT["pull"]  # by the length where None
    band: Positive | None = _DEFAULT["band"]

    layers: str = _DEFAULT["layers"]
    mask_kinds: str | None = None
    pattern: str | None = None
    classifier: Literal["masked", "frozen", "dense"] = _DEFAULT["classifier"]
    train_biases: bool = False
    train_norms: bool = False
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0

    @property
    def cut(self) -> float:
        """The score above which a weight is kept, where the binarizer compares with one."""
        return self.threshold if self.binarizer == "threshold" else 0.0

    @property
    def needs_steps(self) -> bool:
        """Whether something is done after each step of the optimiser."""
        changes = self.final_sparsity is not None or self.sparsity_penalty > 0
        return self.pull != 0 or changes or self.binarizer == "sign" or self.topk_scope == "global"

    def pull_over(self, steps: int | None) -> float:
        """The pull in so many steps of training; where none is set, 3 / steps, but 0.0015 to 0.007 (without steps)."""
        if self.pull is not None:
            return self.pull
        return min(HIGHEST_PULL, max(LOWEST_PULL, PULL_OVER_TRAINING / steps)) if steps else HIGHEST_PULL

    @property
    def group(self) -> tuple[int, int]:
        """``n`` and ``m`` of ``nm``."""
        n, _, m = self.nm.partition(":")
        return int(n), int(m)


def recipe_with(name: str, **given: Any) -> dict[str, Any]:
    """A recipe's values, with what is ``given`` (other than None) in their place.

    Raises TrainingError for an unknown recipe.
    """
    if name not in RECIPES:
        raise TrainingError(
            f"training settings: recipe: there is no {name!r}", hint=f"It is one of: {', '.join(RECIPES)}."
        )
    return RECIPES[name] | {field: value for field, value in given.items() if value is not None}


def method_with(recipe: str, **given: Any) -> Method:
    """A recipe's method, with what is ``given`` in place of its values. Raises as ``recipe_with`` does."""
    values = {name: value for name, value in recipe_with(recipe, **given).items() if name in Method.__struct_fields__}
    return Method(**(values | given))


M = TypeVar("M", bound=Method)


class TrainSettings(Method, frozen=True, kw_only=True):
    """Settings of ``train``. Lengths are in tokens, ``eval_steps`` and ``patience`` in batches and evaluations.

    ``batch_size`` is shared by all processes.
    """

    base: str
    revision: str | None = None
    base_name: str | None = None  # recorded in the mask in place of ``base``
    train_file: str | None = None
    eval_file: str | None = None
    dataset: str | None = None
    columns: Columns = Columns()
    task: str | None = None  # found from the examples where None
    metric: str | None = None  # picks the best evaluation; the task's first where None

    learning_rate: Positive = _DEFAULT["learning_rate"]
    dense_learning_rate: Positive | None = None  # of what is trained besides scores; the same where None
    beta2: Annotated[float, msgspec.Meta(ge=0, lt=1)] = _DEFAULT["beta2"]  # Adam's
    epochs: Positive = 10.0
    batch_size: Number = 32
    gradient_accumulation: Number = 1
    max_length: Number = 128
    warmup: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1  # share of the steps
    eval_steps: Number = 60
    patience: Number = 10
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    report_to: str = "none"


def check(settings: TrainSettings) -> TrainSettings:
    """The settings, if their values are allowed. Raises TrainingError naming the first that is not."""
    checked = check_method(settings)
    if (settings.train_file is None) == (settings.dataset is None):
        raise TrainingError("training settings: give either a training file or a dataset")
    if settings.task is not None and settings.task not in REGISTRY:
        raise TrainingError(
            f"training settings: task: there is no {settings.task!r}", hint=f"It is one of: {', '.join(REGISTRY)}."
        )
    return checked


def check_method(method: M) -> M:
    """The method, if its values are allowed and go together. Raises TrainingError naming the first that does not."""
    kind = type(method)
    try:
        checked = msgspec.convert(msgspec.to_builtins(method), kind)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).rpartition(" - at ")
        field = field.strip("`$.")
        allowed = get_type_hints(kind, include_extras=True).get(field)
        hint = f"It is one of: {', '.join(get_args(allowed))}." if get_origin(allowed) is Literal else None
        if limits := _limits(allowed):
            reason = f"{getattr(method, field)} is not {limits}"
        raise TrainingError(f"training settings: {field}: {reason}", hint=hint) from error
    for field, value in msgspec.structs.asdict(method).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise TrainingError(f"training settings: {field}: {value} is no number to work with")
    for wrong, message in _conflicts(method):
        if wrong:
            raise TrainingError(f"training settings: {message}")
    return checked


def _limits(allowed: Any) -> str:
    """The limits of a number's type in words, as "above 0 and below 1"; empty for other types."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    for kind in (allowed, *get_args(allowed)):
        for meta in getattr(kind, "__metadata__", ()):
            limits = {word: getattr(meta, name) for name, word in words.items()}
            return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
    return ""


def _conflicts(method: Method) -> list[tuple[bool, str]]:
    """What is wrong with values that are each allowed, and whether it is so."""
    binarizer, weights, split = method.binarizer, method.structure == "weights", method.initialisation != "uniform"
    penalty, final = method.sparsity_penalty > 0, method.final_sparsity is not None
    simple = binarizer in ("threshold", "sign") and weights and not split
    groups = "not heads, rows or layers"
    return [
        (method.spread is None and method.threshold <= -SCORE_MARGIN, f"threshold must be above {-SCORE_MARGIN}"),
        (split and method.threshold <= 0, f"{method.initialisation} scores need a threshold above 0"),
        (binarizer == "bernoulli" and split, "bernoulli starts all scores alike: leave initialisation out"),
        (
            binarizer == "nm" and method.nm not in PATTERNS,
            f"nm: {method.nm!r} is not N:M, as 2:4, with M 2, 4, 8 or 16",
        ),
        (binarizer == "nm" and not weights, f"nm masks single weights, {groups}"),
        (binarizer == "nm" and (penalty or final), "nm has the sparsity of its pattern: leave the others out"),
        (binarizer == "topk" and penalty, "topk has its sparsity exactly: leave sparsity_penalty out"),
        (method.topk_scope == "global" and binarizer != "topk", "topk_scope: the binarizer is not topk"),
        (method.topk_scope == "global" and not weights, f"topk over all tensors masks single weights, {groups}"),
        (final and not penalty and binarizer != "topk", "final_sparsity needs topk, or a sparsity_penalty"),
        (method.band is not None and not simple, "band needs threshold or sign, and uniform scores of single weights"),
    ]


PATTERNS = {f"{n}:{m}" for m in (2, 4, 8, 16) for n in range(1, m)}
