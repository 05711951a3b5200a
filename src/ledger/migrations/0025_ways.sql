-- The bytes that went over each way to a vessel on each day in UTC, for vessels with several ways or with a link. They are
-- also part of the vessel's sums in link_bytes.
CREATE TABLE way_bytes (
    day      INTEGER NOT NULL, -- days since 1970
    vessel   TEXT    NOT NULL,
    way      TEXT    NOT NULL, -- the name of the link, or the address
    sent     INTEGER NOT NULL, -- with resent bytes and the estimated headers
    received INTEGER NOT NULL,
    resent   INTEGER NOT NULL,
    PRIMARY KEY (day, vessel, way)
) STRICT, WITHOUT ROWID;
