-- What all migrations together make. Written by
-- CONTENTMONSTER_REWRITE=1 cargo test --lib ledger::sqlite::schema

CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);

CREATE TABLE instance (
    id TEXT NOT NULL
) STRICT;

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
    admitted_at INTEGER NOT NULL, -- milliseconds since 1970, as all times here
    complete    INTEGER NOT NULL DEFAULT 0, -- 1: every vessel that takes it has acknowledged
    ended_at    INTEGER,          -- NULL: this is what the path holds now
    ending      TEXT              -- 'superseded', 'vanished' or 'retired'
, kind TEXT NOT NULL DEFAULT 'file', target BLOB NOT NULL DEFAULT x'', uid INTEGER, gid INTEGER, replaces INTEGER, forgotten_at INTEGER, processed BLOB, moved_from INTEGER, waits_for INTEGER) STRICT;

CREATE UNIQUE INDEX version_current ON version (directory, path) WHERE ended_at IS NULL;

CREATE INDEX version_complete ON version (directory) WHERE complete = 1 AND ended_at IS NULL;

CREATE TABLE delivery (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    version         INTEGER NOT NULL REFERENCES version (id),
    vessel          TEXT    NOT NULL,
    large           INTEGER NOT NULL, -- 1: its file has more than one chunk
    state           TEXT    NOT NULL,
    failures        INTEGER NOT NULL DEFAULT 0,
    due_at          INTEGER NOT NULL,
    reason          TEXT,             -- why the last attempt failed
    parked          INTEGER NOT NULL DEFAULT 0,
    touched         INTEGER NOT NULL DEFAULT 0, -- 1: something of ours may lie on the vessel
    acknowledged_at INTEGER,
    verified        TEXT, told TEXT, place INTEGER NOT NULL DEFAULT 0, seen_size INTEGER, seen_mtime INTEGER, token INTEGER, written_bytes INTEGER, link_bytes    INTEGER, queue      TEXT, rank       ANY, expires_at INTEGER, expired_at INTEGER, made_from BLOB, saved_bytes INTEGER,
    UNIQUE (version, vessel)
) STRICT;

CREATE INDEX delivery_remains ON delivery (vessel) WHERE state = 'superseded' AND touched = 1;

CREATE TABLE outline (
    directory TEXT    NOT NULL,
    path      BLOB    NOT NULL,
    version   INTEGER NOT NULL REFERENCES version (id) ON DELETE CASCADE,
    outline   BLOB    NOT NULL,
    PRIMARY KEY (directory, path, version)
) STRICT;

CREATE INDEX outline_version ON outline (version);

CREATE TABLE vessel (
    name        TEXT    PRIMARY KEY,
    paused_at   INTEGER, -- NULL: it isn't
    away_at     INTEGER, -- NULL: it was served when it was last heard of
    away_reason TEXT
, shell_refused_at INTEGER, shell_refusal TEXT, path_at INTEGER, path_rate INTEGER, path_round_trip INTEGER, paused_until INTEGER, pause_note TEXT) STRICT;

CREATE INDEX delivery_oldest ON delivery (vessel, version) WHERE state NOT IN ('acknowledged', 'superseded');

CREATE INDEX delivery_parked ON delivery (id) WHERE parked = 1;

CREATE INDEX delivery_acknowledged ON delivery (acknowledged_at) WHERE state = 'acknowledged';

CREATE TABLE tally (
    vessel             TEXT    NOT NULL,
    directory          TEXT    NOT NULL,
    waiting            INTEGER NOT NULL DEFAULT 0, -- neither acknowledged nor superseded
    waiting_bytes      INTEGER NOT NULL DEFAULT 0,
    parked             INTEGER NOT NULL DEFAULT 0, -- of those waiting
    acknowledged       INTEGER NOT NULL DEFAULT 0,
    acknowledged_bytes INTEGER NOT NULL DEFAULT 0,
    acknowledged_at    INTEGER, expired INTEGER NOT NULL DEFAULT 0, postponed INTEGER NOT NULL DEFAULT 0,                    -- the last time
    PRIMARY KEY (vessel, directory)
) STRICT, WITHOUT ROWID;

CREATE TABLE directory_tally (
    directory     TEXT    PRIMARY KEY,
    waiting       INTEGER NOT NULL,
    waiting_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE retired_tally (
    directory TEXT    NOT NULL,
    quarter   INTEGER NOT NULL,
    files     INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    PRIMARY KEY (directory, quarter)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER delivery_entered AFTER INSERT ON delivery
BEGIN
    INSERT INTO tally (vessel, directory, waiting, waiting_bytes)
    SELECT NEW.vessel, directory, 1, max(size, 0) FROM version WHERE id = NEW.version
    ON CONFLICT (vessel, directory) DO UPDATE
        SET waiting = waiting + 1, waiting_bytes = waiting_bytes + excluded.waiting_bytes;
END;

CREATE TRIGGER delivery_changed AFTER UPDATE OF state, parked ON delivery
WHEN OLD.parked <> NEW.parked
    OR (OLD.state IN ('acknowledged', 'superseded')) <> (NEW.state IN ('acknowledged', 'superseded'))
BEGIN
    UPDATE tally SET
        waiting = waiting
            + (OLD.state IN ('acknowledged', 'superseded')) - (NEW.state IN ('acknowledged', 'superseded')),
        waiting_bytes = waiting_bytes + (SELECT max(size, 0) FROM version WHERE id = NEW.version)
            * ((OLD.state IN ('acknowledged', 'superseded')) - (NEW.state IN ('acknowledged', 'superseded'))),
        parked = parked - OLD.parked + NEW.parked,
        acknowledged = acknowledged - (OLD.state = 'acknowledged') + (NEW.state = 'acknowledged'),
        acknowledged_bytes = acknowledged_bytes + (SELECT max(size, 0) FROM version WHERE id = NEW.version)
            * ((NEW.state = 'acknowledged') - (OLD.state = 'acknowledged')),
        acknowledged_at = CASE NEW.state WHEN 'acknowledged' THEN NEW.acknowledged_at ELSE acknowledged_at END
    WHERE vessel = NEW.vessel AND directory = (SELECT directory FROM version WHERE id = NEW.version);
END;

CREATE TRIGGER version_entered AFTER INSERT ON version
BEGIN
    INSERT INTO directory_tally (directory, waiting, waiting_bytes) VALUES (NEW.directory, 1, max(NEW.size, 0))
    ON CONFLICT (directory) DO UPDATE SET waiting = waiting + 1, waiting_bytes = waiting_bytes + max(NEW.size, 0);
END;

CREATE TRIGGER version_changed AFTER UPDATE OF complete, ended_at, forgotten_at ON version
WHEN (OLD.complete = 0 AND OLD.ended_at IS NULL AND OLD.forgotten_at IS NULL)
    <> (NEW.complete = 0 AND NEW.ended_at IS NULL AND NEW.forgotten_at IS NULL)
BEGIN
    UPDATE directory_tally SET
        waiting = waiting + CASE OLD.complete = 0 AND OLD.ended_at IS NULL AND OLD.forgotten_at IS NULL
            WHEN 1 THEN -1 ELSE 1 END,
        waiting_bytes = waiting_bytes + CASE OLD.complete = 0 AND OLD.ended_at IS NULL AND OLD.forgotten_at IS NULL
            WHEN 1 THEN -max(NEW.size, 0) ELSE max(NEW.size, 0) END
    WHERE directory = NEW.directory;
END;

CREATE TRIGGER version_retired AFTER UPDATE OF ended_at ON version
WHEN OLD.ended_at IS NULL AND NEW.ending = 'retired'
BEGIN
    INSERT INTO retired_tally (directory, quarter, files, bytes)
    VALUES (NEW.directory, NEW.ended_at / 900000, 1, max(NEW.size, 0))
    ON CONFLICT (directory, quarter) DO UPDATE SET files = files + 1, bytes = bytes + max(NEW.size, 0);
END;

CREATE TABLE notice (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT    NOT NULL, -- who is told
    event   TEXT    NOT NULL, -- 'delivered', 'retired' or 'parked'
    version INTEGER NOT NULL,
    vessel  TEXT,             -- NULL: it concerns all
    reason  TEXT,             -- why it is parked
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX notice_channel ON notice (channel, id);

CREATE INDEX notice_version ON notice (version);

CREATE INDEX version_replaces ON version (replaces) WHERE replaces IS NOT NULL;

CREATE TABLE place (
    vessel    TEXT    NOT NULL,
    directory TEXT    NOT NULL,
    location  BLOB    NOT NULL,
    number    INTEGER NOT NULL DEFAULT 0,
    settled   INTEGER NOT NULL DEFAULT 0, -- 0: not every delivery was entered anew for this place yet
    PRIMARY KEY (vessel, directory)
) STRICT, WITHOUT ROWID;

CREATE TABLE host (
    vessel  TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    account TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE host_key (
    vessel      TEXT NOT NULL,
    algorithm   TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (vessel, algorithm)
) STRICT, WITHOUT ROWID;

CREATE TABLE mount (
    directory   TEXT    NOT NULL,
    path        BLOB    NOT NULL,
    file_system BLOB    NOT NULL, -- its type, such as ext4
    source      BLOB    NOT NULL, -- what is mounted, such as /dev/sda1
    within      BLOB    NOT NULL, -- where the path lies in that file system; empty: behind a link, where that doesn't matter
    fsid        INTEGER NOT NULL, -- the file system's own number; 0: it has none
    PRIMARY KEY (directory, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE link_bytes (
    day      INTEGER NOT NULL, -- days since 1970
    vessel   TEXT    NOT NULL,
    sent     INTEGER NOT NULL, -- with resent bytes and the estimated headers
    received INTEGER NOT NULL,
    resent   INTEGER NOT NULL,
    PRIMARY KEY (day, vessel)
) STRICT, WITHOUT ROWID;

CREATE TABLE queue (
    directory TEXT    PRIMARY KEY,
    ordering  TEXT,               -- 'oldest', 'newest', 'smallest' or 'name'; NULL: the shared queue
    expire    INTEGER,            -- milliseconds after the admission; NULL: never
    settled   INTEGER NOT NULL DEFAULT 0 -- 0: not every delivery is in this queue yet
) STRICT, WITHOUT ROWID;

CREATE INDEX delivery_open ON delivery (vessel, large, due_at, id)
    WHERE queue IS NULL AND state NOT IN ('acknowledged', 'superseded');

CREATE INDEX delivery_queue ON delivery (vessel, queue, large, rank, due_at, id)
    WHERE queue IS NOT NULL AND state NOT IN ('acknowledged', 'superseded');

CREATE INDEX delivery_expiry ON delivery (queue, expires_at)
    WHERE expires_at IS NOT NULL AND state NOT IN ('acknowledged', 'superseded');

CREATE INDEX delivery_expired ON delivery (expired_at) WHERE expired_at IS NOT NULL;

CREATE TRIGGER delivery_expired_changed AFTER UPDATE OF expired_at ON delivery
WHEN (OLD.expired_at IS NULL) <> (NEW.expired_at IS NULL)
BEGIN
    UPDATE tally SET
        expired = expired + (NEW.expired_at IS NOT NULL) - (OLD.expired_at IS NOT NULL),
        acknowledged = acknowledged + (OLD.state = 'superseded' AND NEW.state = 'acknowledged'),
        acknowledged_bytes = acknowledged_bytes + (SELECT max(size, 0) FROM version WHERE id = NEW.version)
            * (OLD.state = 'superseded' AND NEW.state = 'acknowledged'),
        acknowledged_at = CASE NEW.state WHEN 'acknowledged' THEN NEW.acknowledged_at ELSE acknowledged_at END
    WHERE vessel = NEW.vessel AND directory = (SELECT directory FROM version WHERE id = NEW.version);
END;

CREATE TABLE way_bytes (
    day      INTEGER NOT NULL, -- days since 1970
    vessel   TEXT    NOT NULL,
    way      TEXT    NOT NULL, -- the name of the link, or the address
    sent     INTEGER NOT NULL, -- with resent bytes and the estimated headers
    received INTEGER NOT NULL,
    resent   INTEGER NOT NULL,
    PRIMARY KEY (day, vessel, way)
) STRICT, WITHOUT ROWID;

CREATE TABLE budget_told (
    payer     TEXT    NOT NULL, -- 'link ' or 'vessel ', and the name
    period    TEXT    NOT NULL, -- 'day' or 'month'
    first_day INTEGER NOT NULL, -- of the period, in days since 1970
    percent   INTEGER NOT NULL,
    PRIMARY KEY (payer, period)
) STRICT, WITHOUT ROWID;

CREATE TABLE budget_ceiling (
    payer TEXT    NOT NULL,
    day   INTEGER NOT NULL, -- days since 1970
    bytes INTEGER NOT NULL,
    PRIMARY KEY (payer, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX delivery_failed ON delivery (vessel, parked, due_at, id)
    WHERE failures > 0 AND state NOT IN ('acknowledged', 'superseded');

CREATE TRIGGER delivery_postponed AFTER UPDATE OF state, parked, failures ON delivery
WHEN (OLD.failures > 0 AND OLD.parked = 0 AND OLD.state NOT IN ('acknowledged', 'superseded'))
    <> (NEW.failures > 0 AND NEW.parked = 0 AND NEW.state NOT IN ('acknowledged', 'superseded'))
BEGIN
    UPDATE tally SET postponed = postponed
        + CASE NEW.failures > 0 AND NEW.parked = 0 AND NEW.state NOT IN ('acknowledged', 'superseded')
            WHEN 1 THEN 1 ELSE -1 END
    WHERE vessel = NEW.vessel AND directory = (SELECT directory FROM version WHERE id = NEW.version);
END;

CREATE INDEX version_moved_from ON version (moved_from) WHERE moved_from IS NOT NULL;

CREATE INDEX version_stamp ON version (inode, mtime, size) WHERE kind <> 'gone';

CREATE INDEX version_digest ON version (digest) WHERE kind = 'file' AND size >= 1048576;

CREATE INDEX version_size ON version (size) WHERE kind = 'file' AND size >= 1048576;

CREATE TABLE paused_directory (
    directory TEXT    PRIMARY KEY,
    paused_at INTEGER NOT NULL,
    until     INTEGER,           -- NULL: until a person ends it
    note      TEXT               -- of the person who paused it
) STRICT, WITHOUT ROWID;

CREATE TABLE incident (
    kind    TEXT    NOT NULL, -- such as 'vessel-away'
    subject TEXT    NOT NULL, -- the vessel or the directory; empty: the shore
    since   INTEGER NOT NULL,
    reason  TEXT    NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE outline_sample (
    block   INTEGER NOT NULL,
    version INTEGER NOT NULL REFERENCES version (id) ON DELETE CASCADE,
    PRIMARY KEY (block, version)
) STRICT, WITHOUT ROWID;

CREATE INDEX outline_sample_version ON outline_sample (version);

CREATE INDEX outline_newest ON outline (directory, version);

CREATE TRIGGER outline_dropped AFTER DELETE ON outline
BEGIN
    DELETE FROM outline_sample WHERE version = OLD.version;
END;

CREATE TABLE reconciled (
    directory TEXT    PRIMARY KEY,
    vessels   TEXT    NOT NULL, -- the vessels that take the directory, sorted, as a JSON array
    settled   INTEGER NOT NULL DEFAULT 0 -- 0: not every delivery fits yet
) STRICT, WITHOUT ROWID;

CREATE TABLE former_assembly (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    vessel   TEXT    NOT NULL,
    delivery INTEGER NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
    token    INTEGER           -- as in delivery
) STRICT;

CREATE INDEX former_assembly_vessel ON former_assembly (vessel, id);

CREATE INDEX former_assembly_delivery ON former_assembly (delivery);
