"""Work on live weights by all processors: what torch does of it in one call is too little for its own threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from maskhub.storage.work import workers

T = TypeVar("T")


class Threads:
    """Threads that stay. They compute as their caller does: with gradients or without, in inference mode or not.

    For what waits for memory, as switches do: small products are no quicker so, as torch's own threads spin between.
    """

    def __init__(self) -> None:
        self._count = workers()
        self._pools: dict[int, ThreadPoolExecutor] = {}  # by process: a forked one lacks the threads of the other

    def each(self, work: Callable[[T], object], items: Sequence[T]) -> None:
        """Do some work for each item. What the first that failed raised is raised when all are done or given up."""
        if self._count == 1 or len(items) < 2:
            for item in items:
                work(item)
            return
        inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def some(part: Sequence[T]) -> None:
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                for item in part:
                    work(item)

        pool = self._pools.get(os.getpid()) or self._pools.setdefault(os.getpid(), ThreadPoolExecutor(self._count))
        waiting = [pool.submit(some, items[first :: self._count]) for first in range(1, self._count)]
        try:
            some(items[:: self._count])
        finally:
            errors = [done.exception() for done in waiting]  # which waits
        for error in filter(None, errors):
            raise error
