"""Encrypted blocks on the disk: what they tell whoever has the disk and not the key, and what another key finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import lz4.block
import pytest
from blake3 import blake3
from disk_tier import COST, SIZE, block, files, get, index_of, key, open_cache, origin, put, there

from cterafs.content.blockcodec import DamagedBlock, EncryptingCodec
from cterafs.content.disk import DiskCache

TEXT = b"a text that shrinks " * (SIZE // 20)
CODEC, OTHER = EncryptingCodec("the secret of a key"), EncryptingCodec("the secret of another key")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    cache = open_cache(tmp_path / "cache", codec=CODEC)
    yield cache
    cache.close()
    assert cache.reason is None


def fill(cache: DiskCache) -> None:
    """Two blocks that do not shrink, and one that does."""
    put(cache, 0, 1)
    cache.offer(key(2), TEXT, origin(2))
    cache.flush()


def telling(directory: Path) -> list[str]:
    """What of `fill` can be told from the files in `directory`."""
    words = {
        "content": block(0)[100:120],
        "compressed content": bytes(lz4.block.compress(TEXT, store_size=False))[:20],
        "name in storage": origin(1).encode(),
    }
    for number, data in enumerate((block(0), block(1), TEXT)):
        words[f"digest {number}"] = blake3(data).digest()
        words[f"digest {number} in a name"] = blake3(data).hexdigest()[2:].encode()
    found = b"".join(
        str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in directory.rglob("*")
    )
    return [name for name, word in words.items() if word in found]


def test_the_disk_tells_nothing_of_what_it_holds(tmp_path: Path) -> None:
    plain = open_cache(tmp_path / "plain")
    fill(plain)
    assert len(telling(tmp_path / "plain")) == 9, "the test looks in the right places"
    plain.close()
    cache = open_cache(tmp_path / "cache", codec=CODEC)
    fill(cache)
    assert telling(tmp_path / "cache") == []
    cache.close()
    assert telling(tmp_path / "cache") == []


def test_the_next_mount_with_the_same_key_finds_it(cache: DiskCache, tmp_path: Path) -> None:
    fill(cache)
    cache.close()
    again = open_cache(tmp_path / "cache", codec=EncryptingCodec("the secret of a key"))
    assert [get(again, number) for number in range(2)] == [block(0), block(1)]
    assert again.get(key(2), SIZE, origin(2)) == TEXT
    assert [place.origin for place in again.places(7, "v1")] == [origin(number) for number in range(3)]
    assert again.used() == 2 * COST + 4096 + 512
    again.close()


def test_another_key_is_a_miss_and_makes_old_blocks_leave(cache: DiskCache, tmp_path: Path) -> None:
    put(cache, *range(5))
    cache.close()
    other = open_cache(tmp_path / "cache", codec=OTHER, limit=5 * COST)
    assert [get(other, number) for number in range(5)] == [None] * 5
    assert other.places(7, "v1") == []
    assert not other.has(key(0), SIZE, origin(0))
    put(other, *range(5))
    assert [get(other, number) for number in range(5)] == [block(number) for number in range(5)]
    assert len(files(tmp_path / "cache")) == 5, "those of the first key have made room"
    assert other.reason is None
    other.close()


def test_mounts_with_different_keys_share_a_directory_and_its_limit(cache: DiskCache, tmp_path: Path) -> None:
    neighbour = open_cache(tmp_path / "cache", scope="another portal", codec=OTHER)
    put(cache, *range(3))
    put(neighbour, *range(3))
    assert [get(cache, number) for number in range(3)] == [get(neighbour, number) for number in range(3)]
    assert get(cache, 0) == block(0)
    assert cache.used() == neighbour.used() == 6 * COST
    neighbour.close()
    assert neighbour.reason is None


def test_equal_blocks_are_kept_once_and_look_different_each_time(cache: DiskCache, tmp_path: Path) -> None:
    cache.offer(key(0), block(0), origin(0))
    cache.offer(key(1), block(0), origin(1))
    cache.flush()
    (file,) = files(tmp_path / "cache")
    before = file.read_bytes()
    file.unlink()
    put(cache, 0)
    assert files(tmp_path / "cache") == [file]
    assert file.read_bytes()[:16] != before[:16], "a nonce is never used twice"


def test_a_block_in_the_place_of_another_is_not_believed(cache: DiskCache, tmp_path: Path) -> None:
    put(cache, 0, 1)
    one, other = files(tmp_path / "cache")
    shutil.copyfile(one, other)
    assert sorted(get(cache, number) is not None for number in range(2)) == [False, True]


@pytest.mark.parametrize("stored", [b"", b"short", bytes(28), bytes(29)])
def test_what_is_no_ciphertext_is_a_damaged_block(stored: bytes) -> None:
    with pytest.raises(DamagedBlock):
        CODEC.decode(stored, bytes(32), 1)
    with pytest.raises(DamagedBlock):
        CODEC.show(stored)


def test_what_lay_there_unencrypted_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = open_cache(tmp_path / "cache")
    fill(plain)
    plain.close()
    index = index_of(tmp_path / "cache")
    cache = open_cache(tmp_path / "cache", codec=CODEC)
    cache.flush()
    assert telling(tmp_path / "cache") == []
    assert not index.exists(), "it has the digests of the plaintext"
    assert files(tmp_path / "cache") == []
    fill(cache)
    assert get(cache, 1) == block(1)
    assert caplog.records == []
    cache.close()


def test_encryption_can_be_turned_off_again(cache: DiskCache, tmp_path: Path) -> None:
    put(cache, 0)
    cache.close()
    plain = open_cache(tmp_path / "cache")
    assert get(plain, 0) is None
    put(plain, 1)
    assert get(plain, 1) == block(1)
    assert len(files(tmp_path / "cache")) == 1
    assert plain.reason is None
    plain.close()


def test_a_running_mount_writes_nothing_plain_beside_encrypted_blocks(tmp_path: Path) -> None:
    plain = open_cache(tmp_path / "cache")
    put(plain, 0)
    cache = open_cache(tmp_path / "cache", codec=CODEC)
    cache.flush()
    put(plain, 1)
    assert plain.reason == "its blocks are encrypted"
    put(cache, 2)
    assert there(cache, range(3)) == [2]
    assert len(files(tmp_path / "cache")) == 1
    assert cache.reason is None
    plain.close()
    cache.close()
