"""The program in processes that are forked from one that has imported torch already: real, but quick to start."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from pathlib import Path

from tests.cli.conftest import Ran

MODULES = ["maskhub_cli.app", "maskhub.training.train", "maskhub.runtime.evaluate", "sklearn.metrics", "datasets"]


def maskhub(*arguments: object, timeout: float = 60) -> Ran:
    """Run ``maskhub`` in a process of its own, in the present folder; its streams are no terminals."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)  # counts for the first process only
    streams = [Path(f".{name}-of-{os.getpid()}") for name in ("stdout", "stderr")]
    process = context.Process(target=_main, args=([str(a) for a in arguments], os.getcwd(), streams))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"maskhub {' '.join(map(str, arguments))}")
    out, err = (path.read_text() for path in streams)
    for path in streams:
        path.unlink()
    return Ran(process.exitcode, out, err)


def _main(arguments: list[str], folder: str, streams: list[Path]) -> None:
    os.chdir(folder)
    for path, number in zip(streams, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["maskhub", *arguments]
    from maskhub_cli.main import main

    main()


def error(ran: Ran, status: int = 1) -> str:
    """What a command that failed said: one line, after those on what it had found till then, and nothing else."""
    assert (ran.status, ran.out) == (status, ""), ran.stderr
    *told, last, end = ran.stderr.split("\n")
    assert end == "", ran.stderr
    assert all(re.match("[A-Z][a-z ]+: |Loading |Encoding ", line) for line in told), ran.stderr
    start, _, text = last.partition(": ")
    assert start == "Error", ran.stderr
    assert not any(line.startswith("Error") for line in told), ran.stderr
    return text
