"""The semaphores of an SPC: which of them a product has, and how many the kernels of products need."""

from __future__ import annotations

from birc.runtime.machine import Machine

A_FULL, A_FREE, B_FULL, B_FREE, ACC_FREE, ACC_FULL = range(6)
"""Those of a product; the last is that of the first vector program, those of others follow."""


def semaphores_there(machine: Machine) -> int:
    """How many an SPC has."""
    return machine.semaphores_tcore + machine.semaphores_spc


def of_product(programs: int) -> int:
    """How many a product needs whose tiles are finished by so many vector programs."""
    return ACC_FULL + programs


def most_programs(machine: Machine) -> int:
    """The vector programs that can finish the tiles of a product: each has a semaphore."""
    return min(machine.vector_programs, semaphores_there(machine) - ACC_FULL)


def of_pairs(pairs: int, programs: int) -> int:
    """How many pairs of products need at most of which the second follows the first, all as one kernel.

    `programs` finish the tiles of first products. Each product has two semaphores of its own, which count free slots.
    Others are of all pairs: the accumulator's, two for what first and second products loaded, one for sums of second
    ones, and for each program of first products one for its sums and two for its rows. Where pairs come behind others,
    there is one by which the columns of each product wait for the pair before, one by which the first row does, and
    for each program of first products one for each of those of the next pair, which wait for it.
    """
    between = 3 + programs * programs if pairs > 1 else 0
    return 4 * pairs + 6 + 3 * programs + between
