"""A damaged program in a bundle whose checksums are right: one line, code 4, nothing planned, whatever the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .bundles import rewrite_manifest, write_bundle
from .commands import edge_adapt_here, error_line

Spoil = Callable[[dict[str, Any]], None]


def tensor(name: str, **changes: object) -> Spoil:
    return lambda program: program["tensors"][name].update(changes)


def first(section: str, kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda program: next(op for op in program["sections"][section] if op["op"] == kind)


def operation(section: str, kind: str, **changes: object) -> Spoil:
    find = first(section, kind)
    return lambda program: find(program).update(changes)


def attribute(section: str, kind: str, **changes: object) -> Spoil:
    find = first(section, kind)
    return lambda program: find(program)["attrs"].update(changes)


FAULTS: dict[str, tuple[Spoil, str]] = {
    "a result too large": (
        tensor("y1", shape=["N", 8, 13, 12]),
        r"Conv of layer 'conv1': y 'y1' has shape \[N, 8, 13, 12\], expected \[N, 8, 12, 12\]",
    ),
    "a weight for more channels": (
        tensor("conv2.weight", shape=[8, 9, 3, 3]),
        r"Conv of layer 'conv2': x 'p1' has shape \[N, 8, 6, 6\], expected \[N, 9, 6, 6\]",
    ),
    "a mask for fewer elements": (
        tensor("mask1", shape=["N", 8, 12, 11]),
        r"Relu of layer '': mask 'mask1' has shape \[N, 8, 12, 11\], expected \[N, 8, 12, 12\]",
    ),
    "a mask of bytes": (tensor("mask1", dtype="uint8"), "mask 'mask1' is uint8, expected bit1"),
    "an argmax too small": (tensor("argmax1", dtype="bit1"), "argmax 'argmax1' is bit1, expected bit2"),
    "a reshape to more": (
        tensor("flat", shape=["N", 73]),
        r"Reshape of layer '': y 'flat' has shape \[N, 73\], expected \[N, 8, 3, 3\]",
    ),
    "no stride": (
        attribute("forward", "Conv", strides=[0, 1]),
        r"attribute 'strides' is \[0, 1\], expected 2 integers of at least 1",
    ),
    "a step size of no layer": (
        attribute("update", "SgdUpdate", layer_index=5),
        "SgdUpdate of layer 'conv1': attribute 'layer_index' is 5, expected an integer from 0 to 4",
    ),
    "groups that do not divide": (
        attribute("forward", "GroupNorm", groups=3),
        "GroupNorm of layer 'norm1': attribute 'groups' is 3, expected a divisor of 8 channels",
    ),
    "an operand too few": (
        operation("forward", "Conv", inputs=["images"]),
        r"Conv of layer 'conv1': 1 inputs, expected x, w, \[b\]",
    ),
    "an unknown operation": (operation("forward", "Relu", op="Rleu"), "'Rleu' of layer '' is no operation"),
    "a list as a name": (operation("forward", "Relu", inputs=[["z1"]]), "names unknown tensor"),
    "a list as a type": (tensor("y1", dtype=["float32"]), r"program\.json: malformed"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("shapes") / "bundle")


@pytest.fixture
def spoiled(good: Path, tmp_path: Path) -> Callable[[Spoil], Path]:
    def make(spoil: Spoil) -> Path:
        bundle = tmp_path / "bundle"
        bundle.mkdir()
        for file in good.iterdir():
            (bundle / file.name).write_bytes(file.read_bytes())
        program = json.loads((bundle / "program.json").read_text())
        spoil(program)
        (bundle / "program.json").write_text(json.dumps(program))
        rewrite_manifest(bundle)
        return bundle

    return make


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_program_is_one_line_with_code_4(
    spoiled: Callable[[Spoil], Path], tmp_path: Path, fault: str
) -> None:
    spoil, message = FAULTS[fault]
    bundle = spoiled(spoil)
    run = ("run", bundle, "--support", tmp_path, "-o", tmp_path / "adapted")
    lines = {
        error_line(edge_adapt_here(*words, code=4))
        for words in (
            ("inspect", bundle),
            ("plan", bundle),
            run,
            (*run, "--engine", "reference"),
        )
    }
    assert len(lines) == 1
    assert re.search(message, lines.pop())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
