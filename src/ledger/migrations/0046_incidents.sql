-- Troubles that commands and webhooks were told of, until they are told that the trouble is over.
CREATE TABLE incident (
    kind    TEXT    NOT NULL, -- such as 'vessel-away'
    subject TEXT    NOT NULL, -- the vessel or the directory; empty: the shore
    since   INTEGER NOT NULL,
    reason  TEXT    NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
