"""Flips and crops: what they do, that they hang on nothing but the update, and that only training sees them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

import lth
from lth import config, data, models
from lth.errors import UsageError
from lth.execution.resources import choose
from lth.models import init
from lth.pruning import masks
from lth.training.augment import flip_and_crop
from lth.training.torch_engine import TorchEngine, prepare


def engine(tiny: dict[str, Any], key: str = "key", **recipe: Any) -> TorchEngine:
    tiny = tiny | {"recipe": tiny["recipe"] | recipe}
    experiment = config.resolve(tiny)
    splits = data.split(data.load(tiny["data"]["name"]), 90, 1)
    model = models.build(experiment.model, (1, 6, 6), 4)
    start = init.draw(model, torch.Generator().manual_seed(3))
    mask = masks.ones(start, models.groups(model))
    return TorchEngine(model, start, mask, experiment.recipe, prepare(splits, "cpu"), (key,), "cpu")


def found_in(whole: torch.Tensor, part: torch.Tensor) -> list[tuple[int, int]]:
    """Where `part` lies in `whole` with its border of zeros."""
    bordered, (height, width) = pad(whole, (4, 4, 4, 4)), whole.shape[1:]
    return [
        (down, right)
        for down in range(9)
        for right in range(9)
        if torch.equal(bordered[:, down : down + height, right : right + width], part)
    ]


def test_each_image_is_a_crop_of_itself_or_of_its_mirror_image() -> None:
    images = torch.rand(50, 3, 10, 12, generator=torch.Generator().manual_seed(1))
    places: Counter[tuple[int, int]] = Counter()
    mirrored = 0
    for update in range(40):
        for image, changed in zip(images, flip_and_crop(images, 7, update), strict=True):
            plain, flipped = found_in(image, changed), found_in(image.flip(2), changed)
            assert len(plain) + len(flipped) == 1
            places.update(plain + flipped)
            mirrored += len(flipped)
    assert len(places) == 81 and max(places.values()) < 3 * 2000 / 81
    assert 0.45 < mirrored / 2000 < 0.55


def test_it_hangs_on_the_key_and_the_update_alone() -> None:
    images = torch.rand(20, 1, 8, 8)
    once = flip_and_crop(images, 3, 5)
    torch.rand(11)
    assert torch.equal(once, flip_and_crop(images, 3, 5))
    assert not torch.equal(once, flip_and_crop(images, 3, 6)) and not torch.equal(once, flip_and_crop(images, 4, 5))


def test_slicing_and_resuming_change_no_bit(tiny: dict[str, Any]) -> None:
    whole, sliced, resumed = (engine(tiny, augment=True) for _ in range(3))
    whole.advance(20)
    for until in (1, 4, 11, 20):
        sliced.advance(until)
    stopped = engine(tiny, augment=True)
    stopped.advance(9)
    resumed.restore(stopped.state(), 9)
    resumed.advance(20)
    for name, weight in whole.weights().items():
        assert torch.equal(weight, sliced.weights()[name]) and torch.equal(weight, resumed.weights()[name])


def test_training_images_change_and_no_others(tiny: dict[str, Any]) -> None:
    plain, augmented, another = engine(tiny), engine(tiny, augment=True), engine(tiny, key="other", augment=True)
    before = {split: images.clone() for split, (images, _) in augmented.data.items()}
    for split in ("train", "validation", "test"):  # the training set is evaluated as it is, too
        assert augmented.evaluate(split) == plain.evaluate(split)
    for each in (plain, augmented, another):
        each.advance(10)
    assert not torch.equal(plain.weights()["fc1.weight"], augmented.weights()["fc1.weight"])
    assert not torch.equal(another.weights()["fc1.weight"], augmented.weights()["fc1.weight"])
    assert all(torch.equal(images, before[split]) for split, (images, _) in augmented.data.items())
    plain.set_weights(augmented.weights())
    for split in ("train", "validation", "test"):
        assert augmented.evaluate(split) == plain.evaluate(split)


def test_the_native_engine_leaves_it_to_torch(tiny: dict[str, Any]) -> None:
    experiment = config.resolve(tiny, {"recipe.augment": True})
    means, reason = choose(experiment, (1, 6, 6), 4, "auto", "cpu")
    assert means.engine == "torch"
    with pytest.raises(UsageError, match="--engine torch"):
        choose(experiment, (1, 6, 6), 4, "native", "cpu")
    assert reason


def test_vectors_have_nothing_to_flip(tiny: dict[str, Any], tmp_path: Path) -> None:
    arrays = dict(np.load(tiny["data"]["name"]))
    for part in ("x_train", "x_test"):
        arrays[part] = arrays[part].reshape(len(arrays[part]), -1)
    np.savez(tmp_path / "vectors.npz", **arrays)
    tiny["data"]["name"] = str(tmp_path / "vectors.npz")
    with pytest.raises(UsageError, match=r"recipe\.augment is for images"):
        lth.run(tiny, {"recipe.augment": True}, out=tmp_path / "run")


def test_every_update_of_every_training_draws_anew(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []

    def watched(images: torch.Tensor, key: int, update: int) -> torch.Tensor:
        drawn.append((key, update))
        return flip_and_crop(images, key, update)

    monkeypatch.setattr("lth.training.update_loop.flip_and_crop", watched)
    for key in ("one", "other"):
        engine(tiny, key=key, augment=True).advance(12)
    assert [update for _, update in drawn] == [*range(12)] * 2
    assert len({key for key, _ in drawn[:12]}) == 1 and len(set(drawn)) == 24
