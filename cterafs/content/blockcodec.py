"""How a block looks on the disk, and how the index vouches for it: as it is, or encrypted. No I/O.

Whoever has the access key's secret can download every block, so that is what the keys of an encrypted directory are
made from: nothing new has to be kept, and nothing of it lies beside the blocks. Another secret is another key, with
which nothing in the directory belongs anywhere.
"""

from __future__ import annotations

import os

import lz4.block
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Buffer = bytes | memoryview

WORTHWHILE = 3
"""Compression has to save this part of a block. Unpacking takes as long as reading another third does from a fast disk
(2.4 GiB/s against 3), and what shrinks by less is compressed already, or numbers."""

PROBE = 32 << 10
"""Bytes in the middle of a block that tell whether it shrinks: compressing all to find that out takes 6 ms of 4 MiB."""

NONCE, TAG = 12, 16
"""Bytes before and behind what AES-GCM has encrypted (NIST SP 800-38D)."""


class DamagedBlock(Exception):
    """What was read is not what was written, or was written with another key."""


class BlockCodec:
    """Blocks as they are, or compressed where that pays: which of the two, the size tells.

    Attributes:
        version: of an index of such blocks.
        overhead: bytes that a stored block may take beyond its plaintext.
    """

    version = 1
    overhead = 0

    def digest(self, data: Buffer) -> bytes:
        """What names a block: 32 bytes."""
        return blake3(data).digest()

    def seal(self, statement: bytes) -> bytes:
        """What proves that the index was made to say this."""
        return blake3(statement).digest(16)

    def encode(self, data: Buffer, digest: bytes) -> Buffer:
        """A block as it is stored."""
        middle = max(0, len(data) - PROBE) // 2
        if _packed(memoryview(data)[middle : middle + PROBE]) is None:
            return data
        return _packed(data) or data

    def decode(self, stored: bytes, digest: bytes, length: int) -> bytes:
        """The plaintext of a block, verified.

        Raises:
            DamagedBlock: it is not the block with this digest.
        """
        data = stored if len(stored) == length else _unpacked(stored, length)
        if self.digest(data) != digest:
            raise DamagedBlock
        return data

    def hide(self, note: bytes) -> bytes:
        """What is written into the index of what storage calls a block."""
        return note

    def show(self, hidden: bytes) -> bytes:
        """The reverse of `hide`.

        Raises:
            DamagedBlock: it was not hidden by this.
        """
        return hidden


class EncryptingCodec(BlockCodec):
    """The same, encrypted with AES-256-GCM; without the key nothing tells what a block holds, nor whether it holds what
    is known already: names and seals are keyed digests.

    Each block has a key of its own, derived from its name, so that no key is ever used so often that its random nonces
    could meet (2 ** 32 times), and no block can be passed off as another. The tag verifies it, in place of the digest.
    """

    version = 2
    overhead = NONCE + TAG

    def __init__(self, secret: str) -> None:
        """`secret` is that of the access key: text with the entropy of a key, so it is not stretched."""
        self._naming, self._sealing, self._blocks, notes = (
            blake3(secret.encode(), derive_key_context=f"cterafs 2026-11-20 disk cache: {purpose}").digest()
            for purpose in ("names", "seals", "blocks", "notes")
        )
        self._notes = AESGCM(notes)

    def digest(self, data: Buffer) -> bytes:
        return blake3(data, key=self._naming).digest()

    def seal(self, statement: bytes) -> bytes:
        return blake3(statement, key=self._sealing).digest(16)

    def encode(self, data: Buffer, digest: bytes) -> Buffer:
        return _encrypted(self._cipher(digest), super().encode(data, digest))

    def decode(self, stored: bytes, digest: bytes, length: int) -> bytes:
        data = _decrypted(self._cipher(digest), stored)
        return data if len(data) == length else _unpacked(data, length)

    def hide(self, note: bytes) -> bytes:
        return _encrypted(self._notes, note)

    def show(self, hidden: bytes) -> bytes:
        return _decrypted(self._notes, hidden)

    def _cipher(self, digest: bytes) -> AESGCM:
        return AESGCM(blake3(digest, key=self._blocks).digest())


def _encrypted(cipher: AESGCM, data: Buffer) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + cipher.encrypt(nonce, data, None)


def _decrypted(cipher: AESGCM, stored: bytes) -> bytes:
    view = memoryview(stored)
    try:
        return cipher.decrypt(view[:NONCE], view[NONCE:], None)
    except (InvalidTag, ValueError):  # too short for a nonce
        raise DamagedBlock from None


def _packed(data: Buffer) -> bytes | None:
    packed: bytes = lz4.block.compress(data, store_size=False)
    return packed if len(packed) <= len(data) - len(data) // WORTHWHILE else None


def _unpacked(stored: bytes, length: int) -> bytes:
    try:
        data: bytes = lz4.block.decompress(stored, uncompressed_size=length)
    except lz4.block.LZ4BlockError:
        raise DamagedBlock from None
    return data
