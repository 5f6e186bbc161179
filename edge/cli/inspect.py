"""`edge-adapt inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import bundle_argument, json_option, print_json, print_table, use_threads

if TYPE_CHECKING:
    from ..bundle import BundleFiles

NOTES_SHOWN = 3


@click.command()
@bundle_argument
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Check every file of BUNDLE and print its manifest.

    \b
    Example:
      edge-adapt inspect bundle/
    """
    use_threads()
    from ..bundle import read_bundle

    files = read_bundle(bundle)
    if as_json:
        print_json({**files.manifest.to_json(), "sha256": files.identity})
    else:
        _print_manifest(files)


def _print_manifest(files: BundleFiles) -> None:
    manifest, loss = files.manifest, files.loss
    spec, logits = manifest.input, files.program.tensors[files.program.outputs["logits"]]
    outputs = f"up to {manifest.classes} classes" if loss.classifies else _by(logits.concrete(1)[1:])
    print_table(
        [
            ("name", manifest.name),
            ("sha256", files.identity),
            ("kind", manifest.kind),
            ("loss", f"{loss.name}, from images and {' and '.join(loss.parts)}"),
            ("input", f"{spec.kind} {_by(spec.shape)}, mean {list(spec.mean)}, std {list(spec.std)}"),
            ("outputs", outputs),
            ("meta-trained for", f"{manifest.samples} samples, {manifest.steps} steps"),
            ("adapts by", "gradient steps" if files.streams is None else "forward passes"),
        ]
    )
    click.echo()
    print_table(
        [
            (layer.name, layer.kind, layer.weight_words, layer.input_words, layer.macs, _per_step(layer.cap))
            for layer in manifest.layers
        ],
        ("layer", "kind", "m(w)", "m(x)", "MACs", "cap per step"),
    )
    click.echo()
    print_table([(name, digest) for name, digest in manifest.files.items()], ("file", "sha256"))
    click.echo()
    facts = dict(manifest.provenance)
    notes = facts.pop("notes", [])
    print_table([(key, str(value)) for key, value in facts.items()], ("provenance", ""))
    for text in notes[:NOTES_SHOWN]:
        click.echo(f"note: {text}")
    if len(notes) > NOTES_SHOWN:
        click.echo(f"note: {len(notes) - NOTES_SHOWN} more like these in manifest.json, provenance.notes")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(extent) for extent in shape)


def _per_step(values: tuple[int, ...] | None) -> str:
    return "-" if values is None else " ".join(str(value) for value in values)
