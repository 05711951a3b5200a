//! The status page in a real browser (Debian's `chromium` and `chromium-driver`), on a fleet of real servers.
//!
//! A screenshot is left in `target/screenshots/`. Where there is no browser, the test says so and passes.

mod driver;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use driver::Browser;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::postgres::Place;
use crate::fleet::web::page_of;

/// A name that is a script where it is not shown as text.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// A vessel's line in the table.
fn line(vessel: &str) -> String {
    format!("document.querySelector('[data-vessel=\"{vessel}\"]')")
}

fn is(vessel: &str, state: &str) -> String {
    format!("{}?.dataset.state === '{state}'", line(vessel))
}

impl Browser {
    /// Waits until the text of the page contains some words.
    #[track_caller]
    fn wait_for_text(&self, words: &str) {
        self.wait(words, &format!("document.body.innerText.includes({})", json!(words)));
    }

    /// Gives an order that the page asks about.
    #[track_caller]
    fn confirm(&self) {
        self.wait("the question", "document.getElementById('ask').open");
        self.click("#ask-yes");
        self.wait("the question to close", "!document.getElementById('ask').open");
    }

    /// Uses the token of the test.
    fn unlock(&self) {
        self.wait("the token to be asked for", "!document.getElementById('unlock').hidden");
        self.type_in("#token", TOKEN);
        self.click("#unlock button");
        self.wait("the token to be taken", "document.getElementById('unlock').hidden");
    }

    #[track_caller]
    fn fits(&self) {
        self.wait("the page to fit the screen", "document.documentElement.scrollWidth <= window.innerWidth");
    }
}

const TOKEN: &str = "open sesame";

#[test]
fn bars_move_vessels_come_and_go_and_hostile_names_are_text() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").monster("ChunkSize", "1 MiB").openssh("slow").proxied();
    let Some(fleet) = plan.openssh("fast").start() else { return };
    let Some(browser) = Browser::start() else { return };
    let daemon = fleet.run();
    browser.open(&page_of(&daemon));
    browser.wait("both to be connected", &format!("{} && {}", is("slow", "connected"), is("fast", "connected")));
    fleet.put(HOSTILE, b"text");
    fleet.wait_until_retired(HOSTILE);

    // Hostile names are text.
    let shown = format!("document.getElementById('deliveries').innerText.includes({})", json!(HOSTILE));
    browser.wait("the hostile name", &shown);
    assert_eq!(browser.eval("document.querySelectorAll('img').length"), json!(0));
    assert_eq!(browser.eval("[...document.querySelectorAll('*')].some(e => e.hasAttribute('onerror'))"), json!(false));

    // Bars move in the vessel's own view.
    fleet.vessel("slow").link().limit(512 << 10);
    let large = content(5, 12 * MIB);
    fleet.put("large.iso", &large);
    // The page says the truth to the byte.
    let waiting = format!("{}.querySelector('[data-bytes]').dataset.bytes", line("slow"));
    browser.wait("the page to know what waits", &format!("{waiting} === '{}'", large.len()));
    browser.wait("a rate", &format!("/[KM]iB\\/s/.test({}.innerText)", line("slow")));
    browser.click("[data-vessel=slow] a");
    let bar = "Number(document.querySelector('progress')?.value ?? 0)";
    browser.wait("the bar to begin", &format!("{bar} > 0"));
    let mut last = browser.eval(bar).as_f64().unwrap();
    for _ in 0..3 {
        browser.wait("the bar to move on", &format!("{bar} > {last}"));
        last = browser.eval(bar).as_f64().unwrap();
    }
    let drawn = "(document.querySelector('.chart path:last-of-type')?.getAttribute('d') ?? '').length > 20";
    browser.wait("the chart to be drawn", drawn);
    browser.wait_for_text("large.iso");
    browser.wait_for_text("is being sent");
    browser.wait("what limits it", "document.querySelector('.verdict').innerText.length > 10");
    browser.wait("its log lines", "document.querySelector('.log').innerText.includes('Connected')");
    browser
        .wait("what it received", &format!("document.querySelector('#vessel').innerText.includes({})", json!(HOSTILE)));
    assert_eq!(browser.eval("document.querySelectorAll('img').length"), json!(0));
    println!("{}", browser.screenshot("vessel-sending.png").display());
    browser.click(".back a");

    // A vessel is killed, and comes back.
    fleet.vessel("fast").stop();
    let away = browser.wait("the dead vessel to be away", &is("fast", "away"));
    println!("{}", browser.screenshot("status-away.png").display());
    browser.wait("its next try", &format!("{}.innerText.includes('next try')", line("fast")));
    fleet.vessel("fast").start();
    let back = browser.wait("the vessel to be back", &is("fast", "connected"));
    println!("away after {away:?}, back after {back:?}");
    assert!(away < Duration::from_secs(5) && back < Duration::from_secs(5), "away after {away:?}, back after {back:?}");

    fleet.vessel("slow").link().limit(0);
    fleet.wait_until_retired("large.iso");
    browser
        .wait("nothing to wait any more", "document.getElementById('summary').innerText === 'Everything is delivered'");
    daemon.terminate();
}

#[test]
fn a_long_queue_is_paged_through_and_never_shown_whole() {
    let Some(fleet) = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("away").start() else { return };
    let Some(browser) = Browser::start() else { return };
    fleet.vessel("away").stop();
    (0..1060).for_each(|number| fleet.put(format!("cargo-{number:04}"), b"cargo"));
    let daemon = fleet.run();
    browser.open(&page_of(&daemon));
    browser.wait("all to wait", "document.querySelector('[data-vessel=away] .files')?.dataset.files === '1060'");
    browser.click("nav a[href='#queue']");
    let lines = |count: usize| format!("document.querySelectorAll('#queue li').length === {count}");
    browser.wait("the first page", &lines(50));
    let button =
        |words: &str| format!("[...document.querySelectorAll('#queue button')].find(e => e.innerText === '{words}')");
    for page in 2..=22 {
        browser.eval(&format!("{}.click()", button("Show more")));
        let shown = match page {
            22 => "61 to 1060 shown".to_owned(),
            21 => "51 to 1050 shown, more wait".to_owned(),
            page => format!("{} shown, more wait", page * 50),
        };
        browser.wait(&shown, &format!("document.querySelector('#queue [role=status]').innerText === '{shown}'"));
    }
    browser.wait("the last thousand", &lines(1000));
    assert_eq!(browser.eval(&format!("{}.hidden", button("Show more"))), json!(true));
    browser.eval(&format!("{}.click()", button("Back to the first")));
    browser.wait("the first page again", &lines(50));
    daemon.terminate();
}

#[test]
fn the_shores_of_a_ledger_are_shown_with_what_they_serve() {
    let place = Place::new();
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("auk").openssh("tern");
    let Some(fleet) = plan.monster("Database", &place.url()).monster("LeaseTime", "3s").start() else { return };
    let Some(browser) = Browser::start() else { return };
    let one = fleet.run_shore("one");
    browser.open(&page_of(&one));
    browser.wait("the vessels", "document.querySelectorAll('tr[data-vessel]').length === 2");
    assert_eq!(
        browser.eval("document.getElementById('shores-section').hidden"),
        json!(true),
        "a shore alone is not named"
    );
    let two = fleet.run_shore("two");
    let shared = "e => e.innerText.includes('serves 1 vessel,')";
    let shores = "[...document.querySelectorAll('#shores li')]";
    browser.wait("two shores", &format!("{shores}.length === 2 && {shores}.every({shared})"));
    browser.click("[data-vessel=auk] a");
    browser.wait("its shore", "/Served by the shore (one|two)/.test(document.getElementById('vessel').innerText)");
    two.terminate();
    browser.click("nav a[href='#']");
    browser.wait("one shore again", "document.getElementById('shores-section').hidden");
    one.terminate();
}

#[test]
fn with_the_token_vessels_directories_and_files_are_ordered_about_after_a_question() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").monster("ListenToken", TOKEN);
    let Some(fleet) = plan.openssh("open").start() else { return };
    let Some(browser) = Browser::start() else { return };
    let daemon = fleet.run();
    browser.open(&page_of(&daemon));
    browser.unlock();

    // A directory is paused: its files are taken in and wait, until it is resumed.
    browser.wait("a button", "document.querySelector('[data-directory=in] .orders button') !== null");
    browser.click("[data-directory=in] .orders button");
    browser.wait("the question", "document.getElementById('ask').open");
    browser.type_in("#field-note", "wrong charts");
    browser.confirm();
    browser.wait_for_text("paused for");
    fleet.put("cargo", b"cargo");
    browser.wait("it to wait", "document.querySelector('[data-vessel=open] .files').dataset.files === '1'");
    fleet.call(&["why", "cargo"], "").must_say(&["[Directory in] is paused", "wrong charts"]);
    browser.click("nav a[href='#queue']");
    browser.wait_for_text("the directory is paused: wrong charts");
    assert!(fleet.held("open", "cargo").is_none());

    // A file is forgotten, after a question that can be refused.
    browser.click("#queue .orders button");
    browser.wait("the question", "document.getElementById('ask').open");
    browser.press('\u{e00c}');
    browser.wait("the question to close", "!document.getElementById('ask').open");
    browser.click("#queue .orders button");
    browser.confirm();
    browser.wait_for_text("The file is forgotten.");
    browser.click("nav a[href='#']");
    fleet.put("more", b"more");
    browser.wait("a button", "document.querySelector('[data-directory=in] .orders button')?.innerText === 'Resume'");
    browser.click("[data-directory=in] .orders button");
    browser.confirm();
    fleet.wait_until_served("open", "more", b"more");
    assert!(fleet.held("open", "cargo").is_none(), "it was forgotten");

    // A vessel is paused and resumed.
    browser.wait("the vessel", &is("open", "connected"));
    browser.click("[data-vessel=open] a");
    for (words, state) in [("Pause", "paused"), ("Resume", "connected")] {
        let offered = format!("document.querySelector('#vessel .orders button')?.innerText === '{words}'");
        browser.wait(words, &offered);
        browser.click("#vessel .orders button");
        browser.confirm();
        browser.wait(state, &format!("document.querySelector('#vessel [data-state]')?.dataset.state === '{state}'"));
    }
    daemon.terminate();
}

/// 200 vessels in four groups, 195 of them on this host, and 5 in trouble: three that can't be reached, one whose disk is
/// not mounted, and one on which files can't be stored.
fn two_hundred() -> Option<Fleet> {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").monster("ListenToken", TOKEN);
    let fleet = plan.openssh("offshore-17").start()?;
    let hub = fleet.vessel("offshore-17");
    fs::write(hub.path("blocked"), b"a file").unwrap();
    let mut text = fs::read_to_string(fleet.settings()).unwrap();
    text.push_str(&format!("Groups = offshore\nRemoteLocation.in = {}\n", hub.remote("blocked/x")));
    let places = fleet.path("places");
    for (group, numbers) in [("offshore", 50), ("north", 49), ("south", 49), ("coast", 48)] {
        text.push_str(&format!(
            "[Group {group}]\nTransport = local\nAddress = localhost\nRemoteLocation.in = {}/{{vessel}}\n",
            places.display()
        ));
        for number in 1..=numbers {
            let name = format!("{group}-{number:02}");
            if name != "offshore-17" {
                fs::create_dir_all(places.join(&name)).unwrap();
                text.push_str(&format!("[Vessel {name}]\nGroups = {group}\n"));
            }
        }
    }
    // The group's transport is not that of the vessels on sshd.
    let text = text.replace("[Vessel offshore-17]\n", "[Vessel offshore-17]\nTransport = ssh\n");
    let dead = "[Vessel dead-{1..3}]\nAddress = 127.0.0.1\nPort = 1\nUsername = {vessel}\n";
    // Its disk is not mounted.
    let gone = format!(
        "[Vessel gone-1]\nTransport = local\nAddress = localhost\nRemoteLocation.in = {}/gone\n",
        places.display()
    );
    fleet.write_settings(&format!("{text}{dead}{gone}"));
    Some(fleet)
}

#[test]
fn two_hundred_vessels_with_five_in_trouble_are_seen_at_a_glance() {
    let Some(fleet) = two_hundred() else { return };
    let Some(browser) = Browser::start() else { return };
    fleet.put("sea-chart-of-the-northern-approaches-2026-05-edition.tar.gz", &content(1, 40_000));
    let daemon = fleet.run();
    let page = page_of(&daemon);
    browser.open(&page);
    browser.wait("all to be known", "document.querySelector('#filter-all .number')?.innerText === '200'");
    browser.wait("five in trouble", "document.querySelector('#filter-trouble .number').innerText === '5'");
    browser.wait("the others to have it", "document.querySelector('#filter-waiting .number').innerText === '5'");

    // Those in trouble come first, with their reasons; the groups are folded.
    let names = "[...document.querySelectorAll('tr[data-vessel]')].map(e => e.dataset.vessel).join()";
    let shown = browser.eval(names).as_str().unwrap().to_owned();
    assert!(shown.starts_with("dead-1,dead-2,dead-3,"), "{shown}");
    assert_eq!(shown.split(',').count(), 5, "{shown}");
    browser.wait("the reason to show", &format!("{}.innerText.includes('not a directory')", line("offshore-17")));
    browser.wait("the groups", "document.querySelectorAll('tr.group button[aria-expanded=false]').length === 4");
    println!("{}", browser.screenshot("fleet-200.png").display());
    let height = browser.eval("document.documentElement.scrollHeight").as_u64().unwrap();
    println!("the page is {height} px high");
    assert!(height < 4000, "{height} px");

    // One click: which files wait for offshore-17, and why.
    browser.click("[data-vessel=offshore-17] a");
    browser.wait("the file", "document.querySelector('#vessel .queue li')?.innerText.includes('sea-chart')");
    browser.wait("why", "document.querySelector('#vessel .queue li').innerText.includes('not a directory')");
    browser.wait("the log", "document.querySelector('#vessel .log').innerText.includes('not a directory')");
    println!("{}", browser.screenshot("vessel.png").display());
    browser.press('\u{e00c}');
    browser.wait("the fleet again", "!document.getElementById('fleet').hidden");

    // A group unfolds, by the keyboard, too. Then a search and the filters.
    browser.click("tr.group button[aria-expanded=false]");
    browser.wait("a group to unfold", "document.querySelectorAll('tr[data-vessel]').length > 50");
    let focus = "document.activeElement.matches('tr.group button')";
    assert_eq!(browser.eval(focus), json!(true), "the focus stays");
    browser.press('\u{e007}');
    browser.wait("it to fold", "document.querySelectorAll('tr[data-vessel]').length === 5");
    browser.press('/');
    assert_eq!(browser.eval("document.activeElement.id"), json!("search"));
    browser.type_in("#search", "north-4");
    browser.wait("ten to match", "document.querySelectorAll('tr[data-vessel]').length === 10");
    browser.eval("document.getElementById('search').value = ''");
    browser.click("#filter-away");
    browser.wait("four away", "document.querySelectorAll('tr[data-vessel]').length === 4");
    browser.click("#filter-trouble");
    browser.wait("five in trouble", "document.querySelectorAll('tr[data-vessel]').length === 5");
    browser.click("#filter-all");

    // The queue of all, searchable.
    browser.click("nav a[href='#queue']");
    browser.wait("five to wait", "document.querySelectorAll('#queue li').length === 5");
    browser.type_in("#queue input[type=search]", "no such file");
    browser.wait_for_text("No file matches.");

    // On a phone nothing is wider than the screen, and names are whole.
    browser.click("nav a[href='#']");
    browser.resize(390, 844);
    browser.fits();
    println!("{}", browser.screenshot("fleet-phone.png").display());
    let broken = "[...document.querySelectorAll('tr[data-vessel] th a')].filter(e => e.offsetHeight > 60).length";
    assert_eq!(browser.eval(broken), json!(0), "a name is broken letter by letter");
    browser.click("[data-vessel=offshore-17] a");
    browser.wait("the file", "document.querySelector('#vessel .queue li')?.innerText.includes('sea-chart')");
    browser.fits();
    println!("{}", browser.screenshot("vessel-phone.png").display());
    browser.resize(1100, 900);

    // At night.
    let dark = json!({ "cmd": "Emulation.setEmulatedMedia",
        "params": { "features": [{ "name": "prefers-color-scheme", "value": "dark" }] } });
    browser.devtools(&dark);
    browser.wait("the ground to be dark", "getComputedStyle(document.body).backgroundColor === 'rgb(16, 24, 29)'");
    println!("{}", browser.screenshot("vessel-dark.png").display());
    browser.click(".back a");
    browser.wait("the fleet", "!document.getElementById('fleet').hidden");
    println!("{}", browser.screenshot("fleet-dark.png").display());

    // The first paint, and how soon all vessels are there.
    browser.open(&page);
    browser.wait("all to be known", "document.querySelector('#filter-all .number')?.innerText === '200'");
    let paint = browser.eval("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1");
    let size = browser.eval("performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)");
    println!("first paint after {paint} ms; {size} bytes of scripts and styles");
    daemon.terminate();
}

/// Reads a stream of updates for so long; returns the bytes of the first event and of the others.
fn updates(page: &str, path: &str, how_long: Duration) -> (usize, usize) {
    let mut stream = std::net::TcpStream::connect(page).unwrap();
    std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.1\r\nHost: {page}\r\n\r\n").as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (begun, mut bytes) = (Instant::now(), Vec::new());
    while begun.elapsed() < how_long {
        let mut some = [0; 65536];
        match std::io::Read::read(&mut stream, &mut some) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&some[..count]),
            Err(_) => {}
        }
    }
    let whole = bytes.windows(12).position(|part| part == b"event: whole").expect("the whole document comes first");
    let end = bytes[whole..].windows(2).position(|part| part == b"\n\n").expect("an end") + whole;
    (end, bytes.len() - end)
}

#[test]
fn updates_of_two_hundred_vessels_at_work_take_little_of_the_link() {
    let Some(fleet) = two_hundred() else { return };
    let daemon = fleet.run();
    let page = page_of(&daemon);
    let seconds = 10;
    std::thread::scope(|scope| {
        let read = |path| {
            scope.spawn({
                let page = &page;
                move || updates(page, path, Duration::from_secs(seconds))
            })
        };
        let (fleet_wide, one) = (read("/api/changes"), read("/api/changes?vessel=offshore-17"));
        let mut number = 0;
        while !fleet_wide.is_finished() {
            fleet.put(format!("{number}"), &content(number, 2000));
            number += 1;
            std::thread::sleep(Duration::from_millis(250));
        }
        let ((first, rest), (first_one, rest_one)) = (fleet_wide.join().unwrap(), one.join().unwrap());
        println!(
            "fleet: {first} bytes, then {} in a second; a vessel: {first_one}, then {}",
            rest as u64 / seconds,
            rest_one as u64 / seconds
        );
        assert!(rest > 0 && rest_one > 0, "there was nothing new");
        assert!((rest + rest_one) as u64 / seconds < 20 << 10, "more than 20 KiB in a second");
    });
    daemon.terminate();
}

/// What the book shows: vessels at work and in trouble.
#[test]
#[ignore = "draws target/screenshots/book-*.png; the pictures in docs/src/images show the same page with invented data"]
fn the_books_pictures() {
    let Some(fleet) = two_hundred() else { return };
    let Some(browser) = Browser::start() else { return };
    browser.resize(1000, 760);
    fleet.put("tides-2026-05.csv", &content(1, 300_000));
    fleet.put("notice-to-mariners.pdf", &content(2, 2_000_000));
    let daemon = fleet.run();
    browser.open(&page_of(&daemon));
    browser.wait("five in trouble", "document.querySelector('#filter-trouble .number')?.innerText === '5'");
    browser.wait("the others to have it", "document.querySelector('#filter-waiting .number').innerText === '5'");
    browser.eval("document.documentElement.style.overflow = 'hidden'");
    println!("{}", browser.screenshot("book-fleet.png").display());
    browser.click("[data-vessel=offshore-17] a");
    browser.wait("the file", "document.querySelectorAll('#vessel .queue li').length === 2");
    browser.wait("the verdict", "document.querySelector('.verdict').innerText.length > 10");
    println!("{}", browser.screenshot("book-vessel.png").display());
    daemon.kill9();
}
