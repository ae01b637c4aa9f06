//! The metrics that Prometheus reads. Gauges come from the [`Status`], counters from the
//! [`RunTotals`]. Nothing is remembered here.
//!
//! To add a metric, add it to [`state`] (node and repository) or [`runs`] (jobs), and to the table
//! in `docs/agent.md`.

mod plain_text;
mod runs;
mod state;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};

pub(super) use self::plain_text::plain_text;
use super::run_totals::RunTotals;
use super::status::Status;
use crate::clock::Timestamp;

/// The content type of `OpenMetrics`, which Prometheus asks for.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the older format, for all others.
pub(super) const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and values of labels. There are only a few values, because no text from outside becomes a
/// label.
type Labels = Vec<(&'static str, &'static str)>;

/// All metrics in the `OpenMetrics` text format.
pub(super) fn open_metrics(status: &Status, totals: &RunTotals) -> String {
    let mut sheet = MetricSheet(Registry::with_prefix("kbackup"));
    sheet.verdict(status);
    sheet.agent(status);
    sheet.node(status);
    sheet.exposure(status);
    sheet.newest_backup(status);
    sheet.times(status);
    sheet.looks(status);
    sheet.repository(status);
    sheet.jobs(&status.jobs);
    sheet.running(status);
    sheet.runs(totals);
    sheet.pauses(totals);

    sheet.text()
}

/// The metrics of one answer.
struct MetricSheet(Registry);

impl MetricSheet {
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        encode(&mut text, &self.0).unwrap_or_default();
        text
    }

    fn gauge(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.metric(name, unit, help, values, set_gauge);
    }

    fn counter(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.metric(name, unit, help, values, set_counter);
    }

    fn metric<M: Metric + TypedMetric + Clone + Default, V>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
        set: impl Fn(&M, V),
    ) {
        let family = Family::<Labels, M>::default();
        for (labels, value) in values {
            if labels.is_empty() {
                let alone = M::default();
                set(&alone, value);
                return self.register(name, unit, help, alone);
            }

            set(&family.get_or_create_owned(&labels), value);
        }

        self.register(name, unit, help, family);
    }

    fn register(&mut self, name: &str, unit: Option<Unit>, help: &str, metric: impl Metric) {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric),
            None => self.0.register(name, help, metric),
        }
    }
}

fn set_gauge(gauge: &Gauge<u64, AtomicU64>, value: u64) {
    gauge.set(value);
}

fn set_counter(counter: &Counter, value: u64) {
    counter.inc_by(value);
}

/// A metric without labels.
fn one(value: u64) -> [(Labels, u64); 1] {
    [(Labels::new(), value)]
}

/// A metric without labels that may be absent.
fn maybe(value: Option<u64>) -> Option<(Labels, u64)> {
    value.map(|value| (Labels::new(), value))
}

/// 1 for true, 0 for false.
fn flag(holds: bool) -> u64 {
    u64::from(holds)
}

/// Seconds since 1970. Nothing here was earlier.
fn second(moment: Timestamp) -> u64 {
    u64::try_from(moment.as_second()).unwrap_or(0)
}
