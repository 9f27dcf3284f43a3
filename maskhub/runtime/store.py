"""Tasks by their names on one base: their masks, models and weights, and which of them is live."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from transformers import PreTrainedModel

from maskhub.checkpoints.apply import check_structure, mismatch
from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.checkpoints.scan import digests
from maskhub.container.codecs.drift import Draws
from maskhub.container.reader import read_mask
from maskhub.errors import ArgumentError, FormatError, MaskhubError, UnknownTaskError, listed
from maskhub.masks.mask import MaskSet
from maskhub.runtime.decoded import Decoded
from maskhub.runtime.dropped import Changes
from maskhub.runtime.load import check_placing
from maskhub.runtime.shared import Shared
from maskhub.runtime.switch import LiveWeights
from maskhub.runtime.threads import Threads
from maskhub.storage.size import parse_size

BASE = "__base__"  # the name of rows of a batch that no task is for
MEMORY = "256MB"


@dataclass(frozen=True)
class Memory:
    """Bytes that live tasks take: the base's weights, heads, masks as they are stored, and decoded ones.

    ``draws`` is what masks of one seed share, to be decoded quickly. ``budget`` is the most that decoded masks take,
    but for the one in use.
    """

    base: int
    heads: int
    coded: int
    draws: int
    decoded: int
    budget: int


class _Thread(threading.local):
    """What a thread chose last, and what the blocks that it has open are for, the innermost last."""

    def __init__(self) -> None:
        self.chosen: str | None = None
        self.open: dict[object, str | None] = {}


class Store:
    """The tasks that are live on a base. One is live at a time, or none; whoever uses one holds the lock.

    Which one that is nobody can tell but who holds the lock. So each thread has an active task of its own.
    """

    def __init__(
        self,
        base: Checkpoint,
        *,
        device: Any = None,
        dtype: Any = None,
        memory: int | str = MEMORY,
        verify: bool = True,
        draws: Draws | None = None,
    ) -> None:
        check_placing(dtype, device)
        self.base = base
        self._draws, self._verify = Draws() if draws is None else draws, verify
        self._digests: dict[str, str] = {}
        self._masks: dict[str, MaskSet] = {}
        self._models: dict[str, PreTrainedModel] = {}
        self._live: str | None = None  # the task whose weights are live
        self._thread = _Thread()
        threads = Threads()
        self.shared = Shared(base, device=device, dtype=dtype)
        self.live = LiveWeights(self.shared.weights, threads)
        self.decoded = Decoded(parse_size(memory), threads)
        self._lock, self._process = threading.RLock(), os.getpid()

    @property
    def lock(self) -> threading.RLock:
        """Who uses live weights holds it. A forked process has its own: nobody there gives the other one back."""
        if self._process != os.getpid():
            self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock

    @property
    def task_names(self) -> list[str]:
        """The names of all tasks, in the order in which they were loaded."""
        return list(self._masks)

    @property
    def active_task(self) -> str | None:
        """The task that this thread chose last, by ``set_task`` or by using its model; None for the base.

        Inside a block of ``use`` or ``disable_tasks`` it is the block's.
        """
        name = next(reversed(self._thread.open.values()), self._thread.chosen)
        return name if name in self._masks else None

    def __len__(self) -> int:
        return len(self._masks)

    def __iter__(self) -> Iterator[str]:
        return iter(self.task_names)

    def __contains__(self, name: object) -> bool:
        return name in self._masks

    def mask(self, name: str) -> MaskSet:
        """A task's mask set. Raises UnknownTaskError."""
        if name not in self._masks:
            known = listed(self.task_names) if self._masks else "none"
            raise UnknownTaskError(f"no task is called {name!r}", hint=f"Loaded are {known}.")
        return self._masks[name]

    def load_task(self, mask: str | Path | MaskSet, name: str, *, token: str | None = None) -> None:
        """Add a task. It costs its coded bytes, and is decoded when it is first used.

        Raises ArgumentError for a name that is taken, BaseMismatchError where the base is not the mask's, and
        FormatError where the mask names no task, or one that does not fit transformers, or its head.
        """
        maskset = read_mask(mask, draws=self._draws, token=token)
        with self.lock, _of_task(name):
            if not isinstance(name, str) or not name or name == BASE:
                raise ArgumentError("no task can have this name", hint="Choose another one.")
            if name in self._masks:
                raise ArgumentError("there is one already", hint="Delete it first: delete_task.")
            if maskset.task is None:
                raise FormatError("the mask names no task, so that no model can be made of it")
            check_structure(self.base, maskset)
            if self._verify:
                self._check_base(maskset)
            if not self.shared.check(maskset):
                self._models[name] = self._made(maskset, name)
            self._masks[name] = maskset

    def delete_task(self, name: str) -> None:
        """Forget a task. Its model raises UnknownTaskError from now on.

        Raises ArgumentError while this thread uses it.
        """
        with self.lock:
            self.mask(name)
            if name in self._thread.open.values():
                raise ArgumentError(f"the task {name!r} is in use", hint="Delete it where its block or call ends.")
            if self._live == name:
                self._show(None)
            self.shared.forget(self._masks.pop(name))
            self._models.pop(name, None)
            self.decoded.forget(name)

    def __getitem__(self, name: str) -> PreTrainedModel:
        """A task's model, of its own class, with its own head; what is no head is shared with all other tasks.

        The model itself, its ``generate``, ``state_dict`` and ``save_pretrained`` switch to its task. Its parts do not:
        call them inside ``use``. It computes in evaluation mode only. Raises UnknownTaskError.
        """
        with self.lock:
            maskset = self.mask(name)
            if name not in self._models:
                with _of_task(name):
                    self._models[name] = self._made(maskset, name)
            return self._models[name]

    def set_task(self, name: str | None) -> None:
        """Make a task this thread's active one, and its weights the live ones; None for the base's.

        They are bit for bit those of its dense checkpoint. Inside a block of ``use`` or ``disable_tasks`` that is so
        once the block ends.
        """
        with self.lock:
            if name is not None:
                self.mask(name)
            if not self._thread.open:
                self._thread.chosen = None  # also where it is interrupted
                self._show(name)
            self._thread.chosen = name

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[PreTrainedModel]:
        """A block in which a task's weights are live, for its model's parts, compiled ones too. It gives the model.

        Other threads wait for it. At its end this thread's active task is what it was. Raises UnknownTaskError.
        """
        with self.lock:
            model = self[name]
            with self.showing(name):
                self.live.check_places(model)
                yield model

    @contextlib.contextmanager
    def disable_tasks(self) -> Iterator[None]:
        """A block in which the live weights are the base's. At its end the active task's are live again.

        Other threads wait for it. A task's model that is used inside it switches back at once.
        """
        with self.showing(None):
            yield

    @contextlib.contextmanager
    def showing(self, name: str | None, *, choose: bool = False) -> Iterator[None]:
        """A block in which a task's weights are live, or the base's. ``choose`` makes it active, if none is open.

        At its end those of the block around it are, wherever that is; without one, those of this thread's active task.
        """
        with self.lock:
            mine, key = self._thread, object()
            outermost = not mine.open
            mine.open[key] = name
            try:
                self._show(name)
                if choose and outermost:
                    mine.chosen = name
                yield
            finally:
                del mine.open[key]
                if not self._shows(self.active_task):
                    self._show(self.active_task)

    def close(self) -> None:
        """Forget all tasks, and let go of the base's weights: they are freed where no model is held any more."""
        with self.lock:
            if used := [name for name in self._thread.open.values() if name is not None]:
                raise ArgumentError(f"the task {used[-1]!r} is in use", hint="Close where its block or call ends.")
            try:
                self._show(None)
            finally:
                self._live = None
                for kept in (self._masks, self._models, self.live, self.shared, self.decoded):
                    kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def changes(self, name: str) -> Changes:
        """What a task drops, decoded now if it is not yet."""
        masks = {self.shared.weight(tensor): mask for tensor, mask in self.mask(name).items()}
        return self.decoded.of(name, masks, self.shared.weights)

    def verify(self) -> None:
        """Compare every live weight with the base on the disk, and heads with what they were.

        Raises BaseChangedError naming those that differ.
        """
        with self.disable_tasks():
            self.live.compare(self.base)

    def memory(self) -> Memory:
        """What takes how much memory."""
        with self.lock:
            shared = {id(weight) for weight in self.shared.weights.values()}
            heads = {
                id(p): p.nbytes for model in self._models.values() for p in model.parameters() if id(p) not in shared
            }
            return Memory(
                base=sum(weight.nbytes for weight in self.shared.weights.values()),
                heads=sum(heads.values()),
                coded=sum(_coded(maskset) for maskset in self._masks.values()),
                draws=self._draws.nbytes,
                decoded=self.decoded.nbytes,
                budget=self.decoded.budget,
            )

    def _made(self, maskset: MaskSet, name: str) -> PreTrainedModel:
        """A task's model, which takes the lock and switches to its task whenever it computes."""
        with self.disable_tasks(), torch.inference_mode(False):  # a new kind is made of the base's weights
            self.live.check_parts()
            model: Any = self.shared.model(maskset)
            self.live.watch(model)
        for method in SWITCHING:
            if hasattr(model, method):
                setattr(model, method, self._switching(name, model, method))
        model.__reduce_ex__ = _uncopied
        return model  # type: ignore[no-any-return]

    def _switching(self, name: str, model: PreTrainedModel, method: str) -> Callable[..., Any]:
        """A model's method that works while its task is live, and while no other thread switches."""
        own, held = getattr(type(model), method), weakref.ref(model)  # weakly, so that models are freed at once

        def switched(*arguments: Any, **options: Any) -> Any:
            with self.lock:
                model: Any = held()
                if self._models.get(name) is not model:
                    raise UnknownTaskError(f"the task {name!r} was deleted", hint="Take its model anew: tasks[name].")
                with self.showing(name, choose=True):
                    if method in COMPUTING:
                        self.live.check_ready(model)
                    self.live.check_places(model)
                    found = own(model, *arguments, **options)
                    return self.live.copied(found) if method == "state_dict" else found

        functools.update_wrapper(switched, own)
        del switched.__wrapped__  # type: ignore[attr-defined]
        switched.__signature__ = inspect.signature(getattr(model, method))  # type: ignore[attr-defined]
        # What it calls is compiled, where it is called from what is.
        return torch.compiler.disable(switched, recursive=False)  # type: ignore[no-untyped-call, no-any-return]

    def _shows(self, name: str | None) -> bool:
        return name == self._live and (name is not None or not self.live.applied)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _show(self, name: str | None) -> None:
        """Make a task's weights live, or the base's, and look whether they are as they were left."""
        self.live.check()
        if not self._shows(name):
            changes = {} if name is None else self.changes(name)
            self._live = None  # also where it is interrupted
            self.live.swap(changes)
            self._live = name

    def _check_base(self, maskset: MaskSet) -> None:
        self._digests |= digests(self.base, [name for name in maskset.base.tensors if name not in self._digests])
        if differ := maskset.base.differing(self._digests):
            raise mismatch(self.base, maskset, differ)


def _coded(maskset: MaskSet) -> int:
    """Bytes of a mask's file, or of the bits of one that came from none."""
    return sum(mask.bits.nbytes for mask in maskset.values()) if maskset.stored is None else maskset.stored.bytes


# What of a task's model computes, or tells its weights.
COMPUTING = ("forward", "generate")
SWITCHING = (*COMPUTING, "state_dict", "save_pretrained")


def _uncopied(protocol: object) -> NoReturn:
    raise ArgumentError("a live task's model shares its weights, and cannot be copied", hint="Use maskhub.load_model.")


@contextlib.contextmanager
def _of_task(name: object) -> Iterator[None]:
    """Errors inside say which task they are about."""
    try:
        yield
    except MaskhubError as error:
        error.message = f"task {name!r}: {error.message}"
        raise
