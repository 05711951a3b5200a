//! A vessel that means ill costs one connection and bounded memory, never a panic or a hang.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use contentmonster::embedded_vessel::{Faults, InjectedFault, Request};
use contentmonster::settings::{Environment, Settings};
use contentmonster::transport::{ConnectError, KnownShell, Lead, LinkMeters, LoginLimit, Rank, Remote, SshEnvironment};

use super::bay::{Bay, Berth};
use super::policy::Tally;

/// A server that says something to whoever connects, and hears what is said to it.
struct Stranger {
    port: u16,
    ended: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    accepting: Option<JoinHandle<()>>,
}

impl Stranger {
    fn who(speaks: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ended, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count, speaks) = (ended.clone(), connections.clone(), Arc::new(speaks));
        let accepting = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                let speaks = speaks.clone();
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    speaks(&mut stream);
                    // Hears it out, as a server does that has nothing more to say.
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                });
            }
        });
        Self { port, ended, connections, accepting: Some(accepting) }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Tries to connect once; gives how that ended.
async fn connect(port: u16) -> ConnectError {
    let text = format!(
        "[Directory in]\nLocation = in\n[Vessel v]\nAddress = 127.0.0.1\nPort = {port}\nUsername = u\nPassword = p\n\
         Timeout = 1s\nHostKey = SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\n"
    );
    let environment = Environment::default();
    let settings = Settings::parse(&text, std::path::Path::new("/nowhere/settings.ini"), &environment).unwrap();
    let ssh = SshEnvironment {
        records_host_keys: true,
        home: None,
        agent: None,
        global_known_hosts: "/nowhere/known_hosts".into(),
        program: "contentmonster".into(),
        logins: LoginLimit::default(),
        meters: LinkMeters::default(),
        unexpanding: Default::default(),
    };
    let vessel = Arc::new(settings.vessels[0].clone());
    let started = Instant::now();
    let refused = Remote::connect(&vessel, &Arc::new(ssh), &KnownShell::Unknown, &Lead::alone(Rank::first(true, 0)))
        .await
        .err()
        .expect("that is no vessel");
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    refused
}

/// Runs a test alone: what other tests keep in memory meanwhile must not count.
fn in_a_process_of_its_own(test: &str) {
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
    println!("{said}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel counts it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_place_of_a_greeting_costs_one_connection() {
    let says: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("zeros", vec![0; 100_000]),
        ("noise", crate::fleet::content::content(1, 100_000)),
        ("a page", b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n".repeat(100)),
        ("an older protocol", b"SSH-1.5-old\r\n".to_vec()),
        ("a greeting and no more", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a greeting and noise", [b"SSH-2.0-x\r\n".as_slice(), &crate::fleet::content::content(2, 100_000)].concat()),
        ("a packet of 4 GiB", [b"SSH-2.0-x\r\n".as_slice(), &[0xff; 64]].concat()),
        ("a packet of no length", [b"SSH-2.0-x\r\n".as_slice(), &[0; 64]].concat()),
    ];
    for (what, bytes) in says {
        let stranger = Stranger::who(move |stream| drop(stream.write_all(&bytes)));
        let refused = connect(stranger.port).await;
        println!("{what}: {refused}");
        let is_named = match refused {
            ConnectError::Mute { .. } => what == "nothing",
            ref other => matches!(other, ConnectError::Handshake { .. }),
        };
        assert!(is_named, "{what}: {refused:?}");
        assert_eq!(stranger.connections.load(Ordering::Relaxed), 1, "{what}");
    }
}

/// RFC 4253 lets a server say lines before its greeting; it doesn't say how many.
#[test]
fn an_endless_banner_is_heard_for_a_while_and_costs_no_memory() {
    in_a_process_of_its_own("faults::hostile::an_endless_banner_is_heard_for_a_while_and_costs_no_memory_here");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures the memory of its whole process: the test before it runs it alone"]
async fn an_endless_banner_is_heard_for_a_while_and_costs_no_memory_here() {
    for line in [vec![b'x'; 64 << 10], [vec![b'y'; 200], b"\r\n".to_vec()].concat()] {
        let said = Arc::new(AtomicUsize::new(0));
        let (counting, patience) = (said.clone(), Duration::from_secs(10));
        let stranger = Stranger::who(move |stream| {
            let started = Instant::now();
            while started.elapsed() < patience && stream.write_all(&line).is_ok() {
                counting.fetch_add(line.len(), Ordering::Relaxed);
            }
        });
        let before = resident_kib();
        println!("{}", connect(stranger.port).await);
        let grown = resident_kib().saturating_sub(before);
        println!("{} KiB were said, {grown} KiB kept", said.load(Ordering::Relaxed) >> 10);
        assert!(grown < 64 << 10, "{grown} KiB more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_that_drips_is_not_waited_for() {
    let stranger = Stranger::who(|stream| {
        while stream.write_all(b"s").is_ok() {
            // A byte now and then, so that the line is never quiet.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            if matches!(stream.read(&mut [0; 512]), Ok(0)) {
                return;
            }
        }
    });
    println!("{}", connect(stranger.port).await);
}

/// Answers one kind of packet with bytes of its own, as often as `times`.
#[derive(Debug)]
struct Liar {
    to: u8,
    says: Bytes,
    times: AtomicUsize,
}

impl Faults for Liar {
    fn decide(&self, request: Request<'_>) -> InjectedFault {
        let Request::Packet(packet) = request else { return InjectedFault::Serve };
        let once_more = |left: usize| left.checked_sub(1);
        if packet.first() == Some(&self.to)
            && self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, once_more).is_ok()
        {
            return InjectedFault::Answer(self.says.clone());
        }
        InjectedFault::Serve
    }
}

fn packet(kind: u8, body: &[u8]) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(kind);
    packet.put_u32(0);
    packet.extend_from_slice(body);
    packet.freeze()
}

/// A listing that says to hold more names than it does.
fn names(claimed: u32, names: usize) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u32(claimed);
    for name in 0..names {
        let name = format!("{name:08}");
        for text in [name.as_str(), ""] {
            body.put_u32(u32::try_from(text.len()).unwrap());
            body.extend_from_slice(text.as_bytes());
        }
        body.put_u32(0);
    }
    packet(104, &body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn packets_that_are_not_what_they_say_end_one_connection() {
    const ANSWERS: [(&str, u8); 8] = [
        ("init", 1),
        ("open", 3),
        ("close", 4),
        ("write", 6),
        ("lstat", 7),
        ("fsetstat", 10),
        ("readdir", 12),
        ("extended", 200),
    ];
    let lies: Vec<(&str, Bytes)> = vec![
        ("nothing", Bytes::new()),
        ("a type alone", Bytes::from_static(&[101])),
        ("no such type", packet(42, b"hello")),
        ("a status of no code", packet(101, &[])),
        ("a status with a message of 4 GiB", packet(101, &[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("a handle of 4 GiB", packet(102, &[0xff, 0xff, 0xff, 0xff, 1])),
        ("an empty handle", packet(102, &[0, 0, 0, 0])),
        ("data of 4 GiB", packet(103, &[0xff, 0xff, 0xff, 0xff])),
        ("names without end", names(u32::MAX, 1000)),
        ("attributes of all kinds and no value", packet(105, &[0xff, 0xff, 0xff, 0xff])),
        ("a packet as long as may be", packet(103, &vec![0; 255 << 10])),
    ];
    let mut running = tokio::task::JoinSet::new();
    for (to, kind) in ANSWERS {
        for (what, says) in &lies {
            let (what, says) = (*what, says.clone());
            running.spawn(async move {
                let policy = Arc::new(Liar { to: kind, says, times: AtomicUsize::new(1) });
                let bay = Bay::open(vec![Berth { name: "vessel", shell: false, policy }], "");
                let files = vec![("cargo".to_owned(), crate::fleet::content::content(3, 200_000))];
                bay.put("cargo", &files[0].1);
                let report = bay.once(Duration::from_secs(2)).await;
                let report = report.unwrap_or_else(|fault| panic!("{what} in answer to {to}: {fault}"));
                assert_eq!(bay.broken_promises(), Vec::<String>::new(), "{what} in answer to {to}");
                if !report.is_all_delivered() {
                    bay.once(Duration::from_secs(10)).await.unwrap();
                }
                let wrong = bay.unfinished(&files);
                bay.close().await;
                if wrong.is_empty() { Ok(()) } else { Err(format!("{what} in answer to {to}: {wrong:?}")) }
            });
        }
    }
    let outcomes = running.join_all().await;
    println!("{} lies", outcomes.len());
    let broken: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_listing_without_end_costs_no_more_than_so_much_memory() {
    in_a_process_of_its_own("faults::hostile::a_listing_without_end_costs_no_more_than_so_much_memory_here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "measures the memory of its whole process: the test before it runs it alone"]
async fn a_listing_without_end_costs_no_more_than_so_much_memory_here() {
    let endless = names(5000, 5000);
    let policy = Arc::new(Liar { to: 12, says: endless, times: AtomicUsize::new(usize::MAX) });
    let honest = Arc::new(Tally::default());
    let berths =
        vec![Berth { name: "endless", shell: true, policy }, Berth { name: "honest", shell: true, policy: honest }];
    let bay = Bay::open(berths, "");
    fs_temp(&bay, "endless");
    bay.put("cargo", b"cargo");
    let (before, started) = (resident_kib(), Instant::now());
    let report = bay.once(Duration::from_secs(5)).await.unwrap();
    let grown = resident_kib().saturating_sub(before);
    println!("after {:.1?}, {grown} KiB more: {:?}", started.elapsed(), report.backlog);
    assert!(grown < 256 << 10, "{grown} KiB more");
    assert_eq!(std::fs::read(bay.path("honest/in/cargo")).unwrap(), b"cargo", "the other vessel is served");
    bay.close().await;
}

/// Makes a TempDir that there is something to list in.
fn fs_temp(bay: &Bay, vessel: &str) {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(bay.path(vessel).join("temp")).unwrap();
}
