//! What a vessel has already is not sent again: moved files and trees are renamed there, equal files are copied.

mod churn;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use rstest::rstest;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::plan::{FleetPlan, Kind};
use crate::fleet::tree::{differences, tree};
use crate::fleet::wait::wait_until;
use crate::mirror::{mirror, wait_until_equal};

/// Bytes that a move or a copy may cost, both directions together.
const LITTLE: u64 = 128 << 10;

fn moving() -> FleetPlan {
    mirror().key("Recursive", "yes").key("Delete", "yes").key("MaxDelete", "1").key("SettleTime", "200ms")
}

/// A vessel of a kind on a link that counts.
fn counted(plan: FleetPlan, kind: Kind) -> FleetPlan {
    plan.monster("ChunkSize", "2 MiB").vessel("tern", kind).key("Connections", "1").proxied()
}

/// Bytes that went over the link of `tern`, both directions, while this was done.
#[track_caller]
fn cost(fleet: &Fleet, act: impl FnOnce()) -> u64 {
    let link = fleet.vessel("tern").link();
    let before = link.sent() + link.received();
    act();
    settle(fleet);
    let cost = link.sent() + link.received() - before;
    println!("{cost} bytes");
    cost
}

/// Waits until a vessel has the tree and everything is acknowledged.
#[track_caller]
fn settle(fleet: &Fleet) {
    wait_until_equal(fleet, "tern");
    wait_until("everything to be acknowledged", || {
        let status = fleet.call(&["status", "--json"], "").stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["vessels"][0]["backlog"]["files"] == 0
    });
}

fn receipts(fleet: &Fleet) -> String {
    fleet.call(&["receipts"], "").stdout
}

#[rstest]
fn a_moved_file_is_renamed_on_the_vessel(
    #[values(Kind::OpenSsh, Kind::Dropbear, Kind::SftpOnly)] kind: Kind,
    #[values(300_000, 5 * MIB)] size: usize,
) {
    let Some(fleet) = counted(moving(), kind).start() else { return };
    fleet.put("keep", b"keep");
    fleet.put("old", &content(1, size));
    let daemon = fleet.run();
    settle(&fleet);
    let inode = |name: &str| {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(fleet.vessel("tern").path("in").join(name)).unwrap())
    };
    let before = inode("old");
    fs::create_dir(fleet.source("sub")).unwrap();
    let cost = cost(&fleet, || fs::rename(fleet.source("old"), fleet.source("sub/new name")).unwrap());
    assert!(cost < LITTLE, "{cost} bytes");
    assert_eq!(inode("sub/new name"), before, "it is the same file");
    let receipts = receipts(&fleet);
    assert!(receipts.contains("moved on the vessel from in/old"), "{receipts}");
    fleet.call(&["why", "in/sub/new name"], "").must_say(&["moved on the vessel from in/old"]);
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[test]
fn a_file_that_was_moved_while_the_program_was_off_is_renamed() {
    let Some(fleet) = counted(moving(), Kind::OpenSsh).start() else { return };
    fleet.put("keep", b"keep");
    fleet.put("old", &content(1, 5 * MIB));
    assert_eq!(fleet.once().code, Some(0));
    fs::rename(fleet.source("old"), fleet.source("new")).unwrap();
    let simulated = fleet.call(&["--simulate"], "");
    simulated.must_say(&["rename on tern", "in/old to", "in/new"]);
    assert!(!simulated.says(&["delete"]) && !simulated.says(&["send"]), "{simulated:?}");
    let link = fleet.vessel("tern").link();
    let before = link.sent();
    assert_eq!(fleet.once().code, Some(0));
    settle(&fleet);
    assert!(link.sent() - before < LITTLE);
    assert!(receipts(&fleet).contains("moved on the vessel from in/old"));
}

/// Fills a tree of directories with small files, links and an empty directory.
fn plant(root: &Path, directories: usize, files: usize) {
    for n in 0..directories {
        let at = root.join(format!("d{}/e{n}", n % 7));
        fs::create_dir_all(&at).unwrap();
        (0..files)
            .for_each(|file| fs::write(at.join(format!("f{file}")), content((n * files + file) as u64, 2000)).unwrap());
    }
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("large"), content(9, 3 * MIB)).unwrap();
    symlink("f0", root.join("link")).unwrap();
}

#[rstest]
fn a_moved_tree_is_renamed_in_one_step(#[values(Kind::OpenSsh, Kind::Dropbear, Kind::SftpOnly)] kind: Kind) {
    let Some(fleet) = counted(moving().key("Links", "copy"), kind).start() else { return };
    fleet.put("keep", b"keep");
    plant(&fleet.source("old"), 20, 10);
    let daemon = fleet.run();
    settle(&fleet);
    fs::create_dir(fleet.source("sub")).unwrap();
    let cost = cost(&fleet, || fs::rename(fleet.source("old"), fleet.source("sub/new")).unwrap());
    assert!(cost < LITTLE, "{cost} bytes");
    daemon.wait_for_log(&["Moved the directory on the vessel", "entries=231"]);
    assert!(receipts(&fleet).contains("moved on the vessel from in/old/d0/e0/f0"));
    fs::write(fleet.source("sub/new/d0/e0/f0"), b"changed later").unwrap();
    settle(&fleet);
    fs::remove_file(fleet.source("sub/new/d0/e0/f1")).unwrap();
    settle(&fleet);
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[test]
fn a_tree_that_was_moved_while_the_program_was_off_is_renamed() {
    let Some(fleet) = counted(moving().key("Links", "copy"), Kind::OpenSsh).start() else { return };
    fleet.put("keep", b"keep");
    plant(&fleet.source("old"), 10, 5);
    assert_eq!(fleet.once().code, Some(0));
    fs::rename(fleet.source("old"), fleet.source("new")).unwrap();
    let simulated = fleet.call(&["--simulate"], "");
    simulated.must_say(&["rename on tern", "in/old to", "in/new"]);
    assert!(!simulated.says(&["delete"]) && !simulated.says(&["send"]), "{simulated:?}");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.says(&["Moved the directory on the vessel"]), "{ended:?}");
    settle(&fleet);
}

/// What a consumer put into a directory stays there, and what it changed is not moved.
#[test]
fn a_tree_with_files_of_others_is_moved_one_by_one() {
    let Some(fleet) = counted(moving().key("Links", "copy"), Kind::OpenSsh).start() else { return };
    fleet.put("keep", b"keep");
    plant(&fleet.source("old"), 3, 5);
    let daemon = fleet.run();
    settle(&fleet);
    let there = fleet.vessel("tern").path("in");
    fs::write(there.join("old/d0/e0/theirs"), b"not delivered from here").unwrap();
    fs::write(there.join("old/d1/e1/f0"), b"changed there").unwrap();
    fs::rename(fleet.source("old"), fleet.source("new")).unwrap();
    wait_until("the new tree to be there", || {
        differences(&tree(&fleet.source("new")), &tree(&there.join("new"))).is_empty()
    });
    wait_until("the old tree to go", || !there.join("old/d2").exists() && !there.join("old/d0/e0/f0").exists());
    assert_eq!(fs::read(there.join("old/d0/e0/theirs")).unwrap(), b"not delivered from here");
    assert_eq!(fs::read(there.join("old/d1/e1/f0")).unwrap(), b"changed there");
    daemon.terminate();
}

/// On a long path, the attributes of all directories of a tree are read at once.
#[rstest]
fn a_tree_on_a_long_path_is_moved_in_one_step_unless_a_directory_was_replaced(
    #[values(Kind::OpenSsh, Kind::Dropbear, Kind::SftpOnly)] kind: Kind,
) {
    let Some(fleet) = counted(moving().key("Links", "copy"), kind).start() else { return };
    fleet.vessel("tern").link().lengthen(40);
    fleet.put("keep", b"keep");
    plant(&fleet.source("old"), 8, 2);
    let deepest = fleet.source("old/a/b/c/d/e/f");
    fs::create_dir_all(&deepest).unwrap();
    fs::write(deepest.join("file"), b"deep").unwrap();
    let daemon = fleet.run();
    settle(&fleet);
    let cost = cost(&fleet, || fs::rename(fleet.source("old"), fleet.source("new")).unwrap());
    assert!(cost < LITTLE, "{cost} bytes");
    daemon.wait_for_log(&["Moved the directory on the vessel", "to=new"]);
    let there = fleet.vessel("tern").path("in");
    fs::remove_dir_all(there.join("new/a/b/c")).unwrap();
    fs::write(there.join("new/a/b/c"), b"not a directory").unwrap();
    fs::rename(fleet.source("new"), fleet.source("newest")).unwrap();
    wait_until("the newest tree to be there", || {
        differences(&tree(&fleet.source("newest")), &tree(&there.join("newest"))).is_empty()
    });
    assert_eq!(fs::read(there.join("new/a/b/c")).unwrap(), b"not a directory");
    daemon.terminate();
}

#[rstest]
fn files_that_swap_their_names_are_not_sent(#[values(Kind::OpenSsh, Kind::SftpOnly)] kind: Kind) {
    let Some(fleet) = counted(moving(), kind).start() else { return };
    let names = ["a", "b", "c"];
    names.iter().zip(1..).for_each(|(name, seed)| fleet.put(name, &content(seed, 5 * MIB)));
    let daemon = fleet.run();
    settle(&fleet);
    let link = fleet.vessel("tern").link();
    let rename = |from: &str, to: &str| fs::rename(fleet.source(from), fleet.source(to)).unwrap();
    let sent = link.sent();
    rename("a", "t.tmp");
    rename("b", "a");
    rename("t.tmp", "b");
    settle(&fleet);
    assert!(link.sent() - sent < LITTLE, "{} bytes for a swap", link.sent() - sent);
    let sent = link.sent();
    rename("a", "t.tmp");
    rename("b", "a");
    rename("c", "b");
    rename("t.tmp", "c");
    settle(&fleet);
    assert!(link.sent() - sent < LITTLE, "{} bytes for a circle", link.sent() - sent);
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[test]
fn a_log_that_is_rotated_costs_what_is_new() {
    let Some(fleet) = counted(moving(), Kind::OpenSsh).start() else { return };
    ["log", "log.1", "log.2"].iter().zip(1..).for_each(|(name, seed)| fleet.put(name, &content(seed, 5 * MIB)));
    let daemon = fleet.run();
    settle(&fleet);
    for turn in 0..3 {
        let cost = cost(&fleet, || {
            ["log.2", "log.1", "log"].into_iter().zip(["log.3", "log.2", "log.1"]).for_each(|(from, to)| {
                fs::rename(fleet.source(from), fleet.source(to)).unwrap();
            });
            fs::write(fleet.source("log"), content(10 + turn, 5 * MIB / 4)).unwrap();
        });
        assert!(cost < (5 * MIB / 4) as u64 + 2 * LITTLE, "{cost} bytes");
    }
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[rstest]
#[case::sftp_copies(Kind::OpenSsh, 5 * MIB, false)]
#[case::one_chunk(Kind::OpenSsh, 3 * MIB / 2, false)]
#[case::a_command_copies(Kind::OpenSsh, 5 * MIB, true)]
#[case::dropbear(Kind::Dropbear, 5 * MIB, false)]
#[case::no_shell(Kind::SftpOnly, 5 * MIB, false)]
fn the_same_file_in_another_directory_is_copied_there(
    #[case] kind: Kind,
    #[case] size: usize,
    #[case] by_command: bool,
) {
    let Some(fleet) = counted(Fleet::new().directory("in").directory("other"), kind).start() else { return };
    if by_command {
        crate::delta::without_copy_data(&fleet);
    }
    let daemon = fleet.run();
    let (bytes, link) = (content(1, size), fleet.vessel("tern").link());
    fleet.put("first", &bytes);
    fleet.wait_until_retired("first");
    let before = link.sent();
    fleet.put("second", &bytes);
    fleet.wait_until_retired("second");
    fleet.put_at(&fleet.path("shore/other/third"), &bytes, 0o600, std::time::SystemTime::now());
    wait_until("the third to retire", || fleet.path("shore/other/processed/third").exists());
    let sent = link.sent() - before;
    assert!(sent < 2 * LITTLE, "{sent} bytes");
    fleet.assert_equal("tern", "second", &bytes);
    assert!(fs::read(fleet.vessel("tern").path("other/third")).unwrap() == bytes);
    let receipts = receipts(&fleet);
    assert!(receipts.contains("copied from in/first") || receipts.contains("copied from in/second"), "{receipts}");
    // One byte differs.
    let mut other = bytes.clone();
    other[size / 3] ^= 1;
    fleet.put("fourth", &other);
    fleet.wait_until_retired("fourth");
    fleet.assert_equal("tern", "fourth", &other);
    assert!(link.sent() - before > size as u64, "other content is sent");
    fleet.wait_until_tidy("tern");
    daemon.terminate();
}

#[test]
fn a_copy_that_somebody_changed_in_secret_is_not_trusted_and_dedup_no_sends_everything() {
    let Some(fleet) = counted(Fleet::new().directory("in"), Kind::OpenSsh).start() else { return };
    let daemon = fleet.run();
    let (bytes, there) = (content(1, 5 * MIB), fleet.vessel("tern").path("in/first"));
    fleet.put("first", &bytes);
    fleet.wait_until_retired("first");
    let modified = fs::metadata(&there).unwrap().modified().unwrap();
    let mut bad = bytes.clone();
    bad[5 * MIB / 3] ^= 1;
    fs::write(&there, bad).unwrap();
    fs::File::options().write(true).open(&there).unwrap().set_modified(modified).unwrap();
    fleet.put("second", &bytes);
    fleet.wait_until_retired("second");
    fleet.assert_equal("tern", "second", &bytes);
    daemon.terminate();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[Directory in]", "[Directory in]\nDedup = no"));
    let daemon = fleet.run();
    let before = fleet.vessel("tern").link().sent();
    fleet.put("third", &bytes);
    fleet.wait_until_retired("third");
    assert!(fleet.vessel("tern").link().sent() - before > 5 * MIB as u64);
    daemon.terminate();
}

/// Moves files and trees, and kills the program again and again.
/// A mirror whose only vessel is the directory `disk` on this host, and a second directory.
fn local_mirror(more: &str) -> Option<Fleet> {
    let fleet = Fleet::new().start()?;
    let directory = |name: &str, more: &str| {
        let (from, to) = (fleet.path("shore").join(name), fleet.path("disk").join(name));
        [&from, &to].into_iter().for_each(|path| fs::create_dir_all(path).unwrap());
        format!(
            "[Directory {name}]\nLocation = {}\nRemoteLocation = {}\nMode = mirror\nSettleTime = 200ms\n{more}\n",
            from.display(),
            to.display()
        )
    };
    let own = directory("in", &format!("Recursive = yes\nDelete = yes\n{more}"));
    fleet.write_settings(&format!(
        "[MONSTER]\nChunkSize = 2 MiB\n{own}{}[Vessel disk]\nAddress = localhost\nTransport = local\n",
        directory("other", "")
    ));
    Some(fleet)
}

#[test]
fn files_and_trees_are_moved_and_copied_on_a_local_target() {
    let Some(fleet) = local_mirror("Links = copy\nMaxDelete = 1") else { return };
    let there = fleet.path("disk");
    let settle = || {
        wait_until("the target to be equal", || {
            differences(&tree(&fleet.path("shore/in")), &tree(&there.join("in"))).is_empty()
        });
    };
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(there.join("in").join(name)).unwrap());
    fleet.put("keep", b"keep");
    let large = content(1, 5 * MIB);
    fleet.put("old", &large);
    plant(&fleet.source("tree"), 5, 3);
    let daemon = fleet.run();
    settle();
    let (file, in_tree) = (inode("old"), inode("tree/d0/e0/f0"));
    fs::rename(fleet.source("old"), fleet.source("new")).unwrap();
    fs::rename(fleet.source("tree"), fleet.source("moved")).unwrap();
    settle();
    assert_eq!((inode("new"), inode("moved/d0/e0/f0")), (file, in_tree), "they are the same files");
    daemon.wait_for_log(&["Moved the directory on the vessel"]);
    fs::write(fleet.path("shore/other/copy"), &large).unwrap();
    wait_until("the copy", || fs::read(there.join("other/copy")).is_ok_and(|bytes| bytes == large));
    wait_until("all receipts", || receipts(&fleet).contains("other/copy"));
    let receipts = receipts(&fleet);
    for said in ["moved on the vessel from in/old", "moved on the vessel from in/tree/d0/e0/f0", "copied from in/new"] {
        assert!(receipts.contains(said), "{said}: {receipts}");
    }
    daemon.terminate();
}

/// A log that its program wrote to after it was renamed.
#[rstest]
#[case::sftp_copies(false)]
#[case::a_command_copies(true)]
fn a_log_that_is_rotated_and_changed_costs_what_is_new(#[case] by_command: bool) {
    // Until the new log is there, its name is a deletion.
    let plan = mirror().key("Recursive", "yes").key("Delete", "yes").key("MaxDelete", "10").key("SettleTime", "200ms");
    let Some(fleet) = counted(plan, Kind::OpenSsh).start() else { return };
    if by_command {
        crate::delta::without_copy_data(&fleet);
    }
    ["log", "log.1"].iter().zip(1..).for_each(|(name, seed)| fleet.put(name, &content(seed, 5 * MIB)));
    let daemon = fleet.run();
    settle(&fleet);
    for turn in 0..2 {
        let cost = cost(&fleet, || {
            fs::rename(fleet.source("log.1"), fleet.source(format!("log.{}", turn + 2))).unwrap();
            fs::rename(fleet.source("log"), fleet.source("log.1")).unwrap();
            let mut log = fs::File::options().append(true).open(fleet.source("log.1")).unwrap();
            std::io::Write::write_all(&mut log, &content(20 + turn, 200_000)).unwrap();
        });
        assert!(cost < 400_000 + 2 * LITTLE, "{cost} bytes");
        fs::write(fleet.source("log"), content(10 + turn, 5 * MIB / 2)).unwrap();
        settle(&fleet);
    }
    let receipts = receipts(&fleet);
    assert!(receipts.contains(", blocks of in/log ("), "{receipts}");
    daemon.terminate();
    fleet.assert_tidy("tern");
}

#[test]
fn a_large_file_that_changes_after_its_tree_was_moved_costs_its_changes() {
    let Some(fleet) = counted(moving().key("Links", "copy"), Kind::OpenSsh).start() else { return };
    fleet.put("keep", b"keep");
    plant(&fleet.source("old"), 3, 3);
    let daemon = fleet.run();
    settle(&fleet);
    fs::rename(fleet.source("old"), fleet.source("new")).unwrap();
    settle(&fleet);
    daemon.wait_for_log(&["Moved the directory on the vessel"]);
    let cost = cost(&fleet, || fs::write(fleet.source("new/large"), content(9, 3 * MIB + 1000)).unwrap());
    assert!(cost < 2 * LITTLE, "{cost} bytes");
    daemon.terminate();
}

/// Measures what moves and copies cost beside `rsync`, in bytes on the link in both directions: with
/// `CONTENTMONSTER_MOVES=1`.
#[test]
fn what_moves_and_copies_cost() {
    if std::env::var_os("CONTENTMONSTER_MOVES").is_none() {
        println!("skipped: CONTENTMONSTER_MOVES is not set");
        return;
    }
    const GIB: usize = 1 << 30;
    let plan = moving().directory("other").key("Mode", "mirror").openssh("tern").proxied();
    let Some(fleet) = plan.start() else { return };
    let large = content(1, GIB);
    fleet.put("large", &large);
    ["a", "b"].iter().zip(2..).for_each(|(name, seed)| fleet.put(name, &content(seed, 64 * MIB)));
    ["log", "log.1"].iter().zip(4..).for_each(|(name, seed)| fleet.put(name, &content(seed, 64 * MIB)));
    for directory in 0..300 {
        let at = fleet.source(format!("tree/{}/{directory}", directory % 20));
        fs::create_dir_all(&at).unwrap();
        let files = 33 + usize::from(directory < 100);
        (0..files).for_each(|file| {
            fs::write(at.join(format!("file-{file}")), content((directory * 40 + file) as u64, 2000)).unwrap()
        });
    }
    let daemon = fleet.run();
    settle(&fleet);
    let rsync = |what: &str| {
        let link = fleet.vessel("tern").link();
        let (before, start) = (link.sent() + link.received(), Instant::now());
        let (key, known) = (fleet.path("home/.ssh/id_ed25519"), fleet.known_hosts());
        let ssh = format!(
            "ssh -p {} -i {} -o UserKnownHostsFile={} -o StrictHostKeyChecking=no",
            link.port(),
            key.display(),
            known.display()
        );
        let there = fleet.vessel("tern").remote("rsynced");
        let status = std::process::Command::new("rsync")
            .args(["-a", "--delete", "-e", &ssh])
            .arg(format!("{}/", fleet.path("shore/in").display()))
            .arg(format!("127.0.0.1:{there}/"))
            .status();
        let cost = link.sent() + link.received() - before;
        println!("rsync, {what}: {} KiB, {:?} ({status:?})", cost >> 10, start.elapsed());
    };
    let measure = |what: &str, act: &dyn Fn()| {
        let link = fleet.vessel("tern").link();
        let before = link.sent() + link.received();
        act();
        let start = Instant::now();
        let there = fleet.vessel("tern").path("in");
        let same = || differences(&names(&fleet.path("shore/in")), &names(&there)).is_empty();
        wait_until(what, same);
        let took = start.elapsed();
        settle(&fleet);
        let cost = link.sent() + link.received() - before;
        println!("{what}: {} KiB, {took:?}", cost >> 10);
        rsync(what);
    };
    rsync("first");
    let rename = |from: &str, to: &str| fs::rename(fleet.source(from), fleet.source(to)).unwrap();
    measure("a file of 1 GiB renamed", &|| rename("large", "renamed"));
    measure("10,000 files in 320 directories renamed at the top", &|| rename("tree", "moved"));
    measure("two files of 64 MiB swapped", &|| {
        rename("a", "t.tmp");
        rename("b", "a");
        rename("t.tmp", "b");
    });
    measure("two logs of 64 MiB rotated, and a new one of 1 MiB", &|| {
        rename("log.1", "log.2");
        rename("log", "log.1");
        fleet.put("log", &content(8, MIB));
    });
    let link = fleet.vessel("tern").link();
    let before = link.sent() + link.received();
    fleet.put_at(&fleet.path("shore/other/large"), &large, 0o644, std::time::SystemTime::now());
    wait_until("the copy", || {
        fs::metadata(fleet.vessel("tern").path("other/large")).is_ok_and(|there| there.len() == GIB as u64)
    });
    settle(&fleet);
    println!("the same 1 GiB in another directory: {} KiB", (link.sent() + link.received() - before) >> 10);
    daemon.terminate();
}

/// A tree by names, kinds and sizes alone.
fn names(root: &Path) -> crate::fleet::tree::Tree {
    use crate::fleet::tree::Leaf;
    let mut found = crate::fleet::tree::Tree::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.path().symlink_metadata()) else { continue };
            let leaf = Leaf::File(0, 0, if meta.is_dir() { 0 } else { meta.len() }, String::new());
            if meta.is_dir() {
                directories.push(path.clone());
            }
            found.insert(path.strip_prefix(root).unwrap().to_owned(), leaf);
        }
    }
    found
}
