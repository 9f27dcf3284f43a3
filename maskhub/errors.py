"""Every error MaskHub raises on purpose. Messages are one line: the file, the field, the cure.

Each is also the built-in error of its kind, where Python has one. All are pickled and copied whole.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from maskhub.text import printable

# What the extra ``maskhub[NAME]`` brings, as it is imported.
EXTRAS = {"train": ("torch", "transformers", "accelerate", "datasets", "h5py", "PIL", "sklearn", "scipy", "seqeval")}


class MaskhubError(Exception):
    """Base class. ``message`` says what is wrong; ``hint`` is an optional second sentence, the cure.

    ``str`` has both. Where none is given, ``cure`` is the hint. They quote files, so what does not print is escaped.
    """

    cure: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.hint = printable(hint) if hint else self.cure

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


def reason(error: BaseException) -> str:
    """The first line of what another error says, without a cure, and without a full stop: a sentence goes on."""
    if isinstance(error, MaskhubError):
        return error.message
    return (str(error).strip(" .\n") or type(error).__name__).splitlines()[0].rstrip(" .")


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of many names, and how many there are besides."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class ArgumentError(MaskhubError, ValueError):
    """An argument or option has a value that it cannot have, or does not go with another one.

    Nothing was read or written; the command line ends with status 2.
    """


def check_choice(what: str, value: object, choices: Collection[str]) -> None:
    """ArgumentError with the ``choices`` unless ``value`` is one of them; ``what`` names the option."""
    if value not in choices:
        raise ArgumentError(f"{what}: there is no {value!r:.100}", hint=f"It is one of: {', '.join(choices)}.")


class MissingError(MaskhubError, FileNotFoundError):
    """There is no such file or folder, here or on a remote."""


class ForbiddenError(MaskhubError, PermissionError):
    """A file, folder or remote does not let this user do that. Some remotes say so of files that are missing, too."""


class FormatError(MaskhubError, ValueError):
    """A file is not what its name or header claims: not safetensors, no mask, unknown version."""


class IntegrityError(MaskhubError, ValueError):
    """Bytes do not match the digest recorded for them."""

    cure = "Get the file again from where it came."


class ParentError(MaskhubError, LookupError):
    """A mask is coded against another one that is not at hand."""


class CodecError(MaskhubError, ValueError):
    """A codec is unknown, its parameters are wrong, or it cannot code this mask."""


class BaseMismatchError(MaskhubError, ValueError):
    """A mask meets a base model it was not made for. ``tensors`` names what differs."""

    def __init__(self, message: str, *, tensors: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tensors = tensors


class BaseChangedError(MaskhubError, RuntimeError):
    """Live weights that tasks share were changed, moved or cast by somebody else."""


class UnknownTaskError(MaskhubError, LookupError):
    """No task of this name is live."""


class CheckpointError(MaskhubError, ValueError):
    """A checkpoint (base or dense) is incomplete or of a kind MaskHub cannot read."""


class RemoteError(MaskhubError, OSError):
    """A URL cannot be reached or read, or gives other bytes than it said."""


class SignatureError(MaskhubError, ValueError):
    """A mask's signature is missing or wrong, or a key cannot be used."""


class OutOfMemoryError(MaskhubError, MemoryError):
    """There is not enough memory, of the machine or of an accelerator. No file is to blame."""

    cure = "Free some, or take a machine with more."


class DataError(MaskhubError, ValueError):
    """Training or evaluation examples cannot be used as they are."""


class OutputError(MaskhubError, OSError):
    """An output cannot be written where it was asked for."""


class ExistsError(OutputError, FileExistsError):
    """There is something already where an output was asked for."""


class LibraryError(MaskhubError, ImportError):
    """An optional library is missing."""


class TrainingError(MaskhubError):
    """A run cannot start, go on, or be read."""


def same_kind(error: BaseException, otherwise: type[MaskhubError]) -> type[MaskhubError]:
    """The error of ours for what the system says of a file or folder; ``otherwise`` where there is none of its own."""
    kinds = {FileNotFoundError: MissingError, PermissionError: ForbiddenError, FileExistsError: ExistsError}
    return next((ours for kind, ours in kinds.items() if isinstance(error, kind)), otherwise)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, perhaps torch's, says that there is not enough memory."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (
            type(error).__name__ == "OutOfMemoryError"
            or re.search("allocate memory|out of memory", str(error)) is not None
        )
    )


@contextlib.contextmanager
def damaged(path: Path, kind: str) -> Iterator[None]:
    """What another library raises over a file, as one FormatError: they raise every kind of error over hostile ones."""
    try:
        yield
    except MaskhubError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise same_kind(error, FormatError)(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        if out_of_memory(error):
            raise OutOfMemoryError(f"{path}: not enough memory to read it") from error
        raise FormatError(f"{path}: damaged, or no {kind}: {reason(error)}") from error


def library(module: str, what: str, cure: str) -> Any:
    """An optional library; LibraryError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise LibraryError(f"{what} need {name}", hint=f"Install it: pip install {cure}.") from error


@contextlib.contextmanager
def extra(name: str, what: str = "this") -> Iterator[None]:
    """A LibraryError that names the extra to install, where a library of it is missing.

    It is for imports in the block, or in the function that this decorates.
    """
    try:
        yield
    except LibraryError:
        raise
    except ImportError as error:
        told = f"{error.name} {error}"  # transformers names what it lacks in words
        asked = (module for module in EXTRAS[name] if re.search(rf"\b{module}\b", told, re.IGNORECASE))
        missing = next((module for module in asked if importlib.util.find_spec(module) is None), None)
        if missing is None:  # another one, of whoever is called inside
            raise
        raise LibraryError(f"{what} needs {missing}", hint=f"Install it: pip install 'maskhub[{name}]'.") from error
