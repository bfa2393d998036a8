"""Convolutions of few channels: neighbouring pixels, or groups, side by side as the columns of one row.

The T-core takes a whole tile's time for a few columns, and after each tile its accumulator is waited for. Of `count`
neighbours along a dimension d the operands are one run of memory, and so are the results:

    y[d, o] = sum over k of a[d, k] * b[k, o]        with a[d, k] at d * step + k and y[d, o] at d * O + o becomes
    y[d', o'] = sum over k' of a[d', k'] * b'[k', o']        with d = d' * count + i, o' = i * O + o,

where b'[i * step + k, i * O + o] is b[k, o], and all else of b' is 0. k' runs over K + (count - 1) * step elements:
neighbours that share nothing are K apart, windows that overlap less. What is read after the product lies like the
results, or is constant and repeated. 0 times an infinity is no number: what is not finite spoils its neighbours, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from birc.compiler.ir.plan import RED, Access, Contraction, Dimension, Index, Kernel, Statement, View
from birc.compiler.ir.plan_access import axis_alone, named_dims, with_statements
from birc.compiler.passes.lower.coalesce import without_ones
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.frame import unit
from birc.runtime.machine import Machine

CLEARLY_LESS = 0.95
"""The share of the cycles that neighbours side by side may take: the estimate counts no loads of pixels."""


def join_neighbours(env: Environment, kernel: Kernel, names: Sequence[str], machine: Machine) -> Kernel:
    """The kernel with neighbours along one of the dimensions `names` in one row, where that is clearly faster."""
    plain = without_ones(kernel)
    contraction = plain.contraction
    if contraction is None or len(contraction.column_dims) != 1 or not plain.red_dims:
        return kernel
    joins = [
        join
        for dimension in plain.par_dims
        if dimension.name in names
        for count in range(1, min(dimension.extent, machine.tcore_cols) + 1)
        if dimension.extent % count == 0
        and (join := _Join(env, plain, contraction, dimension, count, machine)).is_possible()
    ]
    best = min(joins, key=_Join.cycles, default=None)
    if best is None or best.cycles() > CLEARLY_LESS * replace(best, count=1).cycles():
        return kernel
    return best.kernel()


@dataclass(frozen=True, slots=True)
class _Join:
    """`count` neighbours along a dimension of a kernel side by side."""

    env: Environment
    plain: Kernel
    contraction: Contraction
    dimension: Dimension
    count: int
    machine: Machine

    @property
    def column(self) -> Dimension:
        """The columns of one of the neighbours."""
        return self.plain.dimension(self.contraction.column)

    @property
    def depth(self) -> Dimension:
        """The innermost depth, along which the operands of neighbours lie side by side."""
        return self.plain.red_dims[-1]

    @property
    def step(self) -> int:
        """Elements from the operands of one neighbour to those of the next; 0 where that is nothing to go by."""
        axis = _whole_axis(self.contraction.a, self.dimension)
        return 0 if axis is None else self.contraction.a.view.strides[axis]

    def space(self) -> tuple[Dimension, ...]:
        """The dimensions of the kernel with neighbours side by side."""
        changed = {
            self.dimension.name: self.dimension.extent // self.count,
            self.column.name: self.column.extent * self.count,
            self.depth.name: self.depth.extent + (self.count - 1) * self.step,
        }
        return tuple(replace(d, extent=changed.get(d.name, d.extent)) for d in self.plain.space)

    def is_possible(self) -> bool:
        """Whether operands and results of neighbours are runs of memory, and no limit is exceeded."""
        a, b = self.contraction.a, self.contraction.b
        if self.step <= 0 or max(d.extent for d in self.space() if d.kind == RED) > self.machine.max_dim:
            return False
        if _whole_axis(a, self.depth) != len(a.index) - 1 or a.view.strides[-1] != 1:
            return False
        moving = [self.plain.dimension(name) for name in _moving(b)]
        if len(moving) != len(b.index) or any(_whole_axis(b, d) is None for d in moving):
            return False
        if not self._is_constant(b) or b.index[-2:] != (unit(self.depth.name), unit(self.column.name)):
            return False
        if {self.dimension.name, self.column.name} & named_dims(self.plain):
            return False
        return all(self._lies_well(s) for phase in self.plain.phases for s in phase.statements)

    def cycles(self) -> float:
        """Cycles of the busiest T-core with a gap after each tile, and of the port that brings it the weights."""
        machine, form = self.machine, self.machine.format(self.contraction.format)
        sizes = {d.name: d.extent for d in self.space()}
        in_b = _moving(self.contraction.b)
        par = [d.name for d in self.plain.par_dims if d != self.column]
        rows = math.prod(sizes[name] for name in par if name not in in_b)
        products = math.prod(sizes[name] for name in par if name in in_b)
        tiles = products * -(-rows // machine.tcore_rows) * -(-sizes[self.column.name] // machine.tcore_cols)
        depths = [d.name for d in self.plain.red_dims]
        together = [name for name in depths if axis_alone(self.contraction.a, name) is not None]
        steps = math.prod(sizes[name] for name in depths if name not in together)
        depth = -(-math.prod(sizes[name] for name in together) // form.k_unit) * form.k_unit * steps
        operations = machine.tcore_rows * machine.tcore_cols * depth / form.macs_per_cycle_per_spc
        weights = math.prod(sizes[name] for name in in_b) * form.bytes / machine.noc_bytes_per_cycle
        return -(-tiles // machine.spcs) * (operations + machine.tile_gap_cycles()) + weights

    def kernel(self) -> Kernel:
        """The kernel with neighbours side by side."""
        a = self.contraction.a
        axis = _whole_axis(a, self.dimension) or 0
        depth = self.depth.extent + (self.count - 1) * self.step
        a = _seen(a, axis, self.dimension.extent // self.count, self.step * self.count)
        a = _seen(a, len(a.index) - 1, depth, 1)
        contraction = replace(self.contraction, a=a, b=self._weights())
        changed = with_statements(self.plain, self._epilogue)
        return replace(changed, space=self.space(), contraction=contraction)

    def _weights(self) -> Access:
        """The weights of all neighbours as blocks, and zeros; like those of convolutions with the depth innermost."""
        b = self.contraction.b
        data = _elements(self.env, b)
        depth, column, count = self.depth.extent, self.column.extent, self.count
        axis = axis_alone(b, self.dimension.name)
        blocks = [data] * count
        if axis is not None:
            apart = data.reshape(*data.shape[:axis], -1, count, *data.shape[axis + 1 :])
            blocks = [apart.take(i, axis + 1) for i in range(count)]
        shape = (*blocks[0].shape[:-2], column * count, depth + (count - 1) * self.step)
        joined = np.zeros(shape, data.dtype)
        for i, block in enumerate(blocks):
            first = i * self.step
            joined[..., i * column : (i + 1) * column, first : first + depth] = block.swapaxes(-1, -2)
        stored = self._constant(b.view, joined)
        view = View(
            stored.buffer,
            stored.offset,
            (*stored.dims[:-2], stored.dims[-1], stored.dims[-2]),
            (*stored.strides[:-2], stored.strides[-1], stored.strides[-2]),
        )
        return Access(view, b.index, b.fill)

    def _lies_well(self, statement: Statement) -> bool:
        """Whether what a statement reads or writes is a run of memory for neighbours, the same for all, or constant."""
        access = statement.access
        if access is None:
            return True
        moves = self._moves(access)
        if moves is None or statement.op == "vldx" or any(access.view.lower):
            return False
        return moves == (False, False) or self._is_run(access) or self._is_constant(access)

    def _moves(self, access: Access) -> tuple[bool, bool] | None:
        """Whether an operand of the vector cores moves along the dimension, and along the columns; None for others."""
        found = []
        for dimension in (self.dimension, self.column):
            axis = self._axis(dimension)
            elsewhere = any(
                name == dimension.name
                for place, index in enumerate(access.index)
                for name, _ in (index.terms if place != axis else ())
            )
            moves = access.index[axis] == unit(dimension.name) and access.view.dims[axis] == dimension.extent
            if elsewhere or (not moves and access.index[axis] != Index()):
                return None
            found.append(moves and dimension.extent > 1)
        return found[0], found[1]

    def _axis(self, dimension: Dimension) -> int:
        """The axis of a dimension in the operands of the vector cores."""
        return self.plain.par_dims.index(dimension)

    def _is_run(self, access: Access) -> bool:
        """Whether the elements of neighbours follow one another without a gap, columns evenly apart."""
        step, apart = (access.view.strides[self._axis(d)] for d in (self.dimension, self.column))
        single = self.column.extent == 1
        return self._moves(access) == (True, not single) and (single or step == self.column.extent * apart)

    def _is_constant(self, access: Access) -> bool:
        view = access.view
        return view.buffer in self.env.data and not view.seen and not view.word and not any(view.lower)

    def _epilogue(self, access: Access) -> Access:
        """An operand of the vector cores for neighbours side by side."""
        place, column = self._axis(self.dimension), self._axis(self.column)
        index = list(access.index)
        moves = self._moves(access)
        if moves == (False, False):
            index[column] = Index()
            return replace(access, index=tuple(index))
        index[column] = unit(self.column.name)
        columns = self.column.extent * self.count
        if self._is_run(access):
            step = access.view.strides[place]
            joined = _seen(access, place, self.dimension.extent // self.count, step * self.count)
            return replace(_seen(joined, column, columns, step // self.column.extent), index=tuple(index))
        data = np.moveaxis(_elements(self.env, access), (place, column), (-2, -1))
        groups = data.shape[-2] // self.count or 1
        whole = np.broadcast_to(data, (*data.shape[:-2], groups * self.count, self.column.extent))
        repeated = np.moveaxis(whole.reshape(*data.shape[:-2], groups, columns), (-2, -1), (place, column))
        view = self._constant(access.view, repeated)
        strides = tuple(stride if dim > 1 else 0 for dim, stride in zip(view.dims, view.strides, strict=True))
        return Access(replace(view, strides=strides), tuple(index), access.fill)

    def _constant(self, view: View, data: np.ndarray) -> View:
        key = ("neighbours", view, self.dimension.name, self.dimension.extent, self.step, self.count)
        return self.env.packed_constant(view.buffer, key, data, self.env.buffers[view.buffer].dtype)


def _moving(access: Access) -> set[str]:
    """The dimensions that move an access."""
    return {name for index in access.index for name, _ in index.terms}


def _whole_axis(access: Access, dimension: Dimension) -> int | None:
    """The axis that a dimension alone counts from one end to the other; None when there is none."""
    axis = axis_alone(access, dimension.name)
    is_whole = axis is not None and access.view.dims[axis] == dimension.extent and not any(access.view.lower)
    return axis if is_whole else None


def _seen(access: Access, axis: int, extent: int, stride: int) -> Access:
    """The access with another extent and stride of one axis."""
    view = access.view
    dims = (*view.dims[:axis], extent, *view.dims[axis + 1 :])
    strides = (*view.strides[:axis], stride, *view.strides[axis + 1 :])
    return replace(access, view=replace(view, dims=dims, strides=strides))


def _elements(env: Environment, access: Access) -> np.ndarray:
    """The elements of a constant in the shape of a view."""
    view = access.view
    places = view.offset + sum(
        stride * np.arange(extent).reshape([-1 if i == axis else 1 for i in range(len(view.dims))])
        for axis, (extent, stride) in enumerate(zip(view.dims, view.strides, strict=True))
    )
    return np.asarray(env.data[view.buffer]).reshape(-1)[places]
