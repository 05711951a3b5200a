-- Directories whose deliveries fit the settings, so that a start need not go through all of them.
CREATE TABLE reconciled (
    directory TEXT    PRIMARY KEY,
    vessels   TEXT    NOT NULL, -- the vessels that take the directory, sorted, as a JSON array
    settled   INTEGER NOT NULL DEFAULT 0 -- 0: not every delivery fits yet
) STRICT, WITHOUT ROWID;
