"""Learning-rate schedules by values that were computed by hand, and the settings that go with each."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lth.config import Recipe
from lth.errors import UsageError
from lth.training.schedule import lr_at


def recipe(**given: Any) -> Recipe:
    return Recipe.model_validate({"optimizer": "sgd", "lr": 0.1, "iterations": 100} | given)


def test_the_learning_rate_warms_up_and_drops() -> None:
    steps = recipe(warmup=10, drops=[50, 80])
    assert steps.schedule == "steps"
    assert [lr_at(steps, i) for i in (0, 4, 9, 10, 49)] == pytest.approx([0.01, 0.05, 0.1, 0.1, 0.1])
    assert [lr_at(steps, i) for i in (50, 79, 80, 99)] == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_linear_decay_is_a_straight_line_to_0() -> None:
    linear = recipe(schedule="linear")
    assert [lr_at(linear, i) for i in (0, 25, 50, 99)] == pytest.approx([0.1, 0.075, 0.05, 0.001])
    assert lr_at(linear, 100) == 0 == lr_at(linear, 150)


def test_linear_decay_begins_after_warmup() -> None:
    linear = recipe(schedule="linear", warmup=20)
    assert [lr_at(linear, i) for i in (0, 9, 19, 20, 60, 99)] == pytest.approx([0.005, 0.05, 0.1, 0.1, 0.05, 0.00125])


def test_the_cosine_is_half_a_period_to_0() -> None:
    cosine = recipe(schedule="cosine")
    expected = [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5))]
    assert [lr_at(cosine, i) for i in (0, 25, 50, 75)] == pytest.approx(expected)
    assert lr_at(cosine, 99) == pytest.approx(0.05 * (1 + math.cos(0.99 * math.pi)))
    assert lr_at(cosine, 100) == pytest.approx(0)


def test_the_cosine_begins_after_warmup() -> None:
    cosine = recipe(schedule="cosine", warmup=20)
    assert [lr_at(cosine, i) for i in (0, 19, 20, 60)] == pytest.approx([0.005, 0.1, 0.1, 0.05])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_training_may_be_all_warmup(schedule: str) -> None:
    rates = [lr_at(recipe(schedule=schedule, warmup=100), i) for i in range(100)]
    assert rates == pytest.approx([0.001 * (i + 1) for i in range(100)])


def test_drops_are_of_steps_alone() -> None:
    with pytest.raises(ValueError, match=r'it is for recipe\.schedule = "steps", but the schedule is "cosine"'):
        recipe(schedule="cosine", drops=[50])


def test_a_schedule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected steps, cosine, linear; did you mean 'cosine'\?"):
        recipe(schedule="cosin")
    with pytest.raises(UsageError, match="unknown schedule 'cosin'; give one of: steps, cosine, linear"):
        lr_at(recipe().model_copy(update={"schedule": "cosin"}), 0)


def test_what_is_as_its_default_enters_no_digest() -> None:
    assert not {"schedule", "clip"} & recipe().model_dump(exclude_defaults=True).keys()
    assert {"schedule", "clip"} <= recipe(schedule="linear", clip=1).model_dump(exclude_defaults=True).keys()
