-- What a version is of: 'file', 'directory', 'link' or 'gone' (what the vessels hold of it is to be deleted).
ALTER TABLE version ADD COLUMN kind TEXT NOT NULL DEFAULT 'file';
ALTER TABLE version ADD COLUMN target BLOB NOT NULL DEFAULT x''; -- where a link leads
ALTER TABLE version ADD COLUMN uid INTEGER; -- NULL: owner and group are left to the vessel
ALTER TABLE version ADD COLUMN gid INTEGER;
-- The version that the path held before, which vessels may still hold: only that may be deleted there.
ALTER TABLE version ADD COLUMN replaces INTEGER;
