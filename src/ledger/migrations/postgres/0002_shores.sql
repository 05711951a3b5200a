-- Several shores over one ledger. The row `shore NAME` is the lease of a running program, which renews it. Rows such as
-- `vessel NAME`, `directory NAME` and `housekeeping` say which shore does what; they last as long as the lease of their
-- shore. The row `ledger` is the lease of a program that uses the ledger alone.
ALTER TABLE lease
    ADD COLUMN shore   bigint, -- of a row of work: the token of the shore that has it; NULL: nobody has it
    ADD COLUMN serves  text[], -- of the row of a shore: the work that it may be given
    ADD COLUMN latency bigint; -- of the row of a shore: how long its last renewal took, in microseconds

-- Transactions of several shores that write run one after the other, as those of one shore do: the lock is exclusive, and
-- is released after the commit. Each statement of the functions and of the transaction sees all that was committed before.
CREATE OR REPLACE FUNCTION fence(lease_name text, held bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7165391842);
    IF NOT EXISTS (SELECT 1 FROM lease WHERE name = lease_name AND token = held) THEN
        RAISE EXCEPTION 'another contentmonster has taken over the ledger' USING ERRCODE = 'CM001';
    END IF;
    RETURN pg_current_xact_id()::text::bigint;
END $$;

-- Like `fence`, and returns which of the acquisitions of work have ended.
CREATE FUNCTION fence_work(lease_name text, held bigint, work text[], tokens bigint[], OUT number bigint, OUT lost text[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    number := fence(lease_name, held);
    lost := ARRAY(
        SELECT w.name || ' ' || w.token FROM unnest(work, tokens) w (name, token)
        WHERE NOT EXISTS (SELECT 1 FROM lease l WHERE l.name = w.name AND l.token = w.token AND l.shore = held));
END $$;
