"""The object store checks what it is asked, and gives only what the URL names."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import httpx
import lz4.frame
import pytest

from cterafs.demo.encoder import Codec, Encoding, boundaries
from cterafs.demo.objects import Item, MemoryContent
from cterafs.demo.server import EmbeddedPortal
from cterafs.demo.store import RangeNotSatisfiable, parse_range

DATA = random.Random(3).randbytes(10_240)
PLAIN = Encoding(4096, Codec.NONE, encrypted=False)


@pytest.fixture
def file(portal: EmbeddedPortal) -> Item:
    return portal.namespace.create(portal.namespace.create_folder("F"), "file", DATA, encoding=PLAIN)


def test_urls_have_the_shape_of_real_ones(portal: EmbeddedPortal, file: Item) -> None:
    parts = urlsplit(portal.store.url(file.file, 1))
    assert f"{parts.scheme}://{parts.netloc}" == portal.storage_url != portal.url
    assert re.fullmatch(r"/blocks/\d{8}/[0-9a-f]{40}-1", parts.path)
    first = urlsplit(portal.store.url(file.file, 0))
    assert first.path.rsplit("-")[0] != parts.path.rsplit("-")[0]
    assert parse_qs(parts.query).keys() == {"Expires", "Signature"}


def test_the_path_of_a_block_is_stable_and_no_other_version_has_it(portal: EmbeddedPortal, file: Item) -> None:
    def path() -> str:
        return urlsplit(portal.store.url(file.file, 0)).path

    before = path()
    portal.expire_urls()
    assert path() == before
    portal.namespace.write(file, DATA)
    assert path() != before


def test_a_block_is_given_to_whoever_has_its_url(portal: EmbeddedPortal, file: Item) -> None:
    blocks = [httpx.get(portal.store.url(file.file, index)) for index in range(3)]
    assert [block.status_code for block in blocks] == [200, 200, 200]
    assert b"".join(block.content for block in blocks) == DATA


def test_another_signature_is_refused(portal: EmbeddedPortal, file: Item) -> None:
    url = portal.store.url(file.file, 0)
    last = "0" if url[-1] != "0" else "1"
    assert httpx.get(url[:-1] + last).status_code == 403
    assert httpx.get(url.split("?")[0]).status_code == 403
    assert httpx.get(url.replace("Expires=", "Expires=9")).status_code == 403
    assert httpx.get(url.replace("-0?", "-1?")).status_code == 403


def test_an_expired_url_is_refused(portal: EmbeddedPortal, file: Item) -> None:
    portal.store.ttl = -1
    assert httpx.get(portal.store.url(file.file, 0)).status_code == 403


def test_urls_expire_on_demand(portal: EmbeddedPortal, file: Item) -> None:
    before = portal.store.url(file.file, 0)
    portal.expire_urls()
    assert httpx.get(before).status_code == 403
    assert httpx.get(portal.store.url(file.file, 0)).status_code == 200


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer x"}, {"Cookie": "JSESSIONID=x"}])
def test_credentials_are_refused(portal: EmbeddedPortal, file: Item, headers: dict[str, str]) -> None:
    assert httpx.get(portal.store.url(file.file, 0), headers=headers).status_code == 400
    assert portal.faults.requests["credentials sent to storage"] == 1


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=4000-", 4000, 4096),
        ("bytes=4000-9999", 4000, 4096),
        ("bytes=-96", 4000, 4096),
    ],
)
def test_a_range_is_given(portal: EmbeddedPortal, file: Item, header: str, start: int, stop: int) -> None:
    answer = httpx.get(portal.store.url(file.file, 0), headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, DATA[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/4096"


def test_a_range_of_an_encoded_block_is_a_range_of_its_bytes(portal: EmbeddedPortal, file: Item) -> None:
    portal.namespace.write(file, DATA, encoding=Encoding(4096))
    url = portal.store.url(file.file, 0)
    whole = httpx.get(url).content
    answer = httpx.get(url, headers={"Range": "bytes=5-"})
    assert (answer.status_code, answer.content) == (206, whole[5:])
    assert answer.headers["content-range"] == f"bytes 5-{len(whole) - 1}/{len(whole)}"


def test_a_range_beyond_the_end_is_not_satisfiable(portal: EmbeddedPortal, file: Item) -> None:
    assert httpx.get(portal.store.url(file.file, 0), headers={"Range": "bytes=4096-"}).status_code == 416
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=-0", 10)


@pytest.mark.parametrize("header", [None, "", "bytes=-", "bytes=5-4", "bytes=1-2,4-5", "lines=1-2"])
def test_a_range_that_cannot_be_read_is_ignored(header: str | None) -> None:
    assert parse_range(header, 10) is None


def test_a_version_that_is_gone_is_not_found(portal: EmbeddedPortal, file: Item) -> None:
    url, version = portal.store.url(file.file, 0), file.file
    portal.namespace.write(file, b"new")
    assert httpx.get(url).content == DATA[:4096]
    assert isinstance(version.content, MemoryContent)
    version.content.drop()
    assert httpx.get(url).status_code == 404


def test_what_was_never_there_is_not_found(portal: EmbeddedPortal, file: Item) -> None:
    assert httpx.get(portal.store.url(file.file, 3)).status_code == 404
    assert httpx.get(f"{portal.storage_url}/blocks/").status_code == 404


def test_checksums_are_sent_where_wanted(portal: EmbeddedPortal, file: Item) -> None:
    portal.store.checksums = True
    answer = httpx.get(portal.store.url(file.file, 0))
    assert base64.b64decode(answer.headers["content-md5"]) == hashlib.md5(answer.content).digest()


def test_an_lz4_block_is_a_frame(portal: EmbeddedPortal, file: Item) -> None:
    portal.namespace.write(file, DATA, encoding=Encoding(4096, Codec.LZ4, encrypted=False))
    block = httpx.get(portal.store.url(file.file, 1)).content
    assert block.startswith(b"\x04\x22\x4d\x18")
    assert lz4.frame.decompress(block) == DATA[4096:8192]


def test_a_checksum_may_stand_before_an_encrypted_block(portal: EmbeddedPortal, file: Item) -> None:
    portal.namespace.write(file, DATA, encoding=Encoding(4096, md5_prefix=True))
    block = httpx.get(portal.store.url(file.file, 0)).content
    assert block[:16] == hashlib.md5(block[16:]).digest()


def test_variable_lengths_differ_and_cover_the_file() -> None:
    encoding = Encoding(1000, variable=True)
    offsets = list(boundaries(50_000, encoding, b"seed"))
    lengths = [end - start for start, end in pairwise(offsets)]
    assert (offsets[0], offsets[-1]) == (0, 50_000)
    assert len(set(lengths)) > 10
    assert all(250 <= length <= 1000 for length in lengths[:-1])
    assert list(boundaries(50_000, encoding, b"seed")) == offsets


def test_a_list_of_blocks_covers_the_range_asked_for(portal: EmbeddedPortal, file: Item) -> None:
    headers = {"Authorization": f"Bearer {portal.access_key_id}"}

    def ask(**params: int) -> tuple[str, list[int]]:
        answer = httpx.get(f"{portal.url}/directio/{file.file.file_id}", params=params, headers=headers).json()
        return answer["actual_blocks_range"]["range"], [chunk["len"] for chunk in answer["chunks"]]

    assert ask() == ("0-10239", [4096, 4096, 2048])
    assert ask(rangeStart=4096, rangeEnd=4096) == ("4096-8191", [4096])
    assert ask(rangeStart=4095, rangeEnd=8192) == ("0-10239", [4096, 4096, 2048])
    assert ask(rangeStart=8192) == ("8192-10239", [2048])
    beyond = httpx.get(f"{portal.url}/directio/{file.file.file_id}", params={"rangeStart": 10_240}, headers=headers)
    assert beyond.json()["chunks"] == []


def test_a_long_list_is_whole(portal: EmbeddedPortal, file: Item) -> None:
    portal.namespace.write(file, DATA, encoding=Encoding(4, Codec.NONE, encrypted=False))
    answer = httpx.get(
        f"{portal.url}/directio/{file.file.file_id}", headers={"Authorization": f"Bearer {portal.access_key_id}"}
    ).json()
    assert [chunk["len"] for chunk in answer["chunks"]] == [4] * 2560
    assert len({chunk["url"] for chunk in answer["chunks"]}) == 2560


def test_the_shape_of_portal_8_2(portal: EmbeddedPortal, file: Item) -> None:
    portal.directio.old_shape = True
    portal.namespace.write(file, DATA, encoding=Encoding(4096))
    headers = {"Authorization": f"Bearer {portal.accounts.bearer_token}"}
    answer = httpx.get(f"{portal.url}/directio/{file.file.file_id}", headers=headers).json()
    assert answer.keys() == {"wrapped_key", "chunks"}


@pytest.mark.parametrize("path", ["0", "x", "-1", "99999999999999999999", "{id}?rangeStart=x", "{id}?rangeEnd=-1"])
def test_a_file_that_cannot_be_is_not_found(portal: EmbeddedPortal, file: Item, path: str) -> None:
    url = f"{portal.url}/directio/{path.format(id=file.file.file_id)}"
    assert httpx.get(url, headers={"Authorization": f"Bearer {portal.access_key_id}"}).status_code == 400
