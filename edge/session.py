"""The Python API: open a bundle, plan, adapt, predict, save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import (
    Adapted,
    BundleFiles,
    Checkpoint,
    Overlay,
    check_target,
    read_adapted,
    read_bundle,
    write_adapted,
)
from .engines import Samples, engine_named
from .errors import UsageError
from .inputs import from_arrays, query_from_arrays
from .plan import Plan
from .report import run_report
from .run import (
    OnProgress,
    Outcome,
    Request,
    adapt,
    check_plan,
    make_plan,
    probabilities,
    rehearse,
    stream_support,
)
from .units import parse_bytes

Size = str | int


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened and checked.

    Attributes:
        files: its checked content: manifest, program, weights, identity.
    """

    files: BundleFiles

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Bundle:
        """Open a bundle directory and check every file in it.

        Raises:
            BundleError: naming the file, what was expected, what was found and what to do.
        """
        return cls(read_bundle(Path(path)))

    def request(
        self,
        memory_budget: Size | None = None,
        dynamic_budget: Size | None = None,
        samples: int | None = None,
        steps: int | None = None,
    ) -> Request:
        """Return what to plan for, with the bundle's defaults filled in; raises UsageError."""
        manifest = self.files.manifest
        return Request(
            None if memory_budget is None else parse_bytes(memory_budget),
            None if dynamic_budget is None else parse_bytes(dynamic_budget),
            _count("samples", manifest.samples if samples is None else samples),
            _count("steps", manifest.steps if steps is None else steps),
        )

    def plan(
        self,
        memory_budget: Size | None = None,
        dynamic_budget: Size | None = None,
        samples: int | None = None,
        steps: int | None = None,
    ) -> Plan:
        """Plan an adaptation before anything is allocated.

        Args:
            memory_budget: bound on the planned peak, "8MB" or bytes.
            dynamic_budget: bound on the arena alone.
            samples: most support samples; default: those of meta-training.
            steps: gradient steps; default: those of meta-training.

        Raises:
            BudgetError: nothing fits; names the smallest budget that would.
            UsageError: a size or count that cannot mean anything.
        """
        return make_plan(self.files, self.request(memory_budget, dynamic_budget, samples, steps))

    def adapt(
        self,
        images: NDArray[Any],
        labels: Sequence[int] | Sequence[str] | NDArray[Any],
        plan: Plan | None = None,
        engine: str = "reference",
        progress: OnProgress | None = None,
    ) -> AdaptedModel:
        """Adapt to labelled samples.

        Args:
            images: uint8 (n, H, W, C) pixels, or float32 (n, C, H, W) values that are preprocessed already.
            labels: n integers or strings; the sorted unique values are the classes.
            plan: from `plan`; default: one for these samples, without a budget.
            engine: the engine's name.
            progress: called after every micro-batch with how far the adaptation is.

        Raises:
            SupportError: samples that do not fit the model or the plan.
            UsageError: the plan was made for another network.
            NonFiniteError: a loss or gradient is NaN or infinite; names step and layer.
        """
        manifest = self.files.manifest
        support = from_arrays(
            images, labels, manifest.input, manifest.classes, None if plan is None else plan.samples
        )
        chosen = plan or make_plan(self.files, self.request(samples=len(support)), support)
        check_plan(self.files, chosen)
        outcome = adapt(
            self.files, engine_named(engine, self.files.path), lambda: (chosen, support), progress=progress
        )
        return self._adapted(outcome, engine)

    def run(
        self,
        support: str | PathLike[str],
        output: str | PathLike[str],
        request: Request,
        engine: str = "reference",
        progress: OnProgress | None = None,
        notify: Callable[[str], None] = lambda message: None,
    ) -> AdaptedModel:
        """Adapt to a folder or .npz and write the adapted model; what `edge-adapt run` does.

        After every gradient step the changed tensors are kept in `output` + ".partial"; the same call
        continues from there and gives the numbers of an uninterrupted run.

        Args:
            support: one folder per class, or an .npz of `images`, `labels`.
            output: the adapted model's directory; an adapted model that is there is replaced.
            request: from `request`.
            engine: the engine's name.
            progress: called after every micro-batch.
            notify: called with one line where a person should know (images converted, a run continued).

        Raises:
            UsageError: `output` exists and is not an adapted model.
            BudgetError: nothing fits; names the smallest budget that would.
            SupportError: samples that do not fit the model or the plan, or cannot be read.
            NonFiniteError: a loss or gradient is NaN or infinite; names step and layer.
            AdaptationInterrupted: Ctrl-C; the last finished step is kept.
        """
        target = Path(output).absolute()
        check_target(target)
        chosen = engine_named(engine, self.files.path)
        plan = make_plan(self.files, request)
        rehearse(self.files, chosen, plan)
        checkpoint = Checkpoint(target.with_name(target.name + ".partial"))
        outcome = adapt(
            self.files,
            chosen,
            lambda: stream_support(self.files, request, plan, Path(support)),
            checkpoint,
            progress,
            notify,
        )
        for phrase in outcome.support.converted:
            notify(f"{support}: {phrase}")
        model = self._adapted(outcome, engine, request)
        model.save(target)
        checkpoint.clear()
        return model

    def _adapted(self, outcome: Outcome, engine: str, request: Request | None = None) -> AdaptedModel:
        report = run_report(self.files, outcome, engine, request)
        result = Adapted(outcome.adaptation.updated, outcome.support.class_names, report, self.files.identity)
        return AdaptedModel(self, result, engine)

    def load(self, path: str | PathLike[str], engine: str = "reference") -> AdaptedModel:
        """Read what `save` or `edge-adapt run` wrote; raises BundleError if it is not of this bundle."""
        return AdaptedModel(self, read_adapted(Path(path), self.files), engine)

    def predict(self, images: NDArray[Any], engine: str = "reference") -> NDArray[np.float64]:
        """Return the unadapted model's class probabilities, rehearse, (n, outputs of the head)."""
        samples = query_from_arrays(images, self.files.manifest.input)
        logits = engine_named(engine, self.files.path).predict(
            self.files.program, self.files.weights, samples
        )
        return probabilities(logits, self.files.manifest.classes)


@dataclass(frozen=True)
class AdaptedModel:
    """A bundle together with what adaptation changed.

    Attributes:
        bundle: what was adapted.
        adapted: changed tensors, class names and report.
        engine: name of the engine that predicts.
    """

    bundle: Bundle
    adapted: Adapted
    engine: str = "reference"

    @property
    def report(self) -> dict[str, Any]:
        """What `run --json` prints: planned and measured bytes, seconds, support accuracy, loss."""
        return dict(self.adapted.report)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the columns of `predict`."""
        return self.adapted.class_names

    def logits(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the head's outputs, float32 (n, outputs); those beyond the classes in use mean nothing."""
        return self._logits(query_from_arrays(images, self.bundle.files.manifest.input))

    def predict(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return class probabilities, rehearse, (n, classes), columns as in `class_names`.

        Args:
            images: uint8 (n, H, W, C) or float32 (n, C, H, W), as for `Bundle.adapt`.

        Raises:
            SupportError: images that do not fit the model.
        """
        return probabilities(self.logits(images), len(self.class_names))

    def predict_samples(self, samples: Samples) -> NDArray[np.float64]:
        """Return class probabilities of samples that were read, for example, by `read_query`."""
        return probabilities(self._logits(samples), len(self.class_names))

    def _logits(self, samples: Samples) -> NDArray[np.float32]:
        files = self.bundle.files
        weights = Overlay(files.weights, self.adapted.tensors)
        return engine_named(self.engine, files.path).predict(files.program, weights, samples)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the adapted model's directory, whole or not at all.

        Raises:
            UsageError: `path` exists and is not an adapted model.
        """
        write_adapted(Path(path), self.adapted)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}: expected a positive integer, got {value!r}")
    return value
