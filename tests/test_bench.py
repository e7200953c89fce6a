"""`lth bench` measures both engines and says what it found."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lth import native
from lth.machine import bench

QUICK = {"rounds": 2, "seconds": 0.01, "examples": 500, "tell": lambda line: None}


@pytest.fixture(autouse=True)
def known_peak(monkeypatch):
    """The one part of a measurement that cannot be short."""
    monkeypatch.setattr(bench, "peak", lambda: 1e11)


def test_the_result_is_json_with_the_promised_keys():
    result = json.loads(json.dumps(bench.bench([1.0, 0.05], **QUICK)))
    assert {"rows", "scaling", "machine", "versions", "instruction_set", "n"} <= result.keys()
    assert [row["density"] for row in result["rows"]] == [1.0, 0.05]
    for row in result["rows"]:
        assert row.keys() == {"density", "native_ms", "torch_ms", "ratio", "share_of_peak"}
        assert row["torch_ms"] > 0


@pytest.mark.skipif(not native.available(), reason=str(native.why_not()))
def test_both_engines_are_measured():
    result = bench.bench([0.05], **QUICK)
    row = result["rows"][0]
    assert 0 < row["native_ms"] < row["torch_ms"]
    assert 0 < row["ratio"] < 1
    assert 0 < row["share_of_peak"] < 1
    assert result["scaling"] > 0
    assert result["why_not"] is None


def test_without_the_native_engine_torch_is_measured_and_the_reason_given(monkeypatch):
    monkeypatch.setattr(native, "_load", lambda: None)
    result = bench.bench([0.05], **QUICK)
    assert result["rows"][0]["native_ms"] is None
    assert result["rows"][0]["torch_ms"] > 0
    assert result["scaling"] is None
    assert result["instruction_set"] == "none"
    assert "compiler" in result["why_not"]


def test_threads_of_torch_are_as_before():
    before = torch.get_num_threads()
    bench.bench([0.05], **QUICK)
    assert torch.get_num_threads() == before


def test_masks_have_the_density_and_twice_it_in_the_output():
    masks = bench.random_start(0.2).masks
    assert [mask.mean() for mask in masks] == pytest.approx([0.2, 0.2, 0.4], abs=0.03)
    assert bench.random_start(0.7).masks[-1].all()
    np.testing.assert_array_equal(masks[0], bench.random_start(0.2).masks[0])


def test_arithmetic_counts_surviving_weights():
    start = bench.random_start(1.0)
    assert bench.arithmetic(start) == 2 * 60 * (2 * 266_200 + 31_000)
