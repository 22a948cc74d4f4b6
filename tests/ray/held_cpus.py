"""CPUs of the cluster that something else holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray


class _Holder:
    def is_ready(self) -> bool:
        return True


@contextlib.contextmanager
def cpus_held_elsewhere(count: int) -> Iterator[None]:
    """An actor holds `count` CPUs while the block runs: the count of a pipeline does not know it."""
    create: Any = ray.remote(num_cpus=count)(_Holder)
    holder = create.remote()
    ray.get(holder.is_ready.remote())
    try:
        yield
    finally:
        ray.kill(holder)
