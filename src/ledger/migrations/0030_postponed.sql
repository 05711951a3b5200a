-- Deliveries that failed and wait for the next attempt, and are not parked: `status` counts them, `queue` lists them.
-- Partial indexes, so that a delivery that never failed costs nothing more.
CREATE INDEX delivery_failed ON delivery (vessel, parked, due_at, id)
    WHERE failures > 0 AND state NOT IN ('acknowledged', 'superseded');

ALTER TABLE tally ADD COLUMN postponed INTEGER NOT NULL DEFAULT 0;

UPDATE tally SET postponed = (
    SELECT count(*) FROM delivery d INDEXED BY delivery_failed JOIN version v ON v.id = d.version
    WHERE d.vessel = tally.vessel AND v.directory = tally.directory AND d.parked = 0 AND d.failures > 0
        AND d.state NOT IN ('acknowledged', 'superseded'));

CREATE TRIGGER delivery_postponed AFTER UPDATE OF state, parked, failures ON delivery
WHEN (OLD.failures > 0 AND OLD.parked = 0 AND OLD.state NOT IN ('acknowledged', 'superseded'))
    <> (NEW.failures > 0 AND NEW.parked = 0 AND NEW.state NOT IN ('acknowledged', 'superseded'))
BEGIN
    UPDATE tally SET postponed = postponed
        + CASE NEW.failures > 0 AND NEW.parked = 0 AND NEW.state NOT IN ('acknowledged', 'superseded')
            WHEN 1 THEN 1 ELSE -1 END
    WHERE vessel = NEW.vessel AND directory = (SELECT directory FROM version WHERE id = NEW.version);
END;
