-- Some blocks of each signature, by the beginning of their hashes: they tell which other files of a directory have blocks of a
-- new one. Kept of the newest signatures of a directory.
CREATE TABLE outline_sample (
    block   bigint NOT NULL,
    version bigint NOT NULL REFERENCES outline (version) ON DELETE CASCADE,
    PRIMARY KEY (block, version)
);
CREATE INDEX outline_sample_version ON outline_sample (version);
CREATE INDEX outline_newest ON outline (directory, version);

-- Bytes of the file that the vessel moved or copied from made_from. NULL: none, or all of them in an older ledger.
ALTER TABLE delivery ADD COLUMN saved_bytes bigint;
