"""The errors: exit codes as published, messages on one line."""

from __future__ import annotations

import copy

import pytest

from birc.runtime import errors
from birc.runtime.errors import ERRORS, BadPackageError, BircError, InternalError, exit_codes

PUBLISHED = {
    0: "success",
    1: "internal error: a bug in birc",
    2: "wrong usage",
    3: "bad or unreadable model",
    4: "unsupported operators",
    5: "does not fit the target",
    6: "bad package",
    7: "numeric mismatch",
    8: "time or memory limit reached",
    130: "interrupted",
}


def test_exit_codes_are_the_published_ones():
    assert dict(exit_codes()) == PUBLISHED
    assert [code for code, _ in exit_codes()] == sorted(PUBLISHED)


def test_every_error_class_is_in_the_table():
    declared = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BircError)}
    assert declared - {BircError} == set(ERRORS)


def test_an_unforeseen_error_counts_as_internal():
    assert BircError.exit_code == InternalError.exit_code == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InternalError("a gap of 3 cycles"), "a gap of 3 cycles"),
        (InternalError("a gap", where="spc 4"), "spc 4: a gap"),
        (InternalError("too long", hint="split it"), "too long (split it)"),
        (InternalError("too\n long", where="node 'x'", hint="a\tb"), "node 'x': too long (a b)"),
    ],
)
def test_the_message_is_one_line(error, text):
    assert str(error) == text


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_survive_a_copy(kind):
    """Worker processes hand errors over by copying; all fields arrive."""
    twin = copy.copy(kind("what", where="where", hint="hint"))
    assert type(twin) is kind
    assert (twin.what, twin.where, twin.hint) == ("what", "where", "hint")


def test_fields_can_be_read_back():
    error = BadPackageError("hash differs", where="weights.safetensors", hint="compile again")
    assert (error.what, error.where, error.hint) == ("hash differs", "weights.safetensors", "compile again")
