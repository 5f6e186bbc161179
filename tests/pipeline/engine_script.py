"""Adapt with an engine, at several micro-batches. Runs in any environment that has the engine.

    python engine_script.py BUNDLE support.npz query.npy ENGINE HOME 1,4,25

HOME/result.npz: for every micro-batch m `m|logits` of the query, `m|losses` and `m|P` for every changed tensor P;
whether PyTorch was loaded (`torch`), and whether a run that was interrupted in its second step went on to the
same bits (`resumed`).
"""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import AdaptationInterrupted
from edge_adapt.edge.plan import search_plan


def interrupted(bundle, support, engine, home):
    """Return the tensors of a run that was stopped and started again."""
    request = bundle.request(samples=len(np.load(support)["images"]))

    def stop(progress):
        if progress.step == 1:
            raise KeyboardInterrupt

    with suppress(AdaptationInterrupted):
        bundle.run(support, home / "parts", request, engine, stop)
    notes = []
    model = bundle.run(support, home / "parts", request, engine, notify=notes.append)
    assert any("continuing after step 1" in note for note in notes), notes
    return bundle.run(support, home / "whole", request, engine).adapted.tensors, model.adapted.tensors


def main(path, support, query, engine, home, sizes):
    """One adaptation for every micro-batch, and one in two parts."""
    bundle, given = Bundle.open(path), dict(np.load(support))
    alpha, result, samples = bundle.files.weights.copy("alpha"), {}, np.load(query)
    for size in map(int, sizes.split(",")):
        plan = search_plan(bundle.files.program, alpha, len(given["images"]), len(alpha), micro_batch=size)
        model = bundle.adapt(**given, plan=plan, engine=engine)
        result[f"{size}|logits"] = model.logits(samples)
        result[f"{size}|losses"] = np.array(model.report["losses"])
        result.update({f"{size}|{name}": value for name, value in model.adapted.tensors.items()})
    whole, parts = interrupted(bundle, support, engine, Path(home))
    result["resumed"] = whole.keys() == parts.keys() and all(
        np.array_equal(value, parts[name]) for name, value in whole.items()
    )
    np.savez(Path(home) / "result.npz", torch="torch" in sys.modules, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
