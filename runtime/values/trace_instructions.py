"""What each instruction adds to the raised form: one function an instruction, or a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, Final

from birc.runtime.alu import ELEMENTWISE, FLOAT_RESULT, FOLDS, ON_BITS, REDUCTIONS
from birc.runtime.conversion import INT, register_type
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Affine, Box, Register
from birc.runtime.values.form import (
    Access,
    Compute,
    Contract,
    Coordinate,
    Fill,
    Load,
    Product,
    Reduce,
    Source,
    Store,
    Tile,
    Value,
    substitute,
)
from birc.runtime.values.index_space import CannotRaiseError
from birc.runtime.values.locations import Place, distinct
from birc.runtime.values.nest import Leaf
from birc.runtime.values.trace import Trace
from birc.runtime.values.windows import windowed

Fields = Mapping[str, Any]
Axes = tuple[int | None, ...]

_INTEGER_RESULT: Final = frozenset({"vnot", "vtoint", "veq", "vlt", "vle", "vand", "vor", "vxor"})
_REDUCTION_OF: Final = MappingProxyType({name: name.replace("fold", "red") for name in FOLDS})


def trace_instruction(trace: Trace, leaf: Leaf) -> None:
    """Add an instruction, executed in all iterations of the loops around it."""
    row = BY_MNEMONIC[leaf.instruction.mnemonic]
    names = (field.name for field in row.fields)
    fields = dict(zip(names, leaf.instruction.operands, strict=True))
    TRACERS[row.mnemonic](trace, leaf, fields)


def _access(trace: Trace, box: Box) -> tuple[Access, Axes]:
    """The access of a box, and the indices of its shape."""
    descriptor = trace.descriptors.get(box.slot)
    if descriptor is None or len(descriptor.dims) != len(box.axes):
        raise CannotRaiseError("a box that does not fit what is bound")
    axes: list[int | None] = []
    coordinates = []
    for axis in box.axes:
        start = substitute(axis.start, trace.variables)
        index = trace.space.new(axis.extent) if axis.extent > 1 else None
        terms = start.terms if index is None else (*start.terms, (index, axis.step))
        axes.append(index)
        coordinates.append(Coordinate(start.constant, terms))
    if descriptor.space == "tb":
        coordinates.append(trace.spc_number)
    return Access(box.slot, tuple(coordinates), box.fill), tuple(axes)


def _loops_of(trace: Trace, access: Access) -> tuple[int, ...]:
    """The loops around that an access varies with."""
    used = {index for coordinate in access.coordinates for index, _ in coordinate.terms}
    return tuple(index for index in trace.loops if index in used)


def _load_tile(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    is_a = leaf.instruction.mnemonic == "tlda"
    access, axes = _access(trace, fields["src"])
    split = fields["rows"] if is_a else fields["depth"]
    leading = tuple(axis for axis in axes[:split] if axis is not None)
    trailing = tuple(axis for axis in axes[split:] if axis is not None)
    width, depth = (leading, trailing) if is_a else (trailing, leading)
    tile = Tile(_loops_of(trace, access), access, width, depth, fields["format"], len(trace.operations))
    trace.write("a" if is_a else "b", trace.ring(fields["dst"]), tile, leaf)


def _multiply(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    a, a_loops = _read_tile(trace, leaf, "a", fields["a"], (fields["m"], fields["k"]), fields["format"])
    _accumulate(trace, leaf, fields, a, a_loops)


def _convolve(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    """tconv: a product whose A tile is a window of the loaded one."""
    patch, patch_loops = _read_tile(trace, leaf, "a", fields["a"], (None, fields["k"]), fields["format"])
    a, a_loops = windowed(trace, patch, fields["window"])
    _accumulate(trace, leaf, fields, a, (*patch_loops, *a_loops))


def _accumulate(trace: Trace, leaf: Leaf, fields: Fields, a: Tile, a_loops: tuple[int, ...]) -> None:
    """Add the product of an A tile and the B tile of an instruction to the accumulator."""
    b, b_loops = _read_tile(trace, leaf, "b", fields["b"], (fields["n"], fields["k"]), fields["format"])
    trace.space.unite(a.depth, b.depth)
    begins, over = trace.first(fields["first"])
    trace.check_steps(over, fields["first"], Affine())
    covered = next((index for index in _between(trace, over) if index not in over), None)
    if covered is not None:
        raise CannotRaiseError("tiles share the accumulator", trace.loop_of(covered))
    trace.limits.check_product((a.access, b.access), trace.descriptors, over)
    loops = tuple(i for i in trace.loops if i not in over and (i in a_loops or i in b_loops))
    product = Product(a, b, (*over, *_leaves(trace, a.depth)), loops)
    trace.accumulate(product, leaf, begins=begins, over=over)


def _read_tile(
    trace: Trace, leaf: Leaf, buffer: str, ring: Any, size: tuple[int | None, int], format_name: str
) -> tuple[Tile, tuple[int, ...]]:
    """The part of a tile that a product takes; all of its width where `size` has None."""
    tile, loops = trace.read(buffer, trace.ring(ring), leaf)
    if not isinstance(tile, Tile) or tile.format != format_name:
        raise CannotRaiseError("an input buffer holds something else")
    width, depth = _cropped(trace, tile.width, size[0]), _cropped(trace, tile.depth, size[1])
    if (width, depth) == (tile.width, tile.depth):
        return tile, loops
    names = {**dict(zip(tile.width, width, strict=True)), **dict(zip(tile.depth, depth, strict=True))}
    coordinates = tuple(
        Coordinate(c.constant, tuple((names.get(index, index), factor) for index, factor in c.terms))
        for c in tile.access.coordinates
    )
    access = Access(tile.access.slot, coordinates, tile.access.fill)
    return Tile(tile.loops, access, width, depth, tile.format, tile.time), loops


def _cropped(trace: Trace, axes: tuple[int, ...], wanted: int | None) -> tuple[int, ...]:
    """Axes whose first one is shorter, so that they count `wanted` together."""
    extents = [trace.space.extent(axis) for axis in axes]
    if wanted is None or prod(extents) == wanted:
        return axes
    inner = prod(extents[1:])
    if not axes or wanted > prod(extents) or wanted % inner:
        raise CannotRaiseError("a product takes a part of a tile that is no box")
    return (trace.space.new(wanted // inner), *axes[1:])


def _drain(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    products = trace.accumulated(leaf)
    axes = _shape_axes(trace, fields["shape"])
    for product in products:
        outputs = (*product.a.width, *product.b.width)
        trace.space.unite([axis for axis in axes if axis is not None], outputs)
    place = trace.register(fields["dst"].number)
    begins, over = trace.first(fields["first"])
    trace.check_steps(over, fields["first"], fields["dst"].number)
    _check_sum(trace, place, over)
    for product in products:
        trace.limits.check_product((product.a.access, product.b.access), trace.descriptors, over)
    summed = tuple(Product(p.a, p.b, (*over, *p.over), tuple(i for i in p.loops if i not in over)) for p in products)
    used = {index for product in summed for index in product.loops}
    result = Value(tuple(index for index in trace.loops if index in used), axes)
    trace.emit(Contract(result, summed))
    if not begins:
        result = _combine(trace, leaf, "vadd", fields["dst"], result)
    trace.write("register", place, result, leaf, over)


def _shape_axes(trace: Trace, shape: Sequence[int]) -> Axes:
    return tuple(trace.space.new(extent) if extent > 1 else None for extent in shape)


def _leaves(trace: Trace, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes that are more than one element long."""
    return tuple(axis for axis in axes if trace.space.extent(axis) > 1)


def _between(trace: Trace, over: Sequence[int]) -> tuple[int, ...]:
    """The loops from the outermost one of a sum to the instruction."""
    if not over:
        return ()
    start = min(trace.loops.index(index) for index in over)
    return trace.loops[start:]


def _check_sum(trace: Trace, place: Place, over: Sequence[int]) -> None:
    """A register that sums over loops must be one for all of them, and another in each iteration of others."""
    between = _between(trace, over)
    for index in between:
        if (index in over) == (index in place.coefficients):
            raise CannotRaiseError("registers of a sum are mixed up", trace.loop_of(index))
    if over and not distinct(place, frozenset(trace.loops) - frozenset(between)):
        raise CannotRaiseError("registers of a sum are mixed up", trace.loop_of(over[0]))


def _combine(trace: Trace, leaf: Leaf, mnemonic: str, register: Register, value: Value) -> Value:
    """A register combined with a value of its shape."""
    held = _read(trace, leaf, register)
    return _computed(trace, mnemonic, (held, value))


def _read(trace: Trace, leaf: Leaf, register: Register) -> Value:
    value, loops = trace.read("register", trace.register(register.number), leaf)
    if not isinstance(value, Value):
        raise CannotRaiseError("a register holds something else")
    # The same array; only its loops have other names here.
    return value if loops == value.loops else trace.renamed(value, loops)


def _source(trace: Trace, leaf: Leaf, operand: Register | float) -> Source:
    return _read(trace, leaf, operand) if isinstance(operand, Register) else float(operand)


def _write(trace: Trace, leaf: Leaf, register: Register, value: Value) -> None:
    trace.write("register", trace.register(register.number), value, leaf)


def _load(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    access, axes = _access(trace, fields["src"])
    integer = register_type(trace.descriptors[access.slot].dtype) == INT
    value = Value(_loops_of(trace, access), axes, integer)
    trace.emit(Load(value, access))
    _write(trace, leaf, fields["dst"], value)


def _load_indexed(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    index = _read(trace, leaf, fields["index"])
    access, axes = _access(trace, fields["src"])
    descriptor, axis = trace.descriptors[access.slot], fields["axis"]
    if not index.integer or len(index.axes) != len(axes) or axes[axis] is not None:
        raise CannotRaiseError("an indexed load of another form")
    first = access.coordinates[axis]
    low, high = trace.lowest(first), trace.highest(first) + fields["count"]
    if low < descriptor.lower[axis] or high > descriptor.lower[axis] + descriptor.dims[axis]:
        raise CannotRaiseError("an indexed load that may leave its tensor")
    loops = set(_loops_of(trace, access)) | set(index.loops)
    integer = register_type(descriptor.dtype) == INT
    shape = _broadcast(trace, (axes, index.axes))
    rows = [other for own, other in zip(axes, index.axes, strict=True) if own is None and other is not None]
    trace.index_elements[leaf.number] = prod(map(trace.space.extent, rows))
    value = Value(tuple(i for i in trace.loops if i in loops), shape, integer)
    trace.emit(Load(value, access, index, axis, fields["count"]))
    _write(trace, leaf, fields["dst"], value)


def _broadcast(trace: Trace, shapes: Sequence[Axes]) -> Axes:
    """The axes of an elementwise result; those in the same position become equal."""
    if len({len(shape) for shape in shapes}) > 1:
        raise CannotRaiseError("operands of different rank")
    result = []
    for position in zip(*shapes, strict=True):
        long = [axis for axis in position if axis is not None]
        for other in long[1:]:
            if trace.space.extent(other) != trace.space.extent(long[0]):
                raise CannotRaiseError("operands that do not broadcast")
            trace.space.unite((long[0],), (other,))
        result.append(long[0] if long else None)
    return tuple(result)


def _store(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    source = _source(trace, leaf, fields["src"])
    access, axes = _access(trace, fields["dst"])
    if isinstance(source, Value):
        if len(source.axes) > len(axes):
            raise CannotRaiseError("a register of more axes than its box")
        padded = (None,) * (len(axes) - len(source.axes)) + source.axes
        if any(own is None and other is not None for own, other in zip(axes, padded, strict=True)):
            raise CannotRaiseError("a register that its box does not hold")
        _broadcast(trace, (axes, padded))
    descriptor = trace.descriptors[access.slot]
    trace.limits.check_store(access, descriptor, trace.loops)
    _check_apart(trace, access)
    trace.emit(Store(access, source))


def _check_apart(trace: Trace, access: Access) -> None:
    """Every iteration of a store must have elements of its own."""
    descriptor = trace.descriptors[access.slot]
    apart: set[int] = set()
    for coordinate, stride in zip(access.coordinates, (*descriptor.strides, 1), strict=False):
        reach = 0
        for index, factor in sorted(coordinate.terms, key=lambda term: abs(term[1])):
            if abs(factor) > reach and stride:
                apart.add(index)
            reach += abs(factor) * (trace.space.extent(index) - 1)
    for index in trace.loops:
        if index not in apart:
            raise CannotRaiseError("iterations store to the same place", trace.loop_of(index))
        if index in trace.reductions:
            raise CannotRaiseError("stores inside a reduction", trace.loop_of(index))
    if any(index not in apart for coordinate in access.coordinates for index, _ in coordinate.terms):
        raise CannotRaiseError("lanes are stored to the same place")


def _fill(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    value = Value((), _shape_axes(trace, fields["shape"]))
    trace.emit(Fill(value, fields["value"]))
    _write(trace, leaf, fields["dst"], value)


def _compute(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    sources = tuple(_source(trace, leaf, value) for name, value in fields.items() if name != "dst")
    _write(trace, leaf, fields["dst"], _computed(trace, leaf.instruction.mnemonic, sources))


def _computed(trace: Trace, mnemonic: str, sources: tuple[Source, ...]) -> Value:
    """The result of an elementwise instruction, emitted."""
    values = [source for source in sources if isinstance(source, Value)]
    axes = _broadcast(trace, [value.axes for value in values])
    loops = {index for value in values for index in value.loops}
    integer = _is_integer(mnemonic, sources)
    result = Value(tuple(index for index in trace.loops if index in loops), axes, integer)
    trace.emit(Compute(mnemonic, result, sources))
    return result


def _is_integer(mnemonic: str, sources: Sequence[Source]) -> bool:
    """Whether an elementwise instruction gives INT32 (the rule is that of `alu.elementwise`)."""
    if mnemonic in _INTEGER_RESULT or mnemonic in FLOAT_RESULT:
        return mnemonic in _INTEGER_RESULT
    integer = computes_in_integers(sources[1:] if mnemonic == "vsel" else sources)
    if mnemonic in ON_BITS and not integer:
        raise CannotRaiseError("an instruction on bits takes FP32")
    return integer


def computes_in_integers(sources: Sequence[Source]) -> bool:
    """Whether all registers are INT32 and all immediates fit beside them."""
    values = [source for source in sources if isinstance(source, Value)]
    numbers = [source for source in sources if not isinstance(source, Value)]
    whole = all(number.is_integer() and -(2**31) <= number < 2**31 for number in numbers)
    return bool(values) and all(value.integer for value in values) and whole


def _reduce(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    source, mask = _read(trace, leaf, fields["a"]), fields["axes"]
    if mask >> len(source.axes):
        raise CannotRaiseError("reduces axes that a register does not have")
    over = tuple(axis for p, axis in enumerate(source.axes) if mask >> p & 1 and axis is not None)
    axes = tuple(None if mask >> p & 1 else axis for p, axis in enumerate(source.axes))
    result = Value(source.loops, axes, source.integer)
    trace.emit(Reduce(leaf.instruction.mnemonic, result, source, over))
    _write(trace, leaf, fields["dst"], result)


def _fold(trace: Trace, leaf: Leaf, fields: Fields) -> None:
    place = trace.register(fields["dst"].number)
    source = _source(trace, leaf, fields["a"])
    begins, over = trace.first(fields["first"])
    if not isinstance(source, Value):
        if begins or over:
            raise CannotRaiseError("a fold of an immediate")
        _write(trace, leaf, fields["dst"], _folded(trace, leaf, fields, source))
        return
    trace.limits.check_fold(over)
    trace.check_steps(over, fields["first"], fields["dst"].number)
    _check_sum(trace, place, over)
    if over:
        loops = tuple(index for index in source.loops if index not in over)
        partial = Value(loops, source.axes, source.integer)
        trace.emit(Reduce(_REDUCTION_OF[leaf.instruction.mnemonic], partial, source, over))
        source = partial
    result = source if begins else _folded(trace, leaf, fields, source)
    trace.write("register", place, result, leaf, over)


def _folded(trace: Trace, leaf: Leaf, fields: Fields, source: Source) -> Value:
    """What a register held, folded with a value."""
    held = _read(trace, leaf, fields["dst"])
    result = _computed(trace, leaf.instruction.mnemonic, (held, source))
    if any((own is None) != (new is None) for own, new in zip(held.axes, result.axes, strict=True)):
        raise CannotRaiseError("a fold changes its register's shape")
    return result


TRACERS: Final[Mapping[str, Callable[[Trace, Leaf, Fields], None]]] = MappingProxyType(
    {
        "tlda": _load_tile,
        "tldb": _load_tile,
        "tmma": _multiply,
        "tconv": _convolve,
        "vld": _load,
        "vst": _store,
        "vldx": _load_indexed,
        "vacc": _drain,
        "vmovi": _fill,
        **dict.fromkeys(ELEMENTWISE.keys() - FOLDS.keys(), _compute),
        **dict.fromkeys(FOLDS, _fold),
        **dict.fromkeys(REDUCTIONS, _reduce),
    }
)
