"""What is in the guest: the initramfs with busybox, our programs, the modules, and (kdump) kexec and a crash kernel."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from .initramfs import Archive
from .libraries import LOADER, closure, find_program, host_command
from .packages import Kernel, Package, bundle, module_bytes
from .progress import RigError
from .spec import CRASH_MEMORY, GuestSpec

HERE = Path(__file__).parent
PARTS = ("victim", "threads", "hugetlb", "thp", "swapped", "zombie", "user", "stopped", "inner", "sleeper", "swarm",
         "files")  # fmt: skip
DRIVE_MODULES = ("virtio_pci", "virtio_blk")
MORE_MODULES = ("qemu_fw_cfg", "loop", "nbd", "dm_mod", "fuse", "lzo-rle", "zram", "dummy")
CRASH_COMMAND_LINE = b"console=ttyS0 quiet panic=-1 irqpoll nr_cpus=1 reset_devices cgroup_disable=memory"
ORACLE_FILES = (
    "/proc/version", "/proc/cmdline", "/proc/uptime", "/proc/cpuinfo", "/proc/meminfo", "/proc/iomem",
    "/proc/kallsyms", "/proc/modules", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/zoneinfo", "/proc/buddyinfo",
    "/proc/vmstat", "/proc/stat", "/proc/loadavg", "/proc/interrupts", "/proc/softirqs", "/proc/devices",
    "/proc/partitions", "/proc/filesystems", "/proc/swaps", "/proc/mounts", "/proc/self/mountinfo",
    "/proc/timer_list", "/proc/cgroups", "/proc/net/dev", "/proc/net/unix", "/proc/net/tcp",
    "/proc/sys/kernel/osrelease", "/proc/sys/kernel/version", "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/pid_max", "/proc/sys/kernel/tainted", "/sys/kernel/vmcoreinfo", "/sys/kernel/notes",
    "/sys/kernel/kexec_crash_size", "/dev/kmsg",
)  # fmt: skip


def compile_program(source: Path) -> bytes:
    """Compile one of the guest's C programs with Debian's tcc, static and without a C library."""
    packages = bundle("tcc")
    support = packages[0].root / "usr/lib/x86_64-linux-gnu/tcc"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / source.stem
        command = [*host_command("tcc", packages), f"-B{support}", "-Wall", "-g", "-nostdlib", "-static"]
        done = subprocess.run([*command, "-o", str(output), str(source)], capture_output=True, text=True)
        if done.returncode or done.stderr:
            raise RigError(f"tcc cannot compile {source}: {done.stderr.strip()}")
        return output.read_bytes()


def initramfs(spec: GuestSpec, kernel: Kernel) -> bytes:
    """Return the initramfs of a guest."""
    archive = _base(kernel)
    archive.file("parts/collect", compile_program(HERE / "collect.c"), 0o755)
    archive.file("parts/victim", compile_program(HERE / "victim.c"), 0o755)
    for part in PARTS[1:]:
        archive.link(f"parts/{part}", "victim")
    _add_modules(archive, kernel, "more", MORE_MODULES)
    archive.file("etc/oracle.list", "\n".join([*ORACLE_FILES, ""]).encode())
    settings = {
        "PROCESSES": spec.processes,
        "FILES": spec.files,
        "SWAP": int(spec.swap),
        "CRASH": int(spec.crash),
    }
    archive.file("etc/guest", "".join(f"{name}={value}\n" for name, value in settings.items()).encode())
    if spec.crash:
        packages = bundle("kexec-tools")
        _add_program(archive, "kexec", packages)
        archive.file("boot/vmlinuz", kernel.vmlinuz.read_bytes())
        archive.file("boot/crash.cpio", _base(kernel).to_bytes())
        archive.file("etc/crash.cmdline", CRASH_COMMAND_LINE)
    return archive.to_bytes()


def command_line(spec: GuestSpec) -> str:
    """Return the guest's kernel command line."""
    words = ["console=ttyS0", "quiet", "panic=-1" if not spec.crash else "panic=30"]
    if not spec.kaslr:
        words.append("nokaslr")
    if spec.crash:
        words.append(f"crashkernel={CRASH_MEMORY}M")
    return " ".join([*words, *spec.arguments.split()])


def _base(kernel: Kernel) -> Archive:
    """Return what both kernels need: busybox, init, the drives' modules."""
    archive = Archive()
    busybox = bundle("busybox-static")[0].root / "bin/busybox"
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in applets:
        if applet != "busybox":
            archive.link(f"bin/{applet}", "busybox")
    for folder in ("proc", "sys", "dev", "run", "tmp"):
        archive.folder(folder)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", (HERE / "init").read_bytes(), 0o755)
    _add_modules(archive, kernel, "drives", DRIVE_MODULES)
    return archive


def _add_program(archive: Archive, program: str, packages: list[Package]) -> None:
    path = find_program(program, packages)
    archive.file(f"bin/{program}", path.read_bytes(), 0o755)
    for name, library in closure(path, packages).items():
        archive.file(f"lib64/{name}" if name == LOADER else f"lib/x86_64-linux-gnu/{name}", library.read_bytes(), 0o755)


def _add_modules(archive: Archive, kernel: Kernel, purpose: str, wanted: tuple[str, ...]) -> None:
    """Add the wanted modules this kernel has, and those they depend on, and a list in loading order."""
    order: dict[str, bytes] = {}
    for name in wanted:
        _visit(kernel, name, order)
    for name, content in order.items():
        archive.file(f"lib/modules/{name}.ko", content)
    archive.file(f"etc/modules.{purpose}", "".join(f"{name}\n" for name in order).encode())


def _visit(kernel: Kernel, name: str, order: dict[str, bytes]) -> None:
    path = kernel.module(name)
    if name in order or path is None:  # None: built into this kernel, or not made for it
        return
    content = module_bytes(path)
    depends = re.search(rb"\0depends=([^\0]*)\0", content)
    for dependency in filter(None, depends[1].decode().split(",") if depends else ()):
        _visit(kernel, dependency, order)
    order[name] = content
