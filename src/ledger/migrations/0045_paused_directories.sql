-- Directories whose files are sent to no vessel until a person, or the time, ends the pause.
CREATE TABLE paused_directory (
    directory TEXT    PRIMARY KEY,
    paused_at INTEGER NOT NULL,
    until     INTEGER,           -- NULL: until a person ends it
    note      TEXT               -- of the person who paused it
) STRICT, WITHOUT ROWID;
