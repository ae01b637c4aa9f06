//! The executable, in the manner of scripts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

fn testnode() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kbackup-testnode"))
}

fn output(arguments: &[&str]) -> Vec<Value> {
    let output = testnode().args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn run_announces_the_node_and_ends_with_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = testnode()
        .args([
            "run",
            "--recording",
            "26.1-append",
            "--speed",
            "fastest",
            "--dir",
        ])
        .arg(directory.path().join("node"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let announced: Value = serde_json::from_str(&line).unwrap();
    let address = announced["url"]
        .as_str()
        .unwrap()
        .strip_prefix("http://")
        .unwrap();

    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /info HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"state\": \"leader\""), "{answer}");
    assert!(
        std::path::Path::new(announced["db"].as_str().unwrap())
            .join("writer.chk")
            .exists()
    );

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn replay_stops_at_the_step_of_until() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    let lines = output(&[
        "replay",
        "--recording",
        "26.1-kill",
        "--until",
        "killed",
        "--dir",
        dir,
    ]);
    assert_eq!(lines[0]["step"], 2652);
}

#[test]
fn make_makes_a_directory_and_append_extends_it() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    let made = &output(&[
        "make",
        "--dir",
        dir,
        "--size",
        "5MiB",
        "--chunk-size",
        "2MiB",
        "--filter-size",
        "10000",
    ])[0];
    assert!(made["writer"].as_u64().unwrap() > 4 << 20);
    let appended = &output(&["append", "--dir", dir, "--bytes", "1MiB"])[0];
    assert!(appended["writer"].as_u64().unwrap() >= made["writer"].as_u64().unwrap() + (1 << 20));
}

#[test]
fn make_can_make_many_small_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    let made = &output(&[
        "make",
        "--dir",
        dir,
        "--chunks",
        "50",
        "--chunk-size",
        "4KiB",
        "--filter-size",
        "10000",
    ])[0];
    assert_eq!(made["writer"].as_u64().unwrap() / 4096, 50);
    let chunks = std::fs::read_dir(made["db"].as_str().unwrap())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("chunk-")
        });
    assert_eq!(chunks.count(), 51);
}

#[test]
fn list_names_the_recordings() {
    let lines = output(&["list"]);
    assert_eq!(lines.len(), 28);
    assert!(
        lines
            .iter()
            .any(|line| line["recording"] == "26.1-scavenge" && line["scavenges"] == 2)
    );
}
