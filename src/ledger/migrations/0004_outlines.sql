-- The outlines of large files that were delivered: where content-defined cutting cuts them, and the hash of each stretch.
-- They tell what of a file that a vessel holds can stay when it changes. Kept of the versions that vessels hold.
CREATE TABLE outline (
    directory TEXT    NOT NULL,
    path      BLOB    NOT NULL,
    version   INTEGER NOT NULL REFERENCES version (id) ON DELETE CASCADE,
    outline   BLOB    NOT NULL,
    PRIMARY KEY (directory, path, version)
) STRICT;

CREATE INDEX outline_version ON outline (version);
