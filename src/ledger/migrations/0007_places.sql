-- Where on its vessel a directory goes. Each further place has a higher number: a delivery to an earlier one is not there.
CREATE TABLE place (
    vessel    TEXT    NOT NULL,
    directory TEXT    NOT NULL,
    location  BLOB    NOT NULL,
    number    INTEGER NOT NULL DEFAULT 0,
    settled   INTEGER NOT NULL DEFAULT 0, -- 0: not every delivery was entered anew for this place yet
    PRIMARY KEY (vessel, directory)
) STRICT, WITHOUT ROWID;

-- The host that a vessel's name stood for when it was last connected to. No row: it was not connected to since this table
-- was made, and is the host that everything went to.
CREATE TABLE host (
    vessel  TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    account TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The keys that it has shown, one of each algorithm.
CREATE TABLE host_key (
    vessel      TEXT NOT NULL,
    algorithm   TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (vessel, algorithm)
) STRICT, WITHOUT ROWID;

-- The number of the place that a delivery goes or went to. What was entered before there were numbers went to the first.
ALTER TABLE delivery ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
