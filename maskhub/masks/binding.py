"""What a mask belongs to: the exact base it was made on, and the task whose model it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from maskhub.storage import digest

# `$` also matches before a last newline; the length and `(?!\n)` shut that out.
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Hint = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
Name = Annotated[str, msgspec.Meta(pattern="^[^\\x00-\\x1f\\x7f]+(?!\\n)$", max_length=1024)]
Prefix = Annotated[str, msgspec.Meta(pattern="^[^\\x00-\\x1f\\x7f]*(?!\\n)$", max_length=1024)]


class HubRevision(msgspec.Struct, frozen=True):
    """Where on the Hub the base came from; ``files`` maps file names to their SHA-256."""

    id: str
    commit: str
    files: dict[str, Digest] = {}


class BaseBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The exact base model a mask belongs to.

    ``name`` is how a person asks for it (Hub id or folder). What counts is ``root``, the digest over the digests of all
    base tensors that the masked model reads. ``tensors`` has their names, each with the first digits of its digest:
    they tell which tensor differs where the root does. The task model calls a base tensor ``parameter_prefix`` + its
    name, or as ``parameters`` says.
    """

    name: str
    root: Digest
    tensors: dict[Name, Hint]
    parameter_prefix: Prefix = ""
    parameters: dict[Name, Name] = {}
    hub: HubRevision | None = None

    def parameter(self, name: str) -> str:
        """The task model's parameter name for the base tensor ``name``."""
        return self.parameters.get(name) or self.parameter_prefix + name

    def differing(self, digests: Mapping[str, str]) -> list[str]:
        """The tensors that have other ``digests`` than the base has, sorted; all where none can be told."""
        if digest.base_root({name: digests[name] for name in self.tensors}) == self.root:
            return []
        differ = [name for name, hint in self.tensors.items() if not digests[name].startswith(hint)]
        return sorted(differ or self.tensors)

    @classmethod
    def of(
        cls, name: str, digests: Mapping[str, str], parameters: Mapping[str, str], hub: HubRevision | None
    ) -> BaseBinding:
        """Bind to base tensors by ``digests``; ``parameters`` gives the task model's name of each."""
        prefixes = [parameters[n].removesuffix(n) for n in digests if parameters[n].endswith(n)]
        prefix = max(set(prefixes), key=lambda p: (prefixes.count(p), p), default="")
        return cls(
            name,
            digest.base_root(digests),
            {name: digests[name][: digest.HINT] for name in sorted(digests)},
            prefix,
            {n: parameters[n] for n in sorted(digests) if parameters[n] != prefix + n},
            hub,
        )


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is needed to rebuild the task model around the masked weights.

    ``config`` overrides keys of the base's ``config.json`` (``id2label``, ...); ``tokenizer`` names another
    tokenizer than the base's own; ``max_length`` is the length in tokens that examples are cut to.
    """

    type: str
    architecture: str
    config: dict[str, Any] = {}
    tokenizer: str | None = None
    max_length: int | None = None
