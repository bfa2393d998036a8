"""One row of the operator table: everything birc knows about one core op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np

from birc.compiler.ir.access import AccessRule, Relations, resolve
from birc.compiler.ir.attributes import Attribute, Attributes, AttributeValue, Required
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype, from_numpy
from birc.runtime.errors import InternalError

Category = Literal["elementwise", "contraction", "pool", "normalization", "reduction", "view", "movement", "index"]
Types = Sequence[TensorType]
Arrays = Sequence[np.ndarray]

Infer = Callable[[Types, Attributes], tuple[TensorType, ...]]
"""Types of the present inputs, attributes -> types of the outputs. Raises `TypeRuleError`."""

Evaluate = Callable[[Arrays, Attributes], tuple[np.ndarray, ...]]
"""The numpy meaning: present inputs, attributes -> outputs. Independent of what the device does."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The arithmetic of one node.

    Multiply-adds, element operations, and special functions (exp2, rcp, rsqrt, tanh, sin, cos, log2).
    """

    macs: int = 0
    vector_ops: int = 0
    sfu_ops: int = 0


CostRule = Callable[[Types, Types, Attributes], Cost]
"""Input types, output types, attributes -> cost."""

_SAMPLE_LOW: Final = -2.0
_SAMPLE_HIGH: Final = 2.0


def sample_types(*shapes: tuple[int, ...], elements: str = "f32") -> tuple[TensorType, ...]:
    """Types of inputs that all have the same elements."""
    return tuple(TensorType(dtype(elements), shape) for shape in shapes)


@dataclass(frozen=True, slots=True)
class Sample:
    """One small use of a row, for the enumerated tests.

    An input is a type, filled with random values in `low`..`high`, or the very array.
    """

    inputs: tuple[TensorType | np.ndarray, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    low: float = _SAMPLE_LOW
    high: float = _SAMPLE_HIGH

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(
            TensorType(from_numpy(item.dtype), item.shape) if isinstance(item, np.ndarray) else item
            for item in self.inputs
        )

    def arrays(self, seed: int = 0) -> tuple[np.ndarray, ...]:
        """The inputs filled in; the same seed gives the same values."""
        random = np.random.default_rng(seed)
        return tuple(item if isinstance(item, np.ndarray) else self._filled(item, random) for item in self.inputs)

    def _filled(self, type: TensorType, random: np.random.Generator) -> np.ndarray:
        holder = type.dtype.numpy
        if type.dtype.kind == "bool":
            return random.integers(0, 2, type.sizes).astype(holder)
        low = max(self.low, 0.0) if type.dtype.kind == "uint" else self.low
        values = random.uniform(low, self.high, type.sizes)
        return (values if type.dtype.is_float else np.rint(values)).astype(holder)


@dataclass(frozen=True, slots=True)
class Operand:
    """One input of a row: `bias?` may be absent (optional ones come last), `xs*` stands for one or more."""

    name: str
    is_optional: bool = False
    is_variadic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRow:
    """One core op. The rows of all families are concatenated in table.py.

    `access` gives per operand the index expressions (see access.py), or is a function where the rank decides. What is
    `in_f32` has its result stored so whatever the precision of the package: others are computed with all its digits.
    Does not construct with a field that contradicts another: raises `InternalError`.
    """

    name: str
    doc: str
    inputs: str
    category: Category
    loops: str
    access: Mapping[str, str] | AccessRule
    infer: Infer
    evaluate: Evaluate
    cost: CostRule
    samples: tuple[Sample, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    data_dependent: bool = False
    in_f32: bool = False
    operands: tuple[Operand, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", tuple(_operand(item) for item in self.inputs.split()))
        problem = self._problem()
        if problem:
            raise InternalError(f"the row {self.name!r} of the operator table {problem}")

    def _problem(self) -> str | None:
        optional = [operand.is_optional for operand in self.operands]
        names = {operand.name for operand in self.operands}
        if not self.name.isidentifier() or not self.doc or not self.samples:
            return "lacks a name, a sentence of documentation or a sample"
        if optional != sorted(optional):
            return "has an optional input before a required one"
        if any(operand.is_variadic for operand in self.operands) and len(self.operands) != 1:
            return "has a variadic input beside others"
        if isinstance(self.access, Mapping) and set(self.access) != names:
            return f"gives access for {sorted(self.access)}, not for its inputs {sorted(names)}"
        if self.category not in get_args(Category):
            return f"has the unknown category {self.category!r}"
        if not all(callable(rule) for rule in (self.infer, self.evaluate, self.cost)):
            return "lacks a type rule, a numpy meaning or a cost"
        return None

    @property
    def min_inputs(self) -> int:
        return sum(not operand.is_optional for operand in self.operands)

    @property
    def max_inputs(self) -> int | None:
        """The most inputs a node may have; None when there is no limit."""
        return None if self.operands[-1].is_variadic else len(self.operands)

    def operand_names(self, count: int) -> tuple[str, ...]:
        """The names of the first `count` inputs of a node: `xs[0]`, `xs[1]`, ... under a variadic one."""
        if self.operands[0].is_variadic:
            return tuple(f"{self.operands[0].name}[{place}]" for place in range(count))
        return tuple(operand.name for operand in self.operands[:count])

    def input_problem(self, inputs: Sequence[str]) -> str | None:
        """What is wrong with the inputs of a node ("" is an absent one), or None."""
        most = self.max_inputs
        if len(inputs) < self.min_inputs or (most is not None and len(inputs) > most):
            return f"{self.name} takes the inputs ({self.inputs}), not {len(inputs)}"
        for name, operand in zip(inputs, self.operands, strict=False):
            if not name and not operand.is_optional:
                return f"{self.name} needs its input {operand.name}"
        absent_at = list(inputs).index("") if "" in inputs else len(inputs)
        if any(inputs[absent_at:]):
            return f"{self.name} has an input after an absent one"
        return None

    def attribute_problems(self, given: Attributes) -> tuple[str, ...]:
        """What is wrong with the attributes of a node; every declared one must be given."""
        missing = [f"attribute {name} is missing" for name in self.attributes if name not in given]
        unknown = [
            f"{self.name} has no attribute {name} ({', '.join(self.attributes) or 'it has none'})"
            for name in given
            if name not in self.attributes
        ]
        wrong = [
            f"attribute {name} {problem}"
            for name, attribute in self.attributes.items()
            if name in given and (problem := attribute.problem(given[name])) is not None
        ]
        return (*missing, *unknown, *wrong)

    def complete(self, given: Attributes) -> dict[str, AttributeValue]:
        """`given` in the order of the declaration, with the defaults put in.

        Unknown names stay, for the check to find.
        """
        defaults = {
            name: attribute.default
            for name, attribute in self.attributes.items()
            if not isinstance(attribute.default, Required)
        }
        filled = {**defaults, **given}
        declared = {name: filled[name] for name in self.attributes if name in filled}
        return {**declared, **{name: value for name, value in given.items() if name not in declared}}

    def output_types(self, types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
        """The output types after all checks: number of inputs, attributes, then the type rule.

        Raises `TypeRuleError`.
        """
        problems = self.attribute_problems(attributes)
        problem = self.input_problem(["x"] * len(types)) or "; ".join(problems)
        if problem:
            raise TypeRuleError(problem, where=self.name)
        return self.infer(types, attributes)

    def relations(self, types: Types, output: TensorType, attributes: Attributes) -> Relations:
        """The iteration space and what it reads. Needs static types; raises `TypeRuleError` for symbols."""
        if not isinstance(self.access, Mapping):
            return self.access(types, output, attributes)
        return resolve(self.loops, self.access, self.operand_names(len(types)), types, output, attributes)


def _operand(text: str) -> Operand:
    return Operand(text.rstrip("?*"), is_optional=text.endswith("?"), is_variadic=text.endswith("*"))
