"""Recomputation: cheap functions of what is kept anyway are computed again where the backward pass reads them.

Forward values: the gradient through a norm needs x_hat, and the input of the next convolution is a function of it
(scale and shift, activation, pooling, a residual sum), so keeping both is waste (recomputing cheap operations: Chen et
al. 2016, "Training deep nets with sublinear memory cost", section 3). Gradients: where a residual block splits, both
branches read the gradient of the sum, which pooling and activation make of a much smaller one; the second branch makes
it again instead of keeping it while the first one runs. Both compute the same numbers in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..program import Op, Tensor
from .cached_suffix import NORM_AXES
from .clones import BARRIERS, Clones
from .order import GIVEN_ROLES
from .outline import Outline

PIECEWISE = ("Relu", "Clip", "LeakyRelu", "HardSigmoid", "PRelu")
SMOOTH = ("Elu", "Sigmoid", "Tanh", "Silu", "HardSwish", "Gelu")
POINTWISE = ("Affine", "Scale", "Add", "Sub", "Mul", "Dequantise")
MOVING = ("MaxPool", "AveragePool", "Resize", "Reshape", "Transpose", "Expand", "Slice", "Pad", "Concat")
CHEAP = frozenset((*PIECEWISE, *SMOOTH, *POINTWISE, *MOVING))
CHEAP_GRADIENTS = frozenset(
    (
        "MaskGrad",
        "MeanGrad",
        "MaxPoolGrad",
        "AveragePoolGrad",
        "AffineInputGrad",
        "Scale",
        "Mul",
        "Reshape",
        "Expand",
    )
)
MOST_OPERATIONS = 12  # to write one value again
MIN_BYTES = 512  # of a sample of a value; smaller ones are kept


def with_recomputation(one: Outline) -> Outline:
    """Compute again what is cheap instead of keeping it."""
    return _with_values_again(_with_gradients_again(one))


def _with_values_again(one: Outline) -> Outline:
    forward, backward = one.parts()
    search = _Search(_cheap(forward), one)
    for name in one.saved():
        search.consider(name)
    if not search.recipes:
        return one
    clones = Clones(search.recipes, one.tensors)
    read = clones.before_readers(backward)
    return one.with_parts(_without_dead(forward, read, one), read, clones.tensors)


def _cheap(ops: Sequence[Op]) -> dict[str, Op]:
    """Return what can write values of cheap operations again, and that of norms from x_hat."""
    found: dict[str, Op] = {}
    for op in ops:
        recipe = _again(op)
        if recipe is not None:
            found.update((name, recipe) for name in recipe.outputs if name)
    return found


def _again(op: Op) -> Op | None:
    """Return the operation that writes the result of another one again, without masks; None where it is not cheap."""
    if op.kind in NORM_AXES:
        y, x_hat = op.outputs[:2]
        attrs = {"axis": NORM_AXES[op.kind]}
        return Op("Affine", (x_hat, *op.inputs[1:]), (y,), op.layer, attrs) if y and x_hat else None
    if op.kind == "SelectChannels":
        return op
    if op.kind not in CHEAP or not op.outputs[0]:
        return None
    return replace(op, outputs=(op.outputs[0], *("" for _ in op.outputs[1:])))


@dataclass
class _Search:
    """Decides which saved values to compute again.

    Attributes:
        cheap: what can write values again.
        one: the outline.
        kept: what can be read in the backward part without keeping more.
        recipes: what the values that are not kept are made with.
    """

    cheap: Mapping[str, Op]
    one: Outline
    kept: set[str] = field(init=False)
    recipes: dict[str, Op] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = self.one.tensors.values()
        given = {tensor.name for tensor in tensors if tensor.role in GIVEN_ROLES} - {self.one.images}
        self.kept = {*given, *self.one.cached, *self.one.saved()}

    def consider(self, name: str) -> None:
        """Choose a saved value if its sources take less than it."""
        recipe, own = self.cheap.get(name), self._bytes(name)
        if recipe is None or name in self.recipes or name in self.one.cached or own < MIN_BYTES:
            return
        made, sources = self._sources(recipe)
        extra = sources - self.kept
        if len(made) <= MOST_OPERATIONS and sum(self._bytes(source) for source in extra) < own:
            self.recipes |= made
            self.kept |= sources
            self.kept.difference_update(recipe.outputs)

    def _sources(self, recipe: Op) -> tuple[dict[str, Op], set[str]]:
        """Return all that has to be written again, and what that reads."""
        made = {name: recipe for name in recipe.outputs if name}
        sources, pending = set[str](), list(recipe.inputs)
        while pending and len(made) <= MOST_OPERATIONS:
            name = pending.pop()
            again = self.cheap.get(name)
            if not name or name in made:
                continue
            if name in self.kept or again is None:
                sources.add(name)
            else:
                made |= {output: again for output in again.outputs if output}
                pending += again.inputs
        return made, sources

    def _bytes(self, name: str) -> int:
        return self.one.tensors[name].size_bytes(1)


def _without_dead(forward: Sequence[Op], backward: Sequence[Op], one: Outline) -> list[Op]:
    """Drop the operations of the forward part that nobody reads any more, and outputs that nobody reads."""
    wanted = {name for op in backward for name in op.inputs} | {*one.outputs.values()}
    alive: list[Op] = []
    for op in reversed(forward):
        if wanted.isdisjoint(filter(None, op.outputs)):
            continue
        alive.append(replace(op, outputs=tuple(name if name in wanted else "" for name in op.outputs)))
        wanted.update(op.inputs)
    return alive[::-1]


def _with_gradients_again(one: Outline) -> Outline:
    forward, backward = one.parts()
    makers = {op.outputs[0]: op for op in backward if op.kind in CHEAP_GRADIENTS}
    recipes: dict[str, Op] = {}
    for name in _read_far_apart(backward, makers):
        kept, made = _cheapest(makers[name], makers, one.tensors)
        if 2 * kept <= one.tensors[name].size_bytes(1) >= MIN_BYTES:
            recipes |= made
    if not recipes:
        return one
    clones = Clones(recipes, one.tensors)
    return one.with_parts(forward, clones.before_readers(backward), clones.tensors)


def _read_far_apart(ops: Sequence[Op], names: Collection[str]) -> list[str]:
    """Return which values have readers on both sides of an operation that never runs slice by slice."""
    first: dict[str, int] = {}
    apart: dict[str, None] = {}
    barriers = 0
    for op in ops:
        for name in op.inputs:
            if name in names and first.setdefault(name, barriers) != barriers:
                apart[name] = None
        barriers += op.kind in BARRIERS
    return list(apart)


def _cheapest(
    recipe: Op, makers: Mapping[str, Op], tensors: Mapping[str, Tensor]
) -> tuple[int, dict[str, Op]]:
    """Return the fewest bytes of a sample that have to wait for a value to be made again, and what makes it."""
    total, made = 0, {recipe.outputs[0]: recipe}
    for name in filter(None, recipe.inputs):
        tensor, own = tensors[name], 0
        if tensor.batched and tensor.role not in GIVEN_ROLES:
            own = tensor.size_bytes(1)
        if name in makers:
            deeper, inner = _cheapest(makers[name], makers, tensors)
            if deeper < own:
                own, made = deeper, made | inner
        total += own
    return total, made
