//! The page's readers: who may read it, and that no reader blocks it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kbackup_testnode::Synthetic;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};

use super::page::browser::Browser;
use super::sidecar::Sidecar;
use crate::cli::Place;

/// An agent whose repository is missing. Its status is bad, but its page works.
fn agent(place: &Place, options: &str) -> Sidecar {
    Sidecar::start(place.process(&format!(
        "agent --node http://127.0.0.1:1 --repo repo --diff-schedule off \
             --verify-schedule 7d {options}"
    )))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

struct Answer {
    code: u16,
    headers: HeaderMap,
    text: String,
}

fn ask(sidecar: &Sidecar, method: Method, path: &str, password: Option<&str>) -> Answer {
    wait(async {
        let request = Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .request(method, format!("http://{}{path}", sidecar.address()));
        let request = match password {
            Some(password) => request.basic_auth("jane", Some(password)),
            None => request,
        };

        let response = request.send().await.unwrap();
        let (code, headers) = (response.status().as_u16(), response.headers().clone());

        Answer {
            code,
            headers,
            text: response.text().await.unwrap(),
        }
    })
}

fn get(sidecar: &Sidecar, path: &str) -> Answer {
    ask(sidecar, Method::GET, path, None)
}

fn raw(sidecar: &Sidecar, host: &str) -> String {
    let mut stream = TcpStream::connect(sidecar.address()).unwrap();
    write!(
        stream,
        "GET /status.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_page_can_only_be_read_and_loads_nothing_from_elsewhere() {
    let place = Place::new();
    let sidecar = agent(&place, "");
    let page = get(&sidecar, "/");
    assert_eq!(page.code, 200);

    let header = |answer: &Answer, name: &str| {
        let value = answer.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };

    assert!(
        header(&page, "content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'; style-src 'self'; img-src 'self';")
    );
    assert_eq!(header(&page, "cache-control").as_deref(), Some("no-store"));
    assert_eq!(
        header(&page, "x-content-type-options").as_deref(),
        Some("nosniff")
    );

    let html = page.text;
    let mut links = Vec::new();
    for link in html.split("<link ").skip(1) {
        let (_, from_link) = link.split_once("href=\"").unwrap();
        links.push(from_link.split_once('"').unwrap().0);
    }
    assert_eq!(links.len(), 2);

    for link in links {
        let part = get(&sidecar, &format!("/{link}"));
        assert_eq!(
            (
                part.code,
                header(&part, "x-content-type-options").as_deref()
            ),
            (200, Some("nosniff")),
            "{link}"
        );
    }

    for path in ["/", "/status.json", "/healthz", "/metrics", "/nothing"] {
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ] {
            assert_eq!(
                ask(&sidecar, method.clone(), path, None).code,
                405,
                "{method} {path}"
            );
        }
    }

    assert_eq!(get(&sidecar, "/nothing").code, 404);
    assert_eq!(get(&sidecar, "/healthz").text, "alive\n");
    assert_eq!(get(&sidecar, "/readyz").code, 503);

    let status: serde_json::Value =
        serde_json::from_str(&get(&sidecar, "/status.json").text).unwrap();
    assert_eq!(status["schema"], "kbackup.status/1");
}

#[test]
fn a_request_for_another_host_name_is_refused() {
    let place = Place::new();
    let sidecar = agent(&place, "--listen-host backups.example");
    for (host, code) in [
        ("localhost:2114", 200),
        (sidecar.address(), 200),
        ("backups.example", 200),
        ("evil.example", 421),
    ] {
        assert!(
            raw(&sidecar, host).starts_with(&format!("HTTP/1.1 {code} ")),
            "{host}"
        );
    }
}

#[test]
fn the_page_asks_for_a_password_that_may_change() {
    let place = Place::new();
    place.write("password", "old one\n");
    let sidecar = agent(&place, "--listen-user jane --listen-password-file password");
    let code = |password: Option<&str>, path: &str| ask(&sidecar, Method::GET, path, password).code;
    for path in ["/", "/status.json", "/metrics"] {
        assert_eq!(
            [None, Some("new: ünë"), Some(""), Some("old one")]
                .map(|password| code(password, path)),
            [401, 401, 401, 200],
            "{path}"
        );
    }

    assert_eq!(
        [
            code(None, "/healthz"),
            code(None, "/readyz"),
            code(Some("old one"), "/readyz")
        ],
        [200, 401, 503]
    );

    place.write("password", "new: ünë\n");
    sidecar.reload();
    assert_eq!(
        [code(Some("old one"), "/"), code(Some("new: ünë"), "/")],
        [401, 200]
    );

    let log = sidecar.log();
    assert!(!log.contains("old one") && !log.contains("ünë"), "{log}");
}

/// The password of `kbackup status` comes from a file or from the environment.
#[test]
fn the_verb_status_asks_with_a_password() {
    let place = Place::new();
    place.write("password", "secret\n");
    let sidecar = agent(&place, "--listen-user jane --listen-password-file password");
    let line = format!(
        "status --agent http://{} --agent-user jane",
        sidecar.address()
    );
    let asks = |command: &mut assert_cmd::Command| {
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };

    // The agent's repository is missing, so its answer is that the node is not safe.
    let (mut with_file, mut with_variable) = (place.kbackup(&line), place.kbackup(&line));
    with_file.args(["--agent-password-file", "password"]);
    with_variable.env("KBACKUP_AGENT_PASSWORD", "secret");
    for mut command in [with_file, with_variable] {
        let (code, said) = asks(&mut command);
        assert!(code == Some(1) && said.contains("not safe"), "{said}");
    }

    let (code, said) = asks(&mut place.kbackup(&line));
    assert!(
        code == Some(2) && said.contains("`KBACKUP_AGENT_PASSWORD`"),
        "{said}"
    );
    let (_, said) = asks(&mut place.kbackup(&format!("{line} --repo repo")));
    assert!(said.contains("the agent cannot be asked"), "{said}");
}

#[test]
fn incomplete_settings_of_the_page_are_refused() {
    let place = Place::new();
    place.write("password", "secret\n");
    for (options, word) in [
        ("--listen-user jane", "KBACKUP_LISTEN_PASSWORD"),
        ("--listen-password-file password", "--listen-user"),
        ("--listen-user j:d --listen-password-file password", "colon"),
        ("--listen-certificate-file password", "--listen-key-file"),
        (
            "--listen-certificate-file password --listen-key-file password",
            "cannot be encrypted",
        ),
    ] {
        let output = place
            .kbackup(&format!(
                "agent --node http://127.0.0.1:1 --repo repo --listen 127.0.0.1:0 {options}"
            ))
            .output()
            .unwrap();

        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && said.contains(word),
            "{options}: {said}"
        );
    }
}

#[test]
fn an_open_address_without_a_password_warns() {
    let place = Place::new();
    let mut command =
        place.process("agent --node http://127.0.0.1:1 --repo repo --diff-schedule off");
    command.env("KBACKUP_LISTEN", "0.0.0.0:0");
    let sidecar = Sidecar::start_at_its_address(command);
    sidecar.soon("the warning", |sidecar| {
        sidecar.log().contains("asks for no password").then_some(())
    });
}

/// Certificates for 127.0.0.1.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(place: &Place, authority: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, authority)
        .unwrap();
    place.write("page.pem", &certificate.pem());
    place.write("page.key", &key.serialize_pem());
}

#[test]
fn the_page_is_encrypted_and_uses_a_renewed_certificate() {
    let place = Place::new();
    let (first, second) = (authority(), authority());
    issue(&place, &first);
    let sidecar = agent(
        &place,
        "--listen-certificate-file page.pem --listen-key-file page.key",
    );

    let reads = |authority: &CertifiedIssuer<'static, KeyPair>| {
        let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        let url = format!("https://{}/", sidecar.address());
        wait(async {
            Client::builder()
                .no_proxy()
                .tls_certs_only([root])
                .build()
                .unwrap()
                .get(url)
                .send()
                .await
        })
        .is_ok()
    };

    assert_eq!([reads(&first), reads(&second)], [true, false]);

    place.write("page.pem", "half a certificate");
    assert_eq!([reads(&first), reads(&second)], [true, false]);

    issue(&place, &second);
    assert_eq!([reads(&first), reads(&second)], [false, true]);
    assert_eq!(
        sidecar
            .log()
            .matches("new certificate cannot be used")
            .count(),
        1
    );

    if let Some(browser) = Browser::start() {
        browser.visit(&format!("https://{}/", sidecar.address()));
        let shown = "return getComputedStyle(document.querySelector('.verdict')).display \
                     + document.querySelector('.word').textContent";
        assert_eq!(browser.ask(shown), "flexDanger");
    }
}

/// There are more connections than the agent serves at once. Some say nothing, and some never end.
#[test]
fn a_silent_reader_blocks_no_other() {
    let place = Place::new();
    let sidecar = agent(&place, "");
    let mut silent = Vec::new();
    for number in 0..80 {
        let mut stream = TcpStream::connect(sidecar.address()).unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nX-").unwrap();
        }
        silent.push(stream);
    }

    let began = Instant::now();
    assert_eq!(get(&sidecar, "/healthz").code, 200);
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "the agent served all connections at once"
    );
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );

    drop(silent);
}

/// Runs the commands that the page shows.
#[test]
fn the_commands_of_the_page_restore() {
    let place = Place::new();
    let made = Synthetic {
        filter_bytes: 10_000,
        table_entries: 200,
        ..Synthetic::of_size(1 << 20, 256 << 10)
    }
    .make(place.path("node"))
    .unwrap();

    let repository = place.path("it's a repository");
    let mut full = place.process("full --offline --log error --db");
    assert!(
        full.arg(made.db)
            .arg("--repo")
            .arg(&repository)
            .status()
            .unwrap()
            .success()
    );

    let mut command = place.process(
        "agent --node http://127.0.0.1:1 --diff-schedule off --verify-schedule @monthly --repo",
    );
    command.arg(&repository);
    let sidecar = Sidecar::start(command);
    sidecar.shows("the backup", |status| status["newest"].is_string());

    let html = get(&sidecar, "/").text;
    let (_, from_commands) = html.split_once("<pre").unwrap();
    let (_, from_code) = from_commands.split_once("<code>").unwrap();
    let (commands, _) = from_code.split_once("</code>").unwrap();

    let program = Path::new(crate::executable::PATH).parent().unwrap();
    let path = std::env::join_paths([
        program.to_owned(),
        PathBuf::from("/usr/bin"),
        PathBuf::from("/bin"),
    ])
    .unwrap();

    let script = commands.replace("--to DIR", "--to restored");
    let shell = std::process::Command::new("sh")
        .args(["-e", "-c", &script])
        .env_clear()
        .envs(crate::executable::ENVIRONMENT)
        .env("PATH", path)
        .current_dir(place.path(""))
        .output()
        .unwrap();

    assert!(
        shell.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&shell.stderr)
    );
    assert!(place.path("restored/writer.chk").exists());
}
