"""From what storage holds to plaintext: unwrap, decrypt, decompress, verify. Pure.

A block in storage is, from the outside in: 16 bytes of MD5 (some Azure containers only), 1 version byte, 16 bytes of IV
and AES-CBC ciphertext with PKCS#7 padding where it is encrypted; then gzip, snappy (raw, or in snappy-java's frames),
an LZ4 frame, or the plain bytes.
"""

from __future__ import annotations

import base64
import binascii
import functools
import zlib

import cramjam
import lz4.frame
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cterafs import errors
from cterafs.direct.buffers import written
from cterafs.errors import BlockInfo
from cterafs.model import Compression

Buffer = bytes | bytearray | memoryview

AES_BLOCK = 16
HEADER = 1 + AES_BLOCK  # the version byte, which is ignored, and the IV
PREFIX = 16  # the MD5 in front

GZIP_MAGIC = b"\x1f\x8b"
SNAPPY_MAGIC = b"\x82SNAPPY\x00"
SNAPPY_HEADER = 16  # the magic, and two 32-bit versions
LZ4_MAGIC = b"\x04\x22\x4d\x18"


def stored_limit(length: int) -> int:
    """The most bytes that a block of `length` bytes of plaintext may take in storage.

    Snappy promises not to expand by more than a sixth, gzip and LZ4 by less; 4 KiB hold all headers and paddings.
    """
    return length + length // 6 + 4096


def unwrap_key(wrapped: str, secret: str, file_id: int | None = None) -> bytes:
    """The data key: AES-256-ECB under the secret access key, around a padded, quoted base64 string.

    Raises:
        errors.DecryptKeyError: it does not unwrap to an AES key.
    """
    try:
        secret_key = base64.b64decode(secret)[:32].ljust(32, b"\0")
        decryptor = Cipher(algorithms.AES(secret_key), modes.ECB()).decryptor()  # noqa: S305  # what portals wrap with
        padded = decryptor.update(base64.b64decode(wrapped)) + decryptor.finalize()
        key = base64.b64decode(bytes(_unpad(memoryview(padded))).strip(b'"'), validate=True)
    except (ValueError, binascii.Error):
        raise errors.DecryptKeyError(file_id) from None
    if len(key) not in (16, 24, 32):
        raise errors.DecryptKeyError(file_id, f"{len(key)} bytes are not an AES key")
    return key


def decode(raw: Buffer, block: BlockInfo, key: bytes | None, how: Compression | None) -> bytes:
    """The plaintext of a block, of exactly `block.length` bytes; never allocates much more than that.

    Args:
        key: None where the block is not encrypted.
        how: None where the portal does not say: then the first bytes, or else the length, tell.

    Raises:
        errors.DecryptBlockError: its length or padding is wrong.
        errors.DecompressBlockError: it is not what its codec writes, or a checksum of the codec is wrong.
        errors.BlockValidationException: it has another length.
    """
    if key is None:
        return _expand(raw, block, how)
    plain = _decrypt(memoryview(raw), block, key)
    try:
        return _expand(plain, block, how)
    except errors.BlockError:
        # With an MD5 in front, what was taken for the IV is not: CBC then yields 16 bytes of rubbish, and after
        # them the very plaintext. So the second try needs no second decryption.
        try:
            return _expand(memoryview(plain)[PREFIX:], block, how)
        except errors.BlockError:
            pass
        raise


def _decrypt(stored: memoryview, block: BlockInfo, key: bytes) -> bytes:
    body = stored[HEADER:]
    if not body or len(body) % AES_BLOCK:
        raise errors.DecryptBlockError(block, f"{len(stored)} bytes are not whole AES blocks")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(stored[1:HEADER]))).decryptor()

    def decrypt(view: memoryview) -> int:
        return len(_unpad(view[: decryptor.update_into(body, view)]))

    try:
        return written(len(body) + AES_BLOCK - 1, decrypt)  # with the room that update_into insists on
    except ValueError as error:
        raise errors.DecryptBlockError(block, str(error)) from None


def _unpad(padded: memoryview) -> memoryview:
    count = padded[-1] if padded else 0
    if not 1 <= count <= AES_BLOCK or padded[-count:] != bytes([count]) * count:
        raise ValueError("wrong padding")
    return padded[:-count]


def _expand(data: Buffer, block: BlockInfo, how: Compression | None) -> bytes:
    if how is Compression.NONE:
        return _exactly(data, block)
    try:
        return _decompress(memoryview(data), block, how)
    except errors.BlockError:
        if how is None and len(data) == block.length:
            return bytes(data)  # it was not compressed, whatever its first bytes look like
        raise


def _decompress(data: memoryview, block: BlockInfo, how: Compression | None) -> bytes:
    # No raw snappy begins like the others: its first element would refer back to before the beginning.
    if data[:2] == GZIP_MAGIC:
        return _gunzip(data, block)
    if data[:8] == SNAPPY_MAGIC:
        return _unsnap_frames(data[SNAPPY_HEADER:], block)
    if data[:4] == LZ4_MAGIC:
        return _unlz4(data, block)
    if how in (Compression.SNAPPY, None):
        return _unsnap(data, block.length, block)
    raise errors.DecompressBlockError(block, f"it does not begin like {how.value}")


def _gunzip(data: memoryview, block: BlockInfo) -> bytes:
    stream = zlib.decompressobj(wbits=31)  # a gzip header and trailer
    try:
        plain = stream.decompress(data, block.length + 1)
    except zlib.error as error:
        raise errors.DecompressBlockError(block, str(error)) from None
    return _ended(plain, block, complete=stream.eof, trailing=bool(stream.unused_data))


def _unlz4(data: memoryview, block: BlockInfo) -> bytes:
    stream = lz4.frame.LZ4FrameDecompressor()
    try:
        plain = stream.decompress(data, max_length=block.length + 1)
    except RuntimeError as error:
        raise errors.DecompressBlockError(block, str(error)) from None
    return _ended(plain, block, complete=stream.eof, trailing=bool(stream.unused_data))


def _ended(plain: bytes, block: BlockInfo, *, complete: bool, trailing: bool) -> bytes:
    if len(plain) <= block.length and not complete:
        raise errors.DecompressBlockError(block, "it is cut short")
    if trailing:
        raise errors.DecompressBlockError(block, "bytes follow its end")
    return _exactly(plain, block)


def _unsnap_frames(data: memoryview, block: BlockInfo) -> bytes:
    parts: list[bytes] = []
    room = block.length
    while data:
        size = int.from_bytes(data[:4], "big")
        frame = data[4 : 4 + size]
        if len(frame) != size or not size:
            raise errors.DecompressBlockError(block, "a snappy frame is cut short")
        parts.append(_unsnap(frame, None, block, limit=room))
        room -= len(parts[-1])
        data = data[4 + size :]
    return _exactly(parts[0] if len(parts) == 1 else b"".join(parts), block)


def _unsnap(data: memoryview, length: int | None, block: BlockInfo, *, limit: int = 0) -> bytes:
    """Raw snappy, which states its length first: that is checked before anything is allocated."""
    try:
        claimed = cramjam.snappy.decompress_raw_len(data)
        if (claimed > limit) if length is None else (claimed != length):
            raise errors.BlockValidationException(block, f"it holds {claimed} bytes")
        return written(claimed, functools.partial(cramjam.snappy.decompress_raw_into, data))
    except cramjam.DecompressionError as error:
        raise errors.DecompressBlockError(block, str(error)) from None


def _exactly(plain: Buffer, block: BlockInfo) -> bytes:
    if len(plain) != block.length:
        more = "at least " if len(plain) == block.length + 1 else ""
        raise errors.BlockValidationException(block, f"it holds {more}{len(plain)} bytes")
    return bytes(plain)
