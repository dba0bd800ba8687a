"""The answer of `GET /directio/{file_id}`: JSON to chunks. Pure.

The portal is not trusted: whatever it sends becomes a `Description` or an `errors.DirectIOAPIError`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from cterafs import errors
from cterafs.model import Chunk, Compression, Extent

MAX_ANSWER = 512 << 20
"""Bytes of JSON. A 100 GiB file in blocks of 256 KiB has 409,600 entries of some 500 to 1,000 bytes."""
USUAL_ANSWER = 4 << 20
"""Bytes of JSON that any number of answers may have; larger ones come one after the other. 1 GiB in blocks of 256 KiB
has 2 to 4 MB, and what is larger is listed by ranges of a quarter of that."""
MAX_CHUNKS = 512 << 10
"""Entries: 128 GiB in blocks of 256 KiB. Larger files have to be listed by ranges."""
MAX_OBJECTS = MAX_CHUNKS + 1024
"""JSON objects: the entries, and what else there is. They are counted before they are made, each of some 100 bytes."""
MAX_DETAIL = 64 << 10
"""Bytes of a field beside the entries: of a key, or a range."""
MAX_CHUNK = 64 << 20
"""Bytes of plaintext in one block, all of which has to be in memory. 4 MiB is the largest that has been seen."""
MAX_KEPT = 64 << 10
"""Chunks that are kept of an answer which ignored the range it was asked for: 16 GiB in blocks of 256 KiB."""
MAX_OFFSET = 2**63 - 1


class Unplaced(Exception):
    """The answer does not tell where in the file its blocks are."""


_NULL = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct, gc=False):
    url: str
    len: int


class _Answer(msgspec.Struct, gc=False):
    # What is not vital is decoded later, so that neither an unexpected type nor an enormous value in it can do harm.
    chunks: list[_Chunk] | None = None
    encrypt_info: msgspec.Raw = _NULL
    wrapped_key: msgspec.Raw = _NULL  # portal 8.2 has it here
    compression_type: msgspec.Raw = _NULL
    actual_blocks_range: msgspec.Raw = _NULL


@dataclass(frozen=True, slots=True, repr=False)
class Description:
    """A list of blocks whose key is still wrapped.

    Attributes:
        size: of the whole file, in bytes.
        chunks: in the order of the file; empty only where the range that was asked for lies beyond its end.
        wrapped_key: None where the blocks are not encrypted.
        compression: None where the portal does not say.
    """

    size: int
    chunks: tuple[Chunk, ...]
    wrapped_key: str | None
    compression: Compression | None


_decoder = msgspec.json.Decoder(_Answer)


def parse(answer: bytes | bytearray, file_id: int, wanted: Extent | None = None) -> Description:
    """Reads the answers of portal 8.3 and later, and of 8.2.

    Args:
        wanted: the range that was asked for, None for the whole file. The answer may have more, or ignore it.

    Raises:
        errors.BlocksNotFoundError: there are no chunks.
        errors.InvalidRequest: the answer makes no sense; the reason is one line.
        Unplaced: a range was asked for, and it may or may not be what came: the whole list has to be asked for.
    """
    decoded = _decode(answer, file_id)
    actual = _detail(decoded.actual_blocks_range, file_id)
    start, size = _placed(actual, file_id)
    if not decoded.chunks:
        if wanted is not None and size is not None and wanted.start >= size:
            return Description(size, (), None, None)
        raise errors.BlocksNotFoundError(file_id)
    offsets = _offsets(decoded.chunks, start, file_id)
    stop = offsets[-1]
    if size is None:
        if start:
            raise errors.InvalidRequest(file_id, "a part of the list came without the file's size")
        size = stop
    if stop > size:
        raise errors.InvalidRequest(file_id, f"the blocks reach to byte {stop} of a file of {size}")
    if wanted is None and (start or stop != size):
        raise errors.InvalidRequest(file_id, f"the list covers bytes {start} to {stop} of {size}")
    if wanted is not None and not _is_placed(actual, offsets, wanted, size):
        raise Unplaced
    return Description(
        size, _chunks(decoded.chunks, offsets, wanted), _wrapped_key(decoded, file_id), _compression(decoded, file_id)
    )


def _decode(answer: bytes | bytearray, file_id: int) -> _Answer:
    if answer.count(b"{") > MAX_OBJECTS:
        raise errors.InvalidRequest(file_id, f"more than {MAX_CHUNKS} blocks in one answer")
    try:
        decoded = _decoder.decode(answer)
    except msgspec.ValidationError as error:  # names types and a path, never a value
        raise errors.InvalidRequest(file_id, f"the answer is not a list of blocks: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.InvalidRequest(file_id, "the answer is not JSON") from None
    if decoded.chunks is not None and len(decoded.chunks) > MAX_CHUNKS:
        raise errors.InvalidRequest(file_id, f"{len(decoded.chunks)} blocks in one answer, more than {MAX_CHUNKS}")
    return decoded


def _detail(raw: msgspec.Raw, file_id: int) -> object:
    """A field beside the entries. One that cannot be read is no missing one: it may say that the file is encrypted."""
    if len(raw) > MAX_DETAIL:
        raise errors.InvalidRequest(file_id, "a key or a range of absurd length")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.InvalidRequest(file_id, "the answer is not JSON") from None


def _placed(actual: object, file_id: int) -> tuple[int, int | None]:
    """Where the list starts, and the file's size if told. The printed end of the range is not trusted."""
    if not isinstance(actual, dict):
        return 0, None
    size = actual.get("file_size")
    if not isinstance(size, int) or isinstance(size, bool):
        size = None
    printed = actual.get("range")
    first = printed.partition("-")[0].strip() if isinstance(printed, str) else "0"
    # 19 digits hold 2**63 - 1; int() of more could take long
    if not (first.isascii() and first.isdigit() and len(first) <= 19):
        raise errors.InvalidRequest(file_id, "the range of the blocks is not a range")
    start = int(first)
    if start > MAX_OFFSET or (size is not None and not 0 <= size <= MAX_OFFSET):
        raise errors.InvalidRequest(file_id, "the file's size or the range of its blocks is absurd")
    return start, size


def _is_placed(actual: object, offsets: list[int], wanted: Extent, size: int) -> bool:
    """Whether it is known where the list starts, although a range was asked for.

    An answer that does not say is taken for a whole list only if it cannot be the range: it has blocks beyond that, or
    ends before the end of a range that began with the file.
    """
    if isinstance(actual, dict) and isinstance(actual.get("range"), str):
        return True
    stop = offsets[-1]
    return stop == size and (offsets[-2] >= wanted.stop or (wanted.start == 0 and stop < wanted.stop))


def _offsets(chunks: list[_Chunk], start: int, file_id: int) -> list[int]:
    """The start of each chunk, and the end of the last."""
    offsets = [start]
    position = start
    for chunk in chunks:
        if not 0 < chunk.len <= MAX_CHUNK:
            reason = "more than 64 MiB" if chunk.len > 0 else "no bytes or fewer"
            raise errors.InvalidRequest(file_id, f"a block at {position} of {reason}")
        position += chunk.len
        offsets.append(position)
    return offsets


def _chunks(listed: list[_Chunk], offsets: list[int], wanted: Extent | None) -> tuple[Chunk, ...]:
    numbered = offsets[0] == 0
    cut = wanted if wanted is not None and len(listed) > MAX_KEPT else None
    return tuple(
        Chunk(Extent(start, stop), entry.url, index + 1 if numbered else None)
        for index, (entry, start, stop) in enumerate(zip(listed, offsets, offsets[1:], strict=False))
        if cut is None or (start < cut.stop and cut.start < stop)
    )


def _wrapped_key(answer: _Answer, file_id: int) -> str | None:
    info = _detail(answer.encrypt_info, file_id)
    if isinstance(info, dict):
        wrapped, encrypted = info.get("wrapped_key"), info.get("data_encrypted")
    else:
        wrapped, encrypted = _detail(answer.wrapped_key, file_id), None
    if encrypted is False or (encrypted is None and not wrapped):
        return None
    if not isinstance(wrapped, str) or not wrapped:
        raise errors.InvalidRequest(file_id, "the blocks are encrypted, but no wrapped key came")
    return wrapped


def _compression(answer: _Answer, file_id: int) -> Compression | None:
    """None for a name that is not known, too: the block's first bytes may tell."""
    name = _detail(answer.compression_type, file_id)
    return Compression.__members__.get(name.upper()) if isinstance(name, str) else None
