"""Exported networks with the weights of as many products near as there is room for: verified, proved, same values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from near import Planned, fills, planned
from networks import EXPORTED, exported_network, relative_error
from pairs import local_is_faster

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.plan import Plan
from birc.compiler.passes.in_place import in_place
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.near_weights import with_near_weights
from birc.compiler.passes.stored_exchanges import stored_exchanges
from birc.compiler.prove import new_prover
from birc.runtime.machine import Machine, load_machine

ROOMY = load_machine("tiny").with_values({"spcs_per_die": 4, "spc_sram_bytes": 1 << 18})
SOON = ("bert_base", "gpt2", "llama2l", "lstm")
TOLERANCE = 1e-4


def forms(plan: Plan, machine: Machine) -> Iterator[Plan]:
    """The plan as it is; with exchanges that kernels store; and with pairs that use the tensor buffers."""
    yield plan
    yield stored_exchanges(in_place(plan))
    pairs = local_chains(plan, machine, local_is_faster)
    if pairs is not None:
        yield stored_exchanges(in_place(pairs))


def with_most_near(one: Planned) -> Plan | None:
    """As many of the offers as there is room for, of those that are tried."""
    offers = one.offers()
    while offers:
        plan = with_near_weights(one.plan, offers, one.machine)
        if plan is not None:
            return plan
        offers = offers[: len(offers) * 3 // 4]
    return None


def cases() -> list[object]:
    targets = (("tiny", load_machine("tiny")), ("roomy", ROOMY), ("br100", load_machine("br100")))
    return [
        pytest.param(
            name,
            machine,
            id=f"{name}-{target}",
            marks=[] if name in SOON and target == "roomy" else [pytest.mark.slow],
        )
        for name in EXPORTED
        for target, machine in targets
    ]


@pytest.mark.parametrize(("name", "machine"), cases())
def test_networks_keep_their_values(name: str, machine: Machine) -> None:
    model, inputs, expected = exported_network(name)
    count = 0
    for one in planned(import_model(model), machine):
        for form in forms(one.plan, machine):
            plan = with_most_near(replace(one, plan=form))
            if plan is None:
                continue
            found = one.compiled(plan)
            count += len(fills(found.plan))
            found.verify()
            assert not [*new_prover().flaws(found.plan, machine)]
            values = found.values(inputs)
            for output, reference in expected.items():
                assert relative_error(values[output], reference) <= TOLERANCE
    assert count
