//! The status page in a real browser (Debian's `chromium` and `chromium-driver`), on a fleet of real servers.
//!
//! A screenshot is left in `target/screenshots/`. Where there is no browser, the test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::wait::{DEADLINE, wait_for};
use crate::fleet::web::page_of;

/// A name that is a script where it is not shown as text.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// A browser of its own; ends with the test.
struct Browser {
    driver: Child,
    runtime: tokio::runtime::Runtime,
    client: Option<Client>,
    _profile: TempDir,
}

impl Browser {
    fn start() -> Option<Self> {
        let profile = tempfile::Builder::new().prefix("browser-").tempdir().unwrap();
        let log = profile.path().join("log");
        let driver = Command::new("chromedriver")
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .env("TMPDIR", profile.path())
            .env("HOME", profile.path())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn();
        let Ok(driver) = driver else {
            println!("skipped: there is no chromedriver (Debian: chromium, chromium-driver)");
            return None;
        };
        let mut browser = Self {
            driver,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            client: None,
            _profile: profile,
        };
        let port = wait_for("chromedriver to listen", || {
            let said = fs::read_to_string(&log).unwrap();
            said.split("started successfully on port ").nth(1)?.split('.').next()?.trim().parse::<u16>().ok()
        });
        let options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900",
            format!("--user-data-dir={}", browser._profile.path().join("profile").display()),
        ]});
        let capabilities = json!({ "goog:chromeOptions": options }).as_object().unwrap().clone();
        let address = format!("http://127.0.0.1:{port}");
        let connecting = async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities).connect(&address).await
        };
        browser.client = Some(browser.runtime.block_on(connecting).unwrap());
        Some(browser)
    }

    fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    fn open(&self, address: &str) {
        self.runtime.block_on(self.client().goto(&format!("http://{address}/"))).unwrap();
    }

    /// What a script in the page returns.
    fn eval(&self, script: &str) -> Value {
        self.runtime.block_on(self.client().execute(&format!("return {script}"), Vec::new())).unwrap()
    }

    /// Waits until a script in the page returns `true`; gives how long that took.
    #[track_caller]
    fn wait(&self, what: &str, script: &str) -> Duration {
        let start = Instant::now();
        loop {
            if self.eval(script) == Value::Bool(true) {
                return start.elapsed();
            }
            let page = || self.eval("document.body.innerText");
            assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}; the page says {}", page());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn screenshot(&self, name: &str) -> PathBuf {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
        fs::create_dir_all(&place).unwrap();
        let picture = self.runtime.block_on(self.client().screenshot()).unwrap();
        fs::write(place.join(name), picture).unwrap();
        place.join(name)
    }

    fn resize(&self, width: u32, height: u32) {
        self.runtime.block_on(self.client().set_window_size(width, height)).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _ = self.runtime.block_on(client.close());
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A vessel's card.
fn card(vessel: &str) -> String {
    format!("document.querySelector('[data-vessel=\"{vessel}\"]')")
}

fn is(vessel: &str, state: &str) -> String {
    format!("{}?.className === '{state}'", card(vessel))
}

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

    // Bars move.
    fleet.vessel("slow").link().limit(512 << 10);
    let large = content(5, 12 * MIB);
    fleet.put("large.iso", &large);
    let bar = format!("Number({}?.querySelector('progress')?.value ?? 0)", card("slow"));
    browser.wait("the bar to begin", &format!("{bar} > 0"));
    let mut last = browser.eval(&bar).as_f64().unwrap();
    for _ in 0..3 {
        browser.wait("the bar to move on", &format!("{bar} > {last}"));
        last = browser.eval(&bar).as_f64().unwrap();
    }
    browser.wait("a rate", &format!("/[KM]iB\\/s/.test({}.innerText)", card("slow")));
    browser.wait(
        "the chart to be drawn",
        &format!("({}.querySelector('path:last-of-type').getAttribute('d') ?? '').length > 20", card("slow")),
    );
    // The page, too, says the truth to the byte.
    let waiting = format!("{}.querySelector('[data-bytes]').dataset.bytes", card("slow"));
    browser.wait("the page to know what waits", &format!("{waiting} === '{}'", large.len()));

    // Hostile names are text.
    let shown = format!("document.getElementById('deliveries').innerText.includes({})", json!(HOSTILE));
    browser.wait("the hostile name", &shown);
    assert_eq!(browser.eval("document.querySelectorAll('img').length"), json!(0));
    assert_eq!(browser.eval("[...document.querySelectorAll('*')].some(e => e.hasAttribute('onerror'))"), json!(false));
    println!("{}", browser.screenshot("status.png").display());

    // A vessel is killed, and comes back.
    fleet.vessel("fast").stop();
    let away = browser.wait("the dead vessel to be away", &is("fast", "away"));
    println!("{}", browser.screenshot("status-away.png").display());
    assert!(browser.eval(&format!("{}.innerText", card("fast"))).as_str().unwrap().contains("next try"));
    fleet.vessel("fast").start();
    let back = browser.wait("the vessel to be back", &is("fast", "connected"));
    println!("away after {away:?}, back after {back:?}");
    assert!(away < Duration::from_secs(5) && back < Duration::from_secs(5), "away after {away:?}, back after {back:?}");

    // On a phone nothing is wider than the screen, and the keyboard reaches what scrolls.
    browser.resize(390, 844);
    browser.wait("the page to fit a phone", "document.documentElement.scrollWidth <= window.innerWidth");
    println!("{}", browser.screenshot("status-phone.png").display());
    let focusable =
        "[...document.querySelectorAll('a[href],button,[tabindex]')].filter(e => e.tabIndex >= 0).length >= 2";
    assert_eq!(browser.eval(focusable), json!(true));
    assert_eq!(browser.eval("!document.getElementById('unlock').hidden"), json!(false), "nothing can be ordered");

    fleet.vessel("slow").link().limit(0);
    fleet.wait_until_retired("large.iso");
    browser
        .wait("nothing to wait any more", "document.getElementById('summary').innerText === 'Everything is delivered'");
    daemon.terminate();
}

#[test]
fn with_the_token_a_vessel_is_paused_and_resumed_from_the_page() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").monster("ListenToken", "open sesame");
    let Some(fleet) = plan.openssh("open").start() else { return };
    let Some(browser) = Browser::start() else { return };
    let daemon = fleet.run();
    browser.open(&page_of(&daemon));
    browser.wait("the token to be asked for", "!document.getElementById('unlock').hidden");
    let (client, click) = (browser.client(), |css: &str| {
        let button = browser.runtime.block_on(browser.client().find(Locator::Css(css))).unwrap();
        browser.runtime.block_on(button.click()).unwrap();
    });
    let field = browser.runtime.block_on(client.find(Locator::Css("#token"))).unwrap();
    browser.runtime.block_on(field.send_keys("open sesame")).unwrap();
    click("#unlock button");
    for state in ["paused", "connected"] {
        browser.wait("a button", &format!("{}?.querySelector('.orders button') !== null", card("open")));
        click("[data-vessel=open] .orders button");
        browser.wait(state, &is("open", state));
    }
    daemon.terminate();
}

#[test]
fn sixty_vessels_take_a_line_each_and_names_stay_whole_on_a_phone() {
    let Some(fleet) = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("hub").start() else { return };
    let Some(browser) = Browser::start() else { return };
    let hub = fleet.vessel("hub");
    fs::write(hub.path("blocked"), b"a file").unwrap();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&format!(
        "{text}RemoteLocation.in = {}\n[Vessel replenishment-oiler-{{01..59}}]\nAddress = 127.0.0.1\nPort = 1\nUsername = {{vessel}}\n",
        hub.remote("blocked/x")
    ));
    fleet.put("a-file-with-a-name-that-is-rather-long-for-a-telephone.tar.gz", b"x");
    let daemon = fleet.run();
    browser.open(&page_of(&daemon));
    browser.wait("all to be there", "document.querySelectorAll('#vessels > li').length === 60");
    browser.wait("a put off file to show", &format!("(({}?.dataset.trouble ?? '') !== '')", card("hub")));
    browser.wait("the dead to be away", "document.querySelectorAll('#vessels > .away').length === 59");
    let reason = format!("{}.querySelector('.reason').innerText.includes('not a directory')", card("hub"));
    browser.wait("the reason to show", &reason);
    println!("{}", browser.screenshot("sixty.png").display());
    let height = browser.eval("document.getElementById('vessels').offsetHeight").as_u64().unwrap();
    println!("60 vessels are {height} px high");
    assert!(height < 4000, "60 vessels are {height} px high");
    browser.resize(390, 844);
    browser.wait("the page to fit a phone", "document.documentElement.scrollWidth <= window.innerWidth");
    println!("{}", browser.screenshot("sixty-phone.png").display());
    let broken = "[...document.querySelectorAll('#vessels h3')].filter(e => e.offsetHeight > 60).length";
    assert_eq!(browser.eval(broken), json!(0), "a name is broken letter by letter");
    let open = format!(
        "{}.querySelector('.more').click() ?? {}.querySelector('dl').offsetHeight > 0",
        card("hub"),
        card("hub")
    );
    assert_eq!(browser.eval(&open), json!(true), "a vessel opens");
    daemon.terminate();
}

/// What the book shows: two vessels, one of them slow, in the middle of their work.
#[test]
#[ignore = "draws target/screenshots/book.png, which docs/src/images/status.png is made from"]
fn the_books_picture() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("aurora").proxied().openssh("borealis").proxied();
    let Some(fleet) = plan.start() else { return };
    let Some(browser) = Browser::start() else { return };
    browser.resize(1100, 700);
    let daemon = fleet.run();
    browser.open(&page_of(&daemon));
    browser.wait("both to be connected", &format!("{} && {}", is("aurora", "connected"), is("borealis", "connected")));
    fleet.vessel("aurora").link().limit(512 << 10);
    fleet.vessel("borealis").link().limit(2 << 20);
    for (at, name) in ["tides.csv", "harbour.pdf", "notice to mariners.txt"].into_iter().enumerate() {
        fleet.put(name, &content(at as u64, 300_000 * (at + 1)));
    }
    fleet.put("chart.tif", &content(7, 40 * MIB));
    let bar = format!("Number({}?.querySelector('progress')?.value ?? 0)", card("borealis"));
    let most = format!("Number({}?.querySelector('progress')?.max ?? 1)", card("borealis"));
    browser.wait("most of it to be sent", &format!("{bar} > 0.8 * {most}"));
    browser.eval("document.documentElement.style.overflow = 'hidden'");
    println!("{}", browser.screenshot("book.png").display());
    daemon.kill9();
}
