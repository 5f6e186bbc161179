"""Updates as soon as nothing needs the old value of a parameter, so that few gradients exist at a time.

The update of a parameter is its last reader: input gradients, recomputed values and other gradients that read it come
first, for all samples. A parameter gradient larger than what it would keep in memory by waiting waits for these, too:
then it and its update are neighbours, and can run tile by tile without an accumulator. The others (of norms) are
computed as soon as their inputs exist, because waiting would keep whole maps.

The other operations stay in order, but for recomputed values: they move to their first reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..program import Op
from ..reference import KERNELS
from .order import GIVEN_ROLES, PARAMETER_GRADIENTS, UPDATE
from .outline import Outline

VECTORS = frozenset(("BiasGrad", "ScaleGrad", "ScaleGradSparse"))


def with_early_updates(one: Outline, samples: int) -> Outline:
    """Move every update behind the last reader of its parameter.

    Args:
        one: with its updates still apart.
        samples: that the body takes, to weigh maps against gradients.
    """
    ordered = one.ordered
    forward = ordered.ops[: ordered.forward]
    ops = (*forward, *_Backward(one, samples).in_order())
    return replace(one, ordered=replace(ordered, ops=ops, updates=()), updates_inside=True)


@dataclass(eq=False)
class _Task:
    """An operation that waits for `missing` others; when it has run, those of `then` wait for one less."""

    op: Op
    missing: int = 0
    then: list[_Task] = field(default_factory=list)
    done: bool = False

    def wait_for(self, others: Iterable[_Task]) -> None:
        """Run only after other tasks."""
        for other in others:
            if other is not self:
                other.then.append(self)
                self.missing += 1


class _Backward:
    """The operations behind the loss.

    They are a main chain that stays in order, recomputed values that run when they are first read, and parameter
    gradients and updates that run as soon as nothing that they wait for is left.
    """

    def __init__(self, one: Outline, samples: int) -> None:
        self._one, self._samples = one, samples
        tasks = [_Task(op) for op in one.ordered.ops[one.ordered.forward :]]
        self._writer = {name: task for task in tasks for name in task.op.outputs if name}
        self._recomputed = _recomputed(one, tasks)
        self._gradients = [task for task in tasks if task.op.kind in PARAMETER_GRADIENTS]
        apart = {*self._recomputed.values(), *self._gradients}
        self._main = [task for task in tasks if task not in apart]
        self._place = {task: index for index, task in enumerate(self._main)}
        self._readers: dict[str, list[_Task]] = {}
        for task in tasks:
            for name in dict.fromkeys(filter(None, task.op.inputs)):
                self._readers.setdefault(name, []).append(task)
        for gradient in self._gradients:
            gradient.wait_for(self._makers(gradient))
        self._updates = [self._update(op) for op in one.ordered.updates]

    def in_order(self) -> Iterator[Op]:
        """Yield the operations, updates among them."""
        for task in self._gradients:
            if not task.missing:
                yield from self._run(task)
        for task in (*self._main, *self._gradients, *self._updates):
            yield from self._run(task)

    def _makers(self, task: _Task) -> list[_Task]:
        """Return the tasks that write what a task reads, but for recomputed values: these need none of them."""
        names = [name for name in task.op.inputs if name in self._writer and name not in self._recomputed]
        return list(dict.fromkeys(self._writer[name] for name in names))

    def _update(self, op: Op) -> _Task:
        """Return the task of an update, once it and its gradient wait for what they have to."""
        update, gradient = _Task(op), self._writer[op.inputs[1]]
        readers = [task for task in self._readers.get(op.inputs[0], ()) if task is not gradient]
        update.wait_for((gradient, *readers))
        chain = [self._place[task] for task in readers if task in self._place]
        if gradient.op.kind in VECTORS:
            place = self._neighbour(gradient)
            gradient.wait_for(self._main[:place][-1:])
            update.wait_for(self._main[place:][:1])
        elif chain and self._shall_wait(gradient, max(chain)):
            gradient.wait_for([self._main[max(chain)]])
        return update

    def _neighbour(self, gradient: _Task) -> int:
        """Return the place of the input gradient of the same layer, which reads the same; where there is none, 0."""
        same = [
            task for name in gradient.op.inputs for task in self._readers.get(name, ()) if task in self._place
        ]
        return min((self._place[task] for task in same if task.op.layer == gradient.op.layer), default=0)

    def _shall_wait(self, gradient: _Task, last: int) -> bool:
        """Whether a gradient is larger than what stays alive if it runs only after the main chain's task `last`."""
        held = sum(
            self._one.tensors[name].size_bytes(self._samples)
            for name in self._sources(gradient.op)
            if self._free_before(name, last)
        )
        return sum(self._one.tensors[name].size_bytes(1) for name in gradient.op.outputs) > held

    def _sources(self, op: Op) -> set[str]:
        """Return the maps in the arena that an operation reads, itself or through recomputed values."""
        found: set[str] = set()
        for name in filter(None, op.inputs):
            tensor = self._one.tensors[name]
            if name in self._recomputed:
                found |= self._sources(self._recomputed[name].op)
            elif tensor.batched and name not in self._one.cached and tensor.role not in GIVEN_ROLES:
                found.add(name)
        return found

    def _free_before(self, name: str, last: int) -> bool:
        """Whether the main chain needs no memory for a value behind its task `last`, and none for it there."""
        end = max((self._place[task] for task in self._readers[name] if task in self._place), default=-1)
        if end != last:
            return end < last
        op = self._main[last].op
        return any(op.inputs[source] == name for source in KERNELS[op.kind].in_place.values())

    def _run(self, task: _Task) -> Iterator[Op]:
        """Yield a task's operation behind the recomputed values that it reads, then what has waited for them."""
        if task.done:
            return
        first = list(self._pulled(task))
        yield from (other.op for other in first)
        waiting = [one for other in (task, *first[:-1]) for one in other.then]
        for one in sorted(waiting, key=lambda one: one.op.kind != UPDATE):
            one.missing -= 1
            if not one.missing:
                yield from self._run(one)

    def _pulled(self, task: _Task) -> Iterator[_Task]:
        """Yield the recomputed values that a task needs and that have not run, then the task."""
        task.done = True
        for name in task.op.inputs:
            source = self._recomputed.get(name)
            if source and not source.done:
                yield from self._pulled(source)
        yield task


def _recomputed(one: Outline, tasks: Iterable[_Task]) -> dict[str, _Task]:
    """Return the tasks that no gradient reaches, by the values that they write."""
    forward = one.ordered.ops[: one.ordered.forward]
    reached = {name for op in forward if one.outputs["loss"] in op.outputs for name in op.outputs}
    found: dict[str, _Task] = {}
    for task in tasks:
        names = tuple(filter(None, task.op.outputs))
        if task.op.kind in PARAMETER_GRADIENTS or not reached.isdisjoint(filter(None, task.op.inputs)):
            reached.update(names)
        else:
            found.update(dict.fromkeys(names, task))
    return found
