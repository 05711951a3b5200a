-- Some blocks of each signature, by the beginning of their hashes: they tell which other files of a directory have blocks of a
-- new one. Kept of the newest signatures of a directory.
CREATE TABLE outline_sample (
    block   INTEGER NOT NULL,
    version INTEGER NOT NULL REFERENCES version (id) ON DELETE CASCADE,
    PRIMARY KEY (block, version)
) STRICT, WITHOUT ROWID;

CREATE INDEX outline_sample_version ON outline_sample (version);
CREATE INDEX outline_newest ON outline (directory, version);

CREATE TRIGGER outline_dropped AFTER DELETE ON outline
BEGIN
    DELETE FROM outline_sample WHERE version = OLD.version;
END;

-- Bytes of the file that the vessel moved or copied from made_from. NULL: none, or all of them in an older ledger.
ALTER TABLE delivery ADD COLUMN saved_bytes INTEGER;
