"""The rig's command line: ``python -m tests.guest COMMAND ...`` from the checkout's root."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from . import packages
from .build import boot, image_folder, prepare
from .cache import cache_root
from .image import GuestImage
from .progress import RigError, RigUnavailable
from .spec import STANDARD, GuestSpec, named_spec


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it worked, 3 when guests cannot be had here, 1 for other errors."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)  # so that a guest ends with us
    try:
        return int(options.action(options))
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
    except RigUnavailable as error:
        print(f"guest: {error}", file=sys.stderr)
        return 3
    except RigError as error:
        print(f"guest: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("guest: interrupted", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.guest", description="Linux guests and their dumps")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        return command

    add("list", _list, "list the standard guests and which of them are in the cache")
    add("prepare", _prepare, "build guests, unless they are in the cache").add_argument("names", nargs="+")
    path = add("path", _path, "print where a guest's folder, or one file of it, is (built first if need be)")
    path.add_argument("name")
    path.add_argument("artifact", nargs="?", help="elf, elf.paging, kdump.zlib, raw, vmcore, oracle, ...")
    live = add("boot", _boot, "boot a guest and keep it running until Ctrl-C")
    live.add_argument("name")
    debug = add("debuginfo", _debuginfo, "download a kernel's -dbg package (large) and print vmlinux's path")
    debug.add_argument("kernel")
    add("refresh", _refresh, "ask the mirror anew which kernel is the newest")
    clean = add("clean", _clean, "delete built guests (all, or those named)")
    clean.add_argument("names", nargs="*")
    clean.add_argument("--old", action="store_true", help="only those that the rig or a kernel has outdated")
    clean.add_argument("--packages", action="store_true", help="delete the downloaded packages too")
    return parser


def _list(options: argparse.Namespace) -> int:
    for name, spec in STANDARD.items():
        built = sorted((cache_root() / "images").glob(f"{name}-{'?' * 16}"))
        state = ", ".join(f"{path} ({GuestImage(spec, path).seconds:.0f} s)" for path in built) or "not built"
        print(f"{name:14} {_describe(spec):40} {state}")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    for spec in [named_spec(name) for name in options.names]:
        print(prepare(spec).folder)
    return 0


def _path(options: argparse.Namespace) -> int:
    folder = prepare(named_spec(options.name)).folder
    path = folder / options.artifact if options.artifact else folder
    if not path.exists():
        raise RigError(f"guest {options.name} has no {options.artifact}; it has {_names(folder)}")
    print(path)
    return 0


def _names(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir()))


def _boot(options: argparse.Namespace) -> int:
    with boot(named_spec(options.name)) as guest:
        print(f"pid {guest.process.pid}\nqmp {guest.qmp_socket}\ngdb {guest.gdb_socket}")
        print(f"console {guest.console}\noracle {guest.oracle_folder}", flush=True)
        while guest.process.poll() is None:
            time.sleep(0.5)
    return 0


def _debuginfo(options: argparse.Namespace) -> int:
    vmlinux, system_map = packages.debug_package(named_spec(options.kernel).kernel)
    print(vmlinux)
    if system_map is not None:
        print(system_map)
    return 0


def _refresh(options: argparse.Namespace) -> int:
    packages.refresh()
    return 0


def _clean(options: argparse.Namespace) -> int:
    images = cache_root() / "images"
    current = {image_folder(spec) for spec in STANDARD.values()} if options.old else set()
    for name in options.names or ["*"]:
        for path in images.glob(f"{name}-{'?' * 16}"):
            if path not in current:
                shutil.rmtree(path)
    if not options.names:  # what killed builds left, too
        leftovers = [*images.glob(".*-*"), cache_root() / "failed", cache_root() / "live"]
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
    if options.packages:
        for folder in ("packages", "apt"):
            shutil.rmtree(cache_root() / folder, ignore_errors=True)
        (cache_root() / "resolved.json").unlink(missing_ok=True)
    return 0


def _describe(spec: GuestSpec) -> str:
    words = [f"linux {spec.kernel}", f"{spec.memory} MiB"]
    words += ["5-level"] if spec.five_levels else []
    words += ["no KASLR"] if not spec.kaslr else []
    words += ["no VMCOREINFO"] if not spec.vmcoreinfo else []
    words += ["kdump"] if spec.crash else []
    words += [f"disaster {spec.disaster}"] if spec.disaster else []
    words += [f"{spec.processes} processes", f"{spec.files} files"] if spec.processes else []
    return ", ".join(words)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
