"""Open a bundle and check all of it before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from ..losses import LOSSES, Loss
from ..program import Program, program_from_json
from ..shapes import check_forward, check_shapes
from .files import read_json, sha256_of
from .manifest import GRADIENT, Manifest, manifest_from_json
from .streams import FEATURES, LOGITS, OUTPUTS, PARTS, Streams
from .tensors import TensorFile

WEIGHT_ROLES = ("param", "step-size", "attention-param")


@dataclass(frozen=True)
class BundleFiles:
    """A bundle's checked content.

    Attributes:
        path: the directory.
        identity: sha256 of manifest.json.
        manifest: its content.
        program: the adaptation program.
        weights: every parameter, step size and attention parameter, by tensor name.
        streams: its programs, where it adapts by forward passes; None: by gradient steps.
    """

    path: Path
    identity: str
    manifest: Manifest
    program: Program
    weights: TensorFile
    streams: Streams | None = None

    @property
    def loss(self) -> Loss:
        """The loss that the manifest names."""
        return LOSSES[self.manifest.loss]

    def file(self, name: str) -> Path:
        """Return the path of one listed file; raises BundleError if the bundle was exported without it."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: the bundle has no {name}; export it again with that file")
        return self.path / name


def read_bundle(path: Path) -> BundleFiles:
    """Read and check a bundle directory: format, every file and its sha256, program, tensors.

    Raises:
        BundleError: one line naming the file, what was expected, what was found and what to do.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such directory; expected a bundle (a directory with manifest.json)")
    where = path / "manifest.json"
    manifest = manifest_from_json(read_json(where), str(where))
    for name, digest in manifest.files.items():
        _check_file(path / name, digest)
    program = program_from_json(read_json(path / "program.json"))
    weights = TensorFile.open(path / "weights.safetensors")
    if manifest.kind == GRADIENT:
        with _about(path / "program.json"):
            check_shapes(program)
        LOSSES[manifest.loss].check(program, str(where))
        streams = None
    else:
        streams = _streams(path, manifest, program)
        streams.check(str(where))
    for one in (program, *(streams.parts.values() if streams else ())):
        _check_weights(one, weights)
    _check_layers(manifest, program, str(where))
    _check_input(manifest, program, str(where))
    return BundleFiles(path, sha256_of(where), manifest, program, weights, streams)


def _streams(path: Path, manifest: Manifest, program: Program) -> Streams:
    """Read and check the programs of a bundle that adapts by forward passes."""
    if not LOSSES[manifest.loss].classifies:
        raise BundleError(
            f"{path / 'manifest.json'}: kind {manifest.kind} needs classes, but the loss is {manifest.loss}"
        )
    with _about(path / "program.json"):
        check_forward(program, (FEATURES, LOGITS))
    parts = {}
    for part in PARTS:
        if f"{part}.json" in manifest.files:
            parts[part] = program_from_json(read_json(path / f"{part}.json"))
            with _about(path / f"{part}.json"):
                check_forward(parts[part], (OUTPUTS[part],))
    return Streams(manifest.kind, program, parts)


@contextmanager
def _about(file: Path) -> Iterator[None]:
    """Name the file in errors about its program."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{file}: {str(error).removeprefix('program: ')}") from None


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: file is missing; copy the whole bundle again")
    if (found := sha256_of(path)) != digest:
        raise BundleError(
            f"{path}: sha256 is {found[:12]}..., the manifest says {digest[:12]}...:"
            " the file was altered or cut short; copy the bundle again"
        )


def _check_weights(program: Program, weights: TensorFile) -> None:
    for role in WEIGHT_ROLES:
        for tensor in program.with_role(role):
            weights.require(tensor.name, tensor.concrete(0), tensor.dtype)


def _check_layers(manifest: Manifest, program: Program, where: str) -> None:
    """Raise BundleError unless manifest and program speak of the same layers, steps and classes."""
    listed, known = [layer.name for layer in manifest.layers], [layer.name for layer in program.layers]
    if listed != known:
        raise BundleError(f"{where}: layers {listed}, but program.json has {known}; export the bundle again")
    logits = program.tensors.get(program.outputs.get("logits", ""))
    if logits is None or logits.shape[-1] != manifest.classes:
        found = "no logits" if logits is None else f"logits of shape {list(logits.shape)}"
        raise BundleError(f"{where}: {manifest.classes} classes, but program.json has {found}; export again")
    if manifest.steps != program.steps:
        raise BundleError(
            f"{where}: {manifest.steps} steps, but program.json has {program.steps}; export again"
        )


def _check_input(manifest: Manifest, program: Program, where: str) -> None:
    images = program.tensors[program.inputs["images"]]
    if images.concrete(1)[1:] != manifest.input.shape:
        raise BundleError(
            f"{where}: input of shape {list(manifest.input.shape)}, but program.json has"
            f" {list(images.shape)}; export again"
        )
