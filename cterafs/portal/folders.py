"""Cloud folders by name: what the portal's administration knows of them.

Queries are what CTERA's Python SDK sends: `POST cloudDrives` with `{type: db, name: query, param: QueryParams}`, and
`POST users/{name}` or `domains/{domain}/adUsers/{name}` with `get-multi` for an owner's uid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import quote

from cterafs.errors import ObjectNotFoundException, ProtocolError
from cterafs.model import FolderInfo
from cterafs.portal.session import Session, check
from cterafs.portal.xmlgrammar import Value, XmlObject, parse, serialise

FolderRef: TypeAlias = int | str | FolderInfo
"""A cloud folder: its id, "owner/name", or what `Folders` answered."""

# The SDK's page. Portals may answer fewer, so the next page starts after what came.
_PAGE = 50
# More than any portal has; they take 30 MB here.
_MOST = 100_000


class Folders:
    """The cloud folders that this account may see."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def all(self) -> list[FolderInfo]:
        """Every cloud folder that is not deleted; entries without a name or a number are left out.

        Raises:
            PortalError: any of its kinds.
        """
        return await self._query({})

    async def find(self, owner: str, name: str | None = None) -> FolderInfo:
        """The folder `name` of `owner`, or "owner/name" in one. An owner in a directory is "user@domain".

        Raises:
            ObjectNotFoundException: no such user, or no such folder of theirs.
        """
        if name is None:
            owner, _, name = owner.partition("/")
        if not owner or not name:
            raise ObjectNotFoundException(f"{owner or name!r} does not name a cloud folder; write owner/name")
        try:
            serialise([owner, name])
        except ValueError:
            raise ObjectNotFoundException(f"no cloud folder can be called {f'{owner}/{name}'!a}") from None
        uid = await self._uid(owner)
        by_name = XmlObject({"field": "name", "restriction": "eq", "value": name}, class_name="StringFilter")
        for folder in await self._query({"ownedBy": uid, "filters": [by_name]}):
            if folder.name == name:
                return FolderInfo(folder.folder_id, name, owner)
        raise ObjectNotFoundException(f"{owner} has no cloud folder {name!r}")

    async def resolve(self, folders: Sequence[FolderRef]) -> tuple[int, ...]:
        """The ids of `folders`; those given by name are looked up.

        Raises:
            ObjectNotFoundException: one of them does not exist.
        """
        return tuple([await self._resolved(folder) for folder in folders])

    async def _resolved(self, folder: FolderRef) -> int:
        if isinstance(folder, FolderInfo):
            return folder.folder_id
        return folder if isinstance(folder, int) else (await self.find(folder)).folder_id

    async def _uid(self, owner: str) -> str:
        """The uid of the user `owner`: of the directory behind its "@", or else a local one of that very name."""
        user, _, domain = owner.rpartition("@")
        paths = [f"api/users/{quote(owner, safe='')}"]
        if user and domain:
            paths.insert(0, f"api/domains/{quote(domain, safe='')}/adUsers/{quote(user, safe='')}")
        for path in paths:
            if (uid := await self._uid_at(path)) is not None:
                return uid
        raise ObjectNotFoundException(f"the portal has no user {owner!r}")

    async def _uid_at(self, path: str) -> str | None:
        wanted = XmlObject({"type": "db", "name": "get-multi", "param": ["/name", "/uid"]})
        answer = await self._session.request("POST", path, content=serialise(wanted), content_type="text/plain")
        if answer.status == 404:
            return None
        check(answer)
        found = parse(answer.body)
        return found.text("uid") if isinstance(found, XmlObject) and found.text("name") else None

    async def _query(self, conditions: dict[str, Value]) -> list[FolderInfo]:
        folders: dict[int, FolderInfo] = {}
        start = 0
        while True:
            parameters = {"startFrom": str(start), "countLimit": str(_PAGE), "include": ["name", "uid", "owner"]}
            query = XmlObject({"type": "db", "name": "query", "param": XmlObject(parameters | conditions)})
            objects, has_more = _page(await self._session.xml("POST", "api/cloudDrives", query))
            known = len(folders)
            folders |= {folder.folder_id: folder for folder in map(_folder, objects) if folder is not None}
            if not has_more:
                return list(folders.values())
            if len(folders) == known or len(folders) > _MOST:
                raise ProtocolError("the portal's list of cloud folders does not end")
            start += len(objects)


def _page(answer: Value) -> tuple[Sequence[Value], bool]:
    if not isinstance(answer, XmlObject):
        raise ProtocolError("the portal's answer is not a list of cloud folders")
    objects = answer.attributes.get("objects")
    has_more = (answer.text("hasMore") or "").lower() == "true"
    return (objects if isinstance(objects, list) else [], has_more)


def _folder(value: Value) -> FolderInfo | None:
    if not isinstance(value, XmlObject):
        return None
    name, uid = value.text("name"), value.text("uid")
    if name is None or uid is None or not (uid.isascii() and uid.isdigit() and len(uid) <= 18):
        return None
    return FolderInfo(int(uid), name, _owner(value.text("owner") or ""))


def _owner(reference: str) -> str | None:
    """The user that `objs/{uid}/{portal}/{class}/{name}/{directory}` refers to, as `find` takes it; None if unnamed."""
    _, _, _, kind, name, directory = [*reference.split("/"), *[""] * 5][:6]
    return f"{name}@{directory}" if kind == "ADUser" and name and directory else name or None
