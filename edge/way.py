"""How a bundle adapts: by gradient steps, or by forward passes. Everything else is the same for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Protocol

from .bundle import BundleFiles, Checkpoint
from .by_gradient import ByGradient
from .by_stream import ByStream
from .engines import Adaptation, Engine, Progress
from .inputs import AnySupport
from .lower import Target
from .plan import Plan
from .planning import Request


class Way(Protocol):
    """What `run` needs of a way to adapt.

    Attributes:
        overflow: what it means, and what to do, where the adapted model's loss is not finite.
    """

    overflow: ClassVar[str]

    def outline(self, files: BundleFiles, request: Request, target: Target) -> Plan:
        """Plan before there is a support set, for the rehearsal and for `read`."""

    def rehearse(self, files: BundleFiles, engine: Engine, plan: Plan) -> None:
        """Do it with one blank sample, in less memory than the plan's."""

    def read(
        self, files: BundleFiles, request: Request, plan: Plan, target: Target, path: Path
    ) -> tuple[Plan, AnySupport]:
        """Read a support set, or what is needed of it so far, and price the plan for it."""

    def key(self, files: BundleFiles, plan: Plan, support: AnySupport, engine: Engine) -> Mapping[str, str]:
        """Return what two runs must share for one to continue the other."""

    def adapt(
        self,
        files: BundleFiles,
        engine: Engine,
        plan: Plan,
        support: AnySupport,
        checkpoint: Checkpoint | None,
        progress: Callable[[Progress], None] | None,
        notify: Callable[[str], None],
    ) -> Adaptation:
        """Adapt, from a checkpoint on where there is one."""


def way_of(files: BundleFiles) -> Way:
    """Return how a bundle adapts."""
    return ByGradient() if files.streams is None else ByStream()
