"""Adapt a bundle with edge_adapt, inside a memory budget, and save the result. Nothing but NumPy computes.

    python examples/adapt_on_device.py bundle/ support.npz adapted/ --memory-budget 8MB

support.npz: images uint8 (n, H, W, C), labels (n,). Prints the loss before every step and after the last one.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from edge_adapt.edge import Bundle


def main() -> None:
    """Plan, adapt, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("support")
    parser.add_argument("adapted")
    parser.add_argument("--memory-budget", help="for example 8MB; default: no bound")
    words = parser.parse_args()

    bundle, support = Bundle.open(words.bundle), np.load(words.support)
    plan = bundle.plan(memory_budget=words.memory_budget, samples=len(support["images"]))
    model = bundle.adapt(support["images"], support["labels"], plan)
    model.save(words.adapted)
    report = model.report
    losses = [*report["losses"], report["loss"]]
    print(json.dumps({"losses": losses, "accuracy": report["support_accuracy"]}))


if __name__ == "__main__":
    main()
