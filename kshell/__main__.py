"""The ``kshell`` command: options, the target, and which shell to run.

Nothing but click is imported before it is known what is asked. Exit status: 0 normal end, also of a script with errors
on stdin, as in mdb; 1 the target cannot be opened, or with ``-e``/``-f`` a parse error or a last dcmd that failed, or
with ``--stop-on-error`` any failure; 2 wrong usage; 130 interrupted. A reader that went away (``| head``) is no error.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found, unused-ignore]  # built in, where signal takes milliseconds

# Ctrl-C while modules are loaded ends the process, as it ends any; Python would print where it was.
_quiet = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
if _quiet:
    try:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    except ValueError:  # not the main thread
        _quiet = False

import os  # noqa: E402
import sys  # noqa: E402

import click  # noqa: E402

import kshell  # noqa: E402

if _quiet:
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)

_EPILOG = """\b
Examples:
  kshell vmcore                         questions and answers on a crash dump
  kshell -e '::ps' vmcore               one question
  kshell --cow -e 'jiffies/W 0' vmcore  a write to a private copy
  echo '2+3=X' | kshell -n              a calculator
  kshell -f script vmcore -- 0t10       a file of commands with an argument, its variable 1
  kshell -p 4711                        a live process; kshell CORE its core, kshell FILE a program
  kshell triage vmcore                  the first look at a dump: why it died, who waits, where memory went
  kshell convert -d 31 vmcore small     a smaller dump; see kshell convert --help

Process ids are decimal, because they are printed in decimal; other bare numbers are hexadecimal (0t10 is ten).
"""


class Number(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """An address, hexadecimal with or without 0x."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return *value* as a number; wrong usage when it is none."""
        try:
            return value if isinstance(value, int) else int(str(value), 16)
        except ValueError:
            self.fail(f"{value!r} is no address (hexadecimal)", param, ctx)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "KSHELL"}, epilog=_EPILOG)
@click.option("-e", "commands", multiple=True, metavar="CMD", allow_from_autoenv=False,
              help="Obey CMD and leave; may be given again.")
@click.option("-f", "script", metavar="FILE", allow_from_autoenv=False,
              help="Obey the commands in FILE (- is stdin) and leave.")
@click.option("-k", "want_kernel", is_flag=True, allow_from_autoenv=False,
              help="Fail unless the kernel's memory can be read.")
@click.option("-w", "write", is_flag=True, allow_from_autoenv=False,
              help="Open for writing: writes go into the target itself.")
@click.option("--dry-run", is_flag=True, allow_from_autoenv=False,
              help="Show what would be written, and write nothing.")
@click.option("--cow", is_flag=True, help="Writes go to a private copy; the target stays as it is.")
@click.option("--raw", is_flag=True, allow_from_autoenv=False, help="TARGET is raw physical memory.")
@click.option("--phys-base", type=Number(), default=0, metavar="ADDR", allow_from_autoenv=False,
              help="Of raw memory: the physical address of its first byte.")
@click.option("--map", "map_file", metavar="FILE", allow_from_autoenv=False,
              help="Of raw memory: which runs it has, as in /proc/iomem.")
@click.option("--part", "parts", multiple=True, metavar="FILE", allow_from_autoenv=False,
              help="Another part of the split dump that TARGET is one of; those beside it are found.")
@click.option("--kernel", type=click.IntRange(min=1), metavar="N", allow_from_autoenv=False,
              help="Of several kernels in TARGET: the one that ::status -v lists as N.")
@click.option("--pause", is_flag=True, help="Stop a virtual machine or a process for each question, and resume it.")
@click.option("-p", "--pid", type=click.IntRange(1), metavar="PID", allow_from_autoenv=False,
              help="The target is the live process PID.")
@click.option("--stay-stopped", is_flag=True, help="Leave a virtual machine stopped at the end, if it is.")
@click.option("-n", "no_target", is_flag=True, help="No target at all: a calculator.")
@click.option("--json", "json", is_flag=True, help="Output as JSON, one object a line.")
@click.option("-q", "quiet", is_flag=True, help="No banner and no notes.")
@click.option("--stop-on-error", is_flag=True, help="Leave at the first command that fails, with status 1.")
@click.option("--no-plugins", is_flag=True, help="Load no plugins but those that come with kshell.")
@click.option("-o", "on", multiple=True, metavar="OPT", allow_from_autoenv=False,
              help="Switch an option on, or NAME=VALUE, as ::set -o does; +o OPT switches one off.")
@click.option("+o", "off", multiple=True, metavar="OPT", hidden=True, allow_from_autoenv=False)
@click.option("-I", "macros", metavar="PATH", allow_from_autoenv=False,
              help="Folders in which $<NAME looks for files of commands, with colons between (::set -I).")
@click.option("-L", "modules", metavar="PATH", allow_from_autoenv=False,
              help="Folders in which ::load NAME looks for plugins.")
@click.option("-P", "prompt", metavar="TEXT", allow_from_autoenv=False, help="The prompt.")
@click.option("-s", "distance", type=click.IntRange(min=0), metavar="N", allow_from_autoenv=False,
              help="Bytes behind a symbol that carry its name; 0: as many as it has.")
@click.option("-S", "--no-startup", is_flag=True, help="Do not obey the startup file.")
@click.version_option(kshell.__version__, "-V", "--version", message="kshell %(version)s")
@click.argument("target", required=False)
@click.argument("vmlinux", required=False)
@click.pass_obj
def cli(
    behind: list[str] | None, commands: tuple[str, ...], script: str | None, want_kernel: bool, write: bool, cow: bool,
    dry_run: bool,
    raw: bool, pause: bool, stay_stopped: bool, phys_base: int, map_file: str | None, parts: tuple[str, ...],
    kernel: int | None, pid: int | None, no_target: bool, json: bool, quiet: bool, stop_on_error: bool,
    no_plugins: bool, on: tuple[str, ...], off: tuple[str, ...], macros: str | None, modules: str | None,
    prompt: str | None, distance: int | None, no_startup: bool, target: str | None, vmlinux: str | None,
) -> int:
    """mdb for Linux: read and write kernel and user memory.

    TARGET is a crash dump, or a virtual machine: gdb:HOST:PORT, gdb:SOCKET, qmp:SOCKET, ram:FILE; without one it is the
    running system. VMLINUX adds the names and types of a vmlinux, System.map or BTF file of the same kernel. TARGET may
    also be the core of a process, and VMLINUX its program; or a program, library, object file or kernel module to look
    into. Commands come from the terminal, from standard input, from -e or from -f. What follows -- are the arguments of
    the script of -f.
    """
    arguments: tuple[str, ...] = ()
    if script is not None:
        arguments = tuple(behind or ())
    elif behind:
        given = [word for word in (target, vmlinux) if word is not None] + behind
        if len(given) > 2:
            raise click.UsageError(f"unexpected argument {given[2]!r}: only a script (-f) has arguments")
        target, vmlinux = (*given, None)[:2]
    if commands and script is not None:
        raise click.UsageError("-e and -f are mutually exclusive")
    if dry_run and (write or cow):
        raise click.UsageError("--dry-run writes nothing: -w and --cow do not go with it")
    if write and cow:
        raise click.UsageError("-w and --cow are mutually exclusive")
    if pid is not None:
        if target is not None or no_target:
            raise click.UsageError("-p names the target: TARGET and -n do not go with it")
        target = f"pid:{pid}"
    if no_target and (target is not None or write or cow or want_kernel):
        raise click.UsageError("-n means no target: TARGET, -k, -w and --cow do not go with it")
    if target is None and (raw or phys_base or map_file is not None or parts or kernel is not None):
        raise click.UsageError("--raw, --phys-base, --map, --part and --kernel are about TARGET, and there is none")
    if target == "":
        raise click.UsageError("TARGET is empty")
    from kshell.shell.start import Request, Settings, start

    return start(Request(
        commands=commands, script=script, mode="r+" if write else "c" if cow else "r", no_target=no_target, json=json,
        quiet=quiet, stop_on_error=stop_on_error, plugins=not no_plugins, target=target, vmlinux=vmlinux,
        raw=raw, phys_base=phys_base, map=map_file, parts=parts, kernel=kernel, arguments=arguments,
        startup=not no_startup, pause=pause, stay_stopped=stay_stopped, want_kernel=want_kernel,
        dry_run=dry_run, options=Settings(on, off, macros, modules, prompt, distance)))


def main() -> None:
    """Run the command and exit with its status."""
    _open_streams()
    try:
        status = _run(sys.argv[1:])
    except click.exceptions.Exit as leave:
        status = leave.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except BrokenPipeError:
        status = 0
    _leave(status)


def _run(arguments: list[str]) -> int:
    """Run ``kshell convert IN OUT`` where that is what the words say, else ``kshell [TARGET [VMLINUX]]``.

    A dump named convert is still opened by ``kshell convert`` and ``kshell convert VMLINUX``: it takes two operands
    behind the word, which the other form never has, or a question for help. ``kshell triage DUMP`` obeys ::triage.
    """
    if arguments[:1] == ["convert"]:
        from kshell.shell.convert import command, wants_conversion

        if wants_conversion(arguments[1:]):
            return command.main(arguments[1:], "kshell convert", standalone_mode=False) or 0
        if arguments == ["convert"] and not os.path.lexists("convert"):
            raise click.UsageError("kshell convert IN OUT: which images?")
    if arguments[:1] == ["triage"]:
        if not any(not word.startswith("-") for word in arguments[1:]) and not {"-h", "--help"} & set(arguments[1:]):
            raise click.UsageError("kshell triage DUMP: which dump? (a dump named triage: kshell ./triage)")
        arguments = ["-e", "::triage", *arguments[1:]]
    words, behind = arguments, []
    if "--" in words:
        at = words.index("--")
        words, behind = words[:at], words[at + 1 :]
    return cli.main(words, obj=behind, standalone_mode=False) or 0


def _open_streams() -> None:
    """Give closed standard streams (``<&-``) something to be, so that no dump is opened in their place.

    An output that was closed stays one that cannot be written, and is told as a full disk is.
    """
    if sys.stdin is None:
        sys.stdin = open(os.open(os.devnull, os.O_RDONLY))  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w")  # noqa: SIM115


def _leave(status: int) -> None:
    """Exit with *status*; what is still to be written to a reader that has gone is dropped."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.stderr.write(f"kshell: cannot write the output: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    try:
        sys.stderr.flush()
    except OSError:  # 2>&1 | head: Python would exit with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sys.exit(status)


if __name__ == "__main__":
    main()
