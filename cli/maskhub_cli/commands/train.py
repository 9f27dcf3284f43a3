"""``maskhub train``: learns a mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from maskhub_cli.command import Call
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.training.loop import Sized
    from maskhub.training.plan import Plan


def train(call: Call[Any], out: Output) -> None:
    """Ctrl-C, SIGTERM and SIGHUP save the state; the same command with --resume goes on.

    'maskhub plot RUN -o run.png' draws the run meanwhile. --quiet prints the mask's path.

    Example: maskhub train user/base --train-file train.csv --eval-file dev.csv -o run
    """
    from maskhub.training import processes

    if not processes.is_first():
        out = Output(quiet=True)
    if call.asked.get("dry_run"):
        _show_plan(out, call.asked["base"], call(say=out.say))
        return
    with reported(out) as reports:
        result = call(**reports)
    if not processes.is_first():
        return
    if result.mask is None:
        made = result.checkpoint
        out.show(
            {"run": str(result.folder), "model": str(made), "metrics": result.metrics},
            quiet=made,
            title=str(made),
            fields=_numbers(result.metrics),
        )
        return
    size = result.mask.stat().st_size
    out.show(
        {
            "run": str(result.folder),
            "mask": str(result.mask),
            "id": result.manifest.id,
            "bytes": size,
            "metrics": result.metrics,
        }
        | ({"sizes": [_sized(one) for one in result.sizes]} if result.sizes else {}),
        quiet=[one.mask for one in result.sizes] or result.mask,
        title=str(result.mask),
        fields={
            "size": f"{size:,} bytes",
            **_numbers(result.metrics),
        },
        tables=[[{"size": one.size, "bytes": _sized(one)["bytes"], **_numbers(one.metrics)} for one in result.sizes]],
    )
    if not result.metrics:
        out.hint("Not evaluated: no --eval-file was given; --eval-split 0.1 holds a tenth of the examples out.")
    out.hint(f"Next: maskhub info {result.mask}, then: maskhub apply {call.asked['base']} {result.mask} -o DIR")


def _sized(one: Sized) -> dict[str, Any]:
    """A mask of a size that was asked for, as JSON has it."""
    return {"size": one.size, "mask": str(one.mask), "bytes": one.mask.stat().st_size, "metrics": one.metrics}


def _numbers(metrics: Mapping[str, float]) -> dict[str, str]:
    return {name.replace("_", " "): f"{value:.4f}" for name, value in metrics.items()}


@contextmanager
def reported(out: Output) -> Iterator[dict[str, Any]]:
    """What ``maskhub.train`` reports to: a progress bar with loss and metrics, and lines of what was found."""
    with out.progress("Training", unit="steps") as progress:

        def report(step: int, steps: int, numbers: Mapping[str, float]) -> None:
            if progress:
                progress(step, steps, ", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))

        yield {"report": report, "say": out.say}


def _show_plan(out: Output, base: str, plan: Plan) -> None:
    """What a training would mask."""
    import msgspec

    memory = {name: f"{size:,} bytes" for name, size in plan.memory.items()}
    what = f"{len(plan.weights)} tensors would be masked" if plan.weights else f"{plan.dense:,} values would be trained"
    out.show(
        msgspec.to_builtins(plan) | {"masked": plan.masked},
        quiet=plan.masked,
        title=f"{base}: {what}",
        fields={
            "weights masked": f"{plan.masked:,}",
            "scores": f"{sum(weight.scores for weight in plan.weights):,}",
            "dense values": f"{plan.dense:,}",
            **memory,
        },
        tables=[
            [
                {
                    "parameter": weight.parameter,
                    "scores": weight.scores,
                    "shape": "x".join(map(str, weight.shape)),
                    "layer": "-" if weight.layer is None else str(weight.layer),
                    "kind": weight.kind,
                }
                for weight in plan.weights
            ]
        ],
    )
