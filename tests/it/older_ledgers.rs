//! Ledgers that earlier versions of the program wrote: each is copied, upgraded, and used from then on.
//!
//! `tests/ledgers/schema-N.sqlite3.zst` was written by the last commit whose newest migration was N, compressed with zstd.
//! The program had delivered `in/first` and `in/second` to the vessel `tern` and retired them; `in/waiting` (with the content
//! `waiting`) was queued, and `tern` was away. A release whose schema differs from that of the release before adds its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fleet::Fleet;

/// The ledgers in the tree, with the number of each schema.
fn ledgers() -> Vec<(u32, PathBuf)> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledgers");
    let number = |path: &Path| -> Option<u32> {
        path.file_name()?.to_str()?.strip_prefix("schema-")?.strip_suffix(".sqlite3.zst")?.parse().ok()
    };
    let files = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let mut ledgers: Vec<_> = files.map(|path| (number(&path).expect("a name as above"), path)).collect();
    ledgers.sort();
    ledgers
}

/// Puts a ledger into the place of the fleet's.
fn place(fleet: &Fleet, bytes: &[u8]) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(fleet.path(format!("database.sqlite3{suffix}")));
    }
    fs::write(fleet.path("database.sqlite3"), bytes).unwrap();
}

fn newest_migration() -> u32 {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/migrations");
    let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // Beside the files is the directory of the migrations for PostgreSQL.
    let names = names.filter(|name| name.ends_with(".sql"));
    names.map(|name| name[..4].parse().unwrap()).max().unwrap()
}

#[test]
fn a_ledger_of_every_earlier_version_is_copied_upgraded_and_used() {
    let newest = newest_migration();
    for (schema, file) in ledgers() {
        let Some(fleet) = Fleet::new().openssh("tern").start() else { return };
        let bytes = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
        place(&fleet, &bytes);
        let copy = fleet.path(format!("database.sqlite3.schema-{schema}"));
        if schema < newest {
            let looked = fleet.call(&["receipts"], "");
            assert_eq!(looked.code, Some(4), "schema {schema}: {looked:?}");
            looked.must_say(&["older contentmonster", "start this contentmonster once"]);
            assert!(!copy.exists(), "schema {schema}: what only looks changes nothing");
        }
        upgrade(&fleet, schema, "waiting");
        assert_eq!(copy.exists(), schema < newest, "schema {schema}");
        if schema == newest {
            continue;
        }
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        // The way back: the copy takes the ledger's place. Here, the same program upgrades it once more.
        fs::remove_file(fleet.retired("waiting")).unwrap();
        place(&fleet, &fs::read(&copy).unwrap());
        upgrade(&fleet, schema, "waiting");
    }
}

/// Starts the program once: it delivers what the ledger knows to be waiting, and keeps what it knew.
fn upgrade(fleet: &Fleet, schema: u32, waiting: &str) {
    fleet.put(waiting, b"waiting");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "schema {schema}: {ended:?}");
    if schema < newest_migration() {
        ended.must_say(&["Copying it before the upgrade", &format!("database.sqlite3.schema-{schema}")]);
    } else {
        assert!(!ended.says(&["upgrade"]), "{ended:?}");
    }
    fleet.assert_equal("tern", waiting, b"waiting");
    let receipts = fleet.call(&["receipts", "--json"], "");
    for name in ["first", "second", waiting] {
        let count = receipts.stdout.lines().filter(|line| line.contains(&format!("\"{name}\""))).count();
        assert_eq!(count, 1, "schema {schema}: {name}: {receipts:?}");
    }
    let why = fleet.call(&["why", "in/first"], "");
    assert_eq!(why.code, Some(0), "schema {schema}: {why:?}");
    why.must_say(&["tern"]);
}
