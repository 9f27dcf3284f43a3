"""What a mask says of its task never runs code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.errors import CheckpointError, FormatError
from maskhub.masks.mask import MaskSet
from tests import tiny


@pytest.fixture(scope="module")
def base(tiny_bert: Path) -> Checkpoint:
    return open_checkpoint(tiny_bert)


def task(base: Checkpoint, **changes: Any) -> MaskSet:
    maskset = tiny.tiny_maskset(base)
    assert maskset.task is not None
    changes["config"] = maskset.task.config | changes.get("config", {})
    return dataclasses.replace(maskset, task=msgspec.structs.replace(maskset.task, **changes))


CODE: dict[str, Any] = {
    "auto_map": {"AutoModel": "evil/repo--code.Model", "AutoConfig": "code.Config", "AutoTokenizer": ["code.T", None]},
    "custom_pipelines": {"text-classification": {"impl": "code.Pipeline", "pt": ["BertModel"]}},
    "attn_implementation": "evil/kernel",
    "_attn_implementation": "evil/kernel",
    "experts_implementation": "evil/kernel",
}


def test_keys_that_name_code_do_not_pass(base: Checkpoint, tmp_path: Path) -> None:
    from maskhub.runtime.load import load_model

    hostile = task(base, config=CODE)
    model = load_model(base, hostile)
    assert type(model).__module__ == "transformers.models.bert.modeling_bert"
    assert not {"auto_map", "custom_pipelines"} & model.config.to_dict().keys()
    assert model.config._attn_implementation in ("sdpa", "eager")
    written = json.loads((tiny.build(base, hostile, tmp_path / "out") / "config.json").read_text())
    assert not CODE.keys() & written.keys()
    assert written["id2label"] == {"0": "ham", "1": "spam"}


@pytest.mark.parametrize(
    "name",
    ["PreTrainedModel", "models", "pipeline", "BertConfig", "AutoModelForSequenceClassification", "", "../x",
     "os.system", "__builtins__", "__class__", "BertForSequenceClassification\n", "x" * 100_000],
)  # fmt: skip
def test_only_model_classes_of_transformers_are_loaded(base: Checkpoint, name: str) -> None:
    from maskhub.runtime.load import load_model

    with pytest.raises(FormatError, match="is no model class of transformers"):
        load_model(base, task(base, architecture=name))


@pytest.mark.parametrize(
    "config",
    [{"hidden_size": "x"}, {"hidden_size": 8}, {"num_hidden_layers": -1}, {"id2label": 5},
     {"hidden_act": "os.system"}, {"__class__": "x"}, {"to_dict": 3}, {"num_attention_heads": 0},
     {"vocab_size": 1 << 50}],
    ids=str,
)  # fmt: skip
def test_configurations_that_fit_no_model(base: Checkpoint, config: dict[str, Any]) -> None:
    from maskhub.runtime.load import load_model

    with pytest.raises(FormatError, match="the mask does not fit BertForSequenceClassification: "):
        load_model(base, task(base, config=config))


def test_tokenizers_bring_no_code(base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskhub.runtime.load import load_processor

    def ask(*_: object) -> str:
        raise AssertionError("a question whether to trust")

    monkeypatch.setattr("builtins.input", ask)
    (tmp_path / "code.py").write_text("open(__file__ + '.ran', 'w')\nclass T: ...\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.T", None]}}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "code.T"}}))
    for tokenizer in (str(tmp_path), "/etc/passwd", "../../x", "evil/repo", "\0"):
        with pytest.raises(CheckpointError, match="its tokenizer cannot be loaded"):
            load_processor(base, task(base, tokenizer=tokenizer))
    assert not list(tmp_path.glob("*.ran"))
