"""Opens and verifies files in little memory: ``python -m tests.attacks.judge MEMORY PARENT FILE...``.

Prints a line of JSON for each file: what was raised, the most memory used so far, the seconds it took.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from maskhub.container.reader import MaskFile
from maskhub.errors import MaskhubError


def main(memory: int, parent: str, *paths: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for path in paths:
        start = time.monotonic()
        try:
            MaskFile(path, [parent]).verify()
            error, clean = "", False
        except MaskhubError as caught:
            error, clean = f"{type(caught).__name__}: {caught}", True
        except BaseException as caught:  # what a decoder of another library may raise
            error, clean = f"{type(caught).__name__}: {caught}", False
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        verdict = {"error": error, "clean": clean, "peak": peak, "seconds": time.monotonic() - start}
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
