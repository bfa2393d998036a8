"""What is known to be done when a command starts: command processors, SPCs, copies, barriers and events.

An operation (a run on one die, a copy, a transfer of one die, a wait) is a bit; what a command processor
knows to be done is a set of bits. Barriers add the runs of a die or of all, waits add a copy and what was
known when it was started.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from birc.runtime.program import Program
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.stream import Issue


@dataclass(slots=True)
class _Die:
    known: int = 0  # operations done for certain before the next command
    runs: int = 0  # all runs enqueued so far
    events: dict[int, int] = field(default_factory=dict)  # set and not yet waited for: what setting it tells
    waits: dict[int, int] = field(default_factory=dict)  # the last wait for each event, an operation as well


class Ordering:
    """The command processors of a program, command by command in the sequential order."""

    def __init__(self, program: Program, findings: Findings) -> None:
        self._dies = [_Die() for _ in range(program.dies)]
        self._findings = findings
        self._operations = 0

    def known(self, die: int) -> int:
        """The operations that are done whenever the die's next command starts."""
        return self._dies[die].known

    def known_everywhere(self) -> int:
        """The operations that every die knows to be done."""
        common = -1
        for die in self._dies:
            common &= die.known
        return common

    def start(self) -> int:
        """A number for a new operation."""
        self._operations += 1
        return self._operations - 1

    def run(self, die: int) -> int:
        """A kernel is enqueued on a die; returns its operation."""
        operation = self.start()
        self._dies[die].runs |= 1 << operation
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
        if issue.operand("scope") == "die":
            for number, die in enumerate(self._dies):
                if issue.command.dies >> number & 1:
                    die.known |= die.runs
            return
        if issue.command.dies != (1 << len(self._dies)) - 1:
            what = f"a device barrier on dies {issue.command.dies:#b} only"
            self._findings.add(issue.text, what, "every die takes part in a device barrier")
            return
        told = 0
        for die in self._dies:
            told |= die.known | die.runs
        for die in self._dies:
            die.known = told

    def finish(self) -> None:
        """No event may be left set: the next call would take it for its own."""
        for number, die in enumerate(self._dies):
            for event in die.events:
                what = f"event {event} of die {number} is set and never waited for"
                self._findings.add("end of the program", what, "events are clear between calls")

    def _set(self, issue: Issue, die: int, told: int) -> None:
        event = issue.number("event")
        events = self._dies[die].events
        if event in events:
            what = f"event {event} of die {die} is set again before it was waited for"
            self._findings.add(issue.text, what, "one wait between two sets")
        events[event] = told
