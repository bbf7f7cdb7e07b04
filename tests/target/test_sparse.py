"""A TiB of holes beside a real kernel: it opens and answers as the small image does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import make_sparse
from tests.guest.image import GuestImage


def test_a_sparse_tebibyte_answers_as_the_small_image(tmp_path: Path, guest_61: GuestImage) -> None:
    path = tmp_path / "sparse"
    make_sparse(str(guest_61.elf), str(path))
    assert path.stat().st_size > 1 << 40
    answers = []
    for image in (guest_61.elf, path):
        command = [sys.executable, "-m", "kshell", "-e", "::ps", "-e", "::status ! grep ^image", str(image)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        answers.append(done.stdout.splitlines())
    assert answers[0][:-1] == answers[1][:-1]
    assert "1048832 MiB of RAM" in answers[1][-1]
