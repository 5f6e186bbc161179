"""The same kernels on another processor (aarch64 under qemu-user) and under the address sanitizer."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.engines.binding import ReferenceBackend
from edge_adapt.edge.native.executor import NOT_FINITE

from . import native_driver
from .kernel_cases import Case, quantised, relative_error
from .kernel_table import case_table
from .native_calls import expected, normal, single
from .native_plans import needs_native
from .native_steps import BATCH, conv_chain, given, norm_chain, update_chain
from .test_native_conv import NAMED, cases
from .test_native_executor import ran

pytestmark = needs_native

CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


def all_cases() -> list[Case]:
    """A case per operation, levels of 16 bits, and the named convolutions."""
    found = [case for case in case_table(np.float32).values() if case.kind != "Reshape"]
    found += quantised(partial(normal, 0), bits=16)
    for problem in NAMED.values():
        for kind, inputs, outputs in cases(problem):
            singles = [[single(a) for a in arrays] for arrays in (inputs, outputs)]
            found.append(Case(kind, singles[0], singles[1], problem.attrs))
    return found


def check_all(command: list[str], instruction_set: str | None) -> None:
    table = all_cases()
    for threads in (1, 2):
        said, results = native_driver.run_cases(command, table, threads)
        assert instruction_set in (None, said)
        for case, found in zip(table, results, strict=True):
            truth = expected(case.kind, case.inputs, case.outputs, case.attrs)
            for one, other in zip(found, truth, strict=True):
                if one is not None and one.dtype == np.float32:
                    assert relative_error(one, other) < 1e-5, case.kind
                elif one is not None:
                    np.testing.assert_array_equal(one, other)


def check_tables(command: list[str]) -> None:
    """The executor on Slices steps."""
    for program in (norm_chain(2, 2), conv_chain(2)):
        arrays = given(program, BATCH)
        truth = ran(ReferenceBackend, program, BATCH, arrays)
        for threads in (1, 2):
            found = native_driver.run_table(command, program, threads, arrays)
            for name, value in truth.items():
                if value.dtype == np.float32:
                    assert relative_error(found[name], value.reshape(-1)) < 1e-5
                else:
                    np.testing.assert_array_equal(found[name], value.reshape(-1))
    program = update_chain(4, 2)
    arrays = given(program, BATCH)
    found = native_driver.run_table(command, program, 2, arrays)
    arrays["gy"][1, 5, 3, 3] = np.nan
    native_driver.run_table(command, program, 2, arrays, NOT_FINITE)
    arrays["gy"] = given(program, BATCH)["gy"]
    ran(ReferenceBackend, program, BATCH, arrays)
    assert relative_error(found["w"], arrays["w"].reshape(-1)) < 1e-5


@pytest.mark.slow
def test_aarch64_under_an_emulator(tmp_path: Path) -> None:
    for tool in (CROSS, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    native_driver.build([CROSS, "-O2", "-static"], tmp_path / "driver")
    check_all([EMULATOR, str(tmp_path / "driver")], "neon")
    check_tables([EMULATOR, str(tmp_path / "driver")])


@pytest.mark.slow
def test_the_address_sanitizer_finds_nothing(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    try:
        native_driver.build([compiler, *flags], tmp_path / "driver")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the compiler has no sanitizers: {error.stderr[-200:]}")
    check_all([str(tmp_path / "driver")], None)
    check_tables([str(tmp_path / "driver")])
