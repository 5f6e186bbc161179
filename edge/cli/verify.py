"""`edge-adapt verify`."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import EdgeAdaptError
from .common import (
    bundle_argument,
    engine_option,
    json_option,
    note,
    print_json,
    print_table,
    threads_option,
    use_threads,
)


@click.command()
@bundle_argument
@engine_option
@threads_option
@json_option
def verify(bundle: Path, engine: str | None, threads: int, as_json: bool) -> None:
    """Check that this machine computes BUNDLE's gradients, or its head, as PyTorch did.

    \b
    Example:
      edge-adapt verify bundle/
    """
    use_threads(threads)
    from ..bundle import read_bundle
    from ..engines import default_engine, engine_named
    from ..verify import verify as run_self_test

    engine = engine or default_engine()
    result = run_self_test(read_bundle(bundle), engine_named(engine, bundle, threads))
    checks = result["checks"]
    if as_json:
        print_json(result)
    else:
        rows = [(c["name"], c["expected"], c["got"], c["error"], c["tolerance"], c["passed"]) for c in checks]
        print_table(rows, ("number", "expected", "got", "relative error", "tolerance", "passed"))
    if not result["passed"]:
        worst = max((c for c in checks if not c["passed"]), key=lambda c: float(c["error"]))
        raise EdgeAdaptError(
            f"{bundle}: self-test failed: {worst['name']}: expected {worst['expected']:.6g},"
            f" got {worst['got']:.6g}; do not adapt with engine {engine!r} on this machine"
        )
    note(f"{len(checks)} numbers agree with PyTorch in float64 (engine {engine})")
