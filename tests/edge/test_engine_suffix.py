"""The schedule "cached suffix" on the reference engine: the same numbers as accumulating, all or nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.bundle import TensorFile, write_tensors
from edge_adapt.edge.engines import (
    NO_HOOKS,
    Adaptation,
    AdaptationInterrupted,
    Hooks,
    NonFiniteError,
    Progress,
    ReferenceEngine,
)
from edge_adapt.edge.lower import Choice, Step
from edge_adapt.edge.lower.choice import TILINGS
from edge_adapt.edge.plan.static import weights_bytes
from edge_adapt.edge.program import Program
from numpy.typing import NDArray

from .programs import DictWeights, Net, conv_program, random_support, random_weights, residual_program
from .suffixes import SAMPLES, STEPS, SUFFIX, TOKENS, freeze, plan_of, token_program

Array = NDArray[Any]
ALL = ("conv1", "norm1", "conv2", "norm2", "fc")
NETS = {"plain": Net(), "attention": Net(rho=0.3), "colour": Net(colours=3, rho=0.5)}
ROWS: dict[str, list[tuple[str, ...]]] = {
    "everything": [ALL],
    "block 2 and head": [("conv2", "norm2", "fc")],
    "head": [("fc",)],
    "a norm first": [("norm1", "fc")],
    "norms only": [("norm1", "norm2")],
    "the first convolution": [("conv1",)],
    "other layers in every step": [("fc",), ("norm1", "conv2"), ("conv2", "norm2", "fc")],
    "nothing in one step": [("norm2", "fc"), (), ("conv2",)],
}
PLAIN = conv_program(NETS["plain"])
ATTENTION = conv_program(NETS["attention"])


def adapt(
    program: Program,
    weights: DictWeights,
    choice: Choice,
    hooks: Hooks = NO_HOOKS,
    net: Net = NETS["plain"],
    samples: int = SAMPLES,
    start_step: int = 0,
) -> Adaptation:
    plan = plan_of(program, weights, choice)
    return ReferenceEngine().adapt(program, plan, weights, random_support(net, samples), start_step, hooks)


def learning(program: Program, *rows: Sequence[str], step_size: float = 0.05) -> DictWeights:
    return freeze(program, random_weights(program, step_size=step_size), *rows)


def largest_difference(a: Mapping[str, Array], b: Mapping[str, Array]) -> float:
    assert set(a) == set(b)
    return max((float(np.abs(a[name] - b[name]).max()) for name in a), default=0.0)


def assert_same(one: Adaptation, other: Adaptation) -> None:
    assert largest_difference(one.updated, other.updated) < 1e-5
    assert one.losses == pytest.approx(other.losses, abs=1e-5)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_it_equals_accumulating(net: Net, rows: list[tuple[str, ...]], storage: str) -> None:
    program = conv_program(net)
    weights = learning(program, *rows)
    truth = adapt(program, weights, Choice(4), net=net)
    assert largest_difference(truth.updated, {n: weights.tensors[n] for n in truth.updated}) > 1e-3
    for micro_batch in (1, 4, SAMPLES):
        assert_same(adapt(program, weights, Choice(micro_batch, SUFFIX, storage), net=net), truth)


@pytest.mark.parametrize("rows", [ROWS["everything"], ROWS["block 2 and head"], ROWS["a norm first"]])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tiling", TILINGS)
def test_it_equals_accumulating_with_tiles_and_recomputed_values(
    rows: list[tuple[str, ...]], recompute: bool, tiling: str
) -> None:
    weights = learning(ATTENTION, *rows)
    truth = adapt(ATTENTION, weights, Choice(4))
    choice = Choice(4, SUFFIX, recompute=recompute, tiling=tiling)
    found = adapt(ATTENTION, weights, choice, Hooks(measure=True))
    assert_same(found, truth)
    assert found.measured_dynamic_bytes is not None
    assert found.measured_dynamic_bytes <= plan_of(ATTENTION, weights, choice).dynamic_bytes


@pytest.mark.parametrize(
    "layers", [("conv1", "conv2", "fc"), ("conv2",), ("fc",), ("conv1",), ("conv2", "fc")]
)
def test_a_residual_network_equals_accumulating(layers: tuple[str, ...]) -> None:
    program = residual_program()
    weights = learning(program, layers, step_size=0.005)
    truth = adapt(program, weights, Choice(1))
    assert_same(adapt(program, weights, Choice(3, SUFFIX)), truth)


@pytest.mark.parametrize(
    "rows",
    [
        [("class", "embed", "norm", "slope", "fc")],
        [("norm",)],
        [("norm", "fc"), ("slope",)],
        [("embed",)],
        [("class",)],
    ],
)
def test_tokens_equal_accumulating(rows: list[tuple[str, ...]]) -> None:
    program, net = token_program(), Net(size=TOKENS)
    weights = learning(program, *rows, step_size=0.01)
    truth = adapt(program, weights, Choice(1), net=net)
    assert_same(adapt(program, weights, Choice(2, SUFFIX), net=net), truth)


@pytest.mark.parametrize("samples", [1, 4, 7])
def test_fewer_samples_than_planned_give_their_own_mean(samples: int) -> None:
    weights = learning(ATTENTION, ("conv2", "norm2", "fc"))
    truth = adapt(ATTENTION, weights, Choice(1), samples=samples)
    assert_same(adapt(ATTENTION, weights, Choice(3, SUFFIX), samples=samples), truth)


def test_recorded_selections_are_those_of_the_step() -> None:
    program = conv_program(Net(rho=0.3, keep=True))
    weights = learning(program, ("conv2", "norm2"))
    rng = np.random.default_rng(3)
    selections = {
        tensor.name: (rng.random((STEPS, SAMPLES, int(tensor.shape[1]))) < 0.6).astype(np.float32)
        for tensor in program.with_role("input")
        if tensor.name.startswith("keep::")
    }
    for kept in selections.values():
        kept[..., 0] = 1  # at least one channel
    hooks = Hooks(selections=selections)
    truth = adapt(program, weights, Choice(4), hooks)
    assert_same(adapt(program, weights, Choice(1, SUFFIX), hooks), truth)


class Counter:
    """Counts how often every operation on a value runs, and on which samples."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, int]]] = {}

    def __call__(self, step: int, start: int, done: Step, outputs: Sequence[Array | None]) -> None:
        for name in filter(None, () if done.kind == "Zero" else done.outputs):
            self.seen.setdefault(name, []).append((step, start))


def test_the_prefix_runs_once_and_the_suffix_in_every_step() -> None:
    count = Counter()
    weights = learning(ATTENTION, ("conv2", "norm2", "fc"))
    adapt(ATTENTION, weights, Choice(4, SUFFIX), Hooks(watch=count))
    once, always = [(0, 0), (0, 4), (0, 8)], [(step, 0) for step in range(STEPS)]
    assert {n for n, when in count.seen.items() if when == once} == {
        "images",
        "y1",
        "z1",
        "r1",
        "p1",
        "fw::conv2",
    }
    assert {tuple(when) for when in count.seen.values()} == {tuple(once), tuple(always)}
    assert {"y2", "loss", "grad::conv2.weight", "updated::fc.bias"} <= set(count.seen)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("micro_batch", [1, SAMPLES])
def test_the_highest_byte_written_is_inside_the_plan_and_nothing_unwritten_is_read(
    rows: list[tuple[str, ...]], micro_batch: int
) -> None:
    weights, choice = learning(ATTENTION, *rows), Choice(micro_batch, SUFFIX)
    measured = adapt(ATTENTION, weights, choice, Hooks(measure=True))
    planned = plan_of(ATTENTION, weights, choice).dynamic_bytes
    assert measured.measured_dynamic_bytes is not None
    assert 0.9 * planned < measured.measured_dynamic_bytes <= planned
    assert largest_difference(measured.updated, adapt(ATTENTION, weights, choice).updated) == 0


def test_the_prefix_is_half_of_the_first_step_in_progress() -> None:
    seen: list[Progress] = []
    adapt(PLAIN, learning(PLAIN, ("fc",)), Choice(4, SUFFIX), Hooks(seen.append))
    assert [(p.step, p.samples_done) for p in seen] == [(0, 2), (0, 4), (0, 5), (0, 11), (1, 11), (2, 11)]


class StopAt:
    """Raises KeyboardInterrupt when a value is written in a gradient step."""

    def __init__(self, step: int, name: str) -> None:
        self._at = (step, name)

    def __call__(self, step: int, start: int, done: Step, outputs: Sequence[Array | None]) -> None:
        if step == self._at[0] and self._at[1] in done.outputs:
            raise KeyboardInterrupt


PLACES = ["p1", "y2", "updated::fc.weight", "updated::norm2.scale", "updated::conv2.weight"]


@pytest.mark.parametrize(
    ("step", "name"), [*((0, name) for name in PLACES), *((2, name) for name in PLACES[1:])]
)
def test_an_interrupted_step_is_undone_and_the_rest_resumes_to_the_same_numbers(step: int, name: str) -> None:
    weights, choice = learning(ATTENTION, ("conv2", "norm2", "fc")), Choice(4, SUFFIX)
    whole = adapt(ATTENTION, weights, choice)
    with pytest.raises(AdaptationInterrupted) as stopped:
        adapt(ATTENTION, weights, choice, Hooks(watch=StopAt(step, name)))
    kept = stopped.value.adaptation
    assert (kept.steps_done, kept.losses) == (step, whole.losses[:step])
    plan = replace(plan_of(ATTENTION, weights, choice), steps=step)
    shorter = ReferenceEngine().adapt(ATTENTION, plan, weights, random_support(samples=SAMPLES))
    assert largest_difference(kept.updated, shorter.updated) == 0
    rest = DictWeights({**weights.tensors, **kept.updated})
    count = Counter()
    resumed = adapt(ATTENTION, rest, choice, Hooks(watch=count), start_step=step)
    assert largest_difference(resumed.updated, whole.updated) == 0
    assert kept.losses + resumed.losses == whole.losses
    assert count.seen["p1"] == [(step, 0), (step, 4), (step, 8)]  # the prefix runs again


class HandedOver(DictWeights):
    """Weights whose copies are the tensors themselves, as those of a kept checkpoint are."""

    def copy(self, name: str) -> Array:
        return self.tensors[name]


def test_weights_that_are_handed_over_are_restored_in_place() -> None:
    weights, choice = learning(PLAIN, ("conv2", "fc")), Choice(4, SUFFIX)
    before = {name: value.copy() for name, value in weights.tensors.items()}
    with pytest.raises(AdaptationInterrupted) as stopped:
        adapt(PLAIN, HandedOver(weights.tensors), choice, Hooks(watch=StopAt(0, "updated::conv2.weight")))
    assert largest_difference(weights.tensors, before) == 0
    assert stopped.value.adaptation.updated["conv2.weight"] is weights.tensors["conv2.weight"]


def test_frozen_weights_are_never_written() -> None:
    weights = learning(PLAIN, ("norm1", "fc"))
    for value in weights.tensors.values():
        value.flags.writeable = False
    result = adapt(PLAIN, weights, Choice(4, SUFFIX))
    assert set(result.updated) == {"norm1.scale", "norm1.bias", "fc.weight", "fc.bias"}


@pytest.mark.parametrize("where", ["attention::conv2::fw::b2", "attention::norm2::bw::b1"])
def test_a_nan_in_a_gradient_is_named_and_the_step_undone(where: str) -> None:
    weights = learning(ATTENTION, ("conv2", "norm2", "fc"))
    weights.tensors[where][:] = np.nan
    layer = where.split("::")[1]
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=rf"step 1 of 3: grad::{layer}\.\w+ is not finite") as stopped,
    ):
        adapt(ATTENTION, weights, Choice(4, SUFFIX))
    kept = stopped.value.adaptation
    assert kept.steps_done == 0
    assert largest_difference(kept.updated, {n: weights.tensors[n] for n in kept.updated}) == 0


@pytest.mark.parametrize("rows", [ROWS["everything"], ROWS["head"]], ids=["everything", "head"])
def test_a_loss_that_overflows_is_named_and_the_step_undone(rows: list[tuple[str, ...]]) -> None:
    weights = learning(PLAIN, *rows)
    weights.tensors["alpha"][1][weights.tensors["alpha"][1] != 0] = 1e38
    plan = replace(plan_of(PLAIN, weights, Choice(4, SUFFIX)), steps=2)
    shorter = ReferenceEngine().adapt(PLAIN, plan, weights, random_support(samples=SAMPLES))
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=r"step 3 of 3: .* is not finite") as stopped,
    ):
        adapt(PLAIN, weights, Choice(4, SUFFIX))
    kept = stopped.value.adaptation
    assert (kept.steps_done, len(kept.losses)) == (2, 2)
    assert largest_difference(kept.updated, shorter.updated) == 0


class Watched(DictWeights):
    """Weights that note in which order they are copied and given back."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        super().__init__(tensors)
        self.notes: list[str] = []

    def copy(self, name: str) -> Array:
        self.notes.append(name)
        return super().copy(name)

    def give_back(self) -> None:
        self.notes.append("given back")


def test_mapped_weights_are_given_back_before_the_updated_ones_are_copied() -> None:
    weights = Watched(learning(PLAIN, ("norm2", "fc")).tensors)
    adapt(PLAIN, weights, Choice(4, SUFFIX))
    assert weights.notes == ["given back", "norm2.scale", "norm2.bias", "fc.weight", "fc.bias"]
    weights.notes.clear()
    adapt(PLAIN, weights, Choice(4))
    assert "given back" not in weights.notes  # every micro-batch of every step reads them


@pytest.mark.skipif(sys.platform != "linux", reason="resident pages are read from /proc")
def test_giving_back_frees_the_pages_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"w": np.arange(2**20, dtype=np.float32)})

    def resident_bytes() -> int:
        _, part = Path("/proc/self/smaps").read_text().split(str(path))
        return 1024 * int(part.split("Rss:")[1].split()[0])

    file = TensorFile.open(path)
    total = file.mapped("w").sum(dtype=np.float64)
    assert resident_bytes() >= 2**22
    file.give_back()
    assert resident_bytes() == 0
    assert file.mapped("w").sum(dtype=np.float64) == total


def test_the_plan_counts_only_the_weights_that_are_in_memory_at_a_time() -> None:
    program = conv_program(Net(channels=32, blocks=3))
    weights = learning(program, ("norm2", "conv3", "fc"))
    size = {t.name: t.size_bytes(1) for t in program.tensors.values() if t.role in ("param", "step-size")}
    plan = plan_of(program, weights, Choice(1, SUFFIX))
    prefix = [n for n in size if n.startswith(("conv1", "norm1", "conv2", "norm2"))]  # more than the rest
    assert plan.terms["weights"] == sum(size[name] for name in prefix) > sum(size.values()) / 2
    no_room = weights_bytes(program, plan.lowered, predict_bytes=plan.dynamic_bytes)
    assert no_room == sum(size.values())
    assert plan_of(program, weights, Choice(1)).terms["weights"] == sum(size.values())
