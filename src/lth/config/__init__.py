"""The experiment as an immutable value that is validated as a whole and complete when resolved."""

from lth.config import registry as registry
from lth.config.branch import Branch, sigma_in
from lth.config.data import Data, is_path
from lth.config.experiment import Experiment
from lth.config.fields import MOST_LEVELS, MOST_SCALE, MOST_WEIGHTS
from lth.config.keys import keys
from lth.config.merging import merge
from lth.config.model import Model
from lth.config.names import nearest, nearest_key, printable, shown
from lth.config.naming import describe
from lth.config.prune import Prune
from lth.config.recipe import Recipe
from lth.config.registry import (
    BRANCHES,
    CONTINUED,
    DATASETS,
    GROUPS,
    MASK_RULES,
    MODELS,
    SCORES,
    START_RULES,
    STRATEGIES,
    TASKS,
)
from lth.config.resolution import approve_typed, approved_code, recorded, resolve, resolve_with_notes, scaled
from lth.config.settings import as_settings, parse_branches, parse_override, to_setting
from lth.config.sweeping import member_name, sweep
from lth.config.toml import deep_copy, presets, read, to_toml
from lth.config.userfile import is_custom

__all__ = [
    "BRANCHES", "CONTINUED", "DATASETS", "GROUPS", "MASK_RULES", "MODELS", "MOST_LEVELS", "MOST_SCALE",
    "MOST_WEIGHTS", "SCORES", "START_RULES", "STRATEGIES", "TASKS", "Branch", "Data", "Experiment", "Model", "Prune",
    "Recipe", "approve_typed", "approved_code", "as_settings", "deep_copy", "describe", "is_custom", "is_path",
    "keys", "member_name", "merge", "nearest", "nearest_key", "parse_branches", "parse_override", "presets",
    "printable", "read", "recorded", "resolve", "resolve_with_notes", "scaled", "shown", "sigma_in", "sweep",
    "to_setting", "to_toml",
]  # fmt: skip
