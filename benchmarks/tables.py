"""Write the tables of README.md, docs/results.md and docs/ablations.md from benchmarks/results/ and benchmarks/masks/.

python benchmarks/tables.py           rewrites them
python benchmarks/tables.py --check   fails if they say something else than the results
"""

from __future__ import annotations

import json
from typing import Any

from accuracy_tables import methods_table, pareto_tables
from pages import ROOT, Tables, rewrite_or_check

RESULTS = ROOT / "benchmarks" / "results"
MASKS = ROOT / "benchmarks" / "masks"


def main() -> None:
    """Rewrite or check every page."""
    rewrite_or_check("Tables from benchmarks/results.", PAGES)


def omniglot_table() -> str:
    """Return the Omniglot rows as a Markdown table, with the machine they were measured on."""
    rows = json.loads((RESULTS / "omniglot.json").read_text())
    dense = {row["shots"]: row["planned_dynamic_bytes"] for row in rows if row["method"] == "maml++"}
    names = "method | shots | accuracy | zero step sizes | planned arena | measured | of MAML++ | trained"
    lines = [f"| {names} |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    lines += [_line(row, dense.get(row["shots"])) for row in rows]
    machines = sorted({_machine(row["machine"]) for row in rows})
    tasks = sorted({row["tasks"] for row in rows})
    note = (
        f"Omniglot, 5-way, {' or '.join(map(str, tasks))} tasks of the evaluation alphabets, 4Conv, "
        f"95 % intervals; arena: most frugal plan (one sample at a time, float32). Trained on {'; '.join(machines)}."
    )
    return "\n".join([*lines, "", note, "", "`python benchmarks/omniglot.py` makes the rows.", ""])


def _line(row: dict[str, Any], dense: int | None) -> str:
    share = "" if dense is None else f"{row['planned_dynamic_bytes'] / dense:.2f}"
    cells = [
        row["method"],
        row["shots"],
        f"{row['accuracy']:.1%} ± {row['ci95']:.1%}",
        f"{row['zero_step_sizes']:.0%}",
        _kilobytes(row["planned_dynamic_bytes"]),
        _kilobytes(row["measured_dynamic_bytes"]),
        share,
        f"{row['training_seconds'] / 60:.1f} min",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _kilobytes(count: int) -> str:
    return f"{count / 1000:.0f} kB"


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']:.0f} GiB"


def masks_tables() -> str:
    """Return, per network, how it was trained, its accuracy, and at which steps each layer learns."""
    return "\n".join(_masks_table(json.loads(file.read_text())) for file in sorted(MASKS.glob("*.json")))


def _masks_table(content: dict[str, Any]) -> str:
    model, sparse, dense = content["model"], content["provenance"], content["baseline"]
    runs = [("sparse", sparse)] + ([("dense", dense)] if dense else [])
    lines = [
        f"### {model['backbone']}, {model['height']} px, {model['classes']}-way, N = {model['samples']}",
        "",
    ]
    lines += ["| step sizes | method | accuracy | before adaptation | zero | outer steps | trained |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|", *(_run_line(name, run) for name, run in runs), ""]
    steps = " | ".join(f"step {index}" for index, _ in enumerate(content["alpha"], start=1))
    lines += [f"| layer | learns | {steps} |", "|---|---|" + "---:|" * len(content["alpha"])]
    columns = zip(*content["alpha"], strict=True)
    lines += [_layer_line(name, sizes) for name, sizes in zip(content["layers"], columns, strict=True)]
    return "\n".join([*lines, ""])


def _run_line(name: str, run: dict[str, Any]) -> str:
    test = run["test"]
    cells = [
        name,
        run["method"],
        f"{test['accuracy']:.1%} ± {test['ci95']:.1%} ({test['tasks']} tasks)",
        f"{test['accuracy_before']:.1%}",
        f"{run['zero_step_sizes']:.0%}",
        f"{run['outer_steps']} x {run['settings']['train']['tasks_per_step']} tasks",
        f"{run['minutes']:.0f} min",
    ]
    return "| " + " | ".join(cells) + " |"


def _layer_line(name: str, sizes: tuple[float, ...]) -> str:
    learned = sum(size > 0 for size in sizes)
    said = "at no step" if not learned else "at every step" if learned == len(sizes) else "at some steps"
    return f"| {name} | {said} | " + " | ".join(f"{size:.4f}" if size else "0" for size in sizes) + " |"


def norms_table() -> str:
    """Return table 5's rows: a line per norm and pool, a column per accumulation batch."""
    rows = json.loads((RESULTS / "ablations.json").read_text())
    batches = sorted({row["batch"] for row in rows})
    lines = ["| norm | pooling | " + " | ".join(map(_at_once, batches)) + " |"]
    lines += ["|---|---|" + "---:|" * len(batches)]
    for norm, pool in dict.fromkeys((row["norm"], row["pool"]) for row in rows):
        found = {row["batch"]: row for row in rows if (row["norm"], row["pool"]) == (norm, pool)}
        cells = [_accuracy(found[batch]) for batch in batches]
        lines.append(f"| {norm} | {pool} | " + " | ".join(cells) + " |")
    first = rows[0]
    note = (
        f"MAML, 4Conv, Omniglot 5-way 1-shot, {first['outer_steps']} outer steps of {first['tasks_per_step']} tasks, "
        f"seed {first['seed']}; {first['tasks']} test tasks, 95 % intervals. {_machine(first['machine'])}."
    )
    return "\n".join([*lines, "", note, ""])


def accumulation_table() -> str:
    """Return table 6's rows: a line per accumulation batch."""
    rows = json.loads((RESULTS / "accumulation.json").read_text())
    lines = ["| recipe | samples at once | accuracy |", "|---|---:|---:|"]
    lines += [f"| `{row['recipe']}` | {row['batch']} | {_accuracy(row)} |" for row in rows]
    return "\n".join([*lines, "", f"{rows[0]['tasks']} test tasks, 95 % intervals.", ""])


def _at_once(batch: int) -> str:
    return f"{batch} sample{'s' * (batch > 1)} at once"


def _accuracy(row: dict[str, Any]) -> str:
    return f"{row['accuracy']:.1%} ± {row['ci95']:.1%}"


PAGES: dict[str, Tables] = {
    "README.md": {"results": omniglot_table},
    "docs/results.md": {
        "results": omniglot_table,
        "methods": methods_table,
        "pareto": pareto_tables,
        "masks": masks_tables,
    },
    "docs/ablations.md": {"norms": norms_table, "accumulation": accumulation_table},
}

if __name__ == "__main__":
    main()
