"""``maskhub predict``: what a mask's task model answers to inputs of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskhub_cli.command import Call
from maskhub_cli.output import Cell, Format, Output, strict

LONGEST = 60  # letters of a text in a table


def predict(call: Call[list[dict[str, Any]]], out: Output) -> None:
    """Texts give a table. A file gives JSON lines, one an example; so does --json. --quiet prints the answers alone.

    Example: maskhub predict user/base task.msk "You have won a £500 prize! Call 09098790123 now."
    """
    answers = call("Predicting", unit="examples")
    if out.format is Format.JSON or (out.auto and call.asked.get("file")):
        out.lines(map(strict, answers))
    elif out.format is Format.QUIET:
        out.show(None, quiet=[_short(answer) for answer in answers])
    else:
        out.show(None, quiet="", tables=[[row for answer in answers for row in _rows(answer)]])


def _short(answer: Mapping[str, Any]) -> str:
    """The answer alone."""
    for key in ("generated_text", "label", "choice", "score"):
        if key in answer:
            return str(answer[key])
    return " ".join(f"{one['word']}/{one['label']}" for one in answer.get("entities", answer.get("tags", ())))


def _rows(answer: Mapping[str, Any]) -> list[dict[str, Cell]]:
    """An answer for a table: a row, or one for each word that is tagged and each of the likeliest labels."""
    asked = " | ".join(str(answer[key]) for key in ("text", "pair", "prompt", "image") if answer.get(key) is not None)
    asked = asked or " ".join(answer.get("tokens", ()))
    asked = asked if len(asked) <= LONGEST else f"{asked[: LONGEST - 1]}…"
    if "generated_text" in answer:
        return [{"generated text": str(answer["generated_text"])}]
    if (words := answer.get("entities", answer.get("tags"))) is not None:
        return [
            {"word": one["word"], "label": one["label"], "score": float(one["score"]), "input": asked} for one in words
        ] or [{"word": "(none)", "label": "", "score": "", "input": asked}]
    answers = answer.get("top") or [answer]
    what = next((key for key in ("label", "choice") if key in answers[0]), None)
    return [
        {**({what: str(one[what])} if what else {}), "score": float(one["score"]), "input": asked} for one in answers
    ]
