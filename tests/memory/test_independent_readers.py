"""LiME, AVML and VMware files read by volatility's layers as well: the same runs, the same bytes as kshell's.

The files are the tests' own, for AVML and VMware could not be had. That another reader takes them for the same is no
proof that the programs write them so, but it is one that kshell and its tests do not share a misunderstanding.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kshell.target.formats import Options, open_image
from tests.memory import containers

PAGE = 4096
RANDOM = random.Random(4)
#: text that compresses, noise that does not, zeroes; two holes
RUNS = [
    (0x1000, b"".join(b"%08d" % number for number in range(512 * 40))),
    (0x20_0000, b"kshell!!" * 512 * 30 + RANDOM.randbytes(20 * PAGE) + bytes(30 * PAGE)),
    (1 << 32, RANDOM.randbytes(8 * PAGE) + bytes(100 * PAGE)),
]


def layer(path: Path, kind: str) -> Any:
    """Return volatility's layer over the file at *path*."""
    contexts = pytest.importorskip("volatility3.framework.contexts")
    from volatility3.framework.layers import avml, lime, physical, vmware

    context = contexts.Context()
    context.config["base.location"] = path.as_uri()
    context.layers.add_layer(physical.FileLayer(context, "base", "base"))
    context.config["top.base_layer"] = "base"
    if kind == "lime":
        return lime.LimeLayer(context, "top", "top")
    if kind == "avml":
        if not avml.HAS_SNAPPY:
            pytest.skip("volatility needs libsnappy.so.1 for AVML")
        return avml.AVMLLayer(context, "top", "top")
    return vmware.VmwareStacker.stack(context, "base")


def images(folder: Path, kind: str) -> Path:
    if kind == "lime":
        (folder / "image").write_bytes(containers.lime(RUNS))
    elif kind == "avml":
        (folder / "image").write_bytes(containers.avml(RUNS, 50 * PAGE))
    else:
        return containers.vmss(RUNS, folder / f"image.{kind}", [{"rax": 1, "cr3": 0x1000}] * 2,
                               blocks=kind == "vmsn").with_suffix(".vmem")
    return folder / "image"


@pytest.mark.parametrize("kind", ["lime", "avml", "vmss", "vmsn"])
def test_volatility_reads_the_same(tmp_path: Path, kind: str) -> None:
    path = images(tmp_path, kind)
    theirs = layer(path, kind)
    image, _ = open_image(str(path), "r", Options())
    with image:
        ours = [(run.start, run.end) for run in image.ranges() if run.held]
        assert ours == [(start, start + len(data)) for start, data in RUNS]
        for start, end in ours:
            data = image.read(start, end - start)
            assert theirs.read(start, end - start) == data
            assert theirs.is_valid(start, end - start) and not theirs.is_valid(end)
