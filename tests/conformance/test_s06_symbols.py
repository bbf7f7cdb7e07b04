"""Section 6: scopes of symbols."""

from __future__ import annotations

from tests.conformance.run import KERNEL, Machine


def test_6_the_scope_of_the_kernel_leaves_modules_out() -> None:
    machine = Machine()
    assert machine.run("vmlinux`init_task=X; kernel`init_task=J; mod`helper=J").words.split()[1:] == [
        f"{KERNEL + 0x100:x}", f"{KERNEL + 0x300:x}"]
    for scope in ("vmlinux", "kernel"):
        assert "unknown symbol name" in machine.run(f"{scope}`helper=J").err
