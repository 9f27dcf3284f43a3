"""Many tasks live on one base: one copy of its weights, a switch in place, and batches with rows of many tasks."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from maskhub.checkpoints.apply import check_structure, mismatch, parse_size
from maskhub.checkpoints.checkpoint import Checkpoint, open_checkpoint
from maskhub.checkpoints.match import match
from maskhub.checkpoints.scan import digests
from maskhub.container.codecs.drift import Draws
from maskhub.container.reader import read_mask
from maskhub.errors import ArgumentError, BaseChangedError, FormatError, UnknownTaskError, listed
from maskhub.masks.mask import MaskSet
from maskhub.remote.places import masks_at
from maskhub.runtime.dropped import Changes, Dropped, dropped, words
from maskhub.runtime.evaluate import BATCH, LENGTH, in_batches
from maskhub.runtime.load import load_processor, pipeline_kind
from maskhub.runtime.mixed import Rows, UnfitError, can_mix, decide, encode, part_of, rows_of
from maskhub.runtime.predict import answers_of
from maskhub.runtime.shared import Shared
from maskhub.storage.address import distinct_names
from maskhub.storage.torch import to_torch
from maskhub.storage.work import workers
from maskhub.tasks import label_names, of_mask
from maskhub.tasks.examples import Examples
from maskhub.tasks.task import Answer

BASE = "__base__"  # the name of rows of a batch that no task is for
MEMORY = "256MB"
SAMPLE = 64  # weights of a tensor that are looked at on a switch
LOOKS = 4  # tensors that are looked at on a switch, in turn
CURE = "Load the tasks anew; for another device or dtype, pass it to load_tasks."


@dataclass(frozen=True)
class Memory:
    """Bytes that live tasks take: the base's weights, heads, masks as they are stored, and decoded ones.

    ``budget`` is the most that decoded masks take, but for the one in use.
    """

    base: int
    heads: int
    coded: int
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
    draws = Draws() if len(named) > 1 else None  # which cost what decodes the first mask quicker alone
    sets = {name: read_mask(mask, draws=draws, token=token) for name, mask in named.items()}
    checkpoint = match(open_checkpoint(base, revision=revision, token=token), sets.values())
    live = Tasks(checkpoint, device=device, dtype=dtype, memory=memory, verify=verify)
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
    ) -> None:
        self.base = base
        self._budget, self._verify = parse_size(memory), verify
        self._shared = Shared(base, device=device, dtype=dtype)
        self._digests: dict[str, str] = {}
        self._masks: dict[str, MaskSet] = {}
        self._models: dict[str, PreTrainedModel] = {}
        self._decoded: OrderedDict[str, Changes] = OrderedDict()  # the last used one last
        self._active: str | None = None
        self._applied: dict[str, Dropped] = {}  # what is, or may be, dropped of the live weights
        self._seen: dict[str, tuple[Any, ...]] = {}  # where each weight is, and how often it was changed
        self._samples: dict[str, tuple[Tensor, Tensor]] = {}  # of each weight a few places, and the base's values there
        self._turn = 0
        self._processors: dict[Any, Any] = {}
        self._mixes: dict[int, bool] = {}  # by a kind's encoder, whether mixed batches were found right
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

    def load_task(self, maskset: MaskSet, name: str) -> None:
        """Add a task. It costs its coded bytes, and is decoded when it is first used.

        Raises ArgumentError for a name that is taken, BaseMismatchError where the base is not the mask's, and
        FormatError where the mask names no task, or one that does not fit transformers.
        """
        with self._lock:
            if not name or name == BASE:
                raise ArgumentError(f"{name!r} cannot name a task", hint="Choose another name.")
            if name in self._masks:
                raise ArgumentError(f"there is a task {name!r} already", hint="Delete it first: delete_task.")
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
            del self._masks[name]
            self._models.pop(name, None)
            self._decoded.pop(name, None)

    def __getitem__(self, name: str) -> PreTrainedModel:
        """A task's model, of its own class, with its own head; what is no head is shared with all other tasks."""
        with self._lock:
            maskset = self.mask(name)
            if name not in self._models:
                self._models[name] = self._made(maskset, name)
            return self._models[name]

    def set_task(self, name: str | None) -> None:
        """Make a task's weights the live ones, bit for bit those of its dense checkpoint; None for the base's."""
        with self._lock:
            if name is not None:
                self.mask(name)
            self._check_weights()
            if name == self._active:
                return
            if name is not None and name not in self._decoded:
                self._swap(None, {})
            self._swap(name, {} if name is None else self._changes(name))

    @contextlib.contextmanager
    def disable_tasks(self) -> Iterator[None]:
        """A block in which the live weights are the base's. At its end the task before is live again."""
        with self._lock:
            before = self._active
            self.set_task(None)
            try:
                yield
            finally:
                self.set_task(before if before in self._masks else None)

    def __call__(self, *, task_names: Sequence[str] | None = None, **batch: Any) -> Any:
        """Compute a batch: with the active task's model, or row by row for the task of each row's name.

        ``task_names`` has a name for each row, also ``"__base__"``. What comes back then has ``logits``, a list of a
        tensor for each row, in their order; of a row of the base it is the last hidden state. Rows of one task alone
        are exact; a batch of several rounds otherwise (``docs/live.md`` says how much). Raises UnknownTaskError.
        """
        if task_names is None:
            if self._active is None:
                raise ArgumentError("no task is active", hint="Name the rows' tasks: task_names, or call set_task.")
            return self[self._active](**batch)
        names, count = list(task_names), rows_of(batch)
        if len(names) != count:
            raise ArgumentError(f"{len(names)} task names for a batch of {count} rows")
        if batch.get("labels") is not None:
            raise ArgumentError("a batch of several tasks takes no labels", hint="Leave them out.")
        logits: dict[int, Tensor] = {}
        with self._lock, torch.no_grad():
            before = self._active
            try:
                for chosen in self._kinds(names):
                    part = {key: value[chosen] if isinstance(value, Tensor) else value for key, value in batch.items()}
                    logits |= zip(chosen, self._together([names[row] for row in chosen], part), strict=True)
            finally:
                self.set_task(before)
        return RowOutputs(logits=[logits[row] for row in range(count)])

    def _kinds(self, names: Sequence[str]) -> list[list[int]]:
        """Rows of tasks whose models are alike but for their heads, task by task; the base's are with any."""
        for name in names:
            if name != BASE:
                self.mask(name)
        kinds: dict[tuple[int, type], list[int]] = {}
        order = sorted(range(len(names)), key=lambda row: (names[row] == BASE, names[row]))
        for row in order:
            any_task = names[order[0]] if names[order[0]] != BASE else next(iter(self._masks), None)
            if any_task is None:
                raise UnknownTaskError("no task is loaded", hint="Load one: load_task.")
            model = self[names[row] if names[row] != BASE else any_task]
            encoder = getattr(model, model.base_model_prefix)
            kinds.setdefault((id(encoder), type(model)), []).append(row)
        return list(kinds.values())

    def _together(self, names: Sequence[str], batch: dict[str, Any]) -> list[Tensor]:
        """The answers to rows of one kind, which lie task by task."""
        spans = [(name, *span) for name, span in _spans(names)]
        model = self[names[0] if names[0] != BASE else next(iter(self._masks))]
        if len(spans) > 1 or names[0] == BASE:
            key = id(getattr(model, model.base_model_prefix))
            fits = self._mixes.get(key)
            answers = self._mixed(model, spans, batch) if fits is not False else None
            if answers is not None and (fits or self._right(spans, batch, answers)):
                self._mixes[key] = True
                return answers
            if answers is not None:
                self._mixes[key] = False
        return [answer for name, a, b in spans for answer in self._exact(name, model, _rows(batch, a, b))]

    def _exact(self, name: str, model: PreTrainedModel, batch: dict[str, Any]) -> list[Tensor]:
        if name != BASE:
            return list(self[name](**batch).logits)
        with self.disable_tasks():
            return list(encode(model, {}, batch, Rows([], rows_of(batch)))[0])

    def _right(self, spans: Sequence[tuple[str, int, int]], batch: dict[str, Any], answers: Sequence[Tensor]) -> bool:
        """Whether a mixed batch, the first of its kind, has the answers that each task has alone, but for rounding."""
        for name, a, b in (spans[0], spans[-1]):
            if name != BASE:
                right = self._exact(name, self[name], _rows(batch, a, b))
                near = 1e-3 if right[0].dtype in (torch.float32, torch.float64) else 0.1
                scale = max(float(one.abs().max()) for one in right)
                if any((x - y).abs().max() > near * (1 + scale) for x, y in zip(right, answers[a:b], strict=True)):
                    return False
        return True

    def _mixed(
        self, model: PreTrainedModel, spans: Sequence[tuple[str, int, int]], batch: dict[str, Any]
    ) -> list[Tensor] | None:
        """The answers to a batch whose layers are computed once; None where they cannot be."""
        names = {id(weight): name for name, weight in self._shared.weights.items()}
        masked = {tensor for name, _, _ in spans if name != BASE for tensor in self._masks[name]}
        if not (can_mix(model, names, masked)):
            return None
        count, answers = rows_of(batch), []
        with self.disable_tasks():
            changes = {name: {} if name == BASE else self._changes(name) for name, _, _ in spans}
            try:
                rows = Rows([(a, b, changes[name]) for name, a, b in spans], count)
                encoded = encode(model, names, batch, rows)
            except UnfitError:
                return None
            for name, a, b in spans:
                part = part_of(encoded, a, b, count)
                if name == BASE:
                    answers += part[0].unflatten(0, (b - a, -1)).flatten(1, 2) if len(part[0]) != b - a else part[0]
                else:
                    answers += decide(self[name], names, _rows(batch, a, b), part, changes[name]).logits
        return answers

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
        asked = [inputs] if isinstance(inputs, str | Path | dict) else list(inputs)
        named = self._active if names is None else names
        if named is None:
            raise ArgumentError("no task is active", hint="Name one, or one for each input: names.")
        each = [named] * len(asked) if isinstance(named, str) else list(named)
        if len(each) != len(asked):
            raise ArgumentError(f"{len(each)} task names for {len(asked)} inputs")
        answers: dict[int, Answer] = {}
        together: dict[tuple[int, str], list[int]] = {}
        for row, name in enumerate(each):
            kind = of_mask(self.mask(name).task, "used to predict")
            together.setdefault((id(self.processor(name)), kind.name), []).append(row)
        for rows in together.values():
            told = [each[row] for row in rows]
            found = self._asked([asked[row] for row in rows], told, top_k, batch_size)
            answers |= zip(rows, found, strict=True)
        return [answers[row] for row in range(len(asked))]

    def _asked(self, asked: list[Any], names: list[str], top_k: int | None, batch_size: int) -> list[Answer]:
        """Answers of tasks that read alike: of one task alone exactly, of several in batches together."""
        kind = of_mask(self.mask(names[0]).task)
        examples = Examples("inputs", kind.name, kind.given(asked), [])
        if len({*names}) == 1 or kind.generates:
            found: dict[int, Answer] = {}
            for name in dict.fromkeys(names):
                rows = [row for row, one in enumerate(names) if one == name]
                part = Examples("inputs", kind.name, kind.given([asked[row] for row in rows]), [])
                said = answers_of(
                    self[name], self.processor(name), self.mask(name), part, top_k=top_k, batch_size=batch_size
                )
                found |= zip(rows, said, strict=True)
            return [found[row] for row in range(len(asked))]
        processor, collate = self.processor(names[0]), kind.collator(self.processor(names[0]))
        encoded = [
            kind.encode(
                Examples("inputs", kind.name, kind.given([one]), []), processor, self._labels(name), self._length(name)
            )[0]
            for one, name in zip(asked, names, strict=True)
        ]
        answers: dict[int, Answer] = {}
        for chosen in in_batches([one.get("length", 1) for one in encoded], batch_size, "inputs", None):
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
                decoded=sum(map(_size, self._decoded.values())),
                budget=self._budget,
            )

    def _made(self, maskset: MaskSet, name: str) -> PreTrainedModel:
        """A task's model, which takes the lock and switches to its task whenever it computes."""
        with self.disable_tasks():  # a new kind is made of the base's weights
            model = self._shared.model(maskset)
            self._remember(self._shared.weights.keys() - self._seen.keys())

        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def before(module: Any, arguments: Any) -> None:
            self._lock.acquire()
            if self._models.get(name) is not module:
                raise UnknownTaskError(f"the task {name!r} was deleted")
            self.set_task(name)

        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def after(module: Any, arguments: Any, output: Any) -> None:
            self._lock.release()

        model.register_forward_pre_hook(before)
        model.register_forward_hook(after, always_call=True)
        return model

    def _swap(self, name: str | None, new: Changes) -> None:
        """Put the base's values back, and drop what the new task drops.

        Each step may be done twice, and ``_applied`` names all that may be dropped: so an interruption anywhere leaves
        what the next switch puts right.
        """
        self._active = None
        with torch.no_grad():
            for tensor in {**self._applied, **new}:
                elements = words(self._shared.weights[tensor])
                if (old := self._applied.get(tensor)) is not None:
                    old.restore(elements)
                    del self._applied[tensor]
                if (change := new.get(tensor)) is not None:
                    self._applied[tensor] = change
                    change.drop(elements)
                self._remember([tensor])
        self._active = name

    def _changes(self, name: str) -> Changes:
        """What a task drops: decoded before, or now, and checked, while the live weights are the base's.

        Where it is too much together, the decoded masks of the tasks that were not used for longest are forgotten.
        """
        if name in self._decoded:
            self._decoded.move_to_end(name)
            return self._decoded[name]
        weights, masks = self._shared.weights, self._masks[name]
        with ThreadPoolExecutor(workers()) as pool:  # codecs and hashes work outside the interpreter lock
            found = pool.map(lambda tensor: dropped(masks[tensor], words(weights[tensor])), masks)
            self._decoded[name] = {tensor: change for tensor, change in zip(masks, found, strict=True) if change}
        while len(self._decoded) > 1 and sum(map(_size, self._decoded.values())) > self._budget:
            self._decoded.popitem(last=False)
        return self._decoded[name]

    def _check_base(self, maskset: MaskSet) -> None:
        self._digests |= digests(self.base, [name for name in maskset.base.tensors if name not in self._digests])
        if differ := maskset.base.differing(self._digests):
            raise mismatch(self.base, maskset, differ)

    def _remember(self, names: Any) -> None:
        """How these weights are now."""
        for name in names:
            weight = self._shared.weights[name]
            if name not in self._seen:
                places = torch.randint(max(weight.numel(), 1), (SAMPLE if weight.numel() else 0,), device=weight.device)
                self._samples[name] = places, words(weight)[places]
            self._seen[name] = _state(weight)

    def _check_weights(self) -> None:
        """BaseChangedError where somebody else moved, cast or changed the weights since the last switch.

        Of what torch does not count as a change, as of ``.data``, a sample is looked at, of a few tensors each time.
        """
        weights = self._shared.weights
        for name, weight in weights.items():
            if self._seen[name] != _state(weight):
                raise BaseChangedError(f"{name} was changed, moved or cast by someone else", hint=CURE)
        names = list(weights)
        for name in names[self._turn : self._turn + LOOKS]:
            places, right = self._samples[name]
            found = words(weights[name])[places]
            wrong = found != right
            if name in self._applied:  # some are dropped
                wrong &= found != 0
            if wrong.any():
                raise BaseChangedError(f"{name} was changed by someone else", hint=CURE)
        self._turn = (self._turn + LOOKS) % max(len(names), 1)


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


def _state(weight: Tensor) -> tuple[Any, ...]:
    return weight.data_ptr(), weight._version, weight.dtype, weight.device, weight.shape
