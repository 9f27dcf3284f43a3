"""Keys as people make them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def pair(name: str = "key", *options: str) -> tuple[Path, Path]:
    """A private and a public key, made as the documentation says."""
    openssl("genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem", *options)
    secret = [word.replace("-pass", "-passin") for word in options if "pass" in word]
    openssl("pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub.pem", *secret)
    return Path(f"{name}.pem"), Path(f"{name}.pub.pem")
