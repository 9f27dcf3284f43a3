"""``maskhub evaluate``: the metrics of a mask, or of several together, on a file of examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskhub_cli.command import Call
from maskhub_cli.output import Output

if TYPE_CHECKING:
    from maskhub.api.evaluate import Evaluation


def evaluate(call: Call[list[Evaluation]], out: Output) -> None:
    """--quiet prints the task's first metric, such as the accuracy.

    Example: maskhub evaluate user/base task.msk --file test.csv
    """
    from maskhub.storage.url import public_name

    found = call("Evaluating", unit="examples")
    masks = [public_name(mask) for mask in call.asked["masks"]]
    where = f"on {found[0].examples:,} examples of {found[0].file}"
    data: list[dict[str, Any]] = []
    for one in found:
        which = {"masks": one.masks, "ensemble": one.ensemble} if one.ensemble else {"mask": one.masks[0]}
        data.append({**which, "file": one.file, "examples": one.examples, "metrics": one.metrics})
    shown = [{name.replace("_", " "): f"{value:.4f}" for name, value in one.metrics.items()} for one in found]
    first = [next(iter(one.metrics.values())) for one in found]
    if len(found) == 1:
        title = f"{len(masks)} masks together by {found[0].ensemble}" if found[0].ensemble else masks[0]
        out.show(data[0], quiet=first, title=f"{title} {where}", fields=shown[0])
    else:
        table = [{"mask": name, **row} for name, row in zip(masks, shown, strict=True)]
        out.show(data, quiet=first, title=f"{len(masks)} masks {where}", tables=[table])
