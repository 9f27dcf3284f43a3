"""Masking beside full finetuning and LoRA, on the same tasks: ``python -m benchmarks.accuracy --help``."""
