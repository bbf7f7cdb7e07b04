"""mdb-language.md section 6: how names are found, and how addresses get theirs."""

from __future__ import annotations

from tests.conformance.run import KERNEL, Case, Machine, cases, check

MANY = "".join(f"{KERNEL + 0x500:x}::nmadd {flags} {name};" for flags, name in (
    ("-o", "plain_name"), ("-o -s 8", "sized_name")))


def test_6_the_scope_of_the_kernel_leaves_modules_out() -> None:
    machine = Machine()
    assert machine.run("vmlinux`init_task=X; kernel`init_task=J; mod`helper=J").words.split()[1:] == [
        f"{KERNEL + 0x100:x}", f"{KERNEL + 0x300:x}"]
    for scope in ("vmlinux", "kernel"):
        assert "unknown symbol name" in machine.run(f"{scope}`helper=J").err


@cases(
    ("6-the-kernel-is-looked-at-before-its-modules", "jiffies=J", f"{KERNEL + 0x200:x}"),
    ("6-a-module-is-named-with-a-backquote", "mod`jiffies=J", f"{KERNEL + 0x310:x}"),
    ("6-a-private-symbol-comes-before-all", "1000::nmadd jiffies; jiffies=J", "added jiffies, value=1000 size=0 1000"),
    ("6-and-is-gone-when-deleted", "1000::nmadd jiffies; ::nmdel jiffies; jiffies=J",
     f"added jiffies, value=1000 size=0 deleted jiffies, value=1000 size=0 {KERNEL + 0x200:x}"),
    ("6-closest-symbol-not-above", "init_task+3f=p", "init_task+0x3f"),
    ("6-exactly", "init_task=p", "init_task"),
    ("6-a-small-offset-has-no-prefix", "init_task+8=p", "init_task+8"),
    ("6-a-name-of-a-module", "mod`helper+8=p", "mod`helper+8"),
    ("6-no-symbol-is-a-number", f"{KERNEL + 0x80:x}=p", f"0x{KERNEL + 0x80:x}"),
    ("6-the-offset-in-the-default-radix", "0t10$d; init_task+20=p", "init_task+0t20"),
    ("6-smart-mode-covers-the-size", "1000::nmadd -s 10 mine; mine+f=p; mine+10=p",
     "added mine, value=1000 size=10 mine+0xf 0x1010"),
    ("6-absolute-mode-ignores-sizes", "8$s; init_task+7=p; init_task+8=p", f"init_task+7 0x{KERNEL + 0x108:x}"),
    ("6-absolute-mode-goes-behind-the-size", "f000000000001000::nmadd mine; 100$s; mine+20=p; 0$s; mine+20=p",
     "added mine, value=f000000000001000 size=0 mine+0x20 0xf000000000001020"),
    ("6-the-distance-is-shown", "$s; 0t100$s; $s",
     "symbol matching distance = 0 (smart mode) symbol matching distance = 0x64 (absolute mode)"),
    ("6-set-s-is-the-same", "::set -s 8; init_task+8=p", f"0x{KERNEL + 0x108:x}"),
)
def test_names(case: Case) -> None:
    check(case._replace(typed=True))


@cases(
    ("6-unknown-name", "nosuch=J", "", "failed to dereference symbol: unknown symbol name"),
    ("6-unknown-in-a-module", "mod`init_task=J", "", "failed to dereference symbol: unknown symbol name"),
)
def test_unknown(case: Case) -> None:
    check(case._replace(typed=True))


def test_6_a_user_address_has_no_kernel_symbol() -> None:
    assert Machine(typed=True).run("1000=p").words == "0x1000"


def test_6_of_several_at_one_address_a_sized_one_is_preferred() -> None:
    machine = Machine(typed=True)
    machine.run(MANY)
    assert machine.run(f"{KERNEL + 0x500:x}=p").words == "sized_name"
