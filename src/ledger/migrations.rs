//! The migrations, embedded in the program. Each text must stay equal to its file, byte for byte, because every ledger
//! stores the checksums of its migrations.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Makes an array of names and texts of files in a directory below `src/ledger/`, in the order of their numbers.
macro_rules! migrations {
    ($directory:literal: $($name:literal)+) => {
        [$(($name, include_str!(concat!($directory, "/", $name, ".sql")))),+]
    };
}

const SQLITE: [(&str, &str); 24] = migrations! { "migrations":
    "0001_versions_and_deliveries"
    "0002_hashed_on_the_way"
    "0003_mirrors"
    "0004_outlines"
    "0005_operating"
    "0006_telling"
    "0007_places"
    "0008_as_the_vessel_shows_it"
    "0009_manners"
    "0011_mounts"
    "0012_no_assembling"
    "0013_paths"
    "0014_link_bytes"
    "0020_queues"
    "0025_ways"
    "0026_budgets"
    "0030_postponed"
    "0031_pauses"
    "0035_moves"
    "0045_paused_directories"
    "0046_incidents"
    "0050_blocks_of_other_files"
    "0055_reconciled"
    "0060_former_assemblies"
};

const POSTGRESQL: [(&str, &str); 6] = migrations! { "migrations/postgres":
    "0001_ledger"
    "0002_shores"
    "0050_blocks_of_other_files"
    "0055_reconciled"
    "0060_former_assemblies"
    "0065_sums_by_groups"
};

/// Returns the migrations of an SQLite file.
pub(super) fn of_sqlite() -> Migrator {
    migrator(&SQLITE)
}

/// Returns the migrations of a PostgreSQL database.
pub(super) fn of_postgresql() -> Migrator {
    migrator(&POSTGRESQL)
}

fn migrator(files: &[(&str, &'static str)]) -> Migrator {
    let migration = |&(name, text): &(&str, &'static str)| {
        let (number, words) = name.split_once('_')?;
        let sql = text.into_sql_str();
        Some(Migration::new(number.parse().ok()?, words.replace('_', " ").into(), MigrationType::Simple, sql, false))
    };
    Migrator::with_migrations(files.iter().filter_map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_a_migration_is_embedded() {
        for (directory, embedded, migrator) in [
            ("src/ledger/migrations", &SQLITE[..], of_sqlite()),
            ("src/ledger/migrations/postgres", &POSTGRESQL[..], of_postgresql()),
        ] {
            let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap();
            let names =
                files.filter_map(|file| file.unwrap().file_name().to_str()?.strip_suffix(".sql").map(str::to_owned));
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(embedded.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names, "{directory}");
            assert_eq!(migrator.iter().len(), names.len(), "{directory}");
        }
        let first = &of_sqlite().migrations[0];
        assert_eq!((first.version, &*first.description), (1, "versions and deliveries"));
    }
}
