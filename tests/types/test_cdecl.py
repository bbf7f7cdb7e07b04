"""C declarations: layouts against GCC's where there is one, known facts of the ABI everywhere, and what is refused."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshell.errors import KshellError, ParseError
from kshell.types.declared import Declared
from kshell.types.model import EnumType, Member, PointerType, StructType

INTEGERS = ["char", "signed char", "unsigned char", "short", "unsigned short", "int", "unsigned", "long",
            "unsigned long", "long long", "unsigned long long int", "_Bool"]
OTHERS = ["float", "double", "long double", "void *", "char *const", "int (*)(int, char *)", "enum color",
          "struct inner", "union either", "count_t"]
PRELUDE = """
enum color { RED, GREEN = 5, BLUE };
struct inner { char c; long l; short s; };
union either { int i; double d; char text[5]; };
typedef unsigned short count_t;
"""


def declared(text: str) -> Declared:
    source = Declared()
    source.declare(text)
    return source


def struct(text: str, name: str = "s") -> StructType:
    found = declared(text).find("struct", name)
    assert isinstance(found, StructType)
    return found


def places(type: StructType) -> list[tuple[str | None, int, int | None]]:
    return [(member.name, member.bit_offset, member.bit_size) for member in type.members]


@pytest.mark.parametrize(("text", "size", "expected"), [
    ("struct s { char a; int b; };", 8, [("a", 0, None), ("b", 32, None)]),
    ("struct s { int a; char b; };", 8, [("a", 0, None), ("b", 32, None)]),
    ("struct s { char a; long b; char c; };", 24, [("a", 0, None), ("b", 64, None), ("c", 128, None)]),
    ("struct s { char a; long b; } __attribute__((packed));", 9, [("a", 0, None), ("b", 8, None)]),
    ("struct __attribute__((aligned(32))) s { char a; };", 32, [("a", 0, None)]),
    ("struct s { char a; int b __attribute__((aligned(16))); };", 32, [("a", 0, None), ("b", 128, None)]),
    ("struct s { unsigned a : 3, b : 5; unsigned char c; };", 4, [("a", 0, 3), ("b", 3, 5), ("c", 8, None)]),
    ("struct s { unsigned a : 30; unsigned b : 5; };", 8, [("a", 0, 30), ("b", 32, 5)]),
    ("struct s { char a; int : 0; char b; };", 5, [("a", 0, None), ("b", 32, None)]),
    ("struct s { long a : 40; int b; };", 16, [("a", 0, 40), ("b", 64, None)]),
    ("struct s { int n; char data[]; };", 4, [("n", 0, None), ("data", 32, None)]),
    ("struct s { int m[2][3]; short k; };", 28, [("m", 0, None), ("k", 192, None)]),
    ("struct s { struct { int x, y; }; union { int a; long b; }; };", 16, [(None, 0, None), (None, 64, None)]),
])
def test_known_layouts(text: str, size: int, expected: list[tuple[str | None, int, int | None]]) -> None:
    found = struct(text)
    assert found.size == size
    assert places(found) == expected


def random_struct(source: random.Random, name: str) -> str:
    lines = []
    packed = source.random() < 0.2
    for number in range(source.randint(1, 9)):
        if source.random() < 0.35:
            kind = source.choice(INTEGERS)
            widths = {"_Bool": 1, "char": 8, "short": 16, "long": 64}
            limit = next((width for word, width in widths.items() if word in kind), 32)
            own = f"m{number} " if source.random() < 0.9 else ""
            lines.append(f"{kind} {own}: {source.randint(1 if own else 0, limit)};")
            continue
        kind = source.choice(INTEGERS + OTHERS)
        suffix = source.choice(["", "", "", "[3]", "[2][2]"])
        if "(*)" in kind:
            lines.append(kind.replace("(*)", f"(*m{number}{suffix})") + ";")
        else:
            lines.append(f"{kind} m{number}{suffix}" + (" __attribute__((aligned(8)))" * (source.random() < 0.1)) + ";")
    kind = "union" if source.random() < 0.15 else "struct"
    return f"{kind} {name} {{ {' '.join(lines)} }}" + " __attribute__((packed))" * packed + ";"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to compare with; the known layouts are tested anyway")
def test_layouts_are_those_of_gcc(tmp_path: Path) -> None:
    source = random.Random(5)
    texts = [random_struct(source, f"s{number}") for number in range(150)]
    ours = declared(PRELUDE + "\n".join(texts))
    program = ["#include <stdio.h>", "#include <stddef.h>", "#include <string.h>", PRELUDE, *texts, "int main(void) {"]
    wanted: list[str] = []
    for number, text in enumerate(texts):
        kind = text.split()[0]
        found = ours.find(kind, f"s{number}")
        assert isinstance(found, StructType)
        wanted.append(f"s{number} {found.size}")
        program.append(f'printf("s{number} %zu\\n", sizeof({kind} s{number}));')
        for member in found.members:
            name = f"s{number}.{member.name}"
            if member.bit_size is None:
                wanted.append(f"{name} {member.offset}")
                program.append(f'printf("{name} %zu\\n", offsetof({kind} s{number}, {member.name}));')
            else:  # the bits that a store of all ones sets
                wanted.append(f"{name} {bits(member, found.size or 0)}")
                program.append(f"{{ {kind} s{number} v; unsigned char b[sizeof v]; memset(&v, 0, sizeof v);"
                               f' v.{member.name} = -1; memcpy(b, &v, sizeof v); printf("{name} ");'
                               ' for (size_t i = 0; i < sizeof v; i++) printf("%02x", b[i]); puts(""); }')
    (tmp_path / "t.c").write_text("\n".join([*program, "return 0; }"]))
    subprocess.run(["gcc", "-w", "-o", str(tmp_path / "t"), str(tmp_path / "t.c")], check=True)
    got = subprocess.run([str(tmp_path / "t")], capture_output=True, text=True, check=True).stdout.splitlines()
    assert got == wanted
    assert len(wanted) > 700


def bits(member: Member, size: int) -> str:
    return (((1 << (member.bit_size or 0)) - 1) << member.bit_offset).to_bytes(size, "little").hex()


def test_declarators() -> None:
    source = declared("""
        struct node;                                   // a forward reference
        typedef int (*handler)(struct node *, void (*)(int), ...);
        struct node { struct node *next; handler call; int *(*table[4])(void); const volatile unsigned long int *p; };
        typedef struct node *list[2];
        enum flags { A = 1 << 0, B = 1 << 1, C = A | B, D = sizeof(struct node), E = -1 > 0 ? 3 : 4, F = 'x' };
        extern int variable; static inline int function(int a, char *argv[]);
    """)
    node = source.find("struct", "node")
    assert isinstance(node, StructType)
    following = node.member("next").type
    assert isinstance(following, PointerType) and following.target is node
    assert str(node.member("table").type) == "int *(*[4])(void)"
    assert str(node.member("p").type).split() == "const long unsigned int *".split() or node.member("p").type.size == 8
    assert node.size == 8 + 8 + 32 + 8
    flags = source.find("enum", "flags")
    assert isinstance(flags, EnumType)
    assert dict(flags.enumerators) == {"A": 1, "B": 2, "C": 3, "D": 56, "E": 4, "F": 120}
    assert source.find("", "list") is not None and source.find("", "list").size == 16  # type: ignore[union-attr]
    assert source.find("", "variable") is None


@pytest.mark.parametrize(("text", "told"), [
    ("struct s { struct s inner; };", "incomplete type struct s"),
    ("struct s { int a; int a; };", "duplicate name detected: a"),
    ("struct s { int a; struct { char a; }; };", "duplicate name detected: a"),
    ("struct s { int a[-1]; };", "Array lengths cannot be negative"),
    ("struct s { int a", "expected ;"),
    ("struct s { int a;", "Missing closing brace"),
    ("struct s { int 1a; };", "1a|not C|identifier"),
    ("struct s { foo_t a; };", "type foo_t does not exist"),
    ("struct s { int a : 33; };", "33 bits do not fit"),
    ("struct s { double a : 3; };", "a bit-field of double"),
    ("struct s { char a[]; int b; };", "flexible array is the last"),
    ("struct s { char a[0x7fffffffffffffff][8]; };", "larger than any memory"),
    ("struct s { int a; }; struct s { int b; };", "already in use"),
    ("typedef int a; typedef int a;", "typedef name a already exists"),
    ("enum e { A = 1 / 0 };", "division by zero"),
    ("enum e { A = B };", "no enumerator"),
    ("#include <stdio.h>\nint a;", "preprocessor"),
    ("struct s { " + "struct { " * 100 + "int a;" + " };" * 101, "nested too deeply"),
    ("typedef int " + "(" * 5000 + "a" + ")" * 5000 + ";", "nested too deeply"),
    ("enum e { A = " + "(" * 5000 + "1" + ")" * 5000 + " };", "nested too deeply"),
    ("/* never closed", "unterminated comment"),
    ("struct { int a; } @", "not C"),
])
def test_what_is_refused(text: str, told: str) -> None:
    source = Declared()
    with pytest.raises(KshellError, match=told):
        source.declare("typedef int kept;" + text)
    assert list(source.names()) == []  # all or nothing


def test_types_of_the_target_are_built_on_and_not_replaced() -> None:
    outer = {("struct", "list_head"): struct("struct list_head { struct list_head *next, *prev; };", "list_head")}
    source = Declared(lambda kind, name: outer.get((kind, name)))
    source.declare("struct mine { struct list_head links; int a; };")
    assert source.find("struct", "mine").size == 24  # type: ignore[union-attr]
    with pytest.raises(ParseError, match="already in use"):
        source.declare("struct list_head { int a; };")


def test_data_models() -> None:
    source = Declared()
    source.choose("ilp32")
    source.declare("struct s { char a; long b; char *c; };")
    assert source.find("struct", "s").size == 12  # type: ignore[union-attr]
    with pytest.raises(KshellError, match="intrinsic"):
        source.choose("LP64")
    with pytest.raises(KshellError, match="invalid data model"):
        Declared().choose("LLP64")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from("struct union enum { } ( ) [ ] * , ; : = int char long s a b 3 0x10 'c' typedef const "
                                "__attribute__ packed aligned sizeof ... - + / # \" //".split()), max_size=25))
def test_no_tokens_crash_the_parser(words: list[str]) -> None:
    try:
        declared(" ".join(words))
    except ParseError as error:
        assert 0 <= error.start <= error.end
    except KshellError:
        pass
