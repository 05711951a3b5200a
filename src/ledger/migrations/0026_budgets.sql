-- The highest share of each budget that was told to commands and webhooks, so that each is told once in a period.
CREATE TABLE budget_told (
    payer     TEXT    NOT NULL, -- 'link ' or 'vessel ', and the name
    period    TEXT    NOT NULL, -- 'day' or 'month'
    first_day INTEGER NOT NULL, -- of the period, in days since 1970
    percent   INTEGER NOT NULL,
    PRIMARY KEY (payer, period)
) STRICT, WITHOUT ROWID;

-- Up to how many bytes a payer with a budget may have used on a day, written before they are sent. It counts after a crash,
-- which loses the last bytes of link_bytes; an ordinary end removes it.
CREATE TABLE budget_ceiling (
    payer TEXT    NOT NULL,
    day   INTEGER NOT NULL, -- days since 1970
    bytes INTEGER NOT NULL,
    PRIMARY KEY (payer, day)
) STRICT, WITHOUT ROWID;
