"""Finding, choosing and loading compiled kernels; helpers that several threads of a program want at once."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge import native
from edge_adapt.edge.native import library as module
from edge_adapt.edge.native.attributes import encoded

from .native_calls import call, normal, variants

CONV = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "groups": 1}


def cpuinfo(tmp_path: Path, flags: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    return path


@pytest.mark.parametrize(
    ("machine", "flags", "names"),
    [
        ("x86_64", "sse2 fma avx2 avx512f avx512dq avx512bw avx512vl", ("avx512", "avx2", "baseline")),
        ("x86_64", "sse2 fma avx2 avx512f", ("avx2", "baseline")),
        ("x86_64", "sse2 avx2", ("baseline",)),
        ("aarch64", "fp asimd", ("neon",)),
        ("riscv64", "", ()),
    ],
)
def test_a_processor_gets_the_variants_it_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    assert native.supported(cpuinfo(tmp_path, flags)) == names


def test_without_processor_information_the_baseline_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    assert native.supported(tmp_path / "absent") == ("baseline",)


def test_kernels_that_were_not_compiled_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HERE", tmp_path)
    assert native.built() == {}
    with pytest.raises(native.NotBuiltError, match="install a C compiler, then edge-adapt again"):
        native.best()
    with pytest.raises(native.NotBuiltError, match="no variant 'avx1024'"):
        native.load("avx1024")


@variants()
def test_a_library_of_another_interface_is_refused(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ABI", module.ABI + 1)
    with pytest.raises(native.NotBuiltError, match="install edge-adapt again"):
        native.Library(native.built()[variant])


@variants()
def test_double_precision_arrays_are_refused(variant: str) -> None:
    x = np.zeros((1, 4))
    with pytest.raises(ValueError, match="float64"):
        native.load(variant).run("Relu", [x], [x, None], {}, np.empty(0, np.uint8))


@pytest.mark.parametrize(
    ("kind", "attrs"),
    [("Conv", {**CONV, "pads": [1, 1]}), ("Gelu", {"approximate": "no"}), ("SgdUpdate", {"step": 1})],
)
def test_malformed_attributes_are_refused(kind: str, attrs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="attribute"):
        encoded(kind, attrs)


@variants()
def test_several_threads_of_a_program_share_the_helpers(variant: str) -> None:
    native.load(variant).start_threads(2)
    x, w = normal(0, 1, 64, 40, 40), normal(1, 64, 64, 3, 3)

    def convolve(_: int) -> np.ndarray:
        result = call(variant, "Conv", [x, w], [np.empty_like(x)], CONV, threads=2)[0]
        assert result is not None
        return result

    first = convolve(0)
    with ThreadPoolExecutor(3) as pool:
        for other in pool.map(convolve, range(12)):
            np.testing.assert_array_equal(first, other)


@variants()
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of fork beside threads")
def test_a_forked_child_works_without_the_helpers_it_lost(variant: str) -> None:
    x, w = normal(0, 1, 64, 40, 40), normal(1, 64, 64, 3, 3)
    truth = call(variant, "Conv", [x, w], [np.empty_like(x)], CONV, threads=2)[0]
    child = os.fork()
    if child == 0:
        found = call(variant, "Conv", [x, w], [np.empty_like(x)], CONV, threads=2)[0]
        os._exit(0 if np.array_equal(found, truth) else 1)
    assert os.waitpid(child, 0)[1] == 0
