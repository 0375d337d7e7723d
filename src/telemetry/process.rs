//! This process and its runtime, looked at when somebody scrapes: nothing is kept up to date that nobody reads.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use tokio::runtime::{Handle, RuntimeMetrics};

use super::names;

/// Sets the figures. To be called within the runtime. What this system does not tell keeps its last value.
pub fn show_process() {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let millis = usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds();
        metrics::counter!(names::PROCESS_CPU_MILLISECONDS)
            .absolute(u64::try_from(millis).unwrap_or_default());
    }
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        metrics::gauge!(names::PROCESS_MAX_FDS).set(limit as f64);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!(names::PROCESS_OPEN_FDS).set(descriptors.count() as f64);
    }
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!(names::PROCESS_RESIDENT_MEMORY_BYTES).set(bytes as f64);
    }
    show_runtime(&Handle::current().metrics());
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

fn show_runtime(runtime: &RuntimeMetrics) {
    let workers = runtime.num_workers();
    metrics::gauge!(names::RUNTIME_WORKERS).set(workers as f64);
    metrics::gauge!(names::RUNTIME_ALIVE_TASKS).set(runtime.num_alive_tasks() as f64);
    metrics::gauge!(names::RUNTIME_GLOBAL_QUEUE_TASKS).set(runtime.global_queue_depth() as f64);
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
    async fn a_process_shows_what_it_uses() {
        let metrics = Metrics::install().unwrap();
        show_process();
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
