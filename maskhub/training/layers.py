"""Which weights of a model are masked: all matrices of some layers, and the pooler."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import nn
from transformers.pytorch_utils import Conv1D

from maskhub.errors import ArgumentError, TrainingError
from maskhub.masks.names import locate
from maskhub.training.settings import Method

LAYERLESS = "the base has no layers with linear weights that could be masked"
HEADS = {"Q", "K", "V", "AO"}  # the matrices that attention heads have a part of


def maskable(model: nn.Module, traced: Collection[str]) -> dict[str, int | None]:
    """The weights of linear layers among the parameters ``traced``, with the layer each belongs to."""
    shared = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = {
        f"{path}.weight": module.weight
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    return {n: locate(n)[0] for n, w in weights.items() if n in traced and id(w) not in shared}


def check_layers(model: nn.Module, weights: dict[str, int | None]) -> None:
    """Raises TrainingError where none of the weights is in a layer; it names a layer's module that is no linear one."""
    if any(layer is not None for layer in weights.values()):
        return
    for path, module in model.named_modules():
        sizes = {name: p.dim() for name, p in module.named_parameters(recurse=False)}
        if max(sizes.values(), default=0) >= 2 and locate(f"{path}.weight")[0] is not None:
            raise TrainingError(f"{LAYERLESS}: {path} ({type(module).__name__}) is none")
    raise TrainingError(LAYERLESS)


def select(weights: dict[str, int | None], method: Method) -> list[str]:
    """The weights that the method masks, by layer, kind and pattern; outside the layers the pooler's at most.

    ``layers``: ``all``, ``upper`` (all but the lowest sixth, the paper's 2 to 11 of 12), ``2-11``, ``0,3,5`` or
    ``top:4``. ``target_modules``: the paper's letters, as ``Q K V AO I O P``, or ends of modules' names. ``pattern``: a
    regular expression that is found in the weight's name. Raises ArgumentError for layers or modules that do not exist,
    or where nothing is left.
    """
    count = 1 + max((layer for layer in weights.values() if layer is not None), default=-1)
    wanted = parse_layers(method.layers, count)
    chosen = [name for name, layer in weights.items() if layer in wanted or (layer is None and locate(name)[1] == "P")]
    if method.target_modules is not None:
        for one in method.target_modules:
            if not any(_is_of(name, one) for name in weights):
                there = sorted({locate(name)[1] for name in weights})
                raise ArgumentError(
                    f"training settings: target_modules: the base has no {one or 'such'}",
                    hint=f"It has: {', '.join(there)}.",
                )
        chosen = [name for name in chosen if any(_is_of(name, module) for module in method.target_modules)]
    if method.pattern is not None:
        try:
            pattern = re.compile(method.pattern)
        except re.error as error:
            raise ArgumentError(
                f"training settings: pattern {method.pattern!r}: no regular expression: {error}"
            ) from error
        if not any(map(pattern.search, weights)):
            raise ArgumentError(
                f"training settings: pattern {method.pattern!r}: matches no weight",
                hint=f"One is {next(iter(weights))}.",
            )
        chosen = [name for name in chosen if pattern.search(name)]
    if method.structure == "heads":
        chosen = [name for name in chosen if locate(name)[1] in HEADS]
    if not chosen:
        raise ArgumentError(
            "training settings: layers, target_modules, pattern and structure together leave no weight to mask",
            hint="Leave one of them out; --dry-run shows what the others mask.",
        )
    return chosen


def _is_of(name: str, module: str) -> bool:
    """Whether a weight is of this kind (the paper's letter), or of a module whose name ends so, as PEFT takes it."""
    return locate(name)[1] == module or f".{name.removesuffix('.weight')}".endswith(f".{module}")


def parse_layers(layers: str, count: int) -> set[int]:
    """The layer indices that ``layers`` means in a model of ``count`` layers."""
    if layers == "all":
        return set(range(count))
    if layers == "upper":
        return set(range(count // 6, count))
    if match := re.fullmatch(r"top:(\d+)", layers):
        if int(match[1]) > count:
            raise ArgumentError(f"training settings: layers {layers!r}: the base has only {count} layers")
        wanted = set(range(count - int(match[1]), count))
    elif re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", layers):
        ranges = [part.partition("-") for part in layers.split(",")]
        wanted = {i for first, _, last in ranges for i in range(int(first), int(last or first) + 1)}
    else:
        raise ArgumentError(f"training settings: layers {layers!r}: expected all, upper, 2-11, 0,3,5 or top:4")
    if missing := sorted(i for i in wanted if not 0 <= i < count):
        raise ArgumentError(
            f"training settings: layers {layers!r}: there is no layer {missing[0]}; the base has layers 0 to "
            f"{count - 1}"
        )
    if not wanted:
        raise ArgumentError(
            f"training settings: layers {layers!r}: names no layer; the base has layers 0 to {count - 1}"
        )
    return wanted
