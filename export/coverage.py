"""What of a network the export covers: every operation, its rule, and what it stores for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from onnx import ModelProto, NodeProto
from torch import nn

from ..edge.program import Program, Tensor
from ..edge.units import format_bytes
from .autodiff import differentiate
from .capture import to_onnx
from .converters import batch_first_attention, fold_batch_norm
from .errors import ExportError
from .losses import DEFAULT, loss_named, with_learned
from .onnx_import import Found, Refused, import_forward, survey
from .reading.file import load_onnx
from .reading.graph import ForwardGraph

Saved = tuple[Tensor, ...]
_HEAD = ("module", "operator", "rule", "stored for the backward pass, per sample")


@dataclass(frozen=True)
class Row:
    """One operation of the network.

    Attributes:
        path: module path, or the node's name where an ONNX file has no paths.
        node: name of the ONNX node that computes the output.
        operator: its ONNX operator.
        nodes: how many ONNX nodes the rule explains (a GroupNorm is five); 1 where none does.
        rule: name of the operation it becomes; "" where no rule takes it.
        stored: what the backward pass needs of it (roles `saved`): what it writes, and what it is the first to read.
            None while any node is unsupported: then nobody can tell.
        refusal: "", or why it is not supported and what to do.
    """

    path: str
    node: str
    operator: str
    nodes: int = 1
    rule: str = ""
    stored: Saved | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Coverage:
    """The whole report.

    Attributes:
        rows: in order of execution; none if the network could not even be read.
        refusal: why it cannot be exported: the first unsupported node and what to use instead; None if it can.
        notes: what was rewritten before the export, one line each.
    """

    rows: tuple[Row, ...]
    refusal: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """Bytes per sample that are kept from the forward to the backward pass."""
        return sum(tensor.size_bytes(1) for row in self.rows for tensor in row.stored or ())

    @property
    def text(self) -> str:
        """The report as a table for people, with a summary below."""
        if not self.rows:
            return ""
        cells = [
            _HEAD,
            *((row.path, _operator(row), row.rule or "NOT SUPPORTED", _last(row)) for row in self.rows),
        ]
        widths = [max(len(line[column]) for line in cells) for column in range(3)]
        lines = ["  ".join((*map(str.ljust, line[:3], widths), line[3])).rstrip() for line in cells]
        return "\n".join([*lines, "", *self.notes, self._summary()])

    def _summary(self) -> str:
        bad = sum(not row.rule for row in self.rows)
        if bad:
            return f"{len(self.rows)} operations, {bad} of them not supported"
        return f"{len(self.rows)} operations, {format_bytes(self.stored_bytes)} stored per sample if all layers adapt"


def coverage_report(
    model: str | PathLike[str] | nn.Module,
    sample_shape: Sequence[int] | None = None,
    loss: str = DEFAULT,
) -> Coverage:
    """List every operation of a network; it goes on past what is not supported.

    Args:
        model: an .onnx file, a run directory of `meta-train run`, or a torch module.
        sample_shape: shape of one sample: of a torch module, or of a file that leaves it open.
        loss: name of the loss it will be adapted with.

    Returns:
        The report; a network that cannot be read, or traced, is a report without rows and with a refusal.
    """
    shape = None if sample_shape is None else tuple(sample_shape)
    try:
        forward, params, notes = _read(model, shape)
        graph = ForwardGraph(forward, params)
        found, refused = survey(graph)
    except ExportError as error:
        return Coverage((), str(error))
    rows = tuple(_rows(graph, found, refused))
    try:
        network = import_forward(forward, params)
        module = model if isinstance(model, nn.Module) else None
        chosen = loss_named(loss)
        whole = with_learned(chosen, network, module, ())
        program = differentiate(whole.program, {}, 1, chosen)
    except ExportError as error:
        return Coverage(rows, str(error), notes)
    stored = zip(rows, _stored(program), strict=True)
    return Coverage(tuple(replace(row, stored=kept) for row, kept in stored), None, notes + network.notes)


def _read(
    model: str | PathLike[str] | nn.Module, shape: tuple[int, ...] | None
) -> tuple[ModelProto, frozenset[str], tuple[str, ...]]:
    """The forward graph, the names of its parameters, and notes on what was rewritten."""
    if isinstance(model, nn.Module):
        if shape is None:
            raise ExportError("a torch module needs sample_shape, the shape of one sample")
        attending, first = batch_first_attention(model)
        prepared, second = fold_batch_norm(attending)
        params = frozenset(name for name, _ in prepared.named_parameters())
        return to_onnx(prepared, shape), params, (*first, *second)
    if Path(model).suffix == ".onnx" or Path(model).is_file():
        return *load_onnx(model, shape), ()
    return _read(*_of_run(model))


def _of_run(path: str | PathLike[str]) -> tuple[nn.Module, tuple[int, ...]]:
    from ..cloud import AmortizedRun, ConfigError, load_run

    try:
        run = load_run(path)
    except ConfigError as error:
        raise ExportError(str(error)) from error
    module = run.modules().extractor if isinstance(run, AmortizedRun) else run.module()
    return module, tuple(run.spec.shape)


def _rows(graph: ForwardGraph, found: list[Found], refused: list[Refused]) -> Iterator[Row]:
    supported = {
        node.output[0]: Row(*_place(graph, node), match.nodes, rule.kind) for node, rule, match in found
    }
    unsupported = {
        item.node.output[0]: Row(*_place(graph, item.node), refusal=_reason(graph, item)) for item in refused
    }
    rows = supported | unsupported
    return (rows[value] for value in sorted(rows, key=graph.position))


def _reason(graph: ForwardGraph, item: Refused) -> str:
    """The refusal without the node's description, which the row has in its other fields."""
    return (
        str(item.error)
        .removeprefix(graph.described(item.node))
        .lstrip(": ")
        .removeprefix("is not supported; ")
    )


def _place(graph: ForwardGraph, node: NodeProto) -> tuple[str, str, str]:
    return graph.scope(node) or node.output[0], node.name, node.op_type


def _stored(program: Program) -> Iterator[Saved]:
    """For each operation the saved tensors that it writes, and those that it is the first to read."""
    saved = {tensor.name: tensor for tensor in program.with_role("saved")}
    for op in program.sections["forward"]:
        names = dict.fromkeys((*op.inputs, *op.outputs))
        yield tuple(saved.pop(name) for name in names if name in saved)


def _operator(row: Row) -> str:
    return row.operator if row.nodes == 1 else f"{row.operator} ({row.nodes} nodes)"


def _last(row: Row) -> str:
    """What a row stores, or why it is not supported."""
    if row.refusal:
        return row.refusal
    if row.stored is None:
        return "?"
    return ", ".join(f"{t.name} {t.dtype} {format_bytes(t.size_bytes(1))}" for t in row.stored) or "-"
