"""Networks by name, and the properties of any network that pruning needs."""

from lth.models.architecture import Architecture
from lth.models.counting import (
    AUTOMATIC,
    Choice,
    aliases,
    computed,
    counted,
    format_not_counted,
    groups,
    matches,
    norm_parameters,
    not_counted,
)
from lth.models.networks import architecture, build, choice_of, first_weights, groups_of, left_out, new_weights
from lth.models.parameters import (
    everywhere,
    load,
    not_stored,
    parameters,
    stored,
    tensors,
    tied,
    unwrapped,
)

__all__ = [
    "AUTOMATIC",
    "Architecture",
    "Choice",
    "aliases",
    "architecture",
    "build",
    "choice_of",
    "computed",
    "counted",
    "everywhere",
    "first_weights",
    "format_not_counted",
    "groups",
    "groups_of",
    "left_out",
    "load",
    "matches",
    "new_weights",
    "norm_parameters",
    "not_counted",
    "not_stored",
    "parameters",
    "stored",
    "tensors",
    "tied",
    "unwrapped",
]
