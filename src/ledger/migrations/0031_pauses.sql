-- When a paused vessel is resumed by itself, and the note of the person who paused it.
ALTER TABLE vessel ADD COLUMN paused_until INTEGER;
ALTER TABLE vessel ADD COLUMN pause_note TEXT;
