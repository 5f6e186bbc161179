"""What is run to adapt by forward passes, in which order, and what is in memory meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..bundle.streams import ENCODER, FEATURES, FILM, HEAD, LOGITS, OUTPUTS, Streams
from ..lower import Lowered, Target, lower_forward
from ..lower.choice import STREAM, Choice
from ..lower.table import Cache, StepProgram
from ..program import Layer, Program
from .heads import finish_bytes

KEPT = "kept"


@dataclass(frozen=True)
class Pass:
    """One forward program.

    Attributes:
        name: "encoder", "film", "features" or "head".
        program: its program.
        output: what of it is wanted, as in `program.outputs`.
        streams: whether all samples go through it, a micro-batch at a time; others take one row at a time.
    """

    name: str
    program: Program
    output: str
    streams: bool


@dataclass(frozen=True)
class Passes:
    """All passes of a bundle, as an engine runs them.

    Attributes:
        streams: the bundle's programs.
        target: the engine.
    """

    streams: Streams
    target: Target

    @cached_property
    def every(self) -> tuple[Pass, ...]:
        """In the order in which they are run."""
        parts, main = self.streams.parts, Pass(FEATURES, self.streams.main, FEATURES, True)
        before = [Pass(n, parts[n], OUTPUTS[n], n == ENCODER) for n in (ENCODER, FILM) if n in parts]
        after = [Pass(HEAD, parts[HEAD], OUTPUTS[HEAD], False)] if HEAD in parts else []
        return (*before, main, *after)

    @cached_property
    def large(self) -> tuple[Pass, ...]:
        """Those that all samples go through."""
        return tuple(one for one in self.every if one.streams)

    @cached_property
    def kept_bytes(self) -> int:
        """What is kept from sample to sample at the arena's start: the mean embedding, or the class means."""
        wide = self.streams.classes * self.streams.width
        if ENCODER in self.streams.parts:
            encoder = self.streams.parts[ENCODER]
            wide = max(wide, int(encoder.tensors[encoder.outputs[OUTPUTS[ENCODER]]].shape[1]))
        return 8 * wide

    @cached_property
    def finish_bytes(self) -> int:
        """What computing the head takes behind that."""
        return finish_bytes(self.streams)

    @cached_property
    def predict(self) -> StepProgram:
        """The prediction that follows, one sample at a time."""
        return lower_forward(self.streams.main, LOGITS, 1, self.target).programs[0]

    @cached_property
    def small(self) -> dict[str, StepProgram]:
        """The step programs of the others, by name."""
        return {one.name: self._step_program(one, 1, "maps") for one in self.every if not one.streams}

    def lowered(self, samples: int, micro_batch: int, tiling: str) -> Lowered:
        """Make the step programs of `every`."""
        found = tuple(
            self._step_program(one, micro_batch, tiling) if one.streams else self.small[one.name]
            for one in self.every
        )
        return self._together(found, samples, Choice(micro_batch, STREAM, tiling=tiling))

    def large_ones(self, samples: int, tiling: str) -> Lowered:
        """Make the step programs of `large` for one sample at a time."""
        found = tuple(self._step_program(one, 1, tiling) for one in self.large)
        return self._together(found, samples, Choice(1, STREAM, tiling=tiling))

    def _step_program(self, one: Pass, micro_batch: int, tiling: str) -> StepProgram:
        return lower_forward(one.program, one.output, micro_batch, self.target, tiling).programs[0]

    def _together(self, programs: tuple[StepProgram, ...], samples: int, choice: Choice) -> Lowered:
        caches = (Cache(KEPT, self.kept_bytes),)
        return Lowered(programs, tuple(range(len(programs))), samples, choice, caches=caches)

    @property
    def weights_bytes(self) -> int:
        """The weights that are in memory at a time: those of one program, and what was written before.

        The mapped weights of a program are given back before the next one is read.
        """
        streams = self.streams
        films, head = (_layer_bytes(streams.main, layers) for layers in (streams.films, (streams.head,)))
        beside = {ENCODER: 0, FILM: films, FEATURES: 0, HEAD: films + head}
        return max(_param_bytes(one.program) + beside[one.name] for one in self.every)


def _param_bytes(program: Program) -> int:
    return sum(tensor.size_bytes(1) for tensor in program.with_role("param"))


def _layer_bytes(program: Program, layers: Iterable[Layer]) -> int:
    return sum(program.tensors[name].size_bytes(1) for layer in layers for name in layer.params)
