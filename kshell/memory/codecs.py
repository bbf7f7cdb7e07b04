"""How pages of kdump-compressed dumps are compressed: one page, one stream, by the flags of its descriptor.

makedumpfile: diskdump_mod.h (``DUMP_DH_COMPRESSED_*``). The libraries are imported when a page first needs them. All of
them let other threads run while they work (zlib, cramjam, lzallright release the GIL).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from kshell.errors import FormatError

ZLIB, LZO, SNAPPY, INCOMPLETE, ZSTD = 1, 2, 4, 8, 0x20
CODECS = {ZLIB: "zlib", LZO: "lzo", SNAPPY: "snappy", ZSTD: "zstd"}
CODEC_BITS = sum(CODECS)
#: those whose pages take so long that threads gain; a page of snappy is done before another thread has woken up
SLOW = frozenset((ZLIB, LZO, ZSTD))
#: zlib's level, as makedumpfile's: about three times as fast as the default, for a few percent
ZLIB_LEVEL = 1
#: zstd's level, as makedumpfile's
ZSTD_LEVEL = 1

#: fills the memoryview, which is a page, from the compressed bytes; raises anything when it does not come out even
Decoder = Callable[[bytes, memoryview], None]
Encoder = Callable[[bytes], bytes]


def decoder_of(codec: int) -> Decoder:
    """Return the function that decompresses a page of *codec* into a buffer of the page's size, and never more.

    :raises FormatError: no library here reads it
    """
    if codec == ZLIB:
        return _zlib_into
    if codec == LZO:
        lzo = _lzo()

        def lzo_into(data: bytes, out: memoryview) -> None:
            out[:] = lzo.decompress(data, len(out))

        return lzo_into
    cramjam = _cramjam(codec)
    into = cramjam.snappy.decompress_raw_into if codec == SNAPPY else cramjam.zstd.decompress_into

    def cramjam_into(data: bytes, out: memoryview) -> None:
        count = into(data, out)
        if count != len(out):
            raise ValueError(f"{count} bytes instead of {len(out)}")

    return cramjam_into


def _zlib_into(data: bytes, out: memoryview) -> None:
    out[:] = zlib.decompress(data, bufsize=len(out))  # a ValueError when it is not exactly a page


def encoder_of(codec: int) -> Encoder:
    """Return the function that compresses a page with *codec*.

    :raises FormatError: no library here writes it
    """
    if codec == ZLIB:
        return lambda data: zlib.compress(data, ZLIB_LEVEL)
    if codec == LZO:
        lzo = _lzo()
        return lambda data: bytes(lzo.compress(data))
    cramjam = _cramjam(codec)
    if codec == SNAPPY:
        return lambda data: bytes(cramjam.snappy.compress_raw(data))
    return lambda data: bytes(cramjam.zstd.compress(data, ZSTD_LEVEL))


def framed_snappy(data: bytes, size: int, place: int) -> bytes:
    """Return the *size* bytes of a stream in snappy's framing format, checksums and all; never more.

    :param place: where it lies in its file, for the message
    :raises FormatError: it is damaged
    """
    out = bytearray(size)
    try:
        count = _cramjam(SNAPPY).snappy.decompress_into(data, out)
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(f"snappy, at 0x{place:x} of the file: {error}") from error
    if count != size:
        raise FormatError(f"snappy, at 0x{place:x} of the file: {count} bytes instead of {size}")
    return bytes(out)


def _lzo() -> Any:
    try:
        from lzallright import LZOCompressor
    except ImportError as error:
        raise _lacking(LZO, "lzallright") from error
    return LZOCompressor()


def _cramjam(codec: int) -> Any:
    if codec not in (SNAPPY, ZSTD):
        raise FormatError(f"pages are compressed in an unknown way (flags 0x{codec:x})")
    try:
        import cramjam
    except ImportError as error:
        raise _lacking(codec, "cramjam") from error
    return cramjam


def _lacking(codec: int, package: str) -> FormatError:
    return FormatError(f"{CODECS[codec]} pages need the Python package {package}: pip install {package}")
