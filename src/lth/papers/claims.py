"""What the paper claims and a run can be held against: each claim with its experiments, figure and measures, as data.

Texts are the facts of the paper in our words, with its numbers. What its own figure gives is computed from the curves
by the same measures as the run's values, so that it cannot be mistyped. Levels stand for densities: level 7 of LeNet is
21.1% of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from lth.papers.curves import DEEP
from lth.papers.measure import Check, Rule, Term
from lth.papers.setups import Setup, setup

ES, TEST, VAL = "early_stop_iteration", "test_accuracy_at_early_stop", "val_accuracy_at_early_stop"
LAST, TRAIN = "final_test_accuracy", "final_train_accuracy"


Rules = tuple[Rule, ...]
NEAR: Rules = ("near",)
SIDE: Rules = ("near", "side")
ABOVE: Rules = ("above",)
HELD: Rules = ("held",)
SAME: Rules = ("same",)
BOTH: Rules = ("near", "above")


@dataclass(frozen=True)
class Claim:
    """A claim about one experiment of the paper.

    `figures` are those that its values are taken from. A claim without checks cannot be measured: `lacks` says why.
    """

    id: str
    section: str
    setup: Setup
    text: str
    figures: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    note: str = ""  # what else the figure shows, where text and figure disagree
    lacks: str = ""


# -------------------------------------------------------------------------------------------------- how to write checks


def ticket(level: int | tuple[int, int], column: str, of: Setup | None = None) -> Term:
    return Term("ticket", level, column, of)


def reinit(level: int | tuple[int, int], column: str) -> Term:
    return Term("reinit", level, column)


def random_mask(level: int | tuple[int, int], column: str) -> Term:
    return Term("random-mask", level, column)


def times(a: Term, b: Term, rules: Rules, what: str = "") -> Check:
    """a over b."""
    return Check("times", a, b, rules, what)


def earlier(a: Term, b: Term, rules: Rules, what: str = "") -> Check:
    """By which share a comes before b."""
    return Check("earlier", a, b, rules, what)


def gain(a: Term, b: Term, rules: Rules, what: str = "") -> Check:
    """By how many points a is more accurate than b."""
    return Check("points", a, b, rules, what)


def accuracy(a: Term, rules: Rules = NEAR, what: str = "") -> Check:
    return Check("accuracy", a, None, rules, what)


def sooner(level: int, rules: Rules = BOTH, what: str = "") -> Check:
    """How many times sooner than the unpruned network the ticket reaches early stop."""
    return times(ticket(0, ES), ticket(level, ES), rules, what)


def better(level: int | tuple[int, int], rules: Rules = BOTH, what: str = "", column: str = TEST) -> Check:
    """By how much the ticket is more accurate than the unpruned network."""
    return gain(ticket(level, column), ticket(0, column), rules, what)


def over_reinit(level: int, rules: Rules, what: str = "", column: str = TEST) -> Check:
    return gain(ticket(level, column), reinit(level, column), rules, what)


# ------------------------------------------------------------------------------------------- section 2: LeNet on MNIST

LENET, ONESHOT, CONTINUED = Setup("lenet"), Setup("lenet-oneshot"), Setup("lenet-continued")
MAIN = ("4", "12")
RISE, REACHES = "last_val_loss_over_least", "iteration_of_97.5%"
TENSORS = "the tickets' weights, which summary.csv and curves.csv do not hold"

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

# ------------------------------------------------------------------------------------ section 3: Conv-2, Conv-4, Conv-6

CONV2, CONV4, CONV6 = Setup("conv2"), Setup("conv4"), Setup("conv6")
DROPOUT = {of: Setup(f"{of.preset}-dropout") for of in (CONV2, CONV4, CONV6)}
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
    own, figures = DROPOUT[of], ("6", "5")
    unpruned = gain(ticket(0, TEST, own), ticket(0, TEST, of), BOTH, "unpruned")
    return (
        Claim("C3.8", "3", own, f"Dropout alone gains {gained} points of test accuracy", figures, (unpruned,)),
        Claim("C3.9", "3", own, f"Pruning gains up to {pruned} points more", figures, (better(level, what=at),)),
        Claim("C3.10", "3", own, "With dropout too, tickets learn faster", figures, (sooner(fast, what=fast_at),)),
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

# ------------------------------------------------------------------------------------- section 4: VGG-19 and Resnet-18

VGG, VGG_LOW, VGG_WARM = Setup("vgg19"), Setup("vgg19-lr0.01"), Setup("vgg19-warmup")
RESNET, RESNET_LOW, RESNET_WARM = Setup("resnet18"), Setup("resnet18-lr0.01"), Setup("resnet18-warmup")
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

# ---------------------------------------------------------------------------------------------------- appendices B to F

KEEPS = (
    "Resetting keeps higher validation accuracy and earlier early stop down to smaller sizes than continued training"
)


def _strategies(resetting: Setup, continued: Setup, figure: str, level: int, at: str) -> tuple[Claim, Claim]:
    """Each strategy's own half: its accuracy and early stop at one level, against the paper's figure."""
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
        "CF.2", "F.2", setup("lenet", {"recipe.optimizer": "sgd", "recipe.lr": 0.8}),
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

# --------------------------------------------------------------------------------------------------- appendices H and I


def _adam(network: str, lr: float) -> Setup:
    """Appendix H.2 pruned all convolutions by 10% a level."""
    return setup(network, {"recipe.lr": lr, "prune.conv_rate": 0.1})


def _h2(id: str, of: Setup, text: str, *checks: Check, note: str = "") -> Claim:
    return Claim(id, "H.2", of, text, ("32",), checks, note)


def _h5(id: str, of: Setup, text: str, *checks: Check) -> Claim:
    return Claim(id, "H.5", of, text, ("36",), checks)


def _sgd(network: str, lr: float) -> tuple[Claim, ...]:
    """The SGD run at its best learning rate for the unpruned network, and Adam's at the chosen one."""
    sgd = setup(network, {"recipe.optimizer": "sgd", "recipe.lr": lr, "prune.conv_rate": 0.1})
    adam = _adam(network, 0.0002 if network == "conv2" else 0.0003)
    check = gain(ticket(0, VAL, adam), ticket(0, VAL, sgd), BOTH, "Adam over SGD, unpruned")
    text = "Unpruned networks are 2 to 3 points less accurate when trained with SGD than with Adam"
    return tuple(Claim("CH.7", "H.3", of, text, ("32", "33"), (check,)) for of in (adam, sgd))


def _dropout_val(network: str, lr: float) -> Setup:
    return setup(f"{network}-dropout", {"recipe.lr": lr})


def _warmups(network: str, lr: float, lengths: tuple[int, ...], level: int, at: str) -> tuple[Claim, ...]:
    """Each warmup length's own part: the ticket's accuracy at one level, against the paper's figure."""
    figure, column = ("44", "val_accuracy_at_30000") if network == "resnet18" else ("45", "val_accuracy_at_112000")
    text = (
        "The longer the warmup, the more accurate the tickets, with less and less to gain from about 5,000 iterations"
    )
    note = "a run has one length: its own accuracy is judged"
    check = accuracy(ticket(level, column), what=at)
    return tuple(Claim("CI.2", "I.5", _rate(network, lr, k), text, (figure,), (check,), note) for k in lengths)


def _rates(network: str, rates: tuple[float, ...], level: int, at: str) -> tuple[Claim, ...]:
    figure, column = ("42", "val_accuracy_at_30000") if network == "resnet18" else ("43", "val_accuracy_at_112000")
    low, high = (
        "At learning rate 0.01 tickets are more accurate than reinit",
        "Above learning rate 0.01 tickets are no more accurate than reinit",
    )
    return tuple(
        Claim(
            "CI.3", "I.4", _rate(network, lr), low if lr == 0.01 else high, (figure,),
            (over_reinit(level, BOTH if lr == 0.01 else NEAR, at, column),),
        )
        for lr in rates
    )  # fmt: skip


def _rate(network: str, lr: float, warmup: int = 0) -> Setup:
    preset = DEEP.get((network, lr, warmup))
    return Setup(preset) if preset else setup(network, {"recipe.lr": lr, "recipe.warmup": warmup})


VGG_WARM_LAYERWISE = setup("vgg19-warmup", {"prune.scope": "layerwise"})
LAYERWISE = "With warmup, tickets are found down to 6.9% pruned layer by layer, down to 1.5% pruned globally"

FURTHER = (
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
    Claim("CI.1", "I.1", VGG_WARM_LAYERWISE, LAYERWISE, ("40",), (_vgg(12, SIDE, "layer by layer, at 6.9%"),)),
    Claim("CI.1", "I.1", VGG_WARM, LAYERWISE, ("7",), (_vgg(19, SIDE, "globally, at 1.5%"),)),
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

CLAIMS = (*SECTION_2, *SECTION_3, *SECTION_4, *APPENDICES, *FURTHER)


def claims_of(setup: Setup) -> list[Claim]:
    """The claims that a run of this experiment can speak to, in the paper's order; each id once."""
    return [claim for claim in CLAIMS if claim.setup == setup]
