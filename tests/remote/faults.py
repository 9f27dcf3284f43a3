"""``python -m tests.remote.faults [N]``: N pulls and pushes while requests fail at random and processes are killed.

After each one, whatever the Hub and the cache then have must be whole: files on the Hub are those that were pushed, and
a mask that a later command accepts has the right content. Each must succeed when it is run again without faults.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from maskhub.container.reader import MaskFile
from maskhub.container.writer import save
from tests import tiny
from tests.remote.conftest import TestHub, start

CHANCE = 0.2  # that a request fails
NAMES = ("a", "b", "c")


def main(count: int, seed: int = 0) -> Counter[str]:
    """Run it; how it went, in numbers. AssertionError where something is wrong."""
    chance = random.Random(seed)
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as hub:
        base = tiny.write_base(hub.folder / "base")
        for i in range(6):
            save(tiny.tiny_maskset(base, seed=i), hub.folder / f"m{i}.msk")
        contents = [(hub.folder / f"m{i}.msk").read_bytes() for i in range(6)]
        for name in NAMES:
            assert hub("push", "m0.msk", "alice/masks", "--name", name).status == 0
        for step in range(count):
            name, which = chance.choice(NAMES), chance.randrange(len(contents))
            if chance.random() < 0.5:
                command = ["push", f"m{which}.msk", "alice/masks", "--name", name, "--force"]
            else:
                command = ["pull", f"alice/masks/{name}", "-o", "out.msk", "--force"]
                if chance.random() < 0.7:  # else perhaps from the cache
                    for blob in hub.folder.glob("hf/hub/models--*/blobs/*"):
                        blob.unlink()
            before = masks(hub)
            hub.control(chance=CHANCE, seed=chance.random())
            tally[f"{command[0]} {attempt(hub, command, chance)}"] += 1
            hub.control(chance=0.0, clear=True)
            wanted = before | {name: contents[which]} if command[0] == "push" else before
            assert masks(hub) in (before, wanted), (step, command)
            check_here(hub, contents)
            ran = hub(*command)
            assert ran.status == 0, (step, command, ran.stderr)
            assert masks(hub) == wanted, (step, command)
            check_here(hub, contents)
            if command[0] == "pull":
                assert (hub.folder / "out.msk").read_bytes() == before[name], (step, command)
    return tally


def masks(hub: TestHub) -> dict[str, bytes]:
    """What the Hub has, by name."""
    files = hub.files("alice/masks").items()
    return {name.removesuffix(".msk"): content for name, content in files if name.endswith(".msk")}


def attempt(hub: TestHub, command: list[str], chance: random.Random) -> str:
    """The command as a program, perhaps killed; how it ended."""
    line = [sys.executable, "-m", "maskhub_cli", *command]
    with subprocess.Popen(line, cwd=hub.folder, env=hub.environment(), stdout=-1, stderr=-1, text=True) as running:
        try:
            _, err = running.communicate(timeout=chance.uniform(0.5, 4.0) if chance.random() < 0.5 else 60)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
            time.sleep(0.2)  # the server may still be at work on what was asked
            return "killed"
    assert (err.count("\n"), "Traceback" in err) == (1, False), err
    return "failed" if running.returncode else "succeeded"


def check_here(hub: TestHub, contents: list[bytes]) -> None:
    """No file here that counts as a mask is half or wrong."""
    if (out := hub.folder / "out.msk").exists():
        MaskFile(out).verify()
        assert out.read_bytes() in contents
    for blob in hub.folder.glob("hf/hub/models--*/blobs/*"):
        if len(blob.name) == 64:  # a mask, called by its SHA-256
            assert blob.read_bytes() in contents, blob


if __name__ == "__main__":
    for what, times in sorted(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200).items()):
        print(f"{times:5}  {what}")
