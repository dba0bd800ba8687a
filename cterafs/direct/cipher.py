"""AES as CTERA uses it: around a file's data key, and around its blocks. Pure.

An encrypted block is 1 version byte, 16 bytes of IV, and AES-CBC ciphertext with PKCS#7 padding.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from cterafs import errors
from cterafs.direct.source import Source
from cterafs.errors import BlockInfo
from cterafs.model import Extent

AES_BLOCK = 16
HEADER = 1 + AES_BLOCK  # the version byte, which is ignored, and the IV
SCRATCH = 128 << 10
"""Bytes decrypted at a time: they stay in the processor's cache on the way from the socket to their place."""


def unwrap_key(wrapped: str, secret: str, file_id: int | None = None) -> bytes:
    """The data key: AES-256-ECB under the secret access key, around a padded, quoted base64 string.

    Raises:
        errors.DecryptKeyError: it does not unwrap to an AES key.
    """
    try:
        secret_key = base64.b64decode(secret)[:32].ljust(32, b"\0")
        decryptor = Cipher(algorithms.AES(secret_key), modes.ECB()).decryptor()  # noqa: S305  # what portals wrap with
        padded = decryptor.update(base64.b64decode(wrapped)) + decryptor.finalize()
        key = base64.b64decode(_unpadded(padded).strip(b'"'), validate=True)
    except (ValueError, binascii.Error):
        raise errors.DecryptKeyError(file_id) from None
    if len(key) not in (16, 24, 32):
        raise errors.DecryptKeyError(file_id, f"{len(key)} bytes are not an AES key")
    return key


def encrypted_size(length: int) -> int:
    """Bytes in storage of `length` bytes, encrypted."""
    return HEADER + (length // AES_BLOCK + 1) * AES_BLOCK


def encrypted_part(part: Extent) -> Extent:
    """Where what a part of a block is decrypted from lies in storage.

    That is the AES blocks that hold it and, as CBC needs it, the one before them: in front of the first stands the IV.
    """
    first, last = part.start // AES_BLOCK, (part.stop - 1) // AES_BLOCK
    return Extent(1 + AES_BLOCK * first, HEADER + AES_BLOCK * (last + 1))


def decrypt_part(stored: bytes, part: Extent, block: BlockInfo, key: bytes) -> bytes:
    """The bytes `part` of a block, from those of `encrypted_part`.

    Raises:
        errors.DecryptBlockError: the padding, where it begins in the last AES block of these, is wrong.
    """
    decryptor = Cipher(algorithms.AES(key), modes.CBC(stored[:AES_BLOCK])).decryptor()
    plain = decryptor.update(stored[AES_BLOCK:]) + decryptor.finalize()
    start = part.start // AES_BLOCK * AES_BLOCK
    padding = start + len(plain) - block.length
    if padding > 0 and plain[-padding:] != bytes([padding]) * padding:
        raise errors.DecryptBlockError(block, "wrong padding")
    return plain[part.start - start : part.stop - start]


class Decrypted:
    """An encrypted block as a source of what was encrypted."""

    def __init__(self, stored: Source, block: BlockInfo, key: bytes) -> None:
        self._stored = stored
        self._block = block
        self._key = key
        self._cipher: CipherContext | None = None
        self._scratch = memoryview(bytearray(SCRATCH))
        self._held = 0  # bytes in `_scratch` that are not decrypted yet, for the last ones are the padding
        self._spare = b""  # decrypted, but there was no room

    def readinto(self, view: memoryview, /) -> int:
        """Puts plaintext into `view`; 0 at the end.

        Raises:
            errors.DecryptBlockError: its length or padding is wrong.
        """
        if self._spare:
            count = min(len(view), len(self._spare))
            view[:count] = self._spare[:count]
            self._spare = self._spare[count:]
            return count
        cipher = self._cipher or self._begin()
        scratch = self._scratch
        while received := self._stored.readinto(scratch[self._held :]):
            held = self._held + received
            ready = (held - 1) // AES_BLOCK * AES_BLOCK
            if not ready:
                self._held = held
                continue
            if fits := ready + AES_BLOCK <= len(view):  # with the room that update_into insists on
                cipher.update_into(scratch[:ready], view)
            else:
                self._spare = cipher.update(scratch[:ready])
            self._held = held - ready
            scratch[: self._held] = bytes(scratch[ready:held])
            return ready if fits else self.readinto(view)
        return self._finish(cipher, view)

    def _begin(self) -> CipherContext:
        head = memoryview(bytearray(HEADER))
        filled = 0
        while filled < HEADER:
            count = self._stored.readinto(head[filled:])
            if not count:
                raise errors.DecryptBlockError(self._block, f"{filled} bytes are not whole AES blocks")
            filled += count
        self._cipher = Cipher(algorithms.AES(self._key), modes.CBC(bytes(head[1:]))).decryptor()
        return self._cipher

    def _finish(self, cipher: CipherContext, view: memoryview) -> int:
        if self._held < 0:
            return 0
        if self._held != AES_BLOCK:
            raise errors.DecryptBlockError(self._block, "its length is not of whole AES blocks")
        last = cipher.update(self._scratch[:AES_BLOCK])
        self._held = -1
        try:
            self._spare = _unpadded(last)
        except ValueError as error:
            raise errors.DecryptBlockError(self._block, str(error)) from None
        return self.readinto(view) if self._spare else 0


def _unpadded(padded: bytes) -> bytes:
    """Without its PKCS#7 padding.

    Raises:
        ValueError: there is none.
    """
    count = padded[-1] if padded else 0
    if not 1 <= count <= AES_BLOCK or padded[-count:] != bytes([count]) * count:
        raise ValueError("wrong padding")
    return padded[:-count]
