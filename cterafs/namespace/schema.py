"""The index's database: every table and column, and how one version becomes the next.

`index.db` in the state directory. It holds nothing that the portal could not tell again: when it is lost, the namespace
is listed anew. Tables are STRICT, so that ANY keeps text that looks like a number as text.

WAL, so that readers see the last committed state while a page of events is written. `synchronous = NORMAL`: a killed
process loses nothing; a power failure may lose the last transactions, but whole ones, and as the cursor is part of
each, their events are simply listed again.

Pages of 4 KiB: an event dirties a page of `entry` and one or two of `entry_name`, and larger ones only write more. With
a million files, pages of 4, 8 and 16 KiB take for an event 53, 61 and 72 us of CPU time and 17, 30 and 53 KiB of
writing; to import an entry 9.5, 9.2 and 8.8 us (besides decoding); to list one 0.97, 0.94 and 0.94 us.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from typing import Final

APPLICATION_ID: Final = 0x43544653  # "CTFS": says that the file is ours
VERSION: Final = 4

ROOT: Final = 1

# An inode number names a content: the row in the low bits, and above them how often the row's content was replaced.
# A row stays where it is, so that new content leaves the other indexes alone.
ROW_BITS: Final = 40  # a million million rows
ROWS: Final = (1 << ROW_BITS) - 1
LAST_VERSION: Final = (1 << 63 - ROW_BITS) - 1  # 8 million; then the row moves
INODE: Final = f"(entry.id | (entry.version << {ROW_BITS}))"

# What a row of `entry` is. From FILE on it is shown in its directory, from DIRECTORY on it has entries of its own.
UNKNOWN: Final = 0  # only its guid is known, from a child that names it as its parent: to be asked about
DETACHED: Final = 1  # deleted, or asked about in vain; kept for the children that still name it
FILE: Final = 2
DIRECTORY: Final = 3
CLOUD_FOLDER: Final = 4  # the root of a cloud folder
SYNTHETIC: Final = 5  # the mount's root, or the directory of an owner

# Where the re-listing stands.
IDLE: Final = 0  # none is under way: what the feed tells is news
LISTING: Final = 1  # pages are arriving
SWEEPING: Final = 2  # all pages have arrived: what they did not mention is being removed

# How the last writer left it.
CLOSED: Final = 0
OPEN: Final = 1  # it is there still, or crashed
DAMAGED: Final = 2  # a check has found what cannot be repaired

TABLE_NAMES: Final = frozenset({"entry", "acl", "folder", "seen", "stale_name", "stale_size", "stale_time", "state"})
INDEX_NAMES: Final = frozenset(
    {"entry_guid", "entry_name", "entry_want", "entry_cloud", "entry_cloud_id", "entry_unplaced"}
)

# What the tables that `find` goes by do not tell yet, see findable.py.
_STALE: Final = """
CREATE TABLE stale_name (
    seq        INTEGER PRIMARY KEY,  -- the order of the changes
    id         INTEGER NOT NULL,
    value      TEXT                  -- under which it was found until then; NULL where it was not
) STRICT;
CREATE TABLE stale_size (
    seq        INTEGER PRIMARY KEY,
    id         INTEGER NOT NULL,
    value      INTEGER
) STRICT;
CREATE TABLE stale_time (
    seq        INTEGER PRIMARY KEY,
    id         INTEGER NOT NULL,
    value      INTEGER               -- whole seconds since 1970 UTC
) STRICT;
"""

TABLES: Final = f"""
CREATE TABLE entry (
    id         INTEGER PRIMARY KEY,  -- drawn from state.next_id, never reused
    guid       BLOB,                 -- the object's key (see guid.py); NULL for the mount's root
    kind       INTEGER NOT NULL,     -- one of the kinds above
    parent     INTEGER,              -- id of its directory; NULL for UNKNOWN, DETACHED and the mount's root; 0 for a
                                     -- file that names no parent, which is shown nowhere
    name       TEXT,                 -- as shown: safe and unique in its directory; NULL where parent is
    want       TEXT,                 -- the name it would have if a smaller guid of its directory did not have it;
                                     -- NULL where it has it
    wire       ANY,                  -- what the portal calls it; NULL where that is the wanted name (never for a
                                     -- CLOUD_FOLDER); a BLOB where it has lone surrogates
    folder_id  INTEGER,              -- the cloud folder it lies in
    file_id    INTEGER,              -- what Direct IO calls it
    size       INTEGER NOT NULL,     -- bytes
    gvsn       ANY,                  -- version, as text (a BLOB where it has lone surrogates)
    acl        INTEGER,              -- acl.id
    mtime_ns   INTEGER NOT NULL,     -- nanoseconds since 1970 UTC; 0 where unknown
    ctime_ns   INTEGER NOT NULL,     -- likewise
    version    INTEGER NOT NULL DEFAULT 0  -- how often its content was replaced; 0 of all but a FILE
) STRICT;
CREATE TABLE acl (                   -- access lists, each once: a tree has few different ones
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    sddl       ANY NOT NULL UNIQUE   -- as the portal has it (a BLOB where it has lone surrogates)
) STRICT;

CREATE TABLE folder (                -- the cloud folders, as the portal's administration lists them
    folder_id  INTEGER PRIMARY KEY,
    name       ANY NOT NULL,
    owner      ANY                   -- user name; NULL where unknown
) STRICT;

CREATE TABLE seen (                  -- what the re-listing under way has mentioned; empty otherwise
    id         INTEGER PRIMARY KEY
) STRICT;

{_STALE}
CREATE TABLE state (                 -- one row; written in the transaction of the entries that it belongs to
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    cursor      ANY,                 -- where the feed goes on; NULL: from the beginning
    selection   TEXT NOT NULL,       -- the folder ids that the cursor was issued for: a JSON array, sorted
    imported    INTEGER NOT NULL,    -- 1 once a complete listing has been applied
    relist      INTEGER NOT NULL,    -- IDLE, LISTING or SWEEPING
    layout      TEXT NOT NULL,       -- the layout that the cloud folders are placed by
    generation  INTEGER NOT NULL,    -- 31 random bits, drawn with the database: tells its inodes from another's
    next_id     INTEGER NOT NULL,
    files       INTEGER NOT NULL,    -- rows that are FILE
    directories INTEGER NOT NULL,    -- rows that are DIRECTORY or CLOUD_FOLDER
    bytes       TEXT NOT NULL,       -- the sum of the files' sizes, in decimal: it may pass 64 bits
    orphans     INTEGER NOT NULL,    -- rows that are UNKNOWN or DETACHED
    staging     INTEGER NOT NULL DEFAULT 0,  -- 1 while the first import is staged: the cursor is there (staging.py)
    open        INTEGER NOT NULL DEFAULT 0   -- CLOSED, OPEN or DAMAGED
) STRICT;
"""

# Not UNIQUE: two names may be exchanged within one page of events, row by row. It holds all that a listing shows, so
# that the rows, which lie in the order of arrival, need not be read: 0.7 us an entry instead of 1.5 (2.5 where the rows
# are not in memory), for 24 bytes more; and new content dirties a page of it.
_NAMES: Final = """
CREATE INDEX entry_name ON entry (parent, name, kind, version, size, mtime_ns, ctime_ns) WHERE parent IS NOT NULL;
"""

# What every query and every event needs. Dropped and built again around the end of a staged import.
INDEXES: Final = f"""
CREATE UNIQUE INDEX entry_guid ON entry (guid);
{_NAMES}
CREATE INDEX entry_want ON entry (parent, want) WHERE want IS NOT NULL;
CREATE INDEX entry_cloud ON entry (parent, wire) WHERE kind = {CLOUD_FOLDER};
CREATE INDEX entry_cloud_id ON entry (folder_id) WHERE kind = {CLOUD_FOLDER};
CREATE INDEX entry_unplaced ON entry (kind, folder_id) WHERE kind <= {DETACHED};
"""

# What `find` goes by, see findable.py: made once the first listing is complete.
FINDABLE: Final = f"""
CREATE TABLE find_name (
    value      TEXT NOT NULL,        -- entry.name
    id         INTEGER NOT NULL,
    PRIMARY KEY (value, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE find_size (
    value      INTEGER NOT NULL,     -- entry.size of a FILE
    id         INTEGER NOT NULL,
    PRIMARY KEY (value, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE find_time (
    value      INTEGER NOT NULL,     -- entry.mtime_ns in whole seconds, which take half the bytes
    id         INTEGER NOT NULL,
    PRIMARY KEY (value, id)
) STRICT, WITHOUT ROWID;
INSERT INTO find_name SELECT name, id FROM entry WHERE name IS NOT NULL ORDER BY name, id;
INSERT INTO find_size SELECT size, id FROM entry WHERE kind = {FILE} ORDER BY size, id;
INSERT INTO find_time SELECT mtime_ns / 1000000000, id FROM entry WHERE kind >= {FILE} ORDER BY 1, id;
"""

_MIGRATIONS: Final[dict[int, str]] = {
    1: """
    ALTER TABLE state ADD COLUMN staging INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE state ADD COLUMN open INTEGER NOT NULL DEFAULT 0;
    """,
    2: "",  # an index that version 4 has otherwise
    3: f"""
    ALTER TABLE entry RENAME COLUMN inode TO id;
    ALTER TABLE entry ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE seen RENAME COLUMN inode TO id;
    ALTER TABLE state RENAME COLUMN next_inode TO next_id;
    DROP INDEX entry_name;
    {_NAMES}
    DROP INDEX IF EXISTS entry_find_name;
    DROP INDEX IF EXISTS entry_find_size;
    DROP INDEX IF EXISTS entry_find_time;
    {_STALE}
    {FINDABLE}
    """,
}
"""The SQL that makes version n + 1 of version n."""


def statements(script: str) -> Iterator[str]:
    """One after the other, for a transaction that is open: `executescript` would commit it first."""
    text = ""
    for line in script.splitlines():
        text += line + "\n"
        if sqlite3.complete_statement(text):
            yield text
            text = ""


def create(db: sqlite3.Connection) -> None:
    """Makes the tables in an empty database, in one transaction."""
    db.execute("PRAGMA page_size = 4096")
    db.execute("PRAGMA journal_mode = WAL")
    now = time.time_ns()
    generation = secrets.randbits(31)
    db.executescript(
        f"""BEGIN IMMEDIATE;
        {TABLES}
        {INDEXES}
        INSERT INTO entry (id, kind, name, size, mtime_ns, ctime_ns)
            VALUES ({ROOT}, {SYNTHETIC}, '', 0, {now}, {now});
        INSERT INTO state VALUES (1, NULL, '[]', 0, {IDLE}, 'folder', {generation}, {ROOT + 1}, 0, 0, '0', 0, 0, 0);
        PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = {VERSION};
        COMMIT;"""
    )


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Brings a database of an older version up to date, one committed version after the other."""
    for step in range(version, VERSION):
        db.executescript(f"BEGIN IMMEDIATE;\n{_MIGRATIONS[step]}\nPRAGMA user_version = {step + 1};\nCOMMIT;")
