"""From a bundle and what is asked of it to a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .bundle import BundleFiles
from .cost import WORD_BYTES
from .engines import Engine
from .engines.planned import PlannedEngine
from .inputs import LABEL_BYTES, NAME_BYTES, AnySupport, expected_decode_bytes, expected_seconds
from .lower import REFERENCE, Target
from .plan import Plan
from .plan.candidate import Budgets
from .plan.candidate import Request as Planning
from .plan.fitting import Fitting
from .plan.freezing import Worth
from .plan.frontier import frontier
from .plan.search import Search, planning_request
from .plan.space import Fixed, space_of
from .stream.beside import Reading
from .stream.passes import Passes
from .stream.search import StreamSearch


@dataclass(frozen=True)
class Request:
    """What to plan for: bounds in bytes (None: no bound), support samples and gradient steps."""

    memory_budget: int | None
    dynamic_budget: int | None
    samples: int
    steps: int


def target_of(engine: Engine) -> Target:
    """Return what plans for this engine are made for; engines that do not plan get the reference engine's."""
    return engine.target if isinstance(engine, PlannedEngine) else REFERENCE


def make_plan(
    files: BundleFiles, request: Request, target: Target, support: AnySupport | None = None
) -> Plan:
    """Plan within the request's budgets; with a support set, for the bytes its samples and decodes take.

    Without one, a bundle that streams its samples is planned for `expected_decode_bytes`.

    Raises:
        BudgetError: naming the smallest budget that would do.
    """
    search = _search(files, request, target, support)
    return search.plan(Budgets(request.memory_budget, request.dynamic_budget))


def make_frontier(files: BundleFiles, request: Request, target: Target) -> list[Plan]:
    """Return the plans of all budgets up to the request's, the roomiest first; see `plan.frontier`."""
    search = _search(files, request, target, None)
    return frontier(search, Budgets(request.memory_budget, request.dynamic_budget))


def smallest_peak(
    files: BundleFiles, request: Request, target: Target, support: AnySupport | None = None
) -> int:
    """Return the smallest budget that any plan for the request fits; with a support set as in `make_plan`."""
    return _search(files, request, target, support).smallest_peak()


def _search(files: BundleFiles, request: Request, target: Target, support: AnySupport | None) -> Fitting[Any]:
    if files.streams is not None:
        return StreamSearch(Passes(files.streams, target), _reading(files, request.samples, support))
    return Search(_planning(files, request, target, support), space_of(request.samples, Fixed()))


def _reading(files: BundleFiles, samples: int, support: AnySupport | None) -> Reading:
    """Return what reading a support set takes, where there is none yet: what is expected of it."""
    spec = files.manifest.input
    if support is None:
        kept = spec.sample_bytes + expected_decode_bytes(spec) + samples * (LABEL_BYTES + NAME_BYTES)
        return Reading(samples, files.manifest.classes, kept, samples * expected_seconds(spec))
    kept = support.sample_bytes + support.decode_bytes + support.held_bytes
    return Reading(samples, len(support.class_names), kept, support.read_seconds)


def _planning(files: BundleFiles, request: Request, target: Target, support: AnySupport | None) -> Planning:
    (alpha,) = files.program.with_role("step-size")
    return planning_request(
        files.program,
        files.weights.copy(alpha.name),
        request.samples,
        request.steps,
        sample_bytes=(files.manifest.input.sample_bytes if support is None else support.sample_bytes),
        decode_bytes=0 if support is None else support.decode_bytes,
        target=target,
        worth=_worth(files),
    )


def _worth(files: BundleFiles) -> list[Worth]:
    """Return what the manifest's layer table says of every layer of the program."""
    table = {layer.name: layer for layer in files.manifest.layers}
    rows = [table[layer.name] for layer in files.program.layers]
    return [Worth(row.benefit, WORD_BYTES * (row.weight_words + row.input_words)) for row in rows]
