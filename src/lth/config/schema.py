"""The experiment's tables: frozen, validated all at once. The description of each field is its help text."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lth.config.fields import (
    MOST_EVALUATIONS,
    MOST_LEVELS,
    MOST_SCALE,
    MOST_SIGMA,
    MOST_TRAININGS,
    MOST_WEIGHTS,
    Fraction,
    Levels,
    Positive,
    Real,
    Text,
    Value,
    Whole,
)
from lth.config.names import (
    BRANCHES,
    CONTINUED,
    DATASETS,
    MODEL_OPTIONS,
    MODELS,
    PRUNED,
    SCORES,
    is_own,
    is_path,
    known_name,
    nearest,
    nearest_key,
    shown,
    sigma_in,
)
from lth.config.recipe import Recipe
from lth.errors import UsageError

ADDABLE = {"trials", "levels", "branch", "name", "about", "store"}  # what can be added to a run, or changed in it


# Contradictions are found by validators of fields, which see the fields above them that are valid: so all of them are
# said at once with whatever else is wrong. A validator of a whole table would be silent while any field is wrong.


class Data(Value):
    name: Text = Field(
        default="mnist", description="a dataset of `lth list datasets`, a folder of images, or an .npz file"
    )
    validation: Positive = Field(
        default=5000, description="training examples split off at random, by seed, for validation"
    )
    mean: tuple[Annotated[Real, Field(ge=-1e6, le=1e6)], ...] = Field(
        default=(), description="a number a channel, taken from its values; pixels are 0 to 1, and stay so without it"
    )
    std: tuple[Annotated[Real, Field(ge=1e-6, le=1e6)], ...] = Field(
        default=(), description="a number a channel, by which they are then divided"
    )

    @field_validator("name", mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        if not isinstance(given, Path):
            return given
        return str(given) if is_path(str(given)) else f"./{given}"  # a Path forgets the dot of ./photos

    @field_validator("std")
    @classmethod
    def _with_mean(cls, std: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        mean = info.data.get("mean")
        if mean is not None and len(mean) != len(std):
            raise ValueError(
                f"it has {len(std)} numbers, and data.mean {len(mean)}: give both, one number for each channel"
            )
        return std

    @field_validator("name")
    @classmethod
    def known_name_name(cls, name: str) -> str:
        if not is_path(name):
            known_name(
                "dataset", name, DATASETS, "lth list datasets", f"one of your own has a slash: ./{name or 'FOLDER'}"
            )
        return name


class Model(Value):
    name: Text = Field(default="lenet", description="a model of `lth list models`, or FILE.py:FUNCTION for one's own")
    sha256: str | None = Field(default=None, description="of the file of a network of one's own; a record")
    layers: tuple[Positive, ...] | None = Field(
        default=None, description="units of each hidden layer of lenet; [300, 100] unless given"
    )
    dropout: Real = Field(
        default=0.0, ge=0, lt=1, description="share of each hidden fully connected layer's units dropped while training"
    )
    init_sigma: Real | None = Field(
        default=None,
        gt=0,
        le=MOST_SIGMA,
        description="sigma of the Gaussian, not truncated, that first weights are drawn from; Glorot unless given",
    )

    @field_validator("name")
    @classmethod
    def known_name_name(cls, name: str) -> str:
        if is_own(name):
            path, _, function = name.rpartition(":")
            if not path.endswith(".py") or not function.isidentifier():
                raise ValueError(f"{shown(name)}: a network of one's own is FILE.py:FUNCTION, such as my.py:build")
            return name
        return known_name("model", name, MODELS, "lth list models")

    @field_validator("init_sigma")
    @classmethod
    def _drawn_here(cls, given: float | None, info: ValidationInfo) -> float | None:
        if given is not None and is_own(info.data.get("name", "")):
            raise ValueError("it would do nothing: a network of one's own draws its own first weights; leave it out")
        return given

    @field_validator("layers")
    @classmethod
    def _of_lenet(cls, layers: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if layers is None:
            return (300, 100) if info.data.get("name") == "lenet" else None
        weights = sum(a * b for a, b in itertools.pairwise((1, *layers)))
        if weights > MOST_WEIGHTS or len(layers) > 1000:
            raise ValueError(f"at most {MOST_WEIGHTS:,} weights and 1,000 layers; not {shown(list(layers))}")
        return _not_idle("layers", layers, info)

    @field_validator("dropout")
    @classmethod
    def _where_it_can(cls, dropout: float, info: ValidationInfo) -> float:
        return _not_idle("dropout", dropout, info) if dropout else dropout


def _not_idle(option: str, value: Any, info: ValidationInfo) -> Any:
    name = info.data.get("name")
    if name and option not in (set() if is_own(name) else MODEL_OPTIONS.get(name, {option})):
        raise ValueError(f"it would do nothing: {name} has no such setting; leave it out")
    return value


class Prune(Value):
    groups: Annotated[tuple[Literal["conv", "fc", "output", "shortcut"], ...], Field(min_length=1)] | None = Field(
        default=None,
        description="the layers that are pruned: conv, fc, output, shortcut; all but shortcut unless given",
    )
    scope: Literal["layerwise", "global"] = Field(
        default="layerwise", description="what competes: the weights of a layer, or those of all pruned layers"
    )
    rate: Fraction = Field(default=0.2, description="share of a layer's surviving weights that a level removes")
    conv_rate: Fraction | None = Field(default=None, description="the convolutions' rate; as rate unless given")
    output_factor: Real = Field(
        default=0.5,
        ge=0,
        le=1,
        description="the output layer's rate as a multiple of rate: 0.5, or 1 with scope global, unless given",
    )
    rates: tuple[Fraction, ...] = Field(
        default=(), description="rates of levels 1, 2, ... in place of rate; for oneshot, each of the whole network"
    )
    densities: tuple[Fraction, ...] = Field(
        default=(), description="overall densities of levels 1, 2, ... in place of rates"
    )
    score: str = Field(default="magnitude", description="what ranks the weights: `lth list scores`")

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("output_factor") is None:
            groups = given.get("groups")
            whole = isinstance(groups, list | tuple) and "output" not in groups
            given = dict(given) | {"output_factor": 0.0 if whole else 1.0 if given.get("scope") == "global" else 0.5}
        return given

    @field_validator("conv_rate", "output_factor")
    @classmethod
    def _at_one_rate(cls, given: float | None, info: ValidationInfo) -> float | None:
        pruned = info.data.get("groups") or PRUNED
        if info.data.get("scope") == "global" and "groups" in info.data:
            slower = given not in (None, info.data.get("rate", given))
            if info.field_name == "conv_rate" and slower and pruned != ("conv",):
                raise ValueError("with scope global all layers compete at one rate: give rate alone")
            if info.field_name == "output_factor" and given not in (0, 1) and "output" in pruned:
                raise ValueError(
                    f"with scope global all layers compete at one rate: output_factor = {given:g} would do "
                    "nothing; give 1, or 0 to leave the output layer whole"
                )
        return given

    @field_validator("densities")
    @classmethod
    def _falling(cls, densities: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if densities and info.data.get("rates"):
            raise ValueError("rates and densities are two ways to say the same: give one of them")
        if any(b >= a for a, b in itertools.pairwise(densities)):
            raise ValueError(f"densities must fall from level to level: {shown(list(densities))}")
        return densities

    @field_validator("score")
    @classmethod
    def known_name_score(cls, score: str) -> str:
        return known_name("score", score, SCORES, "lth list scores")

    @property
    def pruned(self) -> tuple[str, ...]:
        """The groups of layers that are pruned; the others keep all their weights."""
        return self.groups or PRUNED

    @property
    def idle(self) -> dict[str, str]:
        """The keys that do nothing beside the others, each with the reason.

        A preset or a stored experiment may have them, which holds all keys; who gives one by hand means something.
        """
        found: dict[str, str] = {}
        convs = "conv" in self.pruned
        of_their_own = convs and self.conv_rate is not None  # a rate beside `rate`, whose ratio to it counts
        at_one_rate = self.scope == "global" or len({*self.pruned}) == 1
        if self.rates and not of_their_own:
            found["rate"] = "prune.rates stand in its place"
        if self.densities and (at_one_rate or not of_their_own):
            found["rate"] = "prune.densities stand in its place"
        if self.densities and at_one_rate:
            found["conv_rate"] = "prune.densities say how much goes, all of it at one rate"
        if not self.rates and not self.densities and of_their_own and {*self.pruned} == {"conv"}:
            found["rate"] = "only convolutions are pruned, at prune.conv_rate"
        if not convs:
            found["conv_rate"] = "prune.groups leave the convolutions whole"
        if "output" not in self.pruned:
            found["output_factor"] = "prune.groups leave the output layer whole"
        return found


class Branch(Value):
    name: str = Field(description="of `lth list branches`, or any with mask and start")
    count: Positive = Field(default=1, description="trainings at each level")
    levels: Levels | None = Field(
        default=None, description='levels that it hangs off, such as "1-18"; all from 1 unless given'
    )
    iterations: Positive | None = Field(default=None, description="updates in one training; the recipe's unless given")
    mask: Literal["ticket", "random", "initial"] | None = Field(default=None, description="mask rule")
    start: Literal["trial", "fresh", "noise", "sampled"] | None = Field(default=None, description="start rule")
    sigma: Real | None = Field(
        default=None,
        gt=0,
        le=MOST_SIGMA,
        description="of start rule noise, in multiples of the layer's initialisation's; noise-0.5 has 0.5",
    )

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if name in ("ticket", CONTINUED):
            raise ValueError(f"a branch cannot be called {name!r}: the trunk's trainings are")
        if not re.fullmatch(r"[a-z][a-z0-9.-]{0,49}", name):
            known_name("branch", name, BRANCHES, "lth list branches", "names are of small letters, digits, . and -")
        return name

    @field_validator("mask", "start")
    @classmethod
    def _rule(cls, given: Any, info: ValidationInfo) -> Any:
        """The branch's own rule, else that of its name; a branch of another name has both."""
        name = info.data.get("name")
        kind = "noise" if name and sigma_in(name) is not None else name
        if given is None and kind in BRANCHES:
            return BRANCHES[kind][0 if info.field_name == "mask" else 1]
        if info.field_name == "start" and name and None in (given, info.data.get("mask", "wrong")):
            known_name("branch", name, BRANCHES, "lth list branches", "any other has both mask and start")
        return given

    @field_validator("sigma", mode="before")
    @classmethod
    def _of_noise(cls, given: Any, info: ValidationInfo) -> Any:
        """Given or said by the name, and not two different ones; before the bounds, which hold for both."""
        name, start = info.data.get("name"), info.data.get("start")
        if not name or not start:  # they are wrong themselves, which is said already
            return given
        said = sigma_in(name)
        if start != "noise":
            if given is not None:
                raise ValueError(f"it would do nothing: {name} starts by rule {start}, not noise; leave it out")
            if said is not None:
                raise ValueError(f"{name} says that it is noise, but starts by rule {start}; give it another name")
            return None
        if given is None and said is None:
            raise ValueError(f"start rule noise needs it: give sigma = 0.5 to {name}, or name the branch noise-0.5")
        if said is not None and given not in (None, said):
            raise ValueError(f"{name} says {said:g}, but sigma is {shown(given)}; leave it out")
        return said if given is None else given

    @property
    def labels(self) -> list[str]:
        """The names of its trainings at one level: `reinit-1`, `reinit-2`, ..."""
        return [f"{self.name}-{n}" for n in range(1, self.count + 1)]


class Store(Value):
    keep: Literal["all", "last", "tickets"] = Field(
        default="all",
        description="whose trained weights stay on disk: all, those that a further level would need, or only tickets",
    )


class Experiment(Value):
    name: str = Field(description="names the run's folder")
    about: Text = Field(default="", description="what it shows, in a line")
    seed: Whole = Field(
        default=1, ge=0, lt=2**63, description="all randomness is drawn from this number and the use it is put to"
    )
    trials: Positive = Field(default=5, description="repetitions, each with its own start and batches")
    levels: Whole = Field(default=24, ge=0, le=MOST_LEVELS, description="prunings; level 0 is the unpruned network")
    strategy: Literal["resetting", "continued", "oneshot"] = Field(
        default="resetting", description="how masks are found"
    )
    scale: Real = Field(
        default=1.0, gt=0, le=MOST_SCALE, description="what --scale multiplied the iterations by; a record"
    )
    ticket: Text | None = Field(
        default=None, description="a ticket file: level 0 is this ticket, in place of the unpruned network"
    )
    ticket_sha256: str | None = Field(default=None, description="of the ticket file; a record")
    data: Data = Field(default_factory=lambda: Data())
    model: Model = Field(default_factory=lambda: Model())
    recipe: Recipe
    prune: Prune = Field(default_factory=lambda: Prune())
    store: Store = Field(default_factory=lambda: Store())
    branch: tuple[Branch, ...] = ()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                f"{shown(name)} cannot name a folder here: expected letters, digits, '.', '_' and '-', 100 at most, "
                "the first of them a letter or digit"
            )
        return name

    @field_validator("prune")
    @classmethod
    def _as_long_as_levels(cls, prune: Prune, info: ValidationInfo) -> Prune:
        levels = info.data.get("levels", 0)
        for key, ladder in (("densities", prune.densities), ("rates", prune.rates)):
            if ladder and levels > len(ladder):
                most = len(ladder)
                raise ValueError(f"levels = {levels}, but {key} names {most}: give --levels {most} or more of them")
        rising = all(b > a for a, b in itertools.pairwise(prune.rates))
        if info.data.get("strategy") == "oneshot" and not rising:
            raise ValueError(
                f"for oneshot, prune.rates are of the whole network and must rise: {shown(list(prune.rates))}"
            )
        return prune

    @field_validator("branch")
    @classmethod
    def _once_each(cls, branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
        names = [branch.name for branch in branches]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"branches are named once each; twice: {', '.join(twice)}")
        return branches

    @model_validator(mode="after")
    def _can_be_done(self) -> Experiment:
        each_trial = (1 + self.levels) + (self.levels if self.strategy == CONTINUED else 0)
        each_trial += sum(
            b.count * sum(n <= self.levels for n in b.levels or range(1, self.levels + 1)) for b in self.branch
        )
        trainings = self.trials * each_trial
        if trainings > MOST_TRAININGS:
            raise ValueError(f"trials, levels and branches make {trainings:,} trainings; at most {MOST_TRAININGS:,}")
        for iterations in [self.recipe.iterations, *(b.iterations or 0 for b in self.branch)]:
            if iterations // self.recipe.eval_every > MOST_EVALUATIONS:
                raise ValueError(
                    f"{iterations:,} iterations with recipe.eval_every = {self.recipe.eval_every:,} make more than "
                    f"{MOST_EVALUATIONS:,} evaluations a training: give a larger eval_every"
                )
        return self

    @property
    def folder_name(self) -> str:
        return self.name if self.scale == 1 else f"{self.name}-scale{self.scale:g}"

    def leading_to(self, level: int) -> dict[str, Any]:
        """All that leads to `level`: not trials, levels and branches, which may be added to a finished run."""
        own = identity(self)
        for ladder in ("rates", "densities"):
            own["prune"][ladder] = own["prune"][ladder][:level]
        return own

    def digest(self, level: int) -> str:
        """Of all that leads to `level`: not trials, levels and branches, which may be added to a finished run.

        What is as its default is left out, so that a setting which a later version brings changes no digest.
        """
        own = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude=ADDABLE)
        for ladder in ("rates", "densities"):
            if given := own.get("prune", {}).pop(ladder, [])[:level]:
                own["prune"][ladder] = given
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    def branches_at(self, level: int) -> list[Branch]:
        return [b for b in self.branch if level > 0 and (b.levels is None or level in b.levels)]

    def recipe_of(self, branch: Branch) -> Recipe:
        return (
            self.recipe
            if branch.iterations is None
            else self.recipe.model_copy(update={"iterations": branch.iterations})
        )


def plain(value: BaseModel) -> dict[str, Any]:
    """The value as tables of plain numbers and texts."""
    return value.model_dump(mode="json", exclude_none=True)


def identity(experiment: Experiment) -> dict[str, Any]:
    """What makes two experiments the same: all but what can be added to a run, and its name."""
    return experiment.model_dump(mode="json", exclude_none=True, exclude=ADDABLE)


def keys(model: type[BaseModel] = Experiment, prefix: str = "") -> dict[str, str]:
    """Every key that `key=value` can set, with its help text."""
    found = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= keys(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description or ""
    return found


def takes_list(key: str) -> bool:
    """Whether a key's own value is a list, such as model.layers."""
    model: Any = Experiment
    *tables, name = key.split(".")
    for table in tables:
        model = model.model_fields[table].annotation
    return "tuple[" in str(model.model_fields[name].annotation)


def validated(tables: Mapping[str, Any]) -> Experiment:
    """Raises UsageError naming every problem at once."""
    try:
        return Experiment.model_validate(tables)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
    raise UsageError("\n".join([*map(_problem, problems[:20]), *more]))


_EXPECTED = {  # pydantic's types of errors, where its own words are for programmers
    "int_from_float": "expected a whole number",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a text in quotes",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list, such as [1, 2]",
}


def _problem(problem: Any) -> str:
    """One of pydantic's errors in a line: what was given, what was expected, the nearest valid name."""
    kind, place = problem["type"], problem["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    message = problem["msg"].removeprefix("Value error, ")
    known = keys() | keys(Branch, "branch.") | dict.fromkeys(("data", "model", "recipe", "prune"), "")
    plain = ".".join(part for part in place if isinstance(part, str))
    if kind == "extra_forbidden":
        if plain in known and plain == place[-1]:
            table, _, name = plain.rpartition(".")
            return f"{plain} as one word is no key: give {name} in the table {table}"
        return f"unknown key {shown(where)}{nearest_key(plain, known)} (see `lth show lenet`)"
    if kind == "missing":
        return f"{where} is missing{': ' * bool(known.get(plain))}{known.get(plain, '')}"
    if kind == "value_error":
        return f"{where}: {message}" if where and not message.startswith("unknown ") else message
    if place == ("branch",):
        kind, message = "", 'expected tables, each below a line [[branch]] and with a name, such as "reinit"'
    elif kind in ("model_type", "model_attributes_type"):
        message = "expected a table"
    elif kind == "literal_error":
        names = re.findall("'([^']*)'", problem["ctx"]["expected"])
        message = f"expected {', '.join(names)}{nearest(str(problem['input']), names)}"
    return f"{where} = {shown(problem['input'])}: {_EXPECTED.get(kind, message.replace('Input should be', 'expected'))}"
