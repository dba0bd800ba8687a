"""Every exception that cterafs raises on purpose.

    CteraError (OSError)
    ├── PortalError                     the control plane
    │   ├── AuthenticationError         user, password or token refused
    │   ├── SessionExpired              logged out, and logging in again did not help
    │   ├── PortalConnectionError       not reachable, or cut off
    │   │   └── PortalUnavailable       reachable, but overloaded or restarting (HTTP 429, 5xx)
    │   ├── PortalTimeout               no answer within the deadline
    │   ├── ProtocolError               an answer that is not the protocol
    │   ├── ObjectNotFoundException     no such user or cloud folder
    │   └── NotificationsError          the Notification Service refused
    │       ├── TooManyVolumesRequestedError
    │       ├── CursorRejectedError     the cursor is no longer accepted: list again
    │       └── AncestorsError
    ├── DirectIOError                   the data plane
    │   ├── DirectIOAPIError            the block list could not be had
    │   │   ├── ObjectNotFoundError     (alias NotFoundError)
    │   │   ├── AuthorizationError      (alias UnAuthorized)
    │   │   ├── UnsupportedStorageError (alias UnprocessableContent)
    │   │   ├── InvalidRequest
    │   │   ├── BlocksNotFoundError
    │   │   ├── BlockListConnectionError
    │   │   └── BlockListTimeout
    │   ├── DecryptKeyError
    │   ├── BlockError                  one block; `.block` tells which
    │   │   ├── DownloadError
    │   │   │   └── StorageRefusedError     by our own rules: its host, or its scheme
    │   │   ├── DownloadTimeout
    │   │   ├── DownloadConnectionError
    │   │   │   └── StorageUntrustedError   by its certificate
    │   │   ├── DecryptBlockError
    │   │   ├── DecompressBlockError
    │   │   └── BlockValidationException
    │   ├── StreamError                 `.offset` tells where to resume
    │   └── VersionChangedError         storage holds another version now
    ├── FilesystemError                 an operation on the mount that cannot be done
    │   ├── NotFound, NotADirectory, IsADirectory, StaleInode, ReadOnly, NoAttribute, ...
    ├── StateError                      the local state cannot be used
    │   └── OutOfThreads                    (in `threads`)
    └── MountError                      mountpoint or FUSE trouble
    ConfigError (ValueError)            usage or configuration

All of them carry `errno`, so that one place can answer the kernel, and `retryable`, which says whether the same
request may succeed when it is simply made again. The names under `PortalError` and `DirectIOError` are those of
CTERA's Python SDK.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Self

import msgspec

from cterafs.model import Chunk


class ConfigError(ValueError):
    """Usage or configuration that cannot be accepted; the message says what to change."""


class CteraError(OSError):
    """Base of all errors at run time.

    Attributes:
        retryable: the same request may succeed if it is made again.
        code: the errno of this kind of error.
        reported: it was counted and logged already; the kernel repeats a failed read, and gets the same error again.
        retry_after: seconds that the server asks to wait, if it does.
    """

    code: ClassVar[int] = errno.EIO
    retryable: ClassVar[bool] = False
    retry_after: float | None = None
    reported: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(self.code, message)

    def __str__(self) -> str:
        return str(self.strerror)


class PortalError(CteraError):
    """The portal's control plane failed."""


class AuthenticationError(PortalError):
    """The portal refused the user, the password or the token."""

    code = errno.EACCES


class SessionExpired(PortalError):
    """The session ended and a new login did not help."""

    code = errno.EACCES
    retryable = True


class PortalConnectionError(PortalError):
    """The portal cannot be reached, or the connection broke."""

    code = errno.ENETUNREACH
    retryable = True


class PortalUnavailable(PortalConnectionError):
    """The portal is reachable, but overloaded, restarting or failing (HTTP 429 or 5xx).

    Attributes:
        retry_after: seconds that the portal asks to wait, if it does.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PortalTimeout(PortalError):
    """The portal did not answer within the deadline."""

    code = errno.ETIMEDOUT
    retryable = True


class ProtocolError(PortalError):
    """The portal's answer is not what the protocol says (an HTML page, truncated JSON, an unexpected status)."""

    code = errno.EPROTO
    retryable = True


class ObjectNotFoundException(PortalError):
    """No such user or cloud folder."""

    code = errno.ENOENT


class NotificationsError(PortalError):
    """The Notification Service could not answer."""

    retryable = True


class TooManyVolumesRequestedError(NotificationsError):
    """More cloud folders were selected than the portal allows in one request."""

    code = errno.E2BIG
    retryable = False


class CursorRejectedError(NotificationsError):
    """The cursor is no longer accepted: the namespace has to be listed again."""

    code = errno.ESTALE
    retryable = False


class AncestorsError(NotificationsError):
    """The ancestors of one object were refused."""

    retryable = False


class DirectIOError(CteraError):
    """Base of the data plane's errors.

    Attributes:
        file_id: the file they concern, if known.
    """

    summary: ClassVar[str] = "Direct IO failed"

    def __init__(self, file_id: int | None = None, detail: str = "") -> None:
        where = f" (file id {file_id})" if file_id is not None else ""
        super().__init__(f"{self.summary}{where}{': ' + detail if detail else ''}")
        self.file_id = file_id
        self.detail = detail


class DirectIOAPIError(DirectIOError):
    """The portal did not give a list of blocks."""

    summary = "the portal gave no list of blocks"


class ObjectNotFoundError(DirectIOAPIError):
    """HTTP 400: no such file."""

    code = errno.ENOENT
    summary = "no such file"


class AuthorizationError(DirectIOAPIError):
    """HTTP 401 or 403: the access key, or its right to this file, was refused."""

    code = errno.EACCES
    summary = "access refused; check direct.access_key_id and its permissions"


class UnsupportedStorageError(DirectIOAPIError):
    """HTTP 422: some block is not on a storage node in direct mode."""

    code = errno.ENOTSUP
    summary = "not all blocks are on a storage node in direct mode"


class InvalidRequest(DirectIOAPIError):
    """HTTP 500, or any other status: the portal failed."""

    summary = "the portal could not list the blocks"
    retryable = True


class BlocksNotFoundError(DirectIOAPIError):
    """The list of blocks of a file that is not empty is empty."""

    code = errno.ENODATA
    summary = "the portal knows no blocks of this file"


class BlockListConnectionError(DirectIOAPIError):
    """The connection to the portal failed."""

    code = errno.ENETRESET
    summary = "no connection to the portal for the list of blocks"
    retryable = True


class BlockListTimeout(DirectIOAPIError):
    """The portal did not answer in time."""

    code = errno.ETIMEDOUT
    summary = "the portal did not list the blocks in time"
    retryable = True


class DecryptKeyError(DirectIOError):
    """The wrapped data key does not open with the secret access key."""

    summary = "the data key cannot be unwrapped; check direct.secret_access_key"


class BlockInfo(msgspec.Struct, frozen=True, gc=False):
    """Which block an error is about: `number` from 1 (None in a partial list), `offset` and `length` in bytes."""

    file_id: int | None
    number: int | None
    offset: int
    length: int

    @classmethod
    def of(cls, file_id: int, chunk: Chunk) -> Self:
        """A block of a file's list."""
        return cls(file_id, chunk.number, chunk.extent.start, len(chunk.extent))


class BlockError(DirectIOError):
    """Base of the errors of one block; `block` tells which, `detail` what is wrong with it."""

    summary = "a block failed"
    retryable = True

    def __init__(self, block: BlockInfo, detail: str = "") -> None:
        where = f"block at {block.offset} of {block.length} bytes"
        super().__init__(block.file_id, f"{where}{': ' + detail if detail else ''}")
        self.block = block
        self.detail = detail


class DownloadError(BlockError):
    """Storage answered, but not with the block; `status` is the HTTP status, if there was one."""

    summary = "storage did not give a block"

    def __init__(self, block: BlockInfo, detail: str = "", status: int | None = None) -> None:
        super().__init__(block, detail)
        self.status = status


class DownloadTimeout(BlockError):
    """Storage made no progress for too long."""

    code = errno.ETIMEDOUT
    summary = "storage did not send a block in time"


class DownloadConnectionError(BlockError):
    """The connection to storage failed."""

    code = errno.ENETRESET
    summary = "no connection to storage"


class StorageRefusedError(DownloadError):
    """The block's URL leads where it must not; trying again leads there, too."""

    summary = "storage may not be contacted"
    retryable = False


class StorageUntrustedError(DownloadConnectionError):
    """The certificate of storage is not trusted."""

    summary = "the certificate of storage is not trusted; set direct.ca_file to its authority"
    retryable = False


class DecryptBlockError(BlockError):
    """A block does not decrypt (its padding is wrong)."""

    summary = "a block does not decrypt"


class DecompressBlockError(BlockError):
    """A block does not decompress."""

    summary = "a block does not decompress"


class BlockValidationException(BlockError):
    """A block's length, or a checksum that storage sent, is wrong."""

    summary = "a block is not what was announced"


class StreamError(DirectIOError):
    """A stream ended early; `offset` is the first byte that was not delivered."""

    summary = "the stream broke"

    def __init__(self, file_id: int | None, offset: int, detail: str = "") -> None:
        super().__init__(file_id, detail)
        self.offset = offset


class VersionChangedError(DirectIOError):
    """Storage holds another version of the file than the one that was opened."""

    code = errno.ESTALE
    summary = "the file was replaced while it was open"


# The names that older releases of the SDK used.
NotFoundError = ObjectNotFoundError
UnAuthorized = AuthorizationError
UnprocessableContent = UnsupportedStorageError


class FilesystemError(CteraError):
    """An operation on the volume that cannot be done."""


class NotFound(FilesystemError):
    """No such name."""

    code = errno.ENOENT


class StaleInode(FilesystemError):
    """An inode that has been superseded or deleted."""

    code = errno.ESTALE


class NotADirectory(FilesystemError):
    """A directory was expected."""

    code = errno.ENOTDIR


class IsADirectory(FilesystemError):
    """A file was expected."""

    code = errno.EISDIR


class ReadOnly(FilesystemError):
    """Nothing can be written."""

    code = errno.EROFS


class NoAttribute(FilesystemError):
    """No such extended attribute."""

    code = errno.ENODATA


class StateError(CteraError):
    """The local state cannot be used (locked by another process, unreadable, of a newer version)."""


class MountError(CteraError):
    """The mountpoint or FUSE cannot be used."""
