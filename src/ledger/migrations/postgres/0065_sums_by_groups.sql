-- The sums were maintained by joins of the rows before and after a statement. plpgsql keeps the plan of its first call, and with
-- one row that was a nested loop, which reads the rows of a large statement once for each of its rows. Groups are hashed, however
-- many rows there are.
CREATE OR REPLACE FUNCTION delivery_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tally t SET
        waiting = t.waiting + c.waiting, waiting_bytes = t.waiting_bytes + c.waiting_bytes,
        parked = t.parked + c.parked, postponed = t.postponed + c.postponed,
        acknowledged = t.acknowledged + c.acknowledged,
        acknowledged_bytes = t.acknowledged_bytes + c.acknowledged_bytes,
        acknowledged_at = coalesce(c.acknowledged_at, t.acknowledged_at), expired = t.expired + c.expired
    FROM (
        SELECT s.vessel, v.directory, sum(s.waiting)::bigint AS waiting,
            sum(s.waiting * greatest(v.size, 0))::bigint AS waiting_bytes, sum(s.parked)::bigint AS parked,
            sum(s.postponed)::bigint AS postponed, sum(s.acknowledged)::bigint AS acknowledged,
            sum(s.acknowledged * greatest(v.size, 0))::bigint AS acknowledged_bytes,
            max(s.acknowledged_at) AS acknowledged_at, sum(s.expired)::bigint AS expired
        FROM (
            SELECT d.version, d.vessel, sum(d.sign * is_open::int) AS waiting, sum(d.sign * d.parked::int) AS parked,
                sum(d.sign * (is_open AND d.failures > 0 AND NOT d.parked)::int) AS postponed,
                sum(d.sign * is_acknowledged::int) AS acknowledged,
                CASE WHEN sum(d.sign * is_acknowledged::int) > 0 THEN max(d.acknowledged_at) END AS acknowledged_at,
                sum(d.sign * (d.expired_at IS NOT NULL)::int) AS expired
            FROM (
                SELECT 1 AS sign, id, version, vessel, state, parked, failures, acknowledged_at, expired_at FROM after
                UNION ALL
                SELECT -1, id, version, vessel, state, parked, failures, NULL, expired_at FROM before) d,
                LATERAL (SELECT d.state NOT IN ('acknowledged', 'superseded') AS is_open,
                    d.state = 'acknowledged' AS is_acknowledged) w
            GROUP BY d.id, d.version, d.vessel) s,
            LATERAL (SELECT directory, size FROM version WHERE id = s.version OFFSET 0) v
        WHERE (s.waiting, s.parked, s.postponed, s.acknowledged, s.expired) <> (0, 0, 0, 0, 0)
        GROUP BY s.vessel, v.directory) c
    WHERE t.vessel = c.vessel AND t.directory = c.directory;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION version_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE directory_tally t SET waiting = t.waiting + c.waiting, waiting_bytes = t.waiting_bytes + c.waiting_bytes
    FROM (
        SELECT v.directory, sum(v.sign)::bigint AS waiting, sum(v.sign * greatest(v.size, 0))::bigint AS waiting_bytes
        FROM (
            SELECT 1 AS sign, directory, size FROM after WHERE NOT complete AND ended_at IS NULL AND forgotten_at IS NULL
            UNION ALL
            SELECT -1, directory, size FROM before WHERE NOT complete AND ended_at IS NULL AND forgotten_at IS NULL) v
        GROUP BY v.directory) c
    WHERE t.directory = c.directory AND (c.waiting, c.waiting_bytes) <> (0, 0);
    INSERT INTO retired_tally AS t (directory, quarter, files, bytes)
    SELECT n.directory, n.ended_at / 900000, count(*), sum(greatest(n.size, 0))::bigint
    FROM after n
    WHERE n.ending = 'retired' AND n.ended_at IS NOT NULL
      AND n.id NOT IN (SELECT id FROM before WHERE ended_at IS NOT NULL)
    GROUP BY n.directory, n.ended_at / 900000
    ON CONFLICT (directory, quarter) DO UPDATE SET files = t.files + excluded.files, bytes = t.bytes + excluded.bytes;
    RETURN NULL;
END $$;
