"""Random generators that are derived from their purpose: no two uses share one, and no global generator is read."""

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

_GLOBAL = threading.RLock()  # the global generators belong to the process, so one thread at a time may draw from them


def seed_of(*parts: object) -> int:
    """A seed in [0, 2**63) derived from the parts, equal on every machine and in every process.

    Parts are numbers and strings such as (seed, trial, training, purpose); numpy integers count as Python integers.
    """
    # repr of a numpy integer is np.int64(3); as a plain number, equal parts give equal seeds
    words = "/".join(repr(int(part)) if isinstance(part, Integral) else repr(part) for part in parts)
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator for the purpose that the parts name (see `seed_of`)."""
    import torch

    return torch.Generator().manual_seed(seed_of(*parts))


@contextmanager
def global_draws(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Restore the global generators of torch, numpy and Python at the end; yields a function that seeds them.

    Other threads that call this wait meanwhile. Modules and datasets of users draw from these generators.
    torch.manual_seed would do the same for torch's at a hundred times the cost.
    """
    import numpy as np
    import torch

    on_gpu = device.type == "cuda"
    with _GLOBAL, torch.random.fork_rng([device] if on_gpu else []), others_kept():
        generators = [torch.default_generator]
        if on_gpu:
            index = torch.cuda.current_device() if device.index is None else device.index
            generators.append(torch.cuda.default_generators[index])

        def seed(number: int) -> None:
            for generator_ in generators:
                generator_.manual_seed(number)
            np.random.seed(number % 2**32)  # noqa: NPY002  (the global one is meant)
            random.seed(number)

        yield seed


@contextmanager
def others_kept() -> Iterator[None]:
    """Restore the global generators of numpy and Python at the end."""
    import numpy as np

    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)
