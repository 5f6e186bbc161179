"""The reference engine against the interpreter, against itself at other plans, and when things go wrong."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.engines import (
    NO_HOOKS,
    Adaptation,
    AdaptationInterrupted,
    Hooks,
    NonFiniteError,
    Progress,
    ReferenceEngine,
)
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.lower import Step
from edge_adapt.edge.plan import Plan, search_plan
from edge_adapt.edge.program import Program
from edge_adapt.edge.reference.interpret import interpret
from numpy.typing import NDArray

from .programs import (
    DictWeights,
    Net,
    RandomSupport,
    conv_program,
    random_support,
    random_weights,
    residual_program,
)

Array = NDArray[Any]
SAMPLES, STEPS = 11, 3
NETS = {"plain": Net(), "attention": Net(rho=0.3), "colour": Net(colours=3, blocks=1, rho=0.5)}
FROZEN: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "block 1": ("conv1", "norm1"),
    "all but the head": ("conv1", "norm1", "conv2", "norm2"),
    "the head and a norm": ("fc", "norm1"),
    "everything": ("conv1", "norm1", "conv2", "norm2", "fc"),
}


def frozen_weights(program: Program, *frozen: str) -> DictWeights:
    weights = random_weights(program, step_size=0.05)
    for layer in program.layers:
        if layer.name in frozen:
            weights.tensors["alpha"][:, layer.index] = 0
    return weights


def planned(program: Program, weights: DictWeights, micro_batch: int, storage: str = "dense") -> Plan:
    alpha = weights.tensors["alpha"]
    return search_plan(
        program, alpha, SAMPLES, STEPS, micro_batch=micro_batch, storage=storage, schedule="accumulate"
    )


def adapt(
    program: Program, weights: DictWeights, support: RandomSupport, micro_batch: int, storage: str = "dense",
    hooks: Hooks = NO_HOOKS,
) -> Adaptation:  # fmt: skip
    plan = planned(program, weights, micro_batch, storage)
    return ReferenceEngine().adapt(program, plan, weights, support, hooks=hooks)


def largest_difference(a: Mapping[str, Array], b: Mapping[str, Array]) -> float:
    assert set(a) == set(b)
    return max((float(np.abs(a[name] - b[name]).max()) for name in a), default=0.0)


def inputs(program: Program, support: RandomSupport) -> dict[str, Array]:
    images = np.empty((len(support), *program.tensors["images"].concrete(1)[1:]), np.float32)
    support.fill(0, images)
    mask = np.zeros(program.tensors["class_mask"].concrete(1))
    mask[: len(support.class_names)] = 1
    weight = np.full(len(support), 1 / len(support))
    return {"images": images, "labels": support.labels, "sample_weight": weight, "class_mask": mask}


def interpreted(
    program: Program,
    weights: DictWeights,
    support: RandomSupport,
    given: Mapping[str, Array] = {},
) -> tuple[dict[str, Array], list[float]]:
    """Run K steps with the interpreter in float64: the whole support set, every tensor in its own memory."""
    tensors = {name: value.astype(np.float64) for name, value in weights.tensors.items()}
    alpha, losses = weights.tensors["alpha"], []
    for step in range(STEPS):
        live = [layer for layer in program.layers if alpha[step, layer.index]]
        wanted = ["loss", *(grad for layer in live for grad in layer.grads)]
        values = {**tensors, **inputs(program, support), **given}
        found = interpret(program, values, wanted, np.float64)
        losses.append(float(found["loss"].item()))
        for layer in live:
            for name, grad in zip(layer.params, layer.grads, strict=True):
                tensors[name] = tensors[name] - alpha[step, layer.index] * found[grad]
    updated = {n for layer in program.layers if alpha[:, layer.index].any() for n in layer.params}
    return {name: tensors[name] for name in updated}, losses


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_steps_equal_the_interpreter_in_float64(net: Net, frozen: tuple[str, ...], storage: str) -> None:
    program = conv_program(net)
    weights, support = frozen_weights(program, *frozen), random_support(net, SAMPLES)
    truth, losses = interpreted(program, weights, support)
    result = adapt(program, weights, support, 4, storage)
    assert largest_difference(result.updated, truth) < 1e-5
    assert result.losses == pytest.approx(losses, abs=1e-5)
    assert (result.steps_done, result.measured_dynamic_bytes) == (STEPS, None)


@pytest.mark.parametrize("frozen", [(), ("conv1",), ("conv2",), ("conv1", "conv2"), ("fc",)])
@pytest.mark.parametrize("micro_batch", [1, 4, SAMPLES])
def test_a_residual_network_equals_the_interpreter(frozen: tuple[str, ...], micro_batch: int) -> None:
    program = residual_program()
    weights, support = frozen_weights(program, *frozen), random_support(samples=SAMPLES)
    weights.tensors["alpha"] /= 10
    truth, losses = interpreted(program, weights, support)
    result = adapt(program, weights, support, micro_batch)
    assert largest_difference(result.updated, truth) < 1e-5
    assert result.losses == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("frozen", [(), ("conv1", "norm1")], ids=["dense", "block 1 frozen"])
def test_any_micro_batch_and_storage_gives_the_same_logits(net: Net, frozen: tuple[str, ...]) -> None:
    program = conv_program(net)
    weights, support = frozen_weights(program, *frozen), random_support(net, SAMPLES)
    logits = []
    for micro_batch in (1, 5, SAMPLES):
        for storage in ("dense", "sparse"):
            result = adapt(program, weights, support, micro_batch, storage)
            after = DictWeights({**weights.tensors, **result.updated})
            logits.append(ReferenceEngine().predict(program, after, support, micro_batch))
    assert len(logits) == 6
    assert max(float(np.abs(one - logits[0]).max()) for one in logits) < 1e-5
    before = ReferenceEngine().predict(program, weights, support)
    assert float(np.abs(logits[0] - before).max()) > 0.01  # the steps did something


def test_prediction_equals_the_interpreter() -> None:
    program = conv_program(NETS["attention"])
    weights, support = random_weights(program), random_support(NETS["attention"], SAMPLES)
    truth = interpret(program, {**weights.tensors, **inputs(program, support)}, ["logits"], np.float64)[
        "logits"
    ]
    for micro_batch in (1, 4, 11, 20):
        logits = ReferenceEngine().predict(program, weights, support, micro_batch)
        assert logits.dtype == np.float32
        assert np.abs(logits - truth).max() < 1e-5


@pytest.mark.parametrize("samples", [1, 4, 7])
@pytest.mark.parametrize("micro_batch", [1, 5, SAMPLES])
def test_fewer_samples_than_planned_give_their_own_mean(samples: int, micro_batch: int) -> None:
    program = conv_program(NETS["attention"])
    weights, support = random_weights(program, step_size=0.05), random_support(NETS["attention"], samples)
    truth, losses = interpreted(program, weights, support)
    result = adapt(program, weights, support, micro_batch)
    assert largest_difference(result.updated, truth) < 1e-5
    assert result.losses == pytest.approx(losses, abs=1e-5)


def test_unused_outputs_of_the_head_get_no_gradient() -> None:
    program = conv_program(Net())
    weights, support = random_weights(program), random_support(samples=SAMPLES, classes=3)
    result = adapt(program, weights, support, 5)
    assert np.array_equal(result.updated["fc.weight"][3:], weights.tensors["fc.weight"][3:])
    assert not np.array_equal(result.updated["fc.weight"][:3], weights.tensors["fc.weight"][:3])
    truth, _ = interpreted(program, weights, support)
    assert largest_difference(result.updated, truth) < 1e-5


def test_masks_that_change_from_step_to_step_update_each_layer_in_its_steps_only() -> None:
    program = conv_program(NETS["attention"])
    weights, support = random_weights(program, step_size=0.05), random_support(NETS["attention"], SAMPLES)
    alpha = weights.tensors["alpha"]
    alpha[0, [0, 1, 2]] = alpha[1, [1, 4]] = alpha[2, [0, 3]] = 0
    truth, _ = interpreted(program, weights, support)
    for storage in ("dense", "sparse"):
        assert largest_difference(adapt(program, weights, support, 4, storage).updated, truth) < 1e-5


@pytest.mark.parametrize("storage", ["dense", "sparse"])
@pytest.mark.parametrize("frozen", [(), ("conv1", "norm1")], ids=["dense", "block 1 frozen"])
def test_recorded_selections_replace_clipping(storage: str, frozen: tuple[str, ...]) -> None:
    net = Net(rho=0.3, keep=True)
    program = conv_program(net)
    weights, support = frozen_weights(program, *frozen), random_support(net, SAMPLES)
    rng = np.random.default_rng(3)
    selections = {}
    for tensor in program.tensors.values():
        if tensor.name.startswith("keep::"):  # the same at every step, so that the interpreter can follow
            channels = int(tensor.shape[1])
            kept = max(1, round(0.6 * channels))
            one = np.array([rng.permutation(channels) < kept for _ in range(SAMPLES)], np.float32)
            selections[tensor.name] = np.repeat(one[None], STEPS, axis=0)
    truth, _ = interpreted(program, weights, support, {name: kept[0] for name, kept in selections.items()})
    result = adapt(program, weights, support, 4, storage, Hooks(selections=selections))
    assert largest_difference(result.updated, truth) < 1e-5
    ordinary = conv_program(replace(net, keep=False))
    assert largest_difference(adapt(ordinary, weights, support, 4, storage).updated, truth) > 1e-3


def test_weights_given_are_never_changed() -> None:
    program = conv_program(Net())
    weights = random_weights(program)
    before = {name: value.copy() for name, value in weights.tensors.items()}
    for value in weights.tensors.values():
        value.flags.writeable = False
    adapt(program, weights, random_support(samples=SAMPLES), 5)
    assert largest_difference(weights.tensors, before) == 0


def test_progress_is_told_after_every_micro_batch_and_finished_after_every_step() -> None:
    program = conv_program(Net())
    seen: list[Progress] = []
    steps: list[tuple[int, float]] = []
    hooks = Hooks(seen.append, lambda done, updated, loss: steps.append((done, loss)))
    result = adapt(program, random_weights(program), random_support(samples=SAMPLES), 4, hooks=hooks)
    assert [(p.step, p.samples_done) for p in seen] == [(k, n) for k in range(STEPS) for n in (4, 8, 11)]
    assert {(p.steps, p.samples) for p in seen} == {(STEPS, SAMPLES)}
    assert steps == [(k + 1, loss) for k, loss in enumerate(result.losses)]


def test_a_watcher_sees_every_operation_with_its_results() -> None:
    program = conv_program(NETS["attention"])
    gammas: dict[tuple[int, int], Array] = {}

    def watch(step: int, start: int, done: Step, outputs: Sequence[Array | None]) -> None:
        if done.outputs == ("fw::conv2",) and outputs[0] is not None:
            gammas[step, start] = outputs[0].copy()

    weights, support = random_weights(program), random_support(NETS["attention"], SAMPLES)
    adapt(program, weights, support, 4, hooks=Hooks(watch=watch))
    assert set(gammas) == {(k, n) for k in range(STEPS) for n in (0, 4, 8)}
    assert all(np.allclose(gamma.sum(axis=1), 8, atol=1e-4) for gamma in gammas.values())


class Stop:
    """Raises KeyboardInterrupt at the n-th micro-batch."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, progress: Progress) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 3, 4, 5, 8])
def test_an_interrupted_run_keeps_the_last_finished_step_and_resumes_to_the_same_numbers(after: int) -> None:
    program = conv_program(NETS["attention"])
    weights, support = random_weights(program, step_size=0.05), random_support(NETS["attention"], SAMPLES)
    plan, engine = planned(program, weights, 4), ReferenceEngine()
    whole = engine.adapt(program, plan, weights, support)
    with pytest.raises(AdaptationInterrupted) as stopped:
        engine.adapt(program, plan, weights, support, hooks=Hooks(Stop(after)))
    kept = stopped.value.adaptation
    assert kept.steps_done == (after - 1) // 3
    shorter = engine.adapt(program, replace(plan, steps=kept.steps_done), weights, support)
    assert largest_difference(kept.updated, shorter.updated) == 0
    rest = DictWeights({**weights.tensors, **kept.updated})
    resumed = engine.adapt(program, plan, rest, support, kept.steps_done)
    assert largest_difference(resumed.updated, whole.updated) == 0
    assert kept.losses + resumed.losses == whole.losses
    assert resumed.steps_done == STEPS


def test_ctrl_c_during_the_updates_waits_until_all_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    program = conv_program(Net())
    weights, support = random_weights(program), random_support(samples=SAMPLES)
    plan, engine = planned(program, weights, SAMPLES), ReferenceEngine()
    one_step = engine.adapt(program, replace(plan, steps=1), weights, support)
    copies = weights.copy

    class Trap(np.ndarray[Any, Any]):
        """Sends this process the signal when the parameter is read by its update."""

        def reshape(self, *shape: Any, **options: Any) -> Any:
            if shape == (-1,) and threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGINT)
            return np.asarray(self).reshape(*shape, **options)

    monkeypatch.setattr(
        weights, "copy", lambda name: copies(name).view(Trap) if name == "norm1.scale" else copies(name)
    )
    with pytest.raises(AdaptationInterrupted) as stopped:
        engine.adapt(program, plan, weights, support)
    assert stopped.value.adaptation.steps_done == 1
    assert largest_difference(stopped.value.adaptation.updated, one_step.updated) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("net", [NETS["plain"], NETS["attention"]], ids=["plain", "attention"])
@pytest.mark.parametrize("storage", ["dense", "sparse"])
@pytest.mark.parametrize("micro_batch", [1, SAMPLES])
def test_a_loss_that_overflows_stops_before_the_weights_are_touched(
    net: Net, storage: str, micro_batch: int
) -> None:
    program = conv_program(net)
    weights, support = random_weights(program), random_support(net, SAMPLES)
    weights.tensors["alpha"][1] = 1e38
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=r"step 3 of 3: .* is not finite") as stopped,
    ):
        adapt(program, weights, support, micro_batch, storage)
    kept = stopped.value.adaptation
    assert kept.steps_done == 2
    assert len(kept.losses) == 2


@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_a_nan_in_a_gradient_names_the_gradient_and_keeps_the_weights(storage: str) -> None:
    program = conv_program(NETS["attention"])
    weights, support = random_weights(program), random_support(NETS["attention"], SAMPLES)
    weights.tensors["attention::conv2::fw::b2"][:] = np.nan
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=r"grad::conv2\.weight is not finite") as stopped,
    ):
        adapt(program, weights, support, 4, storage)
    kept = stopped.value.adaptation
    assert kept.steps_done == 0
    assert largest_difference(kept.updated, {name: weights.tensors[name] for name in kept.updated}) == 0


def test_more_samples_than_planned_and_more_classes_than_outputs_are_refused() -> None:
    program = conv_program(Net())
    weights = random_weights(program)
    with pytest.raises(SupportError, match="12 samples, the plan is for 1 to 11; plan with --samples 12"):
        adapt(program, weights, random_support(samples=12), 4)
    with pytest.raises(SupportError, match="6 classes, the head has 5 outputs"):
        adapt(program, weights, random_support(samples=6, classes=6), 4)


@pytest.mark.parametrize("micro_batch", [1, 5, SAMPLES])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_the_highest_byte_written_is_inside_the_plan(
    micro_batch: int, frozen: tuple[str, ...], storage: str
) -> None:
    program = conv_program(NETS["attention"])
    weights, support = frozen_weights(program, *frozen), random_support(NETS["attention"], SAMPLES)
    plan = planned(program, weights, micro_batch, storage)
    result = ReferenceEngine().adapt(program, plan, weights, support, hooks=Hooks(measure=True))
    assert result.measured_dynamic_bytes is not None
    assert 0.9 * plan.dynamic_bytes < result.measured_dynamic_bytes <= plan.dynamic_bytes
    unmeasured = ReferenceEngine().adapt(program, plan, weights, support)
    assert (
        largest_difference(result.updated, unmeasured.updated) == 0
    )  # nothing reads memory it did not write
