"""The Python API: open a bundle, plan, adapt, predict, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from .bundle.manifest import MOST_SAMPLES
from .engines import Engine, Samples, default_engine, engine_named
from .errors import UsageError
from .inputs import SupportSet, query_from_arrays, support_from_arrays
from .plan import Plan
from .planning import Request, make_frontier, make_plan, target_of
from .report import run_report
from .run import (
    OnProgress,
    Outcome,
    adapt,
    check_budgets,
    check_plan,
    outline,
    rehearse,
    stream_support,
)
from .score import answer
from .units import parse_bytes
from .writing import check_writable

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
        if self.files.streams is not None and steps not in (None, 1):
            raise UsageError(
                f"steps: a bundle of kind {manifest.kind} adapts by forward passes, it has no gradient steps"
            )
        return Request(
            None if memory_budget is None else parse_bytes(memory_budget),
            None if dynamic_budget is None else parse_bytes(dynamic_budget),
            _count("samples", manifest.samples if samples is None else samples, MOST_SAMPLES),
            _count("steps", manifest.steps if steps is None else steps),
        )

    def plan(
        self,
        memory_budget: Size | None = None,
        dynamic_budget: Size | None = None,
        samples: int | None = None,
        steps: int | None = None,
        engine: str | None = None,
        threads: int = 1,
        support: str | PathLike[str] | None = None,
    ) -> Plan:
        """Plan an adaptation before anything is allocated.

        Args:
            memory_budget: bound on the planned peak, "8MB" or bytes.
            dynamic_budget: bound on the arena alone.
            samples: most support samples; default: those of meta-training.
            steps: gradient steps; default: those of meta-training.
            engine: the engine that will run it; default: native where it was compiled, else reference.
            threads: how many that engine uses.
            support: a folder or .npz to plan for exactly, as `run` would. Without it, a bundle that adapts by forward
                passes is planned for images of the network's own size or an .npz, whichever takes more to read.

        Raises:
            BudgetError: nothing fits; names the smallest budget that would.
            UsageError: a size or count that cannot mean anything.
            SupportError: samples that `run` would refuse.
        """
        request = self.request(memory_budget, dynamic_budget, samples, steps)
        aim = target_of(self._engine(engine, threads))
        if support is None:
            return make_plan(self.files, request, aim)
        return stream_support(self.files, request, outline(self.files, request, aim), aim, Path(support))[0]

    def frontier(
        self,
        memory_budget: Size | None = None,
        dynamic_budget: Size | None = None,
        samples: int | None = None,
        steps: int | None = None,
        engine: str | None = None,
        threads: int = 1,
    ) -> list[Plan]:
        """Return one plan for every budget up to these that gives another one, the roomiest first; see `plan`."""
        request = self.request(memory_budget, dynamic_budget, samples, steps)
        return make_frontier(self.files, request, target_of(self._engine(engine, threads)))

    def adapt(
        self,
        images: NDArray[Any],
        labels: Sequence[int] | Sequence[str] | NDArray[Any] | None = None,
        plan: Plan | None = None,
        engine: str | None = None,
        progress: OnProgress | None = None,
        *,
        threads: int | None = None,
        targets: NDArray[Any] | None = None,
        actions: NDArray[Any] | None = None,
        advantages: NDArray[Any] | None = None,
    ) -> AdaptedModel:
        """Adapt to samples and what the bundle's loss needs to know of each: exactly its arrays are given.

        Args:
            images: uint8 (n, H, W, C) pixels, or float32 (n, C, H, W) values that are preprocessed already. Of
                a model whose input is no image: float32 (n, *shape), not preprocessed.
            labels: n integers or strings; the sorted unique values are the classes (cross-entropy).
            plan: from `plan`; default: one for these samples, without a budget.
            engine: the engine's name; default: that of the plan, or native where it was compiled, else reference.
            progress: called after every micro-batch with how far the adaptation is.
            threads: how many the engine uses; default: those of the plan, or 1.
            targets: float32 of the outputs' shape (mean squared error).
            actions: what was done (policy gradients): integers of the outputs' shape without its last axis, or
                float32 of the outputs' shape (Gaussian).
            advantages: float32, how much better each action was than expected (policy gradients).

        Raises:
            SupportError: samples that do not fit the model or the plan.
            UsageError: the plan was made for another network; other arrays than the loss needs.
            NonFiniteError: a loss or gradient is NaN or infinite; names step and layer.
        """
        named = {"labels": labels, "targets": targets, "actions": actions, "advantages": advantages}
        given = {name: np.asarray(value) for name, value in named.items() if value is not None}
        most = plan.samples if plan is not None and self.files.streams is None else None
        support = self._support(images, given, most)
        if plan is not None:
            engine, threads = engine or plan.engine, threads or plan.threads
        runner = self._engine(engine, threads or 1)
        chosen = plan or make_plan(self.files, self.request(samples=len(support)), target_of(runner), support)
        check_plan(self.files, chosen, runner)
        outcome = adapt(self.files, runner, lambda: (chosen, support), progress=progress)
        return self._adapted(outcome, runner, threads or 1)

    def _engine(self, name: str | None, threads: int) -> Engine:
        return engine_named(name or default_engine(), self.files.path, threads)

    def _support(
        self, images: NDArray[Any], given: Mapping[str, NDArray[Any]], samples: int | None
    ) -> SupportSet:
        answers, spec = self.files.loss.answers(self.files.program), self.files.manifest.input
        if set(given) != set(answers.parts):
            wanted, found = (" and ".join(("images", *names)) for names in (answers.parts, given))
            raise UsageError(f"adapt: a model with loss {self.files.loss.name} takes {wanted}, got {found}")
        return support_from_arrays("arrays", images, given, spec, answers, samples)

    def run(
        self,
        support: str | PathLike[str],
        output: str | PathLike[str],
        request: Request,
        engine: str | None = None,
        progress: OnProgress | None = None,
        notify: Callable[[str], None] = lambda message: None,
        threads: int = 1,
    ) -> AdaptedModel:
        """Adapt to a folder or .npz and write the adapted model; what `edge-adapt run` does.

        After every gradient step the changed tensors are kept in `output` + ".partial"; the same call
        continues from there and gives the numbers of an uninterrupted run. Forward passes keep nothing.

        Args:
            support: one folder per class, or an .npz of `images` and what the loss needs: `labels`, or
                `targets`, or `actions` and `advantages`.
            output: the adapted model's directory; an adapted model that is there is replaced.
            request: from `request`.
            engine: the engine's name; default: native where it was compiled, else reference.
            progress: called after every micro-batch.
            notify: called with one line where a person should know (images converted, a run continued).
            threads: how many the engine uses.

        Raises:
            UsageError: `output` exists and is not an adapted model, or a budget for an engine that does not plan.
            EdgeAdaptError: `output` cannot be written.
            BudgetError: nothing fits; names the smallest budget that would.
            SupportError: samples that do not fit the model or the plan, or cannot be read.
            NonFiniteError: a loss or gradient is NaN or infinite; names step and layer.
            AdaptationInterrupted: Ctrl-C; the last finished step is kept.
        """
        target = Path(output).absolute()
        check_target(target)
        check_writable(target)
        chosen = self._engine(engine, threads)
        check_budgets(request, chosen)
        aim = target_of(chosen)
        plan = outline(self.files, request, aim)
        rehearse(self.files, chosen, plan)
        checkpoint = Checkpoint(target.with_name(target.name + ".partial"))
        outcome = adapt(
            self.files,
            chosen,
            lambda: stream_support(self.files, request, plan, aim, Path(support)),
            checkpoint,
            progress,
            notify,
        )
        for phrase in outcome.support.converted:
            notify(f"{support}: {phrase}")
        model = self._adapted(outcome, chosen, threads, request)
        model.save(target)
        checkpoint.clear()
        return model

    def _adapted(
        self, outcome: Outcome, engine: Engine, threads: int, request: Request | None = None
    ) -> AdaptedModel:
        report = run_report(self.files, outcome, engine.name, request)
        result = Adapted(outcome.adaptation.updated, outcome.support.class_names, report, self.files.identity)
        return AdaptedModel(self, result, engine.name, threads)

    def load(self, path: str | PathLike[str], engine: str | None = None, threads: int = 1) -> AdaptedModel:
        """Read what `save` or `edge-adapt run` wrote; raises BundleError if it is not of this bundle."""
        name = engine or default_engine()
        return AdaptedModel(self, read_adapted(Path(path), self.files), name, threads)

    def predict(
        self, images: NDArray[Any], engine: str | None = None, threads: int = 1
    ) -> NDArray[np.float64]:
        """Return the unadapted model's class probabilities (n, outputs of the head), or its outputs (n, ...).

        Raises:
            UsageError: the bundle adapts by forward passes: it has no head before.
        """
        if self.files.streams is not None:
            raise UsageError(
                f"{self.files.path}: a bundle of kind {self.files.manifest.kind} has no head before it is adapted;"
                " predict with what `adapt` or `load` returns"
            )
        samples = query_from_arrays(images, self.files.manifest.input)
        logits = self._engine(engine, threads).predict(self.files.program, self.files.weights, samples)
        return answer(self.files, logits, self.files.manifest.classes)


@dataclass(frozen=True)
class AdaptedModel:
    """A bundle together with what adaptation changed.

    Attributes:
        bundle: what was adapted.
        adapted: changed tensors, class names and report.
        engine: name of the engine that predicts.
        threads: how many it uses.
    """

    bundle: Bundle
    adapted: Adapted
    engine: str
    threads: int = 1

    @property
    def report(self) -> dict[str, Any]:
        """What `run --json` prints: planned and measured bytes, seconds, support accuracy, loss."""
        return dict(self.adapted.report)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the columns of `predict`; none where the loss knows no classes."""
        return self.adapted.class_names

    def logits(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the head's outputs, float32 (n, ...); those beyond the classes in use mean nothing."""
        return self._logits(query_from_arrays(images, self.bundle.files.manifest.input))

    def predict(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes), columns as in `class_names`; of other losses the outputs.

        Args:
            images: as for `Bundle.adapt`.

        Raises:
            SupportError: images that do not fit the model.
        """
        return answer(self.bundle.files, self.logits(images), len(self.class_names))

    def predict_samples(self, samples: Samples) -> NDArray[np.float64]:
        """Return what `predict` does, for samples that were read, for example, by `read_query`."""
        return answer(self.bundle.files, self._logits(samples), len(self.class_names))

    def _logits(self, samples: Samples) -> NDArray[np.float32]:
        files = self.bundle.files
        weights = Overlay(files.weights, self.adapted.tensors)
        return engine_named(self.engine, files.path, self.threads).predict(files.program, weights, samples)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the adapted model's directory, whole or not at all.

        Raises:
            UsageError: `path` exists and is not an adapted model.
        """
        write_adapted(Path(path), self.adapted)


def _count(name: str, value: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}: expected a positive integer, got {value!r}")
    if most is not None and value > most:
        raise UsageError(f"{name}: expected at most {most}, got {value}")
    return value
