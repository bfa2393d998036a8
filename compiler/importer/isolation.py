"""Calls of onnx's own code in a process apart: there are models on which it crashes, or does not come to an end."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import warnings
from collections.abc import Callable
from typing import Final

from birc.runtime.errors import InternalError

MOST_GROWTH_BYTES: Final = 384 * 2**20
"""Memory that a call may take besides what there is when it begins, and `_BYTES_A_BYTE` times the model's own size."""

_BYTES_A_BYTE: Final = 8
_SHORTEST_SECONDS: Final = 0.5
_BYTES_A_SECOND: Final = 4_000_000
_MOST_WAITING: Final = 40  # times as long on the clock, should it wait for a lock that a lost thread held
_FINISHED: Final = b"\x01"
_PIECE: Final = 1 << 20


class Ended(Exception):
    """The call did not come to its end; the reason is a phrase."""


def isolated(call: Callable[[], bytes], model_bytes: int) -> bytes:
    """What `call` returns, from a copy of this process with bounded memory and processor time.

    Raises `Ended` when it crashes, or takes more than befits a model of `model_bytes`. Where processes cannot be copied
    it is called here.
    """
    if not hasattr(os, "fork"):
        return call()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the copy does without
        child = os.fork()
    if child == 0:
        os.close(reader)
        _run(call, writer, model_bytes)
    os.close(writer)
    try:
        with open(reader, "rb") as results:
            content = results.read()
    finally:
        _, status = os.waitpid(child, 0)
    if not content.endswith(_FINISHED):
        raise Ended(_reason(status))
    return content[: -len(_FINISHED)]


def _run(call: Callable[[], bytes], writer: int, model_bytes: int) -> None:
    """The life of the copy. It never returns, whatever happens."""
    try:
        _confine(model_bytes)
        content = memoryview(call() + _FINISHED)
        while content:
            content = content[os.write(writer, content[:_PIECE]) :]
    except BaseException:
        os._exit(1)
    os._exit(0)


def _confine(model_bytes: int) -> None:
    faulthandler.disable()  # a crash here is an answer, and nobody's news
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = _SHORTEST_SECONDS + model_bytes / _BYTES_A_SECOND
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _MOST_WAITING * seconds)
    there = _address_space_bytes()
    if there:
        most = there + MOST_GROWTH_BYTES + _BYTES_A_BYTE * model_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _address_space_bytes() -> int:
    """What this process has mapped; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _reason(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return "it takes more memory than it may"
    number = os.WTERMSIG(status)
    if number in (signal.SIGPROF, signal.SIGALRM, signal.SIGKILL, signal.SIGXCPU):
        return "it does not come to an end"
    if number not in set(signal.Signals):
        raise InternalError(f"a copy of the process ended by signal {number}")
    return f"it crashes ({signal.Signals(number).name})"
