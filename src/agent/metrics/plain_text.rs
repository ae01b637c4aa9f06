//! The older text format of Prometheus, made from `OpenMetrics`.

use std::collections::BTreeMap;

/// Rewrites `OpenMetrics` in the older format. There the description of a counter has the counter's
/// full name, and neither units nor an end are written.
pub(crate) fn plain_text(open_metrics: &str) -> String {
    let mut types = BTreeMap::new();
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            types.extend(rest.split_once(' '));
        }
    }

    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if let Some((mark, name, rest)) = description(line) {
            let (suffix, rest) = match (types.get(name), mark) {
                (Some(&"counter"), _) => ("_total", rest),
                (Some(&"info"), "# TYPE ") => ("_info", "gauge"),
                (Some(&"info"), _) => ("_info", rest),
                _ => ("", rest),
            };
            text.extend([mark, name, suffix, " ", rest, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }

    text
}

/// The mark, the name and the rest of a line that describes a metric.
fn description(line: &str) -> Option<(&'static str, &str, &str)> {
    for mark in ["# HELP ", "# TYPE "] {
        if let Some(rest) = line.strip_prefix(mark) {
            let (name, rest) = rest.split_once(' ')?;
            return Some((mark, name, rest));
        }
    }

    None
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::{Registry, Unit};

    use super::*;
    use crate::agent::metrics::{MetricSheet, one};
    use crate::agent::run_totals::RunTotals;

    #[test]
    fn the_older_format_describes_what_it_has() {
        let mut sheet = MetricSheet(Registry::with_prefix("kbackup"));
        sheet.runs(&RunTotals::default());
        sheet
            .0
            .register("build", "Program", Info::new(vec![("version", "1")]));
        sheet.gauge("lag", Some(Unit::Seconds), "Lag", one(3));

        let plain = plain_text(&sheet.text());
        for line in [
            "# TYPE kbackup_runs_total counter",
            "# HELP kbackup_build_info Program.",
            "# TYPE kbackup_build_info gauge",
            "kbackup_build_info{version=\"1\"} 1",
            "# TYPE kbackup_lag_seconds gauge",
            "kbackup_lag_seconds 3",
            "kbackup_removed_backups_total 0",
        ] {
            assert!(
                plain.lines().any(|found| found == line),
                "{line} in {plain}"
            );
        }

        assert!(
            !plain.contains("# UNIT") && !plain.contains("# EOF"),
            "{plain}"
        );
    }
}
