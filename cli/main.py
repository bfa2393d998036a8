"""The command `birc`: the list of its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from birc.cli import asm, check, compile, disasm, explain, inspect, ops, opt, profile, run, targets, verify
from birc.cli.failure import exit_code_of
from birc.runtime.errors import EXIT_OK, exit_codes
from birc.runtime.version import birc_version

DEBUG_OPTION = "--debug"

COMMANDS = (
    compile.compile_command,
    run.run_command,
    profile.profile_command,
    inspect.inspect_command,
    disasm.disasm_command,
    verify.verify_command,
    asm.asm_command,
    targets.targets_command,
    ops.ops_command,
    opt.opt_command,
    check.check_command,
)

GROUPS = {"debug": ("Find out why the compiler did what it did.", (explain.explain_command,))}
"""Commands of two words: the first word, its help, and the functions behind the second words."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"birc {birc_version()}")
        raise typer.Exit


def _root(
    debug: Annotated[bool, typer.Option(DEBUG_OPTION, help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compile ONNX models for the Biren BR100 GPU and run them on a model of that chip."""


def application() -> typer.Typer:
    """The command line: one command for each function in `COMMANDS` and `GROUPS`."""
    codes = "Exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in exit_codes()) + "."
    app = typer.Typer(
        name="birc", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", epilog=codes
    )
    app.callback(epilog=codes)(_root)
    for command in COMMANDS:
        app.command(command_name(command))(command)
    for name, (doc, members) in GROUPS.items():
        group = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=doc)
        group.callback()(_group)  # else typer takes a group with one command for that command
        for member in members:
            group.command(command_name(member))(member)
        app.add_typer(group, name=name, help=doc)
    return app


def command_name(command: Callable[..., None]) -> str:
    """`compile` for the function `compile_command`."""
    return command.__name__.removesuffix("_command")


def _group() -> None:
    """A command of two words; the second says which."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own). Returns the exit code; prints errors on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG_OPTION in given
    rest = [argument for argument in given if argument != DEBUG_OPTION]
    try:
        command = typer.main.get_command(application())
        with command.make_context("birc", rest) as context:
            command.invoke(context)
        sys.stdout.flush()
    except BaseException as error:  # the last resort: a user never sees a traceback that was not asked for
        return exit_code_of(error, given, debug=debug)
    return EXIT_OK
