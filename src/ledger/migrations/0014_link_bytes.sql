-- The bytes that went over the link to each vessel on each day in UTC, which budgets are compared with. The day comes first:
-- sums are asked for by days, and old days are removed together.
CREATE TABLE link_bytes (
    day      INTEGER NOT NULL, -- days since 1970
    vessel   TEXT    NOT NULL,
    sent     INTEGER NOT NULL, -- with resent bytes and the estimated headers
    received INTEGER NOT NULL,
    resent   INTEGER NOT NULL,
    PRIMARY KEY (day, vessel)
) STRICT, WITHOUT ROWID;

-- What a delivery has cost, all attempts together. NULL: it was not counted.
ALTER TABLE delivery ADD COLUMN written_bytes INTEGER; -- of the file, those written again included
ALTER TABLE delivery ADD COLUMN link_bytes    INTEGER; -- its share of the bytes on the link, in both directions
