"""What MaskHub costs, measured beside what else could be used. Run with ``python -m benchmarks``."""
