"""The writer of a bundle that adapts by forward passes (docs/bundle.md): whole, or not at all."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from ..edge.bundle import Manifest, ManifestLayer, Streams, write_tensors
from ..edge.bundle.files import new_directory, sha256_of, write_json
from ..edge.errors import BundleError
from ..edge.lower.work import step_macs
from ..edge.program import Layer, Program, check_program, program_to_json
from .amortized import AmortizedSource
from .amortized_selftest import amortized_selftest
from .bundle import MANIFEST, WEIGHTS, check_target, external, versions, write_model
from .errors import ExportError
from .forward_programs import Values, main_program, part_program
from .onnx_graph import eval_graph

LOSS = "softmax-cross-entropy"


def write_amortized(source: AmortizedSource, path: Path) -> Path:
    """Write the bundle of a source; a bundle that was there is replaced.

    Raises:
        ExportError: the model cannot be exported; nothing is written.
        UsageError: `path` exists and is not a bundle.
    """
    check_target(path)
    main, values = main_program(
        source.extractor.network, source.films, source.classes, source.measures_distance
    )
    parts: dict[str, Program] = {}
    for name, part in source.parts.items():
        parts[name], more = part_program(part.network, name)
        values = {**values, **more}
    _check(source, main, parts, values)
    test = amortized_selftest(source, main.layers[-1].params)
    used = _used(values, (main, *parts.values()))
    with new_directory(path, sum(value.nbytes for value in used.values())) as directory:
        write_tensors(directory / WEIGHTS, used)
        write_tensors(directory / "selftest.safetensors", test)
        for name, program in (("program", main), *parts.items()):
            write_json(directory / f"{name}.json", program_to_json(program))
        write_model(directory / "eval.onnx", eval_graph(main, external(directory / WEIGHTS)))
        files = {file.name: sha256_of(file) for file in sorted(directory.iterdir())}
        write_json(directory / MANIFEST, _manifest(source, main, files).to_json())
    return path


def _check(source: AmortizedSource, main: Program, parts: dict[str, Program], values: Values) -> None:
    for program in (main, *parts.values()):
        check_program(program)
    try:
        Streams(source.kind, main, parts).check("the learner")
    except BundleError as error:
        raise ExportError(str(error).removesuffix("; export it again")) from None
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ExportError(f"tensor {name!r} has values that are not finite; the training diverged")


def _used(values: Values, programs: tuple[Program, ...]) -> Values:
    names = {tensor.name for program in programs for tensor in program.with_role("param")}
    return {name: value for name, value in values.items() if name in names}


def _manifest(source: AmortizedSource, program: Program, files: dict[str, str]) -> Manifest:
    return Manifest(
        kind=source.kind,
        name=source.name,
        loss=LOSS,
        input=source.input,
        classes=source.classes,
        steps=1,
        samples=source.samples,
        layers=tuple(_row(program, layer) for layer in program.layers),
        files=files,
        provenance={**source.provenance, "export_versions": versions()},
    )


def _row(program: Program, layer: Layer) -> ManifestLayer:
    (op,) = (op for op in program.ops() if set(layer.params) & set(op.inputs))
    shapes = [[program.tensors[name].concrete(1) for name in names] for names in (op.inputs, op.outputs)]
    words = sum(prod(program.tensors[name].concrete(1)) for name in layer.params)
    return ManifestLayer(
        layer.name,
        layer.kind,
        words,
        prod(shapes[0][0]),
        step_macs(op.kind, shapes[0], shapes[1]),
        None,
        None,
    )
