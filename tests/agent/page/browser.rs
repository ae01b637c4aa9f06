//! A real browser, controlled through the HTTP of its driver (WebDriver).

#![expect(clippy::print_stderr, reason = "what is left out is said")]

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kbackup::agent::page::{STYLE, STYLE_NAME};
use serde_json::{Value, json};

const CHROMIUM: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";

/// A screen on which a page is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// In pixels.
    pub(super) width: u64,
    height: u64,
    /// True if the browser asks for dark pages.
    pub(super) is_dark: bool,
}

impl Screen {
    pub(super) const WIDE: Self = Self {
        width: 1280,
        height: 900,
        is_dark: false,
    };
    pub(super) const NARROW: Self = Self {
        width: 320,
        height: 640,
        is_dark: false,
    };

    pub(super) const fn dark(self) -> Self {
        Self {
            is_dark: true,
            ..self
        }
    }
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}",
            self.width,
            if self.is_dark { "dark" } else { "light" }
        )
    }
}

pub(crate) struct Browser {
    driver: Child,
    session: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    place: tempfile::TempDir,
}

impl Browser {
    /// Prints a note and returns `None` if this machine has no browser.
    pub(crate) fn start() -> Option<Self> {
        if [CHROMIUM, DRIVER]
            .iter()
            .any(|program| !Path::new(program).exists())
        {
            eprintln!(
                "skipped: {CHROMIUM} and {DRIVER} are not there (Debian: chromium, chromium-driver)"
            );
            return None;
        }

        let place = tempfile::tempdir().unwrap();
        let mut driver = Command::new(DRIVER)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();

        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // The driver must not block because nobody reads its output.
        std::thread::spawn(move || lines.for_each(drop));

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();

        let mut browser = Self {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            client,
            runtime,
            place,
        };

        let profile = format!(
            "--user-data-dir={}",
            browser.place.path().join("profile").display()
        );
        let quiet = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--hide-scrollbars",
        ];
        let alone = [
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &profile,
        ];

        let arguments = [&quiet[..], &alone[..]].concat();

        let options = json!({ "binary": CHROMIUM, "args": arguments });
        let capabilities = json!({
            "goog:chromeOptions": options,
            "acceptInsecureCerts": true,
        });

        let answer = browser.post(
            "",
            &json!({ "capabilities": { "alwaysMatch": capabilities } }),
        );

        browser.session += &format!("/{}", answer["sessionId"].as_str().unwrap());

        Some(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.session);
        let answer: Value = self.runtime.block_on(async {
            self.client
                .post(url)
                .json(body)
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap()
        });
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }

    /// Opens a page from the disk, with its style sheet beside it.
    pub(super) fn open(&self, html: &str) {
        std::fs::write(self.place.path().join("index.html"), html).unwrap();
        std::fs::write(self.place.path().join(&*STYLE_NAME), STYLE).unwrap();
        self.visit(&format!(
            "file://{}/index.html",
            self.place.path().display()
        ));
    }

    pub(crate) fn visit(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    pub(super) fn set(&self, screen: Screen) {
        let scheme = if screen.is_dark { "dark" } else { "light" };
        self.tell(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
        self.metrics(screen.width, screen.height);
    }

    fn metrics(&self, width: u64, height: u64) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tell("Emulation.setDeviceMetricsOverride", &metrics);
    }

    fn tell(&self, command: &str, parameters: &Value) -> Value {
        self.post(
            "/goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    pub(crate) fn ask(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// A picture of the visible page, as PNG.
    pub(super) fn screenshot(&self, screen: Screen) -> Vec<u8> {
        let height = self
            .ask("return document.documentElement.scrollHeight")
            .as_u64()
            .unwrap()
            .min(2400);
        let clip = json!({ "x": 0, "y": 0, "width": screen.width, "height": height, "scale": 1 });

        let answer = self.tell(
            "Page.captureScreenshot",
            &json!({ "captureBeyondViewport": true, "format": "png", "clip": clip }),
        );
        base64_of_the_driver::decode(answer["data"].as_str().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(
            self.runtime
                .block_on(async { self.client.delete(&self.session).send().await }),
        );
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

/// Decodes base64, in which the driver sends pictures.
mod base64_of_the_driver {
    pub(super) fn decode(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

        let values = text
            .bytes()
            .filter_map(|byte| ALPHABET.iter().position(|known| *known == byte));

        let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len()), 0_u32, 0_u32);

        for value in values {
            held = (held << 6 | u32::try_from(value).unwrap()) & 0xFF_FFFF;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push(u8::try_from(held >> bits & 0xFF).unwrap());
            }
        }

        bytes
    }
}
