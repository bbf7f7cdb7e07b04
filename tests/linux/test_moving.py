"""Lists of a target that runs: one that changes while it is followed is followed again; one that never ends is told."""

from __future__ import annotations

import pytest

from kshell.errors import Fault, FormatError, KshellError, Reason
from kshell.linux.lists import TRIES, chase
from kshell.memory.model import Memory

HEAD = 0x1000


class Moving(Memory):
    """A list of three whose links are wrong until it was flushed *until* times."""

    space = "kernel"

    def __init__(self, until: int, wrong: dict[int, int], moving: bool = True) -> None:
        self.until, self.wrong, self._moving, self.flushed = until, wrong, moving, 0

    @property
    def moving(self) -> bool:
        return self._moving

    def flush(self) -> None:
        self.flushed += 1
        super().flush()

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        links = {HEAD: 0x2000, 0x2000: 0x3000, 0x3000: 0x4000, 0x4000: HEAD}
        if self.flushed < self.until:
            links |= self.wrong
        if address not in links:
            return b"", Fault(address, size, Reason.NOT_MAPPED, space=self.space)
        return links[address].to_bytes(8, "little")[:size], None


@pytest.mark.parametrize("wrong", [{0x3000: 0x2000}, {0x3000: 0xDEAD000}, {0x2000: 0x2000}])
@pytest.mark.parametrize("until", [0, 1, TRIES - 1])
def test_followed_again(wrong: dict[int, int], until: int) -> None:
    memory = Moving(until, wrong)
    assert chase(memory, HEAD) == [0x2000, 0x3000, 0x4000]
    assert memory.flushed == until


@pytest.mark.parametrize("wrong, kind", [({0x3000: 0x2000}, FormatError), ({0x3000: 0xDEAD000}, Fault)])
def test_in_the_end_it_is_told(wrong: dict[int, int], kind: type[KshellError]) -> None:
    memory = Moving(TRIES, wrong)
    with pytest.raises(kind) as caught:
        chase(memory, HEAD)
    assert memory.flushed == TRIES - 1
    assert "it changes while it is read" in str(caught.value.hint)
    assert getattr(caught.value, "visited", None) == [0x2000, 0x3000] + ([0xDEAD000] if kind is Fault else [])


def test_what_stands_still_is_damaged_at_once() -> None:
    memory = Moving(1, {0x3000: 0x2000}, moving=False)
    with pytest.raises(FormatError):
        chase(memory, HEAD)
    assert memory.flushed == 0
