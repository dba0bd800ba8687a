"""Composition: a volume from a configuration, and a mount from a volume."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Container, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import trio

import cterafs
from cterafs import control, process
from cterafs.clients import direct_client, download_settings, portal_client
from cterafs.config import Config, DirectCredentials, PortalCredentials, state_directory, trust
from cterafs.content.blockcodec import BlockCodec, EncryptingCodec
from cterafs.content.blockstore import Bounds
from cterafs.content.cache import DISK_PATIENCE, BlockCache
from cterafs.content.disk import PENDING, DiskCache
from cterafs.content.fill import DiskFill
from cterafs.content.memory import BlockMemory
from cterafs.direct.remote import BlockSource, RemoteFile
from cterafs.downloading.process import DownloadedApart, DownloadProcess, download_process
from cterafs.errors import (
    AuthenticationError,
    ConfigError,
    ObjectNotFoundException,
    PortalConnectionError,
    PortalError,
    PortalTimeout,
    StateError,
)
from cterafs.kernel import mountpoint as mountpoints
from cterafs.kernel import session
from cterafs.kernel.notify import Notifier
from cterafs.kernel.operations import Operations, Presentation
from cterafs.namespace.disk import DamagedDatabase
from cterafs.namespace.follower import FeedStatus, Follower
from cterafs.namespace.health import open_or_rebuild, verify
from cterafs.namespace.store import Store
from cterafs.namespace.tree import Layout, Tree
from cterafs.portal import Portal
from cterafs.resolver import Resolver
from cterafs.stats import Stats
from cterafs.threads import patiently
from cterafs.volume import READ_DEADLINE_FACTOR, Volume, VolumeOptions
from cterafs.warming import Warming

log = logging.getLogger(__name__)

LOCK_NAME = "lock"
CURRENT_NAME = "current"
"""An empty file, whose time is when the tree was last known to be current."""

CURRENT_INTERVAL = 30.0
"""Seconds between two notes of that time, and so how wrong it can be after a crash."""

PENDING_SHARE = 8
"""Blocks that wait to be written to the disk are at most this part of what the memory may hold beside them."""

DOWNLOADS_PATIENCE = 1.0
"""Seconds that a mount waits for the process that downloads, which takes 0.2 to 0.3: who reads at once would wait
for the same processors. Without it, the mount downloads by itself."""

PROGRESS_INTERVAL = 0.2
"""Seconds between two looks at the import."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the portal and Direct IO are entered with."""

    portal: PortalCredentials
    direct: DirectCredentials


@dataclass(frozen=True, slots=True)
class Running:
    """A volume that follows its portal."""

    volume: Volume
    follower: Follower
    memory: BlockMemory
    disk: DiskCache | None
    downloads: DownloadProcess | None


@asynccontextmanager
async def open_volume(
    config: Config, credentials: Credentials, *, shown_meanwhile: bool = True
) -> AsyncIterator[Running]:
    """A volume with everything below it, for as long as the context lasts. Nothing is followed yet.

    Args:
        shown_meanwhile: somebody reads while the namespace is imported for the first time.

    Raises:
        ConfigError: the state directory, or that of the disk cache, is open to other users; or that has no key.
        StateError: the state directory cannot be used, or belongs to another process.
    """
    directory = state_directory(config)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_own(directory))
        # The indexes of ten million files are sorted in files of a gigabyte, which may be more than /tmp holds.
        os.environ.setdefault("SQLITE_TMPDIR", str(directory))
        store = stack.enter_context(open_or_rebuild(directory))
        layout = cast(Layout, config.mount.layout)
        tree = stack.enter_context(Tree(store, layout=layout, shown_meanwhile=shown_meanwhile))
        disk = stack.enter_context(_disk_cache(config, credentials.direct))
        portal = await stack.enter_async_context(portal_client(config, credentials.portal))
        direct = await stack.enter_async_context(direct_client(config, credentials.direct))
        apart = stack.enter_context(download_process(download_settings(config), config.cache.memory))
        nursery = await stack.enter_async_context(trio.open_nursery())
        source: BlockSource = direct
        if apart is not None:
            # Before it is mounted: a process that is just being made has all our files open, the connection to the
            # kernel too, which would then outlive us by a moment.
            await nursery.start(apart.run)
            source = DownloadedApart(direct, apart)
        stats, memory = Stats(), BlockMemory(config.cache.memory)
        volume = Volume(
            store,
            cache=BlockCache(memory, nursery, stats, disk),
            remote=lambda file_id, size, fingerprint: RemoteFile(source, file_id, size, fingerprint),
            nursery=nursery,
            options=VolumeOptions(readahead=config.readahead.max, timeout=config.direct.timeout),
            stats=stats,
        )
        selection = await _selection(config, store, portal)
        current = directory / CURRENT_NAME
        follower = Follower(
            portal.notifications,
            tree,
            listener=volume,
            folder_ids=selection,
            folders=portal.folders,
            current_at=current.stat().st_mtime if store.imported and current.exists() else None,
        )
        nursery.start_soon(_note_when_current, follower, current)
        if store.crashed:
            nursery.start_soon(partial(trio.to_thread.run_sync, verify, store, abandon_on_cancel=True))
        yield Running(volume, follower, memory, disk, apart)
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def _disk_cache(config: Config, credentials: DirectCredentials) -> Iterator[DiskCache | None]:
    """The blocks on the disk, if there are to be any. A disk that fails is no reason not to mount."""
    cache = config.cache
    if not cache.disk:
        yield None
        return
    with contextlib.suppress(OSError):  # it meets the same error, and tells of it
        trust.private_directory(cache.directory, "cache.directory")
    scope = f"{urlsplit(config.portal.url).netloc}/{config.portal.context}"
    pending = min(PENDING, cache.memory // PENDING_SHARE)
    disk = DiskCache(cache.directory, scope, Bounds(cache.disk, cache.keep_free), _codec(config, credentials), pending)
    try:
        yield disk
    finally:
        disk.close()


def _codec(config: Config, credentials: DirectCredentials) -> BlockCodec:
    """How blocks lie on the disk.

    Raises:
        ConfigError: encrypted, but there is nothing to make a key from.
    """
    if not config.cache.encrypt:
        return BlockCodec()
    if credentials.secret_access_key is None:
        raise ConfigError("cache.encrypt makes its key from direct.secret_access_key, which is not set")
    return EncryptingCodec(credentials.secret_access_key.reveal())


async def _note_when_current(follower: Follower, file: Path) -> None:
    """Keeps when the tree was last current, so that the next mount can tell how old it is if the portal is away."""
    while True:
        try:
            await trio.sleep(CURRENT_INTERVAL)
        finally:
            _note(file, follower.status.current_at)


def _note(file: Path, current_at: float | None) -> None:
    if current_at is None:
        return
    try:
        file.touch(mode=0o600)
        os.utime(file, (current_at, current_at))
    except OSError as error:  # a full disk is told of by the follower, whose index it concerns as well
        log.debug("%s was not touched: %s", file, error.strerror)


async def _selection(config: Config, store: Store, portal: Portal) -> Sequence[int]:
    """The ids of the configured cloud folders. They are asked for once: this state belongs to this very selection.

    Raises:
        ConfigError: there is no such folder.
        PortalError: it cannot be told.
    """
    if store.imported:
        return store.selection
    try:
        selection = await portal.folders.resolve(config.portal.folders)
    except ObjectNotFoundException as error:
        raise ConfigError(f"portal.folders: {error}") from None
    visible = await _visible(portal) if selection else ()
    for folder_id in selection:
        if folder_id not in visible:
            raise ConfigError(f"portal.folders: this account sees no cloud folder with the id {folder_id}")
    return selection


async def _visible(portal: Portal) -> Container[int]:
    """The ids of the account's cloud folders; any, where it may not list them."""
    try:
        return {folder.folder_id for folder in await portal.folders.all()}
    except (AuthenticationError, PortalConnectionError, PortalTimeout):
        raise
    except PortalError:
        return range(2**63)


@contextlib.contextmanager
def _own(directory: Path) -> Iterator[None]:
    """The state directory is ours alone; a crash frees it, since the kernel holds the lock."""
    trust.private_directory(directory, "state.directory")
    handle = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(
            f"{directory} is in use by another mount of the same portal, user and folders; "
            "unmount that one, or set another state.directory"
        ) from None
    try:
        yield
    finally:
        os.close(handle)


async def mount(
    config: Config,
    credentials: Credentials,
    path: Path,
    *,
    wait: bool,
    progress: Callable[[FeedStatus], None],
    ready: Callable[[], None],
) -> None:
    """Mounts at `path` and serves until somebody unmounts or a signal ends it.

    Args:
        wait: import the namespace first, where that was not done yet; otherwise it fills in as it goes.
        progress: told now and then how far the import is.
        ready: called when the mount has answered.

    Raises:
        MountError: the mountpoint cannot be used.
        StateError: the state directory cannot be used, or belongs to another process.
        PortalError: the namespace is not known yet and the portal does not tell it.
    """
    process.tune()
    trio.socket.set_custom_hostname_resolver(Resolver())
    await trio.to_thread.run_sync(mountpoints.prepare, path)
    async with open_volume(config, credentials, shown_meanwhile=not wait) as running, trio.open_nursery() as nursery:
        nursery.start_soon(running.follower.run)
        if wait:
            await _imported(running.follower, progress)
        if running.downloads is not None:
            with trio.move_on_after(DOWNLOADS_PATIENCE):
                await running.downloads.ready.wait()
        operations = Operations(running.volume, _presentation(config))
        notifier = Notifier(running.volume, operations.negatives)
        running.volume.observer = notifier
        commands = {"status": partial(_answer_status, running, path), "warm": partial(_warm, running, config)}
        async with control.serve(path, state_directory(config), commands):
            await session.serve(operations, notifier, path, _fuse_options(config), ready)
        nursery.cancel_scope.cancel()


async def _imported(follower: Follower, progress: Callable[[FeedStatus], None]) -> None:
    """Waits for the first import. A portal that was never heard is given up, as is a damaged index; a portal that goes
    away later is waited for."""
    while not follower.imported.is_set():
        with trio.move_on_after(PROGRESS_INTERVAL):
            await follower.imported.wait()
        status, error = follower.status, follower.error
        if error is not None and (isinstance(error, AuthenticationError | DamagedDatabase) or not status.entries_seen):
            raise error
        progress(status)


def _presentation(config: Config) -> Presentation:
    uid, gid = config.mount.uid, config.mount.gid
    return Presentation(os.getuid() if uid < 0 else uid, os.getgid() if gid < 0 else gid, config.mount.umask)


def _fuse_options(config: Config) -> set[str]:
    """Options of mount.fuse3(8). Not `ro`: the kernel would refuse extended attributes, which can be local state."""
    options = {f"fsname={urlsplit(config.portal.url).netloc}", "subtype=cterafs", "nosuid", "nodev"}
    options.update(config.mount.flags)
    if config.mount.allow_other:
        options.update(("allow_other", "default_permissions"))  # alone, allow_other checks nothing
    return options


async def _warm(running: Running, config: Config, request: dict[str, Any], send: control.Send) -> None:
    """Brings `paths`, below the mount's root, to the disk."""
    if running.disk is None:
        raise ConfigError("it has no disk cache; set cache.disk, like cache.disk=20GiB, and mount again")
    deadline = config.direct.timeout * READ_DEADLINE_FACTOR
    fill = DiskFill(running.memory, running.disk, workers=config.direct.workers, deadline=deadline)
    await Warming(running.volume, fill, send).run(request["paths"])


async def _answer_status(running: Running, path: Path, _: dict[str, Any], send: control.Send) -> None:
    await send(await _status(running, path))


async def _status(running: Running, path: Path) -> dict[str, Any]:
    """What `cterafs status --json` prints. What is counted in the index is null where that cannot be read."""
    feed, stats, memory = running.follower.status, running.volume.stats, running.memory
    counts = None
    with contextlib.suppress(StateError):  # the follower meets it as well: `reason` tells of it
        counts = await running.volume.counts()
    now = time.time()
    return {
        "mountpoint": str(path),
        "pid": os.getpid(),
        "download_pid": running.downloads and running.downloads.pid,
        "version": cterafs.__version__,
        "state": feed.state,
        "since": feed.since,
        "reason": feed.reason,
        "feed_lag_s": feed.lag(now),
        "last_event_age_s": None if feed.last_event_at is None else round(now - feed.last_event_at, 3),
        "files": counts and counts.files,
        "directories": counts and counts.directories,
        "bytes": counts and counts.bytes,
        "orphans": counts and counts.orphans,
        "cache": {
            "memory": {"used": memory.used, "limit": memory.limit, "hits": stats.hits, "misses": stats.misses},
            "disk": await _disk_status(running.disk),
        },
        "reads": {
            "opens": stats.opens,
            "open_files": running.volume.open_files,
            "requests": stats.reads,
            "bytes": stats.read_bytes,
            "downloaded_blocks": stats.downloaded_blocks,
            "downloaded_bytes": stats.downloaded_bytes,
            "ranges": stats.ranges,
            "prefetched_blocks": stats.prefetched,
        },
        "errors": dict(stats.errors),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "rss": _resident(None if running.downloads is None else running.downloads.pid),
    }


async def _disk_status(disk: DiskCache | None) -> dict[str, Any]:
    """The same of the disk tier; `used` is null where a disk that hangs does not tell it."""
    if disk is None:
        return {"used": 0, "limit": 0, "hits": 0, "misses": 0, "dropped": 0, "reason": None}
    used = None
    with trio.move_on_after(DISK_PATIENCE):
        used = await patiently(partial(trio.to_thread.run_sync, disk.used, abandon_on_cancel=True))
    return {
        "used": used,
        "limit": disk.bounds.limit,
        "hits": disk.hits,
        "misses": disk.misses,
        "dropped": disk.dropped,
        "reason": disk.reason,
    }


def _resident(downloads: int | None) -> int:
    """Bytes of memory in use, by this process and that which downloads; what they share counts once.

    Of proc_pid_statm(5): the second field counts resident pages, the third those of them that are not a process's own.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    with contextlib.suppress(OSError):  # it has just ended
        fields = Path(f"/proc/{downloads}/statm").read_text().split() if downloads else ("0", "0", "0")
        pages += int(fields[1]) - int(fields[2])
    return pages * resource.getpagesize()
