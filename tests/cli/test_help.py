"""The help of every command, and the form of the command line itself."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from birc.cli.main import COMMANDS, GROUPS, command_name
from birc.runtime.errors import exit_codes
from birc.runtime.version import birc_version

SINGLE = {command_name(command): command for command in COMMANDS}
NAMES = [*SINGLE, *GROUPS]
PATHS = SINGLE | {
    f"{group} {command_name(command)}": command for group, (_, members) in GROUPS.items() for command in members
}


def test_the_published_commands_are_there():
    single = "compile, run, profile, inspect, disasm, verify, asm, targets, ops, opt, check"
    assert ", ".join(PATHS) == f"{single}, debug explain"


def test_the_list_of_commands_says_what_exit_codes_mean(birc):
    outcome = birc("--help")
    assert outcome.code == 0
    flat = " ".join(outcome.out.split())
    assert all(f" {name} " in flat for name in NAMES)
    for code, meaning in exit_codes():
        assert f"{code} {meaning}" in flat


@pytest.mark.parametrize("name", PATHS)
def test_every_command_has_help_with_examples(birc, name):
    outcome = birc(*name.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert "Examples:" in outcome.out
    assert re.search(rf"birc {name}\b", outcome.out.split("Examples:")[1])


@pytest.mark.parametrize(("name", "command"), PATHS.items(), ids=PATHS)
def test_every_option_of_an_example_exists(birc, name, command):
    """An example may only use options that the command has."""
    used = set(re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", command.__doc__.split("Examples:")[1]))
    known = birc(*name.split(), "--help").out
    assert [option for option in used if option not in known] == []


def test_without_arguments_it_lists_the_commands(birc):
    outcome = birc()
    assert outcome.code == 2
    assert "compile" in outcome.out + outcome.err
    assert "error:" not in outcome.err


def test_version(birc):
    assert birc("--version").out == f"birc {birc_version()}\n"


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "birc.cli", "targets"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "br100" in done.stdout
    assert done.stderr == ""


def test_runtime_commands_do_not_load_the_compiler(packed):
    """onnx, islpy and networkx take a second to import; `birc verify` needs none of them."""
    program = (
        "import sys; from birc.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'onnx', 'islpy', 'networkx'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "verify", str(packed)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
