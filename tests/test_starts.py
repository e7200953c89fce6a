"""Starts and masks of Appendix F's controls: noise, values drawn from the survivors, pruning at iteration 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lth
from lth.config import resolve
from lth.errors import UsageError
from lth.models import init
from lth.pruning import masks, starts
from lth.pruning.rules import largest
from lth.tickets.ticket import Ticket


@pytest.fixture
def layer() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A start of 200 x 300 weights and their bias, and a mask of half of them."""
    drawn = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(200, 300, generator=drawn), "b": torch.ones(200)}
    return start, {"w": torch.rand(200, 300, generator=drawn) < 0.5}


def own() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_noise_has_its_sigma_on_survivors_and_touches_nothing_else(layer: Any, sigma: float) -> None:
    start, mask = layer
    before = start["w"].clone()
    noisy = starts.noise(start, mask, {"w": sigma}, own())
    added = (noisy["w"] - start["w"])[mask["w"]]
    assert added.std().item() == pytest.approx(sigma, rel=0.02)  # n = 30,000: a standard error of 0.4%
    assert abs(added.mean().item()) < 0.03 * sigma
    assert torch.equal(noisy["w"][~mask["w"]], start["w"][~mask["w"]]) and torch.equal(noisy["b"], start["b"])
    assert torch.equal(start["w"], before)
    assert torch.equal(noisy["w"], starts.noise(start, mask, {"w": sigma}, own())["w"])


def test_sampled_starts_have_the_survivors_values_in_other_places(layer: Any) -> None:
    start, mask = layer
    drawn = starts.sampled(start, mask, own())
    survivors, values = start["w"][mask["w"]], drawn["w"][mask["w"]]
    assert torch.isin(values, survivors).all()
    assert (values == survivors).double().mean() < 0.01  # drawn with replacement, not left or permuted
    assert len(values.unique()) == pytest.approx((1 - torch.e**-1) * len(survivors), rel=0.02)
    assert torch.equal(drawn["w"][~mask["w"]], start["w"][~mask["w"]]) and torch.equal(drawn["b"], start["b"])


def test_a_layer_without_weights_has_nothing_to_draw_from(layer: Any) -> None:
    start, mask = layer
    none = {"w": torch.zeros_like(mask["w"])}
    assert torch.equal(starts.sampled(start, none, own())["w"], start["w"])


def test_pruning_at_iteration_0_keeps_the_largest_of_the_start(layer: Any) -> None:
    start, mask = layer
    kept = largest(mask, start)
    assert kept["w"].sum() == mask["w"].sum()
    assert start["w"].abs()[kept["w"]].min() > start["w"].abs()[~kept["w"]].max()


def test_a_sigma_of_the_initialisation_is_met_and_not_truncated() -> None:
    drawn = init.draw(torch.nn.Linear(300, 300), own(), 0.05)["weight"]
    assert drawn.std().item() == pytest.approx(0.05, rel=0.01)
    assert drawn.abs().max() > 3 * 0.05


def test_each_branch_of_appendix_f_starts_as_it_says(tiny: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    lth.run(tiny, out=run, engine="torch", workers=1, branches="noise-0.5:1,noise-3:1,sampled:1,prune-at-0:1")
    whole = Ticket.load(run / "trial-1/level-00/ticket.safetensors").start
    at = lambda name: Ticket.load(run / "trial-1/level-02" / name / "ticket.safetensors")
    ticket, layer = at(""), "fc1.weight"
    survives = ticket.mask[layer]
    sigma = init.glorot_sigma(whole[layer])
    spread = lambda name: (at(name).start[layer] - whole[layer])[survives].std().item() / sigma
    for name, wanted in {"noise-0.5-1": 0.5, "noise-3-1": 3.0}.items():
        assert torch.equal(at(name).mask[layer], survives)
        assert spread(name) == pytest.approx(wanted, rel=0.15)
    sampled = at("sampled-1")
    assert torch.equal(sampled.mask[layer], survives)
    assert torch.isin(sampled.start[layer][survives], whole[layer][survives]).all()
    early = at("prune-at-0-1")
    assert masks.alive(early.mask) == masks.alive(ticket.mask)
    assert torch.equal(early.mask[layer], largest(ticket.mask, whole)[layer])
    assert torch.equal(early.start[layer], whole[layer] * early.mask[layer])


@pytest.mark.parametrize(
    "branch, message",
    [
        ({"name": "noise"}, "start rule noise needs it"),
        ({"name": "noise-0.5", "sigma": 2.0}, "leave it out"),
        ({"name": "reinit", "sigma": 2.0}, "it would do nothing"),
        ({"name": "noise-2", "start": "fresh"}, "give it another name"),
        ({"name": "noise-0"}, "greater than 0"),
        ({"name": "mine", "mask": "ticket", "start": "noise", "sigma": -1.0}, "greater than 0"),
    ],
)
def test_a_sigma_that_cannot_be_is_refused(tiny: dict[str, Any], branch: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(tiny | {"branch": [branch]})
