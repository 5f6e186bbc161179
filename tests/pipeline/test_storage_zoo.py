"""Exported networks adapted with recomputation and 8-bit storage: ResNet12, MobileNetV2, a vision transformer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from edge_adapt.edge import Bundle
from edge_adapt.edge.lower import REFERENCE, Choice
from edge_adapt.edge.lower.choice import CACHED_SUFFIX
from edge_adapt.edge.plan import Plan
from edge_adapt.edge.plan.candidate import Family, Request
from edge_adapt.edge.plan.freezing import unfrozen
from edge_adapt.edge.plan.search import updated_layers
from edge_adapt.export import export_bundle
from numpy.typing import NDArray

from .zoo import SAMPLES, STEPS, ZOO, module_of, step_sizes, task_of

NETWORKS = ("resnet12", "mobilenet-v2", "vit")
LARGEST = 2e-2
Adapted = tuple[Plan, NDArray[np.float32]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Exports a network on first use."""
    home = tmp_path_factory.mktemp("storage")

    @cache
    def bundle(name: str) -> Bundle:
        module, task = module_of(name), task_of(ZOO[name].shape)
        sizes = step_sizes(name, module)
        return Bundle.open(
            export_bundle(module, home / name, example_input=task.x, step_size=sizes, steps=STEPS)
        )

    return bundle


def adapted(bundle: Bundle, name: str, choice: Choice) -> Adapted:
    """Adapt with one choice; return its plan and the logits of new samples."""
    files, task = bundle.files, task_of(ZOO[name].shape)
    updated = updated_layers(files.program, files.weights.copy("alpha"), STEPS)
    request = Request(files.program, updated, SAMPLES, None, 0, REFERENCE)
    plan = Family(request, unfrozen(updated), 0.0, None, choice, (choice.micro_batch,)).plan(
        choice.micro_batch
    )
    model = bundle.adapt(task.x, task.y, plan, "reference")
    assert model.report["measured_dynamic_bytes"] <= plan.dynamic_bytes
    return plan, model.logits(task.query)


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputation_keeps_less_and_changes_no_bit(name: str, opened: Callable[[str], Bundle]) -> None:
    for micro_batch, schedule in ((1, "accumulate"), (2, CACHED_SUFFIX)):
        (kept, truth), (again, found) = (
            adapted(opened(name), name, Choice(micro_batch, schedule, recompute=on)) for on in (False, True)
        )
        np.testing.assert_array_equal(found, truth)
        assert again.terms["saved"] < 0.85 * kept.terms["saved"]


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_in_bytes_leave_the_logits_where_they_are(name: str, opened: Callable[[str], Bundle]) -> None:
    _, truth = adapted(opened(name), name, Choice())
    for micro_batch, schedule in ((1, "accumulate"), (2, CACHED_SUFFIX)):
        choice = Choice(micro_batch, schedule, saved_bits=8, recompute=True, tiling="convs")
        _, found = adapted(opened(name), name, choice)
        assert 0 < np.abs(found - truth).max() / np.abs(truth).max() < LARGEST
