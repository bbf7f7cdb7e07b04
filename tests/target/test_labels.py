"""Tables of a kernel whose kallsyms has code only, found by their shape; /proc/kallsyms is the oracle.

A 6.1 kernel that was built without CONFIG_KALLSYMS_ALL has no other symbol than those between _stext and _etext,
_sinittext and _einittext: the guests' kernels are cut down to that.
"""

from __future__ import annotations

import pytest

from kshell.errors import FormatError
from kshell.linux.memory_map import image_range, regions
from kshell.linux.pages import page_array
from kshell.linux.unwinding import unwinding
from kshell.target import deduced, labels
from kshell.target.image import image_bytes
from kshell.target.open import open_target
from kshell.target.vmlinux import image_build_id
from kshell.types.kallsyms_scan import Run
from tests.guest.fixtures import have
from tests.guest.spec import named_spec
from tests.target.test_deduced import GUESTS, places_of
from tests.target.thin import LABELS, cut_down


@pytest.mark.guest
@pytest.mark.parametrize("name", GUESTS)
def test_tables_by_their_shape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = have(named_spec(name))
    with open_target(str(guest.elf)) as target:
        built = image_build_id(target)
    cut_down(monkeypatch, LABELS)
    places = places_of(guest)
    with open_target(str(guest.elf)) as target:
        found = {word: symbol.address for word in deduced.LABELS if (symbol := target.symbols.own(word)) is not None}
        assert found == {word: places[word] for word in deduced.LABELS if word in places}
        assert target.type("struct task_struct").size and target.findings["types"] == "BTF in the image"
        assert "exported ones by the export table" in target.findings["symbols"]
        assert image_build_id(target) == built is not None
        assert unwinding(target).kernel is not None
        assert target.symbol("init_task").address == places["init_task"]
        if name != "5.10":  # whose BTF has no per-CPU variables
            assert target.symbol("runqueues").address == places["runqueues"]
        assert target.symbol("max_pfn").address == places["max_pfn"]


@pytest.mark.guest
def test_code_of_the_boot_has_its_names_and_what_is_no_code_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = have(named_spec("6.1"))
    places = places_of(guest)
    cut_down(monkeypatch, LABELS)
    with open_target(str(guest.elf)) as target:
        named = target.symbolize(places["start_kernel"] + 5)
        assert named is not None and (named[0].name, named[1]) == ("start_kernel", 5)
        for place in (places["_etext"] + 0x1000, places["__start_rodata"] + 0x40, places["_einittext"] + 0x40):
            assert target.symbolize(place) is None, hex(place)
        start, end = image_range(target)
        assert start == places["_text"] and places["_end"] <= end < places["_end"] + (2 << 20)
        assert {"text", "modules", "direct"} <= {region.kind for region in regions(target)}


@pytest.mark.guest
def test_what_is_there_twice_or_not_at_all_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = have(named_spec("6.1"))
    places = places_of(guest)
    cut_down(monkeypatch, LABELS)
    with open_target(str(guest.elf)) as target:
        start, end = places["__start_BTF"], places["__stop_BTF"]
        again = Run(start, target.kernel.read(start, end - start))
        for runs, words in (([again, again._replace(start=start - 4096)], "2 places in the kernel image look like BTF"),
                            ([], "no place in the kernel image has the shape of BTF")):
            monkeypatch.setattr(labels, "image_bytes", lambda *_, runs=runs: runs)
            with pytest.raises(FormatError, match=words):
                labels.find_labels(target, "__start_BTF", target.symbols.own)
            for label in ("__start___ksymtab", "__start_orc_unwind_ip"):
                with pytest.raises(FormatError, match="no place in the kernel image has the shape of"):
                    labels.find_labels(target, label, target.symbols.own)
            assert labels.find_build_id(target) is None
    monkeypatch.setattr(labels, "image_bytes", image_bytes)
    with open_target(str(guest.elf), mode="c") as target:
        target.kernel.write(places["__start_BTF"], b"\0")
        assert target.types.get("struct task_struct") is None
        assert "BTF: not found: no place in the kernel image" in target.findings["deduced"]


@pytest.mark.guest
def test_a_kernel_without_vmemmap(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONFIG_SPARSEMEM_VMEMMAP=n: a page array that is not there is said, and not counted as empty."""
    guest = have(named_spec("6.1"))
    with open_target(str(guest.elf)) as target:
        array = page_array(target)
    # the entry of its top table is cleared before anything is read through it
    with open_target(str(guest.elf), mode="c") as target:
        root = target.kernel.root  # type: ignore[attr-defined]
        target.physical.write(root + 8 * (array.start >> 39 & 511), bytes(8))
        with pytest.raises(FormatError, match="CONFIG_SPARSEMEM_VMEMMAP"):
            page_array(target)
