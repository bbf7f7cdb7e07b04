"""When a live target stands still: for a question, because somebody said so, or because it was found so."""

from __future__ import annotations

import pytest

from kshell.target.control import Control, ControlError, Point
from kshell.target.target import Cpu


class Machine(Control):
    """One that tells what was done to it."""

    transport = "a test"

    def __init__(self, *, running: bool = True, pause: bool = True) -> None:
        super().__init__(pause=pause)
        self.runs = self.found_running = running
        self.told = list[str]()

    def is_running(self) -> bool:
        return self.runs

    def halt(self) -> None:
        self.runs = False
        self.told.append("halt")

    def go(self) -> None:
        self.runs = True
        self.told.append("go")

    def read_cpus(self) -> list[Cpu]:
        return []

    def disconnect(self) -> None:
        self.told.append("disconnect")


def test_a_question_holds_it_once_and_lets_it_go() -> None:
    machine = Machine()
    before = machine.moment
    with machine.question(), machine.standing():
        assert not machine.runs
        within = machine.moment
    assert machine.told == ["halt", "go"]
    assert before < within < machine.moment


def test_without_pause_a_question_does_not_stop_it() -> None:
    machine = Machine(pause=False)
    with machine.question():
        assert machine.runs


def test_one_that_is_stopped_within_a_question_stays_stopped() -> None:
    machine = Machine()
    with machine.question():
        machine.stop()
    with machine.question():
        pass
    assert machine.told == ["halt"]
    machine.close()
    assert machine.told == ["halt", "go", "disconnect"]


def test_one_that_is_resumed_within_a_question_and_runs_into_a_breakpoint_stays_there() -> None:
    machine = Machine()
    with machine.question():
        machine.resume()
        machine.runs = False
        machine.stopped_itself()
    assert not machine.runs
    machine.close()
    assert machine.runs


@pytest.mark.parametrize("resumed", [False, True])
def test_one_found_stopped_is_left_as_it_is_at_the_end(resumed: bool) -> None:
    machine = Machine(running=False)
    with machine.question():
        if resumed:
            machine.resume()
    assert machine.runs is resumed
    machine.stop()
    machine.close()
    assert not machine.runs


def test_an_error_in_a_question_lets_it_go() -> None:
    machine = Machine()
    with pytest.raises(KeyError), machine.question():
        raise KeyError
    assert machine.runs


def test_what_a_transport_lacks_is_refused() -> None:
    machine = Machine()
    with pytest.raises(ControlError, match="a test"):
        machine.step(0)
    with pytest.raises(ControlError, match="a test"):
        machine.insert(Point("execute", 1))
    with pytest.raises(ControlError, match="a test"):
        machine.wait(0)
    with pytest.raises(ControlError, match="a test"):
        machine.set_register(0, "rip", 1)
