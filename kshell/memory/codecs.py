"""How pages of kdump-compressed dumps are compressed: one page, one stream, by the flags of its descriptor.

makedumpfile: diskdump_mod.h (``DUMP_DH_COMPRESSED_*``). The libraries are imported when a page first needs them. They
are those that are quickest at pages: libdeflate takes half of zlib's time, and python-zstandard, which keeps its
context, a third of the time of one that makes a context for each page. A decoder is for one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

from kshell.errors import FormatError

ZLIB, LZO, SNAPPY, INCOMPLETE, ZSTD = 1, 2, 4, 8, 0x20
CODECS = {ZLIB: "zlib", LZO: "lzo", SNAPPY: "snappy", ZSTD: "zstd"}
CODEC_BITS = sum(CODECS)
#: zlib's level, as makedumpfile's: about three times as fast as the default, for a few percent
ZLIB_LEVEL = 1
#: zstd's level, as makedumpfile's
ZSTD_LEVEL = 1
FEW = 8  # pages

#: gives the page of so many bytes that is compressed; raises anything, or gives another number, when it is none
Decoder = Callable[[bytes, int], "bytes | bytearray"]
#: fills the memoryview with the pages that are in the pieces; raises anything when one does not come out even
BatchDecoder = Callable[[list[bytes], memoryview], None]
Encoder = Callable[[bytes], bytes]


def decoder_of(codec: int) -> Decoder:
    """Return the function that decompresses a page of *codec*. What it makes is bounded, whatever the bytes say.

    :raises FormatError: no library here reads it
    """
    if codec == ZLIB:
        return _deflate()
    if codec == LZO:
        lzo: Decoder = _lzo().decompress
        return lzo
    if codec == ZSTD:
        return _zstd_decoder()
    into = _snappy(codec).decompress_raw_into

    def snappy_page(data: bytes, size: int) -> bytearray:
        page = bytearray(size)
        count = into(data, page)
        if count != size:
            raise ValueError(f"{count} bytes instead of {size}")
        return page

    return snappy_page


def decode_slowly(codec: int, decoder: Decoder, data: bytes, out: memoryview) -> None:
    """Fill *out*, which is a page, from *data*; the error tells what is wrong with it."""
    try:
        out[:] = decoder(data, len(out))  # a ValueError when it is not exactly a page
    except Exception:
        if codec != ZLIB:
            raise
        import zlib

        out[:] = zlib.decompress(data, bufsize=len(out))  # it says what is wrong, as libdeflate does not


def batch_decoder_of(codec: int) -> BatchDecoder:
    """Return the function that decompresses pages of *codec* that follow each other, in loops that are not Python's.

    :raises FormatError: no library here reads it
    """
    if codec == SNAPPY:
        into = _snappy(codec).decompress_raw_into

        def snappy_pages(pieces: list[bytes], out: memoryview) -> None:
            size = len(out) // len(pieces)
            if set(map(into, pieces, [out[at : at + size] for at in range(0, len(out), size)])) != {size}:
                raise ValueError("not pages")

        return snappy_pages
    if codec == ZSTD:
        zstandard = _zstandard()
        told: Callable[[bytes], int] = zstandard.frame_content_size
        decompress = zstandard.ZstdDecompressor().decompress
    else:
        decompress = _lzo().decompress if codec == LZO else _deflate()

    def fill(pieces: list[bytes], out: memoryview) -> None:
        size = len(out) // len(pieces)
        if codec == ZSTD and not set(map(told, pieces)) <= {size, -1}:
            raise ValueError("not pages")
        for first in range(0, len(pieces), FEW):  # in the nearest cache until they are copied
            pages = list(map(decompress, pieces[first : first + FEW], repeat(size)))
            if set(map(len, pages)) != {size}:
                raise ValueError("not pages")
            out[first * size : (first + len(pages)) * size] = b"".join(pages)

    return fill


def _deflate() -> Decoder:
    try:
        from deflate import zlib_decompress
    except ImportError:
        import zlib

        return lambda data, size: zlib.decompress(data, bufsize=size)
    found: Decoder = zlib_decompress
    return found


def _zstd_decoder() -> Decoder:
    zstandard = _zstandard()
    decompress, told = zstandard.ZstdDecompressor().decompress, zstandard.frame_content_size

    def zstd_page(data: bytes, size: int) -> bytes:
        found = told(data)  # believed, a lie would be allocated
        if found not in (size, -1):
            raise ValueError(f"{found} bytes instead of {size}")
        page: bytes = decompress(data, size)
        return page

    return zstd_page


def encoder_of(codec: int) -> Encoder:
    """Return the function that compresses a page with *codec*.

    :raises FormatError: no library here writes it
    """
    if codec == ZLIB:
        import zlib

        return lambda data: zlib.compress(data, ZLIB_LEVEL)
    if codec == LZO:
        lzo = _lzo()
        return lambda data: bytes(lzo.compress(data))
    if codec == ZSTD:
        encode: Encoder = _zstandard().ZstdCompressor(level=ZSTD_LEVEL).compress
        return encode
    snappy = _snappy(codec)
    return lambda data: bytes(snappy.compress_raw(data))


def framed_snappy(data: bytes, size: int, place: int) -> bytes:
    """Return the *size* bytes of a stream in snappy's framing format, checksums and all; never more.

    :param place: where it lies in its file, for the message
    :raises FormatError: it is damaged
    """
    out = bytearray(size)
    try:
        count = _snappy(SNAPPY).decompress_into(data, out)
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


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise _lacking(ZSTD, "zstandard") from error
    return zstandard


def _snappy(codec: int) -> Any:
    if codec != SNAPPY:
        raise FormatError(f"pages are compressed in an unknown way (flags 0x{codec:x})")
    try:
        from cramjam import snappy
    except ImportError as error:
        raise _lacking(SNAPPY, "cramjam") from error
    return snappy


def _lacking(codec: int, package: str) -> FormatError:
    return FormatError(f"{CODECS[codec]} pages need the Python package {package}: pip install {package}")
