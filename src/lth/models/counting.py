"""Which parameters of a network are counted and pruned, why others are not, and the group of each layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.utils.parametrize import ParametrizationList

from lth.config import nearest, shown
from lth.errors import UsageError
from lth.models.parameters import parameters, tied, uncompiled, unwrapped
from lth.models.usage import ELEMENTWISE, PRODUCT, usage

SHORTCUTS = ("shortcut", "downsample")  # common names of the 1x1 convolutions in residual blocks
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # their scales may be matrices but are never weights
LAYERS = (
    nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag, RNNBase, RNNCellBase, nn.MultiheadAttention,
)  # fmt: skip
LISTS = (nn.ParameterList, nn.ParameterDict)
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)
# Words in names of parameters that are added or scale; used if the module's code does not show how a parameter is used.
NO_WEIGHTS = re.compile(
    r"(.*[_.\d])?(bias(es)?|norm|scales?|gammas?|betas?|pos|position(s|al)?|tokens?|quer(y|ies)|latents?|prompts?"
    r"|states?|log|shift|mean|std|hidden)([_.\d].*)?"
)


@dataclass(frozen=True)
class Choice:
    """The user's choice of counted parameters: names or patterns of counted and of uncounted parameters."""

    count: Sequence[str] = ()
    leave_out: Sequence[str] = ()
    prefix: str = ""  # names of these two keys in errors


AUTOMATIC = Choice()


def counted(model: nn.Module, choice: Choice = AUTOMATIC) -> dict[str, nn.Parameter]:
    """The counted parameters of any module in its order; a tied parameter once, under its first name.

    These are the weights of torch's linear, convolutional, embedding, recurrent and attention layers. A parameter of
    another module is counted if at least two of its dimensions are not 1 and the module's code uses it in a matrix
    product, or does not show its use and its name does not suggest that it is added or scales. Parameters of norms,
    parameters from which a weight is computed (`computed`), and integer parameters are not counted. `choice` takes
    precedence. Raises UsageError if it names a parameter that cannot be counted, or matches nothing.
    """
    reasons, by_name = _reasons(model, choice), parameters(model)
    return {name: by_name[name] for name, reason in reasons.items() if not reason}


def not_counted(model: nn.Module, choice: Choice = AUTOMATIC) -> dict[str, str]:
    """Uncounted parameters with two or more dimensions or of integer type: name -> the reason."""
    by_name = parameters(model)
    return {
        name: reason
        for name, reason in _reasons(model, choice).items()
        if reason and (by_name[name].dim() > 1 or by_name[name].dtype not in TYPES)
    }


def _reasons(model: nn.Module, choice: Choice) -> dict[str, str]:
    """Why each parameter is not counted, "" if it is; a tied parameter once, under its first name."""
    names = aliases(model)
    norms, parts = norm_parameters(model), {name for parts in computed(model).values() for name in parts}
    by_name, modules = parameters(model), _owners(model)
    reasons = {}
    for name, several in names.items():
        if name in parts:
            reasons[name] = "a weight is computed from it"
        elif id(by_name[name]) in norms:
            reasons[name] = "it belongs to a norm"
        else:
            each = [_reason(*modules[alias], by_name[name]) for alias in several]
            reasons[name] = "" if "" in each else each[0]
    if choice.count or choice.leave_out:
        reasons |= _chosen(choice, names, by_name, norms)
    return reasons


def aliases(model: nn.Module) -> dict[str, list[str]]:
    """The parameters by their first name, each with all its names; several names if it is tied."""
    names: dict[str, list[str]] = {}
    ties = tied(model)
    for name in parameters(model):
        names.setdefault(ties.get(name, name), []).append(name)
    return names


def _owners(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The module and attribute of each parameter; for a ParameterList, the module that contains the list."""
    inner = unwrapped(model)
    modules = {uncompiled(f"{path}."): module for path, module in inner.named_modules(remove_duplicate=False)}
    owners = {}
    for name in parameters(model):
        path, _, attribute = name.rpartition(".")
        while path and isinstance(modules[f"{path}."], LISTS):
            path, _, attribute = path.rpartition(".")
        owners[name] = (modules[f"{path}."], attribute)
    return owners


def _reason(module: nn.Module, attribute: str, parameter: nn.Parameter) -> str:
    """Why a parameter outside of norms is not counted, to be put before its name; "" if it is counted."""
    if parameter.dtype not in TYPES:
        return f"it is {str(parameter.dtype).removeprefix('torch.')}, which is not trained"
    if parameter.dim() < 2:
        return "it has one dimension, like biases and scales"
    if isinstance(module, LAYERS) and "weight" in attribute:
        return ""
    if sum(size != 1 for size in parameter.shape) < 2:
        return "only one of its dimensions is not 1, like a scale or a bias"
    use = usage(type(module), attribute.removesuffix("_orig"))  # as renamed by torch.nn.utils.prune
    if use == PRODUCT:
        return ""
    if use == ELEMENTWISE:
        return "its module adds it or scales by it, and does not use it in a matrix product"
    if "weight" in attribute and not NO_WEIGHTS.fullmatch(attribute):
        return ""
    if parameter.shape[0] == 1:
        return "its first dimension is 1, so it is the same for all examples"
    return "its name is not that of a weight" if NO_WEIGHTS.fullmatch(attribute) else ""


def _chosen(
    choice: Choice, names: Mapping[str, Sequence[str]], by_name: Mapping[str, nn.Parameter], norms: set[int]
) -> dict[str, str]:
    """The reasons of the parameters that the choice names.

    Raises UsageError naming everything that is wrong with it.
    """
    wrong = [*_wrong_lists(choice)]
    if wrong:
        raise UsageError("\n".join(wrong))
    able = [name for name in names if _countable(by_name[name], norms)]
    reasons: dict[str, str] = {}
    for key, patterns, reason in (("count", choice.count, ""), ("leave_out", choice.leave_out, "it is left out")):
        for pattern in patterns:
            matched = [name for name in able if matches(pattern, names[name])]
            if not matched and any(matches(pattern, several) for several in names.values()):
                wrong.append(
                    f"{choice.prefix}{key}: {shown(pattern)} cannot be counted: biases, parameters of norms, and "
                    "integers are not weights"
                )
            elif not matched:
                wrong.append(f"{choice.prefix}{key}: {shown(pattern)} matches no parameter{nearest(pattern, by_name)}")
            if both := [name for name in matched if reasons.get(name, reason) != reason]:
                wrong.append(f"count and leave_out both name {both[0]}: leave it out of one of them")
            reasons |= dict.fromkeys(matched, reason)
    if wrong:
        raise UsageError("\n".join(wrong))
    return reasons


def _wrong_lists(choice: Choice) -> list[str]:
    """Refuse a string instead of a list, which would be read letter by letter."""
    return [
        f"{key} = {shown(value)}: expected a list of names or patterns, such as ['*.experts.*']"
        for key, value in (("count", choice.count), ("leave_out", choice.leave_out))
        if isinstance(value, str) or not all(isinstance(pattern, str) for pattern in value)
    ]


def _countable(parameter: nn.Parameter, norms: set[int]) -> bool:
    return parameter.dim() > 1 and parameter.dtype in TYPES and id(parameter) not in norms


def matches(pattern: str, names: Sequence[str]) -> bool:
    """Return whether a pattern matches one of a parameter's names."""
    return any(fnmatchcase(name, pattern) for name in names)


def format_not_counted(reasons: Mapping[str, str], sizes: Mapping[str, torch.Size]) -> list[str]:
    """One line per reason and shape; names that differ in numbers only are combined, such as layers.*.pos."""
    alike: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for name, reason in reasons.items():
        alike.setdefault((re.sub(r"(?<![^.])\d+(?![^.])", "*", name), reason, tuple(sizes[name])), []).append(name)
    lines = []
    for (pattern, reason, shape), names in alike.items():
        several = f"{len(names)} times " if len(names) > 1 else ""
        size = "x".join(map(str, shape))
        lines.append(f"not counted: {names[0] if len(names) == 1 else pattern} ({several}{size}): {reason}")
    return lines


def computed(model: nn.Module) -> dict[str, list[str]]:
    """The weights that torch computes from other parameters: name -> the names of these parameters.

    torch.nn.utils.parametrize computes weights, and the older torch.nn.utils.weight_norm does so from a direction and a
    scale. None of these parameters is counted, because a mask of them is not a mask of the weight.
    """
    return _parametrized(model) | _weight_normed(parameters(model))


def _parametrized(model: nn.Module) -> dict[str, list[str]]:
    sources = {}
    for path, module in unwrapped(model).named_modules():
        prefix = uncompiled(f"{path}.") if path else ""
        for weight, parts in getattr(module, "parametrizations", {}).items():
            if isinstance(parts, ParametrizationList):
                named = dict(parts.named_parameters())
                if "weight" in weight or any(p.dim() > 1 for p in named.values()):
                    sources[prefix + weight] = [f"{prefix}parametrizations.{weight}.{name}" for name in named]
    return sources


def _weight_normed(named: Mapping[str, nn.Parameter]) -> dict[str, list[str]]:
    scales = [name for name in named if name.endswith("_g") and "weight" in name.rpartition(".")[2]]
    return {name[:-2]: [f"{name[:-2]}_v", name] for name in scales if f"{name[:-2]}_v" in named}


def norm_parameters(model: nn.Module) -> set[int]:
    """The ids of the parameters of norms: scales and shifts, which are never pruned."""
    return {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}


def groups(model: nn.Module, choice: Choice = AUTOMATIC) -> dict[str, str]:
    """The counted parameters in the network's order: name -> `conv`, `fc`, `shortcut` or `output`.

    The last one is the output layer. A shortcut is a 1x1 convolution in a module with one of the names `SHORTCUTS`.
    """
    by_layer = {name: _group(model, name) for name in counted(model, choice)}
    return by_layer | dict.fromkeys(list(by_layer)[-1:], "output")


def _group(model: nn.Module, name: str) -> str:
    path = name.rpartition(".")[0]
    module = model.get_submodule(path)
    if not isinstance(module, _ConvNd):
        return "fc"
    beside = max(module.kernel_size) == 1 and any(part in SHORTCUTS for part in path.split("."))
    return "shortcut" if beside else "conv"
