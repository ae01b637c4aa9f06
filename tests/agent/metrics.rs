//! `/metrics`, and all files that name a metric: the table in `docs/agent.md`, the alert rules and
//! the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::sidecar::Sidecar;
use crate::cli::NodeSite;

const OPEN_METRICS: &str =
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn begin(site: &NodeSite, options: &str) -> Sidecar {
    Sidecar::start(
        site.place
            .process(&site.line(&format!("agent --repo repo --node URL {options}"))),
    )
}

/// An agent that has taken a backup, verified it and removed old ones.
fn experienced(site: &NodeSite) -> Sidecar {
    site.place
        .write("kbackup.toml", "[expire]\nkeep-last = 3\n");
    let agent = begin(
        site,
        "--config kbackup.toml --diff-schedule 1h --verify-schedule 1s --expire-schedule 1s",
    );
    for job in ["diff", "verify", "expire"] {
        agent.ran(job, "done");
    }
    agent
}

/// The names of the metrics that are exposed, and the names of their labels.
fn exposed(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");

        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let keys = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));

        found.entry(name.to_owned()).or_default().extend(keys);
    }

    found
}

/// All words of a text that look like the name of a kbackup metric.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    words
        .filter(|word| word.starts_with("kbackup_"))
        .map(str::to_owned)
        .collect()
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn documents_rules_and_dashboard_name_exactly_the_exposed_metrics() {
    let site = NodeSite::still();
    let agent = experienced(&site);
    let (head, text) = agent.get("/metrics", OPEN_METRICS);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(text.ends_with("# EOF\n"));
    let (head, plain) = agent.get("/metrics", "*/*");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let exposed = exposed(&plain);
    assert_eq!(exposed, self::exposed(&text), "the formats differ");

    let page = std::fs::read_to_string(root().join("docs/agent.md")).unwrap();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `kbackup_"));
    let documented: BTreeMap<String, BTreeSet<String>> = rows
        .map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            let labels = rest.split_once('|').unwrap().0;
            (
                format!("kbackup_{name}"),
                labels
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect(),
            )
        })
        .collect();
    assert_eq!(documented, exposed);

    for file in [
        "packaging/prometheus/kbackup.rules.yml",
        "packaging/grafana/kbackup.json",
    ] {
        let used = named(&std::fs::read_to_string(root().join(file)).unwrap());
        let unknown: Vec<_> = used
            .iter()
            .filter(|name| !exposed.contains_key(*name))
            .collect();
        assert!(
            used.len() > 8 && unknown.is_empty(),
            "{file} names {unknown:?}"
        );
    }
}

#[test]
fn the_metrics_count_the_runs_and_their_bytes() {
    let site = NodeSite::still();
    let agent = experienced(&site);
    let status = agent.status();
    let (_, text) = agent.get("/metrics", OPEN_METRICS);

    let runs = |job: &str| {
        let outcomes = ["done", "up-to-date", "failed", "skipped", "interrupted"];
        let count = |outcome| {
            value(
                &text,
                &format!("kbackup_runs_total{{verb=\"{job}\",outcome=\"{outcome}\"}}"),
            )
            .unwrap()
        };
        outcomes.into_iter().map(count).sum::<f64>()
    };

    let history = status["history"].as_array().unwrap();
    for job in ["diff", "verify", "expire"] {
        let known = history.iter().filter(|run| run["job"] == job).count();
        let known = f64::from(u32::try_from(known).unwrap());
        assert!(runs(job) >= known, "{job}: {known} in {text}");
    }

    let first = history.iter().find(|run| run["outcome"] == "done").unwrap();
    assert!(
        value(&text, "kbackup_read_bytes_total{verb=\"full\"}").unwrap()
            + value(&text, "kbackup_read_bytes_total{verb=\"diff\"}").unwrap()
            >= first["bytes_read"].as_f64().unwrap()
    );

    assert_eq!(value(&text, "kbackup_node_reachable"), Some(1.0));
    assert_eq!(
        value(&text, "kbackup_recovery_point_lag_limit_seconds"),
        Some(26.0 * 3600.0)
    );
    assert!(value(&text, "kbackup_restore_points{state=\"good\"}").unwrap() >= 1.0);
    assert_eq!(
        value(&text, "kbackup_restore_points{state=\"damaged\"}"),
        Some(0.0)
    );
    assert_eq!(value(&text, "kbackup_recovery_point_lag_bytes"), Some(0.0));
}

#[test]
fn counters_start_at_zero_with_each_agent_whatever_its_journal_holds() {
    let site = NodeSite::still();
    let agent = begin(&site, "--diff-schedule 1h");
    agent.ran("diff", "done");
    let series = "kbackup_runs_total{verb=\"diff\",outcome=\"done\"}";

    assert_eq!(
        value(&agent.get("/metrics", OPEN_METRICS).1, series),
        Some(1.0)
    );

    assert!(agent.end().success());

    let again = begin(&site, "--diff-schedule 1h");
    let text = again.get("/metrics", OPEN_METRICS).1;
    assert_eq!(value(&text, series), Some(0.0));
    assert!(
        value(
            &text,
            "kbackup_last_success_timestamp_seconds{verb=\"diff\"}"
        )
        .is_some(),
        "{text}"
    );
}
