"""Base and dense checkpoints on disk."""
