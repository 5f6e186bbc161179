"""Slices steps, written by hand, run by the reference engine: the same numbers as whole maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.engines.arena import Arena
from edge_adapt.edge.engines.binding import BoundCalls, NotFinite, Place, ReferenceBackend
from edge_adapt.edge.lower.table import SLICES, Slices, Step, StepProgram, Tile, Value
from edge_adapt.edge.reference import KERNELS
from numpy.typing import NDArray

CONV = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "groups": 1}
POOL = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
SAMPLES, SCRATCH = 3, 1 << 16
Arrays = dict[str, NDArray[Any]]


def bound(step: Step, values: dict[str, Value], arrays: Arrays, inside: bool = True) -> BoundCalls:
    program = StepProgram((), (step,), (0, 1), values, (), (), {}, SAMPLES, inside)
    place = Place({"workspace@0": 0}, Arena(step.workspace_bytes), 0, SAMPLES, arrays.__getitem__)
    return ReferenceBackend().bind(program, place)


def step_of(inner: Slices, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Step:
    return Step(SLICES, inputs, outputs, workspace_bytes=inner.tile_bytes + inner.scratch_bytes, slices=inner)


def tile(name: str, shape: tuple[int, ...], offset: int = 0, over: str = "") -> Tile:
    return Tile(name, shape, "float32", over, offset)


def whole(kind: str, inputs: list[NDArray[Any]], outputs: list[NDArray[Any] | None], **attrs: Any) -> None:
    KERNELS[kind].run(inputs, outputs, attrs, np.zeros(SCRATCH, np.uint8))


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_a_chain_from_conv_to_pool_writes_what_whole_maps_would(blocks: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, 3, 8, 8)).astype(np.float32)
    w, b = rng.standard_normal((8, 3, 3, 3)).astype(np.float32), np.ones(8, np.float32)
    scale, bias = np.linspace(0.5, 2, 8, dtype=np.float32), np.linspace(-1, 1, 8, dtype=np.float32)
    outputs = {
        "x_hat": np.zeros((SAMPLES, 8, 8, 8), np.float32),
        "inv_std": np.zeros((SAMPLES, 4), np.float32),
        "mask": np.zeros((SAMPLES, 64), np.uint8),
        "p": np.zeros((SAMPLES, 8, 4, 4), np.float32),
        "argmax": np.zeros((SAMPLES, 32), np.uint8),
    }
    shapes = {"x": (3, 8, 8), "x_hat": (8, 8, 8), "inv_std": (4,), "p": (8, 4, 4)}
    values = {name: Value(name, ("N", *shape), "float32", "") for name, shape in shapes.items()}
    values["mask"] = Value("mask", ("N", 8, 8, 8), "bit1", "")
    values["argmax"] = Value("argmax", ("N", 8, 4, 4), "bit2", "")
    params = {"w": w, "b": b, "scale": scale, "bias": bias}
    values |= {name: Value(name, array.shape, "float32", "") for name, array in params.items()}
    part = (1, 8 // blocks, 8, 8)
    room = 4 * 8 // blocks * 64
    inner = Slices(
        blocks=blocks,
        sliced=frozenset({*outputs, *params}),
        before=(),
        each=(
            Step("Conv", ("x", "w", "b"), ("y",), CONV, workspace_bytes=SCRATCH),
            Step(
                "GroupNorm",
                ("y", "scale", "bias"),
                ("z", "x_hat", "inv_std"),
                {"groups": 4 // blocks, "eps": 1e-5},
            ),
            Step("Relu", ("z",), ("r", "mask"), workspace_bytes=SCRATCH),
            Step("MaxPool", ("r",), ("p", "argmax"), POOL, workspace_bytes=SCRATCH),
        ),
        after=(),
        tiles={t.name: t for t in (tile("y", part, 0, "x_hat"), tile("z", part), tile("r", part))},
        tile_bytes=room,
        scratch_bytes=SCRATCH,
        in_place={},
    )
    bound(step_of(inner, ("x", *params), tuple(outputs)), values, {"x": x, **params, **outputs}).run(
        "body", 0, None
    )
    y, z, r = (np.empty((SAMPLES, 8, 8, 8), np.float32) for _ in range(3))
    expected = {name: np.empty_like(array) for name, array in outputs.items()}
    whole("Conv", [x, w, b], [y], **CONV)
    whole("GroupNorm", [y, scale, bias], [z, expected["x_hat"], expected["inv_std"]], groups=4, eps=1e-5)
    whole("Relu", [z], [r, expected["mask"]])
    whole("MaxPool", [r], [expected["p"], expected["argmax"]], **POOL)
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=0, atol=2e-6, err_msg=name)


def update_in_place(blocks: int) -> tuple[Step, dict[str, Value], Arrays]:
    """w (4, 2, 1, 1) is updated by the gradient of a 1x1 convolution over all samples."""
    rng = np.random.default_rng(1)
    arrays = {
        "x": rng.standard_normal((SAMPLES, 2, 5, 5)).astype(np.float32),
        "gy": rng.standard_normal((SAMPLES, 4, 5, 5)).astype(np.float32),
        "weight": np.full(SAMPLES, 1 / SAMPLES, np.float32),
        "bw": rng.uniform(0.5, 2, (SAMPLES, 4)).astype(np.float32),
        "w": rng.standard_normal((4, 2, 1, 1)).astype(np.float32),
        "alpha": np.full((2, 1), 0.5, np.float32),
    }
    arrays["updated::w"] = arrays["w"]
    batched = ("x", "gy", "weight", "bw")
    values = {
        name: Value(name, ("N", *array.shape[1:]) if name in batched else array.shape, "float32", "")
        for name, array in arrays.items()
    }
    point = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "groups": 1}
    inner = Slices(
        blocks=blocks,
        sliced=frozenset({"gy", "bw", "w", "updated::w"}),
        before=(Step("Zero", (), ("gw",)),),
        each=(
            Step("ConvWeightGrad", ("x", "gy", "weight", "", "bw"), ("gw",), point, workspace_bytes=SCRATCH),
        ),
        after=(
            Step(
                "SgdUpdate",
                ("w", "gw", "alpha"),
                ("updated::w",),
                {"layer_index": 0},
                workspace_bytes=SCRATCH,
            ),
        ),
        tiles={"gw": tile("gw", (4 // blocks, 2, 1, 1))},
        tile_bytes=64,
        scratch_bytes=SCRATCH,
        in_place={0: 4},
    )
    return step_of(inner, ("x", "gy", "weight", "bw", "w", "alpha"), ("updated::w",)), values, arrays


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_an_update_without_an_accumulator_is_that_of_the_mean_gradient(blocks: int) -> None:
    step, values, arrays = update_in_place(blocks)
    slope = np.einsum("no,nohw,nihw->oi", arrays["bw"], arrays["gy"], arrays["x"]) / SAMPLES
    expected = arrays["w"] - 0.5 * slope[:, :, None, None]
    bound(step, values, arrays).run("body", 1, None)
    np.testing.assert_allclose(arrays["w"], expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_inside_stops_before_a_gradient_that_is_not_finite(bad: float) -> None:
    step, values, arrays = update_in_place(2)
    before = arrays["w"].copy()
    arrays["gy"][1, 3, 2, 2] = bad  # in the second block
    with np.errstate(invalid="ignore"), pytest.raises(NotFinite) as caught:
        bound(step, values, arrays).run("body", 0, None)
    assert caught.value.name == "gw"
    np.testing.assert_array_equal(arrays["w"][2:], before[2:])


def test_an_update_alone_checks_its_gradient_too() -> None:
    arrays = {
        "w": np.ones(3, np.float32),
        "gw": np.float32([1, np.nan, 2]),
        "alpha": np.ones((1, 1), np.float32),
    }
    arrays["updated::w"] = arrays["w"]
    step = Step("SgdUpdate", ("w", "gw", "alpha"), ("updated::w",), {"layer_index": 0}, workspace_bytes=64)
    values = {name: Value(name, array.shape, "float32", "") for name, array in arrays.items()}
    with pytest.raises(NotFinite) as caught:
        bound(step, values, arrays).run("body", 0, None)
    assert caught.value.name == "gw"
    np.testing.assert_array_equal(arrays["w"], 1)
