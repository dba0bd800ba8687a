"""The data plane: lists of blocks from the portal, blocks from the object store."""

from cterafs.direct.client import DirectIO
from cterafs.direct.remote import RemoteFile
from cterafs.direct.streamer import Streamer

__all__ = ["DirectIO", "RemoteFile", "Streamer"]
