-- What a vessel's path carried in an earlier session, so that the next one need not find it out again.
ALTER TABLE vessel ADD COLUMN path_at INTEGER;         -- when it was measured; NULL: never
ALTER TABLE vessel ADD COLUMN path_rate INTEGER;       -- bytes per second
ALTER TABLE vessel ADD COLUMN path_round_trip INTEGER; -- microseconds
