"""Fuzzers of what the portal answers: JSON, XML, and what stands in headers and addresses."""

from __future__ import annotations

import gzip
import json

from fuzzing import Target

from cterafs import errors
from cterafs.direct import addresses, api, presigned, wire
from cterafs.direct.checksums import Checksums
from cterafs.direct.http1 import Oversized
from cterafs.direct.retry import retry_after
from cterafs.model import Event, Extent
from cterafs.portal import folders, transport, xmlgrammar
from cterafs.portal import wire as portal_wire
from cterafs.portal.cookies import Cookies

INT64 = range(-(2**63), 2**63)

ENTRY = {
    "type": "file",
    "guid": "4fbc5aca-71d7-4bbf-9928-695d3b2dc711:562",
    "name": "a n\u00e4me",
    "deleted": False,
    "folder_id": 12,
    "id": 4999328220,
    "size": 1234,
    "parent_guid": "4fbc5aca-71d7-4bbf-9928-695d3b2dc711:1",
    "gvsn": "7",
    "acl": "O:BAG:BAD:(A;;FA;;;WD)",
    "modified": "2026-11-20T08:30:00.123Z",
    "portal_modified_date": 1795170000000,
    "file_timestamp": 1795170000.5,
    "virtual_portal_id": 3,
}
PAGE = json.dumps({"has_more": True, "cursor": "AAAA", "entries": [ENTRY, {**ENTRY, "type": "folder"}]}).encode()
LOOSE = json.dumps({"has_more": "true", "cursor": 12, "entries": [{**ENTRY, "size": "12"}, None, {}]}).encode()
CHUNKS = [{"url": f"https://storage/blocks/00000001/{number:040x}-1?sig=x", "len": 4096} for number in range(3)]
BLOCKS = {
    "encrypt_info": {"wrapped_key": "d3JhcHBlZA==", "data_encrypted": True},
    "compression_type": "SNAPPY",
    "actual_blocks_range": {"file_size": 12288, "range": "0-12287"},
    "chunks": CHUNKS,
}
LISTS = tuple(
    json.dumps(answer).encode()
    for answer in (
        BLOCKS,
        {"wrapped_key": "d3JhcHBlZA==", "chunks": CHUNKS},
        {**BLOCKS, "actual_blocks_range": {"file_size": 10**6, "range": "4096-16383"}},
        {"chunks": None},
    )
)
XML = (
    b'<obj class="Session"><att id="name"><val>admin</val></att><att id="list"><list><val>1</val></list></att></obj>',
    b"<list><obj/><obj class='Folder'><att id='name'/></obj></list>",
    b"<val>&lt;8.3.3100.11&gt;</val>",
    '<?xml version="1.0" encoding="UTF-8"?><val>\u00e4</val>'.encode(),
)
FOLDERS = xmlgrammar.serialise(
    xmlgrammar.XmlObject(
        {
            "hasMore": "true",
            "objects": [
                xmlgrammar.XmlObject({"name": "Sales", "uid": "12", "owner": "objs/21/tenant/ADUser/bob/example.com"}),
                xmlgrammar.XmlObject({"name": "Plain", "uid": "14"}),
            ],
        }
    )
)
WORDS = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[[",
    b'"size":',
    b'"entries":',
    b'"\\ud800"',
    b"1e400",
    b"NaN",
    b"\xef\xbb\xbf",
)
URLS = (
    b"https://bucket.s3.amazonaws.com:443/blocks/00000001/ab-1?X-Amz-Expires=3600&X-Amz-Signature=00",
    b"http://[::1]:8080/a%20b?se=2026-11-20T08%3A30%3A00Z&sig=x",
    b"https://storage/x?Expires=1795170000\nhttps://storage/other",
)


def page(data: bytes) -> None:
    found = portal_wire.decode_page(data)
    _sound(*found.events)
    found.cursor.encode()
    assert found.skipped >= 0
    assert portal_wire._tolerant_page(data) == found, "the quick decoder and the tolerant one agree"


def ancestors(data: bytes) -> None:
    _sound(*portal_wire.decode_ancestors(data, str(ENTRY["guid"]), Event(guid="g", name="n", is_dir=False)))


def _sound(*events: Event) -> None:
    for event in events:
        assert event.guid
        for text in (event.guid, event.name, event.parent_guid, event.gvsn, event.acl, event.virtual_portal_id):
            assert text is None or text.encode() is not None
        for number in (event.size, event.folder_id, event.file_id, event.mtime_ns, event.ctime_ns):
            assert number is None or number in INT64
        assert event.size >= 0


def block_list(data: bytes) -> None:
    _placed(wire.parse(data, 7))


def block_list_of_a_range(data: bytes) -> None:
    _placed(wire.parse(data, 7, Extent(4096, 8192)))


def _placed(found: wire.Description) -> None:
    assert found.size in INT64
    for one, other in zip(found.chunks, found.chunks[1:], strict=False):
        assert one.extent.stop == other.extent.start
    for chunk in found.chunks:
        assert 0 <= chunk.extent.start < chunk.extent.stop <= found.size
        assert len(chunk.extent) <= wire.MAX_CHUNK


def xml(data: bytes) -> None:
    value = xmlgrammar.parse(data)
    assert xmlgrammar.parse(xmlgrammar.serialise(value)) == value


def cloud_folders(data: bytes) -> None:
    listed, _ = folders._page(xmlgrammar.parse(data))
    for found in filter(None, map(folders._folder, listed)):
        assert found.folder_id in INT64
        assert found.name


def compressed_answer(data: bytes) -> None:
    try:
        one = transport._decoded(data, "gzip")
    except errors.ProtocolError:
        one = None
    try:
        other = bytes(api._decoded("gzip", bytearray(data), 7, transport.MAX_BODY))
    except (errors.InvalidRequest, Oversized):
        other = None
    assert one == other or not data, "an empty answer needs no decoding for one of the two"


def address(data: bytes) -> None:
    url, _, location = data.decode("utf-8", "replace").partition("\n")
    presigned.lifetime(url, 1795170000.0)
    presigned.stable_path(url)
    target = addresses.parse(url)
    assert target.path.isascii()
    assert not set(target.path + target.endpoint.authority) & set(" \r\n\0")
    there = target.redirected(location)
    assert there.endpoint.host == target.endpoint.host
    assert there.endpoint.secure or not target.endpoint.secure


def headers(data: bytes) -> None:
    lines = data.decode("latin-1").split("\n")
    checksums = Checksums(dict(line.partition(":")[::2] for line in lines))
    checksums.update(b"data")
    checksums.mismatch()
    cookies = Cookies()
    cookies.update(lines)
    sent = cookies.header() or ""
    assert not set(sent) & set("\r\n\0")
    assert len(sent) < 1 << 18
    for line in lines:
        delay = retry_after(line)
        assert delay is None or 0 <= delay < 10**6


REFUSED = (errors.ProtocolError, errors.NotificationsError)
HEADERS = (
    b"content-md5:jXd/OF09/siBXSD3SWAm3A==\nx-amz-checksum-crc32:rfO2kA==\nx-amz-checksum-type:COMPOSITE",
    b"JSESSIONID=0123456789ABCDEF; Path=/; Secure; HttpOnly\nother=1; Max-Age=0\n120\nWed, 21 Oct 2026 07:28:00 GMT",
)

TARGETS = (
    Target("page", page, (PAGE, LOOSE, b"null"), REFUSED, WORDS),
    Target("ancestors", ancestors, (json.dumps([ENTRY, {**ENTRY, "type": None}]).encode(), b"[]"), REFUSED, WORDS),
    Target("changes", portal_wire.decode_changes, (b'{"changes": true}', b'{"changes": "0"}'), REFUSED, WORDS),
    Target("block_list", block_list, LISTS, (errors.DirectIOAPIError,), WORDS),
    Target("block_range", block_list_of_a_range, LISTS, (errors.DirectIOAPIError, wire.Unplaced), WORDS),
    Target(
        "xml",
        xml,
        XML,
        (errors.ProtocolError, ValueError),
        (b"<!DOCTYPE x>", b"&amp;", b"&#0;", b"<obj>", b"<att id='a'>"),
    ),
    Target("cloud_folders", cloud_folders, (FOLDERS,), (errors.ProtocolError,), (b"<list>", b"/", b"</val>")),
    Target("compressed_answer", compressed_answer, (gzip.compress(PAGE), b""), (), (b"\x1f\x8b\x08",)),
    Target(
        "address", address, URLS, (addresses.Refused,), (b"//", b"@", b":0", b"[", b"]", b"file:", b"\xc3\xa4", b"..")
    ),
    Target("headers", headers, HEADERS, (), (b"content-md5:", b";", b"=")),
)
