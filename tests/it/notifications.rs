//! Others are told of what happens: by commands, by webhooks, by a heartbeat; at least once, and holding up nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::fleet::port::free_port;
use crate::fleet::process::{has_ended, program_of, signal};
use crate::fleet::wait::{never_within, wait_for, wait_until};
use crate::fleet::{Fleet, names_in};

/// Writes the environment that it is run with into a file of its own in the directory `told`.
const WRITES_FACTS: &str = "env -0 > told/.$$ && mv told/.$$ \"told/$CONTENTMONSTER_EVENT.$CONTENTMONSTER_ID\"";

/// Writes a script called `hook.sh` beside the settings.
fn hook(fleet: &Fleet, script: &str) {
    fs::create_dir_all(fleet.path("told")).unwrap();
    fs::write(fleet.path("hook.sh"), script).unwrap();
}

type Facts = BTreeMap<String, Vec<u8>>;

/// What hooks were told: the variables of this program, without their common beginning.
fn told(fleet: &Fleet) -> Vec<Facts> {
    let names = names_in(&fleet.path("told")).into_iter().filter(|name| !name.as_bytes().starts_with(b"."));
    let variables = |bytes: Vec<u8>| {
        let pairs = bytes.split(|byte| *byte == 0).filter_map(|pair| {
            let rest = pair.strip_prefix(b"CONTENTMONSTER_")?;
            let at = rest.iter().position(|byte| *byte == b'=')?;
            Some((String::from_utf8(rest[..at].to_vec()).unwrap(), rest[at + 1..].to_vec()))
        });
        pairs.collect::<Facts>()
    };
    names.map(|name| variables(fs::read(fleet.path("told").join(name)).unwrap())).collect()
}

fn of_event<'a>(facts: &'a [Facts], event: &str) -> Vec<&'a Facts> {
    facts.iter().filter(|facts| facts["EVENT"] == event.as_bytes()).collect()
}

#[test]
fn commands_are_told_the_facts_whatever_the_name() {
    let plan = Fleet::new().monster("OnDelivered", "sh hook.sh").monster("OnParked", "sh hook.sh 'a b'");
    let plan = plan.openssh("aurora").openssh("borealis").openssh("closed").read_only("in");
    let plan = plan.key("Dirs", "in").directory("quiet").key("OnDelivered", "none").key("OnRetired", "sh hook.sh");
    let Some(fleet) = plan.start() else { return };
    hook(&fleet, WRITES_FACTS);
    let name = OsStr::from_bytes(b"line\nbreak \xff'\"$(x)");
    fleet.put(name, b"cargo");
    fleet.put_at(&fleet.path("shore/quiet/calm"), b"calm", 0o644, std::time::SystemTime::now());
    let daemon = fleet.run();
    let facts = wait_for("all to be told", || Some(told(&fleet)).filter(|facts| facts.len() >= 4));
    let delivered = of_event(&facts, "delivered");
    let mut vessels: Vec<_> = delivered.iter().map(|facts| facts["VESSEL"].as_slice()).collect();
    vessels.sort_unstable();
    assert_eq!(vessels, [&b"aurora"[..], b"borealis"], "each once, and nothing of the quiet directory");
    for facts in &delivered {
        let text = |name: &str| String::from_utf8(facts[name].clone()).unwrap();
        assert_eq!((facts["PATH"].as_slice(), text("SIZE")), (name.as_bytes(), "5".into()));
        assert_eq!((text("DIRECTORY"), text("KIND")), ("in".into(), "file".into()));
        assert_eq!(text("SHA256"), contentmonster::digest::Digest::of(b"cargo").to_string());
        assert_eq!(facts["LOCAL_PATH"], fleet.source(name).as_os_str().as_bytes());
        assert!(facts["REMOTE_PATH"].ends_with(name.as_bytes()) && text("TIME").ends_with('Z'));
        assert!(!facts.contains_key("REASON"));
    }
    let parked = of_event(&facts, "parked");
    assert_eq!((parked.len(), parked[0]["VESSEL"].as_slice()), (1, &b"closed"[..]));
    assert!(!parked[0]["REASON"].is_empty());
    let retired = of_event(&facts, "retired");
    let processed = fleet.path("shore/quiet/processed/calm");
    assert_eq!((retired.len(), retired[0]["LOCAL_PATH"].as_slice()), (1, processed.as_os_str().as_bytes()));
    assert!(!retired[0].contains_key("VESSEL") && processed.exists());
    daemon.terminate();
}

#[test]
fn a_command_that_hangs_holds_up_nothing_and_is_ended_with_all_that_it_started() {
    let plan = Fleet::new().monster("OnDelivered", "sh hook.sh").monster("HookTimeout", "4s").openssh("aurora");
    let Some(fleet) = plan.start() else { return };
    hook(&fleet, "sleep 1000 & echo $! > told/.$$ && mv told/.$$ told/$!; echo output; wait");
    let daemon = fleet.run();
    let files: Vec<_> = (0..20).map(|n| format!("file{n}")).collect();
    files.iter().for_each(|name| fleet.put(name, name.as_bytes()));
    files.iter().for_each(|name| fleet.wait_until_retired(name));
    let sleepers = || names_in(&fleet.path("told")).into_iter().filter_map(|name| name.to_str()?.parse::<u32>().ok());
    // A number that was given back may be another process's, or a thread's, a second later.
    let has_ended = |pid: u32| has_ended(pid) || program_of(pid).is_none_or(|program| program != "sleep");
    wait_until("as many as may run at once", || sleepers().count() >= 4);
    let first: Vec<_> = sleepers().collect();
    daemon.wait_for_log(&["sh", "HookTimeout", "was killed"]);
    wait_until("what it started to be gone", || first.iter().all(|pid| has_ended(*pid)));
    wait_until("the next to run", || sleepers().count() > 4);
    let said = daemon.log().iter().filter(|line| line.contains("HookTimeout")).count();
    assert_eq!(said, 1, "it is said once");
    daemon.terminate();
    wait_until("nothing to be left running", || sleepers().all(has_ended));
}

#[test]
fn what_was_not_told_before_a_crash_is_told_after_it() {
    let plan = Fleet::new().monster("OnDelivered", "sh hook.sh").openssh("aurora");
    let Some(fleet) = plan.start() else { return };
    hook(&fleet, &format!("echo $$ > told/.running; while [ ! -e go ]; do sleep 0.1; done; {WRITES_FACTS}"));
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_retired("cargo");
    let running = || fs::read_to_string(fleet.path("told/.running")).ok()?.trim().parse::<u32>().ok();
    let pid = wait_for("the command to run", running);
    daemon.kill9();
    signal(pid, rustix::process::Signal::KILL);
    wait_until("the command to be gone", || has_ended(pid));
    assert_eq!(told(&fleet).len(), 0);
    fs::write(fleet.path("go"), "").unwrap();
    // A run that has nothing to deliver ends when all is told.
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let facts = told(&fleet);
    assert_eq!((facts.len(), facts[0]["PATH"].as_slice()), (1, &b"cargo"[..]));
    fleet.once();
    assert_eq!(told(&fleet).len(), 1, "what was told is not told again");
}

#[test]
fn a_command_that_can_not_be_run_is_named() {
    let plan = Fleet::new().monster("OnDelivered", "./no/such --program").openssh("aurora");
    let Some(fleet) = plan.start() else { return };
    fleet.put("cargo", b"cargo");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.must_say(&["no/such", "after in/cargo was delivered", "cannot start"]);
}

/// What was posted: headers and body.
type Posted = (HeaderMap, Vec<u8>);
type Seen = Arc<Mutex<Vec<Posted>>>;

/// A listener on the web: takes posts and gets, and remembers them.
struct Web {
    runtime: Runtime,
    seen: Seen,
}

impl Web {
    fn listen(port: u16) -> Self {
        let web = Self { runtime: Runtime::new().unwrap(), seen: Arc::default() };
        let router = web.router();
        web.runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { axum::serve(listener, router).await });
        });
        web
    }

    fn router(&self) -> Router {
        async fn take(State(seen): State<Seen>, headers: HeaderMap, body: bytes::Bytes) -> StatusCode {
            seen.lock().unwrap().push((headers, body.to_vec()));
            StatusCode::NO_CONTENT
        }
        Router::new().fallback(take).layer(DefaultBodyLimit::disable()).with_state(self.seen.clone())
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The events of all posts.
    fn events(&self) -> Vec<Value> {
        let events = |(_, body): &Posted| {
            let post: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(post["version"], 1);
            post["events"].as_array().unwrap().clone()
        };
        self.seen.lock().unwrap().iter().flat_map(events).collect()
    }
}

#[test]
fn a_webhook_that_was_down_gets_all_events_signed() {
    let port = free_port();
    let plan = Fleet::new().monster("Webhook", &format!("http://127.0.0.1:{port}/T0K3N?x=1"));
    let Some(fleet) = plan.monster("WebhookSecret", "open sesame").openssh("aurora").start() else { return };
    let daemon = fleet.run();
    let names: Vec<String> = (0..150).map(|n| format!("file{n}")).collect();
    names.iter().for_each(|name| fleet.put(name, name.as_bytes()));
    names.iter().for_each(|name| fleet.wait_until_retired(name));
    daemon.wait_for_log(&["webhook", &format!("127.0.0.1:{port}"), "cannot connect"]);
    daemon.terminate();
    let daemon = fleet.run();
    daemon.wait_for_log(&["webhook", "cannot connect"]);
    let web = Web::listen(port);
    wait_until("all events", || web.events().len() >= 300);
    let events = web.events();
    for name in &names {
        let of = |event: &str| events.iter().filter(|one| one["event"] == event && one["path"] == **name).count();
        assert_eq!((of("delivered"), of("retired")), (1, 1), "{name}");
    }
    for (headers, body) in web.seen.lock().unwrap().iter() {
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"open sesame").unwrap();
        mac.update(format!("{}.", text("x-contentmonster-timestamp")).as_bytes());
        mac.update(body);
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text("x-contentmonster-signature"), format!("sha256={hex}"));
        assert_eq!(text("content-type"), "application/json");
    }
    daemon.wait_for_log(&["webhook", "works again"]);
    assert_eq!(daemon.logged(&["T0K3N"]), None, "what may be a secret is not logged");
    daemon.terminate();
}

#[test]
fn a_webhook_with_tls_is_trusted_only_with_a_certificate_that_the_system_trusts() {
    let port = free_port();
    let plan = Fleet::new().monster("Webhook", &format!("https://localhost:{port}/")).openssh("aurora");
    let Some(fleet) = plan.start() else { return };
    fs::write(fleet.path("req.cnf"), "[req]\ndistinguished_name = name\n[name]\n").unwrap();
    ["authority", "other"]
        .into_iter()
        .for_each(|name| certify(&fleet, name, &["basicConstraints=critical,CA:TRUE"], &[]));
    let signed = ["-CA", "authority.pem", "-CAkey", "authority.key"];
    certify(&fleet, "server", &["subjectAltName=DNS:localhost"], &signed);
    let [certificate, key] = ["server.pem", "server.key"].map(|name| fs::read(fleet.path(name)).unwrap());
    let web = Web { runtime: Runtime::new().unwrap(), seen: Arc::default() };
    web.runtime.spawn(serve_tls(port, certificate, key, web.router()));
    wait_until("the server to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    fleet.put("cargo", b"cargo");
    let once = |trusted: &str| {
        let ended = fleet.call_with(
            &[("SSL_CERT_FILE", &fleet.path(trusted)), ("SSL_CERT_DIR", Path::new("/nowhere"))],
            &["--once"],
        );
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended
    };
    once("other.pem").must_say(&["webhook", "TLS failed"]);
    assert_eq!(web.count(), 0);
    once("authority.pem");
    let events: Vec<_> = web.events().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["delivered", "retired"]);
}

/// Has `openssl` make a key and a certificate, `NAME.key` and `NAME.pem` beside the settings.
fn certify(fleet: &Fleet, name: &str, extensions: &[&str], more: &[&str]) {
    let mut command = std::process::Command::new("openssl");
    command.args(["req", "-config", "req.cnf", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key")]);
    command.args(["-out", &format!("{name}.pem")]).args(more);
    extensions.iter().for_each(|extension| {
        command.args(["-addext", extension]);
    });
    let made = command.current_dir(fleet.path("")).output().unwrap();
    assert!(made.status.success(), "openssl: {made:?}");
}

async fn serve_tls(port: u16, certificate: Vec<u8>, key: Vec<u8>, router: Router) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
    let certificate = CertificateDer::from_pem_slice(&certificate).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let serving = hyper::server::conn::http1::Builder::new();
        let _ = serving.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    }
}

#[test]
fn the_heart_beats_as_long_as_something_works() {
    let port = free_port();
    let web = Web::listen(port);
    let plan = Fleet::new().monster("Heartbeat", &format!("http://127.0.0.1:{port}/ping"));
    let plan = plan.monster("HeartbeatInterval", "1s").openssh("aurora").key("ReconnectWait", "1s");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    wait_until("a few beats", || web.count() >= 3);
    fleet.vessel("aurora").stop();
    fleet.put("cargo", b"cargo");
    daemon.wait_for_log(&["no heartbeat", "no vessel"]);
    let silent = web.count();
    never_within(Duration::from_secs(3), "a beat while nothing works", || web.count() > silent);
    fleet.vessel("aurora").start();
    wait_until("the heart to beat again", || web.count() > silent);
    daemon.terminate();
    let last = web.count();
    never_within(Duration::from_secs(3), "a beat of a program that has ended", || web.count() > last);
}
