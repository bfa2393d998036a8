"""Placement of blocks with fixed lifetimes, on problems in MiniMalloc's form: how high, how fast, by which method.

    make bench-allocation         (or: python benchmarks/minimalloc.py [--exact] [PROBLEM.CAPACITY.csv ...])

Without files it takes those of `benchmarks/data/minimalloc`. A file has the columns id, lower, upper and size; the
capacity in bytes stands in its name, as in `A.1048576.csv`, or is given with `--capacity`. `--exact` lets CP-SAT go on
where the lower bound is not reached (the extra `exact`). Returns 1 when a problem is not placed within its capacity.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from birc.compiler.passes.allocation.blocks import Block, Placement
from birc.compiler.passes.allocation.place import Effort, place
from birc.runtime.errors import BircError, InternalError, UsageError

FOLDER = Path(__file__).parent / "data" / "minimalloc"
COLUMNS = ("problem", "blocks", "height", "/ lower bound", "capacity", "lower bound", "time", "method")
LEFT_COLUMNS = ("problem", "method")
CLIMBS = 1200
PAIRS = 1 << 40  # no limit
WIDTH_WITHOUT_TERMINAL = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """Blocks that are to be placed within a capacity; None where none is known."""

    name: str
    blocks: tuple[Block, ...]
    capacity_bytes: int | None


def read_problem(path: Path, capacity_bytes: int | None = None) -> Problem:
    """The problem of a file. Raises `UsageError` for what is no such file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(int(row["size"]), int(row["lower"]), int(row["upper"])) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        hint = "a header and lines of id, lower, upper, size"
        raise UsageError(f"is no placement problem: {error}", where=str(path), hint=hint) from error
    wrong = next((number for number, (size, lower, upper) in enumerate(rows, 2) if size < 0 or lower >= upper), None)
    if wrong is not None:
        hint = "lower < upper, and no negative size"
        raise UsageError("a block that never lives, or of a negative size", where=f"{path}, line {wrong}", hint=hint)
    if capacity_bytes is None:
        named = path.name.split(".")[-2:-1]
        capacity_bytes = next((int(part) for part in named if part.isdecimal()), None)
    return Problem(path.name.split(".", maxsplit=1)[0], tuple(Block(*row) for row in rows), capacity_bytes)


def check(problem: Problem, placement: Placement) -> None:
    """Raises `InternalError` where blocks that live together overlap."""
    open_blocks: list[tuple[int, Block]] = []
    for low, block in sorted(zip(placement.addresses, problem.blocks, strict=True), key=lambda pair: pair[0]):
        open_blocks = [(start, other) for start, other in open_blocks if start + other.num_bytes > low]
        if block.num_bytes and any(o.start < block.end and block.start < o.end for _, o in open_blocks):
            raise InternalError("two blocks overlap", where=problem.name)
        open_blocks.append((low, block))


def row(problem: Problem, placement: Placement, seconds: float) -> tuple[str, ...]:
    """One line of the table."""
    over = placement.height_bytes / placement.lower_bound_bytes if placement.lower_bound_bytes else 1.0
    return (
        problem.name,
        f"{len(problem.blocks)}",
        f"{placement.height_bytes:,}",
        f"{over:.3f}",
        "" if problem.capacity_bytes is None else f"{problem.capacity_bytes:,}",
        f"{placement.lower_bound_bytes:,}",
        f"{seconds:.2f} s",
        placement.method,
    )


def arguments(parameters: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Place blocks with fixed lifetimes.")
    parser.add_argument("files", nargs="*", type=Path, metavar="PROBLEM.CAPACITY.csv")
    parser.add_argument("--capacity", type=int, metavar="BYTES", help="of all files, instead of the one in their names")
    parser.add_argument("--exact", action="store_true", help="go on with CP-SAT where the lower bound is not reached")
    parser.add_argument("--climbs", type=int, default=CLIMBS, metavar="N", help="placements by hill climbing")
    return parser.parse_args(parameters)


def main(parameters: Sequence[str] | None = None) -> int:
    """Place all problems and print the table."""
    options = arguments(parameters)
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in LEFT_COLUMNS else "right", no_wrap=True)
    effort = Effort(options.climbs, PAIRS, options.exact)
    is_placed = True
    try:
        for path in options.files or sorted(FOLDER.glob("*.csv")):
            problem = read_problem(path, options.capacity)
            start = time.perf_counter()
            placement = place(problem.blocks, problem.capacity_bytes, alignment_bytes=1, effort=effort)
            seconds = time.perf_counter() - start
            check(problem, placement)
            capacity = problem.capacity_bytes
            is_placed = is_placed and (capacity is None or placement.height_bytes <= capacity)
            table.add_row(*row(problem, placement, seconds))
    except BircError as error:
        print(f"minimalloc: {error}", file=sys.stderr)
        return error.exit_code
    console.print(table)
    return 0 if is_placed else 1


if __name__ == "__main__":
    sys.exit(main())
