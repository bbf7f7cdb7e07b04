"""How many pages an image holds, how many it lacks for each reason, and by which rule those were left out.

A kdump-compressed dump tells its dump level, an ELF one nothing; neither tells by which of the level's rules a page
went. The kernel's own page structs do, where the image has them (:mod:`kshell.linux.page_filter`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kshell.errors import KshellError
from kshell.linux.page_filter import ZERO, explain
from kshell.memory.kdumpheader import LEVELS

if TYPE_CHECKING:
    from kshell.target.target import Target

ALL = sum(LEVELS)
DOING = "judging pages left out"


def page_counts(target: Target) -> dict[str, str]:
    """Return the counts for people, by what is counted. Looks at all that is known of the memory."""
    held, missing = 0, dict[str, int]()
    size = target.arch.page_size
    for run in target.physical.ranges():
        count = (run.end - run.start) // size
        if run.held:
            held += count
        else:
            why = run.reason.name.lower() if run.reason is not None else "missing"
            missing[why] = missing.get(why, 0) + count
    if not held and not missing:
        return {"pages": "nothing tells which pages there are"}
    told = {"pages held": f"{held:,} ({held * size >> 20:,} MiB)"}
    for why, count in missing.items():
        told[f"pages {why}"] = f"{count:,} ({count * size >> 20:,} MiB)"
    if missing.get("excluded"):
        level = getattr(target.physical, "level", 0)
        known = 0 < level <= ALL
        told["pages excluded"] += f", by dump level {level}" if known else ", the format does not tell by which level"
        told["excluded by rule"] = _rules(target, level if known else ALL, missing["excluded"], guessed=not known)
    return told


def _rules(target: Target, level: int, total: int, *, guessed: bool) -> str:
    """Return how many of *total* pages were left out by each rule of *level*."""
    done, show = 0, target.progress

    def tell(pages: int) -> None:
        nonlocal done
        done += pages
        if show is not None:
            show(DOING, done, total)

    try:
        counts, rest = explain(target, level, tell)
    except KshellError as error:
        return f"not known: {error}"
    finally:
        if show is not None:
            show("", total, total)
    words = [f"{count:,} {LEVELS[bit]}" for bit, count in counts.items() if count or not guessed]
    if rest:
        # in a kdump pages of zeroes are held: they share one place
        zeroes = " (pages of zeroes, perhaps)" if level & ZERO and guessed else ""
        words.append(f"{rest:,} that no rule explains{zeroes}")
    return f"{', '.join(words)}; inferred from the kernel's page structs"
