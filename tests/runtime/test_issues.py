"""The unrolled command stream, and the dies that it is for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from birc.runtime.program import Command, CommandLoop, Program
from birc.runtime.timing.issues import dies_of, issues

COMMANDS = st.integers(0, 3).map(lambda dies: Command("barrier", ("die",), dies))
ITEMS = st.recursive(
    st.lists(COMMANDS, max_size=4),
    lambda inner: st.lists(
        COMMANDS | st.builds(lambda n, body: CommandLoop(n, tuple(body)), st.integers(1, 3), inner), max_size=4
    ),
    max_leaves=12,
)


@given(ITEMS)
def test_the_dies_are_those_of_all_commands(items: list[Command | CommandLoop]) -> None:
    program = Program("p", "tiny", "", 2, 0, 0, 0, (), (), tuple(items), (), (), (), 0)
    found = {bit for issue in issues(program) for bit in (1, 2) if issue.command.dies & bit}
    assert dies_of(program.commands) == sum(found)
