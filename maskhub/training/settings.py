"""What a training run is asked to do: ``Method``, how masks are learned, and ``TrainSettings``, all of a run.

Each field says its own limits and help, of which the command line is made. Importing this module imports no NumPy.
"""

from __future__ import annotations

import inspect
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from maskhub.errors import ArgumentError, MaskhubError, check_choice, library, reason, same_kind
from maskhub.options import Option, nearest
from maskhub.storage import address
from maskhub.storage.regular import open_regular
from maskhub.storage.size import parse_size

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
WholeShare = Annotated[float, msgspec.Meta(gt=0, le=1)]
Part = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Number = Annotated[int, msgspec.Meta(ge=1)]

GROUPS = ("Examples", "Which weights", "Method", "Training", "Output")
Data, Weights, Learning, Training, Result = (partial(Option, group=group) for group in GROUPS)

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
        "schedule": "linear",
        "warmup": 0.1,
        "max_grad_norm": 1.0,
    },
    "paper": {
        "learning_rate": 1e-3,
        "beta2": 0.999,
        "l2_sp": 0.0,
        "initial_sparsity": 0.05,
        "score_range": None,
        "layers": "upper",
        "classifier": "masked",
        "schedule": "constant",
        "warmup": 0.0,
        "max_grad_norm": 0.0,
    },
}
# What scores have learned fades by the decay. A long training is to forget no sooner, in parts of its length; but the
# weaker the decay, the further scores walk at random, and the larger the mask.
LOWEST_L2_SP, HIGHEST_L2_SP = 0.0015, 0.007
L2_SP_OVER_TRAINING = 3.0
# AdamW on all weights, as the benchmark picked it; its weight decay is in ``finetune``.
FINETUNING: dict[str, Any] = {"learning_rate": 1e-4, "beta2": 0.999}
PATTERNS = {f"{n}:{m}" for m in (2, 4, 8, 16) for n in range(1, m)}
SELECTIONS = ("keep_flips", "bits", "size", "sizes")  # ways to ask for a size
OURS = RECIPES["default"]


def _tasks() -> Iterable[str]:
    from maskhub.tasks import REGISTRY

    return REGISTRY


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How masks are learned; docs/training.md says what each does. Make one by ``method_from``."""

    layers: Annotated[
        str,
        Weights(
            "all, upper (all but the lowest sixth: 2-11 of 12 and 1-5 of 6, where the authors' code has 2-5), 0,3,5 or "
            "top:4, and what is outside all layers."
        ),
    ] = OURS["layers"]
    target_modules: Annotated[
        tuple[str, ...] | None,
        Weights(
            "Only these, as Q,V: the paper's letters Q K V AO I O P, or ends of modules' names, as q_proj,v_proj.",
            "NAMES",
        ),
    ] = None
    pattern: Annotated[str | None, Weights("Only weights in whose name this is found.", "REGEX")] = None
    structure: Annotated[Literal["weights", "heads", "rows", "layers"], Weights("What one score decides about.")] = (
        "weights"
    )
    classifier: Annotated[
        Literal["masked", "frozen", "dense"],
        Weights("The task's new layer: random and masked, random as it is, or trained (layers before it masked)."),
    ] = OURS["classifier"]
    train_biases: Annotated[bool, Weights("Train the base's biases, too.")] = False
    train_norms: Annotated[bool, Weights("Train its LayerNorms, too.")] = False

    recipe: Annotated[
        Literal["default", "paper"],
        Learning(
            "Sets the defaults of --learning-rate, --beta2, --l2-sp, --initial-sparsity, --score-range, --layers, "
            "--classifier, --schedule, --warmup and --max-grad-norm: 4e-3, 0.95, by length, 0.005, 0.6, all, dense, "
            "linear, 0.1, 1; or those of Zhao et al. 2020: 1e-3, 0.999, 0, 0.05, as wide as that gives, upper, masked, "
            "constant, 0, 0."
        ),
    ] = "default"
    binarizer: Annotated[
        Literal["threshold", "sign", "bernoulli", "topk", "nm"], Learning("Which scores keep their weight.")
    ] = "threshold"
    threshold: Annotated[float, Learning("A weight is kept where its score is above this.")] = 1e-2
    topk_scope: Annotated[Literal["tensor", "global"], Learning("What has the sparsity exactly, by topk.")] = "tensor"
    nm: Annotated[str, Learning("Keep N of M neighbouring inputs, by nm.", "N:M")] = "2:4"
    score_init: Annotated[
        Literal["uniform", "magnitude"],
        Learning("Which weights start dropped: any, or the smallest. Scores are spread evenly by either."),
    ] = "uniform"
    initial_sparsity: Annotated[Share, Learning("Share of the weights that start dropped.")] = OURS["initial_sparsity"]
    score_range: Annotated[Positive | None, Learning("Width of the range that uniform scores start in.")] = OURS[
        "score_range"
    ]
    score_margin: Annotated[
        Positive | None, Learning("Train only scores that start within this of the threshold, to save memory.")
    ] = None
    final_sparsity: Annotated[Share | None, Learning("Go there, by topk exactly, else by the penalty.")] = None
    sparsity_schedule: Annotated[Literal["cubic", "steps"], Learning("How it gets there.")] = "cubic"
    sparsity_penalty: Annotated[NotNegative, Learning("How hard all scores are moved to the wanted sparsity.")] = 0.0
    l2_sp: Annotated[
        Part | None,
        Learning(
            "Decay towards the start (L2-SP, decoupled): the share of its way that each score goes back after a step; "
            "by length is 3 / steps, but 0.0015 to 0.007."
        ),
    ] = OURS["l2_sp"]

    keep_flips: Annotated[
        WholeShare | None,
        Learning("Selection: the share of the flips that is kept, those that matter most; 1 selects none."),
    ] = None
    bits: Annotated[Share | None, Learning("In its place: the bits a masked weight that masks take.")] = None
    size: Annotated[str | None, Learning("In its place: the size of the file, all of it, as 60KB.")] = None
    selection_start: Annotated[Share, Learning("Share of the steps after which flips are first selected.")] = 0.5
    selection_end: Annotated[Share, Learning("And last.")] = 0.8
    selection_rounds: Annotated[Number, Learning("How often they are selected from first to last.")] = 3
    selection_measure: Annotated[
        Literal["fisher", "distance"],
        Learning("What matters: the mean square of a score's gradient times its way; or how far past the threshold."),
    ] = "fisher"

    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32), Training("Of scores, classifier and order.")] = 0

    @property
    def cut(self) -> float:
        """The score above which a weight is kept, where the binarizer compares with one."""
        return self.threshold if self.binarizer == "threshold" else 0.0

    @property
    def selects(self) -> bool:
        """Whether flips are selected while training goes on."""
        return (self.keep_flips or 1) < 1 or self.fits

    @property
    def fits(self) -> bool:
        """Whether masks have to fit into so many bytes."""
        return self.bits is not None or self.file_size is not None

    @property
    def file_size(self) -> int | None:
        """The bytes that the file is to take, all of it."""
        return None if self.size is None else parse_size(self.size)

    @property
    def needs_steps(self) -> bool:
        """Whether something is done after each step of the optimiser."""
        changes = self.final_sparsity is not None or self.sparsity_penalty > 0
        return self.l2_sp != 0 or changes or self.selects or self.binarizer == "sign" or self.topk_scope == "global"

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

    base: Annotated[str, Option("A checkpoint folder or file, or a model on the Hub.", "BASE")]
    method: Annotated[
        Literal["mask", "finetune"],
        Learning("Learn a mask, or train all weights as AdamW does (rate 1e-4, beta2 0.999) into RUN/model."),
    ] = "mask"
    start_from: Annotated[
        str | None, Learning("Finetune on top of this mask: what it drops stays dropped.", "MASK")
    ] = None
    keep_head: Annotated[bool, Weights("Begin with the task's layer that the base has, in place of a new one.")] = False
    revision: Annotated[str | None, Result("Branch, tag or commit of a base on the Hub.", "REVISION")] = None

    train_file: Annotated[
        str | None, Data("CSV, TSV, JSON, Parquet or texts, plain or packed; a folder of images.", "FILE")
    ] = None
    eval_file: Annotated[str | None, Data("Examples to evaluate on.", "FILE")] = None
    eval_split: Annotated[Share | None, Data("Or the share of the training examples to hold out for that.")] = None
    dataset: Annotated[str | None, Data("A dataset on the Hub, in place of files.", "NAME[/CONFIG]")] = None
    task: Annotated[str | None, Data("Default: found by the columns.", choices=_tasks)] = None
    text_column: Annotated[
        str | None, Data("Text, tokens, prompt or image. Default: found by the usual names.", "COLUMN")
    ] = None
    pair_column: Annotated[str | None, Data("The second text, or the choices.", "COLUMN")] = None
    label_column: Annotated[str | None, Data("Each example's class, tags, right choice or number.", "COLUMN")] = None

    tag_piece: Annotated[Literal["first", "last"], Data("Which sub-word of a token has its tag.")] = "first"
    ignore_tags: Annotated[
        tuple[str, ...] | None, Data("Tags that are neither learned nor measured, as O,X.", "TAGS")
    ] = None

    learning_rate: Annotated[Positive, Training("Of the scores (Adam).")] = OURS["learning_rate"]
    beta2: Annotated[Part, Training("Adam's: the share that its mean square of gradients keeps in a step.")] = OURS[
        "beta2"
    ]
    dense_learning_rate: Annotated[
        Positive | None, Training("Of what is trained besides scores; the same by default.")
    ] = None
    epochs: Annotated[Positive, Training("Passes over the examples.")] = 10.0
    batch_size: Annotated[Number, Training("Examples a batch, of all processes together.")] = 32
    gradient_accumulation_steps: Annotated[Number, Training("Batches a step.")] = 1
    max_length: Annotated[Number, Training("Tokens an example is cut to.")] = 128
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], Training("The learning rate's after the warm-up; the others end at 0.")
    ] = OURS["schedule"]
    snapshots: Annotated[
        Number | None,
        Training("With cosine: so many cycles, each from the full rate, and a mask at the end of each (ensembles)."),
    ] = None
    warmup: Annotated[Part, Training("Share of the steps in which the rate rises.")] = OURS["warmup"]
    max_grad_norm: Annotated[
        NotNegative, Training("The norm that the scores' gradients, and all others', are cut to; 0: none.")
    ] = OURS["max_grad_norm"]
    eval_steps: Annotated[Number, Training("Steps between evaluations and checkpoints.")] = 60
    metric: Annotated[
        str | None,
        Training("Picks the best evaluation: f1, matthews_correlation, loss. Default: the task's.", "METRIC"),
    ] = None
    patience: Annotated[Number, Training("Evaluations without a better metric before it stops.")] = 10
    precision: Annotated[Literal["fp32", "bf16", "fp16"], Training("Of the passes; scores stay fp32.")] = "fp32"
    gradient_checkpointing: Annotated[bool, Training("Less memory, by computing passes twice.")] = False
    report_to: Annotated[str, Training("Trackers of transformers' Trainer: tensorboard, wandb.", "TRACKER")] = "none"

    base_name: Annotated[str | None, Result("Name of the base to record in the mask; default: BASE.", "NAME")] = None
    sizes: Annotated[
        tuple[str, ...] | None,
        Result("Pack the run at each of these sizes, as 30KB,60KB: trained for the largest, all measured.", "SIZES"),
    ] = None
    keep_checkpoints: Annotated[bool, Result("Keep checkpoints, with their scores, when the run is finished.")] = False
    push_to_hub: Annotated[str | None, Result("Push the mask there when it is learned.", "REPO")] = None

    @property
    def file_size(self) -> int | None:
        """The bytes that the file is to take, all of it: the largest of several sizes."""
        return max(map(parse_size, self.sizes)) if self.sizes else super().file_size


# What a finetuning has no use for.
OF_MASKS = tuple(name for name in (*Method.__struct_fields__, "snapshots", "sizes", "push_to_hub") if name != "seed")

M = TypeVar("M", bound=Method)


def settings_from(**given: Any) -> TrainSettings:
    """Checked settings of a run: what is given, and for the rest (None counts as not given) the recipe's defaults.

    Numbers may come as texts, lists as texts with commas, and paths as paths. Raises ArgumentError naming the first
    field that there is not, or whose value cannot be.
    """
    if given.get("method") == "finetune":
        if of_masks := [name for name in OF_MASKS if given.get(name) is not None]:
            raise ArgumentError(
                f"training settings: {of_masks[0]}: a finetuning learns no mask", hint="Leave it out, or method."
            )
        given = FINETUNING | {name: value for name, value in given.items() if value is not None}
    elif given.get("start_from") is not None:
        raise ArgumentError("training settings: start_from needs a finetuning", hint="Give method=finetune as well.")
    settings = _made(TrainSettings, given)
    if (settings.train_file is None) == (settings.dataset is None):
        raise ArgumentError(
            "training settings: give either a training file or a dataset", hint="As train_file or dataset: exactly one."
        )
    if settings.snapshots is not None and settings.schedule != "cosine":
        raise ArgumentError("training settings: snapshots needs the schedule cosine", hint="Give schedule=cosine.")
    if settings.snapshots is not None and settings.selects:
        raise ArgumentError(
            "training settings: snapshots: a selection ends in one mask", hint="Leave one of the two out."
        )
    if settings.eval_file is not None and settings.eval_split is not None:
        raise ArgumentError("training settings: eval_split: there is an eval_file", hint="Leave one of them out.")
    if settings.task is not None:
        check_choice("training settings: task", settings.task, list(_tasks()))
    if (repo := settings.push_to_hub) is not None:
        place = None
        with suppress(MaskhubError):
            place = address.hub(repo)
        if place is None:
            raise ArgumentError(
                f"training settings: push_to_hub: {repo!r} is no repo on the Hub", hint="Name it as user/repo."
            )
    return settings


def method_from(**given: Any) -> Method:
    """A checked method, as ``settings_from``."""
    return _made(Method, given)


def recorded(settings: TrainSettings) -> dict[str, Any]:
    """What ``settings_from`` makes these settings of: those that are not the recipe's defaults."""
    plain = _made(TrainSettings, {"base": settings.base, "recipe": settings.recipe})
    values = msgspec.to_builtins(settings)
    always = ("base",) if settings.method == "finetune" else ("base", "recipe")
    found = {k: v for k, v in values.items() if k in always or v != getattr(plain, k)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML or TOML file, by their names, for ``settings_from``.

    Raises ArgumentError where the file cannot be read, or names what is no setting, and MissingError without one.
    """
    path = Path(path)
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise ArgumentError(f"{path}: neither YAML nor TOML", hint="Name it .yaml or .toml.")
    yaml = library("yaml", "YAML files", "pyyaml")
    try:
        with open_regular(path) as file:
            text = file.read().decode()
        # Every scalar as a text, which `settings_from` reads: YAML's own types take 2:4 for 124, and 3e-3 for none.
        found = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, yaml.BaseLoader) or {}
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


def parameters() -> list[inspect.Parameter]:
    """The fields as keyword-only parameters, annotated with a plain type and its ``Option``, group by group.

    None stands where the default is the recipe's.
    """
    found, types = [], get_type_hints(TrainSettings)
    for field in msgspec.structs.fields(TrainSettings):
        plain, option = types[field.name], next(m for m in field.type.__metadata__ if isinstance(m, Option))
        default = inspect.Parameter.empty if field.required else field.default
        if field.name in OURS:
            plain, default, option = plain | None, None, replace(option, help=f"{option.help} Default: the recipe's.")
        note: Any = Annotated[plain, option]
        found.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=note))
    groups = (None, *GROUPS)
    return sorted(found, key=lambda p: groups.index(p.annotation.__metadata__[0].group))


def _made(kind: type[M], given: dict[str, Any]) -> M:
    types = get_type_hints(kind)
    for name in given:
        _check_name(kind, name, "training settings")
    values = {name: _value(value, types[name]) for name, value in given.items() if value is not None}
    recipe = RECIPES.get(str(values.get("recipe", "default")), {})
    fields = {name: value for name, value in recipe.items() if name in types} | values
    if _is_sparse_otherwise(values):
        fields |= {name: values.get(name) for name in SELECTIONS if name in types}
    try:
        made = msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        why, _, field = str(error).rpartition(" - at ")
        if not why:
            raise ArgumentError("training settings: base: there is none") from error
        field = field.strip("`$.").partition("[")[0]
        hint = "It is true or false." if types[field] is bool else None
        if get_origin(types[field]) is Literal:
            check_choice(f"training settings: {field}", values[field], get_args(types[field]))
        if limits := _limits(get_type_hints(kind, include_extras=True)[field]):
            number = "a number " if isinstance(given[field], str) else ""
            why = f"{given[field]!r} is not {number}{limits}"
        raise ArgumentError(f"training settings: {field}: {why}", hint=hint) from error
    for field, value in msgspec.structs.asdict(made).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ArgumentError(f"training settings: {field}: {value} is no number to work with")
    for wrong, message in _conflicts(made):
        if wrong:
            raise ArgumentError(f"training settings: {message}")
    return made


def _is_sparse_otherwise(given: Mapping[str, Any]) -> bool:
    """Whether the recipe's selection does not go with what is given."""
    own = given.get("binarizer") in ("topk", "nm") or given.get("structure", "weights") != "weights"
    others = ("final_sparsity", "sparsity_penalty", "snapshots", *SELECTIONS)
    return own or given.get("method") == "finetune" or any(name in given for name in others)


def _check_name(kind: type[Method], name: str, where: str) -> None:
    fields = kind.__struct_fields__
    if name not in fields:
        near = nearest(name, fields)
        raise ArgumentError(f"{where}: there is no setting {name!r}", hint=f"Did you mean {near}?" if near else None)


def _value(value: Any, plain: Any) -> Any:
    """A path, or a whole number where a text is wanted, as text; a text with commas as the list that is wanted."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    kinds = (plain, *get_args(plain))
    wants_list = any(get_origin(one) is tuple for one in kinds)
    if wants_list and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if wants_list and isinstance(value, list | tuple):
        return [str(part) if type(part) is int else part for part in value]
    return str(value) if str in kinds and type(value) is int else value


def _limits(hint: Any) -> str:
    """The limits of a number's type in words, as "above 0 and below 1"; empty for other types."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    metas = [one for place in (hint, *get_args(hint.__origin__)) for one in getattr(place, "__metadata__", ())]
    limits = ((word, getattr(meta, name, None)) for meta in metas for name, word in words.items())
    return " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)


def _conflicts(method: Method) -> list[tuple[Any, str]]:
    """What is wrong with values that are each allowed, and whether it is so."""
    binarizer, weights, by_size = method.binarizer, method.structure == "weights", method.score_init == "magnitude"
    penalty, final = method.sparsity_penalty > 0, method.final_sparsity is not None
    simple = binarizer in ("threshold", "sign") and weights and not by_size
    groups = "not heads, rows or layers"
    given = [name for name in SELECTIONS if getattr(method, name, None) not in (None, 1)]
    own = binarizer if binarizer in ("topk", "nm") else "final_sparsity" if final else "sparsity_penalty"
    sparse = binarizer in ("topk", "nm") or penalty or final
    for size in (method.size, *(getattr(method, "sizes", None) or ())):
        try:
            parse_size(size or "1")
        except ArgumentError as error:
            raise ArgumentError(f"training settings: size: {error.message}", hint=error.hint) from error
    return [
        (method.score_range is None and method.threshold <= -PAPER_MARGIN, f"threshold must be above {-PAPER_MARGIN}"),
        (binarizer == "bernoulli" and by_size, "bernoulli starts all scores alike: leave score_init out"),
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
        (len(given) > 1, f"{' and '.join(given)} say the same: give one of them"),
        (given and sparse, f"{own} has a sparsity of its own: leave {' and '.join(given)} out"),
        (given and not weights, f"{' and '.join(given)}: single weights are selected, {groups}"),
        (method.selection_start > method.selection_end, "selection_start comes after selection_end"),
        (
            method.score_margin is not None and not simple,
            "score_margin needs threshold or sign, and uniform scores of single weights",
        ),
    ]
