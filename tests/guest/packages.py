"""Debian packages the rig uses, unpacked (never installed) in the cache and remembered by exact version.

A *bundle* is a package with the shared libraries it depends on. What a bundle name meant is kept in
``resolved.json``: a warm cache asks no mirror, and "6.1" stays the same kernel until ``refresh``.
"""

from __future__ import annotations

import json
import lzma
import re
from dataclasses import dataclass
from pathlib import Path

from .apt import Apt, run
from .cache import appearing, cache_root, locked
from .progress import RigUnavailable

KERNEL_PACKAGE = re.compile(r"linux-image-(\d[\w.+-]*)-cloud-amd64")


@dataclass(frozen=True)
class Package:
    """One unpacked package."""

    name: str
    version: str
    root: Path

    @property
    def identity(self) -> str:
        """``name=version``, what cache keys are made of."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel image package."""

    package: Package
    release: str

    @property
    def vmlinuz(self) -> Path:
        return self.package.root / "boot" / f"vmlinuz-{self.release}"

    def module(self, name: str) -> Path | None:
        """Return the file of a module (``.ko`` or ``.ko.xz``); None when this kernel does not have it."""
        folder = self.package.root / "lib" / "modules" / self.release
        for spelling in (name, name.replace("_", "-")):
            for path in folder.rglob(f"{spelling}.ko*"):
                return path
        return None


def module_bytes(path: Path) -> bytes:
    """Return a module file's ELF bytes, decompressed."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def kernel(version: str) -> Kernel:
    """Return the newest cloud kernel of a series ("6.1", "6.12") or an exact one ("6.1.0-55")."""
    package = bundle(f"kernel:{version}")[0]
    return Kernel(package, package.name.removeprefix("linux-image-"))


def debug_package(version: str) -> tuple[Path, Path | None]:
    """Download (some 700 MB) the kernel's -dbg package; return the paths of vmlinux and of System.map."""
    image = kernel(version)
    release = image.release
    (package,) = bundle(f"single:linux-image-{release}-dbg")
    if package.version != image.package.version:
        raise RigUnavailable(f"{package.identity} does not match {image.package.identity}; try refresh")
    vmlinux = package.root / "usr/lib/debug/boot" / f"vmlinux-{release}"
    system_map = package.root / "usr/lib/debug/boot" / f"System.map-{release}"
    return vmlinux, system_map if system_map.exists() else None


def bundle(name: str) -> list[Package]:
    """Return the packages behind a bundle name, downloading only what the cache lacks.

    :param name: a Debian package (with its libraries), ``single:PACKAGE``, or ``kernel:VERSION``
    :raises RigUnavailable: there is no such package, or the mirror cannot be reached
    """
    with locked("packages"):
        resolved = _read_resolved()
        if name not in resolved:
            resolved[name] = _resolve(name)
            _write_resolved(resolved)
        return [_unpacked(package, version) for package, version in resolved[name]]


def refresh() -> None:
    """Forget which versions names meant: the next use asks the mirror for the newest."""
    with locked("packages"):
        _write_resolved({})
        Apt().update(force=True)


def _resolve(name: str) -> list[tuple[str, str]]:
    apt = Apt()
    apt.update()
    kind, _, wanted = name.rpartition(":")
    if kind == "kernel":
        wanted = _newest_kernel(apt, wanted)
    version = apt.show(wanted).get("Version")
    if version is None:
        raise RigUnavailable(f"Debian has no package {wanted}")
    found = {wanted: version}
    if not kind:
        _add_libraries(apt, wanted, found)
    return list(found.items())


def _newest_kernel(apt: Apt, wanted: str) -> str:
    series = re.escape(wanted)
    names = apt.search(rf"^linux-image-{series}([.+-][0-9a-z.+-]*)?-cloud-amd64$")
    versions = [match[1] for name in names if (match := KERNEL_PACKAGE.fullmatch(name))]
    # "linux-image-6.12-cloud-amd64" is the meta package
    versions = [version for version in versions if version != wanted or "-" in version or "+" in version]
    if not versions:
        raise RigUnavailable(f"Debian has no cloud kernel {wanted!r} (try 6.1, 6.12 or an exact 6.1.0-55)")
    newest = max(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])
    return f"linux-image-{newest}-cloud-amd64"


def _add_libraries(apt: Apt, package: str, found: dict[str, str]) -> None:
    """Add the shared-library packages (Debian section ``libs``) that *package* depends on, recursively."""
    control = apt.show(package)
    for clause in f"{control.get('Pre-Depends', '')},{control.get('Depends', '')}".split(","):
        dependency = re.match(r"\s*([\w.+-]+)", clause)
        if dependency is None or dependency[1] in found:
            continue
        fields = apt.show(dependency[1])
        if fields.get("Section") == "libs":
            found[dependency[1]] = fields["Version"]
            _add_libraries(apt, dependency[1], found)


def _unpacked(name: str, version: str) -> Package:
    root = cache_root() / "packages" / f"{name}_{version.replace(':', '%3a')}"
    if not root.is_dir():
        with appearing(root) as work:
            deb = Apt().download(name, version, work)
            run(["dpkg", "-x", str(deb), str(work)])
            deb.unlink()
    return Package(name, version, root)


def _read_resolved() -> dict[str, list[tuple[str, str]]]:
    try:
        data = json.loads((cache_root() / "resolved.json").read_text())
    except FileNotFoundError:
        return {}
    return {name: [(str(package), str(version)) for package, version in pairs] for name, pairs in data.items()}


def _write_resolved(resolved: dict[str, list[tuple[str, str]]]) -> None:
    path = cache_root() / "resolved.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(resolved, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)
