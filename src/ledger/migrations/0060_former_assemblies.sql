-- Names of assemblies that belong to an earlier acquisition of a vessel by one of several shores. Only a ledger in PostgreSQL
-- has several shores; a copy of it in a file takes over what they have left.
CREATE TABLE former_assembly (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    vessel   TEXT    NOT NULL,
    delivery INTEGER NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
    token    INTEGER           -- as in delivery
) STRICT;

CREATE INDEX former_assembly_vessel ON former_assembly (vessel, id);
CREATE INDEX former_assembly_delivery ON former_assembly (delivery);
