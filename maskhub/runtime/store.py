"""Tasks by their names on one base: their masks, models and weights, and which of them is live."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

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
from maskhub.runtime.mixed import encoder_of
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


class Store:
    """The tasks that are live on a base. One is active at a time, or none; whoever uses one holds the lock."""

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
        self._active: str | None = None
        self._disabled = 0  # how many blocks of disable_tasks are open
        threads = Threads()
        self.shared = Shared(base, device=device, dtype=dtype)
        self.live = LiveWeights(self.shared.weights, threads)
        self.decoded = Decoded(parse_size(memory), threads)
        self.lock = threading.RLock()

    @property
    def task_names(self) -> list[str]:
        """The names of all tasks, in the order in which they were loaded."""
        return list(self._masks)

    @property
    def active_task(self) -> str | None:
        """The task whose weights are live; None for the base's own."""
        return self._active

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
        """Forget a task. Its model raises UnknownTaskError from now on."""
        with self.lock:
            self.mask(name)
            if self._active == name:
                self.set_task(None)
            self.shared.forget(self._masks.pop(name))
            self._models.pop(name, None)
            self.decoded.forget(name)

    def __getitem__(self, name: str) -> PreTrainedModel:
        """A task's model, of its own class, with its own head; what is no head is shared with all other tasks.

        The model itself, its ``generate``, ``state_dict`` and ``save_pretrained`` switch to its task. Its parts do not:
        called alone, the encoder is that of the active task. Raises UnknownTaskError.
        """
        with self.lock:
            maskset = self.mask(name)
            if name not in self._models:
                with _of_task(name):
                    self._models[name] = self._made(maskset, name)
            return self._models[name]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def set_task(self, name: str | None) -> None:
        """Make a task's weights the live ones, bit for bit those of its dense checkpoint; None for the base's."""
        with self.lock:
            if name is not None:
                self.mask(name)
            self.live.check()
            if name == self._active and (name is not None or not self.live.applied):
                return
            self._swap(name, {} if name is None else self.changes(name))

    @contextlib.contextmanager
    def disable_tasks(self) -> Iterator[None]:
        """A block in which the live weights are the base's. At its end the task before is live again.

        Other threads wait for it. A task's model that is used inside it switches back at once.
        """
        with self.lock:
            before = self._active
            self.set_task(None)
            self._disabled += 1
            try:
                yield
            finally:
                self._disabled -= 1
                self.set_task(before if before in self._masks else None)

    def changes(self, name: str) -> Changes:
        """What a task drops, decoded now if it is not yet."""
        return self.decoded.of(name, self.mask(name), self.shared.weights)

    def verify(self) -> None:
        """Compare every live weight with the base on the disk. Raises BaseChangedError naming those that differ."""
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
        with self.disable_tasks():  # a new kind is made of the base's weights
            self.live.check_places()
            model: Any = self.shared.model(maskset)
            self.live.watch(encoder_of(model) or model)
        for method in SWITCHING:
            if hasattr(model, method):
                setattr(model, method, self._switching(name, model, getattr(model, method)))
        model.__reduce_ex__ = _uncopied
        return model  # type: ignore[no-any-return]

    def _switching(self, name: str, model: PreTrainedModel, method: Callable[..., Any]) -> Callable[..., Any]:
        """A model's method that works while its task is live, and while no other thread switches."""

        @functools.wraps(method)
        def switched(*arguments: Any, **options: Any) -> Any:
            with self.lock:
                if self._models.get(name) is not model:
                    raise UnknownTaskError(f"the task {name!r} was deleted", hint="Take its model anew: tasks[name].")
                self.set_task(name)
                self.live.check_places(encoder_of(model) or model)
                try:
                    return method(*arguments, **options)
                finally:
                    if self._disabled:
                        self.set_task(None)

        # What it calls is compiled, where it is called from what is.
        return torch.compiler.disable(switched, recursive=False)  # type: ignore[no-untyped-call, no-any-return]

    def _swap(self, name: str | None, changes: Changes) -> None:
        self._active = None  # also where it is interrupted
        self.live.swap(changes)
        self._active = name

    def _check_base(self, maskset: MaskSet) -> None:
        self._digests |= digests(self.base, [name for name in maskset.base.tensors if name not in self._digests])
        if differ := maskset.base.differing(self._digests):
            raise mismatch(self.base, maskset, differ)


def _coded(maskset: MaskSet) -> int:
    """Bytes of a mask's file, or of the bits of one that came from none."""
    return sum(mask.bits.nbytes for mask in maskset.values()) if maskset.stored is None else maskset.stored.bytes


# What of a task's model computes, or tells its weights.
SWITCHING = ("forward", "generate", "state_dict", "save_pretrained")


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
