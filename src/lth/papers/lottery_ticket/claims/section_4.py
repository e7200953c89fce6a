"""Section 4: VGG-19 and Resnet-18 on CIFAR-10."""

from __future__ import annotations

from lth.papers.claims import (
    BOTH,
    NEAR,
    SAME,
    SIDE,
    Check,
    Claim,
    Rules,
    accuracy,
    better,
    gain,
    over_reinit,
    reinit,
    ticket,
)
from lth.papers.lottery_ticket.setups import RESNET, RESNET_LOW, RESNET_WARM, VGG, VGG_LOW, VGG_WARM
from lth.papers.setups import setup

AT_112K, AT_30K = "test_accuracy_at_112000", "test_accuracy_at_30000"


def _vgg(level: int, rules: Rules, what: str) -> Check:
    return better(level, rules, what, AT_112K)


def _resnet(level: int, rules: Rules, what: str) -> Check:
    return better(level, rules, what, AT_30K)


SECTION_4 = (
    Claim(
        "C4.1", "4", VGG, "At learning rate 0.1, tickets are no better than reinit", ("7",),
        tuple(over_reinit(k, SAME, at, AT_112K) for k, at in ((7, "at 21.0%"), (15, "at 3.5%"), (19, "at 1.5%"))),
    ),
    Claim(
        "C4.2", "4", VGG_LOW, "At learning rate 0.01, tickets stay within 1 point of the unpruned network down to 3.5%",
        ("7",), (_vgg(15, NEAR, "at 3.5%"), _vgg(10, NEAR, "at 10.8%")), "1.0 to 1.2 points down from 33 to 8.6%",
    ),
    *(
        Claim(
            "C4.3", "4", of, "Warmup over 10,000 iterations makes the unpruned network about 1 point more accurate",
            ("7",),
            (gain(ticket(0, AT_112K, VGG_WARM), ticket(0, AT_112K, VGG), BOTH, "unpruned"),),
        )
        for of in (VGG, VGG_WARM)
    ),
    Claim(
        "C4.4", "4", VGG_WARM, "With warmup, tickets exceed the unpruned network's accuracy down to 1.5%", ("7",),
        (_vgg(18, SIDE, "at 1.8%"), _vgg(19, SIDE, "at 1.5%")), "1.8% is the last above",
    ),
    Claim(
        "C4.5", "5", VGG_WARM, "Tickets are found down to 1.5% of the weights, where reinit is far less accurate",
        ("7",),
        (_vgg(19, NEAR, "ticket at 1.5%"), over_reinit(19, BOTH, "over reinit at 1.5%", AT_112K)),
    ),
    Claim(
        "C4.6", "4", RESNET_LOW,
        "At learning rate 0.01, the best tickets have 89.5%, from 41.7 to 21.9% of the weights",
        ("8",), (accuracy(ticket(4, AT_30K), what="at 41.7%"), accuracy(ticket(7, AT_30K), what="at 21.9%")),
    ),
    Claim(
        "C4.7", "4", RESNET, "At learning rate 0.1, the unpruned network has 90.5%", ("8",),
        (accuracy(ticket(0, AT_30K), what="unpruned"),),
    ),
    Claim(
        "C4.8", "4", RESNET_WARM, "With warmup to 0.03 over 20,000 iterations, the ticket at 27.1% has 90.5%", ("8",),
        (accuracy(ticket(6, AT_30K), what="at 27.1%"),),
    ),
    Claim(
        "C4.9", "4", RESNET_WARM, "With warmup, tickets are found down to 11.8%", ("8",),
        (_resnet(10, NEAR, "at 11.8%"),),
    ),
    Claim(
        "C4.10", "4", setup("resnet18", {"recipe.warmup": 20000}), "No warmup finds tickets at learning rate 0.1", (),
        (over_reinit(7, SAME, "ticket over reinit at 21.9%", AT_30K),),
    ),
    Claim(
        "C4.11", "5", VGG, "Networks pruned by up to 80% and reinitialised match the unpruned one", ("7",),
        (gain(reinit(7, AT_112K), ticket(0, AT_112K), NEAR, "at 21.0%"),),
    ),
)  # fmt: skip
