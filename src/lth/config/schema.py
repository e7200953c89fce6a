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
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
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
from lth.config.registry import OPTIMIZERS, SCHEDULES, RecipePart
from lth.errors import UsageError

# Far beyond what anybody trains, and near enough that a slip of the keyboard is refused instead of filling the memory.
MOST_LEVELS, MOST_TRAININGS, MOST_EVALUATIONS, MOST_WEIGHTS, MOST_SCALE = 10_000, 100_000, 1_000_000, 10**9, 1000
MOST_SIGMA = 1000
ADDABLE = {"trials", "levels", "branch", "name", "about", "store"}  # what can be added to a run, or changed in it


def _number(value: Any) -> Any:
    """Refuse what pydantic would read as a number, but nobody means as one: true and "0.1"."""
    if isinstance(value, bool | str | bytes):
        raise ValueError(f"expected a number, not {shown(value)}")
    return value


def _unicode(text: str) -> str:
    """Refuse what no TOML file could hold: bytes of the command line that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected text in UTF-8, not {shown(text)}") from None
    return text


def _level_list(value: Any) -> Any:
    """Take "1-18" or "1-3,7" for a list of levels."""
    if not isinstance(value, str):
        return value
    levels: list[int] = []
    for part in value.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isdecimal() and len(end) <= len(str(MOST_LEVELS)) for end in ends):
            raise ValueError(f'levels are numbers and ranges, such as "1-18" or [1, 2, 3]; not {shown(value)}')
        first, last = int(ends[0]), int(ends[-1])
        if first > last:
            raise ValueError(f"{first}-{last} runs backwards; write {last}-{first}")
        levels += range(first, last + 1)
    return levels


def _level_set(levels: tuple[int, ...]) -> tuple[int, ...]:
    if not levels:
        raise ValueError('no level is named; give some, such as "1-18" or [1, 2, 3], or leave levels out for all')
    return tuple(sorted(set(levels)))


Text = Annotated[str, AfterValidator(_unicode)]
Switch = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]
Fraction = Annotated[Real, Field(gt=0, lt=1)]
Positive = Annotated[Whole, Field(ge=1, le=10**12)]
Level = Annotated[Whole, Field(ge=1, le=MOST_LEVELS)]
Levels = Annotated[tuple[Level, ...], BeforeValidator(_level_list), AfterValidator(_level_set)]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


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


def _options(part: str, choices: Mapping[str, RecipePart], info: ValidationInfo) -> tuple[str, ...]:
    """The keys that the chosen optimizer or schedule takes; no keys where the choice itself is invalid."""
    return choices[info.data[part]].options if part in info.data else ()


def _taken_by(key: str, part: str, choices: Mapping[str, RecipePart], info: ValidationInfo) -> None:
    """Raise ValueError where the chosen optimizer or schedule does not take `key`."""
    if part in info.data and key not in _options(part, choices, info):
        names = " or ".join(f'"{name}"' for name, choice in choices.items() if key in choice.options)
        raise ValueError(f'it is for recipe.{part} = {names}, but the {part} is "{info.data[part]}"')


class Recipe(Value):
    optimizer: Text = Field(default="adam", description=f"one of {', '.join(OPTIMIZERS)}")
    lr: Real = Field(gt=0, description="learning rate")
    momentum: Fraction | None = Field(
        default=None, description="momentum of the optimizers momentum and nesterov; 0.9 unless given"
    )
    weight_decay: Real = Field(
        default=0.0, ge=0, description="L2 penalty on weights and biases; for adamw, decoupled weight decay"
    )
    clip: Real | None = Field(
        default=None,
        gt=0,
        description="largest norm of the whole gradient, scaled down where it is larger; off unless given",
    )
    iterations: Positive = Field(description="updates in one training")
    batch: Positive = Field(default=60, description="examples in an update; the last batch of an epoch may be smaller")
    warmup: Whole = Field(
        default=0, ge=0, le=10**12, description="iterations over which the learning rate rises linearly from 0"
    )
    schedule: Text = Field(default="steps", description=f"learning rate after warmup: one of {', '.join(SCHEDULES)}")
    drops: tuple[Positive, ...] = Field(
        default=(), description="iterations after which the learning rate falls tenfold"
    )
    eval_every: Positive = Field(
        default=100, description="evaluations: iteration 1, every so many after it, and the last"
    )
    test_every: Positive | None = Field(
        default=None, description="the same for the test set: a multiple of eval_every, which it is unless given"
    )
    report_at: tuple[Positive, ...] = Field(default=(), description="iterations whose accuracies become columns")
    train_accuracy: Switch = Field(
        default=True, description="evaluate the training set at early stop and at the end; else these columns are blank"
    )
    augment: Switch = Field(
        default=False, description="flip training images at random, and crop them at random from a border of 4 pixels"
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="numbers to compute in: auto is bfloat16 for convolutions where the hardware has it, else float32",
    )
    compile: Switch = Field(
        default=False, description="run the network through torch.compile: once for all trainings; it pays on a GPU"
    )

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        return known_name("optimizer", name, OPTIMIZERS, "lth list optimizers")

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, name: str) -> str:
        return known_name("schedule", name, SCHEDULES, "lth list schedules")

    @field_validator("momentum")
    @classmethod
    def _with_its_optimizer(cls, given: float | None, info: ValidationInfo) -> float | None:
        if given is not None:
            _taken_by("momentum", "optimizer", OPTIMIZERS, info)
        elif "momentum" in _options("optimizer", OPTIMIZERS, info):
            return 0.9
        return given

    @field_validator("drops")
    @classmethod
    def _with_its_schedule(cls, given: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if given:
            _taken_by("drops", "schedule", SCHEDULES, info)
        return given

    @field_validator("test_every")
    @classmethod
    def _multiple(cls, given: int | None, info: ValidationInfo) -> int | None:
        eval_every = info.data.get("eval_every")
        if given and eval_every and given % eval_every:
            raise ValueError(f"{given} is no multiple of recipe.eval_every = {eval_every}: give both")
        return given or eval_every

    @property
    def too_late(self) -> dict[str, str]:
        """Those of `drops` and `report_at` that a training of `iterations` ends before."""
        late = {
            "drops": [n for n in self.drops if n >= self.iterations],
            "report_at": [n for n in self.report_at if n > self.iterations],
        }
        return {key: ", ".join(f"{n:,}" for n in several) for key, several in late.items() if several}


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
    structure: str = Field(
        default="weights",
        description="which weights may go: any (weights), or all but N of every M inputs (N:M, such as 2:4)",
    )

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

    @field_validator("structure")
    @classmethod
    def _known_structure(cls, given: str) -> str:
        groups = re.fullmatch(r"(\d{1,3}):(\d{1,3})", given)
        if given != "weights" and not (groups and 0 < int(groups[1]) < int(groups[2])):
            raise ValueError(f"expected weights, or N:M with N below M, such as 2:4; not {shown(given)}")
        return given

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
