"""From a name or a path to tensors: load, split, pixels, and the generators behind them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lth.data
from lth.data import Data, Splits, from_arrays, load, pixels, split
from lth.errors import UsageError
from lth.randomness import generator, seed_of


def counted(examples: int, tests: int = 3) -> Data:
    """A dataset in which each example's one feature is its own number."""
    x = np.arange(examples + tests, dtype=np.float32)[:, None]
    y = np.arange(examples + tests) % 2
    return from_arrays("counted", x[:examples], y[:examples], x[examples:], y[examples:])


def numbers(x: torch.Tensor) -> list[int]:
    return [int(number) for number in x[:, 0]]


# Randomness


def test_seeds_are_the_same_everywhere():
    """The numbers themselves: a change of them would change every run that anyone has made."""
    assert seed_of(1, "validation") == 833548683687125876
    assert seed_of(1, 2, "order", 3) == 2693747005015671132


@given(
    st.lists(st.one_of(st.integers(), st.text()), max_size=4), st.lists(st.one_of(st.integers(), st.text()), max_size=4)
)
def test_seeds_fit_and_differ(a, b):
    assert 0 <= seed_of(*a) < 2**63
    assert (seed_of(*a) == seed_of(*b)) == (a == b)


def test_numpy_integers_count_as_pythons():
    assert seed_of(np.int64(3), "x") == seed_of(3, "x") != seed_of("3", "x")


def test_generators_leave_the_global_one_alone():
    before = torch.get_rng_state()
    first = torch.rand(3, generator=generator(1, "a"))
    assert torch.equal(first, torch.rand(3, generator=generator(1, "a")))
    assert not torch.equal(first, torch.rand(3, generator=generator(1, "b")))
    assert torch.equal(before, torch.get_rng_state())


# Splitting


@settings(deadline=None)
@given(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))), st.integers(0, 2**70))
def test_parts_are_disjoint_complete_and_in_order(sizes, seed):
    examples, validation = sizes
    parts = split(counted(examples), validation, seed)
    train, val = numbers(parts.train_x), numbers(parts.val_x)
    assert len(val) == validation
    assert sorted(train + val) == list(range(examples))
    assert train == sorted(train)
    assert val == sorted(val)
    assert numbers(parts.test_x) == [examples, examples + 1, examples + 2]
    for x, y in ((parts.train_x, parts.train_y), (parts.val_x, parts.val_y), (parts.test_x, parts.test_y)):
        assert y.tolist() == [number % 2 for number in numbers(x)]
        assert y.dtype == torch.int64


def test_validation_is_drawn_by_seed_alone():
    data = counted(1000)
    first = numbers(split(data, 100, 1).val_x)
    torch.manual_seed(5)
    assert numbers(split(data, 100, 1).val_x) == first
    assert numbers(split(data, 100, 2).val_x) != first
    assert set(numbers(split(data, 50, 1).val_x)) <= set(first)


@pytest.mark.parametrize("validation", [-1, 10, 11])
def test_validation_that_leaves_nothing_to_train_on(validation):
    with pytest.raises(
        UsageError,
        match=rf"data.validation = {validation}, but counted has 10 training examples: expected 1 to 9, such as .*=1",
    ):
        split(counted(10), validation, 1)


def test_splits_hold_tensors_of_their_own():
    data = counted(10)
    parts = split(data, 3, 1)
    for tensor in (parts.train_x, parts.val_x, parts.test_x, parts.test_y):
        tensor.zero_()
    assert data.train_x[:, 0].tolist() == list(range(10))
    assert data.test_x[:, 0].tolist() == [10, 11, 12]


def test_bytes_stay_bytes_until_they_are_pixels():
    x = np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2) * 17
    parts = split(from_arrays("a", x, np.array([0, 1, 0, 1]), x, np.array([0, 1, 0, 1])), 1, 1)
    assert isinstance(parts, Splits)
    assert parts.train_x.dtype == torch.uint8
    assert parts.test_x.shape == (4, 1, 2, 2)
    scaled = pixels(parts.test_x)
    assert scaled.dtype == torch.float32
    assert scaled.flatten().tolist() == pytest.approx([i * 17 / 255 for i in range(16)])
    assert (float(scaled.min()), float(scaled.max())) == (0.0, 1.0)
    assert pixels(scaled) is scaled


@pytest.mark.parametrize("kind", ["colour", "grey", "vectors"])
def test_standardised_parts_have_the_mean_and_deviation_that_are_taken_out(kind):
    rng = np.random.default_rng(0)
    shape = {"colour": (40, 3, 6, 6), "grey": (40, 6, 6), "vectors": (40, 5)}[kind]
    x = rng.normal(7, 3, shape).astype(np.float32) if kind == "vectors" else rng.integers(0, 256, shape).astype("uint8")
    data = from_arrays("a", x, np.arange(40) % 4, x[:12], np.arange(12) % 4)
    plain = split(data, 8, 1)
    each = tuple(n for n in range(plain.train_x.dim()) if n != 1)
    of_train = pixels(plain.train_x).double()
    mean, std = of_train.mean(each), of_train.std(each, correction=0)
    parts = split(data, 8, 1, mean.tolist(), std.tolist())
    assert parts.train_x.mean(each).numpy() == pytest.approx(0, abs=1e-5)
    assert parts.train_x.std(each, correction=0).numpy() == pytest.approx(1, abs=1e-5)
    column = (slice(None), *(None,) * (len(each) - 1))
    for name in ("train_x", "val_x", "test_x"):
        before, after = pixels(getattr(plain, name)), getattr(parts, name)
        assert after.dtype == torch.float32 and after.shape == before.shape
        assert torch.allclose(after * std.float()[column] + mean.float()[column], before, atol=1e-5)
    for name in ("train_y", "val_y", "test_y"):
        assert torch.equal(getattr(parts, name), getattr(plain, name))
    assert torch.equal(split(data, 8, 1).train_x, plain.train_x)


def test_a_mean_of_other_channels_is_refused():
    x = np.zeros((4, 5, 5, 3), np.uint8)
    colours = from_arrays("mine", x, np.array([0, 1, 0, 1]), x, np.array([0, 1, 0, 1]))
    with pytest.raises(UsageError, match="have 1 numbers each, but mine has 3 channels"):
        split(colours, 1, 1, (0.5,), (0.2,))
    with pytest.raises(UsageError, match="have 3 numbers each, but counted has 1 features"):
        split(counted(10), 1, 1, (0.5,) * 3, (0.2,) * 3)


# Loading


def test_npz_of_ones_own(tmp_path):
    x = np.zeros((4, 5, 5), np.uint8)
    y = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = load(str(tmp_path / "mine.npz"))
    assert (data.name, data.classes, data.train_x.shape) == ("mine", 2, (4, 1, 5, 5))
    assert load(tmp_path / "mine.npz").name == "mine"


def test_folder_of_ones_own(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not here")
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "mnist" / place).mkdir(parents=True)
        image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "mnist" / place / "0.png")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    assert load("./mnist", say=said.append).train_x.shape == (2, 1, 3, 3)
    assert load(Path("mnist"), say=said.append).classes == 2
    assert said == ["mnist: decoding 4 images, once"]
    assert len(list((tmp_path / "cache/lth/images").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mnits", "did you mean 'mnist'?"),
        ("zzzzz", "expected one of mnist, fashion-mnist"),
        ("", "there is no dataset named ''"),
        ("none.npz", "no such file or folder"),
        ("nowhere/data", "no such file or folder"),
        ("~nosuchuser/data", "no such file or folder"),
        ("notes.txt", "expected an .npz file, a folder of images"),
        ("x" * 5000, "cannot be read"),
        ("a\0b", "there is no dataset named"),
    ],
)
def test_what_is_no_dataset(tmp_path, monkeypatch, name, text):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("x")
    with pytest.raises(UsageError) as caught:
        load(name)
    assert text in str(caught.value)


def test_importing_the_package_is_light():
    program = "import sys, lth.data; sys.exit(bool({'torch', 'numpy', 'pooch', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert set(lth.data.__all__) <= set(dir(lth.data))
    with pytest.raises(AttributeError, match="nothing"):
        lth.data.nothing  # type: ignore[attr-defined]  # noqa: B018
