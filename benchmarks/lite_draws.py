"""Random gradients of one problem: LITE's, put together from those of single samples, and a sub-sampled support set's.

A gradient through one level of sums is affine in the scales of the samples in H, so N backward passes of one sample
each give all draws. With two levels this holds for the gradient towards the FiLM parameters; what is above them, the
generator and the set encoder with an H of its own, is differentiated for every draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Protocol

import torch
from edge_adapt.cloud.amortized.episode import ENCODER, FEATURES, Episode
from edge_adapt.cloud.lite import Subset, draw, generator_of
from edge_adapt.cloud.tasks.task import Stored
from lite_problems import Problem
from torch import Tensor
from torch.nn import functional as F

H, SUBSAMPLE = 2, 3
"""What a random number is for."""
FILM = "film_generator.out.bias"
"""Its gradient is the one towards the FiLM parameters."""
NOBODY = Subset(torch.tensor([0]), torch.tensor([0.0]))
"""No gradient through the support set."""


class Gradients(Protocol):
    """Random gradients of a problem, and the exact one."""

    @property
    def exact(self) -> Tensor:
        """(P,)."""

    def draws(self, h: int, stratified: bool) -> Iterator[Tensor]:
        """Others each, (P,)."""


def flat(grads: Mapping[str, Tensor]) -> Tensor:
    """All gradients in one vector (P,)."""
    return torch.cat([grad.flatten() for grad in grads.values()])


@dataclass(frozen=True)
class Parts:
    """What LITE's gradients of one level are made of, P numbers each.

    Attributes:
        exact: the gradient.
        none: without what comes through the support set, (P,).
        single: through each sample's features, (N, P).
        control: the same through the control variate, (N, P).
    """

    exact: Tensor
    none: Tensor
    single: Tensor
    control: Tensor

    @classmethod
    def of(cls, problem: Problem) -> Parts:
        """Differentiate towards the FiLM parameters, without FiLM layers towards all that is learned."""
        learner, meta, task = problem.with_lite(control_variate=False), problem.meta, problem.task
        values = learner.exact(meta, task)
        levels = {ENCODER: None, FEATURES: NOBODY}
        none = learner.task_gradient(meta, task, values, levels.__getitem__).grads
        exact = problem.exact()
        learned = {name: value.detach().requires_grad_() for name, value in meta.learned.items()}
        episode = Episode(learner.modules, {**meta.fixed, **learned}, learner.lite, task, False)
        film = None
        wanted = list(learned.values())
        if values.embeddings is not None:
            film = episode.film_of(values.embeddings).detach().requires_grad_()
            none, exact, wanted = {FILM: none[FILM]}, {FILM: exact[FILM]}, [film]
        features, queries = (
            values.features.requires_grad_(),
            episode.queries(torch.arange(len(task.query)), film),
        )
        loss = F.cross_entropy(learner.head(episode, features, queries.detach()), task.query_y)
        (towards,) = torch.autograd.grad(loss, features)

        def through(value: Tensor, towards: Tensor, keep: bool = False) -> Tensor:
            found = torch.autograd.grad(
                value, wanted, towards, retain_graph=keep, allow_unused=True, materialize_grads=True
            )
            return torch.cat([grad.flatten() for grad in found])

        extract, mean = episode.extract(film), queries.mean(0)
        single = torch.stack(
            [
                through(extract(task.support.take(torch.tensor([row])))[0], to)
                for row, to in enumerate(towards)
            ]
        )
        control = torch.stack([through(mean, to, keep=True) for to in towards])
        return cls(flat(exact), flat(none), single, control)

    def coordinates(self) -> Parts:
        """The same in the coordinates of a basis of what they span: sums and norms stay what they are."""
        vectors = torch.cat([self.exact[None], self.none[None], self.single, self.control])
        products = sum(
            (part.double() @ part.double().T for part in vectors.split(2**18, 1)),
            torch.zeros(len(vectors), len(vectors), dtype=torch.float64),
        )
        squares, basis = torch.linalg.eigh(products)
        found, samples = basis * squares.clamp(min=0).sqrt(), len(self.single)
        return Parts(found[0], found[1], found[2 : 2 + samples], found[2 + samples :])

    def gradient(self, subset: Subset, control: bool) -> Tensor:
        """LITE's gradient through H, (P,)."""
        single, none = self.single, self.none
        if control:
            single, none = single - self.control, none + self.control.sum(0)
        return none + subset.scale.to(single) @ single[subset.rows]


@dataclass(frozen=True)
class OneLevel:
    """LITE without FiLM layers, in coordinates of `Parts`."""

    of: Problem
    parts: Parts
    control: bool

    @property
    def exact(self) -> Tensor:
        """See `Gradients`."""
        return self.parts.exact

    def draws(self, h: int, stratified: bool) -> Iterator[Tensor]:
        """See `Gradients`."""
        for index in count():
            yield self.parts.gradient(drawn(self.of, h, stratified, index, FEATURES), self.control)


@dataclass(frozen=True)
class TwoLevels:
    """LITE with FiLM layers: a gradient towards their parameters, and from there through a part of the set encoder."""

    of: Problem
    parts: Parts
    control: bool

    @cached_property
    def exact(self) -> Tensor:
        """See `Gradients`."""
        return flat(self.of.exact())

    def draws(self, h: int, stratified: bool) -> Iterator[Tensor]:
        """See `Gradients`."""
        of, learner = self.of, self.of.with_lite()
        values, exact = learner.exact(of.meta, of.task), of.exact()
        learned = {
            name: value.detach().requires_grad_()
            for name, value in of.meta.learned.items()
            if not name.startswith("head_generator.")  # what it sees are values, all of them exact
        }
        episode = Episode(learner.modules, {**of.meta.fixed, **learned}, learner.lite, of.task, False)
        for index in count():
            towards = self.parts.gradient(drawn(of, h, stratified, index, FEATURES), self.control)
            film = episode.film(values, lambda level: drawn(of, h, stratified, index, level))  # noqa: B023
            found = torch.autograd.grad(film, list(learned.values()), towards)
            yield flat({**exact, **dict(zip(learned, found, strict=True))})


def drawn(of: Problem, h: int, stratified: bool, index: int, level: int) -> Subset:
    """H as the learner draws it for a task of key (H, index)."""
    labels = of.task.support_y
    return draw(len(labels), h, generator_of((H, index), level, 0, 0), labels if stratified else None)


@dataclass(frozen=True)
class SubSampled:
    """Adapting to h support samples only, and differentiating through all of them."""

    of: Problem

    @cached_property
    def exact(self) -> Tensor:
        """Of the whole support set."""
        return flat(self.of.exact())

    def draws(self, h: int, stratified: bool) -> Iterator[Tensor]:
        """See `Gradients`."""
        of, learner, labels = self.of, self.of.with_lite(), self.of.task.support_y
        for index in count():
            rows = all_classes(labels, h, stratified, generator_of((SUBSAMPLE, index)))
            task = replace(of.task, support=Stored(of.task.support.take(rows)), support_y=labels[rows])
            yield flat(learner.task_gradient(of.meta, task).grads)


def all_classes(labels: Tensor, h: int, stratified: bool, generator: torch.Generator) -> Tensor:
    """Rows (h,) of support samples, drawn until every class is among them."""
    while True:
        rows = draw(len(labels), h, generator, labels if stratified else None).rows
        if len(labels[rows].unique()) == len(labels.unique()):
            return rows


def estimators(of: Problem) -> Mapping[str, Gradients]:
    """LITE, LITE with its control variate, and support sets of h samples."""
    parts = Parts.of(of)
    if of.with_lite().modules.films:
        made: list[Gradients] = [TwoLevels(of, parts, control) for control in (False, True)]
    else:
        parts = parts.coordinates()
        made = [OneLevel(of, parts, control) for control in (False, True)]
    return dict(zip(ESTIMATORS, (*made, SubSampled(of)), strict=True))


ESTIMATORS = ("LITE", "LITE with control variate", "sub-sampled")
