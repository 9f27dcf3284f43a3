"""Every error MaskHub raises on purpose. Messages are one line: the file, the field, the cure."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class MaskhubError(Exception):
    """Base class. ``hint`` is an optional second sentence: what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def reason(error: BaseException) -> str:
    """The first line of what another library's error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class ArgumentError(MaskhubError, ValueError):
    """An argument or option has a value that it cannot have, or does not go with another one.

    Nothing was read or written; the command line ends with status 2.
    """


class FormatError(MaskhubError):
    """A file is not what its name or header claims: not safetensors, no mask, unknown version."""


class IntegrityError(MaskhubError):
    """Bytes do not match the digest recorded for them."""


class ParentError(MaskhubError):
    """A mask is coded against another one that is not at hand."""


class CodecError(MaskhubError):
    """A codec is unknown, its parameters are wrong, or it cannot code this mask."""


class BaseMismatchError(MaskhubError):
    """A mask meets a base model it was not made for. ``tensors`` names what differs."""

    def __init__(self, message: str, *, tensors: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tensors = tensors


class CheckpointError(MaskhubError):
    """A checkpoint (base or dense) is missing, incomplete or of a kind MaskHub cannot read."""


class RemoteError(MaskhubError):
    """A URL cannot be reached or read, or gives other bytes than it said."""


class MissingError(RemoteError):
    """There is no such file on a remote."""


class ForbiddenError(RemoteError):
    """A remote does not let this user do that. Some say so of files that are missing, too."""


class SignatureError(MaskhubError):
    """A mask's signature is missing or wrong, or a key cannot be used."""


class DataError(MaskhubError):
    """Training or evaluation examples cannot be used as they are."""


class OutputError(MaskhubError):
    """An output cannot be written where it was asked for."""


class TrainingError(MaskhubError):
    """A run cannot start, go on, or be read."""


@contextlib.contextmanager
def damaged(path: Path, kind: str) -> Iterator[None]:
    """What another library raises over a file, as one FormatError: they raise every kind of error over hostile ones."""
    try:
        yield
    except MaskhubError:
        raise
    except Exception as error:
        raise FormatError(f"{path}: damaged, or no {kind}: {reason(error)}") from error


def library(module: str, what: str, cure: str) -> Any:
    """An optional library; MaskhubError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MaskhubError(f"{what} need {name}", hint=f"Install it: pip install {cure}.") from error
