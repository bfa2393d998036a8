"""Machines on which the compiler chooses what it rarely does on those that there are."""

from __future__ import annotations

from birc.runtime.machine import Machine, load_machine

QUICK_LINK = {
    "die_barrier_cycles": 1,
    "cross_die_flag_cycles": 1,
    "dma_start_cycles": 1,
    "d2d_bytes_per_cycle": 1 << 13,
}


def with_quick_link(target: str) -> Machine:
    """The machine with exchanges between its dies that cost next to nothing: all that can be divided is."""
    return load_machine(target).with_values(QUICK_LINK)


def with_input_buffers(num_bytes: int = 1 << 18) -> Machine:
    """`tiny` with input buffers of so many bytes, by default those of the BR100: they hold whole rows of products."""
    return load_machine("tiny").with_values({"gib_a_bytes": num_bytes, "gib_b_bytes": num_bytes})
