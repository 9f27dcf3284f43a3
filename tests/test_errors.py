from __future__ import annotations

import copy
import errno
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import maskhub
from maskhub import errors
from maskhub.errors import (
    ArgumentError,
    BaseMismatchError,
    CodecError,
    DataError,
    ExistsError,
    ForbiddenError,
    FormatError,
    IntegrityError,
    LibraryError,
    MaskhubError,
    MissingError,
    OutOfMemoryError,
    OutputError,
    RemoteError,
    damaged,
    extra,
    out_of_memory,
    reason,
    same_kind,
)

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MaskhubError)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_error_says_has_the_cure_and_survives_pickling_and_copying(kind: type[MaskhubError]) -> None:
    error = kind("a.msk: damaged", hint="Get it anew.")
    for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(same) is kind
        assert str(same) == "a.msk: damaged. Get it anew."
        assert (same.message, same.hint, same.args) == ("a.msk: damaged", "Get it anew.", ("a.msk: damaged",))
    assert kind("a.msk: damaged").hint == kind.cure
    assert reason(error) == "a.msk: damaged"


def test_what_is_damaged_has_a_cure_where_none_is_given() -> None:
    assert str(MaskhubError("a.msk: odd")) == "a.msk: odd"
    assert str(IntegrityError("a.msk: damaged")) == "a.msk: damaged. Get the file again from where it came."


def test_a_hint_that_comes_later_is_said() -> None:
    error = MissingError("a.msk: no such file")
    error.hint = "Name another."
    assert str(error) == "a.msk: no such file. Name another."


def test_the_tensors_of_a_mismatch_survive_pickling() -> None:
    error = BaseMismatchError("x", tensors=("a", "b"), hint="y")
    assert pickle.loads(pickle.dumps(error)).tensors == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ArgumentError, ValueError),
        (FormatError, ValueError),
        (IntegrityError, ValueError),
        (CodecError, ValueError),
        (DataError, ValueError),
        (BaseMismatchError, ValueError),
        (MissingError, FileNotFoundError),
        (ForbiddenError, PermissionError),
        (ExistsError, FileExistsError),
        (ExistsError, OutputError),
        (OutputError, OSError),
        (RemoteError, OSError),
        (LibraryError, ImportError),
    ],
)
def test_each_is_the_built_in_of_its_kind(kind: type[MaskhubError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match=r"^what\. Cure\.$"):
        raise kind("what", hint="Cure.")


def test_what_the_system_says_keeps_its_kind() -> None:
    assert same_kind(OSError(errno.ENOENT, "x"), OutputError) is MissingError
    assert same_kind(OSError(errno.EACCES, "x"), OutputError) is ForbiddenError
    assert same_kind(OSError(errno.EEXIST, "x"), OutputError) is ExistsError
    assert same_kind(OSError(errno.ENOSPC, "x"), OutputError) is OutputError


def test_of_a_damaged_file_what_is_ours_passes_and_all_else_is_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for raised in (ArgumentError("ours"), RemoteError("ours")):
        with pytest.raises(type(raised), match=r"^ours$"), damaged(path, "npz file"):
            raise raised
    with pytest.raises(FormatError, match=f"^{path}: damaged, or no npz file: 'k'$"), damaged(path, "npz file"):
        raise KeyError("k")
    with pytest.raises(MissingError, match=f"^{path}: cannot be read: No such file"), damaged(path, "npz file"):
        path.read_bytes()


def test_files_that_are_missing_are_file_not_found_errors(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for attempt in (
        lambda: maskhub.open(absent),
        lambda: maskhub.open_checkpoint(str(absent)),
        lambda: maskhub.open_checkpoint(tmp_path),
        lambda: maskhub.open("memory://absent.msk"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            attempt()
        assert isinstance(caught.value, MaskhubError)


@pytest.mark.skipif("os.geteuid() == 0", reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_permission_error(mask_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.msk"
    path.write_bytes(mask_path.read_bytes())
    path.chmod(0)
    with pytest.raises(PermissionError, match="cannot be read"):
        maskhub.open(path)


def test_without_a_library_of_an_extra_its_name_is_told() -> None:
    @extra("train", "training")
    def train(module: str) -> None:
        __import__(module)

    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_module'$"):
        train("no_such_module")  # all of the extra is here: it is none of its libraries
    script = (
        "import sys; sys.modules['seqeval'] = None\n"
        "from maskhub.errors import extra\n"
        "try:\n"
        "    with extra('train', 'training'): raise ImportError('the callback needs a plugin')\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )  # one of the extra is missing, and something else of whoever is called inside
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "ImportError the callback needs a plugin\n"
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from maskhub.errors import MaskhubError, extra\n"
        "try:\n"
        "    with extra('train', 'training'): import torch.nn\n"
        "except ImportError as error: print(isinstance(error, MaskhubError), error)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "True training needs torch. Install it: pip install 'maskhub[train]'.\n"


def test_out_of_memory_blames_no_file() -> None:
    """As NumPy says it, and as torch does."""
    import numpy as np

    torch = pytest.importorskip("torch")
    for allocate in (lambda: np.empty(1 << 62, np.uint8), lambda: torch.empty(1 << 60)):
        with pytest.raises(MemoryError) as caught, damaged(Path("x.h5"), "HDF5 file"):
            allocate()
        assert isinstance(caught.value, OutOfMemoryError)
        assert str(caught.value) == "x.h5: not enough memory to read it. Free some, or take a machine with more."
    for error in (
        ValueError("out of memory"),
        RuntimeError("it does not fit"),
        OSError("cannot allocate memory"),
    ):
        assert not out_of_memory(error)


def test_another_errors_full_stop_does_not_stand_twice() -> None:
    assert reason(ValueError("404 Client Error.\n\nDetails.")) == "404 Client Error"
    assert reason(OSError()) == "OSError"
    assert reason(ValueError(" . ")) == "ValueError"
    assert str(MissingError(f"x: {reason(OSError('Not found.'))}", hint="Look.")) == "x: Not found. Look."


def test_what_does_not_print_is_escaped() -> None:
    error = FormatError("a\x1b[31m\n.msk: damaged\u202e", hint="b\x07")
    assert (error.message, error.hint) == ("a\\x1b[31m\\n.msk: damaged\\u202e", "b\\x07")
    assert str(copy.copy(error)) == str(pickle.loads(pickle.dumps(error))) == str(error)
