//! The tables of a ledger. Both stores have them with the same names and columns.

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    /// A flag: the number 0 or 1 in SQLite, a boolean in PostgreSQL.
    Flag,
    Text,
    Bytes,
    /// The rank in a queue. Each store represents ranks in its own way, so only the fact that a delivery has a rank is
    /// copied, not the rank itself.
    Rank,
}

/// A table of a ledger.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The columns that identify a row. Rows are read and compared in the order of these columns.
    pub(super) order: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// Whether the rows have numbers that are never reused, even after a row was deleted.
    pub(super) numbered: bool,
}

use Kind::{Bytes, Flag, Number, Rank, Text};

const fn table(name: &'static str, order: &'static str, columns: &'static [(&'static str, Kind)]) -> Table {
    Table { name, order, columns, numbered: false }
}

const fn numbered(name: &'static str, columns: &'static [(&'static str, Kind)]) -> Table {
    Table { name, order: "id", columns, numbered: true }
}

const LINK_BYTES: &[(&str, Kind)] =
    &[("day", Number), ("vessel", Text), ("sent", Number), ("received", Number), ("resent", Number)];

/// The tables, each after the tables that it refers to. The sums, which triggers maintain, come last: the copied sums
/// replace those that the triggers counted while the rows were copied.
pub(super) const TABLES: &[Table] = &[
    table("instance", "id", &[("id", Text)]),
    table("queue", "directory", &[("directory", Text), ("ordering", Text), ("expire", Number), ("settled", Flag)]),
    numbered(
        "version",
        &[
            ("id", Number),
            ("directory", Text),
            ("path", Bytes),
            ("size", Number),
            ("mtime", Number),
            ("mtime_nanos", Number),
            ("inode", Number),
            ("mode", Number),
            ("digest", Bytes),
            ("chunk_size", Number),
            ("kind", Text),
            ("target", Bytes),
            ("uid", Number),
            ("gid", Number),
            ("replaces", Number),
            ("admitted_at", Number),
            ("complete", Flag),
            ("ended_at", Number),
            ("ending", Text),
            ("forgotten_at", Number),
            ("processed", Bytes),
            ("moved_from", Number),
            ("waits_for", Number),
        ],
    ),
    numbered(
        "delivery",
        &[
            ("id", Number),
            ("version", Number),
            ("vessel", Text),
            ("large", Flag),
            ("state", Text),
            ("failures", Number),
            ("due_at", Number),
            ("reason", Text),
            ("told", Text),
            ("parked", Flag),
            ("touched", Flag),
            ("acknowledged_at", Number),
            ("verified", Text),
            ("place", Number),
            ("seen_size", Number),
            ("seen_mtime", Number),
            ("token", Number),
            ("written_bytes", Number),
            ("link_bytes", Number),
            ("queue", Text),
            ("rank", Rank),
            ("expires_at", Number),
            ("expired_at", Number),
            ("made_from", Bytes),
            ("saved_bytes", Number),
        ],
    ),
    numbered("former_assembly", &[("id", Number), ("vessel", Text), ("delivery", Number), ("token", Number)]),
    table("outline", "version", &[("version", Number), ("directory", Text), ("path", Bytes), ("outline", Bytes)]),
    table("outline_sample", "block, version", &[("block", Number), ("version", Number)]),
    table(
        "vessel",
        "name",
        &[
            ("name", Text),
            ("paused_at", Number),
            ("paused_until", Number),
            ("pause_note", Text),
            ("away_at", Number),
            ("away_reason", Text),
            ("shell_refused_at", Number),
            ("shell_refusal", Text),
            ("path_at", Number),
            ("path_rate", Number),
            ("path_round_trip", Number),
        ],
    ),
    table(
        "paused_directory",
        "directory",
        &[("directory", Text), ("paused_at", Number), ("until", Number), ("note", Text)],
    ),
    table("incident", "kind, subject", &[("kind", Text), ("subject", Text), ("since", Number), ("reason", Text)]),
    numbered(
        "notice",
        &[
            ("id", Number),
            ("channel", Text),
            ("event", Text),
            ("version", Number),
            ("vessel", Text),
            ("reason", Text),
            ("at", Number),
        ],
    ),
    table(
        "place",
        "vessel, directory",
        &[("vessel", Text), ("directory", Text), ("location", Bytes), ("number", Number), ("settled", Flag)],
    ),
    table("reconciled", "directory", &[("directory", Text), ("vessels", Text), ("settled", Flag)]),
    table("host", "vessel", &[("vessel", Text), ("address", Text), ("account", Text)]),
    table("host_key", "vessel, algorithm", &[("vessel", Text), ("algorithm", Text), ("fingerprint", Text)]),
    table(
        "mount",
        "directory, path",
        &[
            ("directory", Text),
            ("path", Bytes),
            ("file_system", Bytes),
            ("source", Bytes),
            ("within", Bytes),
            ("fsid", Number),
        ],
    ),
    table("link_bytes", "day, vessel", LINK_BYTES),
    table(
        "way_bytes",
        "day, vessel, way",
        &[("day", Number), ("vessel", Text), ("way", Text), ("sent", Number), ("received", Number), ("resent", Number)],
    ),
    table(
        "budget_told",
        "payer, period",
        &[("payer", Text), ("period", Text), ("first_day", Number), ("percent", Number)],
    ),
    table("budget_ceiling", "payer, day", &[("payer", Text), ("day", Number), ("bytes", Number)]),
    table(
        "tally",
        "vessel, directory",
        &[
            ("vessel", Text),
            ("directory", Text),
            ("waiting", Number),
            ("waiting_bytes", Number),
            ("parked", Number),
            ("postponed", Number),
            ("acknowledged", Number),
            ("acknowledged_bytes", Number),
            ("acknowledged_at", Number),
            ("expired", Number),
        ],
    ),
    table("directory_tally", "directory", &[("directory", Text), ("waiting", Number), ("waiting_bytes", Number)]),
    table(
        "retired_tally",
        "directory, quarter",
        &[("directory", Text), ("quarter", Number), ("files", Number), ("bytes", Number)],
    ),
];
