"""What the layout promises: import direction, no cycles, dependency boundary, sizes, public surface."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_adapt.cloud.settings.tables import read_toml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cloud", "edge", "export")
EDGE_THIRD_PARTY = {"numpy", "click", "PIL", "tqdm", "tomli"}
EDGE_OPTIONAL = {"matplotlib", "onnxruntime"}  # imported inside functions, never at import time
CLOUD_MAY_USE = {"inputs", "cost", "errors", "starting", "units"}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_the_file_list_is_not_empty() -> None:
    assert len(FILES) > 30


def test_every_package_is_installed() -> None:
    """An editable install sees folders that a wheel without them lacks."""
    listed = read_toml((ROOT / "pyproject.toml").read_text(), "pyproject.toml")["tool"]["setuptools"][
        "packages"
    ]
    assert sorted(listed) == sorted(module_of(path) for path in FILES if path.name == "__init__.py")


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["edge_adapt", *parts])


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Yield the absolute dotted name of everything a file imports (typing-only imports excepted)."""
    tree = ast.parse(path.read_text())
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    nodes = _top_level(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If | ast.Try):
            yield from (child for child in ast.walk(node) if isinstance(child, ast.stmt))
        yield node


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        head = name.split(".")[0]
        assert head not in PACKAGES, (
            f"{path}: bare import of {name}; write edge_adapt.{name} or a relative import"
        )
        if not name.startswith("edge_adapt."):
            continue
        other = name.split(".")[1]
        if own == "edge":
            assert other == "edge", f"{path} imports {name}: edge is the ground floor"
        if own == "cloud" and other != "cloud":
            below = name.split(".")[2:3]
            assert other == "edge", f"{path} imports {name}"
            assert not below or below[0] in CLOUD_MAY_USE, f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "edge")], ids=lambda p: p.name)
def test_the_device_part_needs_only_its_four_packages(path: Path) -> None:
    for name in imports(path, top_level_only=True):
        head = name.split(".")[0]
        known = head in sys.stdlib_module_names or head == "edge_adapt" or head in EDGE_THIRD_PARTY
        assert known, f"{path} imports {name} at import time"
    for name in imports(path):
        head = name.split(".")[0]
        assert head in sys.stdlib_module_names | EDGE_THIRD_PARTY | EDGE_OPTIONAL | {"edge_adapt"}, (
            f"{path}: {name}"
        )


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    known = {module_of(path) for path in FILES}
    graph = {module_of(path): {n for n in imports(path, top_level_only=True) if n in known} for path in FILES}
    for name, targets in graph.items():
        targets.discard(name)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for target in sorted(graph[name]):
                if not name.startswith(target + "."):  # a module may name its own package
                    visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 400, f"{path} has outgrown its name: split it"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{path}: {node.name} has {length} lines"


PUBLIC = {
    "edge_adapt.cloud": {"AmortizedRun", "ConfigError", "TrainedRun", "evaluate", "load_run", "train"},
    "edge_adapt.export": {"ArraySpec", "ExportError", "InputSpec", "export_bundle", "export_prototypes"},
    "edge_adapt.edge": {
        "AdaptedModel", "BudgetError", "Bundle", "BundleError", "EdgeAdaptError", "Plan", "SupportError", "UsageError",
    },
}  # fmt: skip


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_the_public_surface_is_the_listed_one(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == PUBLIC[package]
    assert all(getattr(module, name).__doc__ for name in module.__all__)
