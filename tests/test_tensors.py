"""Large sparse tensors take the room of their survivors on disk, and come back to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console
from torch import Tensor

import lth
from lth.storage import checksums, tensors
from lth.storage.tensors import bytes_at, load_tensors, read_metadata, save_tensors

SHAPE = (1024, 1100)


def sparse(density: float, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    where = torch.rand(SHAPE, generator=generator) < density
    return (torch.randn(SHAPE, generator=generator) * where).abs().to(dtype)  # abs: no -0


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 0.7, 1.0])
def test_every_bit_comes_back(density: float, dtype: torch.dtype) -> None:
    given = sparse(density, dtype)
    given[0, :4] = torch.tensor([-0.0, float("nan"), float("inf"), 5e-324])
    small = sparse(0.1)[:10]
    found = load_tensors(save_tensors({"w": given, "b": small, "n": torch.arange(3)}, {"a": 1}))
    assert list(found) == ["b", "n", "w"]
    assert found["w"].dtype == dtype and found["w"].shape == SHAPE
    assert bits(found["w"]) == bits(given) and bits(found["b"]) == bits(small)


@pytest.mark.parametrize("density", [0.01, 0.2, 0.49, 0.6])
def test_the_file_is_as_large_as_its_survivors(density: float) -> None:
    size = len(save_tensors({"w": sparse(density)}, {}))
    assert size == pytest.approx(bytes_at(1024 * 1100, density), rel=0.02)
    assert size < 4 * 1024 * 1100 * min(1.001, density + 0.04) if density < 0.5 else size > 4 * 1024 * 1100


def test_small_tensors_are_as_any_tool_reads_them() -> None:
    content = save_tensors({"w": sparse(0.1)[:900]}, {})
    assert safetensors.torch.load(content)["w"].shape == (900, 1100)


def test_the_metadata_is_what_was_given() -> None:
    metadata = read_metadata(save_tensors({"w": sparse(0.1)}, {"level": 3}))
    assert metadata.pop(checksums.KEY) and metadata == {"level": 3}
    content = save_tensors(load_tensors(save_tensors({"w": sparse(0.1)}, {})), metadata)
    assert content == save_tensors({"w": sparse(0.1)}, metadata)


@pytest.mark.parametrize(
    "change",
    [
        {"w": None},
        {"w": torch.ones(3)},
        {"survivors/w": torch.zeros(5, dtype=torch.uint8)},
        {"shapes": None},
        {"shapes": {"w": [1024, 10**12]}},
        {"shapes": {"w": [1024, -1]}},
        {"shapes": {"w": [10**30]}},
        {"shapes": {"w": [2**40, 2**40]}, "survivors/w": torch.zeros(0, dtype=torch.uint8), "w": torch.zeros(0)},
        {"shapes": {"w": "1024"}},
        {"shapes": [1]},
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    content = save_tensors({"w": sparse(0.1)}, {})
    parts: dict[str, Any] = safetensors.torch.load(content) | {"shapes": {"w": list(SHAPE)}} | change
    facts = {"shapes": parts.pop("shapes")}
    monkeypatch.setattr(tensors, "LARGE", 10**9)  # written as they are
    forged = save_tensors({name: part for name, part in parts.items() if part is not None}, facts)
    with pytest.raises(ValueError, match="survivors/w"):
        load_tensors(forged)


def test_a_run_has_the_same_tickets_and_curves(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny |= {"levels": 4, "prune": {"rate": 0.5}, "branch": [{"name": "reinit"}]}
    run = lambda out: lth.run(tiny, out=out, engine="torch", workers=1, console=Console(quiet=True))
    run(tmp_path / "whole")
    monkeypatch.setattr(tensors, "LARGE", 1)
    run(tmp_path / "thin")
    whole, thin = (sorted(path for path in (tmp_path / name).rglob("*.safetensors")) for name in ("whole", "thin"))
    assert len(whole) == len(thin) == 1 + 2 * 9
    for one, other in zip(whole, thin, strict=True):
        first, second = load_tensors(one.read_bytes()), load_tensors(other.read_bytes())
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert b"survivors/" in (tmp_path / "thin/trial-1/level-04/trained.safetensors").read_bytes()
    assert lth.Run(tmp_path / "whole").curves.equals(lth.Run(tmp_path / "thin").curves)
