-- A directory with a priority, an order, a schedule or an expiry has a queue of its own. The deliveries of all other
-- directories share one queue, which is ordered by `due_at` alone.
CREATE TABLE queue (
    directory TEXT    PRIMARY KEY,
    ordering  TEXT,               -- 'oldest', 'newest', 'smallest' or 'name'; NULL: the shared queue
    expire    INTEGER,            -- milliseconds after the admission; NULL: never
    settled   INTEGER NOT NULL DEFAULT 0 -- 0: not every delivery is in this queue yet
) STRICT, WITHOUT ROWID;

ALTER TABLE delivery ADD COLUMN queue      TEXT;    -- the directory whose queue it is; NULL: the shared queue
ALTER TABLE delivery ADD COLUMN rank       ANY;     -- its rank by the ordering; NULL: by `due_at`, after all ranks
ALTER TABLE delivery ADD COLUMN expires_at INTEGER;
ALTER TABLE delivery ADD COLUMN expired_at INTEGER; -- not NULL: superseded because it expired

DROP INDEX delivery_open;
CREATE INDEX delivery_open ON delivery (vessel, large, due_at, id)
    WHERE queue IS NULL AND state NOT IN ('acknowledged', 'superseded');
CREATE INDEX delivery_queue ON delivery (vessel, queue, large, rank, due_at, id)
    WHERE queue IS NOT NULL AND state NOT IN ('acknowledged', 'superseded');
CREATE INDEX delivery_expiry ON delivery (queue, expires_at)
    WHERE expires_at IS NOT NULL AND state NOT IN ('acknowledged', 'superseded');
CREATE INDEX delivery_expired ON delivery (expired_at) WHERE expired_at IS NOT NULL;

ALTER TABLE tally ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;

-- A vessel may answer after the delivery expired: then it has the file after all.
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
