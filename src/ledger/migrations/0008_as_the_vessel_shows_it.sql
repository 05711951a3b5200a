-- What a delivered file looks like on its vessel, where it doesn't look as its source does: a server may keep no times, or
-- its own. NULL: as its source.
ALTER TABLE delivery ADD COLUMN seen_size INTEGER;
ALTER TABLE delivery ADD COLUMN seen_mtime INTEGER;
