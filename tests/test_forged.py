"""Files that were made to harm: whole and sealed, but with what no writer of lth writes. They are refused in a line."""

from __future__ import annotations

import copy
import os
import re
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lth import native
from lth.cli import main
from lth.config import printable, resolve, to_toml
from lth.config.toml import MOST_BYTES, loads, read
from lth.data import load
from lth.errors import Damaged, UsageError
from lth.execution import job
from lth.execution.checkpoints import checkpoint_bytes, from_checkpoint_bytes
from lth.execution.resources import Resources
from lth.execution.setup import check, given_ticket, set_up
from lth.plan import trainings
from lth.storage.documents import MOST_BYTES as MOST_JSON
from lth.storage.documents import read_json
from lth.storage.tensors import load_tensors, pack, save_tensors
from lth.tickets.ticket import Ticket, describe, from_bytes
from lth.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")

# ------------------------------------------------------------------------------------------------------- ticket files

ORIGIN: dict[str, Any] = {
    "model": {"name": "lenet"}, "seeds": {"experiment": 1, "trial": 1}, "inputs": [1, 6, 6], "classes": 4,
    "settings": {"data": {"name": "mnist"}, "recipe": {"lr": 0.1}},
}  # fmt: skip


def forged(origin: dict[str, Any] | None = None, name: str = "a.weight", weight: Tensor | None = None) -> bytes:
    """A sealed ticket file with one layer, all of which survives."""
    weight = torch.ones(2, 3) if weight is None else weight
    mask = torch.ones(weight.shape, dtype=torch.bool)
    facts = ORIGIN | {"format": 2, "counts": {name: mask.numel()}, "density": 1.0} | (origin or {})
    return save_tensors({f"mask/{name}": pack(mask), f"start/{name}": weight}, facts)


WRONG_ORIGINS: list[tuple[dict[str, Any], str]] = [
    ({"settings": 3}, "its settings is 3, expected a table"),
    ({"settings": {"data": [1]}}, r"its settings.data is \[1\], expected a table"),
    ({"seeds": 3}, "its seeds is 3, expected a table of whole numbers"),
    ({"seeds": {"experiment": 2**63}}, "expected a table of whole numbers"),
    ({"seeds": {"experiment": "1"}}, "expected a table of whole numbers"),
    ({"inputs": "ab"}, "its inputs is 'ab', expected a list of sizes"),
    ({"inputs": [[1], {}]}, "expected a list of sizes"),
    ({"inputs": [2**40]}, "expected a list of sizes"),
    ({"inputs": [True, 36]}, "expected a list of sizes"),
    ({"inputs": [28.5]}, "expected a list of sizes"),
    ({"classes": [1]}, r"its classes is \[1\], expected a number of classes"),
    ({"trial": "1"}, "its trial is '1', expected a whole number"),
    ({"branch": 1}, "its branch is 1, expected a text"),
    ({"format": True}, "its format is True, not 2"),
    ({"format": [2]}, r"its format is \[2\], not 2"),
    ({"counts": {"a.weight": 6.0}}, "its masks do not have the counts that it states"),
    ({"counts": 6}, "its masks do not have the counts that it states"),
    ({"model": {"name": "\x1b[2Jred"}}, r"its metadata has control characters: '\\x1b\[2Jred'"),
    ({"versions": {"\x9b31m": "1"}}, "its metadata has control characters"),
    ({"branch": "\u202eticket"}, "its metadata has control characters"),
]


@pytest.mark.parametrize(("origin", "said"), WRONG_ORIGINS, ids=[str(origin)[:40] for origin, _ in WRONG_ORIGINS])
def test_a_ticket_that_says_what_cannot_be(origin: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_bytes(forged(origin))
    with pytest.raises(UsageError, match=said) as caught:
        Ticket.load(tmp_path / "t.safetensors")
    assert len(str(caught.value)) < 400 + len(str(tmp_path)) and "\x1b" not in str(caught.value)


def test_what_a_ticket_need_not_say_may_be_missing_or_null() -> None:
    for origin in ({}, dict.fromkeys(ORIGIN)):
        assert "6 of 6 remain" in " ".join(describe(from_bytes(forged(origin))))


def test_tensors_that_no_ticket_has() -> None:
    for weight, said in (
        (torch.ones(0, 3), r"start/a.weight has no weights: its shape is \(0, 3\)"),
        (torch.ones(2, 3, dtype=torch.float8_e4m3fn), "is of type torch.float8_e4m3fn, expected one of"),
        (torch.ones(2, 3, dtype=torch.int64), "is of type torch.int64, expected one of"),
    ):
        with pytest.raises(ValueError, match=said):
            from_bytes(forged(weight=weight))
    with pytest.raises(ValueError, match="a tensor's name has control characters"):
        from_bytes(forged(name="a\x1b[31m.weight"))
    with pytest.raises(UsageError, match="complex128, which safetensors files do not have"):
        forged(weight=torch.ones(2, 3, dtype=torch.complex128))


def test_a_boolean_is_0_or_1() -> None:
    content = save_tensors({"flags": torch.tensor([True, False, True])}, {})
    assert load_tensors(content)["flags"].tolist() == [True, False, True]
    two = torch.tensor([1, 2, 0], dtype=torch.uint8).view(torch.bool)
    with pytest.raises(ValueError, match="flags has booleans that are neither 0 nor 1"):
        load_tensors(save_tensors({"flags": two}, {}))


STARTS = {
    "nan": (lambda start: start | {"1.bias": start["1.bias"] * np.nan}, "the start of 1.bias has values that are infi"),
    "inf": (lambda start: start | {"1.weight": start["1.weight"] / 0}, "the start of 1.weight has values that are inf"),
    "complex": (lambda start: start | {"1.bias": start["1.bias"] + 0j}, "1.bias is of type torch.complex64, where the"),
    "int": (lambda start: start | {"1.bias": start["1.bias"].long()}, "1.bias is of type torch.int64, where the mod"),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_start_that_nothing_can_be_trained_from(what: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))
    change, said = STARTS[what]
    mask = {"1.weight": torch.ones(8, 36).bool(), "3.weight": torch.ones(4, 8).bool()}
    Ticket(mask, change(model.state_dict()), ORIGIN).save(tmp_path / "t.safetensors")
    experiment = resolve(tiny, {"ticket": str(tmp_path / "t.safetensors")})
    with pytest.raises(UsageError, match=said):
        given_ticket(experiment, model)


def test_a_header_beyond_all_measure() -> None:
    with pytest.raises(
        ValueError, match=r"its header has 9,223,372,036,854,775,8\d\d bytes, more than the maximum of 16,777,216"
    ):
        from_bytes((2**63 - 1).to_bytes(8, "little") + b"{}")


# -------------------------------------------------------------------------------------------------------- checkpoints

IDENTITY = {"training": "x"}


@pytest.mark.parametrize("row", [{"iteration": True}, {"iteration": "1"}, {"val_loss": "low"}, {"test_loss": [1]}])
def test_a_curve_of_other_things_than_numbers_is_no_checkpoint(row: dict[str, Any]) -> None:
    fine = loop.Evaluation(1, 0.5, 0.5, None, None)
    checkpoint = loop.Checkpoint(2, 1.0, [fine], {}, {"x": torch.ones(1)})
    assert from_checkpoint_bytes(checkpoint_bytes(checkpoint, IDENTITY), IDENTITY)
    wrong = loop.Evaluation(**(vars(fine) | row))
    checkpoint = loop.Checkpoint(2, 1.0, [wrong], {}, {"x": torch.ones(1)})
    assert from_checkpoint_bytes(checkpoint_bytes(checkpoint, IDENTITY), IDENTITY) is None
    checkpoint = loop.Checkpoint(row.get("iteration", "2"), 1.0, [fine], {}, {"x": torch.ones(1)})
    assert from_checkpoint_bytes(checkpoint_bytes(checkpoint, IDENTITY), IDENTITY) is None


def spoilt(progress: loop.Checkpoint) -> dict[str, Any]:
    """What a forger may change of a checkpoint, each by itself."""
    first, last = next(iter(progress.state)), next(name for name in reversed(progress.state) if "exp_avg" in name)
    state = lambda name, tensor: {"state": progress.state | {name: tensor}}
    return {
        "beyond the end": {"iteration": 41},
        "2^63 - 1": {"iteration": 2**63 - 1},
        "before the curve": {"iteration": 0},
        "negative": {"iteration": -1},
        "no curve": {"curve": []},
        "a curve backwards": {"curve": progress.curve[::-1] * 2},
        "no state": {"state": {}},
        "an empty tensor": state(first, torch.ones(0)),
        "another type": state(first, torch.ones(progress.state[first].shape, dtype=torch.bfloat16)),
        "another shape": state(first, torch.ones(3, 3, 3)),
        "a moment that is empty": state(last, torch.ones(0)),
        "a moment of another type": state(last, torch.ones(progress.state[last].shape, dtype=torch.float64)),
        "a moment is missing": {"state": {name: tensor for name, tensor in progress.state.items() if name != last}},
        "best of another": {"best": {"x": torch.ones(3)}},
        "best of another type": {"best": {name: tensor.double() for name, tensor in progress.best.items()}},
    }


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_checkpoint_of_something_else_starts_over(
    engine: str, tiny: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if engine == "native" and not native.available():
        pytest.skip(str(native.why_not()))
    experiment = resolve(tiny)
    resources = Resources(engine, "cpu", "float32", 1)
    setup = set_up(experiment, resources, tmp_path, load(experiment.data.name, None))
    training = next(iter(trainings(experiment)))
    job.keep_start(1, setup)
    stored = job.needed(training, tmp_path)
    weights = lambda hooks: job.perform(training, setup, stored, hooks)["trained.safetensors"]
    expected = weights(loop.Hooks())
    at, saved = [0], list[loop.Checkpoint]()
    with pytest.raises(loop.Stopped):
        weights(
            loop.Hooks(save=lambda c: saved.append(copy.deepcopy(c)), report=at.append, stopped=lambda: at[-1] >= 20)
        )
    middle = saved[-1]
    assert 20 <= middle.iteration < 40 and middle.best
    assert weights(loop.Hooks(load=lambda: copy.deepcopy(middle))) == expected and not caplog.records
    for what, changes in spoilt(middle).items():
        wrong = replace(copy.deepcopy(middle), **changes)
        assert weights(loop.Hooks(load=lambda wrong=wrong: wrong)) == expected, what
        (record,) = caplog.records
        assert "a checkpoint cannot be used: its " in record.message, what
        caplog.clear()


@pytest.mark.skipif(not native.available(), reason=str(native.why_not()))
@pytest.mark.parametrize(("scale", "status"), [(1.0, "done"), (1e20, "done"), (1e37, "diverged"), (1e38, "diverged")])
def test_engines_agree_on_what_diverges(scale: float, status: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    """Torch sums losses in float32, the core in float64: where one overflows, the other must not go on either."""
    with np.load(tiny["data"]["name"]) as arrays:
        floats = {n: a / np.float32(255) * np.float32(scale) if n.startswith("x") else a for n, a in arrays.items()}
    np.savez(tmp_path / "floats.npz", **floats)
    experiment = resolve(tiny, {"data.name": str(tmp_path / "floats.npz")})
    data, training = load(experiment.data.name, None), next(iter(trainings(experiment)))
    found = []
    for engine in ("torch", "native"):
        setup = set_up(experiment, Resources(engine, "cpu", "float32", 1), tmp_path / engine, data)
        summary = job.carry_out(training, setup)
        found.append([summary.get(key) for key in ("status", "iterations", "early_stop_iteration")])
    assert found[0] == found[1] and found[0][0] == status


def test_a_model_that_begins_with_infinity_is_refused(tiny: dict[str, Any], tmp_path: Path, approving: None) -> None:
    (tmp_path / "my.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))\n"
        "    nn.init.constant_(model[1].bias, float('-inf'))\n"
        "    return model\n"
    )
    experiment = resolve(tiny | {"model": {"name": f"{tmp_path}/my.py:build"}})
    with pytest.raises(UsageError, match=r"my.py:build begins with values of 1.bias that are infinite or NaN"):
        check(experiment, load(experiment.data.name, None))


# ----------------------------------------------------------------------------------------------- what reaches the core


@pytest.mark.skipif(not native.available(), reason=str(native.why_not()))
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("iteration", np.zeros(0, np.int64), '"iteration" must be one whole number'),
        ("iteration", np.zeros(2, np.int64), '"iteration" must be one whole number'),
        ("iteration", np.ones(1, np.float32), '"iteration" must be one whole number'),
        ("iteration", np.full(1, 2**63 - 1), '"iteration" is 9223372036854775807, expected 0 to'),
        ("iteration", np.full(1, -1), '"iteration" is -1, expected 0 to'),
        ("updates", np.zeros(0, np.int64), '"updates" must be one whole number'),
        ("updates", np.full(1, 2**63 - 1), '"updates" is 9223372036854775807'),
        ("0.weight", np.zeros(0, np.float32), '"0.weight" has 0 numbers, not 6'),
        ("exp_avg.0.weight", np.zeros(6, np.float64), '"exp_avg.0.weight" must be float32'),
        ("exp_avg_sq.0.bias", None, 'the state has no "exp_avg_sq.0.bias"'),
    ],
)
def test_the_core_takes_no_state_that_is_none(name: str, value: Any, said: str) -> None:
    """Nor is anything of it taken before all is looked at."""
    network = small_network()
    state = network.state()
    given = {key: array + 1 for key, array in state.items() if key != name} | ({} if value is None else {name: value})
    with pytest.raises(ValueError, match=re.escape(said)):
        network.load_state(given)
    assert all(np.array_equal(array, state[key]) for key, array in network.state().items())
    network.load_state({key: array + 1 for key, array in state.items()})
    assert network.iteration == 1


@pytest.mark.skipif(not native.available(), reason=str(native.why_not()))
def test_the_core_takes_no_mask_of_other_bytes_than_0_and_1() -> None:
    two = np.array([[1, 1, 1], [1, 2, 1]], np.uint8).view(bool)
    with pytest.raises(ValueError, match="a mask has a value that is neither true nor false"):
        small_network(two)
    with pytest.raises(ValueError, match='"iteration" is 9223372036854775807'):
        small_network(iteration=2**63 - 1)


def small_network(mask: np.ndarray | None = None, iteration: int = 0) -> Any:
    mask = np.ones((2, 3), bool) if mask is None else mask
    weights, biases = [np.ones((2, 3), np.float32)], [np.zeros(2, np.float32)]
    return native.Network([3, 2], [mask], weights, biases, iteration=iteration)


# ------------------------------------------------------------------------------------------------------ TOML and JSON

SIZE = 1_800_000  # bytes
HEAVY = {
    "a key of many parts": (lambda: ".".join(["a"] * (SIZE // 2)) + "=1", "a key of 900,000 parts is more than 8"),
    "keys of parts": (lambda: lines("a{}.b.c.d.e.f.g=1", 22), "keys of three parts or more are more than 1,000"),
    "quoted parts": (lambda: lines("'a{}' . \"b\".c=1", 22), "keys of three parts or more are more than 1,000"),
    "keys of two parts": (lambda: lines("a{}.b=1", 12), "values and tables are more than 100,000"),
    "tables": (lambda: lines("[a{}.b]", 12), "values and tables are more than 100,000"),
    "numbers": (lambda: f"x=[{'1,' * (SIZE // 2)}]", "values and tables are more than 100,000"),
    "nested lists": (lambda: "x=" + "[" * 5000, "tables and lists are nested too deeply"),
    "nested tables": (lambda: "x=" + "{a=" * 5000 + "1" + "}" * 5000, "tables and lists are nested too deeply"),
    "an open text": (lambda: 'x="""' + '\\"""' * (SIZE // 4), "Unterminated string"),
    "quotes": (lambda: 'x="' + '"' * SIZE, "is not valid TOML"),
    "bare": (lambda: "a" * SIZE, "is not valid TOML"),
    "spaced": (lambda: "a " * (SIZE // 2), "is not valid TOML"),
    "too large": (lambda: "#" * (MOST_BYTES + 1), "it is larger than the maximum of 2,097,152 bytes for such a file"),
}


def lines(form: str, length: int) -> str:
    return "\n".join(form.format(number) for number in range(SIZE // length))


@pytest.mark.parametrize("what", HEAVY)
def test_a_small_toml_file_takes_neither_memory_nor_time(what: str, tmp_path: Path) -> None:
    make, said = HEAVY[what]
    file = tmp_path / "x.toml"
    file.write_text(make())
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=said) as caught:
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 20
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_what_only_looks_like_many_keys_is_read(tmp_path: Path) -> None:
    text = 'about = "a.b.c.d.e.f.g.h.i.j = [[[ # \\" x.y"  # 1.2.3.4.5.6.7.8.9.0\nname = \'a.b.c.d.e.f.g.h.i.j\'\n'
    (tmp_path / "x.toml").write_text(f"{text}d = [{', '.join(['0.12345'] * 90_000)}]\n")
    tables = read(tmp_path / "x.toml")
    assert len(tables["d"]) == 90_000 and tables["about"].endswith("x.y")


def test_the_longest_experiment_that_can_be_done_is_read(tiny: dict[str, Any], tmp_path: Path) -> None:
    densities = [1 - n / 10_001 for n in range(1, 10_001)]
    branches = [{"name": f"own-{n}", "mask": "random", "start": "trial", "levels": [1]} for n in range(5000)]
    long = resolve(tiny | {"levels": 10_000, "prune": {"densities": densities}, "branch": branches})
    (tmp_path / "x.toml").write_text(to_toml(long))
    assert resolve(tmp_path / "x.toml") == long


@pytest.mark.parametrize("reader", [read, read_json])
def test_a_pipe_is_no_file(reader: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with pytest.raises(UsageError, match=r"x.toml cannot be read: it is .*pipe"):
        reader(tmp_path / "x.toml")


def test_a_json_file_beyond_all_measure_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"[" * (MOST_JSON + 1))
    with pytest.raises(Damaged, match="larger than the maximum of 16,777,216 bytes"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["\x1b[31m", "a\rb", "\x9b2J", "\u202ea", "\x7f"])
def test_a_text_that_steers_the_terminal_is_written_out(text: str, tiny: dict[str, Any]) -> None:
    written = to_toml(resolve(tiny | {"about": text}))
    assert printable(written) == written and loads(written)["about"] == text
    for changes in ({"model": {"name": f"{text}.py:f"}}, {"prune": {"score": f"{text}.py:f"}}):
        with pytest.raises(UsageError) as caught:
            resolve(tiny | changes)
        assert printable(str(caught.value)) == str(caught.value)


def test_what_a_message_repeats_is_written_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["lth", "ticket", f"{tmp_path}/\x1b[2J"])
    with pytest.raises(SystemExit):
        main()
    assert f"{tmp_path}/\\u001b[2J cannot be read" in capsys.readouterr().err
