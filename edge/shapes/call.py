"""One operation with its operands by name: what the rules of shapes look at, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from ..errors import BundleError
from ..program import BATCH, Op, Tensor

BATCH_AXIS = -1  # stands for the batch in a shape, so that it equals no other length
LONGEST = 2**31 - 1  # what the kernels count an axis, and an attribute, with
ANY = "*"

Shape: TypeAlias = tuple[int, ...]


def shape_of(tensor: Tensor) -> Shape:
    """Return the shape with the batch as `BATCH_AXIS`."""
    return tuple(BATCH_AXIS if axis == BATCH else int(axis) for axis in tensor.shape)


@dataclass(frozen=True)
class Operand:
    """An operand of a signature; `repeated`: it stands for one or more inputs."""

    name: str
    dtype: str
    optional: bool
    repeated: bool


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of an operation, in order."""

    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]

    @classmethod
    def read(cls, text: str) -> Signature:
        """Read "x [b] -> y [mask:bit1]": [] is optional, ":" a type (else float32; "*": any), "..." repeated."""
        inputs, outputs = (tuple(map(_operand, side.split())) for side in text.split("->"))
        return cls(inputs, outputs)


def _operand(word: str) -> Operand:
    name, _, dtype = word.strip("[]").partition(":")
    return Operand(name.removesuffix("..."), dtype or "float32", word[0] == "[", name.endswith("..."))


class Call:
    """An operation whose operands are as many, and of such types, as its signature says.

    Attributes:
        op: the operation.

    Raises:
        BundleError: (any method) one line naming the operation, its layer and what does not fit.
    """

    def __init__(self, op: Op, signature: Signature, tensors: Mapping[str, Tensor]) -> None:
        self.op = op
        self._tensors: dict[str, Tensor] = {}
        self._bind(signature.inputs, op.inputs, "inputs", tensors)
        if len(op.outputs) != len(signature.outputs) or not any(op.outputs):
            count = len(op.outputs) if any(op.outputs) else 0
            self.fail(f"{count} outputs, expected {_names(signature.outputs)}")
        self._bind(signature.outputs, op.outputs, "outputs", tensors)

    def _bind(
        self, operands: Sequence[Operand], names: Sequence[str], what: str, tensors: Mapping[str, Tensor]
    ) -> None:
        repeated = len(operands) == 1 and operands[0].repeated
        if repeated:
            operands = [
                Operand(f"{operands[0].name}{i}", operands[0].dtype, False, False) for i in range(len(names))
            ]
        required = sum(not operand.optional for operand in operands)
        if not max(required, int(repeated)) <= len(names) <= len(operands):
            self.fail(f"{len(names)} {what}, expected {_names(operands)}")
        for operand, name in zip(operands, names, strict=False):
            if name:
                self._tensors[operand.name] = tensors[name]
                if operand.dtype != ANY:
                    self.expect_dtype(operand.name, operand.dtype)
            elif not operand.optional:
                self.fail(f"{operand.name} is absent from the {what}, expected {_names(operands)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The operands that are present, inputs first."""
        return tuple(self._tensors)

    def has(self, name: str) -> bool:
        """Whether an operand is present."""
        return name in self._tensors

    def dtype(self, name: str) -> str:
        """Return the type of an operand."""
        return self._tensors[name].dtype

    def shape(self, name: str, least: int = 1, most: int = LONGEST) -> Shape:
        """Return the shape of a batched operand with `least` to `most` axes."""
        shape = self.any_shape(name)
        if not least <= len(shape) <= most or shape[:1] != (BATCH_AXIS,):
            ranks = (
                f"{least}"
                if least == most
                else f"{least} or more"
                if most == LONGEST
                else f"{least} to {most}"
            )
            self._misfit(name, f"N first and {ranks} axes")
        return shape

    def any_shape(self, name: str, rank: int | None = None) -> Shape:
        """Return the shape of an operand, batched or not, of `rank` axes if that is given."""
        shape = shape_of(self._tensors[name])
        if rank is not None and len(shape) != rank:
            self._misfit(name, f"{rank} axes")
        return shape

    def expect(self, name: str, *shapes: Shape) -> None:
        """Refuse an operand, if present, that has none of these shapes."""
        if name in self._tensors and self.any_shape(name) not in shapes:
            self._misfit(name, " or ".join(map(_text, shapes)))

    def expect_dtype(self, name: str, *dtypes: str) -> None:
        """Refuse an operand, if present, that has none of these types."""
        if name in self._tensors and self._tensors[name].dtype not in dtypes:
            tensor = self._tensors[name]
            self.fail(f"{name} {tensor.name!r} is {tensor.dtype}, expected {' or '.join(dtypes)}")

    def integer(self, name: str, least: int = -LONGEST, most: int = LONGEST) -> int:
        """Return an integer attribute between bounds."""
        value = self.op.attrs.get(name)
        if not _is_integer(value, least, most):
            self._bad_attribute(name, f"an integer {_bounds(least, most)}")
        return int(str(value))

    def integers(self, name: str, count: int, least: int = 0) -> list[int]:
        """Return an attribute that lists `count` integers, none below `least`."""
        value = self.op.attrs.get(name)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(_is_integer(item, least, LONGEST) for item in value)
        ):
            self._bad_attribute(name, f"{count} integers {_bounds(least, LONGEST)}")
        return value

    def number(self, name: str) -> float:
        """Return a numeric attribute."""
        value = self.op.attrs.get(name)
        if not isinstance(value, float) and not _is_integer(value, -LONGEST, LONGEST):
            self._bad_attribute(name, "a number")
        return float(str(value))

    def choice(self, name: str, *known: object) -> object:
        """Return an attribute that is one of the known values."""
        value = self.op.attrs.get(name)
        if not any(type(value) is type(one) and value == one for one in known):
            self._bad_attribute(name, "one of " + ", ".join(map(repr, known)))
        return value

    def _bad_attribute(self, name: str, expected: str) -> NoReturn:
        self.fail(f"attribute {name!r} is {self.op.attrs.get(name)!r}, expected {expected}")

    def _misfit(self, name: str, expected: str) -> NoReturn:
        tensor = self._tensors[name]
        self.fail(f"{name} {tensor.name!r} has shape {_text(shape_of(tensor))}, expected {expected}")

    def fail(self, what: str) -> NoReturn:
        """Refuse the operation."""
        raise BundleError(
            f"program: {self.op.kind} of layer {self.op.layer!r}: {what}; export the bundle again"
        )


Check: TypeAlias = Callable[[Call], None]


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _bounds(least: int, most: int) -> str:
    return f"of at least {least}" if most == LONGEST else f"from {least} to {most}"


def _text(shape: Shape) -> str:
    return f"[{', '.join('N' if axis == BATCH_AXIS else str(axis) for axis in shape)}]"


def _names(operands: Sequence[Operand]) -> str:
    return ", ".join(f"[{o.name}]" if o.optional else o.name for o in operands) or "none"
