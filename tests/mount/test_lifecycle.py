"""From mounting to unmounting: both ways to run, every way to end, and starting again after a crash."""

from __future__ import annotations

import hashlib
import os
import pwd
import random
import select
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_mount import CTERAFS, DEADLINE, Mount

from cterafs.demo.server import EmbeddedPortal

CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def files(portal: EmbeddedPortal) -> None:
    folder = portal.namespace.create_folder("Folder")
    for number in range(20):
        portal.namespace.create(folder, f"file {number}", CONTENT)


def check(mount: Mount) -> None:
    assert (mount.path / "Folder/file 7").read_bytes() == CONTENT
    assert len(list((mount.path / "Folder").iterdir())) == 20


@pytest.fixture
def readers(mount: Mount) -> Iterator[None]:
    """Eight processes that read for as long as they can."""
    mount.start()
    script = f"while cat '{mount.path}/Folder/'* > /dev/null; do :; done"
    running = [subprocess.Popen(["sh", "-c", script], stderr=subprocess.DEVNULL) for _ in range(8)]
    try:
        mount.wait_until(lambda status: status["reads"]["requests"] >= 100)
        yield
        for process in running:
            process.wait(DEADLINE)
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_mount_returns_when_the_mount_answers_and_umount_when_the_process_has_ended(mount: Mount) -> None:
    mount.start()
    check(mount)
    pid = mount.pid
    mount.stop()
    assert not mount.is_mounted
    assert has_ended(pid)


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that whoever adopted it has not looked at yet (the third field of proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_foreground_ends_when_it_is_unmounted(mount: Mount) -> None:
    command = [*CTERAFS, "mount", "-f", "--config", str(mount.config), str(mount.path)]
    with subprocess.Popen(command, env=mount.environment, stderr=subprocess.PIPE) as process:
        while not mount.is_mounted:
            assert process.poll() is None
        check(mount)
        subprocess.run(["umount", str(mount.path)], check=True)
        assert process.wait(DEADLINE) == 0


def test_nohup(mount: Mount) -> None:
    command = ["nohup", *CTERAFS, "mount", "-f", "--config", mount.config, mount.path]
    with subprocess.Popen(command, env=mount.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not mount.is_mounted:
            assert process.poll() is None
        check(mount)
        process.send_signal(signal.SIGHUP)
        check(mount)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(mount: Mount, number: int) -> None:
    mount.start()
    check(mount)
    mount.signal(number)
    assert not mount.is_mounted
    mount.start()
    check(mount)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("readers")
def test_a_signal_ends_it_under_load(mount: Mount, number: int) -> None:
    mount.signal(number)
    assert not mount.is_mounted


@pytest.mark.usefixtures("readers")
def test_a_busy_mount_is_not_unmounted_unless_lazily(mount: Mount) -> None:
    with (mount.path / "Folder/file 3").open("rb", buffering=0) as held:
        done = mount.run("umount", str(mount.path), check=False)
        assert done.returncode == 5
        assert "in use" in done.stderr
        assert "--lazy" in done.stderr
        assert held.read(10) == CONTENT[:10]
        process = os.pidfd_open(mount.pid)
        mount.run("umount", "--lazy", str(mount.path))
        assert not mount.is_mounted
        assert held.read(10) == CONTENT[10:20]
    assert select.select([process], [], [], DEADLINE)[0], "the process outlives its last user"
    os.close(process)


def test_killed_at_any_moment_it_mounts_again(mount: Mount) -> None:
    """A dead mountpoint is cleared, and the tree is there again, inode numbers included."""
    chance = random.Random(3)
    inodes = None
    for _ in range(6):
        mount.start()
        numbers = {path.name: path.stat().st_ino for path in (mount.path / "Folder").iterdir()}
        inodes = inodes or numbers
        assert numbers == inodes
        reader = threading.Thread(target=read_until_it_fails, args=[mount.path / "Folder"])
        reader.start()
        for _ in range(chance.randrange(40)):
            mount.portal.namespace.create(mount.portal.namespace.find("Folder"), f"temporary {chance.random()}")
        for item in list(mount.portal.namespace.find("Folder").children.values()):
            if item.name.startswith("temporary"):
                mount.portal.namespace.delete(item)
        mount.signal(signal.SIGKILL)
        reader.join(DEADLINE)
        with pytest.raises(OSError, match="not connected"):
            list(mount.path.iterdir())
    mount.start()
    mount.settle()
    check(mount)


def read_until_it_fails(folder: Path) -> None:
    while True:
        try:
            for file in folder.iterdir():
                file.read_bytes()
        except FileNotFoundError:  # a temporary one
            continue
        except OSError:
            return


def test_a_crashed_mount_is_told_and_can_be_unmounted(mount: Mount) -> None:
    mount.start()
    mount.signal(signal.SIGKILL)
    done = mount.run("status", str(mount.path), check=False)
    assert done.returncode == 1
    assert "dead" in done.stdout
    mount.stop()
    assert not mount.is_mounted


def test_the_known_tree_is_served_while_the_portal_is_away(mount: Mount) -> None:
    mount.start()
    mount.stop()
    mount.portal.stop()
    mount.start()
    assert len(list((mount.path / "Folder").iterdir())) == 20
    assert (mount.path / "Folder/file 3").stat().st_size == len(CONTENT)
    status = mount.wait_until(lambda status: status["state"] == "offline")
    assert status["reason"]
    assert 0 < status["feed_lag_s"] < DEADLINE  # since the first mount was current
    mount.portal.start()
    mount.settle()
    check(mount)
    assert mount.status()["state"] == "live"


def test_no_wait_fills_in_as_it_goes(mount: Mount) -> None:
    mount.start("--no-wait")
    mount.settle()
    check(mount)
    mount.stop()


def test_a_mountpoint_is_used_once(mount: Mount) -> None:
    mount.start()
    done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
    assert done.returncode == 5
    assert "mounted already" in done.stderr
    check(mount)


def test_a_state_is_used_once(mount: Mount, tmp_path: Path) -> None:
    mount.start()
    other = tmp_path / "other"
    other.mkdir()
    done = mount.run("mount", "--config", str(mount.config), str(other), check=False)
    assert done.returncode == 1
    assert "in use by another mount" in done.stderr


@pytest.mark.parametrize(
    ("path", "advice"), [("missing", "does not exist; create it"), ("config.toml", "is not a directory; choose")]
)
def test_a_mountpoint_has_to_be_a_directory(mount: Mount, path: str, advice: str) -> None:
    done = mount.run("mount", "--config", str(mount.config), str(mount.home / path), check=False)
    assert done.returncode == 5
    assert done.stderr.startswith(f"cterafs: {mount.home / path} {advice}")
    assert len(done.stderr.splitlines()) == 1
    assert not (mount.home / "state").exists()


def test_a_frozen_mount_is_not_waited_for(mount: Mount) -> None:
    mount.start()
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    assert done.returncode == 5
    assert "mounted already" in done.stderr
    check(mount)


def test_why_the_kernel_does_not_mount_is_told_in_one_line(mount: Mount) -> None:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount --bind /dev/null /dev/fuse && exec {' '.join(CTERAFS)} mount"
         f" --config {mount.config} {mount.path}"],
        env=mount.environment, capture_output=True, text=True, check=False, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stderr.startswith(f"cterafs: {mount.path} cannot be mounted: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_cloud_folder_that_does_not_exist_is_a_mistake_in_the_configuration(mount: Mount) -> None:
    for folders in ([99], ["admin/Nothing"], ["nobody/Folder"]):
        mount.configure(portal_folders=folders)
        done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
        assert done.returncode == 2
        assert "portal.folders: " in done.stderr
        assert not mount.is_mounted


def test_chosen_cloud_folders_are_the_only_ones(mount: Mount) -> None:
    namespace, owner = mount.portal.namespace, mount.portal.accounts.owner
    chosen = namespace.create_folder("Chosen", owner.uid)
    for folders in ([chosen.folder_id], [f"{owner.name}/Chosen"]):
        mount.configure(portal_folders=folders)
        mount.start()
        assert [path.name for path in mount.path.iterdir()] == ["Chosen"]
        mount.stop()


def test_a_wrong_password_is_told(mount: Mount) -> None:
    mount.configure(portal_password="wrong")
    done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert not mount.is_mounted


def test_a_portal_that_is_away_at_the_first_mount_is_told(mount: Mount) -> None:
    mount.portal.stop()
    done = mount.run("mount", "--config", str(mount.config), str(mount.path), check=False)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert not mount.is_mounted


FSTAB = """
mount --bind {commands} /usr/local/sbin || exit 99
mount -t fuse.cterafs {config} {path} -o noexec,_netdev,umask=0277 || exit 1
sha256sum < "{path}/Folder/file 7"
stat -c "%a" "{path}/Folder/file 7"
findmnt -no FSTYPE,OPTIONS {path}
umount {path}
"""


def test_mount_8_and_fstab(mount: Mount) -> None:
    """`mount -t fuse.cterafs` finds the command in one of the system's directories, and hands the options on.

    In a mount namespace of its own, where the command lies in such a directory.
    """
    commands = mount.home / "commands"
    commands.mkdir()
    (commands / "cterafs").write_text(f'#!/bin/sh\nexec {" ".join(CTERAFS)} "$@"\n')
    (commands / "cterafs").chmod(0o755)
    script = FSTAB.format(commands=commands, config=mount.config, path=mount.path)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env=mount.environment, check=False, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    digest, mode, mounted = done.stdout.splitlines()
    assert digest.split()[0] == hashlib.sha256(CONTENT).hexdigest()
    assert mode == "400"
    assert mounted.startswith("fuse.cterafs")
    assert "noexec" in mounted


def test_umount_of_something_else_is_refused(mount: Mount) -> None:
    done = mount.run("umount", str(mount.home), check=False)
    assert done.returncode == 5
    assert "no cterafs is mounted" in done.stderr


def test_status_tells_the_truth(mount: Mount) -> None:
    mount.start()
    mount.settle()
    check(mount)
    status = mount.status()
    assert status["mountpoint"] == str(mount.path)
    assert status["state"] == "live"
    assert status["feed_lag_s"] == 0
    assert (status["files"], status["directories"], status["bytes"]) == (20, 1, 20 * len(CONTENT))
    assert status["reads"]["bytes"] >= len(CONTENT)
    assert status["cache"]["memory"]["used"] >= len(CONTENT)
    assert status["cache"]["memory"]["limit"] == 512 << 20
    assert Path(f"/proc/{status['pid']}/cmdline").read_bytes().count(b"cterafs")
    assert status["errors"] == {}
    shown = mount.run("status", str(mount.path)).stdout
    assert f"{mount.path}: live" in shown
    assert "20 files" in shown


def test_secrets_do_not_show(mount: Mount) -> None:
    """Neither in the process list, nor in the state, the log or the status."""
    mount.start()
    check(mount)
    secrets = [mount.portal.password, mount.portal.secret_access_key, mount.portal.access_key_id]
    process = Path(f"/proc/{mount.pid}")
    shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    shown += mount.run("status", "--json", str(mount.path)).stdout.encode()
    shown += b"".join(file.read_bytes() for file in mount.state.iterdir() if file.is_file())
    assert not [secret for secret in secrets if secret.encode() in shown]


UNPRIVILEGED = """
mknod {null} c 10 229 && chmod 666 {null} && mount --bind {null} /dev/fuse || exit 99
exec setpriv --reuid {uid} --regid {uid} --clear-groups \
  --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search sh -c '
  {cterafs} mount --config {config} {path} || exit 1
  sha256sum < "{path}/Folder/file 1"
  stat -c "%u %g %a" "{path}/Folder/file 1"
  touch "{path}/Folder/new" 2>&1
  {cterafs} status {path}
  {cterafs} umount {path} || exit 1
  mountpoint {path}
'
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can reach, other than pytest's own."""
    with tempfile.TemporaryDirectory(prefix="cterafs-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_an_ordinary_user_mounts_through_fusermount3(mount: Mount, shared: Path) -> None:
    """In a mount namespace of its own, where /dev/fuse is open to everybody as distributions have it.

    The one thing that this user may do beyond others is to search and read every directory, since the interpreter and
    the checkout may lie in root's home. fusermount3, being setuid, does not inherit it.
    """
    uid = pwd.getpwnam("nobody").pw_uid  # fusermount3 wants a user that has a name
    theirs = Mount(mount.portal, shared / "home")
    for path in (theirs.home, theirs.path, theirs.config):
        os.chown(path, uid, uid)
    script = UNPRIVILEGED.format(
        null=shared / "fuse", uid=uid, cterafs=" ".join(CTERAFS), config=theirs.config, path=theirs.path
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**theirs.environment, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert f"{uid} {uid} 444" in done.stdout, done.stderr
    assert "Read-only file system" in done.stdout
    assert ": live" in done.stdout
    assert "is not a mountpoint" in done.stdout
