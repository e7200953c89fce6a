"""Networks by name, and what pruning has to know of any network."""

from lth.models.architecture import Architecture
from lth.models.networks import architecture, build, first_weights, new_weights
from lth.models.parameters import (
    computed,
    counted,
    everywhere,
    groups,
    load,
    norm_parameters,
    parameters,
    stored,
    tensors,
    tied,
    unwrapped,
)

__all__ = [
    "Architecture",
    "architecture",
    "build",
    "computed",
    "counted",
    "everywhere",
    "first_weights",
    "groups",
    "load",
    "new_weights",
    "norm_parameters",
    "parameters",
    "stored",
    "tensors",
    "tied",
    "unwrapped",
]
