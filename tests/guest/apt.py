"""A private apt: Debian packages downloaded without root and without touching the host's package lists.

It has its own sources, state and cache under the rig's cache folder, and an empty dpkg status. The host's own
apt configuration (proxy, certificates, mirror) still applies, so what works for the host works here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

from .cache import cache_root
from .progress import RigUnavailable, progress, step

SUITES = ("bookworm", "bookworm-updates", "bullseye")  # bullseye has Linux 5.10
SECURITY_SUITE = "bookworm-security"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
HOST_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LISTS_AGE = 24 * 3600  # seconds after which "newest" is asked again of the mirror

CONFIGURATION = """\
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
APT::Get::List-Cleanup "true";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Update::Error-Mode "any";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
"""


class Apt:
    """apt-get and apt-cache over a private state folder."""

    def __init__(self) -> None:
        self.root = cache_root() / "apt"

    def update(self, force: bool = False) -> None:
        """Fetch the package lists unless they are younger than a day, and of the suites that are wanted now."""
        stamp, sources = self.root / "updated", self.root / "sources.list"
        before = sources.read_text() if sources.exists() else ""
        self._prepare()
        young = stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_AGE
        if young and not force and before == sources.read_text():
            return
        with step("fetching Debian package lists"):
            self._run("apt-get", "-qq", "update")
        stamp.touch()

    def download(self, package: str, version: str, folder: Path) -> Path:
        """Download one package file into *folder* and return its path."""
        with step(f"downloading {package} {version}"):
            self._run("apt-get", "-qq", "download", f"{package}={version}", cwd=folder)
        (path,) = folder.glob("*.deb")
        return path

    def show(self, package: str) -> dict[str, str]:
        """Return the control fields of the newest version of *package*; empty when there is none."""
        text = self._run("apt-cache", "show", "--no-all-versions", package, check=False)
        fields: dict[str, str] = {}
        for line in text.split("\n\n")[0].splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith(" "):
                fields[name] = value.strip()
        return fields

    def search(self, pattern: str) -> list[str]:
        """Return the names of the packages that match a regular expression."""
        text = self._run("apt-cache", "search", "--names-only", pattern)
        return [line.split(" ", 1)[0] for line in text.splitlines() if line]

    def _prepare(self) -> None:
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        (self.root / "apt.conf").write_text(CONFIGURATION.format(root=self.root))
        mirror, security = host_mirrors()
        keyring = self._keyring()
        option = f"[arch=amd64 signed-by={keyring}]"
        lines = [f"deb {option} {mirror} {suite} main" for suite in SUITES]
        lines.append(f"deb {option} {security} {SECURITY_SUITE} main")
        (self.root / "sources.list").write_text("\n".join(lines) + "\n")

    def _keyring(self) -> Path:
        """Return Debian's archive keyring: the host's, or (Ubuntu) unpacked from the host's archive."""
        if HOST_KEYRING.exists():
            return HOST_KEYRING
        unpacked = self.root / "keyring"
        keyring = unpacked / HOST_KEYRING.relative_to("/")
        if not keyring.exists():
            unpacked.mkdir(parents=True, exist_ok=True)
            run(["apt-get", "-qq", "download", "debian-archive-keyring"], cwd=unpacked)
            for deb in unpacked.glob("*.deb"):
                run(["dpkg", "-x", str(deb), str(unpacked)])
        return keyring

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None, check: bool = True) -> str:
        self._prepare_once()
        return run([tool, "-c", str(self.root / "apt.conf"), *arguments], cwd=cwd, check=check)

    def _prepare_once(self) -> None:
        if not (self.root / "apt.conf").exists():
            self._prepare()


def host_mirrors() -> tuple[str, str]:
    """Return the host's Debian mirror and security mirror; Debian's own where the host names none."""
    folder = Path("/etc/apt")
    text = ""
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        if path.suffix in (".list", ".sources") and path.is_file():
            text += "\n" + "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    found = re.findall(r"\b(?:https?|mirror\+https?)://\S+", text)
    mirror = next((url for url in found if url.rstrip("/").endswith("/debian")), DEFAULT_MIRROR)
    security = next((url for url in found if "debian-security" in url), DEFAULT_SECURITY_MIRROR)
    return mirror.rstrip("/"), security.rstrip("/")


def run(command: list[str], cwd: Path | None = None, check: bool = True) -> str:
    """Run a host tool and return what it printed.

    :raises RigUnavailable: it is not installed, or it failed (with *check*); the text has its complaint
    """
    if shutil.which(command[0]) is None:
        raise RigUnavailable(f"{command[0]} is not installed; the guest rig needs a Debian or Ubuntu host")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode and check:
        raise RigUnavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:] or done.returncode}")
    return done.stdout


def install_qemu() -> None:
    """Install QEMU with the host's apt; the caller has made sure that we are root on a Debian-like host."""
    progress("installing qemu-system-x86 (apt-get install), once")
    run(["apt-get", "-qq", "update"])
    run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", "qemu-system-x86"])
