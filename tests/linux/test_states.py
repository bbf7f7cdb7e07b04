"""State letters of tasks, as ``task_state_to_char()`` makes them."""

from __future__ import annotations

import pytest

from kshell.linux.tasks import state_letter


@pytest.mark.parametrize("state, exit_state, letter", [
    (0, 0, "R"), (1, 0, "S"), (2, 0, "D"), (4, 0, "T"), (8, 0, "t"),
    (0, 0x10, "X"), (0, 0x20, "Z"), (0x80, 0x20, "Z"),  # TASK_DEAD
    (0x40, 0, "P"), (0x402, 0, "I"), (0x102, 0, "D"),  # TASK_KILLABLE
    (0x104, 0, "T"),  # TASK_STOPPED: __TASK_STOPPED | TASK_WAKEKILL
    (0x1000, 0, "D"), (0x8000, 0, "D"),  # TASK_RTLOCK_WAIT, TASK_FROZEN
    (0x800, 0, "R"),  # TASK_NEW
])
def test_state_letter(state: int, exit_state: int, letter: str) -> None:
    assert state_letter(state, exit_state) == letter
