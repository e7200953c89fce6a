"""Section 3: Conv-2, Conv-4 and Conv-6 on CIFAR-10."""

from __future__ import annotations

from lth.papers.claims import ABOVE, BOTH, HELD, TEST, TRAIN, Claim, accuracy, better, gain, reinit, sooner, ticket
from lth.papers.lottery_ticket.setups import CONV2, CONV4, CONV6, DROPOUT
from lth.papers.setups import Setup

CONV = ("5", "13")


def _fastest(id: str, of: Setup, text: str, level: int, at: str, note: str = "") -> Claim:
    return Claim(id, "3", of, text, CONV, (sooner(level, what=at),), note)


def _best(id: str, of: Setup, text: str, level: int, at: str, note: str = "") -> Claim:
    return Claim(id, "3", of, text, CONV, (better(level, what=at),), note)


def _down_to_two_percent(of: Setup, level: int, at: str) -> tuple[Claim, Claim]:
    above = "Above 2% of the weights, tickets stay above the unpruned network's average test accuracy"
    whole = "Above 2% of the weights, tickets reach about 100% training accuracy at the last iteration"
    return (
        Claim("C3.7", "3", of, above, CONV, (better(level, ABOVE, at),)),
        Claim("C3.7b", "3", of, whole, CONV, (accuracy(ticket(level, TRAIN), what=at),)),
    )


def _dropout(of: Setup, gained: str, pruned: str, level: int, at: str, fast: int, fast_at: str) -> tuple[Claim, ...]:
    """The three claims about one network trained with dropout; `fast` is the level of earliest early stop."""
    dropout, figures = DROPOUT[of], ("6", "5")
    unpruned = gain(ticket(0, TEST, dropout), ticket(0, TEST, of), BOTH, "unpruned")
    return (
        Claim("C3.8", "3", dropout, f"Dropout alone gains {gained} points of test accuracy", figures, (unpruned,)),
        Claim("C3.9", "3", dropout, f"Pruning gains up to {pruned} points more", figures, (better(level, what=at),)),
        Claim("C3.10", "3", dropout, "With dropout too, tickets learn faster", figures, (sooner(fast, what=fast_at),)),
    )


SECTION_3 = (
    _fastest("C3.1", CONV2, "Early stop comes at best 3.5 times sooner, at 8.8%", 11, "at 8.8%"),
    _fastest("C3.2", CONV4, "Early stop comes at best 3.5 times sooner, at 9.2%", 12, "at 9.2%"),
    _fastest(
        "C3.3", CONV6, "Early stop comes at best 2.5 times sooner, at 15.1%", 10, "at 15.1%",
        "at best 2.78 times, at 26.4%",
    ),
    _best("C3.4", CONV2, "Test accuracy at early stop gains at best 3.4 points, at 4.6%", 14, "at 4.6%"),
    _best("C3.5", CONV4, "Test accuracy at early stop gains at best 3.5 points, at 11.1%", 11, "at 11.1%"),
    _best(
        "C3.6", CONV6, "Test accuracy at early stop gains at best 3.3 points, at 26.4%", 7, "at 26.4%",
        "at best +3.26, at 21.9%",
    ),
    *_down_to_two_percent(CONV2, 17, "at 2.4%"),
    *_down_to_two_percent(CONV4, 21, "at 2.0%"),
    *_down_to_two_percent(CONV6, 21, "at 2.1%"),
    *(
        Claim(
            "C3.7c", "3", of, "Reinitialised, test accuracy at first holds or improves as the network gets sparser",
            CONV,
            (gain(reinit(level, TEST), ticket(0, TEST), HELD, at),),
        )
        for of, level, at in ((CONV2, 6, "at 26.5%"), (CONV4, 4, "at 43.6%"))
    ),
    *_dropout(CONV2, "2.1", "2.3", 9, "at 13.7%", 2, "at 64.2%"),
    *_dropout(CONV4, "3.0", "4.6", 13, "at 7.7%", 10, "at 13.3%"),
    *_dropout(CONV6, "2.4", "4.7", 10, "at 15.1%", 9, "at 18.2%"),
)  # fmt: skip
