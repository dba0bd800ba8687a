"""Blocks as storage holds them, written from the description of the format and not from the decoder."""

import base64
import gzip
import hashlib
from collections.abc import Callable

import cramjam
import lz4.frame
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from cterafs.direct.codec import land
from cterafs.direct.landing import Landing
from cterafs.errors import BlockInfo
from cterafs.model import Compression

FRAMED = "framed"
CODECS = {
    "none": Compression.NONE,
    "snappy": Compression.SNAPPY,
    FRAMED: Compression.SNAPPY,
    "gzip": Compression.GZIP,
    "lz4": Compression.LZ4,
}


def block(length: int) -> BlockInfo:
    return BlockInfo(7, 1, 0, length)


def compress(plain: bytes, codec: str) -> bytes:
    match codec:
        case "none":
            return plain
        case "snappy":
            return bytes(cramjam.snappy.compress_raw(plain))
        case "framed":
            frames = [bytes(cramjam.snappy.compress_raw(plain[i : i + 32768])) for i in range(0, len(plain), 32768)]
            header = b"\x82SNAPPY\x00" + bytes([0, 0, 0, 1] * 2)
            return header + b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
        case "gzip":
            return gzip.compress(plain)
        case _:
            return bytes(lz4.frame.compress(plain, content_checksum=True))


def encrypt(data: bytes, key: bytes, iv: bytes = b"0123456789abcdef", *, prefix: bool = False) -> bytes:
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = b"\x01" + iv + encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()
    return hashlib.md5(sealed).digest() + sealed if prefix else sealed


def wrap(key: bytes, secret: bytes, *, quoted: bool = True) -> str:
    text = base64.b64encode(key)
    padder = PKCS7(128).padder()
    padded = padder.update(b'"' + text + b'"' if quoted else text) + padder.finalize()
    encryptor = Cipher(algorithms.AES(secret[:32].ljust(32, b"\0")), modes.ECB()).encryptor()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


class Trickle:
    """A stored block that comes in pieces of at most `step` bytes."""

    def __init__(self, stored: bytes, step: int, *, sized: bool = True) -> None:
        self.size = len(stored) if sized else None
        self._rest = memoryview(stored)
        self._step = step

    def readinto(self, view: memoryview) -> int:
        count = min(len(view), self._step, len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def decode(
    stored: bytes,
    block: BlockInfo,
    key: bytes | None,
    how: Compression | None,
    *,
    step: int = 1 << 20,
    sized: bool = True,
    watch: Callable[[Landing], None] | None = None,
) -> bytes:
    """What the decoder makes of a stored block; `watch` is told of each byte more."""
    landing = Landing(block)
    landing.tell = (lambda: watch(landing)) if watch else None
    if watch:
        landing.await_bytes(0)
    land(Trickle(stored, step, sized=sized), landing, key, how)
    landing.verify()
    landing.finish()
    return bytes(landing.take())
