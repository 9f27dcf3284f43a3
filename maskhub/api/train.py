"""``train``: learns a mask."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from maskhub.api.parameters import Base, BaseLike, PathLike, Token
from maskhub.api.push import push
from maskhub.errors import ArgumentError, LibraryError, extra
from maskhub.options import Option
from maskhub.training.settings import SELECTIONS, parameters, read_config, settings_from

if TYPE_CHECKING:
    from maskhub.training.loop import TrainResult
    from maskhub.training.plan import Plan
    from maskhub.training.processes import Report


@overload
def train(base: BaseLike, output: PathLike | None = ..., *, dry_run: Literal[True], **settings: Any) -> Plan: ...


@overload
def train(
    base: BaseLike, output: PathLike | None = ..., *, dry_run: Literal[False] = ..., **settings: Any
) -> TrainResult: ...


@extra("train", "train")
def train(
    base: Base,
    output: Annotated[PathLike | None, Option("A new folder for the run.", "RUN", ("-o",))] = None,
    *,
    config: Annotated[
        PathLike | None, Option("YAML or TOML with settings by their names; options here go before it.", "FILE")
    ] = None,
    dry_run: Annotated[bool, Option("Read the data, and tell what would be masked and the memory it takes.")] = False,
    resume: Annotated[bool, Option("Go on with the run in RUN.")] = False,
    token: Token = None,
    report: Report | None = None,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> TrainResult | Plan:
    """Learn which of the base's weights a task keeps.

    RUN gets the packed mask.msk, metrics, the configuration that repeats the run, and a recording of it. The defaults
    learned good masks in few bytes (docs/training.md); the recipe ``paper`` is the way of Zhao et al. 2020.

    In Python ``settings`` are the fields of ``maskhub.training.TrainSettings``. ``report`` is called with the step, the
    steps in all and the latest numbers, and ``say`` with what was found and what goes on. Gives the finished run; with
    ``dry_run`` the plan, and nothing is written.

    Raises ArgumentError for settings that are wrong, DataError, CheckpointError, TrainingError or OutputError before
    training starts; later TrainingError after Ctrl-C, SIGTERM or SIGHUP, when a checkpoint has been written.

    >>> import maskhub
    >>> run = maskhub.train("base", "run", train_file="train.csv", eval_file="test.csv", epochs=1, max_length=64)
    >>> run.mask.name
    'mask.msk'
    """
    from maskhub.training import processes
    from maskhub.training.train import learn, ready

    if not dry_run and output is None:
        raise ArgumentError("a run needs a folder", hint="Name one: -o RUN.")
    given = read_config(config) if config is not None else {}
    over = {name: value for name, value in settings.items() if value is not None}
    if any(name in over for name in SELECTIONS):  # the configuration's is another way to ask for the same
        given = {name: value for name, value in given.items() if name not in SELECTIONS}
    asked = settings_from(**given | _named(base) | over)
    if dry_run:
        return ready(asked, output, resume=resume, say=say, token=token).plan
    assert output is not None
    result = learn(asked, output, resume=resume, report=report, say=say, token=token)
    if result.sizes and result.metrics and processes.is_first():
        _draw_sizes(result)
    if asked.push_to_hub and result.mask is not None and processes.is_first():
        pushed = push(result.mask, asked.push_to_hub, token=token)
        if say:
            say(f"Pushed: {pushed.address}")
    return result


def _draw_sizes(result: TrainResult) -> None:
    """RUN/sizes.png, where matplotlib is there to draw it: the task's first metric over the bytes of its files."""
    from maskhub.pictures.plots import save_sizes

    metric = next(iter(result.metrics))
    points = {float(one.mask.stat().st_size): one.metrics[metric] for one in result.sizes}
    with contextlib.suppress(LibraryError):
        save_sizes(
            points, metric, result.folder / "sizes.png", f"Run {result.folder.resolve().name}, packed at each size"
        )


def _named(base: BaseLike) -> dict[str, str]:
    """How settings, which are words, name a base: by its commit, if it is one on the Hub that was opened."""
    from maskhub.checkpoints.checkpoint import Checkpoint

    if not isinstance(base, Checkpoint):
        return {"base": str(base)}
    return {"base": base.name} | ({"revision": base.hub.commit} if base.hub else {})


_own = [p for p in inspect.signature(train).parameters.values() if p.kind is not p.VAR_KEYWORD]
_settings = [p for p in parameters() if p.name not in {own.name for own in _own}]
train.__signature__ = inspect.Signature([*_own, *_settings])  # type: ignore[attr-defined]
