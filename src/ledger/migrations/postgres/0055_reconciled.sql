-- Directories whose deliveries fit the settings, so that a start need not go through all of them.
CREATE TABLE reconciled (
    directory text    COLLATE "C" PRIMARY KEY,
    vessels   text    COLLATE "C" NOT NULL, -- the vessels that take the directory, sorted, as a JSON array
    settled   boolean NOT NULL DEFAULT false -- false: not every delivery fits yet
);
