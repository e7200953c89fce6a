"""A custom model from the command line: model.name = "my.py:build"."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lth
from lth import config, models
from lth.config import Model, Recipe, userfile
from lth.errors import UsageError
from lth.measures import tables
from lth.models import first_weights
from lth.storage.tensors import load_tensors
from lth.tickets.ticket import Ticket
from lth.training import loop
from lth.training.learners import Float32

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.up, self.norm, self.drop = nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)
        self.across = nn.Linear(16, 16, bias=False)
        self.back = nn.Linear(16, 16, bias=False)
        self.back.weight = self.across.weight
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = self.drop(self.norm(self.up(x.flatten(1))).relu())
        return self.head(x + self.back(self.across(x).tanh()))

def build(shape, classes):
    return Mine(shape[0] * shape[1] * shape[2], classes)
"""


@pytest.fixture
def mine(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tiny experiment with a custom model, in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(NETWORK)
    return tiny | {"model": {"name": "my.py:build"}}


def weights(folder: str | Path, level: int) -> dict[str, torch.Tensor]:
    return load_tensors((Path(folder) / f"trial-1/level-{level:02d}/trained.safetensors").read_bytes())


def test_it_is_trained_pruned_and_reset_like_any_other(mine: dict[str, Any]) -> None:
    run = lth.run(mine | {"trials": 2}, engine="torch", workers=1, branches="reinit,noise-0.5")
    assert len(run.summary) == 6 + 8 and set(run.summary["precision"]) == {"float32"}
    starts = []
    for trial in (1, 2):
        first = Ticket.load(run.folder / f"trial-{trial}/level-00/ticket.safetensors").start
        starts.append(first)
        for level in (1, 2):
            found = Ticket.load(run.folder / f"trial-{trial}/level-{level:02d}/ticket.safetensors")
            assert list(found.mask) == ["across.weight", "head.weight", "up.weight"]  # no norm; the tied layer once
            assert all(torch.equal(found.start[name], first[name] * layer) for name, layer in found.mask.items())
            assert torch.equal(found.start["back.weight"], found.start["across.weight"])
            assert not any(weights(run.folder, level)[n][~m].any() for n, m in found.mask.items()) or trial == 2
    assert not torch.equal(starts[0]["up.weight"], starts[1]["up.weight"])  # each trial its own start
    drawn = Ticket.load(run.folder / "trial-1/level-01/reinit-1/ticket.safetensors").start["up.weight"]
    mask = Ticket.load(run.folder / "trial-1/level-01/ticket.safetensors").mask["up.weight"]
    assert drawn[mask].all() and not torch.equal(drawn, starts[0]["up.weight"] * mask)
    assert drawn.abs().max() <= 1 / 6  # by torch's own initialisation of its Linear, not by lth's
    assert weights(run.folder, 1)["back.weight"].equal(weights(run.folder, 1)["across.weight"])


def test_the_same_bits_each_time_whatever_the_slices(mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own dropout draws from the training's seeds, also where the work was cut in other places."""
    lth.run(mine, out="a", engine="torch", workers=1)
    torch.manual_seed(99)
    monkeypatch.setattr("lth.training.loop.SLICE_SECONDS", 1e-9)
    lth.run(mine, out="b", engine="torch", workers=1)
    for level in range(3):
        a, b = weights("a", level), weights("b", level)
        assert all(torch.equal(a[name], b[name]) for name in a)


CHAIN = """
from torch import nn

def build(shape, classes):
    first = nn.Linear(shape[0] * shape[1] * shape[2], 300)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(300, classes))
"""


@pytest.mark.usefixtures("approving")
def test_trainings_side_by_side_draw_the_starts_of_their_own_seeds(tmp_path: Path) -> None:
    """Its module draws from the process's generators, and the native engine's trainings are threads of one process."""
    (tmp_path / "chain.py").write_text(CHAIN)
    model = Model(name=f"{tmp_path / 'chain.py'}:build")
    start = lambda seed: first_weights(model, (1, 28, 28), 10, torch.Generator().manual_seed(seed))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(start, range(100)))
    for seed, found in enumerate(together):
        assert all(torch.equal(tensor, found[name]) for name, tensor in start(seed).items()), seed


def test_tied_weights_start_alike_in_every_branch(mine: dict[str, Any]) -> None:
    run = lth.run(mine | {"levels": 1}, engine="torch", workers=1, branches="noise-0.5:1,sampled:1,reinit:1")
    first = Ticket.load(run.folder / "trial-1/level-01/ticket.safetensors").start
    for branch in ("noise-0.5-1", "sampled-1", "reinit-1"):
        start = Ticket.load(run.folder / f"trial-1/level-01/{branch}/ticket.safetensors").start
        assert torch.equal(start["back.weight"], start["across.weight"])
        assert not torch.equal(start["across.weight"], first["across.weight"])


def test_a_file_that_changed_is_another_network(mine: dict[str, Any]) -> None:
    lth.run(mine, out="run", engine="torch", workers=1)
    recorded = config.resolve(Path("run/experiment.toml")).model
    assert recorded.name == "my.py:build" and recorded.sha256 and len(recorded.sha256) == 64
    lth.run("run/experiment.toml", out="run", engine="torch", workers=1)  # the same: nothing to do
    Path("my.py").write_text(NETWORK.replace("tanh", "relu"))
    with pytest.raises(UsageError, match="it holds another experiment:\nmodel"):
        lth.run(mine, out="run", engine="torch", workers=1)
    with pytest.raises(UsageError, match=r"model.name: my.py has changed since"):
        lth.run("run/experiment.toml", out="run", engine="torch", workers=1)
    Path("my.py").unlink()
    with pytest.raises(UsageError, match=r"model.name: my.py cannot be read: No such file"):
        lth.run(mine, out="other")


def test_a_file_that_changes_while_a_run_goes_on_changes_nothing(
    mine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that has run it keeps it; one that comes later refuses the other."""
    lth.run(mine, out="whole", engine="torch", workers=1)
    report = loop.Session.advance

    def edited(session: Any, until: int) -> None:
        Path("my.py").write_text(NETWORK.replace("tanh", "relu"))
        report(session, until)

    monkeypatch.setattr(loop.Session, "advance", edited)
    lth.run(mine, out="run", engine="torch", workers=1)
    for level in range(3):
        a, b = weights("whole", level), weights("run", level)
        assert all(torch.equal(a[name], b[name]) for name in a)
    recorded = config.resolve(Path("run/experiment.toml")).model
    userfile._contents.clear()
    with pytest.raises(UsageError, match=r"model.name: my.py has changed since this experiment was made"):
        models.build(recorded, (1, 6, 6), 4)


HIDDEN = """
import numpy as np
import torch
from torch import nn

class Hidden(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.features = torch.randn(inputs, 16)  # fixed, and in no state_dict
        self.register_buffer("more", torch.randn(16, 16), persistent=False)
        self.head = nn.Linear(16, classes)
        self.head.weight.data *= np.random.rand()

    def forward(self, x):
        return self.head(nn.functional.dropout(x.flatten(1) @ self.features @ self.more, 0.1, True))

def build(shape, classes):
    return Hidden(shape[0] * shape[1] * shape[2], classes)
"""


def test_what_no_state_dict_holds_is_the_same_each_time(mine: dict[str, Any]) -> None:
    """Whatever the global generators hold: also for the levels that a run is extended by."""
    Path("my.py").write_text(HIDDEN)
    for seed, folder in ((0, "a"), (1, "b")):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        lth.run(mine, out=folder, engine="torch", workers=1, levels=1)
    np.random.seed(5)  # noqa: NPY002
    lth.run(mine, out="b", engine="torch", workers=1, levels=2)
    lth.run(mine, out="a", engine="torch", workers=1, levels=2)
    for level in range(3):
        a, b = weights("a", level), weights("b", level)
        assert all(torch.equal(a[name], b[name]) for name in a)
    columns = ["val_loss", "val_accuracy", "test_loss"]
    assert lth.Run(Path("a")).curves[columns].equals(lth.Run(Path("b")).curves[columns])


def test_its_ticket_is_exported_and_trained_again(mine: dict[str, Any]) -> None:
    lth.run(mine, out="run", engine="torch", workers=1)
    said: list[str] = []
    lth.export("run", 1, 2, "w.pt", compact=True, say=said.append)
    assert "numbers, were" in said[0]
    again = lth.run(ticket="run/trial-1/level-02/ticket.safetensors", out="again", engine="torch", workers=1)
    assert list(again.summary["level"]) == [0]


@pytest.mark.usefixtures("approving")
def test_what_build_is_given_is_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    chain = "return nn.Sequential(nn.Flatten(), nn.Linear("
    for line in (
        f"def f(): {chain}12, 3))",
        f"def f(classes): {chain}12, classes))",
        f"def f(shape, width=5, **more): {chain}shape[1] * 4, 3))",
    ):
        file.write_text(f"from torch import nn\n{line}\n")
        assert isinstance(models.build(Model(name=f"{file}:f"), (1, 3, 4), 3), torch.nn.Sequential)


@pytest.mark.usefixtures("approving")
def test_what_lies_beside_it_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_mine.py").write_text("width = 7\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nfrom beside_mine import width\n"
        "def build(classes): return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, classes))\n"
    )
    assert models.build(Model(name=f"{tmp_path}/net.py:build"), (4,), 3)[0].out_features == 7  # type: ignore[index]


@pytest.mark.usefixtures("approving")
def test_embeddings_with_sparse_gradients_learn(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        " def __init__(self):\n  super().__init__()\n"
        "  self.words, self.last = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3)\n"
        " def forward(self, x): return self.last(self.words(x.flatten(1).long() % 9).mean(1))\n"
    )
    model = models.build(Model(name=f"{file}:Net"), (1, 3, 4), 3)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    learner = Float32(model, start, {}, Recipe(optimizer="sgd", lr=0.1, iterations=2, batch=5), "cpu")
    learner.update(torch.ones(5, 1, 3, 4), torch.zeros(5, dtype=torch.int64), 0.1)
    assert not model.state_dict()["words.weight"].equal(start["words.weight"])


@pytest.mark.usefixtures("approving")
@pytest.mark.parametrize("inside", [False, True])
def test_files_beside_two_networks_may_have_one_name(inside: bool, tmp_path: Path) -> None:
    line = "from width_of_it import width"
    for width in (7, 9):
        (tmp_path / str(width)).mkdir()
        (tmp_path / str(width) / "width_of_it.py").write_text(f"width = {width}\n")
        (tmp_path / str(width) / "net.py").write_text(
            f"from torch import nn\n{'' if inside else line}\ndef build():\n {line if inside else ''}\n"
            " return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))\n"
        )
    for width in (7, 9, 7):
        built = models.build(Model(name=f"{tmp_path}/{width}/net.py:build"), (4,), 3)
        assert built[0].out_features == width  # type: ignore[index]


WRONG = {
    "def build(size): ...": "net.py:build wants size, but is given shape, classes and outputs",
    "def builds(): ...": "net.py has no function 'build'; did you mean 'builds'?",
    "build = 3": "net.py has no function 'build'",
    "def build(): return 3": "net.py:build returned int, expected a torch.nn.Module",
    "def build(): return nn.Linear(4, 2)": "takes a batch of 2 inputs of (4,) to (2, 2), expected (2, 3)",
    "def build(): return nn.LSTM(4, 3)": "to tuple, expected (2, 3)",
    "def build(): return nn.Linear(5, 3)": "net.py:build on inputs of (4,) failed: RuntimeError: ",
    "def build(): return nn.Linear(4, 3).bfloat16()": "its weights are torch.bfloat16, and inputs torch",
    "def build(): return nn.Linear(4, 3).double()": "its weights are torch.float64, and inputs torch.float32",
    "def build(): return 1 / 0": "net.py:build failed: ZeroDivisionError: division by zero (net.py, line 2)",
    "def build(): return nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))": "weight is computed by a parametri",
    "class M(nn.Linear):\n  def get_extra_state(self): return {}\n  def set_extra_state(self, state): ...\n"
    "def build(): return M(4, 3)": "net.py:build: _extra_state is not a tensor, and a run stores only tensors",
    "def build(:": "net.py failed: SyntaxError",
    "import nothing_like_it": "net.py failed: ModuleNotFoundError: No module named 'nothing_like_it' (net.py, line 2)",
}


@pytest.mark.usefixtures("approving")
@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_with_it_is_said(line: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"from torch import nn\n{line}\n")
    with pytest.raises(UsageError) as refused:
        models.build(Model(name=f"{tmp_path}/net.py:build"), (4,), 3)
    assert WRONG[line] in str(refused.value)


REFUSED = {
    "model.name=my.py": "'my.py' names no function: a custom model is FILE.py:FUNCTION, such as my.py:build",
    "model.name=my.txt:build": "'my.txt:build': a custom model is FILE.py:FUNCTION, such as my.py:build",
    "model.name=my.py:3": "a custom model is FILE.py:FUNCTION",
    "model.layers=[3]": "model.layers: it would do nothing: my.py:build has no such setting",
    "model.dropout=0.5": "model.dropout: it would do nothing",
    "model.init_sigma=0.1": "model.init_sigma: it would do nothing: a custom model draws its own",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_settings_that_do_not_fit_it_are_refused(setting: str, mine: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        config.resolve(mine, [setting])
    assert REFUSED[setting] in str(refused.value)


def test_a_network_that_converts_its_inputs_is_trained_pruned_and_measured(mine: dict[str, Any]) -> None:
    Path("my.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        " def __init__(self): super().__init__(); self.last = nn.Linear(36, 4).bfloat16()\n"
        " def forward(self, x): return self.last(x.flatten(1).bfloat16())\n"
    )
    run = lth.run(mine | {"model": {"name": "my.py:Net"}, "levels": 1}, workers=1)
    assert weights(run.folder, 1)["last.weight"].dtype == torch.bfloat16
    path = tables.compute("anatomy", run.folder)
    limit = Ticket.load(run.folder / "trial-1/level-00/ticket.safetensors").start["last.weight"].abs().max()
    assert path and f",{float(limit)}," in path.read_text()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_without_bound_at_0_stops_no_training(clip: float | None, mine: dict[str, Any]) -> None:
    """Of the square root: infinite where a weight is pruned. A product with the mask would make it NaN."""
    Path("my.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        " def __init__(self): super().__init__(); self.first, self.last = nn.Linear(36, 12), nn.Linear(12, 4)\n"
        " def forward(self, x): return self.last((x.flatten(1) @ self.first.weight.abs().sqrt().T).relu())\n"
    )
    recipe = mine["recipe"] | ({"clip": clip} if clip else {})
    run = lth.run(mine | {"model": {"name": "my.py:Net"}, "levels": 1, "recipe": recipe}, workers=1)
    assert run.summary["status"].tolist() == ["done", "done"]
    mask = Ticket.load(run.folder / "trial-1/level-01/ticket.safetensors").mask["first.weight"]
    trained = weights(run.folder, 1)["first.weight"]
    assert trained[mask].isfinite().all() and not trained[~mask].any() and not mask.all()


def test_bfloat16_is_refused(mine: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"recipe.precision = bfloat16 is for the models of `lth list models`"):
        lth.run(mine, {"recipe.precision": "bfloat16"}, out="run", engine="torch")


def test_a_network_without_weights_is_refused(mine: dict[str, Any]) -> None:
    Path("my.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(4))"
    )
    with pytest.raises(UsageError, match=r"my.py:build has no weights to prune"):
        lth.run(mine, out="run")
    assert not Path("run").exists()


def test_a_network_of_frozen_weights_is_refused_before_the_first_byte(mine: dict[str, Any]) -> None:
    chain = "nn.Sequential(nn.Flatten(), nn.Linear(36, 4))"
    Path("my.py").write_text(f"from torch import nn\ndef build(): return {chain}.requires_grad_(False)")
    with pytest.raises(UsageError, match=r"my.py:build has no parameter to train: all are frozen"):
        lth.run(mine, out="run")
    assert not Path("run").exists()
