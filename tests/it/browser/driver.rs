//! A real browser, driven through chromedriver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleet::wait::{DEADLINE, wait_for};

/// A command of chromedriver for the developer tools.
#[derive(Debug)]
struct Devtools(Value);

impl WebDriverCompatibleCommand for Devtools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (hyper::Method, Option<String>) {
        (hyper::Method::POST, Some(self.0.to_string()))
    }
}

/// A browser of its own; ends with the test.
pub(super) struct Browser {
    driver: Child,
    runtime: tokio::runtime::Runtime,
    client: Option<Client>,
    _profile: TempDir,
}

impl Browser {
    pub(super) fn start() -> Option<Self> {
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

    pub(super) fn open(&self, address: &str) {
        self.runtime.block_on(self.client().goto(&format!("http://{address}/"))).unwrap();
    }

    /// What a script in the page returns.
    pub(super) fn eval(&self, script: &str) -> Value {
        self.runtime.block_on(self.client().execute(&format!("return {script}"), Vec::new())).unwrap()
    }

    /// Waits until a script in the page returns `true`; gives how long that took.
    #[track_caller]
    pub(super) fn wait(&self, what: &str, script: &str) -> Duration {
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

    pub(super) fn screenshot(&self, name: &str) -> PathBuf {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
        fs::create_dir_all(&place).unwrap();
        let picture = self.runtime.block_on(self.client().screenshot()).unwrap();
        fs::write(place.join(name), picture).unwrap();
        place.join(name)
    }

    /// Gives an order to the browser's developer tools.
    pub(super) fn devtools(&self, order: &Value) {
        let order = Devtools(order.clone());
        self.runtime.block_on(self.client().issue_cmd(order)).unwrap();
    }

    pub(super) fn resize(&self, width: u32, height: u32) {
        self.runtime.block_on(self.client().set_window_size(width, height)).unwrap();
    }

    #[track_caller]
    pub(super) fn click(&self, css: &str) {
        let button =
            self.runtime.block_on(self.client().find(Locator::Css(css))).unwrap_or_else(|e| panic!("{css}: {e}"));
        self.runtime.block_on(button.click()).unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    pub(super) fn type_in(&self, css: &str, text: &str) {
        let field = self.runtime.block_on(self.client().find(Locator::Css(css))).unwrap();
        self.runtime.block_on(field.send_keys(text)).unwrap();
    }

    /// Presses a key, wherever the focus is.
    pub(super) fn press(&self, key: char) {
        let element = self.runtime.block_on(self.client().active_element()).unwrap();
        self.runtime.block_on(element.send_keys(&key.to_string())).unwrap();
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
