"""What a bundle holds that adapts by forward passes: its programs, and how they fit together (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BundleError
from ..program import Layer, Program
from .manifest import CNAPS, PROTOTYPES, SIMPLE_CNAPS

ENCODER, FILM, HEAD = PARTS = ("encoder", "film", "head")
"""Programs beside program.json, in files PART.json; the names of their tensors begin with PART::."""
FEATURES, LOGITS = "features", "logits"
OUTPUTS: Mapping[str, str] = {ENCODER: "embedding", FILM: "film", HEAD: "head"}
LINEAR, MAHALANOBIS, FILM_LAYER = "fc", "mahalanobis", "film"
HEAD_OPS: Mapping[str, str] = {LINEAR: "Fc", MAHALANOBIS: "Mahalanobis"}
HEAD_KINDS: Mapping[str, tuple[str, ...]] = {
    PROTOTYPES: (LINEAR,),
    CNAPS: (LINEAR,),
    SIMPLE_CNAPS: (LINEAR, MAHALANOBIS),
}


@dataclass(frozen=True)
class Streams:
    """The programs of such a bundle.

    Attributes:
        kind: of the manifest.
        main: program.json: samples to `features` and `logits`; its layers are what adaptation writes: the films,
            each (scale, shift), in the order of what `film` returns, then the head.
        parts: by name, as far as there are.
    """

    kind: str
    main: Program
    parts: Mapping[str, Program]

    @property
    def films(self) -> tuple[Layer, ...]:
        """The layers that scale and shift channels."""
        return self.main.layers[:-1]

    @property
    def head(self) -> Layer:
        """The last layer."""
        return self.main.layers[-1]

    @property
    def width(self) -> int:
        """Features of one sample."""
        return _vector(self.main, self.main.outputs[FEATURES])

    @property
    def classes(self) -> int:
        """Outputs of the head."""
        return _vector(self.main, self.main.outputs[LOGITS])

    @property
    def film_widths(self) -> tuple[int, ...]:
        """Channels of every film."""
        return tuple(int(self.main.tensors[layer.params[0]].shape[0]) for layer in self.films)

    def check(self, where: str) -> None:
        """Raise BundleError unless the programs fit together."""
        fault = _steps_fault(self) or _head_fault(self) or _film_fault(self) or _parts_fault(self)
        if fault:
            raise BundleError(f"{where}: a bundle of kind {self.kind}: {fault}; export it again")


def _vector(program: Program, name: str) -> int:
    """Return the width of a tensor (N, width); 0 if it is none."""
    shape = program.tensors[name].shape
    return int(shape[1]) if len(shape) == 2 and shape[0] == "N" else 0


def _head_fault(one: Streams) -> str:
    program, found = one.main, [layer.kind for layer in one.main.layers]
    kinds = HEAD_KINDS[one.kind]
    if not found or found[-1] not in kinds or any(kind != FILM_LAYER for kind in found[:-1]):
        return f"layers of kind {found}, expected films and a head of kind {' or '.join(kinds)}"
    readers = [op for op in program.ops() if set(op.inputs) & set(one.head.params)]
    expected = (
        HEAD_OPS[found[-1]],
        (program.outputs[FEATURES], *one.head.params),
        (program.outputs[LOGITS],),
    )
    fits = [(op.kind, op.inputs, op.outputs) for op in readers] == [expected]
    if not fits or not _two_params(program, one.head) or not one.width:
        return f"the head {one.head.name!r} is no {expected[0]} of two parameters that turns features into logits"
    return "" if one.classes >= 2 else f"{one.classes} class, expected at least 2"


def _two_params(program: Program, layer: Layer) -> bool:
    return [program.tensors[name].role for name in dict.fromkeys(layer.params)] == ["param", "param"]


def _steps_fault(one: Streams) -> str:
    return "" if one.main.steps == 1 else f"{one.main.steps} steps, expected 1"


def _film_fault(one: Streams) -> str:
    for layer in one.films:
        readers = [op for op in one.main.ops() if set(op.inputs) & set(layer.params)]
        found = [(op.kind, op.inputs[1:], op.attrs.get("axis")) for op in readers]
        if not _two_params(one.main, layer) or found != [("Affine", layer.params, 1)]:
            return f"film {layer.name!r} is no scale and shift per channel"
    return ""


def _parts_fault(one: Streams) -> str:
    """Say what is missing, or of another width than expected."""
    expected: set[str] = {ENCODER, FILM} if one.films else set()
    expected |= {HEAD} if one.kind == CNAPS else set()
    if set(one.parts) != expected or (one.films and one.kind == PROTOTYPES):
        return f"programs {sorted(one.parts)}, expected {sorted(expected)}"
    ends = {part: _ends(program, OUTPUTS[part]) for part, program in one.parts.items()}
    wanted = {HEAD: (one.width, one.width + 1)}
    if one.films:
        wanted[FILM] = (ends[ENCODER][1], 2 * sum(one.film_widths))
        shapes = [
            program.tensors[program.inputs["images"]].shape for program in (one.main, one.parts[ENCODER])
        ]
        if shapes[0] != shapes[1]:
            return f"encoder.json takes samples of shape {shapes[1]}, program.json {shapes[0]}"
    for part, widths in wanted.items():
        if part in ends and ends[part] != widths:
            found, expected_text = (f"{a} numbers into {b}" for a, b in (ends[part], widths))
            return f"{part}.json turns {found}, expected {expected_text}"
    return ""


def _ends(program: Program, output: str) -> tuple[int, int]:
    return _vector(program, program.inputs["images"]), _vector(program, program.outputs[output])
