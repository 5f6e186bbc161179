"""`manifest.json`: what a reader must know before anything else (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ..errors import BundleError
from ..inputs import Spec, spec_from_json
from ..losses import LOSSES

FORMAT = 1
GRADIENT, PROTOTYPES, CNAPS, SIMPLE_CNAPS = KINDS = ("gradient", "prototypes", "cnaps", "simple-cnaps")
LAYER_KINDS = ("conv", "fc", "norm", "affine", "slope", "log-std", "film", "mahalanobis")
MOST_SAMPLES = 10_000_000
REQUIRED_FILES = ("program.json", "weights.safetensors")


@dataclass(frozen=True)
class ManifestLayer:
    """One row of the layer table.

    Attributes:
        name: as in the program.
        kind: one of `LAYER_KINDS`.
        weight_words: m(w), all parameters together.
        input_words: m(x) of one sample.
        macs: forward multiply-accumulates of one sample.
        cap: most channels kept by forward attention, per step; None without attention.
        benefit: mean over validation tasks of alpha * <g, gamma * g>, per step; None where it was not measured.
    """

    name: str
    kind: str
    weight_words: int
    input_words: int
    macs: int
    cap: tuple[int, ...] | None
    benefit: tuple[float, ...] | None


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest; the fields are those of docs/bundle.md.

    Attributes:
        kind: how the bundle adapts, one of `KINDS`: by gradient steps, or by forward passes.
        name: of the model, for people.
        loss: name of the loss, one of `LOSSES`.
        input: kind, shape and exact preprocessing of a sample.
        classes: outputs of the head (the last axis of what the model returns), whatever the loss.
        steps: K, the gradient steps the step sizes were learned for; 1 where there are none.
        samples: meta-training support size, the default of `plan --samples`.
        layers: the layer table, in forward order.
        files: sha256 of every other file, by path relative to the bundle.
        provenance: recipe, seed, versions, meta-test accuracy.
    """

    kind: str
    name: str
    loss: str
    input: Spec
    classes: int
    steps: int
    samples: int
    layers: tuple[ManifestLayer, ...]
    files: Mapping[str, str]
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of `manifest.json`; `manifest_from_json` reads it back to an equal one."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "name": self.name,
            "loss": self.loss,
            "input": self.input.to_json(),
            "classes": self.classes,
            "steps": self.steps,
            "samples": self.samples,
            "layers": [_layer_to_json(layer) for layer in self.layers],
            "files": dict(self.files),
            "provenance": dict(self.provenance),
        }


def manifest_from_json(data: Mapping[str, Any], where: str = "manifest.json") -> Manifest:
    """Read the JSON object of `manifest.json`; fields this version does not know are ignored.

    Raises:
        BundleError: naming the field, what was expected and what was found.
    """
    if data.get("format") != FORMAT:
        raise BundleError(
            f"{where}: bundle format {data.get('format')!r} is not known, expected {FORMAT};"
            " update edge-adapt or export the bundle again"
        )
    read = _Fields(data, where)
    return Manifest(
        kind=read.one_of("kind", KINDS),
        name=read.text("name"),
        loss=read.one_of("loss", tuple(LOSSES)),
        input=spec_from_json(read.table("input")),
        classes=read.count("classes", 1),
        steps=read.count("steps", 1),
        samples=read.count("samples", 1, MOST_SAMPLES),
        layers=_layers(read.listed("layers"), where, read.count("steps", 1)),
        files=_files(read.table("files"), where),
        provenance=read.table("provenance"),
    )


@dataclass(frozen=True)
class _Fields:
    """Typed access to a JSON object, with errors that name the field."""

    data: Mapping[str, Any]
    where: str

    def text(self, key: str) -> str:
        return str(self._get(key, lambda value: isinstance(value, str), "text"))

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        return str(self._get(key, lambda value: value in choices, f"one of {', '.join(choices)}"))

    def count(self, key: str, minimum: int = 0, maximum: int | None = None) -> int:
        expected = f"an integer of at least {minimum}" + (f" and at most {maximum}" if maximum else "")
        return int(self._get(key, lambda value: _is_count(value, minimum, maximum), expected))

    def table(self, key: str) -> dict[str, Any]:
        return dict(self._get(key, lambda value: isinstance(value, dict), "an object"))

    def listed(self, key: str) -> list[Any]:
        return list(self._get(key, lambda value: isinstance(value, list), "a list"))

    def per_step(self, key: str, steps: int, accepts: Callable[[Any], bool]) -> tuple[Any, ...] | None:
        def fits(value: Any) -> bool:
            return value is None or (
                isinstance(value, list) and len(value) == steps and all(map(accepts, value))
            )

        value = self._get(key, fits, f"null or {steps} numbers, one per step")
        return None if value is None else tuple(value)

    def _get(self, key: str, accepts: Callable[[Any], bool], expected: str) -> Any:
        if key not in self.data:
            raise BundleError(
                f"{self.where}: {key!r} is missing, expected {expected}; export the bundle again"
            )
        if not accepts(self.data[key]):
            raise BundleError(f"{self.where}: {key!r}: expected {expected}, got {self.data[key]!r}")
        return self.data[key]


def _is_count(value: Any, minimum: int, maximum: int | None = None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return value >= minimum and (maximum is None or value <= maximum)


def _is_benefit(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _layers(rows: list[Any], where: str, steps: int) -> tuple[ManifestLayer, ...]:
    layers = []
    for index, row in enumerate(rows):
        read = _Fields(row if isinstance(row, dict) else {}, f"{where}: layers[{index}]")
        layers.append(
            ManifestLayer(
                name=read.text("name"),
                kind=read.one_of("kind", LAYER_KINDS),
                weight_words=read.count("weight_words"),
                input_words=read.count("input_words"),
                macs=read.count("macs"),
                cap=read.per_step("cap", steps, lambda value: _is_count(value, 1)),
                benefit=read.per_step("benefit", steps, _is_benefit),
            )
        )
    return tuple(layers)


def _layer_to_json(layer: ManifestLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "weight_words": layer.weight_words,
        "input_words": layer.input_words,
        "macs": layer.macs,
        "cap": None if layer.cap is None else list(layer.cap),
        "benefit": None if layer.benefit is None else list(layer.benefit),
    }


def _files(table: dict[str, Any], where: str) -> dict[str, str]:
    for name, digest in table.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
            raise BundleError(f"{where}: files: {name!r} is not a path inside the bundle")
        if not isinstance(digest, str) or len(digest) != 64:
            raise BundleError(f"{where}: files: {name!r}: expected a sha256 of 64 digits, got {digest!r}")
    if missing := [name for name in REQUIRED_FILES if name not in table]:
        raise BundleError(f"{where}: files: {', '.join(missing)} not listed; export the bundle again")
    return table
