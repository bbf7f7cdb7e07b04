"""Commands of crash, gdb and drgn that people type here: what does the same in kshell.

Asked only when a line could not be obeyed, for the hint under its error; docs/coming-from.md has the long table.
"""

from __future__ import annotations

import re

_SAME = (
    ("bt backtrace where frame up down",
     "::stack prints a stack: ::pgrep NAME | ::stack, ADDRESS::stack; ::stacks all of them"),
    ("thread", "::cpuinfo, ::stack -c CPU; ::ps -T lists the threads"),
    ("foreach", "::ps, ::stacks, or ::walk proc | ::COMMAND"),
    ("p print px pd inspect output",
     "::print prints: SYMBOL::print, ADDRESS::print TYPE MEMBER ...; a number: EXPRESSION=X"),
    ("struct union ptype",
     "::print prints types: ::print -at struct NAME for the layout, ADDRESS::print struct NAME for an object"),
    ("sizeof", "::sizeof TYPE"),
    ("x rd ascii", "memory is examined with ADDRESS/FORMAT: ADDRESS,4/J, ADDRESS/s, ADDRESS/0t64 for a hex dump"),
    ("wr", "ADDRESS/W VALUE writes 4 bytes, /Z 8, ADDRESS::write -s TEXT a string; kshell -w or --cow allows it"),
    ("info", "::regs prints registers, <rip is one in an expression; ::status, ::mappings, ::events, ::modinfo"),
    ("registers", "::regs prints registers, <rip is one in an expression"),
    ("log dmesg", "::msgbuf prints the kernel's log"),
    ("mod lsmod", "::modinfo lists the modules"),
    ("sys", "::status, ::panic"),
    ("vm", "::getu PID chooses a process, ::mappings prints its memory map"),
    ("set", "::getu PID chooses a process; ::set -o NAME an option; an assignment: VALUE>NAME"),
    ("task", "::task, ::ps -l, ADDRESS::print struct task_struct"),
    ("break b tbreak hbreak", "::bp SYMBOL sets a breakpoint in a machine that runs, ::events lists them"),
    ("watch", "::wp sets a watchpoint, ::watch repeats a command"),
    ("continue cont step stepi next finish", "::cont lets a stopped machine run, ::step [over|out] goes one step"),
    ("kmem", "::kmastat lists slab caches, ::memstat tells where memory went, ADDRESS::whatis whose an address is"),
    ("list tree", "HEAD::walk list, ADDRESS::list TYPE MEMBER; ROOT::walk rbtree; ::walkers lists all walkers"),
    ("sym", "SYMBOL=J is an address, ADDRESS=p its symbol, ::nm lists symbols"),
    ("search find", "::find -s TEXT, ::find VALUE; VALUE::kgrep for pointers"),
    ("dis disas disassemble", "SYMBOL::dis"),
    ("eval", "EXPRESSION=X"),
    ("vtop", "ADDRESS::vtop"),
    ("whatis", "ADDRESS::whatis"),
    ("files", "::pgrep NAME | ::pfiles"),
    ("quit exit q", "::quit or $q, or Ctrl-D"),
    ("help man", "::help lists the commands, ::help NAME explains one"),
    ("import from for prog def", "kshell's language is mdb's; in Python: from kshell import kvm (docs/kvm.md)"),
)

_WORD = re.compile(r"\s*([a-z]+)(?![\w.`])")


def hint_for(line: str) -> str | None:
    """Return what to type instead of *line*, if its first word is a command of another debugger; else None."""
    match = _WORD.match(line)
    return None if match is None else next((hint for words, hint in _SAME if match[1] in words.split()), None)
