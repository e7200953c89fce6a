"""The experiment as a value: frozen, validated all at once, complete when resolved.

Config owns the names of everything that can be chosen; the registries that implement them are held to these by a test,
so that `lth list` and `lth show` need no torch. The description of each field is its help text.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
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

from lth.errors import UsageError

MODELS = {
    "lenet": "fully connected layers with ReLU: LeNet-300-100, or any other sizes",
    "conv2": "Conv-2: 2 convolutions of 64 channels, 3 fully connected layers",
    "conv4": "Conv-4: 4 convolutions of 64 and 128 channels, 3 fully connected layers",
    "conv6": "Conv-6 as the paper ran it: 6 convolutions of 64, 128 and 192 channels, 3 fully connected layers",
    "conv6-256": "Conv-6 as the paper describes it: 256 channels in the third module",
    "resnet18": "the paper's Resnet-18, which is the CIFAR ResNet-20: 271,000 weights, batch norm",
    "vgg19": "VGG-19 for CIFAR: 16 convolutions, batch norm, one fully connected layer",
}
MODEL_OPTIONS = {  # the keys of [model] that do something, beside its name
    "lenet": {"layers", "dropout"},
    "conv2": {"dropout"},
    "conv4": {"dropout"},
    "conv6": {"dropout"},
    "conv6-256": {"dropout"},
    "resnet18": set[str](),
    "vgg19": set[str](),
}
GROUPS = ("conv", "fc", "output", "shortcut")  # what a counted layer can be; see lth.models.groups
PRUNED = ("conv", "fc", "output")  # unless prune.groups says otherwise
DATASETS = {
    "mnist": "60,000 + 10,000 handwritten digits, 28 x 28 grey",
    "fashion-mnist": "60,000 + 10,000 pieces of clothing, 28 x 28 grey",
    "cifar10": "50,000 + 10,000 photographs of 10 kinds of things, 32 x 32 in colour",
    "cifar100": "50,000 + 10,000 photographs of 100 kinds of things, 32 x 32 in colour",
}
SCORES = {"magnitude": "|trained weight|: the paper's criterion"}
STRATEGIES = {
    "resetting": "train, prune, reset to the start, repeat (the paper's strategy 1, used everywhere)",
    "continued": "train, prune, go on training; each level's mask is then reset and trained (strategy 2, Appendix B)",
    "oneshot": "prune the trained level 0 once, straight to each level's density (figure 4c)",
}
MASK_RULES = {
    "ones": "nothing pruned",
    "prune": "what the training that it needs leaves after pruning",
    "ticket": "the mask of the ticket at this level",
    "random": "as many weights as the ticket in each layer, at random",
}
START_RULES = {
    "trial": "the trial's start",
    "fresh": "drawn anew from the initialisation's distribution",
    "trained": "where the training that it needs ended",
}
BRANCHES = {  # name -> (mask rule, start rule, what it controls for)
    "reinit": ("ticket", "fresh", "the ticket's mask, weights drawn anew: is it the start that wins?"),
    "random-mask": ("random", "trial", "the trial's start under a random mask of the same counts: is it the mask?"),
}
CONTINUED = "continued"  # the chain of trainings that finds the masks of the strategy of that name

# Far beyond what anybody trains, and near enough that a slip of the keyboard is refused instead of filling the memory.
MOST_LEVELS, MOST_TRAININGS, MOST_EVALUATIONS, MOST_WEIGHTS, MOST_SCALE = 10_000, 100_000, 1_000_000, 10**9, 1000


def _number(value: Any) -> Any:
    """Refuse what pydantic would read as a number, but nobody means as one: true and "0.1"."""
    if isinstance(value, bool | str | bytes):
        raise ValueError(f"expected a number, not {_shown(value)}")
    return value


def _unicode(text: str) -> str:
    """Refuse what no TOML file could hold: bytes of the command line that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected text in UTF-8, not {_shown(text)}") from None
    return text


def _level_list(value: Any) -> Any:
    """Take "1-18" or "1-3,7" for a list of levels."""
    if not isinstance(value, str):
        return value
    levels: list[int] = []
    for part in value.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isdecimal() and len(end) <= len(str(MOST_LEVELS)) for end in ends):
            raise ValueError(f'levels are numbers and ranges, such as "1-18" or [1, 2, 3]; not {_shown(value)}')
        levels += range(int(ends[0]), int(ends[-1]) + 1)
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


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


# Contradictions are found by validators of fields, which see the fields above them that are valid: so all of them are
# said at once with whatever else is wrong. A validator of a whole table would be silent while any field is wrong.


class Data(_Value):
    name: Text = Field(
        default="mnist", description="a dataset of `lth list datasets`, a folder of images, or an .npz file"
    )
    validation: Positive = Field(
        default=5000, description="training examples split off at random, by seed, for validation"
    )

    @field_validator("name", mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        if not is_path(name):
            _known("dataset", name, DATASETS, "lth list datasets", f"one of your own has a slash: ./{name or 'FOLDER'}")
        return name


class Model(_Value):
    name: str = Field(default="lenet", description="a model of `lth list models`")
    layers: tuple[Positive, ...] | None = Field(
        default=None, description="units of each hidden layer of lenet; [300, 100] unless given"
    )
    dropout: Real = Field(
        default=0.0, ge=0, lt=1, description="share of each hidden fully connected layer's units dropped while training"
    )

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        return _known("model", name, MODELS, "lth list models")

    @field_validator("layers")
    @classmethod
    def _of_lenet(cls, layers: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if layers is None:
            return (300, 100) if info.data.get("name") == "lenet" else None
        weights = sum(a * b for a, b in itertools.pairwise((1, *layers)))
        if weights > MOST_WEIGHTS or len(layers) > 1000:
            raise ValueError(f"at most {MOST_WEIGHTS:,} weights and 1,000 layers; not {_shown(list(layers))}")
        return _not_idle("layers", layers, info)

    @field_validator("dropout")
    @classmethod
    def _where_it_can(cls, dropout: float, info: ValidationInfo) -> float:
        return _not_idle("dropout", dropout, info) if dropout else dropout


class Recipe(_Value):
    optimizer: Literal["adam", "sgd", "momentum"] = Field(
        default="adam", description="adam, sgd, or momentum (SGD with it)"
    )
    lr: Real = Field(gt=0, description="learning rate")
    momentum: Fraction | None = Field(default=None, description="of optimizer momentum; 0.9 unless given")
    weight_decay: Real = Field(default=0.0, ge=0, description="L2 penalty on weights and biases")
    iterations: Positive = Field(description="updates in one training")
    batch: Positive = Field(default=60, description="examples in an update; the last batch of an epoch may be smaller")
    warmup: Whole = Field(
        default=0, ge=0, le=10**12, description="iterations over which the learning rate rises linearly from 0"
    )
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

    @field_validator("momentum")
    @classmethod
    def _with_its_optimizer(cls, given: float | None, info: ValidationInfo) -> float | None:
        optimizer = info.data.get("optimizer")
        if optimizer == "momentum":
            return 0.9 if given is None else given
        if given is not None and optimizer:
            raise ValueError(f'it is for recipe.optimizer = "momentum", but the optimizer is "{optimizer}"')
        return given

    @field_validator("test_every")
    @classmethod
    def _multiple(cls, given: int | None, info: ValidationInfo) -> int | None:
        eval_every = info.data.get("eval_every")
        if given and eval_every and given % eval_every:
            raise ValueError(f"{given} is no multiple of recipe.eval_every = {eval_every}")
        return given or eval_every


class Prune(_Value):
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
            raise ValueError(f"densities must fall from level to level: {_shown(list(densities))}")
        return densities

    @field_validator("score")
    @classmethod
    def _known_score(cls, score: str) -> str:
        return _known("score", score, SCORES, "lth list scores")

    @property
    def pruned(self) -> tuple[str, ...]:
        """The groups of layers that are pruned; the others keep all their weights."""
        return self.groups or PRUNED


class Branch(_Value):
    name: str = Field(description="of `lth list branches`, or any with mask and start")
    count: Positive = Field(default=1, description="trainings at each level")
    levels: Levels | None = Field(
        default=None, description='levels that it hangs off, such as "1-18"; all from 1 unless given'
    )
    iterations: Positive | None = Field(default=None, description="updates in one training; the recipe's unless given")
    mask: Literal["ticket", "random"] | None = Field(default=None, description="mask rule")
    start: Literal["trial", "fresh"] | None = Field(default=None, description="start rule")

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if name in ("ticket", CONTINUED):
            raise ValueError(f"a branch cannot be called {name!r}: the trunk's trainings are")
        if not re.fullmatch(r"[a-z][a-z0-9.-]{0,49}", name):
            _known("branch", name, BRANCHES, "lth list branches", "names are of small letters, digits, . and -")
        return name

    @field_validator("mask", "start")
    @classmethod
    def _rule(cls, given: Any, info: ValidationInfo) -> Any:
        """The branch's own rule, else that of its name; a branch of another name has both."""
        name = info.data.get("name")
        if given is None and name in BRANCHES:
            return BRANCHES[name][0 if info.field_name == "mask" else 1]
        if info.field_name == "start" and name and None in (given, info.data.get("mask", "wrong")):
            _known("branch", name, BRANCHES, "lth list branches", "any other has both mask and start")
        return given

    @property
    def labels(self) -> list[str]:
        """The names of its trainings at one level: `reinit-1`, `reinit-2`, ..."""
        return [f"{self.name}-{n}" for n in range(1, self.count + 1)]


class Experiment(_Value):
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
    data: Data = Field(default_factory=lambda: Data())
    model: Model = Field(default_factory=lambda: Model())
    recipe: Recipe
    prune: Prune = Field(default_factory=lambda: Prune())
    branch: tuple[Branch, ...] = ()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                f"{_shown(name)} cannot name a folder here: expected letters, digits, '.', '_' and '-', 100 at most, "
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
                f"for oneshot, prune.rates are of the whole network and must rise: {_shown(list(prune.rates))}"
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

    def digest(self, level: int) -> str:
        """Of all that leads to `level`: not trials, levels and branches, which may be added to a finished run."""
        identity = _identity(self)
        for ladder in ("rates", "densities"):
            identity["prune"][ladder] = identity["prune"][ladder][:level]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def branches_at(self, level: int) -> list[Branch]:
        return [b for b in self.branch if level > 0 and (b.levels is None or level in b.levels)]

    def recipe_of(self, branch: Branch) -> Recipe:
        return (
            self.recipe
            if branch.iterations is None
            else self.recipe.model_copy(update={"iterations": branch.iterations})
        )


# ---------------------------------------------------------------------------------------------- names and nearest names


def is_path(dataset: str) -> bool:
    """Whether a dataset's name is meant as a place on disk: it has a slash or a file's ending."""
    return "/" in dataset or dataset.lower().endswith(".npz")


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; did you mean X?" where something near exists, else nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _not_idle(option: str, value: Any, info: ValidationInfo) -> Any:
    name = info.data.get("name")
    if name and option not in MODEL_OPTIONS.get(name, {option}):
        raise ValueError(f"it would do nothing: {name} has no such setting; leave it out")
    return value


def nearest_key(key: str, known: Iterable[str]) -> str:
    """The same for a key, of which the table may have been left out: for `lr`, "; did you mean 'recipe.lr'?"."""
    whole = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    close = [] if "." in key else difflib.get_close_matches(key, whole, n=1, cutoff=0.7)
    return f"; did you mean {whole[close[0]]!r}?" if close else nearest(key, known)


def _known(kind: str, name: str, names: Iterable[str], command: str, hint: str = "") -> str:
    if name not in names:
        see = f"see `{command}`; {hint}" if hint else f"see `{command}`"
        raise ValueError(f"unknown {kind} {_shown(name)}{nearest(name, names)} ({see})")
    return name


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


# -------------------------------------------------------------------------------------------------- reading and writing


def presets() -> dict[str, str]:
    """The shipped experiments: name -> TOML text."""
    folder = resources.files("lth") / "presets"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8") for f in files}


def read(source: str | Path) -> dict[str, Any]:
    """The tables of a preset or a TOML file, not yet validated."""
    name = str(source)
    if name.endswith(".toml") or isinstance(source, Path):
        try:
            text = Path(source).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise UsageError(f"there is no file {name}; `lth show lenet > {name}` writes one to begin with") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        try:
            return _deep_copy(tomllib.loads(text))  # which fails where tables are nested beyond reason
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name} is no valid TOML: {error}") from None
    shipped = presets()
    if name not in shipped:
        inside = f"{name.rstrip('/')}/experiment.toml"
        meant = f"; did you mean {inside!r}?" if Path(inside).is_file() else nearest(name, shipped)
        raise UsageError(f"unknown preset {_shown(name)}{meant} (see `lth list presets`; a file's name ends in .toml)")
    return tomllib.loads(shipped[name])


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is read as TOML, and as a plain string where it is none."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise UsageError(f"{_shown(text)} is no setting: write key=value, such as recipe.lr=0.001")
    try:
        tables = _deep_copy(tomllib.loads(f"value = {value}"))
    except (ValueError, RecursionError):
        return key, value
    return key, tables["value"] if len(tables) == 1 else value


def to_setting(key: str, value: Any) -> str:
    """The `key=value` that `parse_override` takes back."""
    plain = f"{key}={value}"
    return plain if parse_override(plain) == (key, value) else f"{key}={_literal(value)}"


def parse_branches(text: str, preset: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Read `reinit:3,random-mask:1`; a branch that the preset has keeps its other options."""
    options = {b.get("name"): dict(b) for b in preset}
    branches = []
    for part in (part.strip() for part in text.split(",") if text.strip()):
        name, colon, count = part.partition(":")
        if not name or (colon and not re.fullmatch("[0-9]{1,9}", count)):
            raise UsageError(f"--branches takes NAME:COUNT,..., such as reinit:3,random-mask:1; not {_shown(part)}")
        branches.append(options.get(name, {"name": name}) | {"count": int(count or 1)})
    return branches


def resolve(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    trials: int | None = None,
    levels: int | None = None,
    branches: str | None = None,
    scale: float | None = None,
) -> Experiment:
    """A preset's name, a TOML file or its tables, with overrides, as a complete experiment.

    Raises UsageError naming every problem at once.
    """
    tables = _deep_copy(source if isinstance(source, Mapping) else read(source))
    problems: list[str] = []
    for setting in overrides.items() if isinstance(overrides, Mapping) else overrides:
        problems += _override(tables, setting)
    given = tables.get("branch", [])
    if branches is not None and isinstance(given, list) and all(isinstance(b, Mapping) for b in given):
        try:
            tables["branch"] = parse_branches(branches, given)
        except UsageError as error:
            problems.append(str(error))
    tables |= {k: v for k, v in {"trials": trials, "levels": levels}.items() if v is not None}
    if scale is not None and not 0 < scale <= MOST_SCALE:
        problems.append(f"--scale takes a number above 0, {MOST_SCALE} at most; not {scale}")
    try:
        experiment = _validated(tables)
    except UsageError as error:
        problems.append(str(error))
        experiment = None
    if problems or experiment is None:
        file = [f"in {source}:"] if isinstance(source, Path) else []
        raise UsageError("\n".join(file + problems))
    return experiment if scale is None else scaled(experiment, scale)


def _override(tables: dict[str, Any], setting: str | tuple[str, Any]) -> list[str]:
    """Put one setting into the tables; what is wrong with it."""
    known = keys()
    try:
        key, value = parse_override(setting) if isinstance(setting, str) else setting
    except UsageError as error:
        return [str(error)]
    if key == "scale":
        return ["scale is a record of what was done: use --scale S"]
    if key not in known:
        return [f"unknown key {_shown(key)}{nearest_key(str(key), known)} (see `lth show lenet`)"]
    if not _set(tables, key.split("."), value):
        return [f"{key} cannot be set: {key.rpartition('.')[0]} is no table"]
    return []


def scaled(experiment: Experiment, scale: float) -> Experiment:
    """Multiply all that is counted in iterations, but not eval_every, by `scale`, and keep the product on record."""
    times = lambda n: max(1, round(n * scale))
    tables = experiment.model_dump()
    tables["scale"] *= scale
    tables["recipe"]["warmup"] = round(experiment.recipe.warmup * scale)
    for counted in [tables["recipe"], *(b for b in tables["branch"] if b["iterations"])]:
        counted["iterations"] = times(counted["iterations"])
    for several in ("drops", "report_at"):
        tables["recipe"][several] = [times(n) for n in tables["recipe"][several]]
    return _validated(tables)


def to_toml(experiment: Experiment, comments: bool = False) -> str:
    """The experiment as TOML that `read` takes back; with comments, each key's help text stands beside it."""
    lines: list[str] = []
    tables: list[tuple[str, _Value]] = [("", experiment)]
    for header, value in tables:
        lines += ["", header] if header else []
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if isinstance(inner, _Value):
                tables.append((f"[{name}]", inner))
            elif inner and isinstance(inner, tuple) and isinstance(inner[0], _Value):
                tables += [(f"[[{name}]]", item) for item in inner]
            elif inner is not None and name != "branch":
                help_text = f"  # {field.description}" if comments and field.description else ""
                lines.append(f"{name} = {_literal(inner)}{help_text}")
    return "\n".join(lines) + "\n"


def merge(stored: Experiment, asked: Experiment) -> Experiment:
    """The stored experiment with what `asked` adds to it: trials, levels, branches.

    Raises UsageError naming what else differs.
    """
    differences = list(_differences(_identity(stored), _identity(asked)))
    branches = {b.name: b for b in stored.branch}
    for branch in asked.branch:
        old = branches.get(branch.name, branch)
        if old.model_copy(update={"count": 1, "levels": None}) != branch.model_copy(
            update={"count": 1, "levels": None}
        ):
            differences.append(f"branch {branch.name}: {_literal(_plain(old))} there, {_literal(_plain(branch))} here")
        everywhere = old.levels is None or branch.levels is None
        levels = None if everywhere else tuple(sorted({*(old.levels or ()), *(branch.levels or ())}))
        branches[branch.name] = old.model_copy(update={"count": max(old.count, branch.count), "levels": levels})
    if differences:
        raise UsageError("it holds another experiment:\n" + "\n".join(differences))
    return _validated(
        stored.model_dump()
        | {
            "trials": max(stored.trials, asked.trials),
            "levels": max(stored.levels, asked.levels),
            "branch": [branch.model_dump() for branch in branches.values()],
            "prune": max(stored.prune, asked.prune, key=lambda p: len(p.rates) + len(p.densities)).model_dump(),
        }
    )


# ------------------------------------------------------------------------------------------------------------- the rest


def _plain(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_none=True)


def _identity(experiment: Experiment) -> dict[str, Any]:
    plain = _plain(experiment)
    for free in ("trials", "levels", "branch", "name", "about"):
        plain.pop(free, None)
    return plain


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif prefix + key in ("prune.rates", "prune.densities") and a and b and a[: len(b)] == b[: len(a)]:
            continue  # one ladder goes further down than the other
        elif a != b:
            show = lambda v: "nothing" if v is None else _literal(v)
            yield f"{prefix}{key}: {show(a)} there, {show(b)} here"


def _set(tables: dict[str, Any], path: list[str], value: Any) -> bool:
    for part in path[:-1]:
        tables = tables.setdefault(part, {})
        if not isinstance(tables, dict):
            return False
    tables[path[-1]] = value
    return True


def _deep_copy(tables: Any) -> Any:
    if isinstance(tables, Mapping):
        return {k: _deep_copy(v) for k, v in tables.items()}
    return [_deep_copy(v) for v in tables] if isinstance(tables, list | tuple) else tables


def _validated(tables: Mapping[str, Any]) -> Experiment:
    """Raises UsageError naming every problem at once."""
    try:
        return Experiment.model_validate(tables)
    except ValidationError as error:
        lines = [_problem(problem) for problem in error.errors(include_url=False)]
    more = [f"and {len(lines) - 20} more"] if len(lines) > 20 else []
    raise UsageError("\n".join(lines[:20] + more))


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
        return f"unknown key {_shown(where)}{nearest_key(plain, known)} (see `lth show lenet`)"
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
    return (
        f"{where} = {_shown(problem['input'])}: {_EXPECTED.get(kind, message.replace('Input should be', 'expected'))}"
    )


def _shown(value: Any) -> str:
    """A value as a message shows it: on one line, and not longer than one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


def _literal(value: Any) -> str:
    """A TOML value. JSON's strings, numbers and arrays are TOML's, but for the DEL character."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_literal(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
