"""Many tasks live on one base: one copy of its weights, a switch in place, and batches with rows of many tasks."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from maskhub.checkpoints.apply import check_structure, mismatch
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.match import match
from maskhub.checkpoints.scan import digests
from maskhub.container.codecs.drift import Draws
from maskhub.container.reader import read_mask
from maskhub.errors import ArgumentError, BaseChangedError, FormatError, MaskhubError, UnknownTaskError, listed
from maskhub.masks.mask import MaskSet
from maskhub.remote.places import masks_at
from maskhub.runtime.dropped import Changes, Dropped, dropped, words
from maskhub.runtime.evaluate import BATCH, LENGTH, in_batches
from maskhub.runtime.load import check_placing, load_processor, pipeline_kind
from maskhub.runtime.mixed import Rows, UnfitError, can_mix, decide, encode, encoder_of, part_of, rows_of
from maskhub.runtime.predict import answers_of, check_counts
from maskhub.runtime.shared import Shared
from maskhub.runtime.threads import Threads
from maskhub.storage.address import distinct_names
from maskhub.storage.size import parse_size
from maskhub.storage.torch import to_torch
from maskhub.tasks import TaskType, label_names, of_mask
from maskhub.tasks.examples import Examples
from maskhub.tasks.task import Answer

BASE = "__base__"  # the name of rows of a batch that no task is for
MEMORY = "256MB"
SAMPLE = 64  # weights of a tensor that are looked at on a switch
LOOKS = 4  # tensors that are looked at on a switch, in turn
NEAR, NEAR_HALF = 1e-4, 0.1  # how far a mixed batch may be from the exact one, by the largest logit; of halves
CURE = "Load the tasks anew; for another device or dtype, pass it to load_tasks."


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


def load_tasks(
    base: str | Path | Checkpoint,
    masks: Any,
    *,
    device: Any = None,
    dtype: Any = None,
    memory: int | str = MEMORY,
    verify: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> Tasks:
    """Tasks that are live on a base, as ``maskhub.load_tasks`` gives them."""
    named = dict(masks) if isinstance(masks, Mapping) and not isinstance(masks, MaskSet) else _named(masks, token)
    draws = Draws()
    sets = {name: read_mask(mask, draws=draws, token=token) for name, mask in named.items()}
    checkpoint = match(open_checkpoint(base, revision=revision, token=token), sets.values())
    live = Tasks(checkpoint, device=device, dtype=dtype, memory=memory, verify=verify, draws=draws)
    for name, maskset in sets.items():
        live.load_task(maskset, name)
    return live


def _named(masks: Any, token: str | None) -> dict[str, Any]:
    """Masks by names that tell them apart: those given, or those of a folder or a repo."""
    given: list[Any] = [masks] if isinstance(masks, str | Path | MaskSet) else list(masks)
    if len(given) == 1 and not isinstance(given[0], MaskSet):
        given = [*masks_at(given[0], token)] or given
    called = [one if isinstance(one, str | Path) else f"task {i}" for i, one in enumerate(given, 1)]
    return dict(zip(distinct_names(called), given, strict=True))


@dataclass(frozen=True)
class RowOutputs:
    """What a batch with rows of several tasks gave: ``logits`` has a tensor for each row, in the rows' order."""

    logits: list[Tensor]


class Tasks:
    """Tasks that are live on one base, as ``maskhub.load_tasks`` gives them.

    ``tasks[name]`` is a task's own model: using it switches to that task. All may be used from several threads: a lock
    gives each its own answers.
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
        self._draws = Draws() if draws is None else draws
        self.base = base
        self._budget, self._verify = parse_size(memory), verify
        self._shared = Shared(base, device=device, dtype=dtype)
        self._digests: dict[str, str] = {}
        self._masks: dict[str, MaskSet] = {}
        self._models: dict[str, PreTrainedModel] = {}
        self._decoded: OrderedDict[str, Changes] = OrderedDict()  # the last used one last
        self._active: str | None = None
        self._applied: dict[str, Dropped] = {}  # what is, or may be, dropped of the live weights
        self._disabled = 0  # how many blocks of disable_tasks are open
        self._elements: dict[str, Tensor] = {}  # each weight's, as words; they hold its memory, whatever becomes of it
        self._samples: dict[str, tuple[Tensor, Tensor]] = {}  # of each weight a few places, and the base's values there
        # Of the part that tasks share the places of its weights: a module's parameters, a name there, and the weight's.
        self._places: WeakKeyDictionary[nn.Module, list[tuple[dict[str, Any], str, str]]] = WeakKeyDictionary()
        self._versions: dict[str, int] = {}  # how often each was changed; none while a switch changes it
        self._turn = 0
        self._processors: dict[Any, Any] = {}
        self._mixes: dict[tuple[type, frozenset[str]], bool] = {}  # of a class and masked tensors: is mixing right
        self._threads = Threads()
        self._lock = threading.RLock()

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
        FormatError where the mask names no task, or one that does not fit transformers.
        """
        maskset = read_mask(mask, draws=self._draws, token=token)
        with self._lock, _of_task(name):
            if not isinstance(name, str) or not name or name == BASE:
                raise ArgumentError("no task can have this name", hint="Choose another one.")
            if name in self._masks:
                raise ArgumentError("there is one already", hint="Delete it first: delete_task.")
            if maskset.task is None:
                raise FormatError("the mask names no task, so that no model can be made of it")
            check_structure(self.base, maskset)
            if self._verify:
                self._check_base(maskset)
            if self._shared.is_new(maskset):
                self._models[name] = self._made(maskset, name)
            self._masks[name] = maskset

    def delete_task(self, name: str) -> None:
        """Forget a task. Its model raises UnknownTaskError from now on."""
        with self._lock:
            self.mask(name)
            if self._active == name:
                self.set_task(None)
            self._shared.forget(self._masks.pop(name))
            self._models.pop(name, None)
            self._decoded.pop(name, None)

    def __getitem__(self, name: str) -> PreTrainedModel:
        """A task's model, of its own class, with its own head; what is no head is shared with all other tasks.

        The model itself, its ``generate``, ``state_dict`` and ``save_pretrained`` switch to its task. Its parts do not:
        called alone, the encoder is that of the active task. Raises UnknownTaskError, and FormatError where the head
        does not fit.
        """
        with self._lock:
            maskset = self.mask(name)
            if name not in self._models:
                with _of_task(name):
                    self._models[name] = self._made(maskset, name)
            return self._models[name]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def set_task(self, name: str | None) -> None:
        """Make a task's weights the live ones, bit for bit those of its dense checkpoint; None for the base's."""
        with self._lock:
            if name is not None:
                self.mask(name)
            self._check_weights()
            if name == self._active and (name is not None or not self._applied):
                return
            if name is not None and name not in self._decoded:
                self._swap(None, {})
            self._swap(name, {} if name is None else self._changes(name))

    @contextlib.contextmanager
    def disable_tasks(self) -> Iterator[None]:
        """A block in which the live weights are the base's. At its end the task before is live again.

        Other threads wait for it. A task's model that is used inside it switches back at once.
        """
        with self._lock:
            before = self._active
            self.set_task(None)
            self._disabled += 1
            try:
                yield
            finally:
                self._disabled -= 1
                self.set_task(before if before in self._masks else None)

    def __call__(self, *, task_names: Sequence[str] | None = None, **batch: Any) -> Any:
        """Compute a batch: with the active task's model, or row by row for the task of each row's name.

        ``task_names`` has a name for each row, also ``"__base__"``. What comes back then has ``logits``, a list of a
        tensor for each row, in their order; of a row of the base it is the last hidden state. Rows of one task alone
        are exact; a batch of several rounds otherwise (``docs/live.md`` says how much). Raises UnknownTaskError.
        """
        with self._lock, torch.no_grad():
            if task_names is None:
                if self._active is None:
                    raise ArgumentError("no task is active", hint="Name the rows' tasks: task_names, or set_task.")
                return self[self._active](**batch)
            names = list(task_names)
            _check_batch(names, batch)
            logits: dict[int, Tensor] = {}
            before = self._active
            try:
                for chosen in self._kinds(names):
                    part = {key: value[chosen] if isinstance(value, Tensor) else value for key, value in batch.items()}
                    logits |= zip(chosen, self._together([names[row] for row in chosen], part), strict=True)
            finally:
                self.set_task(before)
        return RowOutputs(logits=[logits[row] for row in range(len(names))])

    def _kinds(self, names: Sequence[str]) -> list[list[int]]:
        """Rows of tasks whose models are alike but for their heads, task by task; the base's are with any."""
        for name in names:
            if name != BASE:
                self.mask(name)
        told = sorted({*names} - {BASE}) or self.task_names[:1]
        if not told:
            raise UnknownTaskError("no task is loaded", hint="Load one: load_task.")
        kinds: dict[tuple[type, int], list[int]] = {}
        for row in sorted(range(len(names)), key=lambda row: (names[row] == BASE, names[row])):
            model = self[told[0] if names[row] == BASE else names[row]]
            kinds.setdefault((type(model), id(encoder_of(model))), []).append(row)
        return list(kinds.values())

    def _together(self, names: Sequence[str], batch: dict[str, Any]) -> list[Tensor]:
        """The answers to rows of one kind, which lie task by task."""
        spans = [(name, *span) for name, span in _spans(names)]
        model = self[names[0] if names[0] != BASE else self.task_names[0]]
        if len(spans) > 1 or names[0] == BASE:
            masked = frozenset(tensor for name, _, _ in spans if name != BASE for tensor in self._masks[name])
            key = type(model), masked
            if self._mixes.get(key, True):
                self._check_places(encoder_of(model) or model)
                answers, sure = self._mixed(model, masked, spans, batch)
                if answers is not None and sure and key not in self._mixes:
                    self._mixes[key] = self._right(spans, batch, answers)
                elif answers is not None and key not in self._mixes:
                    self._prove(key, model, names[:-1], _rows(batch, 0, len(names) - 1))
                if answers is not None and self._mixes.get(key):
                    return answers
        return [answer for name, a, b in spans for answer in self._exact(name, model, _rows(batch, a, b))]

    def _prove(
        self, key: tuple[type, frozenset[str]], model: PreTrainedModel, names: Sequence[str], batch: dict[str, Any]
    ) -> None:
        """Find out whether mixing is right by all rows but one, of a batch with as many tokens as rows."""
        spans = [(name, *span) for name, span in _spans(names)]
        masked = frozenset(tensor for name, _, _ in spans if name != BASE for tensor in self._masks[name])
        if len(spans) > 1 and masked == key[1]:
            answers, sure = self._mixed(model, masked, spans, batch)
            if answers is not None and sure:
                self._mixes[key] = self._right(spans, batch, answers)

    def _exact(self, name: str, model: PreTrainedModel, batch: dict[str, Any]) -> list[Tensor]:
        count = rows_of(batch)
        if name != BASE:
            return _answers(name, self[name](**batch), count)
        with self.disable_tasks():
            return _hidden(encode(model, {}, batch, Rows([], count)), count)

    def _right(self, spans: Sequence[tuple[str, int, int]], batch: dict[str, Any], answers: Sequence[Tensor]) -> bool:
        """Whether a mixed batch, the first of its kind, has the answers that each task has alone, but for rounding."""
        for name, a, b in spans:
            if name != BASE:
                right = self._exact(name, self[name], _rows(batch, a, b))
                near = NEAR if right[0].dtype in (torch.float32, torch.float64) else NEAR_HALF
                scale = max(float(one.abs().max()) for one in right)
                if not all((x - y).abs().max() <= near * (1 + scale) for x, y in zip(right, answers[a:b], strict=True)):
                    return False
        return True

    def _mixed(
        self, model: PreTrainedModel, masked: Set[str], spans: Sequence[tuple[str, int, int]], batch: dict[str, Any]
    ) -> tuple[list[Tensor] | None, bool]:
        """The answers to a batch whose layers are computed once, None where they cannot be.

        And whether it is sure that the layers saw rows, and not tokens, one after the other.
        """
        names = {id(weight): name for name, weight in self._shared.weights.items()}
        if not can_mix(model, names, masked):
            return None, False
        count, answers = rows_of(batch), []
        with self.disable_tasks():
            changes = {name: {} if name == BASE else self._changes(name) for name, _, _ in spans}
            rows = Rows([(a, b, changes[name]) for name, a, b in spans], count)
            try:
                encoded = encode(model, names, batch, rows)
            except UnfitError:
                return None, False
            for name, a, b in spans:
                part = part_of(encoded, a, b, count)
                if name == BASE:
                    answers += _hidden(part, b - a)
                else:
                    output = decide(self[name], names, _rows(batch, a, b), part, changes[name])
                    answers += _answers(name, output, b - a)
        return answers, rows.sure

    def pipeline(self, name: str, **options: Any) -> transformers.Pipeline:
        """A ``transformers.pipeline`` of a task; ``options`` go to it. Raises FormatError where there is none."""
        task, model = self.mask(name).task, self[name]
        assert task is not None
        reader = "image_processor" if task.type == "image-classification" else "tokenizer"
        options = {reader: self.processor(name), "trust_remote_code": False, "device": model.device} | options
        return transformers.pipeline(pipeline_kind(task.type), model=model, **options)  # type: ignore[arg-type]

    def processor(self, name: str) -> Any:
        """A task's tokenizer or image processor; tasks that have the same share one."""
        maskset = self.mask(name)
        assert maskset.task is not None
        key = maskset.task.tokenizer, maskset.task.type, maskset.task.config.get("pad_token_id")
        with self._lock:
            if key not in self._processors:
                self._processors[key] = load_processor(self.base, maskset)
            return self._processors[key]

    def predict(
        self,
        inputs: Any,
        names: str | Sequence[str] | None = None,
        *,
        top_k: int | None = None,
        batch_size: int = BATCH,
    ) -> list[Answer]:
        """What tasks answer to inputs, in their order, as ``maskhub.predict`` gives it.

        ``names`` is one task for all inputs (the active one, if left), or a name for each: those of several tasks are
        computed in batches together. Raises UnknownTaskError, and ArgumentError for what a task does not read.
        """
        check_counts(top_k=top_k, batch_size=batch_size)
        asked = [inputs] if isinstance(inputs, str | Path | dict) else list(inputs)
        named = self._active if names is None else names
        if named is None:
            raise ArgumentError("no task is active", hint="Name one, or one for each input: names.")
        each = [named] * len(asked) if isinstance(named, str) else list(named)
        if len(each) != len(asked):
            raise ArgumentError(f"{len(each)} task names for {len(asked)} inputs")
        answers: dict[int, Answer] = {}
        together: dict[tuple[int, TaskType], list[int]] = {}
        for row, name in enumerate(each):
            kind = of_mask(self.mask(name).task, "used to predict")
            together.setdefault((id(self.processor(name)), kind), []).append(row)
        for rows in together.values():
            told = [each[row] for row in rows]
            found = self._asked([asked[row] for row in rows], told, top_k, batch_size)
            answers |= zip(rows, found, strict=True)
        return [answers[row] for row in range(len(asked))]

    def _asked(self, asked: list[Any], names: list[str], top_k: int | None, batch_size: int) -> list[Answer]:
        """Answers of tasks that read alike: of one task alone exactly, of several in batches together."""
        kind, processor = of_mask(self.mask(names[0]).task), self.processor(names[0])
        rows = {name: [row for row, one in enumerate(names) if one == name] for name in dict.fromkeys(names)}
        parts = {
            name: Examples("inputs", kind.name, kind.given([asked[row] for row in rows[name]]), []) for name in rows
        }
        answers: dict[int, Answer] = {}
        if len(rows) == 1 or kind.generates:
            for name, part in parts.items():
                said = answers_of(self[name], processor, self.mask(name), part, top_k=top_k, batch_size=batch_size)
                answers |= zip(rows[name], said, strict=True)
            return [answers[row] for row in range(len(asked))]
        examples, collate = Examples("inputs", kind.name, kind.given(asked), []), kind.collator(processor)
        encoded: dict[int, dict[str, Any]] = {}
        for name, part in parts.items():
            found = kind.encode(part, processor, self._labels(name), self._length(name))
            encoded |= zip(rows[name], found, strict=True)
        lengths = [encoded[row].get("length", 1) for row in range(len(asked))]
        for chosen in in_batches(lengths, batch_size, "inputs", None):
            batch = collate([{k: v for k, v in encoded[row].items() if k != "length"} for row in chosen])
            labels = batch.pop("labels")
            batch = {key: value.to(self[names[0]].device) for key, value in batch.items()}
            logits = self(**batch, task_names=[names[row] for row in chosen]).logits
            for row, said, label in zip(chosen, logits, labels, strict=True):
                shown = said.float().cpu().numpy(), label.cpu().numpy()
                answers[row] = kind.answer(examples[row], processor, *shown, self._labels(names[row]), top_k or 0)
        return [answers[row] for row in range(len(asked))]

    def _labels(self, name: str) -> tuple[str, ...]:
        task = self.mask(name).task
        assert task is not None
        return label_names(task)

    def _length(self, name: str) -> int:
        task = self.mask(name).task
        assert task is not None
        return task.max_length or LENGTH

    def verify(self) -> None:
        """Compare every live weight with the base on the disk. Raises BaseChangedError naming those that differ."""
        with self.disable_tasks():
            self._check_places(*self._places)
            differ = []
            for name, weight in self._shared.weights.items():
                right = to_torch(self.base.read(name)).to(device=weight.device, dtype=weight.dtype)
                if not torch.equal(words(weight), words(right)):
                    differ.append(name)
        if differ:
            raise BaseChangedError(f"changed by someone else since they were loaded: {listed(differ)}", hint=CURE)

    def memory(self) -> Memory:
        """What takes how much memory."""
        with self._lock:
            shared = {id(weight) for weight in self._shared.weights.values()}
            heads = {
                id(p): p.nbytes for model in self._models.values() for p in model.parameters() if id(p) not in shared
            }
            stored = (maskset.stored for maskset in self._masks.values())
            return Memory(
                base=sum(weight.nbytes for weight in self._shared.weights.values()),
                heads=sum(heads.values()),
                coded=sum(one.bytes for one in stored if one is not None),
                draws=self._draws.nbytes,
                decoded=sum(map(_size, self._decoded.values())),
                budget=self._budget,
            )

    def _made(self, maskset: MaskSet, name: str) -> PreTrainedModel:
        """A task's model, which takes the lock and switches to its task whenever it computes."""
        with self.disable_tasks():  # a new kind is made of the base's weights
            self._check_places(*self._places)
            model: Any = self._shared.model(maskset)
            self._watch(encoder_of(model) or model)
        for method in SWITCHING:
            if hasattr(model, method):
                setattr(model, method, self._switching(name, model, getattr(model, method)))
        model.__reduce_ex__ = _uncopied
        return model  # type: ignore[no-any-return]

    def _switching(self, name: str, model: PreTrainedModel, method: Callable[..., Any]) -> Callable[..., Any]:
        """A model's method that works while its task is live, and while no other thread switches."""

        @functools.wraps(method)
        def switched(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                if self._models.get(name) is not model:
                    raise UnknownTaskError(f"the task {name!r} was deleted", hint="Take its model anew: tasks[name].")
                self.set_task(name)
                self._check_places(encoder_of(model) or model)
                try:
                    return method(*arguments, **options)
                finally:
                    if self._disabled:
                        self.set_task(None)

        # What it calls is compiled, where it is called from what is.
        return torch.compiler.disable(switched, recursive=False)  # type: ignore[no-untyped-call, no-any-return]

    def _swap(self, name: str | None, new: Changes) -> None:
        """Put the base's values back, and drop what the new task drops.

        Each step may be done twice, and ``_applied`` names all that may be dropped: so an interruption anywhere leaves
        what the next switch puts right.
        """

        def swap(tensor: str) -> None:
            elements = self._elements[tensor]
            self._versions.pop(tensor, None)
            if (old := self._applied.get(tensor)) is not None:
                old.restore(elements)
                del self._applied[tensor]
            if (change := new.get(tensor)) is not None:
                self._applied[tensor] = change
                change.drop(elements)
            self._versions[tensor] = elements._version

        self._active = None
        with torch.no_grad():
            self._threads.each(swap, list({**self._applied, **new}))
        self._active = name

    def _changes(self, name: str) -> Changes:
        """What a task drops: decoded before, or now, and checked, while the live weights are the base's.

        Where it is too much together, the decoded masks of the tasks that were not used for longest are forgotten.
        """
        if name in self._decoded:
            self._decoded.move_to_end(name)
            return self._decoded[name]
        weights, masks = self._shared.weights, self._masks[name]
        found: dict[str, Dropped | None] = {}

        def decode(tensor: str) -> None:  # codecs and hashes work outside the interpreter lock
            found[tensor] = dropped(masks[tensor], words(weights[tensor]))

        self._threads.each(decode, list(masks))
        self._decoded[name] = {tensor: change for tensor in masks if (change := found[tensor]) is not None}
        while len(self._decoded) > 1 and sum(map(_size, self._decoded.values())) > self._budget:
            self._decoded.popitem(last=False)
        return self._decoded[name]

    def _check_base(self, maskset: MaskSet) -> None:
        self._digests |= digests(self.base, [name for name in maskset.base.tensors if name not in self._digests])
        if differ := maskset.base.differing(self._digests):
            raise mismatch(self.base, maskset, differ)

    def _watch(self, part: nn.Module) -> None:
        """Remember where a part has the weights, and how new ones are, while the live weights are the base's."""
        if part not in self._places:
            names = {id(weight): name for name, weight in self._shared.weights.items()}
            self._places[part] = [
                (module._parameters, leaf, names[id(weight)])
                for module in part.modules()
                for leaf, weight in module._parameters.items()
                if id(weight) in names
            ]
        for name, weight in self._shared.weights.items():
            if name not in self._versions:
                elements = words(weight)
                places = torch.randint(max(weight.numel(), 1), (SAMPLE if weight.numel() else 0,), device=weight.device)
                self._elements[name] = elements
                self._samples[name] = places, elements[places]
                self._versions[name] = elements._version

    def _check_places(self, *parts: nn.Module) -> None:
        """BaseChangedError where somebody else put another parameter into the place of one of the weights."""
        for parameters, leaf, name in chain.from_iterable(self._places[part] for part in parts):
            if parameters.get(leaf) is not self._shared.weights[name]:
                raise BaseChangedError(f"{name} was changed, moved or cast by someone else", hint=CURE)

    def _check_weights(self) -> None:
        """BaseChangedError where somebody else moved, cast or changed the weights since the last switch.

        Of what torch does not count as a change, as of ``.data``, a sample is looked at, of a few tensors each time.
        """
        for name, version in self._versions.items():
            weight, elements = self._shared.weights[name], self._elements[name]
            same = weight.data_ptr() == elements.data_ptr() and weight.nbytes == elements.nbytes
            if not same or weight.device != elements.device or weight._version != version:
                raise BaseChangedError(f"{name} was changed, moved or cast by someone else", hint=CURE)
        names = list(self._samples)
        for name in names[self._turn : self._turn + LOOKS]:
            places, right = self._samples[name]
            found = self._elements[name][places]
            wrong = found != right
            if name in self._applied:  # some are dropped
                wrong &= found != 0
            if wrong.any():
                raise BaseChangedError(f"{name} was changed by someone else", hint=CURE)
        self._turn = (self._turn + LOOKS) % max(len(names), 1)


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


def _check_batch(names: Sequence[str], batch: Mapping[str, Any]) -> None:
    """ArgumentError for what cannot be taken apart into rows, one for each name."""
    if batch.get("labels") is not None:
        raise ArgumentError("a batch of several tasks takes no labels", hint="Leave them out.")
    for key, value in batch.items():
        if isinstance(value, Tensor) and (value.ndim == 0 or len(value) != len(names)):
            raise ArgumentError(f"{len(names)} task names, and {key} has the shape {list(value.shape)}")
        if not isinstance(value, Tensor | bool | int | float | str | None):
            raise ArgumentError(f"{key} is a {type(value).__name__}, which cannot be taken apart into rows")
    if not any(isinstance(value, Tensor) for value in batch.values()):
        raise ArgumentError("a batch has tensors, with a row for each task name")


def _answers(name: str, output: Any, count: int) -> list[Tensor]:
    """What a task's model answers to each of so many rows."""
    logits = getattr(output, "logits", None)
    if logits is None or len(logits) != count:
        raise ArgumentError(f"task {name!r} gives no logits for each row of such a batch", hint="Use its model alone.")
    return list(logits)


def _hidden(encoded: Any, count: int) -> list[Tensor]:
    """The last hidden state of each of so many rows, whose choices lie one after the other."""
    last: Tensor = encoded[0]
    return list(last.reshape(count, -1, last.shape[-1]))


def _rows(batch: dict[str, Any], a: int, b: int) -> dict[str, Any]:
    return {key: value[a:b] if isinstance(value, Tensor) else value for key, value in batch.items()}


def _spans(names: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each run of equal names, from where to where."""
    a = 0
    for name, run in groupby(names):
        b = a + len(list(run))
        yield name, (a, b)
        a = b


def _size(changes: Changes) -> int:
    return sum(change.nbytes for change in changes.values())
