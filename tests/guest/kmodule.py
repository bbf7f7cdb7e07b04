"""A kernel module for a guest: one C file, compiled against the guest kernel's own headers without make.

Debian's compiler proper (``cc1`` of cpp-12), assembler and linker, and the kernel's objtool run from unpacked
packages: nothing is needed on the host, and the same bytes come out everywhere. The flags are those of the kernel's
Makefile and arch/x86/Makefile that change what code does; what scripts/mod/modpost would write (module structure,
version checksums) is written here.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import tempfile
from pathlib import Path

from .libraries import host_command
from .packages import Kernel, Package, bundle
from .progress import RigError, step

FLAGS = """
-quiet -nostdinc -m64 -mcmodel=kernel -march=x86-64 -mtune=generic -mno-red-zone -mno-sse -mno-mmx -mno-sse2
-mno-3dnow -mno-avx -mno-80387 -mno-fp-ret-in-387 -mpreferred-stack-boundary=3 -mskip-rax-setup -O2 -std=gnu11
-Wall -Wno-pointer-sign -Wno-sign-compare -Wno-attributes -fno-strict-aliasing -fno-common -fshort-wchar
-fno-pic -fcf-protection=none -falign-jumps=1 -falign-loops=1 -fno-asynchronous-unwind-tables -fno-jump-tables
-fno-delete-null-pointer-checks -fno-allow-store-data-races -fno-strict-overflow -fno-stack-check
-fconserve-stack -fomit-frame-pointer -fno-stack-clash-protection
""".split()
#: configuration -> what it adds to the compiler's flags
CONFIGURED = {
    "STACKPROTECTOR_STRONG": "-fstack-protector-strong",
    "RETPOLINE": "-mindirect-branch=thunk-extern -mindirect-branch-register",
    "RETHUNK": "-mfunction-return=thunk-extern",
    "SLS": "-mharden-sls=all",
    "X86_KERNEL_IBT": "-fcf-protection=branch",
    "CALL_PADDING": "-fpatchable-function-entry=16,16",
}
#: configuration -> objtool's option (since 5.19, 2daf7faba7de "objtool: Add option to generate ...")
OBJTOOL = {
    "HAVE_JUMP_LABEL_HACK": "--hacks=jump_label", "HAVE_NOINSTR_HACK": "--hacks=noinstr", "UNWINDER_ORC": "--orc",
    "RETPOLINE": "--retpoline", "RETHUNK": "--rethunk", "SLS": "--sls", "HAVE_STATIC_CALL_INLINE": "--static-call",
    "HAVE_UACCESS_VALIDATION": "--uaccess", "X86_KERNEL_IBT": "--ibt --link", "PREFIX_SYMBOLS": "--prefix=16",
}  # fmt: skip
TRAILER = """
#include <linux/module.h>
#define INCLUDE_VERMAGIC
#include <linux/build-salt.h>
#include <linux/vermagic.h>
#if __has_include(<asm/orc_header.h>)
#include <asm/orc_header.h>
ORC_HEADER;
#endif
BUILD_SALT;
MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(name, KBUILD_MODNAME);
MODULE_INFO(depends, "");
MODULE_INFO(retpoline, "Y");
__visible struct module __this_module __section(".gnu.linkonce.this_module") = {
    .name = KBUILD_MODNAME, .init = init_module, .exit = cleanup_module, .arch = MODULE_ARCH_INIT,
};
static const struct modversion_info ____versions[] __used __section("__versions") = {
"""
STDARG = """
typedef __builtin_va_list va_list;
#define va_start(list, last) __builtin_va_start(list, last)
#define va_arg(list, type) __builtin_va_arg(list, type)
#define va_end(list) __builtin_va_end(list)
#define va_copy(to, from) __builtin_va_copy(to, from)
"""
SHT_SYMTAB = 2


class Headers:
    """A kernel's header packages, and the tools that go with them."""

    def __init__(self, kernel: Kernel) -> None:
        flavour = bundle(f"single:linux-headers-{kernel.release}")[0]
        common = bundle(f"single:linux-headers-{kernel.release.removesuffix('-cloud-amd64')}-common")[0]
        self.packages: list[Package] = [flavour, common]
        self.own = flavour.root / "usr/src" / f"linux-headers-{kernel.release}"
        self.common = common.root / "usr/src" / common.name
        # scripts -> ../../lib/linux-kbuild-6.1/scripts
        tools = (self.own / "scripts").readlink().parent
        kbuild = bundle(tools.name)
        objtool = kbuild[0].root / "usr/lib" / tools.name / "tools/objtool/objtool"
        self.objtool = host_command("objtool", kbuild, objtool)
        self.packages.append(kbuild[0])
        text = (self.own / ".config").read_text()
        names = re.findall(r"^CONFIG_(\w+)=y$", text, re.MULTILINE)
        # Since 6.9 (the "x86/bugs: Rename CONFIG_... => CONFIG_MITIGATION_..." series)
        self.configuration = {name.removeprefix("MITIGATION_") for name in names}

    @property
    def includes(self) -> list[str]:
        folders = ("arch/x86/include", "arch/x86/include/generated", "include", "arch/x86/include/uapi",
                   "arch/x86/include/generated/uapi", "include/uapi", "include/generated/uapi")  # fmt: skip
        words = [f"-I{root / folder}" for folder in folders for root in (self.common, self.own)]
        for name in ("compiler-version.h", "kconfig.h", "compiler_types.h"):
            if (self.common / "include/linux" / name).exists():
                words += ["-include", str(self.common / "include/linux" / name)]
        return words

    def checksums(self) -> dict[str, str]:
        """Return the version checksum of every symbol this kernel and its modules export."""
        lines = (self.own / "Module.symvers").read_text().splitlines()
        return {name: checksum for checksum, name, *_rest in map(str.split, lines)}


def toolchain() -> list[Package]:
    """Return the unpacked packages of compiler, assembler and linker, with the libraries they need."""
    found = [*bundle("cpp-12"), *bundle("binutils-x86-64-linux-gnu")]
    for name in ("libbinutils", "libctf0", "libctf-nobfd0"):  # in no section "libs"
        found += bundle(f"single:{name}")
    return found


def packages(kernel: Kernel) -> list[Package]:
    """Return every package that decides what a module for *kernel* becomes."""
    return [*Headers(kernel).packages, *toolchain()]


def compile_module(source: Path, kernel: Kernel) -> bytes:
    """Return the ``.ko`` of one C file for *kernel*.

    :raises RigError: the compiler, assembler, objtool or linker complained; the text has what it said
    """
    headers, tools = Headers(kernel), toolchain()
    with step(f"compiling {source.name} for {kernel.release}"), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code = _compiled(source, headers, tools, source.stem, folder)
        objtool = _objtool(headers)
        _run([*headers.objtool, *objtool, str(code)])
        trailer = folder / f"{source.stem}.mod.c"
        checksums = headers.checksums()
        wanted = ["module_layout", *(name for name in undefined(code.read_bytes()) if name != "__this_module")]
        missing = [symbol for symbol in wanted if symbol not in checksums]
        if missing:
            raise RigError(f"{source.name} uses what {kernel.release} does not export: {', '.join(missing)}")
        versions = "".join(f'    {{ {checksums[symbol]}, "{symbol}" }},\n' for symbol in wanted)
        trailer.write_text(f"{TRAILER}{versions}}};\n")
        final = _compiled(trailer, headers, tools, source.stem, folder)
        output = folder / f"{source.stem}.ko"
        script = next(path for path in (headers.own / "arch/x86/module.lds", headers.own / "scripts/module.lds",
                                        headers.own / "arch/x86/kernel/module.lds") if path.exists())  # fmt: skip
        linker = [*host_command("x86_64-linux-gnu-ld", tools), "-r", "-m", "elf_x86_64", "--build-id=sha1"]
        _run([*linker, "-T", str(script), "-o", str(output), str(code), str(final)])
        return output.read_bytes()


def undefined(data: bytes) -> list[str]:
    """Return the names of the symbols an ELF64 object file leaves to others, sorted."""
    (sections_at,) = struct.unpack_from("<40xQ", data)
    size, count = struct.unpack_from("<58xHH", data)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + size * index) for index in range(count)]
    names = set()
    for _, kind, _, _, offset, length, link, *_rest in sections:
        if kind == SHT_SYMTAB:
            strings = sections[link][4]
            table = data[offset : offset + length]
            for name, _info, _other, section, _value, _size in struct.iter_unpack("<IBBHQQ", table):
                if name and not section:
                    names.add(data[strings + name : data.index(b"\0", strings + name)].decode())
    return sorted(names)


def _compiled(source: Path, headers: Headers, tools: list[Package], module: str, folder: Path) -> Path:
    """Return the object file of a C file."""
    assembly, output = folder / f"{source.stem}.s", folder / f"{source.stem}.o"
    flags = [*FLAGS, *headers.includes]
    for name, words in CONFIGURED.items():
        if name in headers.configuration:
            flags += words.split()
    flags += ["-D__KERNEL__", "-DMODULE", f"-DKBUILD_MODNAME=\"{module}\"", f"-DKBUILD_BASENAME=\"{module}\"",
              f"-D__KBUILD_MODNAME=kmod_{module}", f"-DKBUILD_MODFILE=\"{module}\""]  # fmt: skip
    compiler = next(root for package in tools for root in package.root.glob("usr/lib/gcc/*/12/cc1"))
    if not (headers.common / "include/linux/stdarg.h").exists():  # before 5.15 (c0891ac15f04) it is the compiler's
        (folder / "include").mkdir(exist_ok=True)
        (folder / "include/stdarg.h").write_text(STDARG)
        flags.append(f"-I{folder / 'include'}")
    _run([*host_command("cc1", tools, compiler), *flags, str(source), "-o", str(assembly)])
    _run([*host_command("x86_64-linux-gnu-as", tools), "--64", "-o", str(output), str(assembly)])
    return output


def _objtool(headers: Headers) -> list[str]:
    if "OBJTOOL" in headers.configuration:  # since 5.19
        chosen = [words for name, words in OBJTOOL.items() if name in headers.configuration]
        return [*" ".join(chosen).split(), "--module"]
    return ["orc", "generate", "--module", "--no-fp", "--retpoline", "--uaccess"]


def _run(command: list[str]) -> None:
    environment = {**os.environ, "SRCARCH": "x86"}  # Debian's objtool of 6.12 asks for it
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, env=environment)
    complaint = (done.stderr or done.stdout).strip()
    if done.returncode:
        raise RigError(f"{Path(command[3]).name} failed: {complaint[-3000:]}")  # behind ld.so --library-path FOLDERS
    if complaint:
        raise RigError(f"{Path(command[3]).name} complained: {complaint[-3000:]}")
