"""The small pure parts: what presigned URLs tell, checksums, and where URLs may lead."""

import base64
import hashlib
import socket
import zlib
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cterafs.direct import addresses
from cterafs.direct.addresses import Endpoint, HostPolicy, Refused, parse
from cterafs.direct.checksums import Checksums
from cterafs.direct.presigned import lifetime, stable_path

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp()


def mismatch(headers: dict[str, str], body: bytes) -> str | None:
    checksums = Checksums(headers)
    checksums.update(body[:2])
    checksums.update(body[2:])
    return checksums.mismatch()


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("X-Amz-Date=20261120T110000Z&X-Amz-Expires=7200", 7200),
        ("X-Goog-Expires=600", 600),
        (f"AWSAccessKeyId=x&Expires={int(NOW) + 900}&Signature=y", 900),
        ("sv=2020&se=2026-11-20T13%3A00%3A00Z&sig=x", 3600),
        ("se=2026-11-20T13:00:00", 3600),
        ("se=2026-11-20T14:00:00%2B01:00", 3600),
        ("se=2026-11-20T12:00:30Z", None),  # so short a life may be a wrong clock
        ("se=2026-11-20T11:00:00Z", None),
        ("Expires=5", None),
        ("X-Amz-Expires=nan", None),
        ("X-Amz-Expires=soon", None),
        ("se=tomorrow", None),
        ("sig=x", None),
        (f"Expires={int(NOW) + 900}" + "&x=1" * 1000, None),  # no signature has so many
        ("", None),
    ],
)
def test_lifetime(query: str, seconds: float | None) -> None:
    assert lifetime(f"https://bucket.example.com/blocks/1?{query}", NOW) == seconds


@given(st.text())
def test_any_text_has_a_lifetime_or_none(text: str) -> None:
    for url in (text, f"https://host/{text}", f"https://host/?se={text}", f"https://host/?Expires={text}"):
        lifetime(url, NOW)
        stable_path(url)


def test_the_stable_path_has_neither_host_nor_query() -> None:
    path = "blocks/00000001/ab-c"
    assert stable_path(f"https://one.example.com/{path}?sig=1/2") == path
    assert stable_path(f"http://two:81/{path}?sig=2") == path
    assert stable_path("https://host?x=/y") == ""


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-md5", hashlib.md5(b"body").digest()),
        ("x-ms-blob-content-md5", hashlib.md5(b"body").digest()),
        ("x-amz-checksum-crc32", zlib.crc32(b"body").to_bytes(4, "big")),
        ("x-amz-checksum-sha1", hashlib.sha1(b"body").digest()),
        ("x-amz-checksum-sha256", hashlib.sha256(b"body").digest()),
    ],
)
def test_checksums(name: str, value: bytes) -> None:
    assert mismatch({name: b64(value)}, b"body") is None
    assert mismatch({name: b64(value)}, b"b0dy") == name
    assert mismatch({name: "rubbish"}, b"body") is None
    assert mismatch({name: b64(b"12")}, b"body") is None


def test_checksums_of_parts_are_not_of_the_bytes() -> None:
    wrong = b64(bytes(32))
    assert mismatch({"x-amz-checksum-sha256": wrong + "-3"}, b"body") is None
    assert mismatch({"x-amz-checksum-sha256": wrong, "x-amz-checksum-type": "COMPOSITE"}, b"body") is None
    assert mismatch({"x-amz-checksum-sha256": wrong, "x-amz-checksum-type": "FULL_OBJECT"}, b"body")


@pytest.mark.parametrize(
    ("url", "endpoint", "path", "authority"),
    [
        ("https://S3.Example/a/b?x=1&y=%2F", Endpoint(True, "s3.example", 443), "/a/b?x=1&y=%2F", "s3.example"),
        ("http://10.0.0.1:9000/b", Endpoint(False, "10.0.0.1", 9000), "/b", "10.0.0.1:9000"),
        ("http://[fd00::1]:80?q", Endpoint(False, "fd00::1", 80), "/?q", "[fd00::1]"),
        ("https://h/a b\u00e9#f", Endpoint(True, "h", 443), "/a%20b%C3%A9", "h"),
    ],
)  # fmt: skip
def test_urls(url: str, endpoint: Endpoint, path: str, authority: str) -> None:
    target = parse(url)
    assert (target.endpoint, target.path, target.endpoint.authority) == (endpoint, path, authority)
    assert "/b" not in repr(target)


@pytest.mark.parametrize(
    "url",
    ["", "ftp://h/", "file:///etc/passwd", "/blocks/1", "https:///x", "https://u:p@h/", "http://h:99999/", "http://[::1/",
     "http://h\u00e9st/", "http://h h/"],
)  # fmt: skip
def test_what_is_no_url_of_storage_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse(url)


@given(st.text())
def test_any_url_is_taken_apart_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"https://h/{text}"):
        try:
            request = f"GET {parse(url).path} {parse(url).endpoint.authority}".encode("ascii")
        except Refused:
            continue
        assert not set(request) & set(b"\r\n\t\0")
        assert request.count(b" ") == 2


@pytest.mark.parametrize(
    ("location", "goes"),
    [
        ("/else?x", "https://h/else?x"),
        ("https://h:444/", "https://h:444/"),
        ("http://h/", None),
        ("https://other/", None),
        ("", "https://h/b?q"),
        ("http://[", None),
        ("javascript:x", None),
    ],
)
def test_redirects(location: str, goes: str | None) -> None:
    target = parse("https://h/b?q")
    if goes is None:
        with pytest.raises(Refused):
            target.redirected(location)
    else:
        assert target.redirected(location) == parse(goes)


def resolver(**names: str) -> object:
    def getaddrinfo(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in names[host].split()]

    return getaddrinfo


@given(st.from_regex(r"https?://[a-z0-9.-]{1,9}(:[0-9]{1,5})?/[!-~]{0,20}", fullmatch=True))
def test_urls_are_taken_apart_as_the_standard_library_does(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        with pytest.raises(Refused):
            parse(url)
        return
    target = parse(url)
    assert (target.endpoint.secure, target.endpoint.host) == (parts.scheme == "https", parts.hostname)
    assert target.endpoint.port == (port or (443 if target.endpoint.secure else 80))
    assert target.path == parts.path + (f"?{parts.query}" if parts.query else "")


@pytest.mark.parametrize(
    ("resolved", "portal", "hosts", "allowed"),
    [
        ("93.184.216.34", "p.example", [], True),
        ("10.0.0.5", "p.example", [], True),
        ("169.254.169.254", "p.example", [], False),
        ("169.254.169.254", "localhost", [], False),
        ("fe80::1%eth0", "p.example", [], False),
        ("::ffff:169.254.169.254", "p.example", [], False),
        ("127.0.0.1", "p.example", [], False),
        ("::ffff:127.0.0.1", "p.example", [], False),
        ("::1", "p.example", [], False),
        ("0.0.0.0", "p.example", [], False),
        ("::", "p.example", [], False),
        ("224.0.0.1", "p.example", [], False),
        ("127.0.0.1", "localhost", [], True),
        ("127.0.0.1", "unknown", [], False),
        ("127.0.0.1", "p.example", ["Storage"], True),
        ("93.184.216.34", "p.example", ["other"], False),
    ],
)
def test_where_block_urls_may_lead(
    monkeypatch: pytest.MonkeyPatch, resolved: str, portal: str, hosts: list[str], allowed: bool
) -> None:
    names = {"storage": resolved, "p.example": "93.184.216.1", "localhost": "127.0.0.1"}
    monkeypatch.setattr(addresses.socket, "getaddrinfo", resolver(**names))
    policy = HostPolicy(hosts, portal)
    if allowed:
        assert policy.addresses(Endpoint(True, "storage", 443)) == [(socket.AF_INET, (resolved, 443))]
    else:
        with pytest.raises(Refused):
            policy.addresses(Endpoint(True, "storage", 443))


def test_only_the_harmless_addresses_of_a_host_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses.socket, "getaddrinfo", resolver(storage="127.0.0.1 8.8.8.8"))
    assert HostPolicy([], "p").addresses(Endpoint(True, "storage", 1)) == [(socket.AF_INET, ("8.8.8.8", 1))]
