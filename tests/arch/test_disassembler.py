"""The disassembler: names in operands, bytes that are no instruction, memory with holes, and objdump as an oracle."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kshell.arch.disassembler import Disassembler
from kshell.errors import Fault, KshellError
from kshell.target.open import open_target
from tests.guest.image import GuestImage
from tests.value.universe import Bytes

AT = 0xFFFF_FFFF_8100_0000
NAMES = {AT + 0x100: "schedule", AT + 0x2000: "jiffies", AT + 0x3000: "message"}
PERCPU = {0x1FB80: "current_task"}
CODE = Disassembler("x86_64", NAMES.get, PERCPU.get)


def memory(data: bytes, address: int = AT) -> Bytes:
    return Bytes({address: data})


@pytest.mark.parametrize(("data", "text"), [
    ("55", "push   %rbp"),
    ("c3", "ret"),
    ("e8fb000000", "call   0xffffffff81000100  <schedule>"),
    ("0f84fa000000", "je     0xffffffff81000100  <schedule>"),
    ("e900010000", "jmp    0xffffffff81000105"),
    ("488b05f91f0000", "movq   0x1ff9(%rip), %rax  <jiffies>"),
    ("65488b1c2580fb0100", "movq   %gs:0x1fb80, %rbx  <current_task>"),
    ("65ff0579fb017f", "incl   %gs:0x7f01fb79(%rip)  <current_task>"),
    ("48c7c700300081", "movq   $0xffffffff81003000, %rdi  <message>"),
    ("488b04c500200081", "movq   -0x7effe000(, %rax, 8), %rax  <jiffies>"),
    ("83e009", "andl   $9, %eax"),
])
def test_one_instruction(data: str, text: str) -> None:
    raw = bytes.fromhex(data)
    found = CODE.one(memory(raw), AT)
    assert (str(found), found.size, found.data) == (text, len(raw), raw)


def test_what_is_no_instruction_or_not_there() -> None:
    with pytest.raises(KshellError, match="no instruction at 0xffffffff81000000"):
        CODE.one(memory(b"\x06" * 16), AT)
    with pytest.raises(Fault):
        CODE.one(memory(b"\xe8\x00"), AT)
    with pytest.raises(KshellError, match="cannot disassemble aarch64"):
        Disassembler("aarch64", NAMES.get, PERCPU.get)


def test_a_run_goes_on_behind_bad_bytes() -> None:
    found = list(CODE.run(memory(b"\x55\x06\x5d\xc3" + bytes(32)), AT, AT + 4))
    assert [one.text for one in found] == ["push   %rbp", ".byte 0x06", "pop    %rbp", "ret"]


def test_a_run_names_what_cannot_be_read_and_goes_on_with_the_next_page() -> None:
    holes = Bytes({AT: b"\x90" * 0xFFE + b"\xe8\x00", AT + 0x2000: b"\xc3" + b"\x90" * 64})
    found = list(CODE.run(holes, AT + 0xFFD, AT + 0x2001))
    gone = "??? (no mapping for address)"
    assert [(one.address - AT, one.size, one.text) for one in found] == [
        (0xFFD, 1, "nop"), (0xFFE, 2, gone), (0x1000, 0x1000, gone), (0x2000, 1, "ret")]


def test_a_run_over_many_pieces_misses_nothing() -> None:
    found = list(CODE.run(memory(b"\x48\x89\xc3" * 3000 + bytes(16)), AT, AT + 9000))
    assert [one.address for one in found] == list(range(AT, AT + 9000, 3))


def test_the_end_of_the_address_space() -> None:
    top = (1 << 64) - 4
    assert [one.text for one in CODE.run(memory(b"\x90\x90\x90\xc3", top), top)] == ["nop", "nop", "nop", "ret"]


def test_what_comes_before_an_address() -> None:
    data = b"\x55" + b"\x48\x89\xc3" * 5 + b"\xc3"
    for address, start, addresses, boundary in (
        (13, AT, [4, 7, 10], 13), (12, AT, [1, 4, 7], 10), (0, AT, [], 0), (13, None, [4, 7, 10], 13), (0, None, [], 0),
    ):
        found, after = CODE.before(memory(data), AT + address, 3, start)
        assert ([one.address - AT for one in found], after - AT) == (addresses, boundary)
    assert CODE.before(memory(data), AT + 13, 0, AT) == ([], AT + 13)


@pytest.mark.guest
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.parametrize("name", ["schedule", "do_exit", "entry_SYSCALL_64", "copy_process", "memcpy"])
def test_functions_of_a_kernel_against_objdump(name: str, guest_61: GuestImage, tmp_path: Path) -> None:
    with open_target(str(guest_61.elf)) as target:
        symbol = target.symbol(name)
        data = target.kernel.read(symbol.address, symbol.size)
        code = Disassembler("x86_64", lambda _: None, lambda _: None)
        found = [one.address for one in code.run(target.kernel, symbol.address, symbol.address + symbol.size)]
    (tmp_path / "code").write_bytes(data)
    text = subprocess.run(
        ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", f"--adjust-vma={symbol.address:#x}",
         str(tmp_path / "code")], capture_output=True, text=True, check=True).stdout
    # lines of bytes only go on with the instruction above
    lines = re.findall(r"(?m)^ *([0-9a-f]{16}):\t[0-9a-f ]+\t", text)
    assert found == [int(line, 16) for line in lines]


def test_addresses_in_operands() -> None:
    code = bytes.fromhex("48c7c660715281"  # mov $0xffffffff81527160,%rsi
                         "488b0510000000"  # mov 0x10(%rip),%rax
                         "488b04c520e6d481"  # mov -0x7e2b19e0(,%rax,8),%rax
                         "65488b0425c0fb0100"  # mov %gs:0x1fbc0,%rax
                         "06")  # no instruction
    told = list(CODE.addresses(memory(code), AT, len(code)))
    assert told == [0xFFFF_FFFF_8152_7160, AT + 14 + 0x10, 0xFFFF_FFFF_81D4_E620]
    assert list(CODE.addresses(memory(code), AT, 7)) == told[:1]
    assert list(CODE.addresses(memory(code), 0x1000, 64)) == []
