//! The API answers as the real nodes of `fixtures/http` did.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use kbackup_testnode::{
    AutoScavenge, AutoScavengeState, Credentials, Listen, Mark, Member, Node, Recording, Server,
    Speed, fixtures,
};
use serde_json::Value;
use tempfile::TempDir;

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A minimal HTTP client with one request per connection.
fn exchange(
    mut line: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<Reply> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    line.write_all(request.as_bytes())?;

    let mut bytes = Vec::new();
    line.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(std::io::ErrorKind::ConnectionReset.into());
    };

    let mut lines = head.lines();
    let first = lines.next().unwrap();
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();

    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();

    Ok(Reply {
        status,
        headers,
        body: body.to_owned(),
    })
}

fn send(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<Reply> {
    let line = TcpStream::connect(server.address())?;
    line.set_read_timeout(Some(Duration::from_millis(500)))?;
    exchange(line, method, path, headers)
}

fn ask(server: &Server, method: &str, path: &str) -> Reply {
    send(server, method, path, &[("Accept", "application/json")]).unwrap()
}

fn ready(name: &str) -> (TempDir, Node, Server) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named(name).unwrap(), directory.path()).unwrap();
    node.advance_to_mark(Mark::Ready).unwrap();

    let server = node.serve().unwrap();
    (directory, node, server)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{what} did not happen"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The names and types of a value. Of a list, those of its first entry.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(list) => format!("[{}]", list.first().map_or(String::new(), shape)),
        Value::Object(object) => {
            let mut members = Vec::new();
            for (name, inner) in object {
                members.push(format!("{name}: {}", shape(inner)));
            }
            format!("{{{}}}", members.join(", "))
        }
    }
}

fn recorded_exchanges(version: &str) -> Vec<Value> {
    let path = fixtures().join("http").join(format!("{version}.json"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    file["exchanges"].as_array().unwrap().clone()
}

fn header<'a>(exchange: &'a Value, name: &str) -> Option<&'a str> {
    let headers = exchange["headers"].as_array()?;
    let mut named = headers
        .iter()
        .filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.next()?[1].as_str()
}

fn answers_as_recorded(version: &str) {
    let directory = tempfile::tempdir().unwrap();
    let recording = Recording::named(&format!("{version}-append")).unwrap();
    let node = Node::start(recording, directory.path()).unwrap();
    node.advance_to_mark(Mark::Ready).unwrap();
    node.advance_to(node.step() + 300).unwrap();
    let server = node.serve().unwrap();
    node.change_quirks(|quirks| {
        quirks.cancel_delay = Duration::from_millis(300);
        quirks.scavenge_duration = Duration::from_millis(300);
    });

    let mut ids: HashMap<String, String> = HashMap::new();
    let exchanges = recorded_exchanges(version);
    assert!(exchanges.len() > 40);

    for recorded in exchanges {
        let name = recorded["name"].as_str().unwrap();
        let method = recorded["request"]["method"].as_str().unwrap();
        let mut path = recorded["request"]["path"].as_str().unwrap().to_owned();
        let wanted = recorded["body"].as_str().unwrap_or_default();
        for (theirs, ours) in &ids {
            path = path.replace(theirs, ours);
        }

        let headers: Vec<(&str, &str)> = recorded["request"]["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();

        let answers = recorded.get("error").is_none();
        // The recorded scavenges were over when these answers came. Here they last as long as they
        // must.
        let nothing_runs =
            (method == "POST" && path.starts_with("/admin/scavenge") && recorded["status"] == 200)
                || (path == "/admin/scavenge/current" && wanted.contains("\"\""))
                || wanted.contains("Success\"\n}");
        if nothing_runs {
            until("the end of the scavenge", || {
                node.current_scavenge().is_none()
            });
        }

        node.change_quirks(|quirks| quirks.drop_delete_answers = !answers && method == "DELETE");
        let reply = send(&server, method, &path, &headers);
        if !answers {
            assert!(reply.is_err(), "{version} {name}: answered {reply:?}");
            continue;
        }
        let reply = reply.unwrap_or_else(|error| panic!("{version} {name}: {error}"));

        assert_eq!(
            recorded["status"], reply.status,
            "{version} {name}: {reply:?}"
        );
        assert_eq!(
            header(&recorded, "content-type"),
            reply.headers.get("content-type").map(String::as_str),
            "{version} {name}"
        );
        if reply.status == 405 {
            assert_eq!(
                header(&recorded, "access-control-allow-methods"),
                reply
                    .headers
                    .get("access-control-allow-methods")
                    .map(String::as_str),
                "{version} {name}"
            );
        }

        match serde_json::from_str::<Value>(wanted) {
            Ok(wanted_json) => {
                let found = reply.json();
                assert_eq!(shape(&wanted_json), shape(&found), "{version} {name}");
                if method == "POST"
                    && let (Some(theirs), Some(ours)) = (
                        wanted_json["scavengeId"].as_str(),
                        found["scavengeId"].as_str(),
                    )
                {
                    ids.insert(theirs.to_owned(), ours.to_owned());
                }

                let mut mapped = wanted.to_owned();
                for (theirs, ours) in &ids {
                    mapped = mapped.replace(theirs, ours);
                }
                if path.starts_with("/admin/scavenge") {
                    assert_eq!(mapped, reply.body, "{version} {name}");
                }
            }
            Err(_) => assert_eq!(wanted, reply.body, "{version} {name}"),
        }
    }
}

#[test]
fn answers_as_20_10() {
    answers_as_recorded("20.10");
}

#[test]
fn answers_as_21_10() {
    answers_as_recorded("21.10");
}

#[test]
fn answers_as_22_10() {
    answers_as_recorded("22.10");
}

#[test]
fn answers_as_23_10() {
    answers_as_recorded("23.10");
}

#[test]
fn answers_as_24_10() {
    answers_as_recorded("24.10");
}

#[test]
fn answers_as_26_1() {
    answers_as_recorded("26.1");
}

#[test]
fn the_values_of_the_answers_come_from_the_directory() {
    let (_directory, node, server) = ready("26.1-append");
    node.advance_to(2000).unwrap();
    let gossip = ask(&server, "GET", "/gossip").json();
    let me = &gossip["members"][0];
    let writer = node
        .checkpoint(kbackup_testnode::Checkpoint::Writer)
        .unwrap();
    assert_eq!(me["writerCheckpoint"], writer);
    assert_eq!(me["httpEndPointPort"], gossip["serverPort"]);
    assert_eq!(me["epochNumber"], 0);
    assert_ne!(me["epochId"], "00000000-0000-0000-0000-000000000000");
    assert!(me["lastCommitPosition"].as_i64().unwrap() < writer);
    assert!(me["lastCommitPosition"].as_i64().unwrap() > 0);

    let options = ask(&server, "GET", "/info/options").json();
    let option = |name: &str| {
        let option = options
            .as_array()
            .unwrap()
            .iter()
            .find(|option| option["name"] == name);
        option.unwrap()["value"].as_str().unwrap().to_owned()
    };

    assert_eq!(option("Db"), node.db().display().to_string());
    assert_eq!(option("Index"), node.index().display().to_string());
    assert_eq!(option("ChunkSize"), "262144");
    assert_eq!(ask(&server, "GET", "/stats/es/checksum").json(), writer);
    assert_eq!(ask(&server, "GET", "/info").json()["dbVersion"], "26.1.0");
}

#[test]
fn a_node_that_is_down_accepts_no_connection() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("26.1-kill").unwrap(), directory.path()).unwrap();
    let server = node.serve().unwrap();
    assert_eq!(ask(&server, "GET", "/health/live").status, 503);
    node.advance_to_mark(Mark::Ready).unwrap();
    assert_eq!(ask(&server, "GET", "/health/live").status, 204);

    let identity =
        |server: &Server| ask(server, "GET", "/gossip").json()["members"][0]["instanceId"].clone();
    let (before, began) = (
        identity(&server),
        ask(&server, "GET", "/stats/proc").json()["startTime"].clone(),
    );

    node.advance_to_mark(Mark::Killed).unwrap();
    assert!(send(&server, "GET", "/info", &[]).is_err());

    node.advance_to_mark(Mark::Ready).unwrap();
    assert_eq!(ask(&server, "GET", "/info").json()["state"], "leader");
    assert_ne!(identity(&server), before);
    assert_ne!(
        ask(&server, "GET", "/stats/proc").json()["startTime"],
        began
    );
}

#[test]
fn a_connection_breaks_when_the_node_stops() {
    let (_directory, node, server) = ready("26.1-kill");
    let mut line = TcpStream::connect(server.address()).unwrap();
    line.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = b"GET /ping HTTP/1.1\r\nHost: node\r\n\r\n";
    line.write_all(request).unwrap();
    let mut bytes = [0; 4096];
    assert!(line.read(&mut bytes).unwrap() > 0);

    node.advance_to_mark(Mark::Killed).unwrap();
    let _broken_already = line.write_all(request);
    assert!(!matches!(line.read(&mut bytes), Ok(1..)));
}

#[test]
fn a_delete_brings_a_recorded_scavenge_to_its_end() {
    for name in ["22.10-scavenge", "26.1-scavenge", "26.1-scavenge-stopped"] {
        let (_directory, node, server) = ready(name);
        let scavenge = node.recording().scavenges[0].clone();
        node.advance_to(scavenge.begin + 20).unwrap();

        let id = scavenge.id.to_string();
        assert_eq!(
            ask(&server, "GET", "/admin/scavenge/current").json()["scavengeId"],
            id,
            "{name}"
        );

        assert!(node.step() < scavenge.end - 40);
        let reply = ask(&server, "DELETE", &format!("/admin/scavenge/{id}"));
        assert_eq!(
            (reply.status, reply.json()),
            (200, id.clone().into()),
            "{name}"
        );

        assert_eq!(
            ask(&server, "GET", "/admin/scavenge/current").json()["scavengeId"],
            id
        );

        assert!(node.owes_scavenge());
        until("an empty current", || {
            ask(&server, "GET", "/admin/scavenge/current").json()["scavengeId"] == ""
        });

        assert_eq!(node.step(), scavenge.end);
        let db = node.index().join("scavenging");
        assert!(db.join("scavenging.db").exists());
        assert!(
            !db.join("scavenging.db-wal").exists(),
            "{name}: the scavenge has not removed its journal"
        );

        if !name.starts_with("22") {
            assert_eq!(
                ask(&server, "GET", "/admin/scavenge/last").json()["scavengeResult"],
                "Stopped"
            );
        }
    }
}

#[test]
fn a_waiting_scavenge_begins_when_it_is_given_back() {
    let (_directory, node, server) = ready("26.1-scavenge");
    let [first, second] = &node.recording().scavenges[..] else {
        panic!("two scavenges")
    };
    node.advance_to(first.begin + 10).unwrap();
    assert_eq!(
        ask(&server, "DELETE", "/admin/scavenge/current").status,
        200
    );

    until("an empty current", || node.current_scavenge().is_none());
    node.run(Speed::Fastest);
    node.wait_for_step(second.begin, Duration::from_secs(10))
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(node.step(), second.begin);

    node.hold_at(second.begin + 5);
    let reply = ask(&server, "POST", "/admin/scavenge?syncOnly=true");
    assert_eq!(reply.json()["scavengeId"], second.id.to_string());
    node.wait_for_step(second.begin + 5, Duration::from_secs(10))
        .unwrap();
    assert_eq!(node.current_scavenge(), Some(second.id));
    assert!(!node.owes_scavenge());

    node.resume();
    node.wait_for_end(Duration::from_secs(20)).unwrap();
}

#[test]
fn a_delete_without_an_answer_stops_the_scavenge_too() {
    let (_directory, node, server) = ready("24.10-append");
    node.change_quirks(|quirks| quirks.drop_delete_answers = true);
    let id = node.start_scavenge(None).unwrap();
    assert_eq!(node.current_scavenge(), Some(id));
    assert!(send(&server, "DELETE", "/admin/scavenge/current", &[]).is_err());
    until("an empty current", || node.current_scavenge().is_none());
    assert_eq!(
        ask(&server, "GET", "/admin/scavenge/last").json()["scavengeResult"],
        "Stopped"
    );
}

#[test]
fn scavenges_up_to_21_10_are_visible_in_their_streams() {
    let (_directory, node, server) = ready("21.10-scavenge");
    assert_eq!(
        ask(&server, "GET", "/streams/$scavenges?embed=body").status,
        404
    );
    let scavenge = node.recording().scavenges[0].clone();

    node.advance_to(scavenge.end - 60).unwrap();
    let types = |path: &str| -> Vec<String> {
        let feed = ask(&server, "GET", path).json();
        let entries = feed["entries"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["eventType"].as_str().unwrap().to_owned())
            .collect()
    };

    assert_eq!(
        types("/streams/$scavenges?embed=body"),
        ["$scavengeStarted"]
    );

    assert_eq!(
        ask(
            &server,
            "DELETE",
            &format!("/admin/scavenge/{}", scavenge.id)
        )
        .status,
        200
    );
    until("the end", || {
        types("/streams/$scavenges?embed=body") == ["$scavengeCompleted", "$scavengeStarted"]
    });

    let own = types(&format!(
        "/streams/$scavenges/{}/head/20?embed=body",
        scavenge.id
    ));
    assert_eq!(own.first().map(String::as_str), Some("$scavengeCompleted"));

    let feed = ask(&server, "GET", "/streams/%24scavenges?embed=body").json();
    let data: Value = serde_json::from_str(feed["entries"][0]["data"].as_str().unwrap()).unwrap();
    assert_eq!(data["nodeEndpoint"], server.address().to_string());
    assert_eq!(data["scavengeId"], scavenge.id.to_string());
}

#[test]
fn the_node_asks_for_credentials() {
    let (_directory, node, server) = ready("26.1-append");
    let mut credentials = Credentials::operator("ops", "changeit");
    credentials.token = Some("secret".to_owned());
    node.change_quirks(|quirks| quirks.credentials = Some(credentials.clone()));
    let get = |path: &str, authorization: &str| {
        send(
            &server,
            "GET",
            path,
            &[
                ("Accept", "application/json"),
                ("Authorization", authorization),
            ],
        )
        .unwrap()
    };

    let anonymous = ask(&server, "GET", "/admin/scavenge/current");
    assert_eq!(anonymous.status, 401);
    assert!(!anonymous.headers.contains_key("www-authenticate"));
    assert_eq!(
        ask(&server, "GET", "/info").json()["authentication"]["type"],
        "internal"
    );

    let wrong = get("/admin/scavenge/current", "Basic b3BzOndyb25n");
    assert_eq!(wrong.status, 401);
    assert_eq!(wrong.headers["www-authenticate"], "X-Basic realm=\"ESDB\"");
    assert_eq!(
        get("/admin/scavenge/current", "Basic b3BzOmNoYW5nZWl0").status,
        200
    );
    assert_eq!(get("/admin/scavenge/current", "Bearer secret").status, 200);
    assert_eq!(
        get("/admin/login", "Bearer secret").json()["data"]["loginName"],
        "ops"
    );

    node.change_quirks(|quirks| quirks.credentials.as_mut().unwrap().operator = false);
    assert_eq!(get("/admin/scavenge/current", "Bearer secret").status, 401);
    assert_eq!(get("/admin/login", "Bearer secret").status, 200);

    node.change_quirks(|quirks| quirks.user_store_unavailable = true);
    assert_eq!(
        get("/admin/login", "Bearer secret").headers["retry-after"],
        "5"
    );
}

#[test]
fn auto_scavenge_can_be_paused() {
    let (_directory, node, server) = ready("26.1-append");
    node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::InProgress);
        quirks.pausing_for = Duration::from_millis(100);
    });

    assert_eq!(
        ask(&server, "GET", "/auto-scavenge/enabled").body,
        "{\"enabled\":true}"
    );

    assert_eq!(ask(&server, "POST", "/auto-scavenge/pause").status, 202);
    assert_eq!(ask(&server, "POST", "/auto-scavenge/resume").status, 400);
    assert_eq!(
        ask(&server, "GET", "/auto-scavenge/status").json()["state"],
        "Pausing"
    );

    until("Paused", || {
        ask(&server, "GET", "/auto-scavenge/status").json()["state"] == "Paused"
    });
    assert_eq!(ask(&server, "POST", "/auto-scavenge/pause").status, 200);
    assert_eq!(ask(&server, "POST", "/auto-scavenge/resume").status, 200);
    assert_eq!(node.auto_scavenge(), Some(AutoScavengeState::Waiting));

    node.change_quirks(|quirks| quirks.auto_scavenge_proxied = true);
    assert_eq!(ask(&server, "POST", "/auto-scavenge/pause").status, 202);
    assert_eq!(node.auto_scavenge(), Some(AutoScavengeState::Paused));
}

#[test]
fn the_gossip_may_name_other_members_and_other_nodes() {
    let (_directory, node, server) = ready("24.10-append");
    node.change_quirks(|quirks| {
        quirks.state = Some("Follower".to_owned());
        quirks.members = vec![Member::new("Leader", "10.0.0.2", 2113).with_writer(1 << 40)];
    });

    let gossip = ask(&server, "GET", "/gossip").json();
    assert_eq!(gossip["members"][0]["state"], "Follower");
    assert_eq!(gossip["members"][1]["writerCheckpoint"], 1_i64 << 40);
    assert_eq!(
        gossip["members"][1]["epochId"],
        gossip["members"][0]["epochId"]
    );
    assert_eq!(ask(&server, "GET", "/info").json()["state"], "follower");

    node.change_quirks(|quirks| quirks.other_node_every = Some(2));
    let identity = || ask(&server, "GET", "/gossip").json()["members"][0]["instanceId"].clone();
    assert_ne!(identity(), identity());
}

#[test]
fn every_quirk_changes_the_answers() {
    let (_directory, node, server) = ready("26.1-append");
    node.change_quirks(|quirks| quirks.redirect_to = Some("http://elsewhere:2113".to_owned()));
    assert_eq!(
        ask(&server, "GET", "/info").headers["location"],
        "http://elsewhere:2113/info"
    );

    node.change_quirks(|quirks| *quirks = Default::default());
    node.change_quirks(|quirks| quirks.body = Some("{\"members\": 17".to_owned()));
    assert_eq!(ask(&server, "GET", "/gossip").body, "{\"members\": 17");

    node.change_quirks(|quirks| {
        *quirks = Default::default();
        quirks.padding = 1 << 20;
    });
    assert!(ask(&server, "GET", "/info").body.len() > 1 << 20);

    node.change_quirks(|quirks| {
        *quirks = Default::default();
        quirks.admin_ui_disabled = true;
    });
    assert_eq!(ask(&server, "GET", "/admin/scavenge/current").status, 404);

    node.change_quirks(|quirks| quirks.never_answer = true);
    assert!(send(&server, "GET", "/info", &[]).is_err());
    node.change_quirks(|quirks| quirks.never_answer = false);

    node.forget_requests();
    send(&server, "GET", "/ping?x=1", &[("X-Thing", "7")]).unwrap();
    let requests = node.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0].method.as_str(), requests[0].path.as_str()),
        ("GET", "/ping?x=1")
    );
    assert_eq!(requests[0].header("x-thing"), Some("7"));
    assert_eq!(requests[0].status, Some(200));
}

#[test]
fn the_unix_socket_needs_no_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let recording = Recording::named("26.1-append").unwrap();
    let node = Node::start(recording, directory.path().join("node")).unwrap();
    node.advance_to_mark(Mark::Ready).unwrap();
    node.change_quirks(|quirks| {
        quirks.credentials = Some(Credentials::operator("ops", "changeit"))
    });

    let path = node.db().join("kurrent.sock");
    let listen = Listen {
        unix_socket: Some(path.clone()),
        ..Listen::default()
    };
    let server = node.serve_on(&listen).unwrap();

    assert_eq!(ask(&server, "GET", "/admin/scavenge/current").status, 401);

    let line = UnixStream::connect(&path).unwrap();
    let reply = exchange(
        line,
        "GET",
        "/admin/scavenge/current",
        &[("Accept", "application/json")],
    )
    .unwrap();
    assert_eq!(reply.status, 200);
    assert!(node.requests().last().unwrap().by_socket);

    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_pause_of_auto_scavenge_stops_its_scavenge_and_holds_the_next_one() {
    let (_directory, node, server) = ready("26.1-scavenge");
    let [first, second] = &node.recording().scavenges[..] else {
        panic!("two scavenges")
    };
    node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::InProgress)
    });

    node.advance_to(first.begin + 10).unwrap();
    assert_eq!(ask(&server, "POST", "/auto-scavenge/pause").status, 202);
    until("Paused", || {
        node.auto_scavenge() == Some(AutoScavengeState::Paused)
    });
    until("an empty current", || node.current_scavenge().is_none());
    assert!(!node.owes_scavenge());

    node.run(Speed::Fastest);
    node.wait_for_step(second.begin, Duration::from_secs(10))
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(node.step(), second.begin);

    node.hold_at(second.begin + 1);
    assert_eq!(ask(&server, "POST", "/auto-scavenge/resume").status, 200);
    node.wait_for_step(second.begin + 1, Duration::from_secs(10))
        .unwrap();

    node.change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::NoLeader);
    assert_eq!(ask(&server, "POST", "/auto-scavenge/pause").status, 500);
}

#[test]
fn a_delete_may_be_slow() {
    let (_directory, node, server) = ready("26.1-append");
    node.change_quirks(|quirks| quirks.delete_takes = Duration::from_millis(200));
    node.start_scavenge(None).unwrap();
    let begun = Instant::now();
    assert_eq!(
        ask(&server, "DELETE", "/admin/scavenge/current").status,
        200
    );
    assert!(begun.elapsed() >= Duration::from_millis(200));
}
