"""Native kernels in a process of their own (native_driver.c), perhaps of another processor under an emulator."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edge_adapt.edge import native
from edge_adapt.edge.lower.table import StepProgram
from edge_adapt.edge.native.attributes import encoded
from edge_adapt.edge.native.table import Memory, StepTable, dtype_of, item_bytes
from edge_adapt.edge.program import Tensor

from .kernel_cases import Array, Case
from .native_steps import ALIGNMENT, BATCH

INPUTS, OUTPUTS, ATTRIBUTES = 16, 4, 16
BASE = 2**16  # where a step table thinks that everything lies
SOURCE = Path(native.__file__).resolve().parent / "src"
DRIVER = Path(__file__).with_suffix(".c")
FLAGS = [
    "-std=gnu11",
    "-Wno-psabi",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-pthread",
]


def build(compiler: Sequence[str], target: Path) -> None:
    """Compile the driver and all kernels; raises CalledProcessError."""
    sources = [str(path) for path in (DRIVER, *sorted(SOURCE.glob("*.c")))]
    command = [*compiler, *FLAGS, f"-I{SOURCE}", *sources, "-o", str(target), "-lm"]
    subprocess.run(command, check=True, capture_output=True, text=True)


def run_cases(
    command: Sequence[str], cases: Sequence[Case], threads: int
) -> tuple[str, list[list[Array | None]]]:
    """Run all cases in one process; return the instruction set it was compiled for, and their outputs."""
    data = b"".join(_packed_case(case, threads) for case in cases)
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"{done.returncode}: {said[-1500:]}"
    results, at = [], 0
    for case in cases:
        outputs: list[Array | None] = []
        for wanted in case.outputs:
            if wanted is None:
                outputs.append(None)
                continue
            found = np.frombuffer(done.stdout, wanted.dtype, wanted.size, at)
            outputs.append(found.reshape(wanted.shape))
            at += found.nbytes
        results.append(outputs)
    assert at == len(done.stdout)
    return said.splitlines()[0], results


def run_table(
    command: Sequence[str], program: StepProgram, threads: int, arrays: Mapping[str, Array], status: int = 0
) -> dict[str, Array]:
    """Check and run a step table in a process of its own; return every value, or what it was before if it failed.

    Args:
        command: the driver.
        program: values that are not in `arrays` are zeros at first.
        threads: of the table.
        arrays: for `native_steps.BATCH` samples; equal objects share memory.
        status: that the execution must return.
    """
    image, memory, workspaces = _image(program, arrays)
    table = StepTable(program, native.best().codes, threads)
    table.place(BATCH, memory, workspaces)
    records = bytes(table.raw)
    head = struct.pack("<iiiqqii", -1, 1, status, table.address, BASE, len(records), len(image))
    done = subprocess.run(command, input=head + records + image, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"{done.returncode}: {said[-1500:]}"
    assert len(done.stdout) == len(image)
    return {
        name: np.frombuffer(done.stdout, dtype_of(value), -1, at.address - BASE)[
            : at.room // item_bytes(value.dtype)
        ]
        for (name, value), at in zip(program.values.items(), memory.values(), strict=True)
    }


def _image(
    program: StepProgram, arrays: Mapping[str, Array]
) -> tuple[bytes, dict[str, Memory], dict[int, int]]:
    """Everything a program works on, one behind the other from address BASE on."""
    image, memory, seen = bytearray(), dict[str, Memory](), dict[int, Memory]()
    for name, value in program.values.items():
        size = Tensor(name, value.shape, value.dtype).size_bytes(BATCH)
        if id(arrays.get(name)) not in seen or name not in arrays:
            place = Memory(BASE + len(image), size)
            image += arrays[name].tobytes() if name in arrays else bytes(size)
            image += bytes(-len(image) % ALIGNMENT)
            seen[id(arrays.get(name))] = place
        memory[name] = seen[id(arrays.get(name))]
    workspaces = {}
    for index, step in enumerate(program.steps):
        workspaces[index] = BASE + len(image)
        image += bytes(step.workspace_bytes)
    return bytes(image), memory, workspaces


def _packed_case(case: Case, threads: int) -> bytes:
    row = [struct.pack("<f" if isinstance(v, float) else "<i", v) for v in encoded(case.kind, case.attrs)]
    attributes = b"".join(row).ljust(4 * ATTRIBUTES, b"\0")
    tensors = [*_padded(case.inputs, INPUTS), *_padded(case.outputs, OUTPUTS)]
    name = case.kind.encode()
    head = struct.pack("<i", len(name)) + name + attributes + struct.pack("<ii", threads, len(case.inputs))
    return head + b"".join(map(_packed_tensor, tensors))


def _padded(arrays: Sequence[Array | None], count: int) -> list[Array | None]:
    return [*arrays, *[None] * (count - len(arrays))]


def _packed_tensor(array: Any) -> bytes:
    if array is None:
        return struct.pack("<i", -1)
    shape = struct.pack(f"<{array.ndim + 2}i", array.ndim, *array.shape, array.itemsize)
    return bytes(shape + np.ascontiguousarray(array).tobytes())
