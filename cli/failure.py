"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from typer import Abort, BadParameter, Exit

from birc.runtime.errors import EXIT_INTERRUPTED, EXIT_OK, BircError, InternalError, LimitError, UsageError

# What the command line's parser raises for wrong arguments; typer names only some of its subclasses.
_PARSER_ERROR: type[Exception] = BadParameter.__mro__[2]

_LONGEST_LINE = 20_000

_REPORTED_PACKAGES = ("birc", "numpy", "onnx", "ml_dtypes", "safetensors", "islpy", "networkx")


def exit_code_of(error: BaseException, arguments: Sequence[str], *, debug: bool) -> int:
    """Say on stderr what went wrong, in one line, and return the exit code. `debug` adds the traceback."""
    if isinstance(error, Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_OK
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return EXIT_OK
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    return _describe(error, arguments)


def _describe(error: BaseException, arguments: Sequence[str]) -> int:
    match error:
        case KeyboardInterrupt() | Abort():
            _say("interrupted")
            return EXIT_INTERRUPTED
        case InternalError():
            return _describe_bug(str(error), error, arguments)
        case BircError():
            _say(str(error))
            return error.exit_code
        case MemoryError():
            _say("this computer has not enough memory for it (a smaller model or batch may fit)")
            return LimitError.exit_code
    if isinstance(error, _PARSER_ERROR):
        message = _parser_message(error)
        if message:  # else the parser has printed the help instead
            _say(f"{message} (birc --help lists the commands, birc COMMAND --help the options)")
        return UsageError.exit_code
    return _describe_bug(f"{type(error).__name__}: {error}", error, arguments)


def _describe_bug(what: str, error: BaseException, arguments: Sequence[str]) -> int:
    _say(f"{what}; this is a bug in birc: please report it with {_write_report(error, arguments)}")
    return InternalError.exit_code


def _say(message: str) -> None:
    """One line of a bounded length, whatever the message holds: names in it come from files."""
    line = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in " ".join(message.split()))
    if len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]} ... ({len(line) - _LONGEST_LINE} more characters)"
    print(f"error: {line}", file=sys.stderr)


def _parser_message(error: BaseException) -> str:
    """The parser's sentence, with the name of the option that it means, without what its checker says of itself."""
    format_message = getattr(error, "format_message", None)
    return str(format_message() if format_message else error).replace("Value error, ", "").rstrip(".")


def _discard_output() -> None:
    """Whoever read our output has gone: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_report(error: BaseException, arguments: Sequence[str]) -> str:
    """Write what reproduces a bug to a file in the temporary folder; its path, or why there is none."""
    lines = [
        f"command: birc {' '.join(arguments)}",
        f"python: {platform.python_version()} on {platform.platform()}",
        *(f"{name}: {_version(name)}" for name in _REPORTED_PACKAGES),
        *(f"file {name}: SHA-256 {_digest(name)}" for name in arguments if Path(name).is_file()),
        "",
        *traceback.format_exception(error),
    ]
    text = "\n".join(lines)
    name = f"birc-bug-{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"
    path = Path(tempfile.gettempdir()) / name
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as failure:
        return f"--debug ({path} cannot be written: {failure.strerror})"
    return str(path)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _digest(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"
