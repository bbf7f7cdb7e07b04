"""mdb-language.md 11.2 and 11.3: ::print, ::printf, ::sizeof, ::offsetof, ::list, ::array, of types declared here."""

from __future__ import annotations

import struct

import pytest

from tests.conformance.run import KERNEL, Machine

#: in the memory: two nodes that lead to one another, a text, and a ``struct all``
FIRST, SECOND, TEXT, ALL = KERNEL, KERNEL + 0x20, KERNEL + 0x80, KERNEL + 0x400
TYPES = """
struct node { struct node *next; int id; char name[8]; };
enum color { RED, GREEN, BLUE, WHITE };
enum bits { BIT_A = 1, BIT_B = 2, BIT_C = 4 };
typedef unsigned char u8_t;
typedef long time_t;
struct all {
    signed char c; unsigned char b; short s; unsigned u : 4, v : 12; int n : 3;
    struct node *self; void (*call)(void); char *text; enum color color; enum bits bits;
    int array[3]; struct node nodes[2]; union { int one; unsigned char bytes[4]; }; float f; double d; char plain;
    u8_t raw[4]; time_t when;
};
"""
NODE = struct.Struct("<QI8s4x")
WHOLE = struct.Struct("<bBhIQQQII3i4x24s24sIfdc4s3xq")


def memory() -> bytes:
    data = bytearray(0x1000)
    nodes = NODE.pack(SECOND, 1, b"first"), NODE.pack(FIRST, 18, b"second")
    data[:24], data[0x20:0x38] = nodes
    data[0x80:0x86] = b"words\0"
    data[0x400:0x400 + WHOLE.size] = WHOLE.pack(
        -1, 0xAA, -2, 0x5A3 << 4 | 0xC | 5 << 16, FIRST, KERNEL + 0x280, TEXT, 1, 5, 1, 2, 300, *nodes, 0x41424344, 1.5,
        -2.25, b"x", b"ab\0\0", 1_000_000_000)
    return bytes(data)


def machine() -> Machine:
    made = Machine(typed=memory())
    made.run("::typedef -c LP64")
    said = made.run(f"::typedef '{' '.join(TYPES.split())}'")
    assert not said.err
    return made


def run(line: str) -> str:
    said = machine().run(line)
    assert not said.err
    return said.out


@pytest.mark.parametrize("words, out", [
    pytest.param("::print 'struct all' c b s", "c = 0xff\nb = 0xaa\ns = 0xfffe\n", id="11.2-hexadecimal"),
    pytest.param("::print -d 'struct all' c s array", "c = -0t1\ns = -0t2\narray = [ 1, 2, 0t300 ]\n", id="11.2-d"),
    pytest.param("::print -x 'struct all' n", "n = 5\n", id="11.2-x"),
    pytest.param("::print struct all u v n", "u = 0xc\nv = 0x5a3\nn = -0t3\n", id="11.2-bit-fields"),
    pytest.param("::print -t struct all u n", "unsigned int u :4 = 0xc\nint n :3 = -0t3\n", id="11.2-t-bit-fields"),
    pytest.param("::print struct all self call", f"self = {FIRST:#x}\ncall = main\n", id="11.2-pointers"),
    pytest.param("::print -n struct all call", f"call = {KERNEL + 0x280:#x}\n", id="11.2-n"),
    pytest.param("::print struct all text", f'text = {TEXT:#x} "words"\n', id="11.2-a-string-behind-a-pointer"),
    pytest.param("::print struct all color bits", "color = 1 (GREEN)\nbits = 5 (BIT_{A|C})\n", id="11.2-enums"),
    pytest.param("::print struct all f d", "f = +1.5000000e+00\nd = -2.2500000e+00\n", id="11.2-floats"),
    pytest.param("::print struct all plain", "plain = 'x'\n", id="11.2-char"),
    pytest.param("::print struct all raw", "raw = [ 0x61, 0x62, 0, 0 ]\n", id="11.2-bytes-are-numbers"),
    pytest.param("::print -c 2 struct all self->name",
                 "self->name = [ 'f', 'i', 'r', 's', 't', '\\0', '\\0', '\\0' ]\n", id="11.2-c"),
    pytest.param("::print -C struct all self->name", 'self->name = [ "first" ]\n', id="11.2-C"),
    pytest.param("::print struct all when", "when = 2001 Sep  9 01:46:40\n", id="11.2-dates"),
    pytest.param("::print struct all one", "one = 0x41424344\n", id="11.2-members-of-anonymous-unions"),
    pytest.param("::print struct all self->name", 'self->name = [ "first" ]\n', id="11.2-arrow"),
    pytest.param("::print struct all self->next->id", "self->next->id = 0x12\n", id="11.2-arrows"),
    pytest.param("::print struct all .self->id ", ".self->id = 1\n", id="11.2-a-leading-dot"),
    pytest.param("::print struct all nodes[1].name", 'nodes[1].name = [ "second" ]\n', id="11.2-an-element"),
    pytest.param("::print struct all array[2]", "array[2] = 0x12c\n", id="11.2-a-number"),
    pytest.param("::print struct all self[1].id", "self[1].id = 0\n", id="11.2-steps-from-a-pointer"),
    pytest.param("::print struct all $[28]", "array[0] = 1\n", id="11.2-an-offset"),
    pytest.param("::print struct all array[0] $[20]", "array[0] = 1\ncolor = 1 (GREEN)\n", id="11.2-both"),
    pytest.param("::print -s 0 struct all nodes", "nodes = [ ... ]\n", id="11.2-s-0"),
    pytest.param("::print -s 1 struct all nodes", "nodes = [\n    { ... }\n    { ... }\n]\n", id="11.2-s-1"),
    pytest.param("::print -l 1 struct all array", "array = [ 1, ... ]\n", id="11.2-l"),
    pytest.param("::print -L struct all array", "array = [ 1, 2, 0x12c ]\n", id="11.2-L"),
    pytest.param("::print -a struct all c self", f"{ALL:x} c = 0xff\n{ALL + 8:x} self = {FIRST:#x}\n", id="11.2-a"),
    pytest.param("::print -t struct all self array",
                 f"struct node *self = {FIRST:#x}\nint [3] array = [ 1, 2, 0x12c ]\n",
                 id="11.2-t"),
    pytest.param("::print -T struct all when", "time_t <<long int>> when = 2001 Sep  9 01:46:40\n", id="11.2-T"),
])
def test_print(words: str, out: str) -> None:
    assert run(f"{ALL:x}{words}") == out


def test_11_2_a_base_type() -> None:
    assert run(f"{ALL:x}::print int") == "0xfffeaaff\n"
    assert run(f"{ALL + 0x28:x}::print unsigned long") == "0x200000001\n"


def test_11_2_a_structure() -> None:
    assert run(f"{FIRST:x}::print struct node") == (
        f'{{\n    next = {SECOND:#x}\n    id = 1\n    name = [ "first" ]\n}}\n')
    assert run(f"{FIRST:x}::print -at struct node") == (
        f"{FIRST:x} struct node {{\n    {FIRST:x} struct node *next = {SECOND:#x}\n    {FIRST + 8:x} int id = 1\n"
        f'    {FIRST + 12:x} char [8] name = [ "first" ]\n}}\n')


def test_11_2_a_member_that_is_a_structure_prefixes_its_members() -> None:
    assert run(f"{ALL:x}::print struct all nodes[0]") == (
        f'nodes[0] = {{\n    nodes[0].next = {SECOND:#x}\n    nodes[0].id = 1\n    nodes[0].name = [ "first" ]\n}}\n')
    assert run(f"{ALL:x}::print struct all self[0]").splitlines()[1] == f"    self->next = {SECOND:#x}"


def test_11_2_an_array_of_structures() -> None:
    lines = run(f"{ALL:x}::print struct all nodes").splitlines()
    assert (lines[0], lines[1], lines[5], lines[-1]) == ("nodes = [", "    {", "    },", "]")
    assert run(f"{ALL:x}::print -l 1 struct all nodes").splitlines()[-1] == "... ]"


def test_11_2_layout_without_an_address() -> None:
    said = machine().run("::print -at struct node")
    assert said.raw == "0 struct node {\n    0 struct node *next \n    8 int id \n    c char [8] name \n}\n"
    assert machine().run("::print struct node").raw == "{\n    next \n    id \n    name \n}\n"


def test_11_2_holes() -> None:
    assert "<<HOLE>>" in run(f"{ALL:x}::print -h struct all")
    assert "<<HOLE>>" not in run(f"{ALL:x}::print struct all")


def test_11_2_dot_goes_behind_the_object_so_that_a_count_prints_an_array() -> None:
    made = machine()
    made.run(f"{ALL:x}::print struct all c")
    assert made.session.dot == ALL + WHOLE.size
    assert run(f"{ALL + 0x28:x},3::print int") == "1\n2\n0x12c\n"


def test_11_2_i_takes_the_address_as_the_value() -> None:
    assert run("1::print -i enum color") == "1 (GREEN)\n"
    assert run("9::print -i enum color") == "9 (???)\n"
    assert run("-1::print -id int") == "-0t1\n"


def test_11_2_p_reads_physical_memory() -> None:
    assert run("400::print -p struct all b") == "b = 0xaa\n"


@pytest.mark.parametrize("words, values", [
    pytest.param("struct all self", [FIRST], id="11.2-pipe-pointer"),
    pytest.param("struct all b color", [0xAA, 1], id="11.2-pipe-numbers"),
    pytest.param("struct all nodes[1]", [ALL + 80], id="11.2-pipe-a-structure-is-its-address"),
    pytest.param("struct all array", [ALL + 40], id="11.2-pipe-an-array-is-its-address"),
    pytest.param("struct all f", [ALL + 108], id="11.2-pipe-a-float-is-its-address"),
    pytest.param("-a struct all b", [ALL + 1], id="11.2-pipe-a"),
    pytest.param("struct all", [ALL], id="11.2-pipe-the-whole"),
])
def test_into_a_pipe(words: str, values: list[int]) -> None:
    found = run(f"{ALL:x}::print {words} | ::map .").split()
    assert [int(value, 16) for value in found] == values


@pytest.mark.parametrize("words, error", [
    pytest.param("struct all nosuch", "failed to find member nosuch of struct all: no such member of structure",
                 id="15-no-member"),
    pytest.param("struct all c.x", "signed char is not a struct or union type", id="11.2-dot-of-a-number"),
    pytest.param("struct all nodes->x", "is not a pointer type", id="11.2-arrow-of-no-pointer"),
    pytest.param("struct all array[1", "no trailing ']'", id="11.2-no-bracket"),
    pytest.param("struct all c[1]", "cannot index into non-array, non-pointer type", id="11.2-no-array"),
    pytest.param("struct all %x", "'%' is not a valid delimiter", id="11.2-delimiter"),
    pytest.param("nosuch", "failed to look up type nosuch: no such type", id="15-no-type"),
    pytest.param("", "failed to look up type: no symbol information for 0x", id="11.2-no-symbol"),
    pytest.param("-z int", "illegal option -- z", id="15-option"),
    pytest.param("-s", "option requires an argument -- s", id="15-option-argument"),
])
def test_print_errors(words: str, error: str) -> None:
    said = machine().run(f"{ALL + 0x800:x}::print {words}")
    assert error in said.err
    assert said.status is not None
    assert said.status.name in ("ABORT", "USAGE")


def test_11_2_an_index_out_of_bounds_is_a_warning() -> None:
    said = machine().run(f"{ALL:x}::print struct all array[9]")
    assert said.out.startswith("array[9] = ")
    assert said.errors == ["::print: index 9 is outside of array bounds [0 .. 2]"]


def test_11_2_what_cannot_be_read() -> None:
    said = machine().run("f000000000000000::print struct node id")
    assert "no mapping for address" in said.err


@pytest.mark.parametrize("line, out", [
    pytest.param("::sizeof struct node", "sizeof (struct node) = 0x18\n", id="11.3-sizeof"),
    pytest.param("::sizeof int", "sizeof (int) = 4\n", id="11.3-sizeof-small"),
    pytest.param("::sizeof struct node | ::map .", "0x18\n", id="11.3-sizeof-in-a-pipe"),
    pytest.param("::offsetof struct node name", "offsetof (struct node, name) = 0xc, sizeof (...->name) = 8\n",
                 id="11.3-offsetof"),
    pytest.param("::offsetof struct all v", "offsetof (struct all, v) = 4.4\n", id="11.3-offsetof-a-bit-field"),
    pytest.param("::offsetof struct all v | ::map .", "", id="11.3-offsetof-not-byte-aligned"),
    pytest.param("::offsetof struct node id | ::map .", "8\n", id="11.3-offsetof-in-a-pipe"),
    pytest.param("::offsetof struct all nodes[1].id", "offsetof (struct all, nodes[1].id) = 0x58, "
                 "sizeof (...->nodes[1].id) = 4\n", id="11.3-offsetof-a-path"),
])
def test_sizes(line: str, out: str) -> None:
    assert machine().run(line).out == out


@pytest.mark.parametrize("words, out", [
    pytest.param('"%d %s\\n" struct node id name', "1 first\n", id="11.3-printf"),
    pytest.param("'%d\\n' struct node id", "1\\n\n", id="11.3-printf-single-quotes"),
    pytest.param('"%-6d|%6d|%06d" struct node id id id', "1     |     1|000001\n", id="11.3-printf-widths"),
    pytest.param('"%x" struct node .', f"{FIRST:x}\n", id="11.3-printf-dot"),
    pytest.param('"100%% %d" struct node id', "100% 1\n", id="11.3-printf-percent"),
])
def test_printf(words: str, out: str) -> None:
    assert run(f"{FIRST:x}::printf {words}") == out


def test_11_3_printf_of_many_values_is_one_line_without_a_newline_in_the_format() -> None:
    assert run(f"{FIRST:x}::list struct node next | ::printf '%d,' struct node id") == "1,18,\n"


@pytest.mark.parametrize("words, error", [
    pytest.param('"%z" struct node id', "illegal format string at or near 'z' (position 2)", id="11.3-letter"),
    pytest.param('"%d" struct node id id', "missing format specifiers (found 1, expected 2)", id="11.3-missing"),
    pytest.param('"%d %d" struct node id', "extra format specifiers (found 2, expected 1)", id="11.3-extra"),
    pytest.param('"%d" struct node', "at least one member must be specified", id="11.3-no-member"),
    pytest.param('"%d" struct node name', "expected integer type", id="11.3-integer"),
    pytest.param('"%a" struct node id', "expected pointer type", id="11.3-pointer"),
])
def test_printf_errors(words: str, error: str) -> None:
    assert error in machine().run(f"{FIRST:x}::printf {words}").err


@pytest.mark.parametrize("line, out", [
    pytest.param("::list struct node next", f"{FIRST:#x}\n{SECOND:#x}\n", id="11.1-list-ends-at-the-first"),
    pytest.param("::list $[0]", f"{FIRST:#x}\n{SECOND:#x}\n", id="11.1-list-by-offset"),
    pytest.param("::list struct node next n | ::map <n+1", f"{FIRST + 1:#x}\n{SECOND + 1:#x}\n",
                 id="11.1-list-variable"),
    pytest.param("::list struct node next | ::print id", "id = 1\nid = 0x12\n", id="11.1-list-passes-its-type"),
    pytest.param("::array struct node 2", f"{FIRST:#x}\n{FIRST + 24:#x}\n", id="11.1-array"),
    pytest.param("::array int 0t3 v | ::map <v", f"{FIRST:#x}\n{FIRST + 4:#x}\n{FIRST + 8:#x}\n",
                 id="11.1-array-variable"),
])
def test_list_and_array(line: str, out: str) -> None:
    assert run(f"{FIRST:x}{line}") == out


def test_11_1_list_needs_an_address() -> None:
    assert "an address is needed" in machine().run("::list struct node next").err


def test_11_1_array_of_more_elements_than_there_is_memory() -> None:
    for count in ("ffffffffffffffff", "7fffffffffffffff"):
        (error,) = machine().run(f"{FIRST:x}::array int {count} | ::count").errors
        assert error == f"::array: 0x{count} elements of 4 bytes at {FIRST:#x} go past the end of memory"


@pytest.mark.parametrize("line, out", [
    pytest.param("::enum color",
                 "      VALUE NAME\n          0 RED\n          1 GREEN\n          2 BLUE\n          3 WHITE\n",
                 id="11.6-enum"),
    pytest.param("::enum -x color", "   VALUE NAME\n       0 RED\n       1 GREEN\n       2 BLUE\n       3 WHITE\n",
                 id="11.6-enum-x"),
    pytest.param("::enum bits", "   VALUE NAME\n       1 BIT_A\n       2 BIT_B\n       4 BIT_C\n",
                 id="11.6-enum-of-bits"),
    pytest.param("::enum -e bits", "   VALUE NAME\n       1 A\n       2 B\n       4 C\n", id="11.6-enum-e"),
    pytest.param("2::enum color", "      VALUE NAME\n          2 BLUE\n", id="11.6-enum-of-a-value"),
    pytest.param("::enum color $[2]", "      VALUE NAME\n          2 BLUE\n", id="11.6-enum-of-an-immediate"),
    pytest.param("::enum color BLUE | ::map .", "2\n", id="11.6-enum-in-a-pipe"),
])
def test_enum(line: str, out: str) -> None:
    assert run(line) == out


@pytest.mark.parametrize("line, error", [
    pytest.param("::enum struct node", "'struct node': not an enumeration", id="11.6-no-enum"),
    pytest.param("::enum color PINK", """name "PINK" not in 'color'""", id="11.6-no-name"),
    pytest.param("9::enum color", "value 9 not in 'color'", id="11.6-no-value"),
])
def test_enum_errors(line: str, error: str) -> None:
    assert error in machine().run(line).err
