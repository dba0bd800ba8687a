"""What the portal's services ask of whatever holds the content, be it kept in memory or computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cterafs.demo.feed import Feed
from cterafs.demo.objects import Entry, Version


class UnknownObject(LookupError):
    """No such object, or it is deleted."""


class Refused(Exception):
    """Direct IO does not give the blocks of this file; `status` is the HTTP status that says so."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class CloudFolder(Protocol):
    """A cloud folder as the administration knows it; `owner` is a user's uid."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def owner(self) -> int | None: ...


class Inventory(Protocol):
    """Everything that one portal holds."""

    @property
    def feed(self) -> Feed: ...

    @property
    def folders(self) -> Sequence[CloudFolder]:
        """The cloud folders that are not deleted."""

    def ancestors(self, folder_id: int, guid: str) -> list[Entry]:
        """From the cloud folder's root to the object.

        Raises:
            UnknownObject: it does not exist in this folder.
        """

    def by_file_id(self, file_id: int) -> Version:
        """The version that Direct IO means.

        Raises:
            UnknownObject: there is none, or its file is deleted.
            Refused: its blocks are not given.
        """

    def version(self, serial: int) -> Version | None:
        """The version that block URLs call `serial`, also when a newer one has replaced it."""
