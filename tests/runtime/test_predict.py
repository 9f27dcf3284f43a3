"""What masks answer, beside plain transformers on the dense checkpoint that each mask was packed from."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from transformers import AutoTokenizer

from maskhub import tasks
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.writer import save
from maskhub.errors import ArgumentError, DataError, FormatError, MaskhubError, MissingError
from maskhub.masks.mask import MaskSet
from maskhub.runtime.predict import predict
from maskhub.tasks.examples import Columns
from maskhub.tasks.token_classification import _spans
from tests import tiny, toy

TOPICS = ("film", "spam", "trivia")
ENTITIES = ("O", "B-film", "I-film", "B-towns", "I-towns")


Make = Callable[..., tiny.Packed]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``tiny.packed``, once for each of a module's tasks."""
    made: dict[str, tiny.Packed] = {}

    def once(*args: Any, **options: Any) -> tiny.Packed:
        key = repr((args, options))
        if key not in made:
            made[key] = tiny.packed(tmp_path_factory.mktemp("packed"), *args, **options)
        return made[key]

    return once


def pipeline(task: str, there: tiny.Packed, **options: Any) -> Any:
    """Plain transformers on the dense checkpoint."""
    return transformers.pipeline(task, model=str(there.dense), tokenizer=str(there.base), **options)


def logits(there: tiny.Packed, architecture: str, *texts: Any, **options: Any) -> Any:
    """Of one example, by plain transformers."""
    model = getattr(transformers, architecture).from_pretrained(there.dense).eval()
    reading = {"add_prefix_space": True} if options else {}
    encoded = AutoTokenizer.from_pretrained(there.base, **reading)(*texts, return_tensors="pt", **options)
    with torch.inference_mode():
        return model(**encoded).logits[0].numpy(), encoded


def texts(count: int) -> list[str]:
    """Of very different lengths, in no order of them."""
    rng = random.Random(0)
    return [" ".join(rng.choices(tiny.WORDS[9:], k=rng.randint(1, 20))) for _ in range(count)]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_classes_of_texts(make: Make, family: str) -> None:
    there = make(family, f"{tiny.FAMILIES[family]}ForSequenceClassification", TOPICS)
    asked = [text[:60] for text in texts(13)]
    done: list[tuple[int, int]] = []
    said = predict(there.base, there.mask, asked, batch_size=4, progress=lambda *at: done.append(at))
    assert done == [(4, 13), (8, 13), (12, 13), (13, 13)]
    expected = [best for (best,) in pipeline("text-classification", there, top_k=1)(asked)]
    assert [answer["text"] for answer in said] == asked
    assert [answer["label"] for answer in said] == [best["label"] for best in expected]
    assert [answer["score"] for answer in said] == pytest.approx([best["score"] for best in expected], rel=1e-5)
    assert len({answer["label"] for answer in said}) > 1
    assert set(said[0]) == {"text", "label", "score"}
    assert said == json.loads(json.dumps(said))

    for answer in predict(there.base, there.mask, asked[:3], top_k=3):
        assert [set(one) for one in answer["top"]] == [{"label", "score"}] * 3
        assert sum(one["score"] for one in answer["top"]) == pytest.approx(1, abs=1e-12)
        assert answer["top"][0] == {"label": answer["label"], "score": answer["score"]}
        assert [one["score"] for one in answer["top"]] == sorted((o["score"] for o in answer["top"]), reverse=True)
    assert [len(answer["top"]) for answer in predict(there.base, there.mask, asked[:2], top_k=2)] == [2, 2]
    assert predict(there.base, there.mask, asked[0]) == predict(there.base, there.mask, asked[:1])


def test_pairs_of_texts(make: Make) -> None:
    there = make("bert", "BertForSequenceClassification", TOPICS)
    asked = list(zip(texts(9), texts(18)[9:], strict=True))
    said = predict(there.base, there.mask, asked, batch_size=2)
    assert [(answer["text"], answer["pair"]) for answer in said] == asked
    for answer, pair in zip(said, asked, strict=True):
        expected, _ = logits(there, "BertForSequenceClassification", *pair)
        assert answer["label"] == TOPICS[expected.argmax()]
        assert answer["score"] == pytest.approx((np.exp(expected) / np.exp(expected).sum()).max(), rel=1e-5)


def test_numbers(make: Make) -> None:
    there = make("bert", "BertForSequenceClassification", ("score",), problem_type="regression")
    assert tasks.of_mask(there.mask.task).name == "regression"
    said = predict(there.base, there.mask, texts(5), batch_size=2)
    for answer, text in zip(said, texts(5), strict=True):
        expected, _ = logits(there, "BertForSequenceClassification", text)
        assert answer == {"text": text, "score": pytest.approx(float(expected[0]), rel=1e-5)}


def test_entities(make: Make) -> None:
    """As transformers groups them where each word is tagged by its first part."""
    there = make("bert", "BertForTokenClassification", ENTITIES)
    asked = [f"{text}, xylophone!" for text in texts(12)]
    said = predict(there.base, there.mask, asked, batch_size=5)
    # Words between which the tokenizer puts no space are one to transformers; to the task they are several.
    alone = [re.sub(r"([,!])", r" \1", text) for text in asked]
    expected = pipeline("token-classification", there, aggregation_strategy="first")(alone)
    found = 0
    for answer, text, spaced, entities in zip(said, asked, alone, expected, strict=True):
        assert set(answer) == {"text", "entities"}
        assert answer["text"] == text
        assert [one["label"] for one in answer["entities"]] == [one["entity_group"] for one in entities]
        for one, other in zip(answer["entities"], entities, strict=True):
            assert one["word"] == text[one["start"] : one["end"]]
            assert one["word"].replace(" ", "") == spaced[other["start"] : other["end"]].replace(" ", "")
            assert one["score"] == pytest.approx(float(other["score"]), rel=1e-5)
            found += 1
    assert found > 10
    assert {one["label"] for answer in said for one in answer["entities"]} == {"film", "towns"}


@pytest.mark.parametrize("given", ["text", "tokens"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_tags_of_words(make: Make, family: str, given: str) -> None:
    """Each word's is the one at its first part; a word of which the tokenizer makes nothing has none."""
    architecture = f"{tiny.FAMILIES[family]}ForTokenClassification"
    there = make(family, architecture, ("film", "other", "towns"))
    words = [["who", "is", "xylophone", "in"], ["city"], ["free"] * 9]
    if family == "bert":
        words[1].insert(0, "\u200b")
    asked = [" ".join(row) for row in words] if given == "text" else words
    said = predict(there.base, there.mask, asked, batch_size=2)
    for answer, question, row in zip(said, asked, words, strict=True):
        assert answer[given] == question
        known = [word for word in row if word != "\u200b"]
        assert [one["word"] for one in answer["tags"]] == known
        text = " ".join(row)
        assert [text[one["start"] : one["end"]] for one in answer["tags"]] == known
        expected, encoded = logits(there, architecture, row, is_split_into_words=True)
        first = [encoded.word_ids().index(i) for i, word in enumerate(row) if word in known]
        odds = np.exp(expected[first]) / np.exp(expected[first]).sum(-1, keepdims=True)
        assert [one["label"] for one in answer["tags"]] == [("film", "other", "towns")[i] for i in odds.argmax(-1)]
        assert [one["score"] for one in answer["tags"]] == pytest.approx(odds.max(-1).tolist(), rel=1e-5)


def test_a_text_without_words_has_no_tags(make: Make) -> None:
    there = make("bert", "BertForTokenClassification", ENTITIES)
    assert predict(there.base, there.mask, [""]) == [{"text": "", "entities": []}]


def test_words_beyond_the_masks_length_have_no_tags(make: Make) -> None:
    there = make("bert", "BertForTokenClassification", ("film", "other", "towns"))
    assert there.mask.task is not None
    short = dataclasses.replace(there.mask, task=msgspec.structs.replace(there.mask.task, max_length=6))
    (said,) = predict(there.base, short, "who is the man in a city")
    assert [one["word"] for one in said["tags"]] == ["who", "is", "the", "man"]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "t5"])
def test_the_words_of_a_text(family: str, tmp_path: Path) -> None:
    tokenizer = tiny._processor(family)
    text = "  who is it,\nJosé?  two\u3000words "
    assert [text[slice(*span)] for span in _spans(tokenizer, text)] == [
        "who", "is", "it", ",", "José", "?", "two", "words",
    ]  # fmt: skip


def test_words_of_a_tokenizer_that_tells_none_apart() -> None:
    from tokenizers import Tokenizer, models

    plain = Tokenizer(models.BPE({letter: i for i, letter in enumerate("abc ")}, []))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain)
    assert _spans(tokenizer, "ab  c") == [(0, 2), (4, 5)]


def test_choices(make: Make) -> None:
    there = make("bert", "BertForMultipleChoice")
    asked = [{"prompt": row["prompt"], "choices": row["choices"]} for row in toy.choices(7)]
    said = predict(there.base, there.mask, asked, batch_size=2, top_k=3)
    model = transformers.BertForMultipleChoice.from_pretrained(there.dense).eval()
    tokenizer = AutoTokenizer.from_pretrained(there.base)
    for answer, question in zip(said, asked, strict=True):
        encoded = tokenizer([question["prompt"]] * 3, question["choices"], return_tensors="pt", padding=True)
        with torch.inference_mode():
            odds = model(**{key: value[None] for key, value in encoded.items()}).logits[0].softmax(-1)
        best = int(odds.argmax())
        assert answer.items() >= question.items()
        assert (answer["index"], answer["choice"]) == (best, question["choices"][best])
        assert answer["score"] == pytest.approx(float(odds[best]), rel=1e-5)
        assert {one["index"] for one in answer["top"]} == {0, 1, 2}
        assert sum(one["score"] for one in answer["top"]) == pytest.approx(1, abs=1e-12)
    assert len({answer["index"] for answer in said}) > 1
    assert predict(there.base, there.mask, asked[0])[0]["index"] == said[0]["index"]


def test_texts_that_go_on(make: Make) -> None:
    there = make("gpt2", "GPT2LMHeadModel", head="LMHeadModel")
    asked = ["who is the", "a", "free city of the man", "in a"]
    said = predict(there.base, there.mask, asked, max_new_tokens=7, batch_size=3)
    pipe = pipeline("text-generation", there, max_new_tokens=7, do_sample=False)
    assert said == [{"text": text} | pipe(text)[0] for text in asked]
    assert all(len(answer["generated_text"]) > len(answer["text"]) for answer in said)
    (long,) = predict(there.base, there.mask, "x" * 40 + "who is the man" * 4, max_new_tokens=10)
    (end,) = predict(there.base, there.mask, "who is the man" * 4, max_new_tokens=10)
    assert long["generated_text"] == "x" * 40 + end["generated_text"]  # 66 tokens in all; each character is one
    with pytest.raises(ArgumentError, match=r"^max_new_tokens 66: the model has room for 66 tokens in all$"):
        predict(there.base, there.mask, asked, max_new_tokens=66)
    with pytest.raises(DataError, match=r"^inputs: row 2 has no text that the tokenizer knows"):
        predict(there.base, there.mask, ["who", ""])


def test_images(make: Make, tmp_path: Path) -> None:
    there = make("vit", "ViTForImageClassification", ("blue", "red"))
    folder = toy.write_images(tmp_path / "images", 5)
    (folder / "notes.txt").write_text("no image")
    paths = [str(path) for path in sorted(folder.rglob("*.png"))]
    pipe = transformers.pipeline(
        "image-classification", model=str(there.dense), image_processor=str(there.base), top_k=1
    )
    expected = [{"image": path} | pipe(path)[0] for path in paths]
    for said in (
        predict(there.base, there.mask, paths, batch_size=2),
        predict(there.base, there.mask, [folder / "blue", folder / "red"]),
        predict(there.base, there.mask, str(folder)),
        predict(there.base, there.mask, file=folder),
    ):
        assert said == [answer | {"score": pytest.approx(answer["score"], rel=1e-5)} for answer in expected]
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in paths:
        Path(path).rename(flat / Path(path).name)
    said = predict(there.base, there.mask, file=flat)
    assert [Path(answer["image"]).name for answer in said] == sorted(Path(path).name for path in paths)
    for wrong, message in {
        "win a prize": "win a prize: no such image",
        str(folder / "red"): f"{folder}/red: no images in it",
        str(folder / "notes.txt"): f"{folder}/notes.txt: cannot be read: ",
    }.items():
        with pytest.raises(MaskhubError, match=f"^{re.escape(message)}") as caught:
            predict(there.base, there.mask, wrong)
        assert type(caught.value) is (MissingError if "prize" in wrong else DataError)
        assert caught.value.hint == (
            "The mask's task reads images: give paths of them, or of folders." if "prize" in wrong else None
        )


def test_a_file_of_examples(make: Make, tmp_path: Path) -> None:
    """Its labels, if there are any, are not looked at."""
    there = make("bert", "BertForSequenceClassification", TOPICS)
    rows = toy.rows(9, 3)
    asked = [row["text"] for row in rows]
    expected = predict(there.base, there.mask, asked)
    bare = toy.write_rows(tmp_path / "bare.jsonl", [{"text": text} for text in asked])
    labelled = toy.write_rows(tmp_path / "labelled.jsonl", [row | {"label": "no class of it"} for row in rows])
    odd = toy.write_rows(tmp_path / "odd.jsonl", [{"body": text, "text": "x"} for text in asked])
    save(there.mask, tmp_path / "task.msk")
    assert predict(str(there.base), str(tmp_path / "task.msk"), file=bare) == expected
    assert predict(open_checkpoint(there.base), tmp_path / "task.msk", file=str(labelled)) == expected
    assert predict(there.base, there.mask, file=odd, columns=Columns(text="body")) == expected
    pairs = toy.write_rows(tmp_path / "pairs.jsonl", [{"premise": text, "hypothesis": "who"} for text in asked])
    assert predict(there.base, there.mask, file=pairs) == predict(there.base, there.mask, [(t, "who") for t in asked])


def test_files_for_other_tasks(make: Make, tmp_path: Path) -> None:
    tags = make("bert", "BertForTokenClassification", ENTITIES)
    rows = toy.tagged(5)
    words, sentences = [row["tokens"] for row in rows], [" ".join(row["tokens"]) for row in rows]
    assert predict(tags.base, tags.mask, file=toy.write_rows(tmp_path / "a.jsonl", rows)) == predict(
        tags.base, tags.mask, words
    )
    (tmp_path / "a.csv").write_text("\n".join(["sentence", *sentences]))
    assert predict(tags.base, tags.mask, file=tmp_path / "a.csv") == predict(tags.base, tags.mask, sentences)
    choice = make("bert", "BertForMultipleChoice")
    asked = [{"prompt": row["prompt"], "choices": row["choices"]} for row in toy.choices(4)]
    assert predict(choice.base, choice.mask, file=toy.write_rows(tmp_path / "b.jsonl", asked)) == predict(
        choice.base, choice.mask, asked
    )
    number = make("bert", "BertForSequenceClassification", ("score",), problem_type="regression")
    (tmp_path / "c.csv").write_text("text\nwho is it\nfree\n")
    assert predict(number.base, number.mask, file=tmp_path / "c.csv") == predict(
        number.base, number.mask, ["who is it", "free"]
    )


def refused(there: tiny.Packed, *args: Any, **options: Any) -> MaskhubError:
    with pytest.raises(MaskhubError) as caught:
        predict(there.base, there.mask, *args, **options)
    return caught.value


def test_what_cannot_be_asked(make: Make, tmp_path: Path) -> None:
    there = make("bert", "BertForSequenceClassification", TOPICS)
    tags, choice = make("bert", "BertForTokenClassification", ENTITIES), make("bert", "BertForMultipleChoice")
    language = make("gpt2", "GPT2LMHeadModel", head="LMHeadModel")
    images = make("vit", "ViTForImageClassification", ("blue", "red"))
    empty, header = tmp_path / "empty.csv", tmp_path / "header.csv"
    empty.write_text("")
    header.write_text("text\n")
    cases: list[tuple[MaskhubError, type, str, str | None]] = [
        (refused(there), ArgumentError, "there is nothing to predict", "Give texts, or a file of examples."),
        (
            refused(there, ["a"], file=empty), ArgumentError,
            "inputs are given, and a file of them, too", "Give the ones or the other.",
        ),
        (refused(there, file=empty), DataError, f"{empty}: the file is empty", None),
        (refused(there, file=header), DataError, f"{header}: no examples in it", None),
        (
            refused(there, ["a", ("b", "c")]), ArgumentError,
            "the mask's task reads texts, or pairs of texts", "Give only the ones, or only the others.",
        ),
        (
            refused(tags, ["a", ["b", "c"]]), ArgumentError,
            "the mask's task reads texts, or lists of their words", "Give only the ones, or only the others.",
        ),
        (
            refused(choice, "who is it"), ArgumentError,
            "'who is it': the mask's task reads a prompt and its choices",
            'Give {"prompt": ..., "choices": [..., ...]}, or a file of them.',
        ),
        (
            refused(choice, [{"prompt": "a", "choices": ["b", "c"]}, {"prompt": "a", "choices": ["b"]}]), DataError,
            "inputs: row 2 has 1 choices, and row 1 has 2", "Give all rows the same number of choices.",
        ),
        (refused(language, [("a", "b")]), ArgumentError, "the mask's task goes on from texts", "Give texts only."),
        (
            refused(images, [3]), ArgumentError,
            "3 is no path", "The mask's task reads images: give paths of them, or of folders.",
        ),
        (refused(there, "a", top_k=0), ArgumentError, "top_k 0: it is 1 or more", None),
        (refused(there, "a", batch_size=-1), ArgumentError, "batch_size -1: it is 1 or more", None),
    ]  # fmt: skip
    for error, kind, message, hint in cases:
        assert type(error) is kind
        assert (error.args[0], error.hint) == (message, hint)


def test_masks_whose_task_cannot_be_asked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    there = make("bert", "BertForSequenceClassification", TOPICS)
    assert there.mask.task is not None
    fill = dataclasses.replace(there.mask, task=msgspec.structs.replace(there.mask.task, type="fill-mask"))
    for mask, message in (
        (dataclasses.replace(there.mask, task=None), "the mask names no task, so it cannot be used to predict"),
        (fill, "the mask is for fill-mask, which cannot be used to predict"),
    ):
        with pytest.raises(FormatError, match=f"^{message}"):
            predict(there.base, mask, "who is it")

    class Mute(tasks.TextClassification):
        given = tasks.TaskType.given

    monkeypatch.setattr(tasks, "of_mask", lambda task, use: Mute())
    with pytest.raises(FormatError, match=r"^the mask is for text-classification, which cannot be asked one by one"):
        predict(there.base, there.mask, "who is it")


def test_it_prints_nothing(make: Make, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    long = " ".join(tiny.WORDS[9:] * 5)
    classes = make("bert", "BertForSequenceClassification", TOPICS)
    tags, choice = make("bert", "BertForTokenClassification", ENTITIES), make("bert", "BertForMultipleChoice")
    language = make("gpt2", "GPT2LMHeadModel", head="LMHeadModel")
    short = {there.base: _cut(there.mask) for there in (classes, tags, choice, language)}
    capfd.readouterr()
    caplog.clear()
    for there in (classes, tags, language):
        assert predict(there.base, short[there.base], [long, "who"], max_new_tokens=3)
    assert predict(choice.base, short[choice.base], {"prompt": long, "choices": ["a", "b"]})
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def _cut(mask: MaskSet) -> MaskSet:
    """With a length that the tiny models can read."""
    assert mask.task is not None
    return dataclasses.replace(mask, task=msgspec.structs.replace(mask.task, max_length=64))
