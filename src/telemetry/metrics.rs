//! The recorder behind `GET /metrics`.

use std::sync::OnceLock;
use std::time::Duration;

use chrono::Utc;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::names::{self, Kind};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// From one millisecond (group commit) over one block and finality (a few seconds, under Alpenglow at once) to the minutes of an
/// outage, seconds.
const STAGE_BUCKETS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0,
    60.0, 120.0, 300.0, 900.0, 3600.0,
];

/// An answer takes milliseconds, and never longer than the request limit, seconds.
const HTTP_BUCKETS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// A batch contains one to a thousand items.
const ITEM_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// The first attempt, and up to `TOKENIZATION_MAX_RETRY_ATTEMPTS` retries: 10 at most.
const ATTEMPT_BUCKETS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 11.0];

/// A mint transaction has at most 1,232 bytes in the legacy format, 4,096 in v1.
const TRANSACTION_BYTES_BUCKETS: &[f64] = &[
    300.0, 500.0, 700.0, 900.0, 1100.0, 1232.0, 1600.0, 2000.0, 2400.0, 2800.0, 3200.0, 4096.0,
];

/// How often samples of histograms are moved into their buckets.
const DRAIN_SAMPLES_INTERVAL: Duration = Duration::from_secs(5);

/// The process's metrics. `metrics` has one recorder per process, so several servers in one process share it.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder at the first call; later calls return the same one.
    pub fn install() -> Result<Metrics, BuildError> {
        static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
        static INSTALLING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        // If another caller panicked under the lock, the cell still shows whether the recorder is installed.
        let _one_at_a_time = INSTALLING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(handle) = RECORDER.get() {
            return Ok(Metrics(handle.clone()));
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Full(names::HTTP_REQUEST_SECONDS.to_owned()),
                HTTP_BUCKETS,
            )?
            .set_buckets_for_metric(
                Matcher::Full(names::RPC_CALL_SECONDS.to_owned()),
                HTTP_BUCKETS,
            )?
            .set_buckets_for_metric(
                Matcher::Full(names::MINT_TRANSACTION_READINGS.to_owned()),
                ITEM_BUCKETS,
            )?
            .set_buckets_for_metric(
                Matcher::Full(names::MINT_ATTEMPTS.to_owned()),
                ATTEMPT_BUCKETS,
            )?
            .set_buckets_for_metric(
                Matcher::Full(names::MINT_TRANSACTION_SIZE_BYTES.to_owned()),
                TRANSACTION_BYTES_BUCKETS,
            )?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), STAGE_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_items".to_owned()), ITEM_BUCKETS)?
            .install_recorder()?;
        register_all();
        Ok(Metrics(RECORDER.get_or_init(|| handle).clone()))
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Moves samples into their buckets: a process that is not scraped would otherwise keep every sample.
    pub fn sample_task(&self) -> PeriodicTask {
        let timing = Timing::new("metric samples", DRAIN_SAMPLES_INTERVAL);
        PeriodicTask::new(timing, SampleDrain(self.0.clone()))
    }
}

struct SampleDrain(PrometheusHandle);

impl Periodic for SampleDrain {
    async fn run(&mut self) -> Result<(), RunError> {
        self.0.run_upkeep();
        Ok(())
    }
}

/// Registers every metric with its help text and its first value.
fn register_all() {
    for metric in names::ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
        if metric.by_endpoint {
            continue;
        }
        let label_sets: Vec<Vec<metrics::Label>> = match metric.label {
            None => vec![Vec::new()],
            Some((label, values)) => values
                .iter()
                .map(|value| vec![metrics::Label::from_static_parts(label, value)])
                .collect(),
        };
        for labels in label_sets {
            match metric.kind {
                Kind::Counter => metrics::counter!(metric.name, labels).absolute(0),
                Kind::Gauge => metrics::gauge!(metric.name, labels).set(metric.first),
                // Registering is enough: the exporter prints it with no samples.
                Kind::Histogram => drop(metrics::histogram!(metric.name, labels)),
            }
        }
    }
    metrics::gauge!(names::PROCESS_START_TIME_SECONDS).set(metric_value(Utc::now().timestamp()));
    metrics::gauge!(names::BUILD_INFO, "version" => names::VERSION).set(1.0);
}

/// A count as the value of a gauge or a histogram, which are floats.
pub fn metric_value(count: impl TryInto<i128>) -> f64 {
    // There is no lossless conversion: a count above 2^53 is rounded, which no reader of a metric notices.
    count.try_into().unwrap_or(i128::MAX) as f64
}

/// A stage in the life of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Stored,
    Queued,
    Picked,
    Signed,
    Sent,
    Confirmed,
    Finalized,
    Delivered,
}

impl Stage {
    /// Value of the label `stage`, one of [`names::STAGES`].
    pub const fn label(self) -> &'static str {
        match self {
            Stage::Stored => "stored",
            Stage::Queued => "queued",
            Stage::Picked => "picked",
            Stage::Signed => "signed",
            Stage::Sent => "sent",
            Stage::Confirmed => "confirmed",
            Stage::Finalized => "finalized",
            Stage::Delivered => "delivered",
        }
    }
}

/// Records that a reading reached the stage this long after it was accepted.
pub fn observe_stage(stage: Stage, since_acceptance: Duration) {
    metrics::histogram!(names::READING_STAGE_SECONDS, "stage" => stage.label())
        .record(since_acceptance);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_exists_from_the_start_with_help_and_a_first_value() {
        let metrics = Metrics::install().unwrap();
        let again = Metrics::install().unwrap();
        let text = again.render();
        for metric in names::ALL.iter().filter(|metric| !metric.by_endpoint) {
            let help = format!("# HELP {} {}", metric.name, metric.help);
            assert!(text.contains(&help), "no help for {}", metric.name);
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let of_type = format!("# TYPE {} {kind}", metric.name);
            assert!(text.contains(&of_type), "{} is not a {kind}", metric.name);
            let suffix = if metric.kind == Kind::Histogram {
                "_count"
            } else {
                ""
            };
            let first = match metric.label {
                None => format!("\n{}{suffix} ", metric.name),
                Some((label, values)) => {
                    format!("\n{}{suffix}{{{label}=\"{}\"}} ", metric.name, values[0])
                }
            };
            assert!(text.contains(&first), "{} has no value", metric.name);
        }
        drop(metrics);
    }

    #[test]
    fn a_value_that_was_not_measured_yet_is_not_zero() {
        let text = Metrics::install().unwrap().render();
        for name in [
            names::FEE_PAYER_BALANCE_LAMPORTS,
            names::FEE_PAYER_RUNWAY_SECONDS,
        ] {
            assert!(text.contains(&format!("\n{name} NaN\n")), "{name}");
        }
        let zero = format!("\n{} 0\n", names::SWEEP_FINISHED_TIMESTAMP_SECONDS);
        assert!(text.contains(&zero));
    }

    #[test]
    fn stages_land_in_buckets() {
        let metrics = Metrics::install().unwrap();
        observe_stage(Stage::Delivered, Duration::from_millis(450));
        let text = metrics.render();
        let bucket =
            r#"gridtokenx_reading_stage_duration_seconds_bucket{stage="delivered",le="0.5"} "#;
        let line = text.lines().find(|line| line.starts_with(bucket)).unwrap();
        let count: u64 = line[bucket.len()..].parse().unwrap();
        assert!(count >= 1);
    }

    #[test]
    fn every_stage_is_a_value_of_its_label() {
        let stages = [
            Stage::Stored,
            Stage::Queued,
            Stage::Picked,
            Stage::Signed,
            Stage::Sent,
            Stage::Confirmed,
            Stage::Finalized,
            Stage::Delivered,
        ];
        assert_eq!(stages.map(Stage::label), names::STAGES);
    }
}
