-- What is still to be told to commands and webhooks, one row for each of them: entered together with what it tells of, and
-- removed once it was told. Nothing is entered where nobody listens.
CREATE TABLE notice (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT    NOT NULL, -- who is told
    event   TEXT    NOT NULL, -- 'delivered', 'retired' or 'parked'
    version INTEGER NOT NULL,
    vessel  TEXT,             -- NULL: it concerns all
    reason  TEXT,             -- why it is parked
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX notice_channel ON notice (channel, id);
CREATE INDEX notice_version ON notice (version);

-- The reason that was told when the delivery was parked: each is told once, however often the delivery is tried.
ALTER TABLE delivery ADD COLUMN told TEXT;

-- What a retired source is called in processed/, where its own name was taken there; NULL: as it was called before.
ALTER TABLE version ADD COLUMN processed BLOB;

-- What replaced a version: asked for when the version is forgotten.
CREATE INDEX version_replaces ON version (replaces) WHERE replaces IS NOT NULL;
