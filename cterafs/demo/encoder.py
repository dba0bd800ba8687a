"""How a file becomes blocks: cut, compressed, encrypted.

All of it is deterministic for one version of a file, so that a block's URL always gives the same bytes and an HTTP
range of it makes sense.
"""

from __future__ import annotations

import base64
import enum
import functools
import gzip
import hashlib
import hmac
import random
from collections.abc import Sequence
from dataclasses import dataclass

import cramjam
import lz4.frame
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

MAX_BLOCK = 64 << 20
"""A block is made in memory, so its plaintext is bounded; real ones are 256 KiB to 4 MiB."""

SNAPPY_FRAME = 32 << 10
"""The plaintext of one frame: snappy-java's default."""

SNAPPY_HEADER = b"\x82SNAPPY\x00" + (1).to_bytes(4, "big") + (1).to_bytes(4, "big")
"""snappy-java's stream header: magic, version, oldest compatible version."""

VERSION_BYTE = b"\x01"
"""What stands before the IV of an encrypted block; its meaning is unknown, and clients ignore it."""


class Codec(enum.Enum):
    """How blocks are compressed. SNAPPY has two forms, which the portal does not tell apart."""

    NONE = "none"
    SNAPPY = "snappy"
    SNAPPY_RAW = "snappy-raw"
    GZIP = "gzip"
    LZ4 = "lz4"

    @property
    def wire(self) -> str:
        """The portal's name, as in `compression_type`."""
        return "SNAPPY" if self is Codec.SNAPPY_RAW else self.name


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a version's blocks are made.

    Attributes:
        block_size: plaintext of a block in bytes; with `variable`, of the largest.
        variable: lengths differ from block to block, between a quarter of `block_size` and all of it.
        md5_prefix: 16 bytes, the MD5 of the encrypted block, stand before it, as Azure blobs have been seen to do.
    """

    block_size: int = 4 << 20
    codec: Codec = Codec.SNAPPY
    encrypted: bool = True
    variable: bool = False
    md5_prefix: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.block_size <= MAX_BLOCK:
            raise ValueError(f"the block size must lie between 1 and {MAX_BLOCK}, not at {self.block_size}")

    @property
    def plain(self) -> bool:
        """Blocks are the file's own bytes."""
        return not self.encrypted and not self.md5_prefix and self.codec is Codec.NONE


def boundaries(size: int, encoding: Encoding, seed: bytes) -> Sequence[int]:
    """The offsets at which the blocks of a file of `size` bytes start, and the end of the file as the last one."""
    if encoding.variable:
        return _variable(size, encoding.block_size, seed)
    return _Fixed(size, encoding.block_size)


class _Fixed(Sequence[int]):
    """Boundaries at equal distances; computed, for a file may have hundreds of thousands."""

    def __init__(self, size: int, step: int) -> None:
        self._offsets = range(0, size, step)
        self._size = size

    def __len__(self) -> int:
        return len(self._offsets) + 1

    def __getitem__(self, index: int) -> int:  # type: ignore[override]  # nobody slices it
        return self._size if index == len(self._offsets) else self._offsets[index]


@functools.lru_cache(maxsize=64)
def _variable(size: int, largest: int, seed: bytes) -> Sequence[int]:
    lengths = random.Random(seed)  # noqa: S311  # lengths are no secret
    smallest = max(1, largest // 4)
    offsets = [0]
    while offsets[-1] < size:
        offsets.append(min(size, offsets[-1] + lengths.randint(smallest, largest)))
    return offsets


def encode(data: bytes, index: int, encoding: Encoding, seed: bytes) -> bytes:
    """One block as it lies in storage. `index` counts from 0 and chooses the initialisation vector."""
    block = compress(data, encoding.codec)
    if encoding.encrypted:
        block = encrypt(block, data_key(seed), _derive(seed, f"iv {index}")[:16])
    if encoding.md5_prefix:
        block = hashlib.md5(block, usedforsecurity=False).digest() + block
    return block


def compress(data: bytes, codec: Codec) -> bytes:
    match codec:
        case Codec.NONE:
            return data
        case Codec.GZIP:
            return gzip.compress(data, compresslevel=1, mtime=0)  # no date: the same bytes each time
        case Codec.LZ4:
            return bytes(lz4.frame.compress(data, content_checksum=True))
        case Codec.SNAPPY_RAW:
            return bytes(cramjam.snappy.compress_raw(data))
        case Codec.SNAPPY:
            frames = [SNAPPY_HEADER]
            view = memoryview(data)
            for start in range(0, len(data), SNAPPY_FRAME):
                frame = bytes(cramjam.snappy.compress_raw(view[start : start + SNAPPY_FRAME]))
                frames += (len(frame).to_bytes(4, "big"), frame)
            return b"".join(frames)


def encrypt(data: bytes, key: bytes, iv: bytes) -> bytes:
    """Version byte, IV, AES-256-CBC ciphertext with PKCS#7 padding."""
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    padder = PKCS7(128).padder()
    padded = (padder.update(data), padder.finalize())
    return b"".join((VERSION_BYTE, iv, *(encryptor.update(part) for part in padded), encryptor.finalize()))


def data_key(seed: bytes) -> bytes:
    """The AES-256 key of one version's blocks."""
    return _derive(seed, "data key")


def wrap_key(key: bytes, secret_access_key: str) -> str:
    """`key` as Direct IO hands it out: quoted base64, padded, AES-256-ECB under the secret access key, base64."""
    secret = base64.b64decode(secret_access_key)[:32].ljust(32, b"\0")
    padder = PKCS7(128).padder()
    padded = padder.update(b'"' + base64.b64encode(key) + b'"') + padder.finalize()
    encryptor = Cipher(algorithms.AES(secret), modes.ECB()).encryptor()  # noqa: S305  # the protocol's choice
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def object_name(seed: bytes, index: int) -> str:
    """The 40 hexadecimal digits that name block `index` of a version in storage."""
    return _derive(seed, f"name {index}").hex()[:40]


def _derive(seed: bytes, purpose: str) -> bytes:
    return hmac.digest(seed, purpose.encode(), "sha256")
