"""The vendor's measurements, reproduced by programs with the vendor's mapping on the shipped machine file."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from birc.runtime.machine import load_machine
from birc.runtime.timing import simulate
from birc.runtime.timing.calibration import latency_range, quantile, shipped_calibrations
from birc.runtime.verifier import verify_program

CARD = load_machine("br104")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def anchors(monkeypatch: pytest.MonkeyPatch):
    """The modules of benchmarks/anchors by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"anchors.{name}")

    return module


@pytest.mark.parametrize(("threads", "low_us", "high_us"), [(512, 62, 64), (4096, 38, 40)])
def test_vector_additions_take_what_the_vendor_measured(anchors, threads, low_us, high_us):
    program = anchors("vector_add").vector_add(CARD, threads)
    verify_program(program, CARD)
    assert low_us <= CARD.cycles_to_us(simulate(program, CARD).latency_cycles) <= high_us


def test_vector_additions_are_limited_by_loads_in_flight(anchors):
    """With few threads twice the HBM hardly helps; with all of them it does."""
    faster = CARD.with_values({"hbm_bytes_per_cycle_per_section": 102.4})

    def gain(threads: int) -> float:
        program = anchors("vector_add").vector_add(CARD, threads)
        now, then = (simulate(program, machine).latency_cycles for machine in (CARD, faster))
        return (now - CARD.launch_cycles) / (then - CARD.launch_cycles)

    assert gain(512) < 1.3
    assert gain(4096) > 1.5


def test_bert_large_takes_what_the_vendor_measured(anchors):
    """16.14 ms a launch of 16 packs; 44.7 samples in a launch give 2,767 a second of a card."""
    bert = anchors("bert")
    result = simulate(bert.bert_large(CARD), CARD)
    milliseconds = CARD.cycles_to_us(result.latency_cycles) / 1000
    assert milliseconds == pytest.approx(16.14, rel=0.01)
    assert 44.7 / milliseconds * 1000 == pytest.approx(2766.7, rel=0.01)
    packs = result.spcs * bert.MACS_OF_A_PACK
    assert (result.useful_macs, result.counts.total().macs) == (packs, packs)
    assert abs(bert.MACS_OF_A_PACK - 167.5e9) < 0.1e9
    useful = result.ledger["tcore_useful"] / (result.spcs * result.latency_cycles)
    assert 0.6 < useful < 0.68
    # The weights leave the HBM once for all SPCs.
    weights = sum(image.num_bytes for image in bert.bert_large(CARD).constants)
    share = result.traffic["hbm"] / weights
    assert 1 <= share < 1.2


@pytest.mark.slow
def test_bert_large_is_a_right_program(anchors):
    verify_program(anchors("bert").bert_large(CARD), CARD)


def test_calibrated_sets_belong_to_the_shipped_machines():
    (calibration,) = shipped_calibrations()
    for name in ("br100", "br104", "tiny"):
        assert calibration.fits(load_machine(name))
    assert not calibration.fits(CARD.with_values({"semaphore_cycles": 11}))
    ranges = {name: (figure.low, figure.high) for name, figure in load_machine("br100").figures.items()}
    for values in calibration.sets:
        assert set(values) == set(calibration.nominal)
        assert all(ranges[name][0] <= value <= ranges[name][1] for name, value in values.items())


@pytest.mark.parametrize("number", [0, -1])
def test_calibrated_sets_reproduce_the_vector_additions(anchors, number):
    (calibration,) = shipped_calibrations()
    machine = CARD.with_values(calibration.sets[number])
    for threads, cycles in ((512, 63_000), (4096, 39_000)):
        program = anchors("vector_add").vector_add(machine, threads)
        assert simulate(program, machine).latency_cycles == pytest.approx(cycles, rel=0.02)


def test_the_range_of_an_anchor_is_narrow_and_that_of_an_unknown_machine_is_none(anchors):
    program = anchors("vector_add").vector_add(CARD, 4096)
    low, high = latency_range(program, CARD)
    assert 0.97 * 39_000 <= low <= high <= 1.03 * 39_000
    assert latency_range(program, CARD.with_values({"tb_latency_cycles": 77})) is None


def test_the_document_lists_every_estimate_with_its_value_and_range():
    text = (BENCHMARKS.parent / "docs" / "timing.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name, figure in load_machine("br100").figures.items():
        if figure.low is not None:
            cells = [cell.strip() for cell in rows[name].split("|")]
            stated = [cells[2], *cells[3].split(" to ")]
            assert [float(cell.replace(",", "")) for cell in stated] == [
                figure.value,
                figure.low,
                figure.high,
            ]


def test_quantiles_interpolate():
    assert quantile([10, 20, 30], 0.0) == 10
    assert quantile([10, 20, 30], 0.75) == 25
    assert quantile([7], 0.95) == 7
