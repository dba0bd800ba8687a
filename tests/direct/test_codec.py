"""Blocks that were encoded properly come back; all others are errors, of a type that tells why."""

import base64
import contextlib
import gzip
import random
import tracemalloc

import cramjam
import lz4.frame
import pytest
from block_encoder import CODECS, FRAMED, block, compress, decode, encrypt, wrap
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cterafs import errors
from cterafs.direct.cipher import unwrap_key
from cterafs.direct.codec import PREFIX, stored_limit
from cterafs.direct.landing import Landing
from cterafs.model import Compression

KEY = bytes(range(32))
PLAIN = b"The quick brown fox jumps over the lazy dog. " * 2000
codecs = st.sampled_from(sorted(CODECS))
plains = st.one_of(
    st.binary(min_size=1, max_size=3000),
    st.builds(lambda piece, count: piece * count, st.binary(min_size=1, max_size=20), st.integers(1, 10_000)),
)


@settings(max_examples=150)
@given(
    plains,
    codecs,
    st.sampled_from([None, 16, 24, 32]),
    st.binary(min_size=16, max_size=16),
    st.booleans(),
    st.integers(1, 200_000),
    st.booleans(),
)
def test_what_was_encoded_comes_back(
    plain: bytes, codec: str, key_size: int | None, iv: bytes, prefix: bool, step: int, sized: bool
) -> None:
    key = KEY[:key_size] if key_size else None
    stored = compress(plain, codec)
    if key:
        stored = encrypt(stored, key, iv, prefix=prefix)
    assert len(stored) <= stored_limit(len(plain))
    assert decode(stored, block(len(plain)), key, CODECS[codec], step=step, sized=sized) == plain
    saved = len(plain) - len(compress(plain, codec))
    if not (key and prefix and codec == "snappy" and saved == PREFIX):  # see below
        assert decode(stored, block(len(plain)), key, None, step=step, sized=sized) == plain  # nobody names the codec


@pytest.mark.parametrize(
    ("plain", "codec", "prefix"),
    [(b"\0\0\1" * 8, "snappy", True), (bytes(PREFIX) + compress(bytes(22), "snappy"), "none", False)],
    ids=["what saves as much as stands in front", "what looks as if something stood in front"],
)
def test_what_can_be_read_in_two_ways_is_read_where_the_codec_is_named(plain: bytes, codec: str, prefix: bool) -> None:
    stored = encrypt(compress(plain, codec), KEY, prefix=prefix)
    with pytest.raises(errors.BlockValidationException, match="two ways"):
        decode(stored, block(len(plain)), KEY, None)
    assert decode(stored, block(len(plain)), KEY, CODECS[codec]) == plain


def test_nothing_is_given_of_a_short_block_that_lost_as_many_bytes_as_stand_before_it() -> None:
    """It seems to have no MD5 in front, and so has other bytes, until its padding turns out to be wrong."""
    plain = PLAIN[:39_901]
    stored = encrypt(plain, KEY, prefix=True)[:-PREFIX]
    seen: list[memoryview | None] = []
    with pytest.raises(errors.DecryptBlockError):
        decode(stored, block(len(plain)), KEY, CODECS["none"], watch=lambda landing: seen.append(landing.part(0, 100)))
    assert not seen


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("codec", ["none", FRAMED, "gzip", "lz4"])
def test_the_beginning_is_there_before_the_end(codec: str, key: bytes | None) -> None:
    plain = random.Random(1).randbytes(1 << 20)
    stored = compress(plain, codec)
    seen: list[int] = []

    def watch(landing: Landing) -> None:
        assert landing.part(0, landing.filled) == plain[: landing.filled]
        seen.append(landing.filled)
        landing.await_bytes(landing.filled + 1)

    step = 16 << 10
    decode(encrypt(stored, key) if key else stored, block(len(plain)), key, CODECS[codec], step=step, watch=watch)
    assert seen[0] <= 128 << 10
    assert len(seen) >= 8


@settings(max_examples=400)
@given(st.data(), codecs, st.booleans(), st.booleans())
def test_a_corrupt_block_is_a_typed_error_and_never_has_another_length(
    data: st.DataObject, codec: str, encrypted: bool, declared: bool
) -> None:
    plain = PLAIN[: data.draw(st.integers(1, 400))]
    stored = bytearray(compress(plain, codec))
    if encrypted:
        stored = bytearray(encrypt(bytes(stored), KEY))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stored)))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip" if at < len(stored):
                stored[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del stored[at : at + data.draw(st.integers(1, 40))]
            case _:
                stored[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    with contextlib.suppress(errors.BlockError):
        got = decode(bytes(stored), block(len(plain)), KEY if encrypted else None, CODECS[codec] if declared else None)
        assert len(got) == len(plain)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([*Compression, None]), st.booleans(), st.integers(1, 300))
@example(b"\x82SNAPPY\x00" + b"\0" * 8 + b"\xff" * 8, None, False, 5)
def test_rubbish_is_a_typed_error(rubbish: bytes, how: Compression | None, encrypted: bool, length: int) -> None:
    with contextlib.suppress(errors.BlockError):
        assert len(decode(rubbish, block(length), KEY if encrypted else None, how)) == length


@pytest.mark.parametrize("codec", ["gzip", "lz4"])
def test_checksums_of_the_codec_are_verified(codec: str) -> None:
    stored = bytearray(compress(PLAIN, codec))
    stored[-1 if codec == "lz4" else -5] ^= 1  # the checksum itself
    with pytest.raises(errors.DecompressBlockError):
        decode(stored, block(len(PLAIN)), None, CODECS[codec])


@pytest.mark.parametrize("codec", ["gzip", "lz4", FRAMED, "snappy"])
@pytest.mark.parametrize("change", ["truncated", "trailing"])
def test_the_end_is_where_it_should_be(codec: str, change: str) -> None:
    stored = compress(PLAIN, codec)
    with pytest.raises((errors.DecompressBlockError, errors.BlockValidationException)):
        decode(stored[:-3] if change == "truncated" else stored + b"abc", block(len(PLAIN)), None, CODECS[codec])


@pytest.mark.parametrize("cut", [-3, -1, 16 + 2, 16 + 4])
def test_a_frame_is_whole(cut: int) -> None:
    with pytest.raises(errors.DecompressBlockError, match="frame is cut short"):
        decode(compress(PLAIN, FRAMED)[:cut], block(len(PLAIN)), None, Compression.SNAPPY)


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("difference", [-1, 1, 1000])
@pytest.mark.parametrize("key", [None, KEY])
def test_another_length_is_a_validation_error(codec: str, difference: int, key: bytes | None) -> None:
    stored = compress(PLAIN, codec)
    with pytest.raises(errors.BlockValidationException):
        decode(encrypt(stored, key) if key else stored, block(len(PLAIN) + difference), key, CODECS[codec])


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(bytes(64 << 20)),
        bytes(lz4.frame.compress(bytes(64 << 20), store_size=True)),
        bytes(cramjam.snappy.compress_raw(bytes(64 << 20))),
        b"\xff\xff\xff\xff\x0f" + b"\0" * 20,  # raw snappy that claims 4 GiB
        compress(bytes(64 << 20), FRAMED),
    ],
    ids=["gzip", "lz4", "snappy", "4 GiB", "framed"],
)
def test_a_bomb_does_not_go_off(stored: bytes) -> None:
    length = 256 << 10
    tracemalloc.start()
    try:
        with pytest.raises(errors.BlockError):
            decode(stored, block(length), None, None)
        assert tracemalloc.get_traced_memory()[1] < 6 * length
    finally:
        tracemalloc.stop()


def test_what_is_stored_plain_stays_as_it_is_even_if_it_looks_compressed() -> None:
    archive = gzip.compress(PLAIN)
    assert decode(archive, block(len(archive)), None, Compression.NONE) == archive
    assert decode(archive, block(len(archive)), None, None) == archive
    assert decode(encrypt(archive, KEY), block(len(archive)), KEY, Compression.NONE) == archive


def test_gzip_is_recognised_where_snappy_was_declared() -> None:
    assert decode(gzip.compress(PLAIN), block(len(PLAIN)), None, Compression.SNAPPY) == PLAIN


@pytest.mark.parametrize("declared", [Compression.GZIP, Compression.LZ4])
def test_a_declared_codec_without_its_magic_is_an_error(declared: Compression) -> None:
    with pytest.raises(errors.DecompressBlockError, match=declared.value):
        decode(PLAIN, block(len(PLAIN)), None, declared)


@pytest.mark.parametrize("size", [0, 1, 16, 17, 18, 32, 34])
def test_what_cannot_be_aes_is_a_decryption_error(size: int) -> None:
    with pytest.raises(errors.DecryptBlockError):
        decode(bytes(size), block(10), KEY, Compression.NONE)


def test_padding_is_verified_whole() -> None:
    # 16 bytes of padding say 16; one of them changed is still 16 by its last byte. CBC: flip it in the block before.
    stored = bytearray(encrypt(bytes(16), KEY))
    stored[17 + 3] ^= 1
    with pytest.raises(errors.DecryptBlockError, match="padding"):
        decode(stored, block(16), KEY, Compression.NONE)


def test_the_first_error_is_the_one_that_is_told() -> None:
    stored = encrypt(compress(PLAIN, "gzip")[:-1], KEY)
    with pytest.raises(errors.DecompressBlockError, match="cut short"):
        decode(stored, block(len(PLAIN)), KEY, Compression.GZIP)


@pytest.mark.parametrize("secret", [b"x" * 32, b"short", b"y" * 64])
@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("quoted", [True, False])
def test_a_wrapped_key_opens_with_its_secret(secret: bytes, size: int, quoted: bool) -> None:
    wrapped = wrap(KEY[:size], secret, quoted=quoted)
    assert unwrap_key(wrapped, base64.b64encode(secret).decode()) == KEY[:size]


@pytest.mark.parametrize(
    ("wrapped", "secret"),
    [
        (wrap(KEY, b"one"), base64.b64encode(b"another").decode()),
        (wrap(KEY[:5], b"one"), base64.b64encode(b"one").decode()),
        ("not base64!", "b25l"),
        ("", "b25l"),
        ("AAAA", "b25l"),
        (wrap(KEY, b"one"), "not base64 eithe"),
        ("\ud800é", "b25l"),
        (wrap(KEY, b"one"), "é"),
    ],
)
def test_a_key_that_does_not_unwrap_is_told_without_secrets(wrapped: str, secret: str) -> None:
    with pytest.raises(errors.DecryptKeyError) as caught:
        unwrap_key(wrapped, secret, 42)
    assert caught.value.file_id == 42
    assert secret not in str(caught.value)
    assert not wrapped or wrapped not in str(caught.value)


@given(st.text(max_size=100), st.text(max_size=60))
def test_any_wrapped_key_is_a_key_or_an_error(wrapped: str, secret: str) -> None:
    with contextlib.suppress(errors.DecryptKeyError):
        assert len(unwrap_key(wrapped, secret)) in (16, 24, 32)


def test_what_stands_in_for_a_wrong_iv_may_look_like_a_codec() -> None:
    """With an MD5 in front, 16 bytes of rubbish come first; of 65,536 blocks, one's begin like gzip."""
    sealed = encrypt(compress(PLAIN, "gzip"), KEY)
    decryptor = Cipher(algorithms.AES(KEY), modes.ECB()).decryptor()
    rubbish = decryptor.update(sealed[1:17])  # and then XOR with what is taken for the IV: the MD5 from its second byte
    prefix = bytes([0, rubbish[0] ^ 0x1F, rubbish[1] ^ 0x8B]) + bytes(13)
    assert decode(prefix + sealed, block(len(PLAIN)), KEY, CODECS["gzip"]) == PLAIN
