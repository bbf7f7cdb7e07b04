"""``kshell convert IN OUT``: options, the progress bar, and what is told at the end."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kshell.errors import KshellError
from kshell.escape import escape
from kshell.shell.bar import Bar

if TYPE_CHECKING:
    from kshell.linux.convert import Converted

FORMATS = ("kdump", "elf", "raw", "lime")
CODECS = ("zlib", "lzo", "snappy", "zstd", "none")
TAKES_VALUE = ("--to", "-c", "--codec", "-d", "--level", "--phys-base", "--map", "--part", "--kernel")
OPTIONS = (*TAKES_VALUE, "--force", "-q", "--quiet", "--raw")

_EPILOG = """\b
Levels, as makedumpfile's -d; a sum of:
   1  pages of zeroes           2  page cache         4  page cache with private data too
   8  memory of processes      16  free pages
In a kdump all pages of zeroes share one place, with 1 and without.
\b
Examples:
  kshell convert vmcore small                 kdump-compressed with zlib
  kshell convert -c zstd -d 31 vmcore small   only what the kernel itself uses
  kshell convert --to elf small vmcore.elf    an ELF core, for other tools
  kshell convert --map iomem mem.dd vmcore    of raw memory with holes

A dump whose name is convert is opened by kshell ./convert.
"""


def wants_conversion(words: Sequence[str]) -> bool:
    """Whether the words after ``convert`` ask for a conversion.

    They do with two operands or more, or for help, and without options that are of kshell itself.
    """
    operands, skip, plain = 0, False, False
    for word in words:
        if skip:
            skip = False
        elif word == "--" and not plain:
            plain = True
        elif not plain and word in ("-h", "--help"):
            return True
        elif not plain and word.startswith("-") and len(word) > 1:
            skip = word in TAKES_VALUE
            if (word.partition("=")[0] if word.startswith("--") else word[:2]) not in OPTIONS:
                return False
        else:
            operands += 1
    return operands >= 2


def _address(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no address (hexadecimal)") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.option("--to", type=click.Choice(FORMATS), default="kdump", show_default=True, help="The format of OUT.")
@click.option("-c", "--codec", type=click.Choice(CODECS), default="zlib", show_default=True,
              help="How the pages of a kdump are compressed.")
@click.option("-d", "--level", type=click.IntRange(0, 31), default=0, show_default=True, metavar="N",
              help="Leave out pages; see below.")
@click.option("--force", is_flag=True, help="Write over OUT when it is there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary; what IN lacks is told.")
@click.option("--raw", is_flag=True, help="IN is raw physical memory.")
@click.option("--phys-base", type=_address, default="0", metavar="ADDR",
              help="Of raw memory: the physical address of its first byte.")
@click.option("--map", "map_file", metavar="FILE", help="Of raw memory: which runs it has, as in /proc/iomem.")
@click.option("--part", "parts", multiple=True, metavar="FILE",
              help="Another part of the split dump that IN is one of; those beside it are found.")
@click.option("--kernel", type=click.IntRange(min=1), metavar="N",
              help="Of several kernels in IN: the one whose VMCOREINFO goes along, and whose pages -d judges.")
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
def command(
    to: str, codec: str, level: int, force: bool, quiet: bool, raw: bool, phys_base: int, map_file: str | None,
    parts: tuple[str, ...], kernel: int | None, source: str, output: str,
) -> int:
    """Write the memory in the image IN to OUT, in another format or with less in it.

    OUT appears when it is complete; when the conversion ends early nothing is left. What IN does not hold stays absent:
    in raw and LiME images, and in the pages at the edges of RAM, as zeroes, which is told.
    """
    from kshell.linux.convert import convert
    from kshell.target.formats import Options
    from kshell.target.open import open_target

    bar = Bar(shown=not quiet and sys.stderr.isatty())
    options = Options(raw=raw, phys_base=phys_base, map=map_file, parts=parts, kernel=kernel, progress=bar.show)
    before = [(number, signal.signal(number, _end)) for number in (signal.SIGTERM, signal.SIGHUP)]
    start = time.monotonic()
    try:
        with open_target(source, options=options) as target:
            done = convert(target, output, to=to, codec=codec, level=level, force=force, progress=bar.show)
            missing = target.findings.get("missing")
    except KshellError as error:
        bar.clear()
        sys.stderr.write(f"kshell: {escape(str(error))}\n" + (f"  {escape(error.hint)}\n" if error.hint else ""))
        return 1
    except KeyboardInterrupt:
        bar.clear()
        sys.stderr.write("kshell: interrupted; nothing was written\n")
        return 130
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    bar.clear()
    if not quiet:
        form = f"kdump ({codec})" if to == "kdump" else to
        lines = _summary(done, escape(output), form, time.monotonic() - start)
        sys.stdout.write("\n".join([*lines, ""]))
        if to == "raw" and done.absent + sum(done.left_out.values()) + len(done.lost):
            sys.stderr.write("kshell: a raw image cannot tell what is absent: it reads as zeroes\n")
    if missing is not None:  # OUT cannot tell it from what was left out on purpose
        both = f"{escape(source)} is not complete, and so {escape(output)} is not"
        sys.stderr.write(f"kshell: {both}: {escape(missing)}\n")
    return 0


def _end(number: int, frame: object) -> None:
    raise click.exceptions.Exit(128 + number)


def _summary(done: Converted, output: str, form: str, seconds: float) -> list[str]:
    from kshell.memory.kdumpheader import LEVELS

    memory = done.pages * done.page
    lines = [f"{output}: {form}, {memory / (1 << 20):.1f} MiB of memory in {done.written / (1 << 20):.1f} MiB "
             f"({done.written / max(memory, 1):.1%}), {seconds:.1f} s"]
    for bit, pages in done.left_out.items():
        lines.append(f"  left out: {pages} pages ({pages * done.page / (1 << 20):.1f} MiB) of {LEVELS[bit]}")
    if done.absent:
        lines.append(f"  absent in the source, and here: {done.absent} pages")
    if done.partial:
        lines.append(f"  held in part in the source: {done.partial} pages, filled up with zeroes")
    if done.lost:
        why = next(iter(done.lost.values()))
        lines.append(f"  could not be read, and left out: {len(done.lost)} pages; the first: {escape(why)}")
    return lines
