"""Fixtures that the whole suite shares. The session's checkpoints are for reading: copy one before changing it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test may need the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: torch's threads would only wait for each other
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="maskhub-tests-")

import pytest
from hypothesis import settings

from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.container.writer import save
from maskhub.masks.mask import MaskSet
from tests import tiny

atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
settings.register_profile("maskhub", max_examples=60, deadline=None)
settings.load_profile("maskhub")
# Who starts the tests in the background, or by nohup, has signals ignored, also in the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny float32 checkpoint with BERT's tensor names, made without torch."""
    return tiny.write_base(tmp_path_factory.mktemp("base") / "tiny-bert")


@pytest.fixture(scope="session")
def base(base_folder: Path) -> Checkpoint:
    return open_checkpoint(base_folder)


@pytest.fixture(scope="session")
def maskset(base: Checkpoint) -> MaskSet:
    """A task on ``base``: masks, a dense head, labels."""
    return tiny.tiny_maskset(base)


@pytest.fixture(scope="session")
def mask_path(maskset: MaskSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``maskset`` as a ``.msk`` file."""
    path = tmp_path_factory.mktemp("mask") / "task.msk"
    save(maskset, path)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``base``, a small BERT, and ``x`` and ``y``, runs on it with the defaults of ``train``.

    They began with the same mask. Their tasks differ, and so do their heads.
    """
    pytest.importorskip("torch")
    import maskhub
    from tests import toy

    folder = tmp_path_factory.mktemp("trained")
    base = tiny.tiny_model("bert", folder / "base", hidden_size=64, intermediate_size=256)
    for name, classes in (("x", 2), ("y", 3)):
        train_file, eval_file = toy.write_task(folder / f"task-{name}", classes)
        maskhub.train(base, folder / name, train_file=train_file, eval_file=eval_file, max_length=32, batch_size=4)
    return folder


def _model(family: str, factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return tiny.tiny_model(family, factory.mktemp("models") / f"tiny-{family}")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that transformers made and can load, with a tokenizer."""
    return _model("bert", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model("roberta", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model("distilbert", tmp_path_factory)
