-- What was mounted in and below each mirror's Location when its files were last seen whole: a file system that is missing, or
-- another one, at the next look is a mishap and no deletion. `path` lies below the Location; empty: the Location itself.
CREATE TABLE mount (
    directory   TEXT    NOT NULL,
    path        BLOB    NOT NULL,
    file_system BLOB    NOT NULL, -- its type, such as ext4
    source      BLOB    NOT NULL, -- what is mounted, such as /dev/sda1
    within      BLOB    NOT NULL, -- where the path lies in that file system; empty: behind a link, where that doesn't matter
    fsid        INTEGER NOT NULL, -- the file system's own number; 0: it has none
    PRIMARY KEY (directory, path)
) STRICT, WITHOUT ROWID;
