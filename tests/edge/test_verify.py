"""The self-test finds altered numbers and wrong kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import BundleError
from edge_adapt.edge.bundle import read_bundle
from edge_adapt.edge.engines import Adaptation, Hooks, Support, Weights
from edge_adapt.edge.engines.reference import ReferenceEngine
from edge_adapt.edge.lower.table import Step
from edge_adapt.edge.plan import Plan
from edge_adapt.edge.program import Program
from edge_adapt.edge.verify import verify
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from .bundles import rewrite_manifest, write_bundle
from .commands import edge_adapt, edge_adapt_json, error_line

NO_HOOKS = Hooks()
KINDS = ["Conv", "GroupNormInputGrad", "ConvWeightGrad", "BiasGrad", "ChannelAttention"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


class WrongEngine(ReferenceEngine):
    """The reference engine with one kernel that is off by a half percent."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def adapt(
        self,
        program: Program,
        plan: Plan,
        weights: Weights,
        support: Support,
        start_step: int = 0,
        hooks: Hooks = NO_HOOKS,
    ) -> Adaptation:
        def spoil(step_number: int, first: int, step: Step, outputs: Sequence[Any]) -> None:
            if step.kind == self.kind:
                outputs[0][...] *= 1.005
            if hooks.watch:
                hooks.watch(step_number, first, step, outputs)

        return super().adapt(program, plan, weights, support, start_step, replace(hooks, watch=spoil))


def test_the_right_engine_passes_far_inside_the_tolerance(bundle: Path) -> None:
    result = edge_adapt_json("verify", bundle)
    assert result["passed"]
    assert [check["name"] for check in result["checks"]][:2] == ["loss", "norm of conv1.bias"]
    assert len(result["checks"]) == 1 + 2 * 10
    assert max(check["error"] for check in result["checks"]) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_kernel_is_found_by_its_numbers(bundle: Path, kind: str) -> None:
    files = read_bundle(bundle)
    assert verify(files, ReferenceEngine())["passed"]
    result = verify(files, WrongEngine(kind))
    assert not result["passed"]


def test_an_altered_weight_is_found_by_the_checksum_and_behind_it_by_the_numbers(bundle: Path) -> None:
    weights = load_file(bundle / "weights.safetensors")
    weights["conv2.weight"] = weights["conv2.weight"] * 1.01
    save_file(weights, bundle / "weights.safetensors")
    assert "sha256" in error_line(edge_adapt("verify", bundle, code=4))
    rewrite_manifest(bundle)
    done = edge_adapt("verify", bundle, code=1)
    assert "self-test failed" in error_line(done)
    assert "False" in done.stdout


def test_a_bundle_without_a_fitting_self_test_says_so(bundle: Path) -> None:
    test = load_file(bundle / "selftest.safetensors")
    save_file({**test, "images": test["images"][:, :5]}, bundle / "selftest.safetensors")
    rewrite_manifest(bundle)
    with pytest.raises(BundleError, match="do not fit the input"):
        verify(read_bundle(bundle), ReferenceEngine())
    (bundle / "selftest.safetensors").unlink()
    rewrite_manifest(bundle)
    with pytest.raises(BundleError, match=r"the bundle has no selftest\.safetensors"):
        verify(read_bundle(bundle), ReferenceEngine())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", np.array(1, np.uint8)),
        ("loss", np.zeros(0, np.float32)),
        ("loss", np.array(1, np.float32)),
        ("alpha_mask", np.ones((1, 1), np.uint8)),
    ],
)
def test_a_self_test_of_other_shapes_is_named(name: str, value: NDArray[np.generic], bundle: Path) -> None:
    test = load_file(bundle / "selftest.safetensors")
    save_file({**test, name: value}, bundle / "selftest.safetensors")
    rewrite_manifest(bundle)
    with pytest.raises(BundleError, match=rf"selftest\.safetensors: .*{name}"):
        verify(read_bundle(bundle), ReferenceEngine())
