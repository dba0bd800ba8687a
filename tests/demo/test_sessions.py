"""Who is let in, and what the others are told."""

from __future__ import annotations

import httpx
import pytest
from asking import Asker

from cterafs.demo.server import EmbeddedPortal

LIST = {"folder_ids": [], "cursor": None}


def test_without_a_session_there_is_a_redirect_to_the_login(portal: EmbeddedPortal) -> None:
    with Asker(portal) as asker:
        answer = asker.metadata("list", LIST)
        assert (answer.status_code, answer.headers["location"]) == (302, "/ServicesPortal/login.html")
        assert asker.http.get(f"{portal.url}/ServicesPortal/login.html").headers["content-type"].startswith("text/html")


def test_a_session_expires_when_it_is_not_used(portal: EmbeddedPortal, asker: Asker) -> None:
    assert asker.metadata("list", LIST).status_code == 200
    portal.accounts.idle_timeout = -1
    assert asker.metadata("list", LIST).status_code == 302
    portal.accounts.idle_timeout = 60
    assert asker.metadata("list", LIST).status_code == 302
    asker.login()
    assert asker.metadata("list", LIST).status_code == 200


def test_a_session_ends_with_the_logout(portal: EmbeddedPortal, asker: Asker) -> None:
    session = dict(asker.http.cookies)
    assert asker.http.post(f"{portal.url}/ServicesPortal/api/logout").status_code == 200
    again = httpx.post(f"{portal.url}/admin/v2/api/metadata/list", json=LIST, cookies=session)
    assert again.status_code == 302


@pytest.mark.parametrize(
    "form", [{}, {"j_username": "admin"}, {"j_username": "nobody", "j_password": "x"}, {"j_username": "\0", "x": "ä"}]
)
def test_a_wrong_login_is_refused(portal: EmbeddedPortal, form: dict[str, str]) -> None:
    assert httpx.post(f"{portal.url}/admin/api/login", data=form).status_code == 403


def test_a_user_without_a_password_cannot_log_in(portal: EmbeddedPortal) -> None:
    portal.accounts.add("alice")
    form = {"j_username": "alice", "j_password": ""}
    assert httpx.post(f"{portal.url}/admin/api/login", data=form).status_code == 403


def test_a_ticket_is_good_for_once(portal: EmbeddedPortal) -> None:
    ticket = {"ctera_ticket": portal.accounts.issue_ticket(portal.accounts.owner)}
    assert httpx.post(f"{portal.url}/ServicesPortal/sso", data=ticket).status_code == 200
    assert httpx.post(f"{portal.url}/ServicesPortal/sso", data=ticket).status_code == 403


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic eDp4", ""])
def test_another_token_is_refused(portal: EmbeddedPortal, header: str) -> None:
    headers = {"Authorization": header}
    assert httpx.post(f"{portal.url}/admin/v2/api/metadata/list", json=LIST, headers=headers).status_code == 401
    assert httpx.get(f"{portal.url}/directio/1", headers=headers).status_code == 401


def test_the_session_says_who_it_is(portal: EmbeddedPortal, asker: Asker) -> None:
    answer = asker.http.get(f"{portal.url}/ServicesPortal/api/currentSession", params={"format": "jsonext"}).json()
    assert (answer["username"], answer["role"], answer["idleTimeout"]) == ("admin", "ReadWriteAdmin", 30)


def test_the_token_of_a_session_can_be_demanded(portal: EmbeddedPortal, asker: Asker) -> None:
    portal.control.demand_token = True
    assert asker.metadata("list", LIST).status_code == 403
    token = asker.http.get(f"{portal.url}/ServicesPortal/api/currentSession").headers["x-ctera-token"]
    asker.http.headers["X-CTERA-TOKEN"] = token
    assert asker.metadata("list", LIST).status_code == 200


def test_there_are_two_contexts(portal: EmbeddedPortal, asker: Asker) -> None:
    for context, status in (("admin", 200), ("ServicesPortal", 200), ("other", 404)):
        answer = asker.http.post(f"{portal.url}/{context}/v2/api/metadata/list", json=LIST)
        assert answer.status_code == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<obj>",
        b"<other/>",
        b"<val>x</val>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><obj/>',
        b"<list>" * 5000 + b"</list>" * 5000,
        b'<obj><att id="type"><val>db</val></att><att id="name"><val>delete</val></att></obj>',
    ],
)
def test_xml_that_makes_no_sense_is_refused(portal: EmbeddedPortal, asker: Asker, body: bytes) -> None:
    for path in ("users/admin", "cloudDrives"):
        assert asker.http.post(f"{portal.url}/admin/api/{path}", content=body).status_code == 400
