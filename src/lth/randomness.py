"""Generators made of what they are for, so that no two uses share one and nothing reads a global generator."""

from __future__ import annotations

import hashlib
import random
import threading
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

_GLOBAL = threading.RLock()  # the global generators are the process's: one thread at a time draws from them


def seed_of(*parts: object) -> int:
    """A seed in [0, 2**63) made of the parts, the same on every machine and in every process.

    Parts are numbers and strings such as (seed, trial, training, purpose); numpy's integers count as Python's.
    """
    # A numpy integer prints as np.int64(3): written as a plain number, equal parts give equal seeds.
    words = "/".join(repr(int(part)) if isinstance(part, Integral) else repr(part) for part in parts)
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator of its own for the use that the parts name (see `seed_of`)."""
    import torch

    return torch.Generator().manual_seed(seed_of(*parts))


@contextmanager
def global_draws(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Leave the global generators as they were, whatever is drawn inside; yields what seeds them.

    Other threads wait meanwhile: they would draw what this one seeded, and seed what it draws.

    They are torch's, numpy's and Python's: modules and datasets of other people know no others. torch.manual_seed does
    the same for its own at a hundred times the cost.
    """
    import numpy as np
    import torch

    on_gpu = device.type == "cuda"
    with _GLOBAL, torch.random.fork_rng([device] if on_gpu else []), others_kept():
        own = [torch.default_generator]
        if on_gpu:
            index = torch.cuda.current_device() if device.index is None else device.index
            own.append(torch.cuda.default_generators[index])

        def seed(number: int) -> None:
            for one in own:
                one.manual_seed(number)
            np.random.seed(number % 2**32)  # noqa: NPY002  (the global one is meant)
            random.seed(number)

        yield seed


@contextmanager
def others_kept() -> Iterator[None]:
    """Leave numpy's and Python's global generators as they were."""
    import numpy as np

    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)
