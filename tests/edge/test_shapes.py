"""Operands that do not fit each other are refused, whatever the operation; what is accepted the kernels can run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.errors import BundleError
from edge_adapt.edge.program import DTYPE_BITS, Attr, Op, Program, Tensor
from edge_adapt.edge.reference import KERNELS
from edge_adapt.edge.reference.interpret import stored_shape
from edge_adapt.edge.shapes import RULES, check_operands, check_shapes
from numpy.typing import NDArray

from ..timing import least_seconds
from .branches import branch_program
from .dense import TASKS, dense_program
from .programs import Net, conv_program, residual_program
from .separable import separable_program
from .shape_cases import CASES, MORE, Case
from .suffixes import token_program

KINDS = sorted(CASES)
SAMPLES = 3
POOLED = "kernel strides pads"
FREE = {
    "Conv": "x w pads",  # a stride leaves a rest
    "ConvInputGrad": "w gx pads",
    "ConvWeightGrad": "x gw pads",
    "ConvWeightGradSparse": "k gw pads groups",  # some channels are kept, of how many the operation cannot know
    "FcWeightGradSparse": "gw",
    "BiasGrad": "gy",
    "SgdUpdate": "a layer_index",
    "SumTo": "gy",
    "Mean": "x",
    "MeanGrad": "gx",
    "MaxPool": f"x {POOLED}",
    "MaxPoolGrad": f"gx {POOLED}",
    "AveragePool": f"x {POOLED} count_include_pad",
    "AveragePoolGrad": f"gx {POOLED} count_include_pad",
    "Resize": "x y",
    "ResizeGrad": "gy gx",
    "Slice": "x",
    "ChannelAttention": "x",
    "Zero": "y",
    "SoftmaxCrossEntropy": "loss",
    "CategoricalPolicyGradient": "loss",
    "GaussianPolicyGradient": "loss",
}
WIDTHS = {"uint8", "uint16"}  # of levels: the two operations take both
OPTIONAL_ATTRIBUTES = ("min", "max", "label_smoothing", "cap")
MESSAGE = re.compile(r"program: \w+ of layer 'layer': [^\n]+, expected [^\n]+; export the bundle again")
PROGRAMS = {
    "attention": conv_program(Net(rho=0.3, keep=True)),
    "residual": residual_program(),
    "branches": branch_program(),
    "separable": separable_program(Net()),
    "tokens": token_program(),
    **{name: dense_program(task) for name, task in TASKS.items()},
}


def is_refused(case: Case) -> bool:
    """Whether a case is refused; if so, in one line that says where, what was found and what was expected."""
    message = ""
    try:
        check_operands(case.op, case.tensors)
    except BundleError as error:
        message = str(error)
    assert not message or MESSAGE.fullmatch(message), message
    return bool(message)


def run(case: Case) -> None:
    """Run the reference kernel, which raises where shapes do not fit."""
    shapes = {name: stored_shape(tensor, SAMPLES) for name, tensor in case.tensors.items()}
    value = float(case.op.kind != "SelectChannels")  # a gamma of 0 keeps no channel
    arrays = {name: _filled(tensor, shapes[name], value) for name, tensor in case.tensors.items()}
    inputs, outputs = ([arrays.get(name) for name in names] for names in (case.op.inputs, case.op.outputs))
    attrs, kernel = {**case.op.attrs, "step": 0}, KERNELS[case.op.kind]
    sides = [[shapes.get(name) for name in names] for names in (case.op.inputs, case.op.outputs)]
    kernel.run(inputs, outputs, attrs, np.zeros(kernel.workspace_bytes(*sides, attrs, 4), np.uint8))


def _filled(tensor: Tensor, shape: tuple[int, ...], value: float) -> NDArray[Any]:
    dtype = "uint8" if DTYPE_BITS[tensor.dtype] < 8 else tensor.dtype
    return np.full(shape, value if dtype == "float32" else 0, dtype)


def test_every_operation_has_a_rule_and_a_case() -> None:
    assert RULES.keys() == KERNELS.keys() == CASES.keys()


def test_operands_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "program.md").read_text()
    rows = dict(re.findall(r"^\| ([A-Z]\w+) \| ([^|]+ -> [^|]+?) \|", text, re.MULTILINE))
    assert set(rows) == {kind for kind in RULES if kind not in LOWERED}
    for kind, row in rows.items():
        found = [[f"[{o.name}]" if o.optional else o.name for o in side] for side in _sides(kind)]
        if kind != "Concat":  # a, b, ...
            documented = [side.strip().split(", ") for side in row.split("->")]
            assert found[0] == documented[0]
            assert [name.strip("[]") for name in found[1]] == documented[1]


def _sides(kind: str) -> tuple[Any, Any]:
    return RULES[kind].signature.inputs, RULES[kind].signature.outputs


LOWERED = ("Zero", "SelectChannels", "Quantise", "Dequantise", *(kind for kind in RULES if "Sparse" in kind))


@pytest.mark.parametrize("case", [*CASES.values(), *MORE], ids=lambda case: case.op.kind)
def test_what_is_right_is_accepted_and_runs(case: Case) -> None:
    check_operands(case.op, case.tensors)
    run(case)


def other_shapes(tensor: Tensor) -> Iterator[tuple[int | str, ...]]:
    """An axis longer or shorter, an axis more or fewer, the batch another number."""
    shape = tensor.shape
    for axis, length in enumerate(shape):
        for other in (length + 1, length - 1, 2 * length) if isinstance(length, int) else ():
            yield (*shape[:axis], other, *shape[axis + 1 :])
    if shape:
        yield shape[:-1]
    yield (*shape, 2)
    yield (SAMPLES, *shape[1:]) if tensor.batched else ("N", *shape)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_shape_of_any_operand_is_refused(kind: str) -> None:
    case, found = CASES[kind], set()
    for name, tensor in case.tensors.items():
        for shape in other_shapes(tensor):
            changed = case.with_tensor(name, shape=shape)
            if not is_refused(changed):
                run(changed)
                found.add(name)
    assert found <= set(FREE.get(kind, "").split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_type_of_any_operand_is_refused(kind: str) -> None:
    case = CASES[kind]
    for name, tensor in case.tensors.items():
        for dtype in set(DTYPE_BITS) - (WIDTHS if kind.endswith("uantise") else set()) - {tensor.dtype}:
            assert is_refused(case.with_tensor(name, dtype=dtype)), (name, dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_an_operand_too_many_or_too_few_is_refused(kind: str) -> None:
    case = CASES[kind]
    for side, operands in zip(("inputs", "outputs"), _sides(kind), strict=True):
        names = getattr(case.op, side)
        wrong = [] if kind == "Concat" and side == "inputs" else [(*names, *(names or ("y",)))]
        for place, operand in enumerate(operands):
            if not operand.optional:
                wrong.append((*names[:place], "", *names[place + 1 :]))
                wrong.append(names[:place])
        if side == "outputs":
            wrong += [names[:-1], ("",) * len(names)]
        for changed in wrong:
            assert is_refused(replace(case, op=replace(case.op, **{side: changed}))), changed


@pytest.mark.parametrize("kind", KINDS)
def test_a_malformed_attribute_is_refused(kind: str) -> None:
    case = CASES[kind]
    for name, value in case.op.attrs.items():
        rest = {other: given for other, given in case.op.attrs.items() if other != name}
        if name not in OPTIONAL_ATTRIBUTES:
            assert is_refused(case.with_attrs(rest)), name
        wrong: list[Any] = ["text", [], [value], {"a": 1}, 10**400, *_misfits(value)]
        for other in wrong:
            assert is_refused(case.with_attrs({**rest, name: other})), (name, other)


def _misfits(value: Attr) -> list[Any]:
    """Values that are never right, of an integer or of a list of them."""
    if isinstance(value, list):
        size = len(value)
        return [value[:-1], [*value, 1], [-1] * size, [1.5] * size, [True] * size, [2**31] * size]
    return [-7, 1.5, float(value), 2**31] if isinstance(value, int) else []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if CASES[kind].op.attrs])
def test_other_integers_are_refused_or_run(kind: str) -> None:
    case, found = CASES[kind], set()
    for name, value in case.op.attrs.items():
        for other in _neighbours(value):
            changed = case.with_attrs({**case.op.attrs, name: other})
            if not is_refused(changed):
                run(changed)
                found.add(name)
    assert found <= {*FREE.get(kind, "").split(), "cap"}


def _neighbours(value: Attr) -> Iterator[Attr]:
    values = value if isinstance(value, list) else [value]
    for place, one in enumerate(values):
        for other in (one + 1, one - 1, one + 7) if type(one) is int else ():
            changed = [*values[:place], other, *values[place + 1 :]]
            yield changed if isinstance(value, list) else other


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_accepted(name: str) -> None:
    check_shapes(PROGRAMS[name])


def test_a_program_of_900_operations_takes_a_fraction_of_a_second() -> None:
    program = PROGRAMS["branches"]
    count = -(-900 // sum(1 for _ in program.ops()))
    assert least_seconds(lambda: [check_shapes(program) for _ in range(count)]) < 0.6


def changed_op(program: Program, which: str, **changes: Any) -> Program:
    """Change the first operation of a kind."""
    done = False
    sections = {}
    for name, ops in program.sections.items():
        found = []
        for op in ops:
            found.append(replace(op, **changes) if op.kind == which and not done else op)
            done |= op.kind == which
        sections[name] = tuple(found)
    return replace(program, sections=sections)


def changed_tensor(program: Program, name: str, **changes: Any) -> Program:
    return replace(program, tensors={**program.tensors, name: replace(program.tensors[name], **changes)})


PLAIN = conv_program(Net())
LAYER = PLAIN.layers[0]
FAULTS = {
    "a batch that is not first": (changed_tensor(PLAIN, "r1", shape=(8, "N")), r"'r1' is float32 of shape \[8, 'N'\]"),
    "an empty axis": (changed_tensor(PLAIN, "r1", shape=("N", 0)), "expected axes of 1 to"),
    "a truth value as axis": (changed_tensor(PLAIN, "r1", shape=("N", True)), "expected axes of 1 to"),
    "a parameter of integers": (changed_tensor(PLAIN, "fc.bias", dtype="int32"), "expected float32 without N"),
    "a parameter with a batch": (changed_tensor(PLAIN, "fc.bias", shape=("N", 5)), "expected float32 without N"),
    "levels of 16 bits": (changed_tensor(PLAIN, "r1", dtype="uint16"), "'r1' is uint16 .*, this one is for lowering"),
    "an unknown operation": (changed_op(PLAIN, "Relu", kind="Rleu"), "'Rleu' of layer '' is no operation"),
    "an operation of lowering": (changed_op(PLAIN, "Relu", kind="Quantise"), "Quantise of layer '' is for lowering"),
    "a parameter that is written": (
        changed_op(PLAIN, "SgdUpdate", outputs=("conv1.weight",)), "writes 'conv1.weight', whose role is param",
    ),
    "another tensor as labels": (
        changed_op(
            replace(PLAIN, tensors={**PLAIN.tensors, "other": replace(PLAIN.tensors["labels"], name="other")}),
            "SoftmaxCrossEntropy", inputs=("logits", "other", "sample_weight", "class_mask"),
        ),
        "reads 'other', expected one of the inputs",
    ),
    "a loss of something else": (
        replace(PLAIN, outputs={**PLAIN.outputs, "logits": "flat"}), "expected that of the outputs 'flat'",
    ),
    "an input that is no tensor": (replace(PLAIN, inputs={"images": "x"}), "input 'images' is 'x', expected a tensor"),
    "no sample weights": (replace(PLAIN, inputs={"images": "images"}), "inputs lack sample_weight"),
    "a layer without step sizes": (
        replace(PLAIN, layers=(replace(LAYER, index=9), *PLAIN.layers[1:])), "layer 'conv1' has .* column 9 of",
    ),
    "a gradient of another shape": (
        replace(PLAIN, layers=(replace(LAYER, grads=LAYER.grads[::-1]), *PLAIN.layers[1:])),
        r"gradient 'grad::conv1.bias' has shape \[8\], expected that of 'conv1.weight', \[8, 1, 3, 3\]",
    ),
    "a gradient that is no tensor": (
        replace(PLAIN, layers=(replace(LAYER, grads=("x", "y")), *PLAIN.layers[1:])), "'x' has shape no tensor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_program_that_cannot_be_run_is_refused(fault: str) -> None:
    program, message = FAULTS[fault]
    with pytest.raises(BundleError, match=message):
        check_shapes(program)


def test_an_operation_of_no_layer_is_named_by_its_operand() -> None:
    tensors = {name: Tensor(name, ("N", size)) for name, size in (("before", 4), ("after", 5))}
    with pytest.raises(BundleError) as caught:
        check_operands(Op("Tanh", ("before",), ("after",)), tensors)
    assert str(caught.value) == (
        "program: Tanh of layer '': y 'after' has shape [N, 5], expected [N, 4]; export the bundle again"
    )
