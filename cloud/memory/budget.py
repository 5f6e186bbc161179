"""How much of a task to differentiate at once so that training stays within a memory budget: tried, then chosen.

Probes are runs of one step, with validation and all that follows, in a process of their own: on the CPU their peak
is the resident set (VmHWM), data and libraries included, on CUDA what the allocator held at most.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...edge.units import format_bytes
from ..config import RunConfig
from ..errors import ConfigError
from ..lite import LiteConfig
from ..outer import METHODS
from ..outer.base import LITE
from ..settings.tables import merge
from ..settings.typed import to_table

PROBES = (1, 2, 4, 8)
LARGEST_CHUNK = 40
"""Samples of a forward pass without gradient; more are no faster."""
CHUNK_PER_PIECE = 4
"""Samples without gradient that take less memory than one with it."""
SHARE = 0.92
"""Of the budget that a probe may take; processes that do the same differ by 5 to 7 %."""
MARGIN = 1.02
"""What the budget that a refusal names has above the one that would just do."""
TRIES = 4
"""Probes on whole tasks after which what fits is good enough."""
OUT_OF_MEMORY = (0, -signal.SIGKILL, 128 + signal.SIGKILL)
"""How a probe ends where memory runs out: by itself, or by the kernel; a shell in between adds 128."""


Probe = Callable[[RunConfig, Sequence[LiteConfig], bool], list[float]]


@dataclass(frozen=True)
class Sizes:
    """What a run's tasks have, and what its settings allow.

    Attributes:
        support: samples of a meta-training task.
        queries: of a meta-training task.
        h: at most so many support samples with gradient; what [lite] says is not exceeded, here as below.
        query_batch: at most so many queries with gradient.
        chunk: at most so many support samples at a time without gradient.
    """

    support: int
    queries: int
    h: int
    query_batch: int
    chunk: int

    @classmethod
    def of(cls, config: RunConfig) -> Sizes:
        """Of a configuration."""
        task, lite = config.task, config.lite
        support = task.ways * (task.training_shots or task.shots)
        queries = task.ways * (task.training_queries or task.queries)
        return cls(
            support,
            queries,
            min(support, lite.h or support),
            min(queries, lite.query_batch or queries),
            min(support, lite.chunk or LARGEST_CHUNK),
        )

    @property
    def most(self) -> int:
        """The largest piece that makes a difference."""
        return max(self.h, self.query_batch)

    def lite(self, config: RunConfig, piece: int) -> LiteConfig:
        """Settings for `piece` support samples and as many queries with gradient; none where that is all."""
        h, query_batch = min(piece, self.h), min(piece, self.query_batch)
        return replace(
            config.lite,
            h=None if h == self.support else h,
            query_batch=None if query_batch == self.queries else query_batch,
            chunk=min(CHUNK_PER_PIECE * piece, self.chunk),
            stratified=config.lite.stratified and h < self.support,
            control_variate=config.lite.control_variate if h < self.support else None,
        )


CHOSEN = ("lite.h", "lite.query_batch", "lite.chunk", "lite.stratified", "lite.control_variate")
"""What a search decides; the last two are about H, and have no meaning where it is the whole support set."""


def as_chosen(asked: LiteConfig, found: LiteConfig) -> LiteConfig:
    """The settings with what an earlier search found for them."""
    sizes = {name: getattr(found, name) for name in ("h", "query_batch", "chunk")}
    if found.h is None:
        sizes |= {"stratified": found.stratified, "control_variate": found.control_variate}
    return replace(asked, **sizes)


@dataclass(frozen=True)
class Fit:
    """Settings that fit.

    Attributes:
        lite: what was chosen.
        peak_bytes: of the last probe, with these settings.
        budget_bytes: what was asked for.
    """

    lite: LiteConfig
    peak_bytes: int
    budget_bytes: int

    @property
    def text(self) -> str:
        """One line."""
        chosen = {name: getattr(self.lite, name) for name in ("h", "query_batch", "chunk")}
        shown = ", ".join(f"lite.{name} = {value or 'none (all)'}" for name, value in chosen.items())
        peak = format_bytes(self.peak_bytes)
        return f"memory budget {format_bytes(self.budget_bytes)}: {shown}; a first step took {peak}"


def fit_into(config: RunConfig, budget_bytes: int, probe: Probe | None = None) -> Fit:
    """Choose lite.h, lite.query_batch and lite.chunk, none above what the configuration says.

    Support samples and queries get equal pieces. The peak grows linearly with the piece, so a few small probes tell
    which one fits, and a probe with that one, on a whole task, whether it does.

    Args:
        config: the run's.
        budget_bytes: for the process, or for the GPU's allocator.
        probe: (configuration, settings in ascending order, whether on whole tasks) -> peaks in bytes, infinite
            where memory ran out; None: `probe_steps`.

    Raises:
        ConfigError: even one sample at a time takes more, or the run itself cannot start.
    """
    _check_lite(config)
    sizes, probe = Sizes.of(config), probe or probe_steps
    pieces = sorted({min(piece, sizes.most) for piece in PROBES})
    small = probe(config, [sizes.lite(config, piece) for piece in pieces], False)
    search = _Search(dict(zip(pieces, small, strict=True)), SHARE * budget_bytes, sizes.most)
    while piece := search.following():
        search.tried[piece] = probe(config, [sizes.lite(config, piece)], True)[0]
    if search.fits == 0:
        raise ConfigError(_refusal(search.tried.get(1, math.inf), budget_bytes))
    return Fit(sizes.lite(config, search.fits), int(search.tried[search.fits]), budget_bytes)


def _check_lite(config: RunConfig) -> None:
    """Raise ConfigError for a method that has no use for [lite]."""
    name = config.method.name
    if name in METHODS and LITE not in METHODS[name].uses:
        raise ConfigError(
            f"memory budget: {name} has nothing that could be chosen, its memory does not depend on lite.h; "
            "leave --memory-budget away"
        )


class _Search:
    """For the largest piece whose peak on whole tasks is allowed, in a few probes.

    Args:
        small: peaks on small tasks by piece, 1 and others; infinite where memory ran out, as on whole ones then.
        allowed: the highest peak.
        most: the largest piece.
    """

    def __init__(self, small: Mapping[int, float], allowed: float, most: int) -> None:
        self.tried: dict[int, float] = {}
        self._allowed = allowed
        self._small = sorted((piece, peak) for piece, peak in small.items() if math.isfinite(peak))
        self._too_large = [most + 1, *(piece for piece, peak in small.items() if not math.isfinite(peak))]

    @property
    def fits(self) -> int:
        """The largest piece that was tried and fits; 0: none."""
        return max((piece for piece, peak in self.tried.items() if peak <= self._allowed), default=0)

    def following(self) -> int:
        """The piece to try next; 0: enough is known. While none fits, it goes on down to 1."""
        above = [piece for piece, peak in self.tried.items() if peak > self._allowed]
        known, limit = self.fits, min(above + self._too_large)
        if limit - known <= 1:
            return 0
        if len(self.tried) >= TRIES:
            return 0 if known else limit // 2
        piece = int(max(1, min(self._guess(), limit - 1)))
        return piece if piece > known else 0

    def _guess(self) -> float:
        """Where the peak should be what is allowed: on the line through the small probes, then through the others."""
        nearest = sorted(
            (abs(peak - self._allowed), piece, peak)
            for piece, peak in self.tried.items()
            if math.isfinite(peak)
        )
        slope, base = _line([(piece, peak) for _, piece, peak in nearest[:2]] if nearest[1:] else self._small)
        if nearest:
            _, piece, peak = nearest[0]
            base = peak - slope * piece
        return (self._allowed - base) / slope if slope > 0 else math.inf


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Least squares through (piece, peak), in proportion to the piece; a single point is flat."""
    weight = sum(piece for piece, _ in points)
    x = sum(piece * piece for piece, _ in points) / weight
    y = sum(piece * peak for piece, peak in points) / weight
    spread = sum(piece * (piece - x) ** 2 for piece, _ in points)
    slope = sum(piece * (piece - x) * (peak - y) for piece, peak in points) / spread if spread else 0.0
    return slope, y - slope * x


def _refusal(peak: float, budget_bytes: int) -> str:
    """Peak of the smallest piece."""
    what = f"memory budget {format_bytes(budget_bytes)}: even lite.h = 1 does not fit"
    if not math.isfinite(peak):
        return f"{what}, nor into this machine's memory; take a smaller backbone or smaller images"
    least = format_bytes(_rounded_up(MARGIN * peak / SHARE))
    return (
        f"{what}, a first step took {format_bytes(int(peak))}; the smallest budget that would do is {least}"
    )


def _rounded_up(count: float) -> int:
    """To three digits, as `format_bytes` writes them."""
    digit = 10.0 ** (math.floor(math.log10(count)) - 2)
    return int(math.ceil(count / digit) * digit)


def probe_steps(config: RunConfig, settings: Sequence[LiteConfig], whole: bool) -> list[float]:
    """Peaks in bytes of one step with each of these settings, ascending; infinite where memory ran out.

    Args:
        config: the run's.
        settings: in ascending order, as freed memory stays with the process.
        whole: on tasks of the run's own size; else on the smallest that the settings need.

    Raises:
        ConfigError: what the run itself is refused for.
    """
    jobs = [merge(to_table(replace(config, lite=lite)), shortened(config, lite, whole)) for lite in settings]
    given = json.dumps({"threads": torch.get_num_threads(), "jobs": jobs})
    child = subprocess.run(
        [sys.executable, "-m", f"{__package__}.probe"],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in child.stdout.split("\n")[:-1] if line.startswith("{")]
    refused = [line["error"] for line in lines if "error" in line]
    if refused:
        raise ConfigError(refused[0])
    peaks: list[float] = [line["peak_bytes"] for line in lines]
    if child.returncode not in OUT_OF_MEMORY:
        raise ConfigError(f"memory budget: a first step fails: {_end_of(child)}")
    return peaks + [math.inf] * (len(settings) - len(peaks))


def _end_of(child: subprocess.CompletedProcess[str]) -> str:
    """Why a process ended early, in one line."""
    if child.returncode < 0:
        return f"its process was ended by {signal.Signals(-child.returncode).name}"
    return (child.stderr.strip() or f"exit code {child.returncode}").splitlines()[-1]


def shortened(config: RunConfig, lite: LiteConfig, whole: bool) -> dict[str, Any]:
    """A run of one step, on enough tasks for a second chunk and enough samples for every kind of piece."""
    task, steps = config.task, config.train
    shots, queries = task.training_shots or task.shots, task.training_queries or task.queries
    enough = max(lite.h or task.ways * shots, lite.chunk or 0)
    asked = 2 * (lite.query_batch or task.ways * queries)
    train = {
        "outer_steps": 1,
        "validate_every": 1,
        "tasks_per_step": min(steps.tasks_per_step, 2 * config.method.tasks_per_chunk),
    }
    sizes = {"training_queries": min(queries, math.ceil(asked / task.ways)), "training_shots": shots}
    if not whole:
        sizes["training_shots"] = min(shots, math.ceil(enough / task.ways))
        sizes |= {"shots": min(task.shots, sizes["training_shots"]), "queries": min(task.queries, 2)}
    changes: dict[str, Any] = {"train": train, "task": sizes}
    if config.method.first_order_until > 0:  # the first steps would take less than those that follow
        changes["method"] = {"first_order_until": 0.0}
    return changes
