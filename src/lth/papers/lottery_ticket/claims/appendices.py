"""Appendices B to F."""

from __future__ import annotations

from lth.papers.claims import (
    ABOVE,
    ES,
    LAST,
    NEAR,
    SAME,
    TEST,
    TRAIN,
    VAL,
    Check,
    Claim,
    Rules,
    Term,
    better,
    gain,
    over_reinit,
    random_mask,
    reinit,
    ticket,
    times,
)
from lth.papers.lottery_ticket.setups import (
    CONTINUED,
    CONV2,
    CONV4,
    CONV6,
    LENET,
    RESNET,
    RESNET_LOW,
    RESNET_WARM,
    VGG,
    VGG_LOW,
    VGG_WARM,
    lenet_sgd,
)
from lth.papers.setups import Setup, setup

RISE, REACHES = "last_val_loss_over_least", "iteration_of_97.5%"
TENSORS = "the tickets' weights, which summary.csv and curves.csv do not hold"


KEEPS = (
    "Resetting keeps higher validation accuracy and earlier early stop down to smaller sizes than continued training"
)


def _strategies(resetting: Setup, continued: Setup, figure: str, level: int, at: str) -> tuple[Claim, Claim]:
    """The half of a claim about one strategy: its accuracy and early stop at one level, compared with the figure."""
    checks = (
        better(level, NEAR, f"accuracy at {at}", VAL),
        times(ticket(level, ES), ticket(0, ES), NEAR, f"early stop at {at}, over the unpruned"),
    )
    note = "a run has one strategy: its own half is judged"
    return (
        Claim("CB.1", "B", resetting, KEEPS, (figure,), checks, note),
        Claim("CB.1", "B", continued, KEEPS, (figure,), checks, note),
    )


def _longer_whole(of: Setup, figure: str, level: int, at: str) -> Claim:
    text = "Training accuracy at the last iteration stays at 100% down to smaller sizes for tickets than for reinit"
    return Claim("CD.1", "D", of, text, (figure,), (over_reinit(level, ABOVE, at, TRAIN),))


def _reinit_over_random(level: int | tuple[int, int], rules: Rules, what: str) -> Check:
    return gain(reinit(level, LAST), random_mask(level, LAST), rules, what)


def _no_difference(of: Setup, levels: tuple[int, int]) -> Claim:
    text = "Of reinit and random sparsity, neither is significantly more accurate"
    return Claim("CE.2", "E", of, text, ("14",), (_reinit_over_random(levels, SAME, "mean over levels"),))


def _branch_over(name: str, other: str, level: int, rules: Rules, what: str) -> Check:
    return gain(Term(name, level, TEST), Term(other, level, TEST), rules, what)


APPENDICES = (
    *_strategies(LENET, CONTINUED, "9", 14, "4.5%"),
    *_strategies(CONV2, setup("conv2", {"strategy": "continued"}), "10", 21, "1.0%"),
    *_strategies(CONV4, setup("conv4", {"strategy": "continued"}), "10", 20, "2.3%"),
    *_strategies(CONV6, setup("conv6", {"strategy": "continued"}), "10", 19, "3.0%"),
    Claim(
        "CC.1", "C", LENET,
        "Validation loss falls to one bottom and rises again; who is there sooner also reaches an accuracy sooner",
        ("3", "11"),
        (
            Check("times", ticket(0, RISE), None, ABOVE, "last loss over least, unpruned"),
            Check("times", ticket(7, RISE), None, ABOVE, "the same at 21.1%"),
            times(ticket(0, REACHES), ticket(7, REACHES), ABOVE, "97.5% reached, unpruned over 21.1%"),
        ), "the figure's iterations end at 25,000",
    ),
    _longer_whole(LENET, "12", 18, "at 1.9%"),
    _longer_whole(CONV2, "13", 18, "at 1.9%"),
    _longer_whole(CONV4, "13", 18, "at 3.2%"),
    _longer_whole(CONV6, "13", 18, "at 3.6%"),
    Claim(
        "CE.1", "E", LENET, "Reinit is more accurate at the last iteration than random sparsity", ("14",),
        (
            _reinit_over_random(7, ABOVE, "at 21.1%"),
            _reinit_over_random(12, ABOVE, "at 7.0%"),
            _reinit_over_random(16, ABOVE, "at 2.9%"),
        ),
    ),
    _no_difference(CONV2, (1, 22)),
    _no_difference(CONV4, (1, 25)),
    _no_difference(CONV6, (1, 21)),
    _no_difference(RESNET, (1, 15)),
    _no_difference(RESNET_LOW, (1, 14)),
    _no_difference(RESNET_WARM, (1, 15)),
    _no_difference(VGG, (1, 22)),
    _no_difference(VGG_LOW, (1, 27)),
    _no_difference(VGG_WARM, (1, 25)),
    Claim(
        "CF.1", "F.1", LENET, "Surviving first weights of layer 2 are more often positive, of the output negative",
        ("15",), lacks=TENSORS, note="share positive at 7.0%, by layer: 50%, 61%, 26%",
    ),
    Claim(
        "CF.2", "F.2", lenet_sgd(),
        "Surviving first weights of layer 1 are more often negative, of the others positive", ("16",),
        lacks=TENSORS, note="share positive at 7.0%, by layer: 42%, 60%, 54%",
    ),
    Claim(
        "CF.3", "F.3", LENET, "Starts drawn anew from the survivors' values are little better than reinit", ("17",),
        (
            _branch_over("ticket", "sampled", 7, ABOVE, "ticket over sampled at 21.1%"),
            _branch_over("sampled", "reinit", 7, NEAR, "sampled over reinit at 21.1%"),
        ),
    ),
    Claim(
        "CF.4", "F.4", LENET, "Networks pruned before training are less accurate than reinit", ("18",),
        (
            _branch_over("reinit", "prune-at-0", 7, ABOVE, "reinit over them at 21.1%"),
            _branch_over("reinit", "prune-at-0", 12, ABOVE, "at 7.0%"),
        ),
    ),
    Claim(
        "CF.5", "F.5", LENET, "The ticket's weights move further in training than the others", ("19",),
        lacks=TENSORS, note="mean way at 16.9%, ticket and rest, by layer: 0.20 and 0.12, 0.21 and 0.15, 0.18 and 0.11",
    ),
    Claim(
        "CF.6", "F.5", LENET, "The ticket's weights more often grow in magnitude", ("20",),
        lacks=TENSORS, note="share at 16.9%, ticket and rest, by layer: 97% and 86%, 93% and 81%, 85% and 74%",
    ),
    Claim(
        "CF.7", "F.6", LENET, "Units keep incoming connections about in proportion to their layer's density", ("21",),
        lacks=TENSORS,
    ),
    Claim(
        "CF.8", "F.6", LENET, "Inputs keep outgoing connections in two groups, many or few; less so with SGD",
        ("23", "24"), lacks=TENSORS,
    ),
    Claim(
        "CF.9", "F.7", LENET,
        "Noise of half a sigma on the start hardly matters; with 3 sigma it is still above reinit",
        ("25",),
        (
            _branch_over("ticket", "noise-0.5", 7, SAME, "ticket over 0.5 sigma at 21.1%"),
            _branch_over("noise-3", "reinit", 12, ABOVE, "3 sigma over reinit at 7.0%"),
        ), "3 sigma is below reinit down to 16.9%",
    ),
)  # fmt: skip
