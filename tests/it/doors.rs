//! The status port in the hands of those who mean ill: half requests, many connections, many pages; and text that would
//! deceive whoever reads it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::fleet::wait::wait_until;
use crate::fleet::web::{get, page_of};

/// Whether the other end has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }
}

#[test]
fn half_a_request_does_not_hold_the_status_port_for_ever() {
    let Some(fleet) = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("tern").start() else { return };
    let daemon = fleet.run();
    let page = page_of(&daemon);
    let started = Instant::now();
    let half = |text: &str| {
        let mut stream = TcpStream::connect(&page).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let mut halves: Vec<_> = (0..300).map(|_| half("GET /api/status HTTP/1.1\r\nHost: 127")).collect();
    // 256 of them fill the house; within the time for a head there is room again.
    assert_eq!(get(&page, "/healthz").status, 200);
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    wait_until("the half requests to be given up", || halves.iter_mut().all(is_closed));
    daemon.terminate();
}

#[test]
fn one_address_opens_only_so_many_event_streams() {
    let Some(fleet) = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("tern").start() else { return };
    let daemon = fleet.run();
    let page = page_of(&daemon);
    let open = |_| {
        let mut stream = TcpStream::connect(&page).unwrap();
        stream.write_all(format!("GET /api/events HTTP/1.1\r\nHost: {page}\r\n\r\n").as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (stream, String::from_utf8_lossy(&head).into_owned())
    };
    let streams: Vec<_> = (0..20).map(open).collect();
    let good = streams.iter().filter(|(_, head)| head.ends_with("200")).count();
    assert_eq!(good, 16, "{:?}", streams.iter().map(|(_, head)| head).collect::<Vec<_>>());
    drop(streams);
    wait_until("room for another page", || open(0).1.ends_with("200"));
    daemon.terminate();
}

#[test]
fn names_that_deceive_are_escaped_in_log_terminal_page_and_csv() {
    const NAME: &str = "=gpj\u{202e}x\u{200b}\u{2028}ERROR forged";
    const SHOWN: &str = "=gpj\\u{202e}x\\u{200b}\\u{2028}ERROR forged";
    let Some(fleet) = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("tern").start() else { return };
    let daemon = fleet.run();
    let page = page_of(&daemon);
    fleet.put(NAME, b"cargo");
    fleet.wait_until_retired(NAME);
    daemon.wait_for_log(&["delivered", SHOWN]);
    let mut said = daemon.log();
    said.push(get(&page, "/api/status").body);
    for arguments in [
        &["receipts"][..],
        &["receipts", "--json"],
        &["receipts", "--csv"],
        &["status", "--json"],
        &["why", &format!("in/{NAME}")],
    ] {
        let ended = fleet.call(arguments, "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        said.push(ended.stdout);
    }
    daemon.terminate();
    for text in said {
        assert!(!text.contains(['\u{202e}', '\u{200b}', '\u{2028}']), "{text}");
    }
    let csv = fleet.call(&["receipts", "--csv"], "");
    csv.must_say(&[&format!(",'{SHOWN},")]);
}
