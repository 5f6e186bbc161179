"""Turn a meta-trained model into a bundle that a device adapts: `export_bundle`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ExportError

if TYPE_CHECKING:
    from .source import Source

__all__ = ["ExportError", "export_bundle"]


def export_bundle(
    run: str | PathLike[str] | Source, out: str | PathLike[str], *, ort_training: bool = False
) -> Path:
    """Write the bundle of a training run, or of your own torch module.

    Args:
        run: a finished run directory of `meta-train run`, or a `edge_adapt.export.source.Source`.
        out: the directory to write; an existing bundle is replaced, anything else is refused.
        ort_training: also write the artifacts of ONNX Runtime training (docs/forms.md).

    Returns:
        The bundle's directory.

    Raises:
        ExportError: `run` is no finished run, or the model cannot be exported (names the node and the
            remedy); nothing is written.
        UsageError: `out` exists and is not a bundle, or onnxruntime-training is wanted and not found.
    """
    from ..cloud import ConfigError, load_run
    from .bundle import check_target, write_bundle
    from .from_run import source_of_run

    target = Path(out)
    check_target(target)
    if isinstance(run, (str, PathLike)):
        try:
            run = source_of_run(load_run(run))
        except ConfigError as error:
            raise ExportError(str(error)) from error
    write_bundle(run, target, ort_training=ort_training)
    return target
