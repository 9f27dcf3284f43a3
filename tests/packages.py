"""Small packages as pip leaves them, and pip itself, for what other packages bring."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_package(
    folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], files: Mapping[str, str]
) -> Path:
    """A package in ``folder``, with entry points by their group and name, and modules by their path."""
    module = name.replace("-", "_")
    groups = (
        f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in found.items()) for group, found in entry_points.items()
    )
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "WHEEL": WHEEL,
        "entry_points.txt": "\n".join(groups),
    }
    whole = {**files, **{f"{module}-1.0.dist-info/{part}": text for part, text in about.items()}}
    record = f"{module}-1.0.dist-info/RECORD"
    for path, text in {**whole, record: "".join(f"{path},,\n" for path in (*whole, record))}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def install(package: Path, name: str, target: Path) -> None:
    """``pip install`` a package that ``write_package`` wrote."""
    wheel = package.parent / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path in package.rglob("*"):
            file.write(path, path.relative_to(package))
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", target, wheel], check=True)
