-- What a vessel's server was found to do, so that it isn't tried again and again.
ALTER TABLE vessel ADD COLUMN shell_refused_at INTEGER; -- NULL: its shell is used, or wasn't asked for yet
ALTER TABLE vessel ADD COLUMN shell_refusal TEXT;       -- why its shell can't be used

-- A random part of the names that a delivery's files have on the vessel: nobody there can guess them. NULL: they are named
-- as before there were any.
ALTER TABLE delivery ADD COLUMN token INTEGER;
