"""The file, the environment and `-o` put together; who may read what; where the state lies."""

import contextlib
import os
import re
import stat
from pathlib import Path

import pytest

from cterafs import config
from cterafs.config import Secret, trust
from cterafs.errors import ConfigError

EXAMPLE = """
[portal]
url = "https://tenant.ctera.com"
context = "ServicesPortal"
username = "svc-mount"
password = "hunter2"
folders = [12, "anna/Projects"]
verify_tls = true
ca_file = ""
[direct]
access_key_id = "AK"
secret_access_key = "c2VjcmV0"
storage_hosts = ["s3.example.com"]
workers = 16
timeout = "30s"
[mount]
uid = -1
gid = -1
umask = "0222"
allow_other = false
layout = "folder"
[cache]
memory = "512MiB"
directory = "~/.cache/cterafs"
disk = "0"
keep_free = "5%"
[readahead]
max = "64MiB"
[state]
directory = "~/.local/state/cterafs"
[log]
level = "info"
format = "text"
file = ""
[metrics]
listen = ""
"""


@pytest.fixture
def home(tmp_path):
    directory = tmp_path / "home"
    (directory / ".config/cterafs").mkdir(parents=True)
    (directory / ".config/cterafs/config.toml").touch()  # so that no test looks into /etc
    return directory


@pytest.fixture
def environ(home):
    return {"HOME": str(home)}


@pytest.fixture
def write(home):
    def write(content, mode=0o600):
        file = home / ".config/cterafs/config.toml"
        file.write_text(content)
        file.chmod(mode)
        return file

    return write


def test_the_documented_example_names_every_option_with_its_default(write, environ, home):
    write(EXAMPLE)
    loaded = config.load(None, environ)
    assert loaded.portal.folders == (12, "anna/Projects")
    assert loaded.portal.password == Secret("hunter2")
    defaults = config.load(None, {"HOME": str(home), "CTERAFS_CONFIG": os.devnull})
    assert (loaded.mount, loaded.readahead, loaded.log) == (defaults.mount, defaults.readahead, defaults.log)
    assert loaded.cache.memory == defaults.cache.memory == 512 << 20
    assert loaded.cache.keep_free == defaults.cache.keep_free
    assert loaded.cache.directory == home / ".cache/cterafs"
    assert loaded.direct.timeout == defaults.direct.timeout == 30.0


def test_nothing_secret_shows_in_a_repr(write, environ):
    write(EXAMPLE)
    shown = repr(config.load(None, environ))
    assert "hunter2" not in shown
    assert "c2VjcmV0" not in shown


def test_file_then_environment_then_options(write, environ):
    write('[cache]\nmemory = "10MiB"\ndisk = "1GiB"\n[log]\nlevel = "debug"\n')
    environ |= {"CTERAFS_CACHE_MEMORY": "20MiB", "CTERAFS_CACHE_DISK": "2GiB"}
    loaded = config.load(None, environ, ["cache.memory=30MiB"])
    assert loaded.cache.memory == 30 << 20
    assert loaded.cache.disk == 2 << 30
    assert loaded.log.level == "debug"


def test_the_first_file_of_those_that_exist(write, environ, tmp_path):
    write('[log]\nlevel = "debug"\n')
    assert config.load(None, environ).log.level == "debug"
    named = tmp_path / "named.toml"
    named.write_text('[log]\nlevel = "error"\n')
    assert config.load(None, environ | {"CTERAFS_CONFIG": str(named)}).log.level == "error"
    other = tmp_path / "other.toml"
    other.write_text('[log]\nlevel = "warning"\n')
    assert config.load(other, environ | {"CTERAFS_CONFIG": str(named)}).log.level == "warning"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[portal\n", "not TOML"),
        ('[portal]\nurl = "https://x"\nurl = "https://y"\n', "not TOML"),
        ("[portl]\n", r"unknown section 'portl'; did you mean portal\?"),
        ("[fancy]\n", "unknown section 'fancy'; known sections are portal"),
        ("memory = 3\n", r"'memory' is outside of a section; put it below one of \[portal\], "),
        ("portal = 3\n", "'portal' is outside of a section"),
        ("[mount]\numask = 222\n", "put the umask in quotes"),
        ("[cache]\nmemroy = 3\n", r"unknown option 'cache.memroy'; did you mean cache.memory\?"),
        ("[cache]\nmemory = '1 apple'\n", "cache.memory: '1 apple' is not understood"),
        ("[portal]\npassword = 5\n", "portal.password: the value is not text"),
        ("[portal]\npassword = 'a'\ntoken = 'b'\n", "exclude each other"),
        ("[portal]\nurl = {}\n", "portal.url"),
        ("a = " + "[" * 5000 + "\n", "not TOML"),
        ("a = " + "9" * 5000 + "\n", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(write, environ, content, complaint):
    file = write(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        config.load(None, environ)
    assert str(file) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (1 << 20) + b"#"])
def test_a_file_that_is_no_configuration(environ, tmp_path, content):
    file = tmp_path / "binary"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"UTF-8|larger"):
        config.load(file, environ)


def test_what_is_too_large_is_no_configuration(environ):
    with pytest.raises(ConfigError, match=r"^/dev/zero: the file is larger than 1 MiB; is it the right one\?$"):
        config.load(Path("/dev/zero"), environ)


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_named_file_must_be_readable(environ, tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / name, environ)


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        ("[portal]\npassword = 'x'\n", 0o640, "chmod 600"),
        ("[portal]\npassword = 'x'\n", 0o604, "chmod 600"),
        ("[portal]\npassword = 'x'\n", 0o602, "chmod go-w"),
        ("[portal]\npassword_command = 'pass'\n", 0o620, "chmod go-w"),
        ("[portal]\npassword_file = '/run/x'\n", 0o602, "chmod go-w"),
        ("[direct]\nsecret_access_key_command = ['a']\n", 0o646, "chmod go-w"),
        ("[portal]\nurl = 'https://a'\n", 0o646, "chmod go-w"),
        ("[log]\nfile = 'x'\n", 0o664, "chmod go-w"),
    ],
)
def test_a_file_that_others_could_abuse_is_refused(write, environ, content, mode, complaint):
    write(content, mode)
    with pytest.raises(ConfigError, match=complaint):
        config.load(None, environ)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        ("[portal]\npassword = 'x'\n", 0o600),
        ("[portal]\npassword = ''\n", 0o644),
        ("[portal]\npassword_file = '/run/x'\n", 0o644),
        ("", 0o666),
    ],
)
def test_a_file_that_gives_nothing_away_is_accepted(write, environ, content, mode):
    write(content, mode)
    config.load(None, environ)


@pytest.mark.parametrize(("owner", "accepted"), [(0, True), (os.geteuid(), True), (os.geteuid() + 1, False)])
def test_what_belongs_to_another_user_is_refused(owner, accepted):
    info = os.stat_result((stat.S_IFREG | 0o600, 1, 1, 1, owner, 0, 0, 0, 0, 0))
    with contextlib.nullcontext() if accepted else pytest.raises(ConfigError, match="another user"):
        trust.refuse_writable(Path("config.toml"), info)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"CTERAFS_PORTAL_URI": "x"}, "CTERAFS_PORTAL_URL"),
        ({"CTERAFS_LOG_LEVEL": "loud"}, "CTERAFS_LOG_LEVEL: 'loud' is not one of"),
        ({"CTERAFS_PORTAL_PASSWORD": "a\nb"}, "CTERAFS_PORTAL_PASSWORD: the value has more than one line"),
    ],
)
def test_a_wrong_variable_is_refused(environ, variables, complaint):
    with pytest.raises(ConfigError, match=complaint):
        config.load(None, environ | variables)


def test_lists_in_the_environment_are_separated_by_commas(environ):
    loaded = config.load(None, environ | {"CTERAFS_PORTAL_FOLDERS": r"12, anna/Projects\, old"})
    assert loaded.portal.folders == (12, "anna/Projects, old")


MOUNT_WORDS = (
    "ro,rw,_netdev,auto,noauto,nofail,nosuid,nodev,noexec,defaults,user,users,user=anna,relatime,suid,dev,"
    "x-systemd.automount,x-systemd.idle-timeout=60,x-gvfs-show"
)


def test_the_words_of_fstab(environ):
    loaded = config.load(None, environ, [MOUNT_WORDS, "allow_other,uid=1000,gid=100,umask=0027"])
    assert loaded.mount.flags == ("nosuid", "nodev", "noexec")
    assert (loaded.mount.uid, loaded.mount.gid, loaded.mount.umask) == (1000, 100, 0o027)
    assert loaded.mount.allow_other


def test_options_repeat(environ):
    loaded = config.load(None, environ, ["portal.folders=1,portal.folders=a/b", r"portal.folders=a/b\,c,uid=1,uid=2"])
    assert loaded.portal.folders == (1, "a/b", "a/b,c")
    assert loaded.mount.uid == 2


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("portal.urll=https://x", r"did you mean portal\.url\?"),
        ("memory=1GiB", r"did you mean cache\.memory\?"),
        ("allowother", r"did you mean mount\.allow_other\?"),
        ("portal.user=anna", r"did you mean portal\.username\?"),
        ("fancy", "unknown option 'fancy'; known sections are portal, direct"),
        ("state.fancy=1", r"unknown option 'state\.fancy'; known options are state\.directory$"),
        ("=1", "unknown option ''; known sections"),
        ("allow_other=perhaps", "'perhaps' is neither true nor false"),
        ("umask=888", 'write it in octal, like "0222"$'),
        ("uid", "mount.uid: a value is missing"),
        ("uid=anna", "'anna' is not an integer"),
        ("cache.memory", "a value is missing"),
        ("\x1b[2J", re.escape(r"'\x1b[2J'")),
    ],
)
def test_a_wrong_option_is_refused(environ, word, complaint):
    with pytest.raises(ConfigError, match=complaint):
        config.load(None, environ, [word])


@pytest.mark.parametrize("name", [name for name, option in config.OPTIONS.items() if option.is_secret])
def test_no_secret_is_taken_from_the_command_line(environ, name):
    with pytest.raises(ConfigError, match="command line") as caught:
        config.load(None, environ, [f"{name}=hunter2"])
    assert "hunter2" not in str(caught.value)


def test_which_options_are_secret():
    assert {name for name, option in config.OPTIONS.items() if option.is_secret} == {
        "portal.password",
        "portal.token",
        "direct.secret_access_key",
        "direct.bearer",
    }


def test_a_higher_layer_replaces_the_way_a_secret_is_given(write, environ):
    write("[portal]\npassword_command = 'pass show ctera'\n[direct]\naccess_key_id = 'AK'\n")
    loaded = config.load(None, environ | {"CTERAFS_PORTAL_TOKEN": "t", "CTERAFS_DIRECT_BEARER": "b"})
    assert loaded.portal.password_command == ()
    assert loaded.portal.token == Secret("t")
    assert loaded.direct.access_key_id == ""


def test_relative_paths_start_where_they_were_written(write, environ, home, monkeypatch, tmp_path):
    write("[portal]\nca_file = 'ca.pem'\n[state]\ndirectory = '~/state'\n")
    monkeypatch.chdir(tmp_path)
    loaded = config.load(None, environ, ["log.file=here.log"])
    assert loaded.portal.ca_file == home / ".config/cterafs/ca.pem"
    assert loaded.state.directory == home / "state"
    assert loaded.log.file == tmp_path / "here.log"


def test_stripping_leaves_only_what_a_child_may_see(environ):
    environ |= {"CTERAFS_PORTAL_PASSWORD": "x", "CTERAFS_DIRECT_BEARER": "y", "CTERAFS_PORTAL_URL": "https://z"}
    kept = {"HOME", "CTERAFS_PORTAL_URL"}
    assert set(config.without_secrets(environ)) == kept
    config.strip_secrets(environ)
    assert set(environ) == kept


def _state(environ, *options, **variables):
    return config.state_directory(config.load(None, environ | variables, list(options)))


def test_the_state_directory_is_one_per_portal_context_user_and_selection(environ, home):
    url = "portal.url=https://tenant.ctera.com"
    plain = _state(environ, url, "portal.username=anna")
    assert plain.parent == home / ".local/state/cterafs"
    assert re.fullmatch(r"tenant\.ctera\.com-ServicesPortal-[0-9a-f]{16}", plain.name)
    others = [
        _state(environ, url, "portal.username=ben"),
        _state(environ, url, "portal.username=anna", "portal.context=admin"),
        _state(environ, url, "portal.username=anna", "portal.folders=1"),
        _state(environ, url + ":8443", "portal.username=anna"),
        _state(environ, "portal.url=https://other.ctera.com", "portal.username=anna"),
    ]
    assert len({plain, *others}) == 6
    same = [
        _state(environ, url + ":443", "portal.username=anna"),
        _state(environ, url, "portal.username=anna,cache.memory=10MiB", CTERAFS_PORTAL_PASSWORD="new"),
    ]
    assert set(same) == {plain}
    assert _state(environ, url, "portal.folders=1,portal.folders=2") == _state(
        environ, url, "portal.folders=2,portal.folders=1"
    )


def test_a_state_directory_needs_a_portal(environ):
    with pytest.raises(ConfigError, match="CTERAFS_PORTAL_URL"):
        _state(environ)


def test_require_names_what_is_missing(environ):
    loaded = config.load(None, environ, ["portal.url=https://x"])
    config.require(loaded, "portal.url")
    with pytest.raises(ConfigError, match=r"portal\.username.*CTERAFS_PORTAL_USERNAME"):
        config.require(loaded, "portal.url", "portal.username")


class TestPrivateDirectory:
    def test_it_is_made_with_those_above_it(self, tmp_path):
        trust.private_directory(tmp_path / "a/b", "state.directory")
        trust.private_directory(tmp_path / "a/b", "state.directory")
        assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o701, 0o710, 0o755, 0o777])
    def test_one_that_is_open_to_others_is_refused(self, tmp_path, mode):
        tmp_path.chmod(mode)
        with pytest.raises(ConfigError, match=f"run: chmod 700 {tmp_path}"):
            trust.private_directory(tmp_path, "state.directory")

    def test_a_link_is_refused(self, tmp_path):
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with pytest.raises(ConfigError, match=r"set another state\.directory"):
            trust.private_directory(tmp_path / "link", "state.directory")
