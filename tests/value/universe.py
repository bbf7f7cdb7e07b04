"""A small universe of C types, a memory of bytes with gaps, and a target over them; for tests."""

from __future__ import annotations

from collections.abc import Mapping

from kshell.errors import Fault, Reason, TypeNotFoundError
from kshell.memory.model import Memory
from kshell.types.model import (
    ArrayType,
    CType,
    Enumerator,
    EnumType,
    FloatType,
    FunctionType,
    IntType,
    Kind,
    Member,
    PointerType,
    QualifiedType,
    StructType,
    Symbol,
    TypedefType,
    VoidType,
)

VOID = VoidType()
CHAR = IntType("char", 1, True, Kind.CHAR)
U8 = IntType("unsigned char", 1, False)
S16 = IntType("short", 2, True)
INT = IntType("int", 4, True)
UINT = IntType("unsigned int", 4, False)
LONG = IntType("long", 8, True)
ULONG = IntType("unsigned long", 8, False)
BOOL = IntType("_Bool", 1, False, Kind.BOOL)
FLOAT = FloatType("float", 4)
DOUBLE = FloatType("double", 8)
PID_T = TypedefType("pid_t", INT)
TIME64_T = TypedefType("time64_t", LONG)

LIST_HEAD: StructType = StructType("list_head", 16, lambda: [
    Member("next", LIST_POINTER, 0), Member("prev", LIST_POINTER, 64),
])
LIST_POINTER: PointerType = PointerType(lambda: LIST_HEAD)

PID_TYPE = EnumType("pid_type", 4, False, [
    Enumerator("PIDTYPE_PID", 0), Enumerator("PIDTYPE_TGID", 1), Enumerator("PIDTYPE_PGID", 2),
    Enumerator("PIDTYPE_SID", 3), Enumerator("PIDTYPE_MAX", 12),
])
FLAGS = EnumType("fl", 4, False, [Enumerator("FL_NONE", 0), Enumerator("FL_A", 1), Enumerator("FL_B", 2),
                                  Enumerator("FL_C", 16)])

MM: StructType = StructType("mm_struct", 24, lambda: [
    Member("mmap_base", ULONG, 0), Member("pgd", PointerType(ULONG), 64), Member("users", ATOMIC_T, 128),
])
ATOMIC_T: TypedefType = TypedefType("atomic_t", StructType(None, 4, [Member("counter", INT, 0)]))

#: struct with a hole after flags, bit-fields over a byte boundary, and an anonymous union
TASK: StructType = StructType("task_struct", 168, lambda: [
    Member("thread_info", StructType("thread_info", 16, [Member("flags", ULONG, 0), Member("status", UINT, 64)]), 0),
    Member("pid", PID_T, 128),                                  # 16
    Member("kind", PID_TYPE, 160),                              # 20
    Member("comm", ArrayType(CHAR, 16), 192),                   # 24
    Member("parent", PointerType(lambda: TASK), 320),           # 40
    Member("mm", PointerType(MM), 384),                         # 48
    Member("tasks", LIST_HEAD, 448),                            # 56
    Member("in_execve", UINT, 576, 1),                          # 72
    Member("level", INT, 577, 3),
    Member("wide", UINT, 582, 11),
    Member(None, StructType(None, 8, [Member("rcu_users", INT, 0), Member("rcu", ULONG, 0)], Kind.UNION), 640),  # 80
    Member("name", PointerType(QualifiedType("const", CHAR)), 704),     # 88
    Member("open", PointerType(FunctionType(INT, [("task", lambda: PointerType(TASK))])), 768),     # 96
    Member("table", ArrayType(ArrayType(S16, 2), 2), 832),      # 104
    Member("lists", ArrayType(LIST_HEAD, 2), 896),              # 112
    Member("start", TIME64_T, 1152),                            # 144
    Member("load", FLOAT, 1216),                                # 152
    Member("ready", BOOL, 1248),                                # 156
    Member("letter", CHAR, 1256),                               # 157
    Member("data", PointerType(VOID), 1280),                    # 160
    Member("rest", ArrayType(U8, 0), 1344),                     # 168
])

TYPES: dict[str, CType] = {
    "struct list_head": LIST_HEAD, "struct task_struct": TASK, "task_struct": TASK, "struct mm_struct": MM,
    "pid_t": PID_T, "int": INT, "char": CHAR, "unsigned long": ULONG, "atomic_t": ATOMIC_T,
    "enum pid_type": PID_TYPE, "struct list_head *": LIST_POINTER, "struct task_struct *": PointerType(TASK),
}


class Bytes(Memory):
    """Runs of bytes at addresses, nothing between them; counts its reads."""

    space = "kernel"

    def __init__(self, runs: Mapping[int, bytes]) -> None:
        self.runs = {start: bytearray(data) for start, data in runs.items()}
        self.reads = 0

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        self.reads += 1
        if size == 0:
            return b"", None
        for start, data in self.runs.items():
            if start <= address < start + len(data):
                piece = bytes(data[address - start : address - start + size])
                break
        else:
            piece = b""
        if len(piece) == size:
            return piece, None
        fault = Fault(address + len(piece), size, Reason.NOT_MAPPED, partial=piece, space=self.space)
        return piece, fault

    def put(self, address: int, data: bytes) -> None:
        for start, run in self.runs.items():
            if start <= address and address + len(data) <= start + len(run):
                run[address - start : address - start + len(data)] = data
                return
        raise AssertionError(f"no run holds 0x{address:x}")


class Arch:
    def __init__(self, byteorder: str = "little") -> None:
        self.byteorder, self.pointer_size = byteorder, 8


class FakeTarget:
    """What values need of a target, over :class:`Bytes`."""

    def __init__(self, memory: Bytes, symbols: tuple[Symbol, ...] = (), order: str = "little") -> None:
        self.kernel: Memory = memory
        self.memory = memory
        self.arch = Arch(order)
        self.symbols = symbols
        self.types: dict[str, CType] = {}

    def type(self, name: str) -> CType:
        if name not in TYPES:
            raise TypeNotFoundError(name)
        return TYPES[name]

    def symbolize(self, address: int) -> tuple[Symbol, int] | None:
        for symbol in self.symbols:
            if symbol.address <= address < symbol.address + max(symbol.size, 1):
                return symbol, address - symbol.address
        return None

    def type_of(self, symbol: Symbol) -> CType | None:
        return self.types.get(symbol.name)

    def untyped(self) -> str:
        return "name the type"


BASE = 0xFFFF888003A5C000
INIT_TASK = 0xFFFFFFFF82A10000


def build() -> FakeTarget:
    """Return a target with init_task, two more tasks in a page at BASE, and one page of an mm after a gap."""
    memory = Bytes({BASE: bytes(0x1000), INIT_TASK: bytes(0x1000), BASE + 0x10000: bytes(0x1000)})
    target = FakeTarget(memory, (
        Symbol("init_task", INIT_TASK, 0x200, "D"), Symbol("jiffies", INIT_TASK + 0x800, 8, "D"),
        Symbol("schedule", 0xFFFFFFFF81000000, 0x100, "T"), Symbol("ext4_iget", 0xFFFFFFFFC0000000, 0x40, "t", "ext4"),
    ))
    target.types["init_task"] = TASK
    return target


def u64(*numbers: int) -> bytes:
    return b"".join((number & (1 << 64) - 1).to_bytes(8, "little") for number in numbers)


def u32(*numbers: int) -> bytes:
    return b"".join((number & (1 << 32) - 1).to_bytes(4, "little") for number in numbers)


#: a task with a value in every member, made by :func:`build_tasks`
TASK_AT = BASE + 0x10


def build_tasks() -> FakeTarget:
    """Return :func:`build` with the task at ``TASK_AT`` and init_task filled in."""
    target = build()
    put = target.memory.put
    put(TASK_AT, u64(0x4000) + u32(7, 0) + u32(-2, 2) + b"kworker/0:1\0\0\0\0\0" + u64(INIT_TASK, BASE + 0x10000))
    put(TASK_AT + 56, u64(TASK_AT + 56, INIT_TASK + 56))
    put(TASK_AT + 72, (1 | 0b111 << 1 | 0x5A5 << 6).to_bytes(4, "little"))
    put(TASK_AT + 80, u32(3, 0) + u64(INIT_TASK + 0x800, 0xFFFFFFFFC0000004))
    put(TASK_AT + 104, b"\x10\0\xfe\xff\3\0\4\0")
    put(TASK_AT + 136, u64(0x1F, 1754481600) + b"\0\0\xc0\x3f\1A\0\0" + u64(0xFFFFFFFF81000000))
    put(INIT_TASK, u64(0) + u32(0, 0) + u32(0, 0) + b"swapper/0".ljust(16, b"\0") + u64(INIT_TASK, 0))
    put(INIT_TASK + 0x800, b"hello\0")
    return target
