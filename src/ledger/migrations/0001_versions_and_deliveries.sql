-- The shore's id, one row, made with the ledger.
CREATE TABLE instance (
    id TEXT NOT NULL
) STRICT;

-- One content of one path. AUTOINCREMENT: an id names files on vessels and is never given twice.
CREATE TABLE version (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    directory   TEXT    NOT NULL,
    path        BLOB    NOT NULL,
    size        INTEGER NOT NULL,
    mtime       INTEGER NOT NULL,
    mtime_nanos INTEGER NOT NULL,
    inode       INTEGER NOT NULL,
    mode        INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    chunk_size  INTEGER NOT NULL,
    chunks      BLOB    NOT NULL, -- the chunks' digests, 32 bytes each
    admitted_at INTEGER NOT NULL, -- milliseconds since 1970, as all times here
    complete    INTEGER NOT NULL DEFAULT 0, -- 1: every vessel that takes it has acknowledged
    ended_at    INTEGER,          -- NULL: this is what the path holds now
    ending      TEXT              -- 'superseded', 'vanished' or 'retired'
) STRICT;

CREATE UNIQUE INDEX version_current ON version (directory, path) WHERE ended_at IS NULL;
CREATE INDEX version_complete ON version (directory) WHERE complete = 1 AND ended_at IS NULL;

-- One version on its way to one vessel.
CREATE TABLE delivery (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    version         INTEGER NOT NULL REFERENCES version (id),
    vessel          TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    failures        INTEGER NOT NULL DEFAULT 0,
    due_at          INTEGER NOT NULL,
    reason          TEXT,             -- why the last attempt failed
    parked          INTEGER NOT NULL DEFAULT 0,
    touched         INTEGER NOT NULL DEFAULT 0, -- 1: something of ours may lie on the vessel
    acknowledged_at INTEGER,
    verified        TEXT,
    UNIQUE (version, vessel)
) STRICT;

CREATE INDEX delivery_open ON delivery (vessel, due_at, id) WHERE state NOT IN ('acknowledged', 'superseded');
CREATE INDEX delivery_remains ON delivery (vessel) WHERE state = 'superseded' AND touched = 1;
