"""Python, kshell and the packages it needs, as files for a guest: Debian's interpreter, wheels from PyPI."""

from __future__ import annotations

import hashlib
import py_compile
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .apt import run
from .cache import appearing, cache_root, locked
from .initramfs import Archive
from .libraries import LOADER, needed
from .packages import Package, bundle

TOP = Path(__file__).parent.parent.parent
BUNDLES = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
WHEELS = ("click", "numpy")
SERIES = (3, 11)
UNUSED = re.compile(r"/(test|tests|idlelib|ensurepip|lib2to3|turtledemo|tkinter|pydoc_data|distutils|__pycache__|f2py"
                    r"|config-[^/]*|_pyinstaller|sqlite3|curses|dbm|xmlrpc|wsgiref)/")
OURS = ("kshell", "commands", "plugins")


def identities() -> list[str]:
    """Return what the content is made of, for a cache key: packages, wheels and kshell's own sources."""
    packages = {package.identity for name in BUNDLES for package in bundle(name)}
    digest = hashlib.sha256()
    for path, data in _sources():
        digest.update(path.encode() + b"\0" + data + b"\0")
    return [*sorted(packages), *(path.name for path in _wheels()), digest.hexdigest()]


def add_python(archive: Archive) -> None:
    """Add Python at /bin/python3, kshell at /inside/kshell and its packages beside it."""
    packages = list({package.identity: package for name in BUNDLES for package in bundle(name)}.values())
    wanted: list[bytes] = []
    for package in packages:
        for path in sorted(package.root.rglob("*")):
            name = str(path.relative_to(package.root))
            if name.startswith("usr/lib/python3") and path.is_file() and not UNUSED.search(f"/{name}"):
                data = path.resolve().read_bytes()
                _add(archive, name, data)
                if name.endswith(".so"):
                    wanted.append(data)
    (program,) = (package.root / "usr/bin/python3.11" for package in packages if package.name == "python3.11-minimal")
    archive.file("usr/bin/python3.11", program.read_bytes(), 0o755)
    archive.link("bin/python3", "/usr/bin/python3.11")
    wanted.append(program.read_bytes())
    for wheel in _wheels():
        with zipfile.ZipFile(wheel) as content:
            for name in content.namelist():
                if not name.endswith("/") and not UNUSED.search(f"/{name}") and not name.endswith((".pyi", ".h", ".a")):
                    data = content.read(name)
                    _add(archive, f"inside/{name}", data)
                    if name.endswith(".so"):
                        wanted.append(data)  # numpy needs the C++ library
    _add_libraries(archive, packages, wanted)
    for name, data in _sources():
        first, _, rest = name.partition("/")
        _add(archive, f"inside/kshell/{rest}" if first == "kshell" else f"inside/kshell/{name}", data)


def _add(archive: Archive, name: str, data: bytes) -> None:
    """Add a file, compiled too if it is Python: under emulation the compiler is what takes longest."""
    archive.file(name, data, 0o755 if name.endswith(".so") else 0o644)
    if name.endswith(".py") and sys.version_info[:2] == SERIES:
        compiled = _compiled(name, data)
        if compiled is not None:
            folder, _, file = name.rpartition("/")
            archive.file(f"{folder}/__pycache__/{file[:-3]}.cpython-311.pyc", compiled)


def _compiled(name: str, data: bytes) -> bytes | None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.py", Path(folder) / "a.pyc"
        source.write_bytes(data)
        try:
            py_compile.compile(str(source), str(target), f"/{name}", doraise=True,
                               invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        except py_compile.PyCompileError:
            return None
        return target.read_bytes()


def _add_libraries(archive: Archive, packages: list[Package], wanted: list[bytes]) -> None:
    """Add the shared libraries that *wanted* need, where a package has them: a module without its own is not used."""
    by_name: dict[str, Path] = {}
    for package in packages:
        for path in package.root.rglob("*.so*"):
            if path.is_file() and path.resolve().is_relative_to(package.root.resolve()):
                by_name.setdefault(path.name, path)
    waiting = [LOADER, *(name for data in wanted for name in needed(data))]
    done: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in done or name not in by_name:
            continue
        done.add(name)
        data = by_name[name].read_bytes()
        waiting += needed(data)
        archive.file(f"lib64/{name}" if name == LOADER else f"lib/x86_64-linux-gnu/{name}", data, 0o755)


def _sources() -> Iterator[tuple[str, bytes]]:
    for folder in OURS:
        for path in sorted((TOP / folder).rglob("*.py")):
            relative = path.relative_to(TOP)
            if not any(part.is_symlink() for part in (TOP / parent for parent in relative.parents)):
                yield str(relative), path.read_bytes()


def _wheels() -> list[Path]:
    """Return the wheels, downloaded once."""
    folder = cache_root() / "wheels"
    with locked("wheels"):
        if not folder.is_dir():
            with appearing(folder) as work:
                platforms = [word for name in ("manylinux_2_28_x86_64", "manylinux2014_x86_64") for word in
                             ("--platform", name)]
                run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
                     "--python-version", "3.11", "--implementation", "cp", *platforms, "-d", str(work), *WHEELS])
    return sorted(folder.glob("*.whl"))


__all__ = ["add_python", "identities"]
