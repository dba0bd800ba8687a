"""From what storage holds to plaintext, while it arrives: decrypt, decompress, verify.

A block in storage is, from the outside in: 16 bytes of MD5 (some Azure containers only), AES-CBC where it is encrypted
(`cipher`); then gzip, snappy (raw, or in snappy-java's frames), an LZ4 frame, or the plain bytes.
"""

from __future__ import annotations

import functools
import zlib
from typing import Protocol

import cramjam
import lz4.frame

from cterafs import errors
from cterafs.direct.buffers import written
from cterafs.direct.cipher import SCRATCH, Decrypted, encrypted_size
from cterafs.direct.landing import Landing
from cterafs.direct.source import After, Source, readall
from cterafs.errors import BlockInfo
from cterafs.model import Compression

Buffer = bytes | bytearray | memoryview

PREFIX = 16  # the MD5 in front

GZIP_MAGIC = b"\x1f\x8b"
GZIP_BEGINNING = b"\x1f\x8b\x08\x00"
"""With deflate, and without a name or any other extra, as it is written to a stream. The magic alone is too short to
go by before all is there: one of 65,536 blocks that have an MD5 in front would be taken for what it is not."""
SNAPPY_MAGIC = b"\x82SNAPPY\x00"
SNAPPY_HEADER = 16  # the magic, and two 32-bit versions
LZ4_MAGIC = b"\x04\x22\x4d\x18"
BEGINNING = SNAPPY_HEADER
"""Bytes that tell the codec."""


class Stored(Source, Protocol):
    """A block as storage sends it; `size` is None where storage does not tell before the end."""

    @property
    def size(self) -> int | None: ...


def stored_limit(length: int) -> int:
    """The most bytes that a block of `length` bytes of plaintext may take in storage.

    Snappy promises not to expand by more than a sixth, gzip and LZ4 by less; 4 KiB hold all headers and paddings.
    """
    return length + length // 6 + 4096


def land(stored: Stored, landing: Landing, key: bytes | None, how: Compression | None) -> None:
    """Decodes a block into its landing, as far as it comes, and reads it to its end; `landing.finish` is left to do.

    What is not decoded as it comes, since it cannot be (raw snappy) or since the portal does not say how it is stored,
    is decoded whole.

    Args:
        key: None where the block is not encrypted.
        how: None where the portal does not say: then the first bytes, or else the length, tell.

    Raises:
        errors.DecryptBlockError: its length or padding is wrong.
        errors.DecompressBlockError: it is not what its codec writes, or a checksum of the codec is wrong.
        errors.BlockValidationException: it has another length.
    """
    block = landing.block
    plain: Source = stored if key is None else Decrypted(stored, block, key)
    if how is Compression.NONE and (key is None or stored.size == encrypted_size(block.length)):
        _copy(plain, landing)
        return
    beginning = _beginning(plain)
    rest = After(beginning, plain)
    if how in (None, Compression.NONE):
        landing.replace(_whole(rest, block, how, encrypted=key is not None))
    elif beginning[:4] == GZIP_BEGINNING:
        _inflate(rest, landing)
    elif beginning[:8] == SNAPPY_MAGIC:
        _unsnap_frames(plain, landing)
    elif beginning[:4] == LZ4_MAGIC:
        _unlz4(rest, landing)
    else:
        landing.replace(_whole(rest, block, how, encrypted=key is not None))


def _beginning(source: Source) -> bytes:
    view = memoryview(bytearray(BEGINNING))
    filled = 0
    while filled < BEGINNING and (count := source.readinto(view[filled:])):
        filled += count
    return bytes(view[:filled])


def _copy(plain: Source, landing: Landing) -> None:
    view = landing.start()
    filled, length = 0, landing.block.length
    while filled < length and (count := plain.readinto(view[filled:])):
        filled += count
        landing.advance(count)
    if filled == length and plain.readinto(memoryview(bytearray(1))):
        raise errors.BlockValidationException(landing.block, f"it holds at least {length + 1} bytes")


# --- codecs, as it comes ----------------------------------------------------------------------------------------------


def _inflate(data: Source, landing: Landing) -> None:
    stream = zlib.decompressobj(wbits=31)  # a gzip header and trailer
    view, filled = landing.start(), 0
    piece = memoryview(bytearray(SCRATCH))
    count = -1
    while count:
        count = data.readinto(piece)
        if count and stream.eof:
            raise errors.DecompressBlockError(landing.block, "bytes follow its end")
        pending: Buffer = piece[:count]
        while not stream.eof:
            try:
                plain = stream.decompress(pending, SCRATCH)
            except zlib.error as error:
                raise errors.DecompressBlockError(landing.block, str(error)) from None
            if not plain:
                break
            filled = _put(plain, view, filled, landing)
            pending = stream.unconsumed_tail
    _ended(landing.block, complete=stream.eof, trailing=bool(stream.unused_data))


def _unlz4(data: Source, landing: Landing) -> None:
    stream = lz4.frame.LZ4FrameDecompressor()
    view, filled = landing.start(), 0
    piece = memoryview(bytearray(SCRATCH))
    while count := data.readinto(piece):
        if stream.eof:
            raise errors.DecompressBlockError(landing.block, "bytes follow its end")
        pending: Buffer = piece[:count]
        while not stream.eof:
            try:
                plain = stream.decompress(pending, max_length=SCRATCH)
            except RuntimeError as error:
                raise errors.DecompressBlockError(landing.block, str(error)) from None
            filled = _put(plain, view, filled, landing)
            pending = b""  # what is left of it, the stream keeps
            if stream.needs_input:
                break
    _ended(landing.block, complete=stream.eof, trailing=bool(stream.unused_data))


def _put(plain: bytes, view: memoryview, filled: int, landing: Landing) -> int:
    stop = filled + len(plain)
    if stop > len(view):
        raise errors.BlockValidationException(landing.block, f"it holds at least {len(view) + 1} bytes")
    view[filled:stop] = plain
    landing.advance(len(plain))
    return stop


def _ended(block: BlockInfo, *, complete: bool, trailing: bool) -> None:
    if not complete:
        raise errors.DecompressBlockError(block, "it is cut short")
    if trailing:
        raise errors.DecompressBlockError(block, "bytes follow its end")


def _unsnap_frames(data: Source, landing: Landing) -> None:
    """From behind the header: frames of a 32-bit length and raw snappy."""
    view, filled = landing.start(), 0
    scratch = memoryview(bytearray(SCRATCH))
    begin = end = 0  # of what is in `scratch` and not decompressed yet
    while count := data.readinto(scratch[end:]):
        end += count
        while end - begin >= 4 and (stop := begin + 4 + int.from_bytes(scratch[begin : begin + 4], "big")) <= end:
            filled += _unsnap_into(scratch[begin + 4 : stop], view[filled:], landing)
            begin = stop
        if end == len(scratch):
            scratch, end = _moved(scratch, begin, end, landing.block), end - begin
            begin = 0
    if begin != end:
        raise errors.DecompressBlockError(landing.block, "a snappy frame is cut short")


def _moved(scratch: memoryview, begin: int, end: int, block: BlockInfo) -> memoryview:
    """What is left goes to the beginning, of a larger buffer if it is the beginning of a frame that needs one."""
    left = bytes(scratch[begin:end])
    size = int.from_bytes(left[:4], "big") if len(left) >= 4 else 0
    if size > stored_limit(block.length):
        raise errors.DecompressBlockError(block, "a snappy frame is larger than a block")
    if 4 + size > len(scratch):
        scratch = memoryview(bytearray(4 + size))
    scratch[: len(left)] = left
    return scratch


def _unsnap_into(frame: memoryview, room: memoryview, landing: Landing) -> int:
    if not frame:
        raise errors.DecompressBlockError(landing.block, "a snappy frame is empty")
    try:
        claimed = cramjam.snappy.decompress_raw_len(frame)
        if claimed > len(room):
            raise errors.BlockValidationException(landing.block, f"it holds at least {landing.block.length + 1} bytes")
        count = cramjam.snappy.decompress_raw_into(frame, room[:claimed])
    except cramjam.DecompressionError as error:
        raise errors.DecompressBlockError(landing.block, str(error)) from None
    landing.advance(count)
    return count


# --- whole ------------------------------------------------------------------------------------------------------------


def _whole(source: Source, block: BlockInfo, how: Compression | None, *, encrypted: bool) -> bytes:
    """The plaintext of a decrypted block."""
    data = readall(source, stored_limit(block.length))
    if len(data) > stored_limit(block.length):
        raise errors.BlockValidationException(block, f"it takes at least {len(data)} bytes in storage")
    # With an MD5 in front, what was taken for the IV is not: CBC then yields 16 bytes of rubbish, and after them the
    # very plaintext. So the second try needs no second decryption.
    views = [memoryview(data), memoryview(data)[PREFIX:]] if encrypted else [memoryview(data)]
    for view in views if how is not Compression.NONE else ():
        plain = _tried(view, block, how)
        if plain is not None:
            if view is not views[0] and how is None and len(data) == block.length:
                raise errors.BlockValidationException(block, "it can be read in two ways; no codec is named")
            return plain
    for view in views if how in (None, Compression.NONE) else ():
        if len(view) == block.length:
            return bytes(view)
    if how is Compression.NONE:
        raise errors.BlockValidationException(block, f"it holds {len(data)} bytes")
    return _decompress(views[0], block, how)  # which tells what is wrong with it


def _tried(data: memoryview, block: BlockInfo, how: Compression | None) -> bytes | None:
    try:
        return _decompress(data, block, how)
    except errors.BlockError:
        return None


def _decompress(data: memoryview, block: BlockInfo, how: Compression | None) -> bytes:
    # No raw snappy begins like the others: its first element would refer back to before the beginning.
    for magic, expand in ((GZIP_MAGIC, _inflate), (SNAPPY_MAGIC, _unsnap_frames), (LZ4_MAGIC, _unlz4)):
        if data[: len(magic)] == magic:
            landing = Landing(block)
            expand(After(data[SNAPPY_HEADER if expand is _unsnap_frames else 0 :]), landing)
            landing.verify()
            return bytes(landing.take())
    if how in (Compression.SNAPPY, None):
        return _unsnap(data, block)
    raise errors.DecompressBlockError(block, f"it does not begin like {how.value}")


def _unsnap(data: memoryview, block: BlockInfo) -> bytes:
    """Raw snappy, which states its length first: that is checked before anything is allocated."""
    try:
        claimed = cramjam.snappy.decompress_raw_len(data)
        if claimed != block.length:
            raise errors.BlockValidationException(block, f"it holds {claimed} bytes")
        return written(claimed, functools.partial(cramjam.snappy.decompress_raw_into, data))
    except cramjam.DecompressionError as error:
        raise errors.DecompressBlockError(block, str(error)) from None
