"""Classes with names: from text or folders to the run, its tickets and its exports, in an order that stays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lth
from conftest import tiny_arrays
from lth import config
from lth.errors import UsageError
from lth.storage import runs
from lth.storage.tensors import read_metadata
from lth.tickets.ticket import Ticket, describe

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("20", "3", "100", "ab")  # of the classes 0 to 3 of `tiny_arrays`


def with_names(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    arrays = tiny_arrays()
    labels = {key: np.array(names)[arrays[key]] for key in ("y_train", "y_test")}
    np.savez(path, **arrays | labels)  # type: ignore[arg-type]
    return path


def run(tables: dict[str, Any], out: Path, **options: Any) -> Path:
    lth.run(tables, out=out, engine="torch", workers=1, pictures=False, **options)
    return out


@pytest.fixture
def named(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    tiny["data"]["name"] = str(with_names(tmp_path / "named.npz", ("20", "3", "100", "5")))
    return tiny | {"levels": 1}


def test_names_are_kept_in_the_run_its_tickets_and_its_exports(named: dict[str, Any], tmp_path: Path) -> None:
    folder = run(named, tmp_path / "run")
    order = ("3", "5", "20", "100")
    assert runs.read_experiment(folder).data.classes == order
    ticket = Ticket.load(folder / "trial-1/level-01/ticket.safetensors")
    assert tuple(ticket.origin["settings"]["data"]["classes"]) == order and ticket.origin["classes"] == 4
    assert any(line.split() == ["classes", "4:", "3,", "5,", "20,", "100"] for line in describe(ticket))
    said: list[str] = []
    lth.export(folder, 1, 1, tmp_path / "w.pt", say=said.append)
    assert tuple(json.loads((tmp_path / "w.classes.json").read_text())) == order
    assert torch.load(tmp_path / "w.pt", weights_only=True).keys() == ticket.start.keys()
    assert re.search(r"w\.classes\.json: the classes in the order of the outputs: 3, 5, 20, 100", said[0])
    lth.export(folder, 1, 1, tmp_path / "t.safetensors")
    content = (tmp_path / "t.safetensors").read_bytes()
    assert tuple(read_metadata(content)["settings"]["data"]["classes"]) == order


def test_the_numbers_are_those_of_integers_in_the_order_of_the_names(named: dict[str, Any], tmp_path: Path) -> None:
    arrays = dict(np.load(named["data"]["name"]))
    order = np.array(["3", "5", "20", "100"])
    for key in ("y_train", "y_test"):
        arrays[key] = np.array([list(order).index(label) for label in arrays[key]])
    np.savez(tmp_path / "numbers.npz", **arrays)
    numbers = named | {"data": {"name": str(tmp_path / "numbers.npz"), "validation": 90}}
    a, b = run(named, tmp_path / "a"), run(numbers, tmp_path / "b")
    assert (a / "curves.csv").read_text() == (b / "curves.csv").read_text()
    assert runs.read_experiment(b).data.classes == ()


def test_a_run_goes_on_in_the_order_that_it_was_begun_with(named: dict[str, Any], tmp_path: Path) -> None:
    given = named | {"data": named["data"] | {"classes": ["100", "20", "5", "3"]}}
    folder = run(given, tmp_path / "run")
    before = (folder / "summary.csv").read_text()
    run(named | {"levels": 2}, folder)  # the record counts where the call has none
    assert runs.read_experiment(folder).data.classes == ("100", "20", "5", "3")
    assert (folder / "summary.csv").read_text().startswith(before)
    with pytest.raises(UsageError, match=r"data\.classes: .* there, .* here"):
        run(named | {"data": named["data"] | {"classes": ["3", "5", "20", "100"]}}, folder)
    again = run(config.read(folder / "experiment.toml"), tmp_path / "again")
    assert (again / "curves.csv").read_text() == (folder / "curves.csv").read_text()


def test_a_run_without_a_record_keeps_the_order_of_its_first_version(tiny: dict[str, Any], tmp_path: Path) -> None:
    """As one of version 0.1 on a folder of images: its experiment.toml has no data.classes."""
    pytest.importorskip("PIL.Image")
    tiny["data"] = {"name": str(pictures(tmp_path / "pictures")), "validation": 8}
    tiny["recipe"]["batch"] = 8
    given = tiny | {"levels": 0, "data": tiny["data"] | {"classes": ["10", "9"]}}
    folder = run(given, tmp_path / "run")
    text = (folder / "experiment.toml").read_text()
    bare = re.sub(r"^(#.*|classes = .*)\n", "", text, flags=re.M)
    (folder / "experiment.toml").write_text(bare)
    run(tiny | {"levels": 1}, folder)
    assert runs.read_experiment(folder).data.classes == ()
    with pytest.raises(UsageError, match="begun with its classes in the order of their names as text"):
        run(tiny | {"levels": 1, "data": tiny["data"] | {"classes": ["9", "10"]}}, folder)
    new = run(tiny | {"levels": 1}, tmp_path / "new")
    assert runs.read_experiment(new).data.classes == ("9", "10")
    assert (new / "curves.csv").read_text() != (folder / "curves.csv").read_text()


def pictures(root: Path) -> Path:
    from PIL import Image

    drawn = np.random.default_rng(0)
    for part in ("train", "test"):
        for value, name in ((40, "9"), (160, "10")):
            (root / part / name).mkdir(parents=True)
            for number in range(12):
                Image.fromarray(drawn.integers(value - 40, value + 40, (6, 6)).astype(np.uint8)).save(
                    root / part / name / f"{number}.png"
                )
    return root


def test_digests_are_those_of_version_0_1_where_the_order_is() -> None:
    plain = config.resolve("lenet", {"data.name": "./photos"})
    ordered = config.resolve("lenet", {"data.name": "./photos", "data.classes": ["ant", "cat"]})
    other = config.resolve("lenet", {"data.name": "./photos", "data.classes": ["cat", "ant"]})
    assert plain.digest(3) == ordered.digest(3) != other.digest(3)
    sized = config.resolve("lenet", {"data.name": "./photos", "data.size": 64})
    assert sized.data.size == (64, 64) and sized.digest(0) != plain.digest(0)


def test_a_ticket_is_trained_in_its_own_order(named: dict[str, Any], tmp_path: Path) -> None:
    given = named | {"data": named["data"] | {"classes": ["100", "20", "5", "3"]}}
    ticket = run(given, tmp_path / "run") / "trial-1/level-01/ticket.safetensors"
    for experiment in (None, named):
        lth.run(experiment, ticket=ticket, out=tmp_path / f"of-{experiment is None}", engine="torch", pictures=False)
        assert runs.read_experiment(tmp_path / f"of-{experiment is None}").data.classes == ("100", "20", "5", "3")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data.classes": ["3", "5"]}, "data.classes lacks 20, 100: name every class"),
        ({"data.classes": ["3", "5", "20", "1000"]}, "data.classes names '1000', and no class is called so"),
        ({"data.classes": ["3", "3"]}, "'3' stands in it twice"),
        ({"data.size": 8}, "data.size is for folders of images, and"),
        ({"data.size": [8]}, "expected a height and a width, such as 64 or [48, 64]; not [8]"),
        ({"data.size": 0}, "data.size[0] = 0: "),
        ({"data.size": "big"}, "data.size = 'big': expected a list"),
    ],
)
def test_what_does_not_fit_is_refused(named: dict[str, Any], tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        lth.run(named, change, out=tmp_path / "run")
    assert said in str(caught.value) and not (tmp_path / "run").exists()


def test_names_for_classes_that_have_none_are_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the classes of tiny have no names but their numbers; leave it out"):
        lth.run(tiny, {"data.classes": ["a", "b", "c", "d"]}, out=tmp_path / "run")


def arrays_of(**changed: np.ndarray) -> tuple[np.ndarray, ...]:
    right = {"x_train": np.zeros((6, 4)), "y_train": np.array(list("abcabc")), "x_test": np.zeros((3, 4))}
    return tuple({**right, "y_test": np.array(list("cba")), **changed}.values())


def test_text_as_labels() -> None:
    data = lth.data.from_arrays("a", *arrays_of())
    assert data.class_names == ("a", "b", "c") and data.train_y.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.test_y.tolist() == [2, 1, 0] and data.train_y.dtype == np.int64
    of_bytes = lth.data.from_arrays("a", *arrays_of(y_train=np.array([b"a", b"\xff"] * 3), y_test=np.array([b"a"] * 3)))
    assert of_bytes.class_names == ("\\xff", "a")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"y_test": np.array(list("abd"))}, "y_test holds 'd', which no example in y_train has"),
        ({"y_test": np.array([0, 1, 2])}, "y_train is of type text, expected integers"),
        ({"y_train": np.array(list("aaaaaa")), "y_test": np.array(list("aaa"))}, "one class only"),
        ({"y_train": np.array(["a" * 300, "b"] * 3)}, "of up to 300 characters; expected names of classes, of 255"),
        ({"y_train": np.array(list("abc"))}, "y_train has shape (3,), expected (6,)"),
        ({"y_train": np.frombuffer(b"\xff" * 24, "<U1")}, "holds characters that are no text"),
        ({"y_train": np.array([["a"], ["b"], ["c"]] * 2)}, "y_train has shape (6, 1), expected (6,): y_train[:, 0]"),
    ],
)
def test_text_that_names_no_classes(changed: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        lth.data.from_arrays("mine", *arrays_of(**changed))
    assert str(caught.value).startswith("mine: ") and said in str(caught.value)
