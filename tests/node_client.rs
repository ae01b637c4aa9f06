//! The client against what real nodes answered, and against servers that answer badly.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may end in a panic"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kbackup::error::{Kind, Signal};
use kbackup::event::Silent;
use kbackup::node::{
    AutoScavenge, Client, Connection, Credentials, CurrentScavenge, NodeState, Patience,
    ScavengeExtent, ScavengeStart, ScavengeStop, Session, TimeLimits,
};
use kbackup::run::Run;
use kbackup::server::facts;

use crate::http_server::{Answer, Exchanges, Request, Server, VERSIONS};
use crate::timing::assert_soon;

fn run() -> Run {
    Run::new(Silent)
}

/// Limits that keep a test short.
fn brief(url: &str) -> Connection {
    let limits = TimeLimits {
        connect: Duration::from_secs(2),
        answer: Duration::from_millis(700),
        patience: Duration::from_millis(1500),
    };
    Connection {
        limits,
        ..Connection::new(url)
    }
}

fn client(server: &Server) -> Client {
    Client::new(&brief(&server.url)).unwrap()
}

fn replay(version: &str) -> Server {
    let exchanges = Exchanges::of(version);
    Server::start(move |request| exchanges.to(request))
}

#[test]
fn reads_the_answers_of_every_version() {
    let run = run();
    let patience = Patience::of(&run);

    for version in VERSIONS {
        let server = replay(version);
        let client = client(&server);
        let info = client.info(patience).unwrap();
        assert!(
            info.version().unwrap().as_str().starts_with(version),
            "{version}: {:?}",
            info.version()
        );
        assert_eq!(info.state, Some(NodeState::Leader), "{version}");
        assert!(info.is_insecure(), "{version}");

        let options = client.options(patience).unwrap();
        assert_eq!(options.cluster_size(), Some(1), "{version}");
        assert!(options.value("db").is_some(), "{version}");
        assert!(options.is_on("Insecure"), "{version}");
        assert!(client.is_healthy(patience).unwrap(), "{version}");
        assert!(
            client
                .process(patience)
                .unwrap()
                .unwrap()
                .start_time
                .unwrap()
                .starts_with("2026-11-21T"),
            "{version}"
        );
        assert_eq!(
            client.flushed(patience).unwrap().unwrap().get(),
            733,
            "{version}"
        );

        client.check_login(patience).unwrap();

        if version != "20.10" {
            let gossip = client.gossip(patience).unwrap().unwrap();
            let me = gossip.me().unwrap();
            assert_eq!(
                (me.state.clone(), me.is_alive, gossip.endpoint().as_str()),
                (NodeState::Leader, true, "127.0.0.1:2113"),
                "{version}"
            );
            assert_eq!(me.epoch_position().unwrap().get(), 0, "{version}");
        }

        let current = client.current_scavenge(patience).unwrap();
        let supported = info.version().unwrap().has(facts::NAMES_CURRENT_SCAVENGE);
        assert_eq!(
            current,
            if supported {
                CurrentScavenge::Idle
            } else {
                CurrentScavenge::NotSupported
            },
            "{version}"
        );
        assert_eq!(
            client.last_scavenge(patience).unwrap().is_some(),
            info.version().unwrap().has(facts::NAMES_LAST_SCAVENGE),
            "{version}"
        );
        assert_eq!(
            client.auto_scavenge(patience).unwrap(),
            AutoScavenge::Absent,
            "{version}"
        );

        let events = client.scavenge_events(patience).unwrap();
        assert!(
            events
                .iter()
                .any(|event| event.result.is_none() && event.endpoint == "127.0.0.1:2113"),
            "{version}: {events:?}"
        );
        assert!(
            events.iter().any(|event| event.result.is_some()),
            "{version}"
        );
    }
}

#[test]
fn reads_the_answers_of_every_version_about_a_scavenge() {
    let run = run();
    let patience = Patience::of(&run);
    // For what is never answered.
    let short = patience.within(Duration::from_millis(300));

    for version in VERSIONS {
        let exchanges = Exchanges::of(version);
        let state = Arc::new(std::sync::Mutex::new(String::new()));
        let told = Arc::clone(&state);
        let server = Server::start(move |_| exchanges.named(&told.lock().unwrap()));
        let client = client(&server);
        let now = |name: &str| *state.lock().unwrap() = name.to_owned();

        now("scavenge post");
        assert!(
            matches!(
                client
                    .start_scavenge(ScavengeExtent::Whole, 1, 100, patience)
                    .unwrap(),
                ScavengeStart::Started(_)
            ),
            "{version}"
        );

        if !["20.10", "21.10"].contains(&version) {
            now("scavenge post while running");
            assert!(
                matches!(
                    client
                        .start_scavenge(ScavengeExtent::Unfinished, 1, 100, patience)
                        .unwrap(),
                    ScavengeStart::AlreadyRunning(_)
                ),
                "{version}"
            );

            now("scavenge current, running");
            assert!(
                matches!(
                    client.current_scavenge(patience).unwrap(),
                    CurrentScavenge::Running(_)
                ),
                "{version}"
            );

            now("scavenge delete running id");
            assert_eq!(
                client.stop_scavenge("any", patience).unwrap(),
                ScavengeStop::Stopped,
                "{version}"
            );

            now("scavenge post throttlePercent=0");
            assert!(
                matches!(
                    client
                        .start_scavenge(ScavengeExtent::Unfinished, 1, 100, patience)
                        .unwrap(),
                    ScavengeStart::Refused(_)
                ),
                "{version}"
            );
        } else {
            now("scavenge delete wrong id while running");
            assert!(
                matches!(
                    client.current_scavenge_of_old_server(patience).unwrap(),
                    CurrentScavenge::Running(_)
                ),
                "{version}"
            );

            now("scavenge delete unknown id");
            assert_eq!(
                client.current_scavenge_of_old_server(patience).unwrap(),
                CurrentScavenge::Idle,
                "{version}"
            );
        }

        now("scavenge delete current, idle");
        assert_eq!(
            client.stop_scavenge("current", patience).unwrap(),
            ScavengeStop::NotRunning(None),
            "{version}"
        );

        if ["22.10", "26.1"].contains(&version) {
            now("scavenge delete current");
            assert_eq!(
                client.stop_scavenge("current", short).unwrap(),
                ScavengeStop::NoAnswer,
                "{version}"
            );
        }
    }
}

#[test]
fn sends_requests_as_the_specification_wants() {
    let server = replay("26.1");
    let connection = Connection {
        credentials: Some(Credentials::Basic {
            user: "admin".to_owned(),
            password: "wrong".into(),
        }),
        ..brief(&server.url)
    };
    let client = Client::new(&connection).unwrap();
    let run = run();
    client.current_scavenge(Patience::of(&run)).unwrap();
    client.is_healthy(Patience::of(&run)).unwrap();
    client
        .start_scavenge(ScavengeExtent::Unfinished, 1, 25, Patience::of(&run))
        .unwrap_err();
    client
        .start_scavenge(ScavengeExtent::Unfinished, 2, 25, Patience::of(&run))
        .unwrap_err();
    client
        .stop_scavenge("../evil?x", Patience::of(&run))
        .unwrap();
    let heard = server.heard();

    for request in &heard {
        assert_eq!(request.header("Accept"), Some("application/json"));
        assert_eq!(request.header("Accept-Encoding"), Some("identity"));
        assert_eq!(
            request.header("Content-Length"),
            (request.method != "GET").then_some("0"),
            "{request:?}"
        );
    }

    assert_eq!(
        heard[0].header("Authorization"),
        Some("Basic YWRtaW46d3Jvbmc=")
    );
    assert_eq!(
        heard[1].header("Authorization"),
        None,
        "health is asked without credentials"
    );
    assert_eq!(
        heard[2].path,
        "/admin/scavenge?syncOnly=true&threads=1&throttlePercent=25"
    );
    assert_eq!(
        heard[3].path, "/admin/scavenge?syncOnly=true&threads=2",
        "a throttle is refused with several threads"
    );
    assert_eq!(heard[4].path, "/admin/scavenge/evilx");
}

#[test]
fn opens_a_session_with_every_version() {
    for version in VERSIONS {
        let server = replay(version);
        let run = run();
        let session = Session::open(client(&server), &run).unwrap();
        assert_eq!(
            session.whereabouts().instance.is_some(),
            version != "20.10",
            "{version}: a single 20.10 does not gossip"
        );
        assert!(session.whereabouts().started.is_some());
        session.check(Patience::of(&run)).unwrap();
        assert!(run.warnings().is_empty());
        if version == "20.10" {
            assert_eq!(server.count("GET", "/gossip"), 0, "it would never answer");
        }
    }
}

/// A gossip of one node, with another instance or endpoint.
fn gossip_as(exchanges: &Exchanges, instance: &str, port: u16) -> Answer {
    let Answer::Reply { body, .. } = exchanges.named("gossip") else {
        panic!("no gossip")
    };
    let mut gossip: serde_json::Value = serde_json::from_str(&body).unwrap();
    gossip["members"][0]["instanceId"] = instance.into();
    gossip["members"][0]["httpEndPointPort"] = port.into();
    gossip["serverPort"] = port.into();
    Answer::json(gossip.to_string())
}

#[test]
fn notices_a_load_balancer_and_a_restart() {
    let exchanges = Exchanges::of("24.10");
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.path.as_str() {
        "/gossip" => {
            let port = 2113 + u16::try_from(asked.fetch_add(1, Ordering::SeqCst) % 3).unwrap();
            gossip_as(
                &exchanges,
                &format!("00000000-0000-0000-0000-00000000{port}"),
                port,
            )
        }
        _ => exchanges.to(request),
    });
    let error = Session::open(client(&server), &run()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.hints()[0].contains("load balancer"), "{error:?}");

    let exchanges = Exchanges::of("24.10");
    let restarted = Arc::new(AtomicUsize::new(0));
    let generation = Arc::clone(&restarted);
    let server = Server::start(move |request| match request.path.as_str() {
        "/gossip" => gossip_as(
            &exchanges,
            &format!(
                "00000000-0000-0000-0000-00000000000{}",
                generation.load(Ordering::SeqCst)
            ),
            2113,
        ),
        _ => exchanges.to(request),
    });
    let run = run();
    let session = Session::open(client(&server), &run).unwrap();
    restarted.store(1, Ordering::SeqCst);
    let error = session.check(Patience::of(&run)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unstable, "{error}");
    assert_eq!(
        session.gossip(Patience::of(&run)).unwrap_err().kind(),
        Kind::Unstable
    );
}

#[test]
fn names_the_trouble_with_the_credentials() {
    let answers = [
        (None, Answer::status(401), "asks for credentials"),
        (
            Some("hunter2"),
            Answer::status(401).with_header("WWW-Authenticate", "X-Basic realm=\"ESDB\""),
            "does not accept",
        ),
        (Some("hunter2"), Answer::status(401), "do not suffice"),
        (Some("hunter2"), Answer::status(403), "do not suffice"),
        (
            Some("hunter2"),
            Answer::status(302).with_header("Location", "/ui/access-denied"),
            "do not suffice",
        ),
    ];

    for (password, answer, expected) in answers {
        let server = Server::start(move |_| answer.clone());
        let credentials = password.map(|password| Credentials::Basic {
            user: "ops".to_owned(),
            password: password.into(),
        });
        let client = Client::new(&Connection {
            credentials,
            ..brief(&server.url)
        })
        .unwrap();
        let error = client.options(Patience::of(&run())).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.what().contains(expected), "{error}");
        assert!(!error.hints().is_empty());
        assert!(!format!("{error:?} {client:?}").contains("hunter2"));
        assert_eq!(
            server.heard().len(),
            1,
            "a refusal is not asked again: it could lock the user out"
        );
    }
}

#[test]
fn follows_no_redirect() {
    let elsewhere = Server::start(|_| Answer::json("{}"));
    let target = elsewhere.url.clone();
    let server = Server::start(move |_| {
        Answer::status(307).with_header("Location", &format!("{target}/info"))
    });
    let credentials = Some(Credentials::Bearer("hunter2".into()));
    let client = Client::new(&Connection {
        credentials,
        ..brief(&server.url)
    })
    .unwrap();
    let error = client.info(Patience::of(&run())).unwrap_err();

    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error
            .what()
            .contains(elsewhere.url.trim_start_matches("http://")),
        "{error}"
    );
    assert!(elsewhere.heard().is_empty());
    assert_eq!(
        server.heard()[0].header("Authorization"),
        Some("Bearer hunter2")
    );
}

#[test]
fn survives_invalid_answers() {
    let answers = [
        (Answer::text(200, "<html>hello</html>"), Kind::Failed),
        (Answer::json("{\"members\": 3}"), Kind::Failed),
        (Answer::json("[]"), Kind::Failed),
        (Answer::json("{\"state\": \"leader\""), Kind::Failed),
        (Answer::status(500), Kind::Failed),
        (Answer::status(406), Kind::Failed),
        (
            Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
            Kind::Unreachable,
        ),
        (
            Answer::Raw(b"\x16\x03\x01\x02\x00".to_vec()),
            Kind::Unreachable,
        ),
        (Answer::Raw(Vec::new()), Kind::Unreachable),
        (Answer::Endless, Kind::Failed),
        (Answer::Never, Kind::Unreachable),
        (Answer::status(503), Kind::Unreachable),
        (Answer::status(408), Kind::Unreachable),
    ];

    for (answer, kind) in answers {
        let shown = format!("{answer:?}");
        let server = Server::start(move |_| answer.clone());
        let begun = Instant::now();
        let error = client(&server).info(Patience::of(&run())).unwrap_err();
        assert_eq!(error.kind(), kind, "{shown}: {error:?}");
        assert!(
            error.place().is_some_and(|place| place.ends_with("/info")),
            "{error:?}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{shown} took {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn tries_again_while_a_node_comes_up() {
    let exchanges = Exchanges::of("26.1");
    let asked = AtomicUsize::new(0);
    let server =
        Server::start(
            move |request: &Request| match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Answer::status(503).with_header("Retry-After", "5"),
                1 => Answer::Raw(Vec::new()),
                2 => Answer::status(408),
                _ => exchanges.to(request),
            },
        );
    client(&server).info(Patience::of(&run())).unwrap();
    assert_eq!(server.heard().len(), 4);
}

#[test]
fn silence_of_an_old_server_is_not_idleness() {
    for answer in [Answer::Never, Answer::status(408), Answer::Raw(Vec::new())] {
        let server = Server::start(move |_| answer.clone());
        let run = run();
        let error = client(&server)
            .current_scavenge_of_old_server(Patience::of(&run))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
    }
    let server = Server::start(|_| Answer::json("\"an id\""));
    assert_eq!(
        client(&server)
            .current_scavenge_of_old_server(Patience::of(&run()))
            .unwrap_err()
            .kind(),
        Kind::Failed
    );
}

#[test]
fn never_repeats_the_request_to_start_a_scavenge() {
    for answer in [Answer::Raw(Vec::new()), Answer::Never, Answer::status(408)] {
        let server = Server::start(move |_| answer.clone());
        let run = run();
        let start = client(&server)
            .start_scavenge(ScavengeExtent::Unfinished, 1, 100, Patience::of(&run))
            .unwrap();
        assert_eq!(start, ScavengeStart::NoAnswer);
        assert_eq!(server.heard().len(), 1);
    }
}

#[test]
fn reports_a_node_that_is_not_reachable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = Client::new(&brief(&format!("http://127.0.0.1:{port}")))
        .unwrap()
        .info(Patience::of(&run()))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(!error.hints().is_empty() && !error.causes().is_empty());
}

#[test]
fn stops_waiting_when_interrupted() {
    assert_soon(Duration::from_secs(1), interrupted_while_waiting);
}

/// How long after the interruption the client returned, or a little longer.
fn interrupted_while_waiting() -> Duration {
    let server = Server::start(|_| Answer::Never);
    let client = Client::new(&Connection::new(&server.url)).unwrap();
    let run = Arc::new(run());
    let interrupted = Arc::clone(&run);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        interrupted.interrupt(Signal::Terminate);
    });
    let begun = Instant::now();
    let error = client.info(Patience::of(&run)).unwrap_err();
    let took = begun.elapsed();
    assert_eq!(
        error.kind(),
        Kind::Interrupted(kbackup::error::Cause::Signal(Signal::Terminate))
    );

    let error = client
        .info(Patience::regardless(Duration::from_millis(500)))
        .unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::Unreachable,
        "giving back goes on after an interruption"
    );
    took
}

#[test]
fn talks_through_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kurrent.sock");
    let exchanges = Exchanges::of("26.1");
    let server = Server::start_unix(&socket, move |request| exchanges.to(request));
    let client = Client::new(&Connection {
        unix_socket: Some(socket.clone()),
        ..brief(&server.url)
    })
    .unwrap();
    Session::open(client.clone(), &run()).unwrap();
    assert!(client.place().starts_with("unix:"));
    assert!(server.heard().len() > 3);
}

mod tls {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
        directory: tempfile::TempDir,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer =
                CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            Self {
                issuer,
                directory: tempfile::tempdir().unwrap(),
            }
        }

        fn file(&self) -> PathBuf {
            self.write("ca.pem", &self.issuer.pem())
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![name.to_owned()])
                .unwrap()
                .signed_by(&key, &self.issuer)
                .unwrap();
            (certificate, key)
        }

        fn serve(&self, name: &str, client_authority: Option<CertificateDer<'static>>) -> Server {
            let (certificate, key) = self.issue(name);
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap();
            let builder = match client_authority {
                None => builder.with_no_client_auth(),
                Some(authority) => {
                    let mut roots = rustls::RootCertStore::empty();
                    roots.add(authority).unwrap();
                    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                        Arc::new(roots),
                        provider,
                    )
                    .build()
                    .unwrap();
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            let config = builder
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
            let exchanges = Exchanges::of("26.1");

            Server::start_tls(config, move |request| exchanges.to(request))
        }
    }

    #[test]
    fn trusts_only_the_named_authority() {
        let (authority, other) = (Authority::new(), Authority::new());
        let server = authority.serve("127.0.0.1", None);
        let with = |ca_files: Vec<PathBuf>| {
            Client::new(&Connection {
                ca_files,
                ..brief(&server.url)
            })
            .unwrap()
        };
        with(vec![authority.file()])
            .info(Patience::of(&run()))
            .unwrap();
        for client in [with(Vec::new()), with(vec![other.file()])] {
            let error = client.info(Patience::of(&run())).unwrap_err();
            assert_eq!(error.kind(), Kind::Unreachable);
            assert!(error.hints()[0].contains("--ca-file"), "{error:?}");
        }

        Client::new(&Connection {
            insecure_skip_verify: true,
            ..brief(&server.url)
        })
        .unwrap()
        .info(Patience::of(&run()))
        .unwrap();
    }

    #[test]
    fn expects_the_server_name_of_the_settings() {
        let authority = Authority::new();
        let server = authority.serve("node.internal", None);
        let connection = Connection {
            ca_files: vec![authority.file()],
            ..brief(&server.url)
        };
        let error = Client::new(&connection)
            .unwrap()
            .info(Patience::of(&run()))
            .unwrap_err();
        assert!(
            error.hints()[0].contains("host name is in the certificate"),
            "{error:?}"
        );

        let connection = Connection {
            server_name: Some("node.internal".to_owned()),
            ..connection
        };
        Client::new(&connection)
            .unwrap()
            .info(Patience::of(&run()))
            .unwrap();
        assert_eq!(
            server.heard()[0].header("Host").unwrap().split(':').next(),
            Some("node.internal")
        );

        for bad in ["", "10.0.0.1", "a b"] {
            let connection = Connection {
                server_name: Some(bad.to_owned()),
                ..connection.clone()
            };
            assert_eq!(
                Client::new(&connection).unwrap_err().kind(),
                Kind::Usage,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn presents_its_client_certificate() {
        let authority = Authority::new();
        let server = authority.serve("127.0.0.1", Some(authority.issuer.der().clone()));
        let connection = Connection {
            ca_files: vec![authority.file()],
            ..brief(&server.url)
        };
        assert_eq!(
            Client::new(&connection)
                .unwrap()
                .info(Patience::of(&run()))
                .unwrap_err()
                .kind(),
            Kind::Unreachable
        );

        let (certificate, key) = authority.issue("ops");
        let files = kbackup::node::ClientCertificate {
            certificate: authority.write("ops.pem", &certificate.pem()),
            key: authority.write("ops.key", &key.serialize_pem()),
        };
        let connection = Connection {
            client_certificate: Some(files),
            ..connection
        };
        Client::new(&connection)
            .unwrap()
            .info(Patience::of(&run()))
            .unwrap();
    }

    #[test]
    fn refuses_files_without_a_certificate() {
        let authority = Authority::new();
        let missing = authority.directory.path().join("missing.pem");

        for file in [
            missing,
            authority.write("empty.pem", ""),
            authority.write("text.pem", "hello"),
        ] {
            let error = Client::new(&Connection {
                ca_files: vec![file],
                ..brief("https://127.0.0.1:1")
            })
            .unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{error:?}");
            assert!(error.place().is_some());
        }

        let secret = authority.write(
            "secret.key",
            "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
        );
        let files = kbackup::node::ClientCertificate {
            certificate: authority.file(),
            key: secret,
        };
        let error = Client::new(&Connection {
            client_certificate: Some(files),
            ..brief("https://127.0.0.1:1")
        })
        .unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
