"""Each kind of task on the families of models: trained, packed, applied, loaded, with the same logits bit for bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

import maskhub
from maskhub import tasks
from maskhub.checkpoints.checkpoint import open_checkpoint
from maskhub.container.reader import open_mask
from maskhub.errors import ArgumentError, CheckpointError, FormatError, MaskhubError, TrainingError
from maskhub.runtime.evaluate import evaluate
from maskhub.runtime.load import load_processor
from maskhub.tasks.data import read_file
from maskhub.training.loop import TrainResult
from maskhub.training.settings import TrainSettings
from maskhub.training.train import learn
from tests import tiny, toy

ROWS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "text-classification": toy.rows,
    "token-classification": toy.tagged,
    "multiple-choice": toy.choices,
    "regression": toy.scored,
    "text-generation": toy.spoken,
}
# Family, how its base's class ends, task, and the end of the task model's class.
CASES = [
    ("bert", "Model", "token-classification", "BertForTokenClassification"),
    ("bert", "Model", "multiple-choice", "BertForMultipleChoice"),
    ("bert", "Model", "regression", "BertForSequenceClassification"),
    ("roberta", "Model", "token-classification", "RobertaForTokenClassification"),
    ("distilbert", "Model", "multiple-choice", "DistilBertForMultipleChoice"),
    ("electra", "Model", "text-classification", "ElectraForSequenceClassification"),
    ("electra", "Model", "token-classification", "ElectraForTokenClassification"),
    ("albert", "Model", "text-classification", "AlbertForSequenceClassification"),
    ("albert", "Model", "multiple-choice", "AlbertForMultipleChoice"),
    ("gpt2", "Model", "text-classification", "GPT2ForSequenceClassification"),
    ("gpt2", "LMHeadModel", "text-generation", "GPT2LMHeadModel"),
    ("gpt2", "Model", "token-classification", "GPT2ForTokenClassification"),
    ("llama", "ForCausalLM", "text-generation", "LlamaForCausalLM"),
    ("llama", "ForCausalLM", "text-classification", "LlamaForSequenceClassification"),
    ("t5", "ForConditionalGeneration", "text-classification", "T5ForSequenceClassification"),
    ("t5", "ForConditionalGeneration", "token-classification", "T5ForTokenClassification"),
    ("vit", "Model", "image-classification", "ViTForImageClassification"),
]  # fmt: skip
LIVELY = {"t5": {"initializer_factor": 2.0}}  # of larger weights than usual, so that masking changes what they say


class Trained(NamedTuple):
    base: Path
    task: str
    architecture: str
    settings: TrainSettings
    result: TrainResult


def write_task(folder: Path, task: str, count: int = 48) -> dict[str, str]:
    """Files to train and to evaluate on."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = {"train_file": ("train", count, 0), "eval_file": ("eval", 24, 1)}
    if task == "image-classification":
        return {f: str(toy.write_images(folder / name, size, seed)) for f, (name, size, seed) in sets.items()}
    return {
        f: str(toy.write_rows(folder / f"{name}.jsonl", ROWS[task](size, seed=seed)))
        for f, (name, size, seed) in sets.items()
    }


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    family, head, task, architecture = request.param
    folder = tmp_path_factory.mktemp("tasks")
    more = LIVELY.get(family, {"initializer_range": 0.1})
    base = tiny.tiny_model(family, folder / "base", head=head, **more)
    settings = toy.settings(base, folder, classifier="dense", epochs=1.0, **write_task(folder / "task", task))
    return Trained(base, task, architecture, settings, learn(settings, folder / "run"))


def test_the_task_is_found_and_recorded(trained: Trained) -> None:
    mask = open_mask(trained.result.mask)
    kind = tasks.REGISTRY[trained.task]
    assert mask.task is not None
    assert (mask.task.type, mask.task.architecture) == (kind.type, trained.architecture)
    assert tasks.of_mask(mask.task) is kind
    assert set(kind.metrics(tasks.label_names(mask.task))) | {"loss"} == set(mask.metrics) - {"majority_accuracy"}
    assert len(mask.masks) >= 4
    assert not [name for name in mask.masks if "embed" in name or "lm_head" in name]


def test_all_ways_give_the_trained_models_logits(trained: Trained, tmp_path: Path) -> None:
    """In memory after training, from the dense checkpoint by plain transformers, and from base and mask."""
    base, mask = open_checkpoint(trained.base), open_mask(trained.result.mask)
    dense = tiny.build(base, mask, tmp_path / "dense")
    plain, report = getattr(transformers, trained.architecture).from_pretrained(dense, output_loading_info=True)
    assert not any(report.values()), report
    loaded = maskhub.load_model(base, mask)
    kind = tasks.REGISTRY[trained.task]
    examples = read_file(str(trained.settings.eval_file), task=trained.task)
    processor = load_processor(base, mask)
    rows = kind.encode(examples, processor, examples.label_names, 32)
    chosen = [{key: value for key, value in rows[i].items() if key != "length"} for i in range(min(6, len(rows)))]
    batch = kind.collator(processor)(chosen)
    batch.pop("labels")
    with torch.inference_mode():
        # Copied: transformers leaves weights at odd addresses of the file, where dot products may round otherwise.
        logits = [model(**batch).logits for model in (trained.result.model, copy.deepcopy(plain).eval(), loaded)]
    assert torch.isfinite(logits[0]).all()
    assert logits[0].numpy().tobytes() == logits[1].numpy().tobytes() == logits[2].numpy().tobytes()


def test_evaluate_agrees_with_the_run(trained: Trained) -> None:
    examples = read_file(str(trained.settings.eval_file), task=trained.task)
    (metrics,) = evaluate(trained.base, open_mask(trained.result.mask), examples)
    expected = {name: value for name, value in trained.result.metrics.items() if name != "loss"}
    assert metrics == pytest.approx(expected, rel=1e-5)  # batches of another size may round otherwise


def test_the_pipeline_of_the_task(trained: Trained) -> None:
    if trained.task == "multiple-choice":
        with pytest.raises(FormatError, match=r"^transformers has no pipeline for multiple choice\. "):
            maskhub.pipeline(trained.result.mask, trained.base)
        return
    pipe = maskhub.pipeline(trained.result.mask, trained.base)
    assert pipe.task == tasks.REGISTRY[trained.task].type
    if trained.task == "text-generation":
        (said,) = pipe("who is the", max_new_tokens=3, do_sample=False)
        assert said["generated_text"].startswith("who is the")
        return
    if trained.task == "image-classification":
        image = next(Path(str(trained.settings.eval_file)).rglob("*.png"))
        assert {entry["label"] for entry in pipe(str(image))} == {"red", "blue"}
        return
    said = pipe("who is the man")
    if trained.task == "token-classification":
        assert {entry["entity"] for entry in said} <= set(tasks.label_names(open_mask(trained.result.mask).task))
    elif trained.task == "regression":
        model, tokenizer = maskhub.load_model(trained.base, trained.result.mask), pipe.tokenizer
        with torch.inference_mode():
            (number,) = model(**tokenizer("who is the man", return_tensors="pt")).logits[0].tolist()
        assert said == [{"label": "score", "score": pytest.approx(number, rel=1e-5)}]
    else:
        assert said[0]["label"] in ("film", "spam")


LEARNED = {
    "token-classification": ("bert", "f1", 0.8),
    "multiple-choice": ("bert", "accuracy", 0.8),
    "regression": ("bert", "spearman_correlation", 0.8),
    "image-classification": ("vit", "accuracy", 0.9),
}


@pytest.mark.parametrize("task", LEARNED)
def test_it_learns(task: str, tmp_path: Path) -> None:
    family, metric, least = LEARNED[task]
    base = tiny.tiny_model(family, tmp_path / "base", initializer_range=0.1)
    given = {"classifier": "dense", "learning_rate": 3e-2, "epochs": 10.0, "eval_steps": 60}
    settings = toy.settings(base, tmp_path, **given, **write_task(tmp_path / "task", task, 64))
    assert learn(settings, tmp_path / "run").metrics[metric] > least


def test_a_language_model_learns(tmp_path: Path) -> None:
    base = tiny.tiny_model("gpt2", tmp_path / "base", head="LMHeadModel", initializer_range=0.3)
    given = {"learning_rate": 1e-2, "epochs": 10.0, "eval_steps": 5}
    settings = toy.settings(base, tmp_path, **given, **write_task(tmp_path / "task", "text-generation", 64))
    result = learn(settings, tmp_path / "run")
    history = json.loads((result.folder / "metrics.json").read_text())["history"]
    found = [entry["eval_perplexity"] for entry in history if "eval_perplexity" in entry]
    assert result.metrics["perplexity"] == min(found) < 0.5 * found[0]


def test_the_metric_picks_the_best_evaluation(tmp_path: Path) -> None:
    """Of evaluations that differ, each metric's own best is kept: for the loss and the error the least."""
    base = tiny.tiny_model("bert", tmp_path / "base", initializer_range=0.1)
    files = write_task(tmp_path / "task", "regression")
    for metric, best in {"pearson_correlation": max, "mse": min, "loss": min}.items():
        settings = toy.settings(base, tmp_path, **files, metric=metric, eval_steps=2, learning_rate=3e-2, seed=3)
        result = learn(settings, tmp_path / metric)
        history = json.loads((result.folder / "metrics.json").read_text())["history"]
        found = [entry[f"eval_{metric}"] for entry in history if f"eval_{metric}" in entry]
        assert len(set(found)) > 2
        assert result.metrics[metric] == pytest.approx(best(found))


def refused(settings: TrainSettings, output: Path) -> MaskhubError:
    """The error of a run that must not start, which writes nothing."""
    with pytest.raises(MaskhubError) as caught:
        learn(settings, output)
    assert "\n" not in str(caught.value)
    assert not output.exists()
    return caught.value


def test_metrics_and_tasks_that_there_are_not(bert: Path, task: Path, tmp_path: Path) -> None:
    error = refused(toy.settings(bert, task, metric="bleu"), tmp_path / "run")
    assert error.message == "training settings: metric: text-classification has no 'bleu'"
    assert error.hint == "It has: accuracy, f1, matthews_correlation, f1_film, f1_spam, loss."
    with pytest.raises(ArgumentError) as caught:
        toy.settings(bert, task, task="translation")
    assert caught.value.message == "training settings: task: there is no 'translation'"
    assert caught.value.hint == f"It is one of: {', '.join(tasks.REGISTRY)}."


def test_bases_that_cannot_do_the_task(bert: Path, tmp_path: Path) -> None:
    files = write_task(tmp_path / "task", "text-generation")
    error = refused(toy.settings(bert, tmp_path, **files), tmp_path / "run")
    assert isinstance(error, CheckpointError)
    assert error.message == f"{bert}: cannot be loaded for text-generation: it reads each text in both directions"
    gpt2 = tiny.tiny_model("gpt2", tmp_path / "gpt2")
    files = write_task(tmp_path / "choice", "multiple-choice")
    error = refused(toy.settings(gpt2, tmp_path, **files), tmp_path / "run")
    assert str(error).startswith(f"{gpt2}: cannot be loaded for multiple-choice: Unrecognized configuration class ")
    files = write_task(tmp_path / "images", "image-classification")
    error = refused(toy.settings(bert, tmp_path, **files), tmp_path / "run")
    assert str(error).startswith(f"{bert}: its image processor cannot be loaded: ")
    assert error.hint == "Put the model's preprocessor_config.json beside it."


def test_a_base_that_lacks_layers_of_the_task(tmp_path: Path) -> None:
    base = tiny.tiny_model("t5", tmp_path / "base", head="EncoderModel")
    files = write_task(tmp_path / "task", "text-classification")
    error = refused(toy.settings(base, tmp_path, **files), tmp_path / "run")
    assert isinstance(error, TrainingError)
    assert error.message == (
        f"{base}: holds no transformer.decoder.block.0.layer.0.SelfAttention.k.weight, which "
        "T5ForSequenceClassification needs"
    )


def test_what_pads_a_tokenizer_without_padding(tmp_path: Path) -> None:
    """The end of a text does; the mask records it, and the dense checkpoint's configuration holds it."""
    base = tiny.tiny_model("gpt2", tmp_path / "base")
    settings = toy.settings(base, tmp_path, **write_task(tmp_path / "task", "text-classification"))
    mask = open_mask(learn(settings, tmp_path / "run").mask)
    end = transformers.AutoTokenizer.from_pretrained(base).eos_token_id
    assert mask.task is not None
    assert mask.task.config["pad_token_id"] == end
    assert load_processor(open_checkpoint(base), mask).pad_token_id == end
    dense = tiny.build(open_checkpoint(base), mask, tmp_path / "dense")
    assert json.loads((dense / "config.json").read_text())["pad_token_id"] == end


def test_tied_weights_stay_tied_and_unmasked(tmp_path: Path) -> None:
    base = tiny.tiny_model("gpt2", tmp_path / "base", head="LMHeadModel")
    settings = toy.settings(base, tmp_path, **write_task(tmp_path / "task", "text-generation"))
    result = learn(settings, tmp_path / "run")
    mask = open_mask(result.mask)
    assert not [name for name in mask.masks if "wte" in name or "lm_head" in name]
    assert not mask.dense
    dense = tiny.build(open_checkpoint(base), mask, tmp_path / "dense")
    model = transformers.AutoModelForCausalLM.from_pretrained(dense)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_albert_masks_its_shared_layers_once(tmp_path: Path) -> None:
    base = tiny.tiny_model("albert", tmp_path / "base", layers=3)
    settings = toy.settings(base, tmp_path, **write_task(tmp_path / "task", "text-classification"))
    mask = open_mask(learn(settings, tmp_path / "run").mask)
    place = "encoder.albert_layer_groups.0.albert_layers.0."
    names = ("attention.query", "attention.key", "attention.value", "attention.dense", "ffn", "ffn_output")
    assert {f"{place}{name}.weight" for name in names} <= set(mask.masks)
    assert {name for name in mask.masks if not name.startswith(place)} == {"pooler.weight"}
