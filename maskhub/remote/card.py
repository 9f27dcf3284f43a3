"""The model card of a repo with masks: what people, the Hub and ``maskhub list`` read. The rest of it is left alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from maskhub.errors import RemoteError, reason
from maskhub.remote.entry import Entry
from maskhub.text import markdown

if TYPE_CHECKING:
    from huggingface_hub import CardData

FILE = "README.md"
KEY = "maskhub"  # of the card's metadata: entries, as `maskhub list` shows them
TAG = "maskhub"
BEGIN, END = "<!-- maskhub: what stands between these two lines is written by maskhub push -->", "<!-- /maskhub -->"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def entries(metadata: CardData | None) -> list[Entry]:
    """The masks that a card's metadata describes; what has another form is left out."""
    found = []
    listed = metadata.get(KEY) if metadata else None
    for item in listed if isinstance(listed, list) else []:
        try:
            found.append(msgspec.convert(item, Entry))
        except ValueError:  # msgspec's errors are ValueErrors
            continue
    return found


def updated(text: str | None, entry: Entry, repo: str, present: Iterable[str]) -> str:
    """A repo's card with this mask in it, and those that it had if their files are still ``present``.

    The card's own text and metadata stay. Raises RemoteError where its metadata cannot be read.
    """
    from huggingface_hub import ModelCard

    name = repo.rpartition("/")[2]
    try:
        text = text or f"\n# {name}\n"
        card = ModelCard(text if text.lstrip().startswith("---") else f"---\n{{}}\n---\n{text}")
        old = entries(card.data)
    except Exception as error:  # YAML's errors, and what the card's fields raise
        raise RemoteError(
            f"{repo}: the metadata of {FILE} cannot be read: {reason(error)}", hint="Mend it on the repo's page."
        ) from error
    kept = {e.name: e for e in old if e.name in set(present)}
    masks = [e for _, e in sorted((kept | {entry.name: entry}).items())]
    _describe(card.data, old, masks, name)
    section = f"{BEGIN}\n{_section(masks, repo)}\n{END}"
    before, begin, rest = card.text.partition(BEGIN)
    line = "\r\n" if "\r\n" in before else "\n"
    if not begin:
        before, rest = before.rstrip() + line * 2, END + line
    card.text = before + section.replace("\n", line) + rest.partition(END)[2]
    return str(card)


def _describe(data: Any, old: list[Entry], masks: list[Entry], name: str) -> None:
    """Write what the masks are into a card's metadata, and take out what was written of ``old`` ones."""
    from huggingface_hub import EvalResult

    data.library_name = data.library_name or "maskhub"
    data.tags = list(dict.fromkeys([*(data.tags or []), TAG]))
    bases = [data.base_model] if isinstance(data.base_model, str) else data.base_model or []
    ours = [e.base for e in masks if _HUB_ID.fullmatch(e.base)]
    bases = list(dict.fromkeys([*(b for b in bases if b not in {e.base for e in old}), *ours]))
    data.base_model = bases[0] if len(bases) == 1 else bases or None
    if bases:
        data.base_model_relation = data.get("base_model_relation") or "adapter"
    tasks = {e.task for e in masks}
    if data.pipeline_tag in {None, *(e.task for e in old)}:
        data.pipeline_tag = tasks.pop() if len(tasks) == 1 else None
    results = [r for r in data.eval_results or [] if not (r.metric_args or {}).get("mask")]
    for mask in masks:
        results += [
            EvalResult(
                task_type=mask.task or "other",
                dataset_type="unknown",
                dataset_name="evaluation examples",
                metric_type=metric,
                metric_value=value,
                metric_name=f"{metric}, {mask.name}",
                metric_args={"mask": mask.name},
            )
            for metric, value in sorted(mask.metrics.items())
        ]
    data.eval_results = results or None
    data.model_name = data.model_name or name
    data[KEY] = msgspec.to_builtins(masks)


def _section(masks: list[Entry], repo: str) -> str:
    """What the card says to people."""
    first = masks[0]
    one = repo if len(masks) == 1 else _word(f"{repo}/{first.name}", "MASK")
    base = _word(first.base, "BASE")
    rows = [
        (
            e.name,
            e.task or "",
            e.base,
            f"{e.bytes:,}",
            f"{e.weights:,}",
            f"{e.bits_per_weight:.3f}",
            f"{e.sparsity:.2%}",
            ", ".join(f"{k} {v:.4f}" for k, v in sorted(e.metrics.items())),
        )
        for e in masks
    ]
    head = ("mask", "task", "base", "bytes", "weights", "bits a weight", "dropped", "metrics")
    table = ["|".join(["", *row, ""]) for row in [head, ("---",) * len(head), *(map(markdown, row) for row in rows)]]
    return "\n".join(
        [
            "## Masks",
            "",
            "Which weights of a base model a task keeps, in files of [MaskHub](https://pypi.org/project/maskhub).",
            "",
            *table,
            "",
            "```bash",
            "pip install maskhub",
            f"maskhub pull {one} --base {base}",
            f"maskhub apply {base} {one}",
            "```",
        ]
    )


def _word(text: str, otherwise: str) -> str:
    """Text of a file as a word for a shell, if it can be one."""
    return text if re.fullmatch(r"[\w.][\w./@-]*", text) else otherwise
