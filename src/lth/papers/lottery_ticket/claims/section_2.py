"""Section 2: LeNet on MNIST."""

from __future__ import annotations

from lth.papers.claims import (
    ABOVE,
    BOTH,
    ES,
    LAST,
    NEAR,
    SIDE,
    TEST,
    TRAIN,
    Claim,
    accuracy,
    better,
    earlier,
    gain,
    over_reinit,
    reinit,
    ticket,
    times,
)
from lth.papers.lottery_ticket.setups import LENET, ONESHOT

MAIN = ("4", "12")


SECTION_2 = (
    Claim(
        "C2.1", "2", LENET, "Early stop comes earlier from 100 down to 21% of the weights; 38% earlier there", MAIN,
        (earlier(ticket(7, ES), ticket(0, ES), BOTH, "at 21.1%"),), "earliest at 13.5%: 32.3% earlier",
    ),
    Claim(
        "C2.2", "2", LENET, "Early stop is back where it was for the unpruned network at 3.6%", MAIN,
        (times(ticket(15, ES), ticket(0, ES), NEAR, "at 3.6%"),), "last not later at 5.6%",
    ),
    Claim(
        "C2.3", "2", LENET, "At 13.5%, test accuracy at early stop is more than 0.3 points up", MAIN,
        (better(9, what="at 13.5%"),), "at most +0.48, at 16.9%",
    ),
    Claim(
        "C2.4", "2", LENET, "Test accuracy at early stop is back at the unpruned network's at 3.6%", MAIN,
        (better(15, NEAR, "at 3.6%"),),
    ),
    Claim(
        "C2.5", "2", LENET, "After 50,000 iterations, test accuracy gains up to 0.35 points", MAIN,
        (better(8, what="at 16.9%, the highest", column=LAST),),
    ),
    Claim(
        "C2.6", "2 and 4", LENET, "Down to 2%, tickets reach about 100% training accuracy in 50,000 iterations", MAIN,
        (accuracy(ticket(7, TRAIN), what="at 21.1%"), accuracy(ticket(17, TRAIN), what="at 2.3%")),
    ),
    Claim(
        "C2.7", "2", LENET,
        "Reinitialised, a mask falls below the unpruned network's test accuracy at 21.1%; the ticket only at 2.9%",
        MAIN,
        (
            gain(reinit(7, TEST), ticket(0, TEST), SIDE, "reinit at 21.1%"),
            better(16, SIDE, "ticket at 2.9%"),
        ),
    ),
    Claim(
        "C2.8", "2", LENET, "At 21%, the ticket reaches its least validation loss 2.51 times sooner than reinit", MAIN,
        (times(reinit(7, ES), ticket(7, ES), BOTH, "at 21.1%"),),
    ),
    Claim(
        "C2.9", "2", LENET, "At 21%, the ticket is half a point more accurate than reinit", MAIN,
        (over_reinit(7, BOTH, "at 21.1%"),),
    ),
    Claim(
        "C2.10", "2", LENET, "Down to 5%, all networks, reinit too, reach 100% training accuracy", MAIN,
        (accuracy(ticket(13, TRAIN), what="ticket at 5.6%"), accuracy(reinit(13, TRAIN), what="reinit at 5.6%")),
    ),
    Claim(
        "C2.11", "2", LENET, "Reinitialised networks learn ever slower than the unpruned one as they get sparser", MAIN,
        (
            times(reinit(7, ES), ticket(0, ES), ABOVE, "at 21.1%, over the unpruned"),
            times(reinit(15, ES), reinit(7, ES), ABOVE, "at 3.6%, over 21.1%"),
        ),
    ),
    Claim(
        "C2.12", "2", ONESHOT, "Pruned once, tickets stop earlier than the unpruned network from 67.5 to 17.6%", ("4",),
        (
            earlier(ticket((13, 32), ES), ticket(0, ES), BOTH, "mean of 67.6 to 20.2%"),
            times(ticket(35, ES), ticket(0, ES), NEAR, "12.7%, over the unpruned"),
        ), "17.7% is the first to be later",
    ),
    Claim(
        "C2.13", "2", ONESHOT, "Pruned once, tickets are more accurate than the unpruned network from 95 to 5.17%",
        ("4",), (better((2, 37), what="mean of 95.0 to 7.7%"), better(38, NEAR, "at 5.2%")),
        "at 87.5% a little below, at 5.2% the first clearly",
    ),
    *(
        Claim(
            "C2.14", "2", of, "Iteratively found tickets are more accurate, at small sizes, than those pruned once",
            ("4",), (gain(ticket(13, TEST, LENET), ticket(38, TEST, ONESHOT), ABOVE, "5.6% over 5.2%"),),
        )
        for of in (LENET, ONESHOT)
    ),
)  # fmt: skip
