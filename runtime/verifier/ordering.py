"""What is known to be done when a command starts: command processors, SPCs, copies, barriers and events.

An operation (a run on one die with its preload, a copy, a transfer of one die, a wait) is a bit; what a
command processor knows to be done is a set of bits. Barriers add the runs of a die or of all, waits add a
copy and what was known when it was started. Where SPCs wait for each other alone, it is them who know the runs before:
the kernels that follow are ordered, copies are not. Those of the other die tell as well what its processor knew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from birc.runtime.program import Program
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.stream import Issue

LIMIT_PRELOAD = "a preload is followed by the run of its kernel, with the slots and the launch as they are"


@dataclass(slots=True)
class _Die:
    known: int = 0  # operations done for certain before the next command
    runs: int = 0  # all runs enqueued so far
    met: int = 0  # what was done before all SPCs met
    behind: int = 0  # the same for the last run
    events: dict[int, int] = field(default_factory=dict)  # set and not yet waited for: what setting it tells
    waits: dict[int, int] = field(default_factory=dict)  # the last wait for each event, an operation as well
    preload: tuple[int, int] | None = None  # kernel and operation of what is still to be run
    last: int | None = None  # the last run enqueued


class Ordering:
    """The command processors of a program, command by command in the sequential order."""

    def __init__(self, program: Program, findings: Findings) -> None:
        self._dies = [_Die() for _ in range(program.dies)]
        self._findings = findings
        self._operations = 0

    def known(self, die: int) -> int:
        """The operations that are done whenever the die's next command starts."""
        return self._dies[die].known

    def met(self, die: int) -> int:
        """What is done whenever a kernel of the die starts that is enqueued next."""
        return self._dies[die].met

    def known_everywhere(self) -> int:
        """The operations that every die knows to be done."""
        common = -1
        for die in self._dies:
            common &= die.known
        return common

    def last_run(self, die: int) -> int | None:
        """The run that was enqueued last on a die: beside it a preload loads, also on the same SPC."""
        return self._dies[die].last

    def start(self) -> int:
        """A number for a new operation."""
        self._operations += 1
        return self._operations - 1

    def preload(self, issue: Issue, die: int) -> int:
        """A kernel begins to load ahead of its run; returns its operation, for which no barrier waits before it."""
        self.undisturbed(issue, die)
        operation = self.start()
        self._dies[die].preload = issue.number("kernel"), operation
        return operation

    def undisturbed(self, issue: Issue, die: int) -> None:
        """The command must not come between a kernel's preload and its run."""
        if self._dies[die].preload is not None:
            what = f"comes on die {die} between the preload of a kernel and its run"
            self._findings.add(issue.text, what, LIMIT_PRELOAD)

    def run(self, issue: Issue, die: int) -> int:
        """A kernel is enqueued on a die, unless it was by its preload; returns its operation."""
        preload = self._dies[die].preload
        self._dies[die].preload = None
        if preload is None:
            operation = self.start()
        else:
            kernel, operation = preload
            if kernel != issue.number("kernel"):
                what = f"runs kernel {issue.number('kernel')} on die {die}, where the preload was of kernel {kernel}"
                self._findings.add(issue.text, what, LIMIT_PRELOAD)
        self._dies[die].runs |= 1 << operation
        self._dies[die].last = operation
        self._dies[die].behind = self._dies[die].met
        return operation

    def copy_done(self, issue: Issue, die: int, operation: int, known: int) -> None:
        """A copy that starts now will set its event."""
        self._set(issue, die, known | 1 << operation)

    def transfer_done(self, issue: Issue, operations: dict[int, int], known: dict[int, int]) -> None:
        """Transfers, by sending die, that start now; their event is set on both dies when all are done."""
        told = 0
        for die, operation in operations.items():
            told |= known[die] | 1 << operation
        event = issue.number("event")
        for number, state in enumerate(self._dies):
            last = state.waits.get(event)
            if last is not None and not told >> last & 1:
                what = f"may set event {event} of die {number} before that waited for the event's last use"
                self._findings.add(issue.text, what, "dies use an event again in an order that both know")
            self._set(issue, number, told)

    def wait(self, issue: Issue, number: int) -> None:
        """A die waits for an event."""
        event = issue.number("event")
        die = self._dies[number]
        told = die.events.pop(event, None)
        if told is None:
            what = f"die {number} waits for event {event}, which nothing before sets"
            self._findings.add(issue.text, what, "every wait has its copy or transfer before it")
            return
        die.waits[event] = self.start()
        die.known |= told | 1 << die.waits[event]

    def barrier(self, issue: Issue) -> None:
        """A barrier on the dies of the command."""
        if issue.operand("scope") == "spcs":
            for number, die in enumerate(self._dies):
                if issue.command.dies >> number & 1:
                    die.met |= die.runs
            return
        if issue.operand("scope") == "die":
            for number, die in enumerate(self._dies):
                if issue.command.dies >> number & 1:
                    die.known |= die.runs | die.behind
            return
        if issue.command.dies != (1 << len(self._dies)) - 1:
            what = f"a barrier of scope {issue.operand('scope')} on dies {issue.command.dies:#b} only"
            self._findings.add(issue.text, what, "every die takes part in it")
            return
        told = 0
        for die in self._dies:
            told |= die.known | die.runs | die.behind
        for die in self._dies:
            if issue.operand("scope") == "device":
                die.known = told
            else:
                die.met |= told

    def finish(self) -> None:
        """No event may be left set: the next call would take it for its own."""
        for number, die in enumerate(self._dies):
            for event in die.events:
                what = f"event {event} of die {number} is set and never waited for"
                self._findings.add("end of the program", what, "events are clear between calls")
            if die.preload is not None:
                what = f"kernel {die.preload[0]} was preloaded on die {number} and never run"
                self._findings.add("end of the program", what, LIMIT_PRELOAD)

    def _set(self, issue: Issue, die: int, told: int) -> None:
        event = issue.number("event")
        events = self._dies[die].events
        if event in events:
            what = f"event {event} of die {die} is set again before it was waited for"
            self._findings.add(issue.text, what, "one wait between two sets")
        events[event] = told
