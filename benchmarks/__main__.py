"""``python -m benchmarks [NAME ...] [--json FILE]``: run benchmarks and print what they measured.

A benchmark is a module of this package with ``run(report)``; add its name to ``BENCHMARKS``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.report import Report

BENCHMARKS = ("codecs", "startup", "trained", "patterns", "dense", "durability", "training", "sizes", "algebra", "live")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run MaskHub's benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers, versions and machine here")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="data sets, one folder each, for live: sst2, trec, ..."
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    report = Report(arguments.data)
    for name in arguments.names or BENCHMARKS:
        report.start(name)
        importlib.import_module(f"benchmarks.{name}").run(report)
    report.summary()
    if arguments.json:
        report.write(arguments.json)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
