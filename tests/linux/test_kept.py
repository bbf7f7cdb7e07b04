"""What is kept of a target for the next questions goes with it."""

from __future__ import annotations

import gc
import weakref

import pytest

from kshell.target.open import open_target
from kshell.target.target import Target
from tests.commands.asking import ask
from tests.guest.image import GuestImage

pytest_plugins = ["tests.guest.fixtures"]
pytestmark = pytest.mark.guest


def test_what_is_kept_of_a_target_goes_with_it(guest_61: GuestImage) -> None:
    """Also where what is kept refers to the target: stacks, slabs, whose a page is."""
    def asked() -> weakref.ref[Target]:
        with open_target(str(guest_61.elf)) as target:
            for line in ("::stacks", "::kmastat", "init_task::whatis -a", "::walk proc | ::head -1 | ::whatis -a"):
                assert "kshell:" not in ask(target, line)
            assert len(target.kept) > 3
        assert not target.kept
        return weakref.ref(target)

    found = asked()
    gc.collect()
    assert found() is None


def test_it_is_found_again_when_the_memory_was_written(guest_61: GuestImage) -> None:
    with open_target(str(guest_61.elf), mode="c") as target:
        before = ask(target, "::stacks -c do_wait")
        kept = target.kept["unwinding"]
        assert ask(target, "::stacks -c do_wait") == before and target.kept["unwinding"] is kept
        target.kernel.write(target.symbol("jiffies").address, bytes(8))
        assert ask(target, "::stacks -c do_wait") == before and target.kept["unwinding"] is not kept
