"""Damaged bundles that adapt by forward passes, with checksums that are right: one line and exit code 4."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.bundle import TensorFile, write_tensors
from edge_adapt.edge.cli import main
from numpy.typing import NDArray

from .learners import KINDS, learner, write

Documents = dict[str, dict[str, Any]]
Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of every kind, in a folder of its name."""
    home = tmp_path_factory.mktemp("damage")
    for kind in KINDS:
        write(home / kind, kind, learner(kind))
    return home


def seal(bundle: Path) -> None:
    """Make the manifest's checksums right."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    others = (file for file in bundle.iterdir() if file.name != "manifest.json")
    manifest["files"] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in others}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def edit(bundle: Path, change: Callable[[Documents], None]) -> None:
    documents = {file.name: json.loads(file.read_text()) for file in bundle.glob("*.json")}
    change(documents)
    for name, document in documents.items():
        (bundle / name).write_text(json.dumps(document))
    seal(bundle)


def edit_tensors(bundle: Path, name: str, change: Callable[[Tensors], None]) -> None:
    file = TensorFile.open(bundle / name)
    values = {entry: file.copy(entry) for entry in file.entries}
    change(values)
    write_tensors(bundle / name, values)
    seal(bundle)


def set_head(documents: Documents, kind: str | None = None, **changes: Any) -> None:
    """Change the head, in program and manifest."""
    documents["program.json"]["layers"][-1] |= {**changes, **({"kind": kind} if kind else {})}
    documents["manifest.json"]["layers"][-1] |= {"kind": kind} if kind else {}


def last_op(documents: Documents) -> dict[str, Any]:
    op: dict[str, Any] = documents["program.json"]["sections"]["forward"][-1]
    return op


def other_parameters(documents: Documents) -> None:
    """Let the head's operation read parameters that no layer has."""
    tensors, op = documents["program.json"]["tensors"], last_op(documents)
    for place, name in ((1, "w2"), (2, "b2")):
        tensors[name] = deepcopy(tensors[op["inputs"][place]])
        op["inputs"][place] = name


def only_a_weight(documents: Documents) -> None:
    set_head(documents, params=["head.weight"])
    last_op(documents)["inputs"].pop()


def steps(documents: Documents) -> None:
    for name in ("program.json", "manifest.json"):
        documents[name]["steps"] = 4


def film_backwards(documents: Documents) -> None:
    documents["program.json"]["layers"][0]["params"].reverse()


def simple(documents: Documents) -> None:
    documents["manifest.json"]["kind"] = "simple-cnaps"
    set_head(documents, "mahalanobis")


PROGRAMS: dict[str, tuple[str, Callable[[Documents], None], str]] = {
    "parameters that nothing reads": ("prototypes", other_parameters, "is no Fc of two parameters"),
    "no parameters": ("prototypes", lambda all: set_head(all, params=[], grads=[]), "is no Fc of two"),
    "no bias": ("prototypes", only_a_weight, "is no Fc of two parameters"),
    "fc over Mahalanobis": ("simple-cnaps", lambda all: set_head(all, "fc"), "is no Fc of two parameters"),
    "mahalanobis over Fc": ("prototypes", simple, "is no Mahalanobis of two parameters"),
    "four steps": ("prototypes", steps, "4 steps, expected 1"),
    "shift before scale": ("cnaps", film_backwards, "film '0.film' is no scale and shift per channel"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_programs_that_do_not_fit_together_are_refused(
    case: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, change, message = PROGRAMS[case]
    bundle = shutil.copytree(home / kind, tmp_path / "bundle")
    if change is other_parameters:

        def add(values: Tensors) -> None:
            values |= {"w2": values["head.weight"], "b2": values["head.bias"]}

        edit_tensors(bundle, "weights.safetensors", add)
    edit(bundle, change)
    for words in (["inspect"], ["verify"], ["run", "--support", "s.npz", "-o", str(tmp_path / "out")]):
        assert main([words[0], str(bundle), *words[1:]]) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "out").exists()


def replaced(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Tensors], None]:
    return lambda values: values.update({name: change(values[name])})


def no_entries(values: Tensors) -> None:
    for name in [name for name in values if name.startswith("entries::")]:
        del values[name]


def no_samples(values: Tensors) -> None:
    values |= {name: values[name][:0] for name in ("images", "labels")}


LABELS = r"expected int64 [6] from 0 to at most 5, every class"
TESTS: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "labels of no class": (replaced("labels", lambda labels: labels * 0 - 1), LABELS),
    "labels beyond the head": (replaced("labels", lambda labels: labels + 100), LABELS),
    "labels with a gap": (replaced("labels", lambda labels: labels * 2), LABELS),
    "float labels": (replaced("labels", lambda labels: labels.astype(np.float32)), LABELS),
    "too few labels": (replaced("labels", lambda labels: labels[:2]), LABELS),
    "labels in columns": (replaced("labels", lambda labels: labels[:, None]), LABELS),
    "no samples": (no_samples, "do not fit the input"),
    "no entries": (no_entries, "tensor 'entries::head.weight' is missing"),
    "no entry": (replaced("entries::logits", lambda entries: entries[:0]), "'entries::logits': expected float32 [1]"),
    "no norm": (lambda values: values.pop("norm::head.weight") and None, "'norm::head.weight' is missing"),
    "an empty norm": (replaced("norm::logits", lambda norm: norm[:0]), "'norm::logits': expected float32 [1]"),
}  # fmt: skip


@pytest.mark.parametrize("case", TESTS)
def test_a_damaged_self_test_is_refused(
    case: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = TESTS[case]
    bundle = shutil.copytree(home / "prototypes", tmp_path / "bundle")
    edit_tensors(bundle, "selftest.safetensors", change)
    for words in (["verify"], ["verify", "--json"]):
        assert main([words[0], str(bundle), *words[1:]]) == 4
        printed = capsys.readouterr()
        assert not printed.out
        (line,) = printed.err.splitlines()
        assert message in line
