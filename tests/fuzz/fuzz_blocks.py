"""Fuzzers of what storage holds, and of what lies in the cache on the disk."""

from __future__ import annotations

import base64
import functools
import gzip
import io
import tempfile
import zlib
from pathlib import Path

import cramjam
import lz4.frame
from block_encoder import Trickle, encrypt, wrap
from fuzzing import Target, is_one_line

from cterafs import errors
from cterafs.content.blockcodec import BlockCodec, DamagedBlock, EncryptingCodec
from cterafs.content.blockindex import BlockIndex, BusyIndex, DamagedIndex, OtherKind, Place
from cterafs.content.memory import BlockKey
from cterafs.direct import cipher, parts
from cterafs.direct.codec import land
from cterafs.direct.landing import Landing
from cterafs.direct.storage import Part
from cterafs.errors import BlockInfo
from cterafs.model import Compression, Extent

KEY = bytes(range(32))
SECRET = bytes(range(32, 64))
PLAIN = b"some plaintext, some plaintext, and some more " * 40
HOW = (None, *Compression)

# The first byte tells how a block is stored; the next two, how long it has to be.


def stored(plain: bytes, data: bytes, how: Compression | None, *, encrypted: bool = False) -> bytes:
    if encrypted:
        data = encrypt(data, KEY)
    return bytes([HOW.index(how) * 2 + encrypted]) + len(plain).to_bytes(2, "big") + data


def _taken_apart(data: bytes) -> tuple[BlockInfo, bytes | None, Compression | None, bytes]:
    head = data[:3].ljust(3, b"\0")
    length = int.from_bytes(head[1:], "big")
    return BlockInfo(7, 1, 0, length), KEY if head[0] & 1 else None, HOW[head[0] // 2 % len(HOW)], data[3:]


def _landed(block: BlockInfo, key: bytes | None, how: Compression | None, data: bytes, step: int) -> bytes | None:
    landing = Landing(block)
    try:
        land(Trickle(data, step), landing, key, how)
        landing.verify()
    except errors.BlockError as error:
        _told(error)
        return None
    landing.finish()
    return landing.take()


def _told(error: errors.BlockError) -> None:
    assert is_one_line(error)


def block(data: bytes) -> None:
    """However it comes, it is the same block, or none; and what was decompressed is what others make of it."""
    taken = info, key, how, body = _taken_apart(data)
    whole = _landed(*taken, len(body) + 1)
    for step in (1, 7, 4096) if len(body) < 4096 else (977, 65536):
        assert _landed(*taken, step) == whole
    if whole is None:
        return
    assert len(whole) == info.length
    if key is None and how is Compression.NONE:
        assert whole == body
    elif key is None and how not in (None, Compression.NONE):
        assert whole == _reference(body)


def _reference(body: bytes) -> bytes:
    if body.startswith(b"\x1f\x8b"):
        return zlib.decompress(body, wbits=31)
    if body.startswith(b"\x04\x22\x4d\x18"):
        return lz4.frame.decompress(body)
    if not body.startswith(b"\x82SNAPPY\0"):
        return bytes(cramjam.snappy.decompress_raw(body))
    frames, plain = io.BytesIO(body[16:]), b""
    while head := frames.read(4):
        plain += bytes(cramjam.snappy.decompress_raw(frames.read(int.from_bytes(head, "big"))))
    return plain


def block_part(data: bytes) -> None:
    """A part that is fetched alone is what it is in the whole block, if that can be read at all."""
    info, key, _, body = _taken_apart(data)
    if not info.length:
        return
    part = Extent(info.length // 3, info.length // 3 + max(1, info.length // 5))

    def get(wanted: Extent) -> Part | None:
        return Part(body[wanted.start : wanted.stop], len(body)) if wanted.stop <= len(body) else None

    found = parts.read(get, info, part, key)
    if found is not None:
        assert len(found) == len(part)
        whole = _landed(info, key, Compression.NONE, body, 1 << 20)
        assert whole is None or whole[part.start : part.stop] == found


def wrapped_key(data: bytes) -> None:
    wrapped, _, secret = data.decode("utf-8", "surrogateescape").partition("\n")
    assert len(cipher.unwrap_key(wrapped, secret, 7)) in (16, 24, 32)


# --- the cache on the disk --------------------------------------------------------------------------------------------

CODECS = (BlockCodec(), EncryptingCodec("secret"))
TEXT = b"a text that shrinks " * 50
PLACES = [Place("portal", BlockKey(7, "v", number * 1000), f"bucket/{number}", 1000) for number in range(3)]


def cached_block(codec: BlockCodec, data: bytes) -> None:
    """What is there, or nothing."""
    assert codec.decode(data, codec.digest(TEXT), len(TEXT)) == TEXT


def _cached(codec: BlockCodec) -> bytes:
    return bytes(codec.encode(TEXT, codec.digest(TEXT)))


def index(codec: BlockCodec, data: bytes) -> None:
    """Everything that is asked of it; what it says must have been said to it."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "index-00000000000000000001.db").write_bytes(data)
        opened = BlockIndex.open(Path(directory), codec, is_first=False)
        try:
            for place in PLACES:
                assert opened.find(place) in (None, codec.digest(place.origin.encode()))
            assert all(place in PLACES for place in opened.places("portal", 7, "v", 10))
            opened.used()
            with opened.writing() as db:
                opened.lead(db, PLACES[0], 1, bytes(32))
        finally:
            opened.close()


def _index(codec: BlockCodec) -> bytes:
    from cterafs.content import eviction

    with tempfile.TemporaryDirectory() as directory:
        opened = BlockIndex.open(Path(directory), codec, is_first=True)
        with opened.writing() as db:
            for place in PLACES:
                digest = codec.digest(place.origin.encode())
                opened.lead(db, place, eviction.enter(db, digest, 4096, proven=False), digest)
        opened.close()
        (file,) = Path(directory).glob("*.db")
        return file.read_bytes()


FRAMED = b"\x82SNAPPY\0" + bytes([0, 0, 0, 1] * 2)
for _piece in (PLAIN[:1000], PLAIN[1000:]):
    _frame = bytes(cramjam.snappy.compress_raw(_piece))
    FRAMED += len(_frame).to_bytes(4, "big") + _frame
GZIPPED = gzip.compress(PLAIN, mtime=0)
LZ4 = bytes(lz4.frame.compress(PLAIN, content_checksum=True, block_checksum=True))
SNAPPED = bytes(cramjam.snappy.compress_raw(PLAIN))
BLOCKS = tuple(
    stored(PLAIN, data, how, encrypted=encrypted)
    for encrypted in (False, True)
    for data, how in (
        (PLAIN, Compression.NONE),
        (PLAIN, None),
        (FRAMED, Compression.SNAPPY),
        (SNAPPED, Compression.SNAPPY),
        (GZIPPED, Compression.GZIP),
        (LZ4, Compression.LZ4),
        (FRAMED, None),
        (LZ4, None),
    )
)
HUGE_FRAME = stored(PLAIN, FRAMED[:16] + b"\x7f\xff\xff\xff" + bytes(140_000), Compression.SNAPPY)
"""Announces more than any block may have, and goes on for longer than is looked at at a time."""
WRAPPED = (wrap(KEY, SECRET), wrap(KEY[:16], SECRET, quoted=False))
MAGIC = (b"\x1f\x8b\x08\0", b"\x82SNAPPY\0", b"\x04\x22\x4d\x18", b"\0\0\0\0", b"\xff\xff\xff\x7f")

TARGETS = (
    Target("block", block, (*BLOCKS, HUGE_FRAME), (), MAGIC),
    Target("block_part", block_part, BLOCKS, (errors.BlockError,)),
    Target(
        "wrapped_key",
        wrapped_key,
        tuple(f"{wrapped}\n{base64.b64encode(SECRET).decode()}".encode() for wrapped in WRAPPED),
        (errors.DecryptKeyError,),
    ),
    *(
        Target(f"cached_block_{name}", functools.partial(cached_block, codec), (_cached(codec),), (DamagedBlock,))
        for name, codec in zip(("plain", "encrypted"), CODECS, strict=True)
    ),
    *(
        Target(
            f"index_{name}",
            functools.partial(index, codec),
            (_index(codec),),
            (DamagedIndex, BusyIndex, OtherKind, OSError),
        )
        for name, codec in zip(("plain", "encrypted"), CODECS, strict=True)
    ),
)
