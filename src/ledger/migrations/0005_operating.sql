-- What people ask for, and what they look at again and again: asking must cost the same however much is waiting.

-- What is known of a vessel besides its deliveries.
CREATE TABLE vessel (
    name        TEXT    PRIMARY KEY,
    paused_at   INTEGER, -- NULL: it isn't
    away_at     INTEGER, -- NULL: it was served when it was last heard of
    away_reason TEXT
) STRICT;

-- A version that is not to be delivered any more. It stays what its path holds, so that no scan takes it for a new one.
ALTER TABLE version ADD COLUMN forgotten_at INTEGER;

CREATE INDEX delivery_oldest ON delivery (vessel, version) WHERE state NOT IN ('acknowledged', 'superseded');
CREATE INDEX delivery_parked ON delivery (id) WHERE parked = 1;
CREATE INDEX delivery_acknowledged ON delivery (acknowledged_at) WHERE state = 'acknowledged';

-- Sums over deliveries. Triggers keep them, so that no statement can forget to. A size below 0 is one with its highest bit
-- set, which no file system has; it counts as 0, for a sum that overflows would fail the transaction.
CREATE TABLE tally (
    vessel             TEXT    NOT NULL,
    directory          TEXT    NOT NULL,
    waiting            INTEGER NOT NULL DEFAULT 0, -- neither acknowledged nor superseded
    waiting_bytes      INTEGER NOT NULL DEFAULT 0,
    parked             INTEGER NOT NULL DEFAULT 0, -- of those waiting
    acknowledged       INTEGER NOT NULL DEFAULT 0,
    acknowledged_bytes INTEGER NOT NULL DEFAULT 0,
    acknowledged_at    INTEGER,                    -- the last time
    PRIMARY KEY (vessel, directory)
) STRICT, WITHOUT ROWID;

-- Sums over versions: those that some vessel still lacks.
CREATE TABLE directory_tally (
    directory     TEXT    PRIMARY KEY,
    waiting       INTEGER NOT NULL,
    waiting_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was retired in each quarter of an hour since 1970: a day begins with one, whatever the time zone.
CREATE TABLE retired_tally (
    directory TEXT    NOT NULL,
    quarter   INTEGER NOT NULL,
    files     INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    PRIMARY KEY (directory, quarter)
) STRICT, WITHOUT ROWID;

INSERT INTO tally (vessel, directory, waiting, waiting_bytes, parked, acknowledged, acknowledged_bytes, acknowledged_at)
SELECT d.vessel, v.directory,
    count(*) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')),
    coalesce(sum(max(v.size, 0)) FILTER (WHERE d.state NOT IN ('acknowledged', 'superseded')), 0),
    sum(d.parked),
    count(*) FILTER (WHERE d.state = 'acknowledged'),
    coalesce(sum(max(v.size, 0)) FILTER (WHERE d.state = 'acknowledged'), 0),
    max(d.acknowledged_at)
FROM delivery d JOIN version v ON v.id = d.version GROUP BY d.vessel, v.directory;

INSERT INTO directory_tally (directory, waiting, waiting_bytes)
SELECT directory, count(*), sum(max(size, 0)) FROM version WHERE ended_at IS NULL AND complete = 0 GROUP BY directory;

INSERT INTO retired_tally (directory, quarter, files, bytes)
SELECT directory, ended_at / 900000, count(*), sum(max(size, 0)) FROM version WHERE ending = 'retired'
GROUP BY directory, ended_at / 900000;

CREATE TRIGGER delivery_entered AFTER INSERT ON delivery
BEGIN
    INSERT INTO tally (vessel, directory, waiting, waiting_bytes)
    SELECT NEW.vessel, directory, 1, max(size, 0) FROM version WHERE id = NEW.version
    ON CONFLICT (vessel, directory) DO UPDATE
        SET waiting = waiting + 1, waiting_bytes = waiting_bytes + excluded.waiting_bytes;
END;

-- Two subqueries are cheaper here than UPDATE FROM: this is done for every acknowledgement.
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
