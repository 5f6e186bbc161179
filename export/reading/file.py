"""A forward ONNX file of any framework becomes what `import_forward` reads: opset 18, every shape known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from textwrap import shorten

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, version_converter
from onnx.defs import SchemaError, get_schema
from onnx.inliner import inline_local_functions

from ..errors import ExportError
from .layer_norm import fuse_layer_norms
from .parameters import parameters
from .shapes import with_shapes

OPSET = 18
_AGAIN = "export it again from its framework"
_NEWER = ("Gelu", "GroupNormalization")
_QUANTISED = ("Quant", "QLinear", "Integer")
_PLACE = {"location", "offset", "length", "checksum", "basepath"}
_FLOAT = TensorProto.FLOAT
_OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def load_onnx(
    path: str | PathLike[str], sample_shape: Sequence[int] | None = None
) -> tuple[ModelProto, frozenset[str]]:
    """Read and check a file.

    Args:
        path: a .onnx file; its external data lie beside it.
        sample_shape: shape of one sample, where the file leaves it open.

    Returns:
        The model (opset 18, or newer with nodes as in opset 18; one float32 input whose first axis is "N", one
        output, every shape known, constants folded), and the names of its initializers that are parameters.

    Raises:
        ExportError: the file is no ONNX file, is damaged, or holds what a bundle cannot: names file and node, and says
            what to do.
    """
    file = Path(path)
    model = _read(file)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError, UnicodeDecodeError) as error:
        raise ExportError(f"{file}: not a valid ONNX model ({first_line(error)}); {_AGAIN}") from error
    if model.functions:
        model = inline_local_functions(model)
    _check_nodes(file, model)
    _check_ends(file, model)
    model = _to_opset(file, model)
    params = parameters(model)
    model = with_shapes(file, model, params, None if sample_shape is None else tuple(sample_shape))
    fuse_layer_norms(model)
    return model, params


def input_shape(path: str | PathLike[str]) -> tuple[int, ...]:
    """Shape of one sample that a file takes; raises ExportError as `load_onnx` does."""
    model, _ = load_onnx(path)
    return tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])


def _read(file: Path) -> ModelProto:
    if not file.is_file():
        raise ExportError(
            f"{file}: {'is a directory' if file.is_dir() else 'no such file'}; name an .onnx file"
        )
    try:
        model = onnx.load(str(file), load_external_data=False)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ExportError(
            f"{file}: not an ONNX file, or cut short ({first_line(error)}); {_AGAIN}"
        ) from error
    if not model.graph.node:
        raise ExportError(f"{file}: not an ONNX file, or one without any node; {_AGAIN}")
    if not _is_text(model):
        raise ExportError(f"{file}: damaged (names that are no text); copy the file again")
    _check_external(file, model)
    try:
        onnx.load_external_data_for_model(model, str(file.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"{file}: its external data cannot be read ({first_line(error)}); {_AGAIN}"
        ) from error
    return model


def _is_text(message: Message) -> bool:
    """Whether all strings of a message, and of what it holds, are text: the parser lets bytes through."""
    for field, value in message.ListFields():
        values = value if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]
        if field.type == field.TYPE_STRING and not all(isinstance(item, str) for item in values):
            return False
        if field.type == field.TYPE_MESSAGE and not all(map(_is_text, values)):
            return False
        if field.name == "s" and value.decode(errors="ignore").encode() != value:
            return False
    return True


def _check_external(file: Path, model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        places = {entry.key: entry.value for entry in tensor.external_data}
        location = places.get("location")
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        numbers = [places.get("offset", "0"), places.get("length", "0")]
        if location is None or set(places) - _PLACE or not all(map(str.isdecimal, numbers)):
            raise ExportError(
                f"{file}: damaged (where the weights of {tensor.name!r} are); copy the file again"
            )
        data = file.parent / location
        if not data.is_file():
            raise ExportError(
                f"{file}: the weights of {tensor.name!r} are in {location!r}, which is missing; "
                "put that file next to the .onnx file"
            )
        end = sum(map(int, numbers))
        if data.stat().st_size < end:
            raise ExportError(
                f"{file}: {location!r} has {data.stat().st_size} bytes, but {tensor.name!r} ends at byte {end}; "
                "copy the file again"
            )


def _check_nodes(file: Path, model: ModelProto) -> None:
    """Refuse what no conversion helps: other domains, quantised operations, weights that are not float32."""
    readers = {name: node for node in model.graph.node for name in node.input}
    if model.graph.sparse_initializer:
        raise ExportError(f"{file}: it has sparse weights; {_AGAIN} with dense ones")
    for node in model.graph.node:
        if any(part in node.op_type for part in _QUANTISED):
            raise ExportError(
                f"{file}: {_described(node)} is quantised, which has no gradient; start from the float32 model"
            )
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(
                f"{file}: {_described(node)} is of domain {node.domain!r}; {_AGAIN} with standard ONNX operators "
                "only (without optimising the graph for one runtime)"
            )
    for tensor in _tensors(model):
        if tensor.data_type in _OTHER_FLOATS:
            kind = TensorProto.DataType.Name(tensor.data_type).lower()
            reader = readers.get(tensor.name)
            by = f" ({_described(reader)})" if reader else ""
            raise ExportError(f"{file}: {tensor.name!r}{by} is {kind}; {_AGAIN} in float32")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All initializers, and the constants under the names of their values."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                tensor = TensorProto()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                yield tensor


def _check_ends(file: Path, model: ModelProto) -> None:
    """Take initializers out of the inputs (old files list them there); one float32 input, one output must remain."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    for what, infos in (("inputs", inputs), ("outputs", graph.output)):
        if len(infos) != 1:
            names = ", ".join(info.name for info in infos) or "none"
            raise ExportError(
                f"{file}: expected one {what[:-1]}, got {len(infos)} {what} ({names}); keep one with "
                "onnx.utils.extract_model"
            )
    kind = inputs[0].type.tensor_type.elem_type
    if kind != _FLOAT:
        raise ExportError(
            f"{file}: input {inputs[0].name!r} is {TensorProto.DataType.Name(kind).lower()}; expected float32 "
            "(look-ups of integer inputs stay outside the network)"
        )


def _to_opset(file: Path, model: ModelProto) -> ModelProto:
    opset = next((entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    version = 1 if opset is None else opset.version
    if version == OPSET or opset is None:
        return model
    if version > OPSET:
        changed = _changed(model, version)
        if changed is not None:
            raise ExportError(
                f"{file}: opset {version}, where {_described(changed)} is not what it was in opset {OPSET}; "
                f"{_AGAIN} with opset_version={OPSET}"
            )
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"{file}: opset {version} cannot be converted to {OPSET} ({first_line(error)}); "
            f"{_AGAIN} with opset_version={OPSET}"
        ) from error


def _changed(model: ModelProto, version: int) -> NodeProto | None:
    """The first node of a form that no rule reads: opset 18 has no such operator, input or attribute."""
    return next((node for node in model.graph.node if not _is_old(node, version)), None)


def _is_old(node: NodeProto, version: int) -> bool:
    if node.op_type in _NEWER:
        return True
    try:
        new, old = get_schema(node.op_type, version), get_schema(node.op_type, OPSET)
    except SchemaError:
        return False
    added = {attribute.name for attribute in node.attribute} - set(old.attributes)
    return new.since_version <= OPSET or not (old.deprecated or added or len(node.input) > old.max_input)


def _described(node: NodeProto) -> str:
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


def first_line(error: BaseException) -> str:
    """An error's first line that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[0] if lines else type(error).__name__, 160)
