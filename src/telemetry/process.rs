//! Metrics of this process and its runtime, measured at each scrape.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use tokio::runtime::{Handle, RuntimeMetrics};

use super::metrics::metric_value;
use super::names;

/// Measures and sets the metrics. Must be called within the runtime. A value that this system does not provide keeps its last
/// value.
pub fn update_process_metrics() {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let millis = usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds();
        metrics::counter!(names::PROCESS_CPU_MILLISECONDS)
            .absolute(u64::try_from(millis).unwrap_or_default());
    }
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        metrics::gauge!(names::PROCESS_MAX_FDS).set(metric_value(limit));
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!(names::PROCESS_OPEN_FDS).set(metric_value(descriptors.count()));
    }
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!(names::PROCESS_RESIDENT_MEMORY_BYTES).set(metric_value(bytes));
    }
    update_runtime_metrics(&Handle::current().metrics());
}

fn resident_bytes() -> Option<u64> {
    resident_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// From the text of `/proc/PID/status`, see proc_pid_status(5).
fn resident_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn update_runtime_metrics(runtime: &RuntimeMetrics) {
    let workers = runtime.num_workers();
    metrics::gauge!(names::RUNTIME_WORKERS).set(metric_value(workers));
    metrics::gauge!(names::RUNTIME_ALIVE_TASKS).set(metric_value(runtime.num_alive_tasks()));
    metrics::gauge!(names::RUNTIME_GLOBAL_QUEUE_TASKS)
        .set(metric_value(runtime.global_queue_depth()));
    let busy: u128 = (0..workers)
        .map(|worker| runtime.worker_total_busy_duration(worker).as_millis())
        .sum();
    metrics::counter!(names::RUNTIME_BUSY_MILLISECONDS)
        .absolute(u64::try_from(busy).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn memory_is_read_from_the_status_file() {
        let status = "Name:\tx\nVmRSS:\t    5316 kB\nThreads:\t1\n";
        assert_eq!(resident_in(status), Some(5_443_584));
        assert_eq!(resident_in("Name:\tx\n"), None, "a kernel thread has none");
    }

    #[tokio::test]
    async fn a_process_reports_its_resources() {
        let metrics = Metrics::install().unwrap();
        update_process_metrics();
        let text = metrics.render();
        let figure = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap().parse().unwrap()
        };
        let open = figure(names::PROCESS_OPEN_FDS);
        assert!(open >= 3.0 && open <= figure(names::PROCESS_MAX_FDS));
        assert!(figure(names::PROCESS_RESIDENT_MEMORY_BYTES) > 1_000_000.0);
        assert!(figure(names::PROCESS_START_TIME_SECONDS) > 1_700_000_000.0);
        assert!(figure(names::RUNTIME_WORKERS) >= 1.0);
    }
}
