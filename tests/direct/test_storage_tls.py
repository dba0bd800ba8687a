"""GET of a block over TLS."""

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scripted_server import Exchange, ScriptedServer
from whole_blocks import BODY, PORTAL, aborted_in_the_middle, get

from cterafs import errors
from cterafs.demo.certificates import make_certificate
from cterafs.direct import http1
from cterafs.direct.storage import Storage, tls_context
from cterafs.direct.transfer import Transfer


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    certificate = make_certificate(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context, str(certificate.ca)


def test_tls_with_a_private_authority(certified: tuple[ssl.SSLContext, str]) -> None:
    context, ca_file = certified
    store = Storage(PORTAL, tls_context(True, ca_file))
    with ScriptedServer(lambda exchange: exchange.answer(BODY), context) as server:
        assert get(store, server) == get(store, server) == BODY
        assert server.connections == 1
        store.close()


def test_tls_of_an_unknown_authority_is_refused(certified: tuple[ssl.SSLContext, str]) -> None:
    storage = Storage(PORTAL, tls_context(True, None))
    with ScriptedServer(lambda exchange: exchange.answer(BODY), certified[0]) as server:
        with pytest.raises(errors.StorageUntrustedError, match=r"direct\.ca_file.*local issuer") as caught:
            get(storage, server)
        assert not caught.value.retryable
        assert not server.exchanges
        unverified = Storage(PORTAL, tls_context(False, None))
        assert get(unverified, server) == BODY
        unverified.close()


def test_a_redirect_from_https_to_http_is_refused(certified: tuple[ssl.SSLContext, str]) -> None:
    context, ca_file = certified
    store = Storage(PORTAL, tls_context(True, ca_file))
    with (
        ScriptedServer(
            lambda exchange: exchange.answer(status="302 F", Location="http://localhost/"), context
        ) as server,
        pytest.raises(errors.DownloadError, match="https to http"),
    ):
        get(store, server)


def test_all_the_records_of_tls_that_have_come_are_taken_at_once(certified: tuple[ssl.SSLContext, str]) -> None:
    """Each of them is 16 KiB at most. Then one is waited for, but not for ever."""
    context, ca_file = certified
    ours, theirs = socket.socketpair()
    sent = bytes(range(200)) * 400
    with ThreadPoolExecutor(1) as thread, ours, theirs:
        accepting = thread.submit(context.wrap_socket, theirs, server_side=True)
        sock = tls_context(True, ca_file).wrap_socket(ours, server_hostname="localhost")
        with accepting.result() as server, sock:
            sock.settimeout(0.01)
            connection, transfer = http1.Connection(sock), Transfer(0.01)
            server.sendall(sent)
            view = memoryview(bytearray(len(sent) + 1))
            assert connection.receive(view, transfer) == len(sent)
            assert view[:-1] == sent
            with pytest.raises(TimeoutError):
                connection.receive(view, transfer)


def test_an_abort_ends_a_tls_download(certified: tuple[ssl.SSLContext, str]) -> None:
    context, ca_file = certified
    with ScriptedServer(Exchange.hang, context) as server:
        failures = aborted_in_the_middle(Storage(PORTAL, tls_context(True, ca_file)), server)
    assert [type(error) for error in failures] == [errors.DownloadConnectionError]


def test_a_ca_file_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for path in (bad, tmp_path / "missing.pem"):
        with pytest.raises(errors.ConfigError, match=rf"direct\.ca_file: cannot use .*{path.name}: [a-zN]"):
            tls_context(True, str(path), "direct.ca_file")
