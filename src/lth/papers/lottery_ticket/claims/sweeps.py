"""Appendices H and I, which vary settings of the deeper networks, and the abstract, which summarises everything."""

from __future__ import annotations

from lth.papers.claims import (
    ABOVE,
    BOTH,
    NEAR,
    SIDE,
    VAL,
    Check,
    Claim,
    accuracy,
    better,
    gain,
    over_reinit,
    sooner,
    ticket,
)
from lth.papers.lottery_ticket.claims.section_2 import MAIN
from lth.papers.lottery_ticket.claims.section_3 import CONV
from lth.papers.lottery_ticket.claims.section_4 import AT_112K
from lth.papers.lottery_ticket.setups import CONV2, CONV4, CONV6, LENET, VGG_WARM, deep
from lth.papers.setups import Setup, setup


def _adam(network: str, lr: float) -> Setup:
    """Appendix H.2 prunes all convolutions by 10% per level."""
    return setup(network, {"recipe.lr": lr, "prune.conv_rate": 0.1})


def _h2(id: str, of: Setup, text: str, *checks: Check, note: str = "") -> Claim:
    return Claim(id, "H.2", of, text, ("32",), checks, note)


def _h5(id: str, of: Setup, text: str, *checks: Check) -> Claim:
    return Claim(id, "H.5", of, text, ("36",), checks)


def _sgd(network: str, lr: float) -> tuple[Claim, ...]:
    """SGD at its best learning rate for the unpruned network, and Adam at the chosen one."""
    sgd = setup(network, {"recipe.optimizer": "sgd", "recipe.lr": lr, "prune.conv_rate": 0.1})
    adam = _adam(network, 0.0002 if network == "conv2" else 0.0003)
    check = gain(ticket(0, VAL, adam), ticket(0, VAL, sgd), BOTH, "Adam over SGD, unpruned")
    text = "Unpruned networks are 2 to 3 points less accurate when trained with SGD than with Adam"
    return tuple(Claim("CH.7", "H.3", of, text, ("32", "33"), (check,)) for of in (adam, sgd))


def _dropout_val(network: str, lr: float) -> Setup:
    return setup(f"{network}-dropout", {"recipe.lr": lr})


def _warmups(network: str, lr: float, lengths: tuple[int, ...], level: int, at: str) -> tuple[Claim, ...]:
    """The part of a claim about one warmup length: the ticket's accuracy at one level, compared with the figure."""
    figure, column = ("44", "val_accuracy_at_30000") if network == "resnet18" else ("45", "val_accuracy_at_112000")
    text = (
        "The longer the warmup, the more accurate the tickets, with less and less to gain from about 5,000 iterations"
    )
    note = "a run has one length: its own accuracy is judged"
    check = accuracy(ticket(level, column), what=at)
    return tuple(Claim("CI.2", "I.5", deep(network, lr, k), text, (figure,), (check,), note) for k in lengths)


def _rates(network: str, rates: tuple[float, ...], level: int, at: str) -> tuple[Claim, ...]:
    figure, column = ("42", "val_accuracy_at_30000") if network == "resnet18" else ("43", "val_accuracy_at_112000")
    low, high = (
        "At learning rate 0.01 tickets are more accurate than reinit",
        "Above learning rate 0.01 tickets are no more accurate than reinit",
    )
    return tuple(
        Claim(
            "CI.3", "I.4", deep(network, lr), low if lr == 0.01 else high, (figure,),
            (over_reinit(level, BOTH if lr == 0.01 else NEAR, at, column),),
        )
        for lr in rates
    )  # fmt: skip


VGG_WARM_LAYERWISE = setup("vgg19-warmup", {"prune.scope": "layerwise"})
LAYERWISE = "With warmup, tickets are found down to 6.9% pruned layer by layer, down to 1.5% pruned globally"

SWEEPS = (
    _h2(
        "CH.1", _adam("conv2", 0.0002),
        "Learning rate 0.0002: validation accuracy gains 3.3 points at 3%; 4.8 times sooner at 8.8%",
        better(16, BOTH, "at 3.0%", VAL), sooner(11, what="at 8.8%"), note="at most +4.33, at 7.1%",
    ),
    _h2(
        "CH.2", _adam("conv2", 0.0004),
        "Learning rate 0.0004: validation accuracy gains 6.5 points, from 65.2 to 71.7%",
        better(14, BOTH, "at 4.6%", VAL),
    ),
    _h2(
        "CH.3", _adam("conv4", 0.0003),
        "Learning rate 0.0003: validation accuracy gains 3.7 points at 5.4%; 4.27 times sooner at 11.1%",
        better(15, BOTH, "at 5.4%", VAL), sooner(11, what="at 11.1%"), note="+3.73 at 4.5%; 4.0 times at 9.2%",
    ),
    _h2(
        "CH.4", _adam("conv4", 0.0004),
        "Learning rate 0.0004: validation accuracy gains 3.6 points, to 79.1%, at 5.4%",
        better(15, BOTH, "at 5.4%", VAL), note="at most +3.95, at 6.4%",
    ),
    _h2(
        "CH.4", _adam("conv4", 0.0002),
        "Learning rate 0.0002: tickets stop 5.1 times sooner at 9.2%",
        sooner(12, what="at 9.2%"), note="at best 5.4 times, at 16.2%",
    ),
    _h2(
        "CH.5", _adam("conv6", 0.0003),
        "Learning rate 0.0003: 81.5% on the validation set at 9.3%, +2.4 points; 2.61 times sooner at 11.9%",
        better(17, BOTH, "at 9.3%", VAL), sooner(15, what="at 11.9%"), note="at best 2.97 times, at 22.5%",
    ),
    _h2(
        "CH.6", _adam("conv6", 0.0004),
        "Learning rate 0.0004: 81.9% on the validation set at 15.2%, +2.7 points",
        better(13, BOTH, "at 15.2%", VAL),
    ),
    _h2(
        "CH.6", _adam("conv6", 0.0002),
        "Learning rate 0.0002: tickets stop 6.26 times sooner at 19.7%",
        sooner(11, what="at 19.7%"),
    ),
    *_sgd("conv2", 0.001), *_sgd("conv4", 0.01), *_sgd("conv6", 0.02),
    _h5(
        "CH.8", _dropout_val("conv2", 0.0001),
        "Learning rate 0.0001: no network learns until it is pruned to 26.5%; then all do",
        accuracy(ticket(0, VAL), what="unpruned"), accuracy(ticket(7, VAL), what="at 21.2%"),
    ),
    _h5(
        "CH.9", _dropout_val("conv4", 0.0002),
        "Dropout: 77.6% on the validation set unpruned, 82.6% at 7.6%, 1.58 times sooner there",
        accuracy(ticket(0, VAL), what="unpruned"), accuracy(ticket(13, VAL), what="at 7.7%"),
        sooner(13, what="at 7.7%"),
    ),
    _h5(
        "CH.10", _dropout_val("conv6", 0.0002),
        "Dropout: 81.3% on the validation set unpruned, 84.8% at 10.5%, 1.5 times sooner at 15.1%",
        accuracy(ticket(0, VAL), what="unpruned"), accuracy(ticket(12, VAL), what="at 10.5%"),
        sooner(10, what="at 15.1%"),
    ),
    *(
        Claim(
            "CH.11", "H.6", of, f"Fully connected layers hold {share} of the weights", ("2",),
            lacks="counts by layer, which summary.csv does not hold",
        )
        for of, share in ((CONV2, "99%"), (CONV4, "89%"), (CONV6, "35%"))
    ),
    Claim(
        "CI.1", "I.1", VGG_WARM_LAYERWISE, LAYERWISE, ("40",),
        (better(12, SIDE, "layer by layer, at 6.9%", AT_112K),),
    ),
    Claim("CI.1", "I.1", VGG_WARM, LAYERWISE, ("7",), (better(19, SIDE, "globally, at 1.5%", AT_112K),)),
    *_warmups("resnet18", 0.03, (0, 500, 1000, 5000, 10000, 20000), 7, "at 21.9%"),
    *_warmups("vgg19", 0.1, (0, 1000, 5000, 10000, 20000, 50000), 19, "at 1.5%"),
    *_rates("resnet18", (0.01, 0.02, 0.03, 0.05, 0.1), 7, "at 21.9%"),
    *_rates("vgg19", (0.01, 0.02, 0.03, 0.1), 15, "at 3.5%"),
    *(
        Claim(
            "CA.1", "abstract", of, "Winning tickets are found at less than 10 to 20% of the network's size", figures,
            (sooner(level, ABOVE, f"sooner at {at}"), better(level, ABOVE, f"more accurate at {at}")),
        )
        for of, figures, level, at in (
            (LENET, MAIN, 8, "16.9%"), (CONV2, CONV, 8, "17.0%"), (CONV4, CONV, 9, "16.2%"), (CONV6, CONV, 10, "15.1%")
        )
    ),
)  # fmt: skip
