"""Parameters of kernel modules with their values, as /sys/module/NAME/parameters shows them; and what modules need.

Kernel source: ``struct kernel_param`` and ``struct kparam_array`` in include/linux/moduleparam.h, kernel/params.c;
``struct module_use`` in include/linux/module.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kshell.errors import FormatError, KshellError
from kshell.linux.lists import list_for_each_entry
from kshell.value.value import read_string

if TYPE_CHECKING:
    from kshell.target.target import Target
    from kshell.value import Value

#: more parameters, or elements of one, than a module can have
MAX_PARAMETERS, MAX_ELEMENTS = 4096, 4096
#: longest text of a parameter that is read: a page, as sysfs gives
MAX_TEXT = 4096
#: ``param_get_NAME`` -> bytes, signed; kernel/params.c
NUMBERS = {
    "byte": (1, False), "short": (2, True), "ushort": (2, False), "int": (4, True), "uint": (4, False),
    "long": (8, True), "ulong": (8, False), "ullong": (8, False), "hexint": (4, False), "size_t": (8, False),
}


class Parameter(NamedTuple):
    """A parameter of a module.

    :ivar kind: "int", "charp", "array of int", or the name of the ``kernel_param_ops`` of its own
    :ivar mode: permissions of its file in sysfs, 0 when it has none
    :ivar value: as sysfs writes it; an error when it cannot be read, or only code of the module can tell it
    """

    name: str
    kind: str
    mode: int
    value: str | KshellError


def parameters(target: Target, module: Value) -> Iterator[Parameter]:
    """Yield the parameters of a ``struct module``.

    :raises KshellError: their table cannot be read
    """
    count = module.integer("num_kp") if module.has("num_kp") else 0
    if not 0 <= count <= MAX_PARAMETERS:
        raise FormatError(f"module 0x{module.address:x} has an impossible number of parameters: {count}")
    if not count:
        return
    kind = target.type("struct kernel_param")
    first, size = module.integer("kp"), kind.size or 0
    for number in range(count):
        entry = target.value(kind, first + number * size)
        try:
            name = entry["name"].string(256)
        except KshellError as error:
            yield Parameter("?", "", 0, error)
            continue
        operations, mode = "", entry.integer("perm") & 0o7777
        try:
            operations = _operations(target, entry.integer("ops"))
            if operations == "array":
                element, text = _array(target, entry.integer("arr"))
                yield Parameter(name, f"array of {element}", mode, text)
            else:
                yield Parameter(name, operations, mode, _text(target, operations, entry.integer("arg")))
        except KshellError as error:
            yield Parameter(name, operations, mode, error)


def needs(target: Target, module: Value) -> Iterator[str]:
    """Yield the names of the modules that a ``struct module`` uses: depends on."""
    if not module.has("target_list"):  # CONFIG_MODULE_UNLOAD is off
        return
    for use in list_for_each_entry(target, "struct module_use", module["target_list"].address, "target_list"):
        yield use["target"].deref()["name"].string()


def _operations(target: Target, address: int) -> str:
    """Return the kind of value that a ``struct kernel_param_ops`` serves, by its ``get``: int, charp, array, ..."""
    get = target.value("struct kernel_param_ops", address).integer("get")
    for place in (get, address):
        found = target.symbolize(place) if place else None
        if found is not None and not found[1]:
            name = found[0].name
            if name in ("param_array_get", "param_array_ops"):
                return "array"
            if place == address or name.startswith("param_get_"):
                return name.removeprefix("param_get_").removeprefix("param_ops_")
    return f"0x{address:x}"


def _text(target: Target, operations: str, address: int) -> str:
    """Return a value as ``param_get_NAME`` writes it.

    :raises KshellError: it cannot be read, or its own code makes its text
    """
    kernel = target.kernel
    if operations in NUMBERS:
        size, signed = NUMBERS[operations]
        number = int.from_bytes(kernel.read(address, size), "little", signed=signed)
        return f"0x{number:08x}" if operations == "hexint" else str(number)
    if operations in ("bool", "invbool"):
        on = kernel.read(address, 1)[0] != 0
        return "Y" if on != (operations == "invbool") else "N"
    if operations == "charp":
        pointer = int.from_bytes(kernel.read(address, 8), "little")
        return read_string(kernel, pointer, MAX_TEXT).decode("utf-8", "surrogateescape") if pointer else "(null)"
    if operations == "string":
        return target.value("struct kparam_string", address)["string"].string(MAX_TEXT)
    raise KshellError(f"only the module's own code tells it ({operations})")


def _array(target: Target, address: int) -> tuple[str, str]:
    """Return the kind of the elements of a ``struct kparam_array``, and their values as ``param_array_get`` does."""
    array = target.value("struct kparam_array", address)
    pointer = array.integer("num")
    count = int.from_bytes(target.kernel.read(pointer, 4), "little") if pointer else array.integer("max")
    size, first = array.integer("elemsize"), array.integer("elem")
    if not 0 <= count <= min(array.integer("max"), MAX_ELEMENTS):
        raise FormatError(f"the array at 0x{address:x} has {count} elements and room for {array.integer('max')}")
    kind = _operations(target, array.integer("ops"))
    return kind, ",".join(_text(target, kind, first + number * size) for number in range(count))
