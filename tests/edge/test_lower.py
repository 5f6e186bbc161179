"""Lowering: what is left of the program, in which order, and what shares memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from edge_adapt.edge.cost import kept_bound
from edge_adapt.edge.errors import BundleError
from edge_adapt.edge.lower import Choice, StepProgram, lower, lower_predict
from edge_adapt.edge.reference import KERNELS
from edge_adapt.edge.reference.attention import clipped
from hypothesis import given
from hypothesis import strategies as st

from .programs import Net, conv_program, masks

ALL = ("conv1", "norm1", "conv2", "norm2", "fc")
UPDATED = [ALL, ("fc",), ("conv2", "fc"), ("norm2",), ("norm1", "conv2"), ("conv1",)]
PLAIN = conv_program(Net())
ATTENTION = conv_program(Net(rho=0.3))
BACKWARD_ONLY = ("x_hat", "mask", "argmax", "inv_std")


def one(
    layers: tuple[str, ...], micro_batch: int = 1, storage: str = "dense", rho: bool = True
) -> StepProgram:
    program = ATTENTION if rho else PLAIN
    return lower(program, masks(program, *layers), 10, Choice(micro_batch, storage=storage)).programs[0]


def kinds(program: StepProgram) -> list[str]:
    return [step.kind for step in program.steps]


def values_of_term(program: StepProgram, *terms: str) -> set[str]:
    return {b.name for b in program.buffers if any(s.term in terms for s in b.segments)}


@pytest.mark.parametrize("layers", UPDATED)
@pytest.mark.parametrize("storage", ["dense", "sparse"])
@pytest.mark.parametrize("micro_batch", [1, 10])
def test_every_value_is_written_before_it_is_read(
    layers: tuple[str, ...], storage: str, micro_batch: int
) -> None:
    program = one(layers, micro_batch, storage)
    written = {value.name for value in program.values.values() if not value.buffer}
    for step in program.steps:
        assert written.issuperset(filter(None, step.inputs)), step
        written.update(step.outputs)


@pytest.mark.parametrize("layers", UPDATED)
@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_memory_is_shared_only_at_a_hand_over_that_the_kernel_allows(
    layers: tuple[str, ...], storage: str
) -> None:
    program = one(layers, 1, storage)
    span: dict[str, list[int]] = {}
    for index, step in enumerate(program.steps):
        for name in filter(None, (*step.inputs, *step.outputs)):
            if program.values[name].buffer:
                span.setdefault(name, []).append(index)
    for a in span:
        for b in span:
            if a == b or program.values[a].buffer != program.values[b].buffer or span[a][0] > span[b][0]:
                continue
            step = program.steps[span[b][0]]
            if span[a][-1] >= span[b][0]:
                assert b in step.outputs, (a, b)
                source = 0 if KERNELS[step.kind].alias else KERNELS[step.kind].in_place[step.outputs.index(b)]
                assert step.inputs[source] == a or KERNELS[step.kind].alias
                assert KERNELS[step.kind].alias or span[a][-1] == span[b][0]


@pytest.mark.parametrize("frozen", ALL)
def test_a_frozen_layer_has_neither_gradient_nor_attention_nor_update(frozen: str) -> None:
    program = one(tuple(name for name in ALL if name != frozen))
    names = set(program.values)
    assert not [name for name in names if name.startswith((f"grad::{frozen}.", f"updated::{frozen}."))]
    assert not names & {f"fw::{frozen}", f"bw::{frozen}"}


def test_below_the_lowest_updated_layer_nothing_runs_backward_and_nothing_is_saved() -> None:
    program = one(("conv2", "fc"))
    absent = ("g::y1", "g::p1", *(f"{kind}1" for kind in BACKWARD_ONLY))
    assert not [name for name in program.values if name.startswith(absent)]
    head = one(("fc",))
    assert values_of_term(head, "masks") == set()
    assert kinds(head).count("MaxPoolGrad") == 0


def test_nothing_updated_is_forward_and_loss() -> None:
    program = lower(PLAIN, (tuple(False for _ in PLAIN.layers),), 10, Choice()).programs[0]
    assert program.steps[-1].kind == "SoftmaxCrossEntropy"
    assert program.steps[-1].outputs == ("loss", "")
    assert {s.kind for s in program.steps} == {
        "Load", "Conv", "GroupNorm", "Relu", "MaxPool", "Reshape", "Fc", "SoftmaxCrossEntropy",
    }  # fmt: skip
    assert program.accumulators == ()


def test_everything_updated_saves_inputs_normalised_maps_and_masks() -> None:
    program = one(ALL, rho=False)
    saved = {v.name for v in program.values.values() if v.buffer in values_of_term(program, "saved")}
    assert {"images", "x_hat1", "x_hat2", "inv_std1", "inv_std2", "p1", "flat"} <= saved
    assert values_of_term(program, "masks") == {"mask1", "mask2", "argmax1", "argmax2"}
    assert values_of_term(program, "accumulators") == set(program.accumulators)


def test_parameter_gradients_run_before_the_input_gradient_of_their_layer() -> None:
    steps = [(step.kind, step.layer) for step in one(ALL).steps]
    for conv in ("conv2",):
        assert steps.index(("ConvWeightGrad", conv)) < steps.index(("ConvInputGrad", conv))
    assert steps.index(("ScaleGrad", "norm1")) < steps.index(("GroupNormInputGrad", "norm1"))
    assert steps.index(("FcWeightGrad", "fc")) < steps.index(("FcInputGrad", "fc"))


def test_attention_runs_as_soon_as_its_input_exists() -> None:
    program = one(ALL)
    outputs = [step.outputs for step in program.steps]
    for gamma, source in (("fw::conv2", "p1"), ("fw::norm1", "x_hat1"), ("bw::conv2", "g::y2")):
        made = next(i for i, names in enumerate(outputs) if source in names)
        between = {step.kind for step in program.steps[made + 1 : outputs.index((gamma,))]}
        assert between <= {"ChannelAttention", "BiasGrad"}


def test_a_frozen_prefix_runs_in_the_memory_of_the_convolution() -> None:
    program = one(("conv2", "fc"))
    shared = [program.values[name].buffer for name in ("y1", "z1", "r1", "p1")]
    assert shared == ["y1"] * 4
    (buffer,) = (b for b in program.buffers if b.name == "y1")
    size = 8 * 12 * 12 * 4
    assert [segment.bytes for segment in buffer.segments] == [size, size // 4]


def test_several_micro_batches_zero_accumulators_first_and_one_just_before_use() -> None:
    several, single = one(ALL, 5), one(ALL, 10)
    assert kinds(several)[: several.body[0]] == ["Zero"] * len(several.accumulators)
    assert single.body[0] == 0
    for index, step in enumerate(single.steps):
        if step.kind == "Zero":
            assert step.outputs[0] in single.steps[index + 1].outputs or kinds(single)[index + 1] == "Zero"
    first = {b.name: b.first for b in single.buffers}
    assert all(first[name] > kinds(single).index("SoftmaxCrossEntropy") for name in single.accumulators)


def test_updates_come_last_and_read_the_step_sizes() -> None:
    program = one(("norm2", "fc"))
    epilogue = program.steps[program.body[1] :]
    assert [step.outputs[0] for step in epilogue] == [
        "updated::norm2.scale", "updated::norm2.bias", "updated::fc.weight", "updated::fc.bias",
    ]  # fmt: skip
    assert all(step.inputs[2] == "alpha" for step in epilogue)


def test_equal_steps_share_one_step_program() -> None:
    first, second = masks(PLAIN, "fc")[0], masks(PLAIN, "conv2", "fc")[0]
    lowered = lower(PLAIN, (first, second, first, first), 10, Choice())
    assert lowered.order == (0, 1, 0, 0)
    assert [program.mask for program in lowered.programs] == [first, second]


def test_prediction_is_the_forward_pass_without_anything_saved() -> None:
    program = lower_predict(ATTENTION, 2).programs[0]
    assert {segment.term for b in program.buffers for segment in b.segments} <= {"working", "workspace"}
    assert program.outputs == {"logits": "logits"}
    assert kinds(program)[-1] == "Fc"


def test_sparse_storage_keeps_the_provable_number_of_channels() -> None:
    program = one(("conv2", "fc"), storage="sparse")
    (select,) = (step for step in program.steps if step.kind == "SelectChannels")
    assert select.inputs == ("p1", "fw::conv2")
    assert program.values["kept::conv2"].shape == ("N", 5, 6, 6)  # 8 - ceil(0.3 * 8)
    assert program.values["index::conv2"].shape == ("N", 5)
    assert "ConvWeightGradSparse" in kinds(program)


def test_sparse_storage_leaves_alone_what_others_read_backward() -> None:
    program = one(ALL, storage="sparse")
    norms = [step for step in program.steps if step.kind.startswith("ScaleGrad")]
    assert [step.kind for step in norms] == ["ScaleGrad"] * 2  # x_hat is needed dense to pass gradients on


def test_sparse_storage_of_one_channel_would_not_be_smaller() -> None:
    program = one(("conv1",), storage="sparse")
    assert not [s for s in program.steps if s.kind == "SelectChannels" and s.inputs[0] == "images"]


def test_a_lower_cap_reaches_attention_and_storage() -> None:
    caps = [{"fw::conv2": 2}] * ATTENTION.steps
    lowered = lower(ATTENTION, masks(ATTENTION, "conv2", "fc"), 10, Choice(storage="sparse"), caps)
    program = lowered.programs[0]
    (attention,) = (s for s in program.steps if s.outputs == ("fw::conv2",))
    assert attention.attrs["cap"] == 2
    assert program.values["kept::conv2"].shape == ("N", 2, 6, 6)


@given(
    st.integers(1, 40),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 1e-4, 1.0, 5.0]),
    st.integers(0, 2**31),
)
def test_clipping_never_keeps_more_than_the_bound(
    channels: int, rho: float, spread: float, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, spread, channels)
    pi = (np.exp(logits) / np.exp(logits).sum()).astype(np.float32)
    assert clipped(pi, rho, None).sum() <= kept_bound(channels, rho)


def test_a_gradient_that_no_gradient_operation_writes_is_refused() -> None:
    backward = tuple(op for op in PLAIN.sections["backward"] if op.outputs != ("grad::fc.bias",))
    broken = replace(PLAIN, sections={**PLAIN.sections, "backward": backward})
    with pytest.raises(BundleError, match=r"'grad::fc\.bias' is not written by a parameter gradient"):
        lower(broken, masks(broken, "fc"), 10, Choice())


@pytest.mark.parametrize("layers", UPDATED)
def test_multiply_accumulates_match_the_layers(layers: tuple[str, ...]) -> None:
    program = one(layers, rho=False)
    macs = {(step.kind, step.layer): step.macs for step in program.steps if step.macs}
    assert macs[("Conv", "conv1")] == 8 * 12 * 12 * 1 * 9
    assert macs[("Conv", "conv2")] == 8 * 6 * 6 * 8 * 9
    assert macs[("Fc", "fc")] == 5 * 72
    for kind in ("ConvWeightGrad", "ConvInputGrad"):
        assert macs.get((kind, "conv2"), 8 * 6 * 6 * 8 * 9) == 8 * 6 * 6 * 8 * 9
