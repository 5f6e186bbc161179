"""The native engine against the reference engine, over programs, masks, choices and threads; when things go wrong."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import native
from edge_adapt.edge.bundle import TensorFile, write_tensors
from edge_adapt.edge.engines import (
    AdaptationInterrupted,
    Hooks,
    NativeEngine,
    NonFiniteError,
    ReferenceEngine,
    default_engine,
    engine_named,
    installed_engines,
)
from edge_adapt.edge.errors import UsageError
from edge_adapt.edge.lower import Choice, Step
from edge_adapt.edge.native.table import StepTable
from edge_adapt.edge.plan import search_plan
from numpy.typing import NDArray

from .native_plans import needs_native, plan_of, weights_with_frozen
from .programs import Net, conv_program, random_support, random_weights, residual_program
from .separable import separable_program
from .suffixes import TOKENS, token_program

pytestmark = needs_native
Array = NDArray[Any]
SAMPLES, STEPS = 11, 4
NETS = {
    "plain": (Net(), conv_program),
    "attention": (Net(rho=0.3), conv_program),
    "colour": (Net(colours=3, blocks=1, rho=0.5), conv_program),
    "residual": (Net(), residual_program),
}
OTHERS = {
    "separable": (Net(size=16, channels=4), separable_program),
    "tokens": (Net(size=TOKENS), lambda net: token_program()),
}
FROZEN: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "first": ("conv1", "norm1"),
    "all but the head": ("conv1", "norm1", "conv2", "norm2"),
    "the head": ("fc",),
}
ACCUMULATE = [
    Choice(),
    Choice(4, storage="sparse"),
    Choice(4, tiling="norms"),
    Choice(1, tiling="convs"),
    Choice(SAMPLES, tiling="convs"),
    Choice(4, recompute=True, tiling="convs"),
    Choice(4, saved_bits=8, tiling="convs"),
]
SUFFIX = [
    Choice(4, "cached suffix"),
    Choice(4, "cached suffix", tiling="convs"),
    Choice(4, "cached suffix", recompute=True, tiling="norms"),
    Choice(1, "cached suffix", saved_bits=8, cache_bits=16, tiling="convs"),
]


def largest_difference(a: Mapping[str, Array], b: Mapping[str, Array]) -> float:
    """Relative to the largest element of each tensor."""
    assert set(a) == set(b)
    return max((float(np.abs(a[n] - b[n]).max() / np.abs(b[n]).max()) for n in a), default=0.0)


def words(choice: Choice) -> str:
    return "-".join(map(str, vars(choice).values()))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("choice", [*ACCUMULATE, *SUFFIX], ids=words)
def test_every_choice_gives_what_the_reference_engine_gives(
    net: tuple[Net, Any], frozen: tuple[str, ...], choice: Choice
) -> None:
    program, support = net[1](net[0]), random_support(net[0], SAMPLES)
    weights = weights_with_frozen(program, *frozen)
    reference = ReferenceEngine()
    truth = reference.adapt(
        program, plan_of(program, weights, choice, reference.target, SAMPLES, STEPS), weights, support
    )
    for threads in (1, 2):
        engine = NativeEngine(threads)
        plan = plan_of(program, weights, choice, engine.target, SAMPLES, STEPS)
        found = engine.adapt(program, plan, weights, support, hooks=Hooks(measure=True))
        tolerance = 1e-5 if choice.saved_bits == choice.cache_bits == 32 else 1e-3
        assert largest_difference(found.updated, truth.updated) < tolerance
        assert found.losses == pytest.approx(truth.losses, rel=10 * tolerance)
        assert found.measured_dynamic_bytes is not None
        assert found.measured_dynamic_bytes <= plan.dynamic_bytes


@pytest.mark.parametrize("net", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(
    "frozen", [(), ("stem", "expand", "class", "embed")], ids=["nothing", "the first two"]
)
@pytest.mark.parametrize("choice", [*ACCUMULATE, *SUFFIX], ids=words)
def test_other_networks_too(net: tuple[Net, Any], frozen: tuple[str, ...], choice: Choice) -> None:
    test_every_choice_gives_what_the_reference_engine_gives(net, frozen, choice)


@pytest.mark.parametrize("samples", [1, 4, 7])
@pytest.mark.parametrize("choice", [Choice(5), Choice(5, "cached suffix", tiling="convs")], ids=words)
def test_fewer_samples_than_planned_and_a_smaller_last_micro_batch(samples: int, choice: Choice) -> None:
    net = Net(rho=0.3)
    program, support = conv_program(net), random_support(net, samples)
    weights = weights_with_frozen(program, "conv1")
    results = []
    for engine in (ReferenceEngine(), NativeEngine(2)):
        plan = plan_of(program, weights, choice, engine.target, SAMPLES, STEPS)
        results.append(engine.adapt(program, plan, weights, support).updated)
    assert largest_difference(results[1], results[0]) < 1e-5


@pytest.mark.parametrize("micro_batch", [1, 4, SAMPLES])
def test_prediction_equals_that_of_the_reference_engine(micro_batch: int) -> None:
    for net, build in NETS.values():
        program, support = build(net), random_support(net, SAMPLES)
        weights = random_weights(program)
        truth = ReferenceEngine().predict(program, weights, support, micro_batch)
        for threads in (1, 2):
            found = NativeEngine(threads).predict(program, weights, support, micro_batch)
            assert np.abs(found - truth).max() < 1e-5 * np.abs(truth).max()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("choice", [Choice(4), Choice(4, "cached suffix", tiling="convs")], ids=words)
def test_two_runs_are_bit_for_bit_equal(threads: int, choice: Choice) -> None:
    net = Net(size=42, channels=32, rho=0.3)  # large enough for operations to be shared between threads
    program, support = conv_program(net), random_support(net, SAMPLES)
    weights, engine = weights_with_frozen(program, "conv1"), NativeEngine(threads)
    plan = plan_of(program, weights, choice, engine.target, SAMPLES, 2)
    first, second = (engine.adapt(program, plan, weights, support).updated for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_weights_of_a_file_are_read_where_they_are_mapped_whatever_their_alignment(tmp_path: Path) -> None:
    net = Net(channels=6, groups=3, classes=3)
    program, support = conv_program(net), random_support(net, SAMPLES)
    weights = weights_with_frozen(program, "conv1", "norm2")
    odd = {"a": np.zeros(1, np.float32), **weights.tensors}
    write_tensors(tmp_path / "weights.safetensors", odd)
    mapped = TensorFile.open(tmp_path / "weights.safetensors")
    assert any(mapped.mapped(name).ctypes.data % 16 for name in ("conv1.weight", "conv1.bias"))
    engine = NativeEngine()
    plan = plan_of(program, weights, Choice(4), engine.target, SAMPLES, STEPS)
    found = engine.adapt(program, plan, mapped, support).updated
    assert largest_difference(found, engine.adapt(program, plan, weights, support).updated) == 0


def test_a_watcher_sees_every_step_with_its_outputs() -> None:
    program, support = conv_program(NETS["attention"][0]), random_support(NETS["attention"][0], SAMPLES)
    weights, seen = random_weights(program), []
    engine, reference = NativeEngine(), ReferenceEngine()

    def watch(step: int, start: int, one: Step, outputs: Sequence[Array | None]) -> None:
        seen.append((step, start, one.kind, [None if a is None else a.shape for a in outputs]))

    for one in (engine, reference):
        plan = plan_of(program, weights, Choice(4), one.target, SAMPLES, 2)
        one.adapt(program, plan, weights, support, hooks=Hooks(watch=watch))
    half = len(seen) // 2
    assert seen[:half] == seen[half:]
    assert half > 100


def test_a_plan_for_another_engine_or_other_threads_is_refused() -> None:
    program, weights = conv_program(), random_weights(conv_program())
    alpha, support = weights.tensors["alpha"], random_support(samples=5)
    plan = search_plan(program, alpha, 5, 1)
    with pytest.raises(
        UsageError, match=r"for engine 'reference' with threads 1.*engine='native', threads=1"
    ):
        NativeEngine().adapt(program, plan, weights, support)
    native = search_plan(program, alpha, 5, 1, target=NativeEngine(2).target)
    with pytest.raises(UsageError, match="plan with engine='native', threads=1"):
        NativeEngine().adapt(program, native, weights, support)
    with pytest.raises(UsageError, match="plan with engine='reference', threads=1"):
        ReferenceEngine().adapt(program, native, weights, support)


def test_the_native_engine_is_listed_first_and_is_the_default(tmp_path: Path) -> None:
    assert installed_engines()[:2] == ["native", "reference"]
    assert default_engine() == "native"
    assert engine_named("native", tmp_path, 2).name == "native"
    with pytest.raises(UsageError, match="threads: expected 1 to 64, got 0"):
        engine_named("native", tmp_path, 0)


@pytest.mark.parametrize("choice", [Choice(4), Choice(SAMPLES, "cached suffix", tiling="convs")], ids=words)
def test_a_nan_in_a_gradient_is_named_and_keeps_the_weights(choice: Choice) -> None:
    net = NETS["attention"][0]
    program, support = conv_program(net), random_support(net, SAMPLES)
    weights, engine = weights_with_frozen(program, "conv1", "norm1"), NativeEngine(2)
    weights.tensors["attention::conv2::fw::b2"][:] = np.nan
    plan = plan_of(program, weights, choice, engine.target, SAMPLES, STEPS)
    with pytest.raises(NonFiniteError, match=r"grad::conv2\.weight is not finite") as stopped:
        engine.adapt(program, plan, weights, support)
    kept = stopped.value.adaptation
    assert kept.steps_done == 0
    for name, value in kept.updated.items():
        assert np.array_equal(value, weights.tensors[name])


@pytest.mark.parametrize("choice", [Choice(1), Choice(25, "cached suffix", tiling="convs")], ids=words)
def test_a_real_interrupt_in_the_middle_of_a_call_keeps_the_last_finished_step(choice: Choice) -> None:
    net = Net(size=84, channels=32, blocks=3)
    program, support = conv_program(net), random_support(net, 25)
    weights, engine = weights_with_frozen(program, "conv1"), NativeEngine()
    plan = plan_of(program, weights, choice, engine.target, 25, 1000)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))

    def started(done: int, updated: Mapping[str, Array], loss: float) -> None:
        if done == 1:
            timer.start()

    with pytest.raises(AdaptationInterrupted) as stopped:
        engine.adapt(program, plan, weights, support, hooks=Hooks(finished=started))
    kept = stopped.value.adaptation
    assert 0 < kept.steps_done < 1000
    shorter = engine.adapt(program, replace(plan, steps=kept.steps_done), weights, support)
    for name, value in shorter.updated.items():
        assert np.array_equal(value, kept.updated[name])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_exception_of_a_watcher_comes_out_of_the_call() -> None:
    program, support = conv_program(), random_support(samples=SAMPLES)
    weights, engine = random_weights(program), NativeEngine()

    def watch(step: int, start: int, one: Step, outputs: Sequence[Array | None]) -> None:
        raise KeyError(one.kind)

    plan = plan_of(program, weights, Choice(4), engine.target, SAMPLES, STEPS)
    with pytest.raises(KeyError, match="Zero"):
        engine.adapt(program, plan, weights, support, hooks=Hooks(watch=watch))


def test_a_step_table_takes_as_many_bytes_as_the_plan_says() -> None:
    program = conv_program(NETS["attention"][0])
    engine, weights = NativeEngine(), random_weights(program)
    for choice in (Choice(4), Choice(4, tiling="convs")):
        lowered = plan_of(program, weights, choice, engine.target, SAMPLES, STEPS).lowered
        tables = [StepTable(one, native.best().codes, 1) for one in lowered.all_programs]
        assert sum(len(table.raw) for table in tables) == engine.target.table_bytes(lowered)
