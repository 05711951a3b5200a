-- The version of another path that an entry was before it was moved, by its inode, size and time: a hint, which the digest
-- decides. NULL: the entry is new, or a file was changed.
ALTER TABLE version ADD COLUMN moved_from INTEGER;
-- The version of the directory above, which is delivered first, because it may be moved with everything in it.
ALTER TABLE version ADD COLUMN waits_for INTEGER;

CREATE INDEX version_moved_from ON version (moved_from) WHERE moved_from IS NOT NULL;
-- Finds what has, or had, the same inode, time and size.
CREATE INDEX version_stamp ON version (inode, mtime, size) WHERE kind <> 'gone';
-- Finds files with the same content, or of the same size where the content is not known yet. Smaller files are sent sooner
-- than copied.
CREATE INDEX version_digest ON version (digest) WHERE kind = 'file' AND size >= 1048576;
CREATE INDEX version_size ON version (size) WHERE kind = 'file' AND size >= 1048576;

-- The file on the vessel that was moved or copied to make this one, as directory/path; NULL: the file was sent.
ALTER TABLE delivery ADD COLUMN made_from BLOB;
