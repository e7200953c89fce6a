"""Custom models that keep their modules, seed themselves or load their weights: no trial or control is a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import lth
from lth import config, models
from lth.config import Model
from lth.config.fields import plain
from lth.errors import UsageError
from lth.models import first_weights
from lth.storage.tensors import load_tensors
from lth.tickets.ticket import Ticket

pytestmark = pytest.mark.usefixtures("one_thread", "approving")

NET = "nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 4))"
KEPT = f"from torch import nn\nnet = {NET}\ndef build(): return net\n"
SEEDED = f"import torch\nfrom torch import nn\ndef build():\n    torch.manual_seed(42)\n    return {NET}\n"
ASSIGNED = (
    f"from torch import nn\nstored = {NET}.state_dict()\n"
    f"def build():\n    net = {NET}\n    net.load_state_dict(stored, assign=True)\n    return net\n"
)
BACKBONE = f"from torch import nn\nback = {NET}\ndef build(): return nn.Sequential(back, nn.Linear(4, 4))\n"


@pytest.fixture
def mine(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tiny experiment with a custom model of two trials and one pruning, in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    return tiny | {"model": {"name": "my.py:build"}, "trials": 2, "levels": 1}


def start(folder: Path, trial: int) -> dict[str, Tensor]:
    return load_tensors((folder / f"trial-{trial}/start.safetensors").read_bytes())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("source", [KEPT, SEEDED, ASSIGNED])
def test_trials_and_controls_that_would_be_copies_are_refused(source: str, mine: dict[str, Any]) -> None:
    Path("my.py").write_text(source)
    with pytest.raises(UsageError, match="for every seed: trials 2 to 2 would begin as trial 1, reinit would") as error:
        lth.run(mine, branches="reinit", engine="torch")
    assert "model.pretrained=true" in str(error.value) and len(str(error.value)) < 400
    assert not Path("runs").exists()
    with pytest.raises(UsageError, match="for every seed: reinit would begin as the ticket"):
        lth.run(mine | {"trials": 1}, branches="reinit", engine="torch")
    assert len(lth.run(mine | {"trials": 1}, branches="random-mask,sampled", engine="torch").summary) == 4


@pytest.mark.parametrize("source", [KEPT, SEEDED, ASSIGNED])
def test_a_given_start_is_the_same_for_all_and_reinit_draws_another(source: str, mine: dict[str, Any]) -> None:
    Path("my.py").write_text(source)
    run = lth.run(mine | {"model": {"name": "my.py:build", "pretrained": True}}, branches="reinit", workers=1)
    assert equal(start(run.folder, 1), start(run.folder, 2))
    trained = load_tensors((run.folder / "trial-1/level-00/trained.safetensors").read_bytes())
    assert not any(torch.equal(trained[name], tensor) for name, tensor in start(run.folder, 2).items())
    assert run.summary["val_loss_at_early_stop"].nunique() == 6  # each trial has batches of its own
    for trial in (1, 2):
        level = run.folder / f"trial-{trial}/level-01"
        ticket, reinit = (Ticket.load(level / name / "ticket.safetensors") for name in ("", "reinit-1"))
        mask = ticket.mask["1.weight"]
        assert torch.equal(mask, reinit.mask["1.weight"])
        assert not (ticket.start["1.weight"] == reinit.start["1.weight"])[mask].any()
        assert reinit.start["1.weight"].abs().max() <= 1 / 6  # torch's initialisation of 36 inputs
    assert "pretrained" in ticket.origin["model"]  # an export builds the same network


def test_a_kept_module_has_the_same_bits_whatever_the_workers(mine: dict[str, Any]) -> None:
    Path("my.py").write_text(KEPT)
    given = mine | {"model": {"name": "my.py:build", "pretrained": True}, "levels": 0}
    one, two = (lth.run(given, engine="torch", workers=n, out=f"workers-{n}") for n in (1, 2))
    for trial in (1, 2):
        files = [run.folder / f"trial-{trial}/level-00/trained.safetensors" for run in (one, two)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_pretrained_module_without_an_initialisation_has_no_reinit(mine: dict[str, Any]) -> None:
    Path("my.py").write_text(
        "import torch\nfrom torch import nn\nclass Own(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.head = nn.Linear(8, 4)\n"
        "        self.weight = nn.Parameter(torch.linspace(-1, 1, 288).view(36, 8))\n"
        "    def forward(self, x): return self.head((x.flatten(1) @ self.weight).relu())\n"
    )
    given = mine | {"model": {"name": "my.py:Own", "pretrained": True}}
    with pytest.raises(UsageError, match=r"reinit draws .* does not draw weight of my.py:Own"):
        lth.run(given, branches="reinit")
    assert len(lth.run(given, branches="random-mask").summary) == 6


@pytest.mark.parametrize("source", [BACKBONE, BACKBONE.replace("return nn", "back.eval(); return nn")])
def test_a_new_head_on_a_kept_backbone_is_told_of(source: str, mine: dict[str, Any], tmp_path: Path) -> None:
    Path("my.py").write_text(source)
    with (tmp_path / "said.txt").open("w") as file:
        run = lth.run(mine, branches="reinit", console=Console(file=file, width=400))
    said = (tmp_path / "said.txt").read_text()
    assert "my.py:build returns the same 0.1.weight, 0.4.weight for every seed" in said
    one, two = start(run.folder, 1), start(run.folder, 2)
    assert torch.equal(one["0.1.weight"], two["0.1.weight"]) and not torch.equal(one["1.weight"], two["1.weight"])


@pytest.mark.parametrize(
    "drawn",
    ["torch.randn(4, 36, generator=G)", "torch.randn(4, 36) + next(COUNT)", "torch.randn(4, 36) * len(KEPT)"],
)
def test_weights_that_the_seed_does_not_decide_are_refused(drawn: str, mine: dict[str, Any]) -> None:
    Path("my.py").write_text(
        "import itertools, torch\nfrom torch import nn\n"
        "G, COUNT, KEPT = torch.Generator(), itertools.count(), []\n"
        f"def build():\n    net = nn.Linear(36, 4)\n    KEPT.append(0)\n    net.weight.data = {drawn}\n"
        "    return nn.Sequential(nn.Flatten(), net)\n"
    )
    with pytest.raises(UsageError, match=r"my.py:build returned another 1.weight when it was called again"):
        lth.run(mine)


def test_what_a_file_draws_when_it_is_run_changes_no_start(tmp_path: Path) -> None:
    """The process that draws a start may be the one that runs the file, or have run it long ago."""
    for name in ("early", "late"):
        (tmp_path / f"{name}.py").write_text(
            f"import torch\nfrom torch import nn\ntorch.randn(9)\ndef build(): return {NET}\n"
        )
    draw = lambda name, seed: first_weights(
        Model(name=f"{tmp_path}/{name}.py:build"), (1, 6, 6), 4, torch.Generator().manual_seed(seed)
    )
    draw("early", 1)
    assert equal(draw("early", 2), draw("late", 2))


@pytest.mark.parametrize("source", [KEPT, ASSIGNED])
def test_no_two_networks_share_memory(source: str, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(source)
    one, two = (models.build(Model(name=f"{tmp_path}/my.py:build"), (1, 6, 6), 4) for _ in range(2))
    before = models.tensors(two)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1)
    assert equal(before, models.tensors(two))


def test_a_kept_module_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(
        KEPT.replace("def build", "import threading\nnet.lock = threading.Lock()\ndef build")
    )
    with pytest.raises(UsageError, match=r"cannot be copied \(TypeError: .*build a new module in each call"):
        models.build(Model(name=f"{tmp_path}/my.py:build"), (1, 6, 6), 4)


def test_a_new_module_that_cannot_be_copied_is_taken(tmp_path: Path) -> None:
    lines = (
        "import threading",
        "from torch import nn",
        "def build():",
        f" net = {NET}",
        " net.lock = threading.Lock()",
    )
    (tmp_path / "my.py").write_text("\n".join([*lines, " return net"]))
    assert models.build(Model(name=f"{tmp_path}/my.py:build"), (1, 6, 6), 4)


def test_the_setting_is_for_custom_models_and_changes_no_digest_where_it_is_not_given() -> None:
    with pytest.raises(UsageError, match=r"model.pretrained: only a custom model has weights of its own"):
        config.resolve("lenet", ["model.pretrained=true"])
    custom = config.resolve("lenet", ["model.name=my.py:build"])
    assert "pretrained" not in plain(custom.model)
    given = config.resolve("lenet", ["model.name=my.py:build", "model.pretrained=true"])
    assert plain(given.model)["pretrained"] is True and given.digest(0) != custom.digest(0)
    assert config.resolve("lenet", ["model.name=my.py:build", "model.pretrained=false"]).digest(0) == custom.digest(0)
