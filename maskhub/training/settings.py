"""What a training run is asked to do: ``Method``, how masks are learned, and ``TrainSettings``, all of a run.

Each field says its own limits and help, of which the command line is made. Importing this module imports no NumPy.
"""

from __future__ import annotations

import inspect
import math
import os
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from maskhub.errors import ArgumentError, MaskhubError, library, reason, same_kind
from maskhub.options import Option, nearest

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Part = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=1)]

DATA, WEIGHTS, METHOD, TRAINING, RESULT = GROUPS = ("Examples", "Which weights", "Method", "Training", "Output")

PAPER_MARGIN = 2e-2  # maskbert's ``c``: how far below 0 scores start

# What differs between recipes: ours, whose masks begin with almost all weights and whose scores decay to where they
# began, which allows a larger learning rate; and that of Zhao et al. 2020 and their code (maskbert).
RECIPES: dict[str, dict[str, Any]] = {
    "default": {
        "learning_rate": 4e-3,
        "beta2": 0.95,  # with 0.999 steps are longer where gradients grow, and more scores flip for nothing
        "l2_sp": None,  # by the length of the training
        "initial_sparsity": 0.005,
        "score_range": 0.6,  # as wide as the paper's: the same share of the scores lies within reach of the threshold
        "layers": "all",
        "classifier": "dense",
    },
    "paper": {
        "learning_rate": 1e-3,
        "beta2": 0.999,
        "l2_sp": 0.0,
        "initial_sparsity": 0.05,
        "score_range": None,
        "layers": "upper",
        "classifier": "masked",
    },
}
# What scores have learned fades by the decay. A long training is to forget no sooner, in parts of its length; but the
# weaker the decay, the further scores walk at random, and the larger the mask.
LOWEST_L2_SP, HIGHEST_L2_SP = 0.0015, 0.007
L2_SP_OVER_TRAINING = 3.0
PATTERNS = {f"{n}:{m}" for m in (2, 4, 8, 16) for n in range(1, m)}
_DEFAULT = RECIPES["default"]


def _tasks() -> Iterable[str]:
    from maskhub.tasks import REGISTRY

    return REGISTRY


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How masks are learned; docs/training.md says what each does. Make one by ``method_from``."""

    layers: Annotated[
        str,
        Option(
            "all, upper (all but the lowest sixth), 2-11, 0,3,5 or top:4, and what is outside all layers. "
            "Default: the recipe's.",
            group=WEIGHTS,
        ),
    ] = _DEFAULT["layers"]
    target_modules: Annotated[
        tuple[str, ...] | None,
        Option(
            "Only these, as Q,V: the paper's letters Q K V AO I O P, or ends of modules' names, as q_proj,v_proj.",
            metavar="NAMES",
            group=WEIGHTS,
        ),
    ] = None
    pattern: Annotated[
        str | None, Option("Only weights in whose name this is found.", metavar="REGEX", group=WEIGHTS)
    ] = None
    structure: Annotated[
        Literal["weights", "heads", "rows", "layers"], Option("What one score decides about.", group=WEIGHTS)
    ] = "weights"
    classifier: Annotated[
        Literal["masked", "frozen", "dense"],
        Option(
            "The task's new layer: random and masked, random as it is, or trained. Default: the recipe's.",
            group=WEIGHTS,
        ),
    ] = _DEFAULT["classifier"]
    train_biases: Annotated[bool, Option("Train the base's biases, too.", group=WEIGHTS)] = False
    train_norms: Annotated[bool, Option("Train its LayerNorms, too.", group=WEIGHTS)] = False

    recipe: Annotated[
        Literal["default", "paper"],
        Option(
            "Sets the defaults of --learning-rate, --beta2, --l2-sp, --initial-sparsity, --score-range, --layers and "
            "--classifier: 4e-3, 0.95, by length, 0.005, 0.6, all, dense; or those of Zhao et al. 2020: 1e-3, 0.999, "
            "0, 0.05, as wide as that gives, upper, masked.",
            group=METHOD,
        ),
    ] = "default"
    binarizer: Annotated[
        Literal["threshold", "sign", "bernoulli", "topk", "nm"],
        Option("Which scores keep their weight.", group=METHOD),
    ] = "threshold"
    threshold: Annotated[float, Option("A weight is kept where its score is above this.", group=METHOD)] = 1e-2
    topk_scope: Annotated[
        Literal["tensor", "global"], Option("What has the sparsity exactly, by topk.", group=METHOD)
    ] = "tensor"
    nm: Annotated[str, Option("Keep N of M neighbouring inputs, by nm.", metavar="N:M", group=METHOD)] = "2:4"
    score_init: Annotated[
        Literal["uniform", "magnitude", "random"],
        Option("Scores spread evenly; or near the threshold, the smallest or random weights dropped.", group=METHOD),
    ] = "uniform"
    initial_sparsity: Annotated[
        Share, Option("Share of the weights that start dropped. Default: the recipe's.", group=METHOD)
    ] = _DEFAULT["initial_sparsity"]
    score_range: Annotated[
        Positive | None,  # maskbert's where None
        Option("Width of the range that uniform scores start in. Default: the recipe's.", group=METHOD),
    ] = _DEFAULT["score_range"]
    score_margin: Annotated[
        Positive | None,
        Option("Train only scores that start within this of the threshold, to save memory.", group=METHOD),
    ] = None
    final_sparsity: Annotated[Share | None, Option("Go there, by topk exactly, else by the penalty.", group=METHOD)] = (
        None
    )
    sparsity_schedule: Annotated[Literal["cubic", "steps"], Option("How it gets there.", group=METHOD)] = "cubic"
    sparsity_penalty: Annotated[
        NotNegative, Option("How hard all scores are moved to the wanted sparsity.", group=METHOD)
    ] = 0.0
    l2_sp: Annotated[
        Part | None,  # by the length where None
        Option(
            "Decay towards the start (L2-SP, decoupled): the share of its way that each score goes back after a step. "
            "Default: the recipe's; by length is 3 / steps, but 0.0015 to 0.007.",
            group=METHOD,
        ),
    ] = _DEFAULT["l2_sp"]

    seed: Annotated[
        Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)], Option("Of scores, classifier and order.", group=TRAINING)
    ] = 0

    @property
    def cut(self) -> float:
        """The score above which a weight is kept, where the binarizer compares with one."""
        return self.threshold if self.binarizer == "threshold" else 0.0

    @property
    def needs_steps(self) -> bool:
        """Whether something is done after each step of the optimiser."""
        changes = self.final_sparsity is not None or self.sparsity_penalty > 0
        return self.l2_sp != 0 or changes or self.binarizer == "sign" or self.topk_scope == "global"

    def l2_sp_over(self, steps: int | None) -> float:
        """The decay in so many steps of training; where none is set, 3 / steps, but 0.0015 to 0.007 (without steps)."""
        if self.l2_sp is not None:
            return self.l2_sp
        return min(HIGHEST_L2_SP, max(LOWEST_L2_SP, L2_SP_OVER_TRAINING / steps)) if steps else HIGHEST_L2_SP

    @property
    def group(self) -> tuple[int, int]:
        """``n`` and ``m`` of ``nm``."""
        n, _, m = self.nm.partition(":")
        return int(n), int(m)


class TrainSettings(Method, frozen=True, kw_only=True):
    """Settings of a run. Lengths are in tokens, ``eval_steps`` and ``patience`` in batches and evaluations.

    ``batch_size`` is shared by all processes. Make them by ``settings_from``.
    """

    base: Annotated[str, Option("A checkpoint folder or file, or a model on the Hub.", metavar="BASE")]
    revision: Annotated[
        str | None, Option("Branch, tag or commit of a base on the Hub.", metavar="REVISION", group=RESULT)
    ] = None

    train_file: Annotated[
        str | None,
        Option("CSV, TSV, JSON lines or Parquet, plain or gzipped; a folder of images.", metavar="FILE", group=DATA),
    ] = None
    eval_file: Annotated[str | None, Option("Examples to evaluate on.", metavar="FILE", group=DATA)] = None
    eval_split: Annotated[
        Share | None, Option("Or the share of the training examples to hold out for that.", group=DATA)
    ] = None
    dataset: Annotated[
        str | None, Option("A dataset on the Hub, in place of files.", metavar="NAME[/CONFIG]", group=DATA)
    ] = None
    task: Annotated[
        str | None, Option("Default: found by the columns.", metavar="TASK", group=DATA, choices=_tasks)
    ] = None
    text_column: Annotated[
        str | None,
        Option("Text, tokens, prompt or image. Default: found by the usual names.", metavar="COLUMN", group=DATA),
    ] = None
    pair_column: Annotated[str | None, Option("The second text, or the choices.", metavar="COLUMN", group=DATA)] = None
    label_column: Annotated[
        str | None, Option("Each example's class, tags, right choice or number.", metavar="COLUMN", group=DATA)
    ] = None

    learning_rate: Annotated[Positive, Option("Of the scores (Adam). Default: the recipe's.", group=TRAINING)] = (
        _DEFAULT["learning_rate"]
    )
    beta2: Annotated[
        Part,
        Option(
            "Adam's: the share that its mean square of gradients keeps in a step. Default: the recipe's.",
            group=TRAINING,
        ),
    ] = _DEFAULT["beta2"]
    dense_learning_rate: Annotated[
        Positive | None, Option("Of what is trained besides scores; the same by default.", group=TRAINING)
    ] = None
    epochs: Annotated[Positive, Option("Passes over the examples.", group=TRAINING)] = 10.0
    batch_size: Annotated[Number, Option("Examples a batch, of all processes together.", group=TRAINING)] = 32
    gradient_accumulation_steps: Annotated[Number, Option("Batches a step.", group=TRAINING)] = 1
    max_length: Annotated[Number, Option("Tokens an example is cut to.", group=TRAINING)] = 128
    warmup_ratio: Annotated[Part, Option("Share of the steps in which the rate rises.", group=TRAINING)] = 0.1
    eval_steps: Annotated[Number, Option("Steps between evaluations and checkpoints.", group=TRAINING)] = 60
    metric: Annotated[
        str | None,
        Option(
            "Picks the best evaluation: f1, matthews_correlation, loss. Default: the task's.",
            metavar="METRIC",
            group=TRAINING,
        ),
    ] = None
    patience: Annotated[Number, Option("Evaluations without a better metric before it stops.", group=TRAINING)] = 10
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Option("Of the passes; scores stay fp32.", group=TRAINING)
    ] = "fp32"
    gradient_checkpointing: Annotated[bool, Option("Less memory, by computing passes twice.", group=TRAINING)] = False
    report_to: Annotated[
        str, Option("Trackers of transformers' Trainer: tensorboard, wandb.", metavar="TRACKER", group=TRAINING)
    ] = "none"

    base_name: Annotated[
        str | None, Option("Name of the base to record in the mask; default: BASE.", metavar="NAME", group=RESULT)
    ] = None
    keep_checkpoints: Annotated[
        bool, Option("Keep checkpoints, with their scores, when the run is finished.", group=RESULT)
    ] = False
    push_to_hub: Annotated[
        str | None, Option("Push the mask there when it is learned.", metavar="REPO", group=RESULT)
    ] = None


M = TypeVar("M", bound=Method)


def settings_from(**given: Any) -> TrainSettings:
    """Checked settings of a run: what is given, and for the rest (None counts as not given) the recipe's defaults.

    Numbers may come as texts, lists as texts with commas, and paths as paths. Raises ArgumentError naming the first
    field that there is not, or whose value cannot be.
    """
    settings = _made(TrainSettings, given)
    if (settings.train_file is None) == (settings.dataset is None):
        raise ArgumentError("training settings: give either a training file or a dataset")
    if settings.eval_file is not None and settings.eval_split is not None:
        raise ArgumentError("training settings: eval_split: there is an eval_file", hint="Leave one of them out.")
    if settings.task is not None and settings.task not in (known := list(_tasks())):
        raise ArgumentError(
            f"training settings: task: there is no {settings.task!r}", hint=f"It is one of: {', '.join(known)}."
        )
    if settings.push_to_hub is not None:
        _check_repo(settings.push_to_hub)
    return settings


def method_from(**given: Any) -> Method:
    """A checked method, as ``settings_from``."""
    return _made(Method, given)


def recorded(settings: TrainSettings) -> dict[str, Any]:
    """What ``settings_from`` makes these settings of: those that are not the recipe's defaults."""
    plain = _made(TrainSettings, {"base": settings.base, "recipe": settings.recipe})
    values = msgspec.to_builtins(settings)
    found = {k: v for k, v in values.items() if k in ("base", "recipe") or v != getattr(plain, k)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML or TOML file, by their names, for ``settings_from``.

    Raises ArgumentError where the file cannot be read, or names what is no setting, and MissingError without one.
    """
    path = Path(path)
    try:
        text = path.read_text()
        if path.suffix == ".toml":
            import tomllib

            found = tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            # Every scalar as a text, which `settings_from` reads: YAML's own types take 2:4 for 124, and 3e-3 for none.
            yaml = library("yaml", "YAML files", "pyyaml")
            found = yaml.load(text, yaml.BaseLoader) or {}
        else:
            raise ArgumentError(f"{path}: neither YAML nor TOML", hint="Name it .yaml or .toml.")
    except MaskhubError:
        raise
    except OSError as error:
        raise same_kind(error, ArgumentError)(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # either parser's kinds; YAML's tell the place in lines of their own
        raise ArgumentError(f"{path}: cannot be read: {' '.join(str(error).split()) or reason(error)}") from error
    if not isinstance(found, dict):
        raise ArgumentError(f"{path}: holds no settings", hint="Write one a line, as: learning_rate: 0.004")
    for name in found:
        _check_name(TrainSettings, name, str(path))
    return {name: value for name, value in found.items() if value not in ("", "~", "null")}


def parameters(kind: type[Method] = TrainSettings) -> list[inspect.Parameter]:
    """The fields as keyword-only parameters, annotated with a plain type and its ``Option``, group by group.

    None stands where the default is the recipe's.
    """
    found = []
    defaults = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False))
    for name, hint in get_type_hints(kind, include_extras=True).items():
        plain, option = _plain(hint), next(m for m in hint.__metadata__ if isinstance(m, Option))
        default = inspect.Parameter.empty if defaults[name] is msgspec.NODEFAULT else defaults[name]
        if name in _DEFAULT:
            plain, default = plain | None, None
        annotation: Any = Annotated[plain, option]
        found.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    groups = (None, *GROUPS)
    return sorted(found, key=lambda p: groups.index(p.annotation.__metadata__[0].group))


def _plain(hint: Any) -> Any:
    """A type without what it is annotated with."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(map(_plain, get_args(hint)))]  # noqa: UP007
    return hint


def _made(kind: type[M], given: dict[str, Any]) -> M:
    hints = get_type_hints(kind, include_extras=True)
    for name in given:
        _check_name(kind, name, "training settings")
    values = {name: _value(value, _plain(hints[name])) for name, value in given.items() if value is not None}
    recipe = RECIPES.get(str(values.get("recipe", "default")), {})
    fields = {name: value for name, value in recipe.items() if name in hints} | values
    try:
        made = msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        why, _, field = str(error).rpartition(" - at ")
        if not why:
            raise ArgumentError("training settings: base: there is none") from error
        field = field.strip("`$.").partition("[")[0]
        hint, choices = None, get_args(_plain(hints[field]))
        if get_origin(_plain(hints[field])) is Literal:
            hint = f"It is one of: {', '.join(choices)}."
        if _plain(hints[field]) is bool:
            hint = "It is true or false."
        if limits := _limits(hints[field]):
            why = f"{given[field]!r} is not {limits}"
        raise ArgumentError(f"training settings: {field}: {why}", hint=hint) from error
    for field, value in msgspec.structs.asdict(made).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ArgumentError(f"training settings: {field}: {value} is no number to work with")
    for wrong, message in _conflicts(made):
        if wrong:
            raise ArgumentError(f"training settings: {message}")
    return made


def _check_name(kind: type[Method], name: str, where: str) -> None:
    fields = kind.__struct_fields__
    if name not in fields:
        near = nearest(name, fields)
        raise ArgumentError(f"{where}: there is no setting {name!r}", hint=f"Did you mean {near}?" if near else None)


def _value(value: Any, plain: Any) -> Any:
    """A path, or a whole number where a text is wanted, as text; a text with commas as the list that is wanted."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    value = str(value) if plain is str and type(value) is int else value
    wants_list = any(get_origin(one) is tuple for one in (plain, *get_args(plain)))
    return [part.strip() for part in value.split(",")] if wants_list and isinstance(value, str) else value


def _limits(hint: Any) -> str:
    """The limits of a number's type in words, as "above 0 and below 1"; empty for other types."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    for meta in _metas(hint):
        limits = {word: getattr(meta, name) for name, word in words.items()}
        return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
    return ""


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta):
            yield meta
    for inner in get_args(hint):
        yield from _metas(inner)


def _check_repo(repo: str) -> None:
    """A mask's place on the Hub, as ``maskhub push`` takes it."""
    from maskhub.storage import address

    try:
        place = address.hub(repo)
    except MaskhubError:
        place = None
    if place is None:
        raise ArgumentError(
            f"training settings: push_to_hub: {repo!r} is no repo on the Hub", hint="Name it as user/repo."
        )


def _conflicts(method: Method) -> list[tuple[bool, str]]:
    """What is wrong with values that are each allowed, and whether it is so."""
    binarizer, weights, split = method.binarizer, method.structure == "weights", method.score_init != "uniform"
    penalty, final = method.sparsity_penalty > 0, method.final_sparsity is not None
    simple = binarizer in ("threshold", "sign") and weights and not split
    groups = "not heads, rows or layers"
    return [
        (method.score_range is None and method.threshold <= -PAPER_MARGIN, f"threshold must be above {-PAPER_MARGIN}"),
        (split and method.threshold <= 0, f"{method.score_init} scores need a threshold above 0"),
        (binarizer == "bernoulli" and split, "bernoulli starts all scores alike: leave score_init out"),
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
        (
            method.score_margin is not None and not simple,
            "score_margin needs threshold or sign, and uniform scores of single weights",
        ),
    ]
