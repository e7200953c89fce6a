"""Mask rules: which weights survive in a training. Pure functions of the arguments that their parameters name.

A rule may have these parameters:

    start       the trial's start weights, with all parameters and buffers
    mask        the mask of the training from which the rule starts
    trained     the trained weights of the previous training
    given       the mask of the experiment's ticket file
    groups      the counted parameters in the network's order: name -> kind of layer
    scores      a function (weights, mask) -> scores, from the experiment's `prune.score`
    experiment  the experiment
    level       the level that the mask is for
    generator   a torch.Generator for this training and purpose
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lth.config import Experiment
from lth.pruning import masks
from lth.pruning.allocation import Budget, budget
from lth.pruning.masks import Mask, Weights
from lth.pruning.scores import magnitude
from lth.pruning.structures import Free, single_weights, structure

Scores = Callable[[Weights, Mask], Weights]


def ones(start: Weights, groups: Mapping[str, str]) -> Mask:
    """The full mask: nothing is pruned."""
    return masks.ones(start, groups)


def of_ticket(mask: Mask) -> Mask:
    """The mask of the ticket at this level."""
    return mask


def of_file(given: Mask) -> Mask:
    """The mask of the experiment's ticket file."""
    return given


def pruned(
    mask: Mask, trained: Weights, scores: Scores, groups: Mapping[str, str], experiment: Experiment, level: int
) -> Mask:
    """`mask` after pruning by the trained weights (section 2)."""
    weights = {name: trained[name] for name in mask}
    lose = budget(masks.alive(mask), masks.size(mask), groups, experiment, level)
    return keep(scores(weights, mask), mask, lose, structure(experiment.prune.structure))


def random(mask: Mask, generator: torch.Generator) -> Mask:
    """A random mask with as many weights per layer as `mask` (Appendix E)."""
    drawn = {}
    for name, layer in mask.items():
        chosen = torch.randperm(layer.numel(), generator=generator)[: int(layer.sum())]
        drawn[name] = torch.zeros(layer.numel(), dtype=torch.bool).index_fill_(0, chosen, True).reshape(layer.shape)
    return drawn


def largest(mask: Mask, start: Weights) -> Mask:
    """The mask of the weights with the largest start magnitudes, as many per layer as `mask` (Appendix F.4)."""
    lose = [((name,), layer.numel() - int(layer.sum())) for name, layer in mask.items()]
    return keep(magnitude({name: start[name] for name in mask}), masks.ones(start, mask), lose)


# -------------------------------------------------------------------------------------------------- removing by scores


def keep(scores: Weights, mask: Mask, lose: Budget, free: Free = single_weights) -> Mask:
    """`mask` without the free weights of lowest score, as many as each pool loses; ties go to the lower index."""
    left = dict(mask)
    for pool, count in lose:
        may_go = torch.cat([free(scores[name], mask[name]).reshape(-1) for name in pool])
        score = torch.cat([scores[name].reshape(-1) for name in pool])
        candidates = may_go.nonzero().squeeze(1)
        after = torch.cat([mask[name].reshape(-1) for name in pool])
        after[candidates[lowest(score[candidates], count)]] = False
        parts = after.split([mask[name].numel() for name in pool])
        left |= {name: part.reshape(mask[name].shape) for name, part in zip(pool, parts, strict=True)}
    return left


def lowest(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` lowest scores, the first ones on ties. Selection is faster than sorting."""
    if not count:
        return scores.new_empty(0, dtype=torch.int64)
    cutoff = scores.kthvalue(count).values
    below = (scores < cutoff).nonzero().squeeze(1)
    equal = (scores == cutoff).nonzero().squeeze(1)
    return torch.cat([below, equal[: count - len(below)]])
