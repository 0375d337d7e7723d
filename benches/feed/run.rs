//! Runs the measurements one after another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Options;
use super::client::{ClientPlan, Connections, HANDSHAKES_AT_ONCE, Measurements};
use super::figures::{IDLE_MEMORY, P99_AT_THE_RATE, Report, TargetFigures};
use super::targets::{self, Recipient, Target};
use super::variant::{Compression, TargetName};
use crate::backend::Backend;
use crate::figure::{Figure, quantile_ms};
use crate::process::{cpu_seconds, resident_bytes};

/// Interval of the transactions that publish events.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
/// Events that are not delivered within this time count as lost.
const DELIVERY_LIMIT: Duration = Duration::from_secs(30);
/// Time for memory and tasks to settle after thousands of connections.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// Longer than the service's ping interval, so that each connection gets a ping.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Broadcasts are fast, so there are more rounds.
const BROADCASTS_MIN: usize = 5;
/// Slow readers share an owner whose events are large, so that their sockets fill.
const SLOW_OWNER: usize = usize::MAX;
const SLOW_EVENT_BYTES: usize = 16 * 1024;
const SLOW_EVENTS_PER_SECOND: u64 = 10;
/// The kernel buffers 4 MiB for each (net.ipv4.tcp_wmem), the service 100 events: both are full after some 40 seconds.
const SLOW_PAUSE: Duration = Duration::from_secs(60);
const SOAK_PARTS: u32 = 10;

pub async fn run(options: &Options) -> Result<()> {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        connections: options.connections,
        rate: options.rate,
        seconds: options.seconds,
        soak_seconds: options.soak_seconds,
        profile: if cfg!(debug_assertions) {
            "dev: neither the service nor its libraries are optimised"
        } else {
            "optimised"
        },
        cores: std::thread::available_parallelism()?.get(),
        targets: Vec::new(),
        ratios: Vec::new(),
        aims: Vec::new(),
        failures: Vec::new(),
    };
    for name in &options.targets {
        for compression in options.compression.compressions() {
            // A failure of one target does not affect the next.
            if let Err(error) = measure(*name, *compression, options, &mut report).await {
                let failure = format!("{name}, compression {}: {error:#}", compression.word());
                eprintln!("{failure}");
                report.failures.push(failure);
            }
            // Written after each target, so that a later failure loses nothing.
            std::fs::write(&options.out, serde_json::to_vec_pretty(&report)?)?;
        }
    }
    println!("{}\n{}", report.table(), report.aim_lines());
    println!(
        "built as {}; all figures: {}",
        report.profile,
        options.out.display()
    );
    Ok(())
}

async fn measure(
    name: TargetName,
    compression: Compression,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    match name {
        TargetName::Service => {
            let backend = Backend::start().await?;
            measure_all(
                targets::service(&backend, options, compression).await?,
                options,
                report,
            )
            .await
        }
        TargetName::Bare => measure_all(targets::bare(compression).await?, options, report).await,
        TargetName::Nchan => {
            measure_all(targets::nchan(options, compression).await?, options, report).await
        }
    }
}

/// The measurements of one target.
struct Benchmark<'a> {
    target: Target,
    options: &'a Options,
    measurements: Arc<Measurements>,
    next_event: usize,
    figures: Vec<Figure>,
}

/// If a measurement fails, the report still contains those before it.
async fn measure_all(target: Target, options: &Options, report: &mut Report) -> Result<()> {
    let events =
        options.rate * (options.seconds as usize * options.rounds + options.soak_seconds as usize);
    let mut benchmark = Benchmark {
        measurements: Measurements::new(2 * events + 100_000),
        target,
        options,
        next_event: 1,
        figures: Vec::new(),
    };
    benchmark.log("starts");
    tokio::time::sleep(SETTLE_TIME).await;
    let before = resident_bytes(benchmark.target.pid)?;
    let owners = benchmark.idle(before).await?;
    let compression = benchmark.negotiated()?;
    let result = benchmark.under_load(owners, before).await;
    report.add(TargetFigures {
        target: benchmark.target.name,
        compression,
        figures: benchmark.figures,
    });
    result
}

impl Benchmark<'_> {
    fn log(&self, what: &str) {
        let compression = self.target.compression.word();
        eprintln!("{}, compression {compression}: {what}", self.target.name);
    }

    fn record(&mut self, what: &'static str, unit: &'static str, rounds: Vec<f64>) {
        let figure = Figure::of(what, unit, rounds);
        self.log(&format!("{what}: {:.1} {unit}", figure.median));
        self.figures.push(figure);
    }

    fn owners(&self) -> Result<Vec<ClientPlan>> {
        (0..self.options.connections)
            .map(|index| self.target.client(Recipient::Owner(index)))
            .collect()
    }

    fn admins(&self) -> Result<Vec<ClientPlan>> {
        (0..self.options.connections)
            .map(|_| self.target.client(Recipient::Everyone))
            .collect()
    }

    fn next_number(&mut self) -> usize {
        self.next_event += 1;
        self.next_event
    }

    /// The compression that clients and server negotiated.
    fn negotiated(&self) -> Result<Compression> {
        let deflating = self.measurements.deflating.load(Ordering::SeqCst);
        match (self.target.compression, deflating) {
            (Compression::Off, 0) => Ok(Compression::Off),
            (Compression::On, all) if all >= self.options.connections => Ok(Compression::On),
            (requested, negotiated) => anyhow::bail!(
                "compression was negotiated {negotiated} times, requested: {}",
                requested.word()
            ),
        }
    }

    async fn under_load(&mut self, owners: Connections, memory_before: u64) -> Result<()> {
        self.steady().await?;
        if self.options.soak_seconds > 0 && self.target.name == TargetName::Service {
            self.soak().await?;
        }
        drop(owners);
        self.await_all_closed().await?;
        self.broadcast().await?;
        self.storm(memory_before).await?;
        let lost = self.measurements.lost.load(Ordering::SeqCst) as f64;
        self.record("connections lost, slow ones apart", "in all", vec![lost]);
        Ok(())
    }

    /// Growth of resident memory per connection, in kB.
    fn grown_kb(&self, before: u64) -> Result<f64> {
        let grown = resident_bytes(self.target.pid)?.saturating_sub(before);
        Ok(grown as f64 / self.options.connections as f64 / 1_000.0)
    }

    /// Opens one connection for each owner, and measures what they cost while idle.
    async fn idle(&mut self, before: u64) -> Result<Connections> {
        let plans = self.owners()?;
        let (connections, seconds) =
            Connections::open(plans, HANDSHAKES_AT_ONCE, &self.measurements).await?;
        self.record("all connections open", "s", vec![seconds]);
        tokio::time::sleep(SETTLE_TIME).await;
        let (cpu, since) = (cpu_seconds(self.target.pid)?, Instant::now());
        tokio::time::sleep(IDLE_TIME).await;
        let used = (cpu_seconds(self.target.pid)? - cpu) / since.elapsed().as_secs_f64();
        let memory = self.grown_kb(before)?;
        self.record(IDLE_MEMORY, "kB", vec![memory]);
        self.record("processor while idle", "% of a core", vec![100.0 * used]);
        Ok(connections)
    }

    /// Waits until no connection is open.
    async fn await_all_closed(&self) -> Result<()> {
        let started = Instant::now();
        while self.measurements.open.load(Ordering::SeqCst) > 0 {
            anyhow::ensure!(started.elapsed() < DELIVERY_LIMIT, "connections do not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Events at the rate, each to one owner.
    async fn steady(&mut self) -> Result<()> {
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        let (mut cpu_each, mut cpu_of_load) = (Vec::new(), Vec::new());
        for _ in 0..self.options.rounds {
            let (cpu, load) = (
                cpu_seconds(self.target.pid)?,
                cpu_seconds(std::process::id())?,
            );
            let started = Instant::now();
            let sent = self
                .send_for(Duration::from_secs(self.options.seconds), 0)
                .await?;
            let latencies = self.await_delivered(sent).await?;
            let seconds = started.elapsed().as_secs_f64();
            let used = cpu_seconds(self.target.pid)? - cpu;
            let load = cpu_seconds(std::process::id())? - load;
            p50.push(quantile_ms(&latencies, 0.5));
            p99.push(quantile_ms(&latencies, 0.99));
            cpu_each.push(used * 1e6 / sent as f64);
            cpu_of_load.push(100.0 * load / seconds);
        }
        self.record("commit to delivery at the rate, p50", "ms", p50);
        self.record(P99_AT_THE_RATE, "ms", p99);
        self.record(
            "processor for a delivered event at the rate",
            "µs",
            cpu_each,
        );
        self.record(
            "processor of the load at the rate",
            "% of a core",
            cpu_of_load,
        );
        Ok(())
    }

    /// Sends events for a time, and returns how many went to owners. Slow readers get `slow_events_per_second`.
    async fn send_for(&mut self, time: Duration, slow_events_per_second: u64) -> Result<usize> {
        let started = Instant::now();
        let (mut sent, mut slow_sent) = (0usize, 0u64);
        let mut ticks = tokio::time::interval(PUBLISH_EVERY);
        while started.elapsed() < time {
            ticks.tick().await;
            // Everything that is due by now, even after a pause.
            let due = (started.elapsed().as_secs_f64() * self.options.rate as f64) as usize;
            let mut events = Vec::new();
            while sent < due {
                let owner = Recipient::Owner(sent % self.options.connections);
                events.push((owner, self.next_number()));
                sent += 1;
            }
            self.target.publish(&events, 0, &self.measurements).await?;
            let due = started.elapsed().as_millis() as u64 * slow_events_per_second / 1_000;
            if slow_sent < due {
                slow_sent += 1;
                // A number whose latency is not measured.
                let event = [(Recipient::Owner(SLOW_OWNER), usize::MAX)];
                self.target
                    .publish(&event, SLOW_EVENT_BYTES, &self.measurements)
                    .await?;
            }
        }
        Ok(sent)
    }

    /// Waits until this many events were delivered, and returns their latencies.
    async fn await_delivered(&mut self, wanted: usize) -> Result<Vec<u32>> {
        let started = Instant::now();
        while self.measurements.delivered.load(Ordering::SeqCst) < wanted {
            let delivered = self.measurements.delivered.load(Ordering::SeqCst);
            anyhow::ensure!(
                started.elapsed() < DELIVERY_LIMIT,
                "{}: {delivered} of {wanted} events were delivered",
                self.target.name
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.measurements.delivered.store(0, Ordering::SeqCst);
        Ok(self.measurements.take_latencies())
    }

    /// The rate for a long time, with slow readers: are other clients delayed, and does memory grow?
    async fn soak(&mut self) -> Result<()> {
        let slow = (self.options.connections / 100).max(1);
        let mut plan = self.target.client(Recipient::Owner(SLOW_OWNER))?;
        plan.reading_pause = Some(SLOW_PAUSE);
        // They are counted separately.
        let slow_measurements = Measurements::new(0);
        let plans = vec![plan; slow];
        let (slow_readers, _) =
            Connections::open(plans, HANDSHAKES_AT_ONCE, &slow_measurements).await?;
        let closed_before = self.target.streams_closed_by_service().await?;
        let part = Duration::from_secs(self.options.soak_seconds) / SOAK_PARTS;
        let (mut p99, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..SOAK_PARTS {
            let sent = self.send_for(part, SLOW_EVENTS_PER_SECOND).await?;
            p99.push(quantile_ms(&self.await_delivered(sent).await?, 0.99));
            memory.push(resident_bytes(self.target.pid)? as f64 / 1e6);
        }
        // The first part allocates what the later ones reuse.
        let growth = memory
            .get(1)
            .zip(memory.last())
            .map(|(early, last)| last - early);
        self.record("soak with 1 % slow readers, p99 of the others", "ms", p99);
        self.record("soak, memory of the process in each tenth", "MB", memory);
        if let Some(growth) = growth {
            self.record(
                "soak, memory from the second tenth to the last",
                "MB more",
                vec![growth],
            );
        }
        if let (Some(before), Some(after)) = (
            closed_before,
            self.target.streams_closed_by_service().await?,
        ) {
            self.record("soak, slow readers closed", "times", vec![after - before]);
        }
        drop(slow_readers);
        Ok(())
    }

    /// One event to all connections.
    async fn broadcast(&mut self) -> Result<()> {
        let plans = self.admins()?;
        let (clients, _) = Connections::open(plans, HANDSHAKES_AT_ONCE, &self.measurements).await?;
        tokio::time::sleep(SETTLE_TIME).await;
        let connections = self.options.connections;
        let (mut p50, mut last, mut cpu_each) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.options.rounds.max(BROADCASTS_MIN) {
            let cpu = cpu_seconds(self.target.pid)?;
            let event = [(Recipient::Everyone, self.next_number())];
            self.target.publish(&event, 0, &self.measurements).await?;
            let latencies = self.await_delivered(connections).await?;
            p50.push(quantile_ms(&latencies, 0.5));
            last.push(quantile_ms(&latencies, 1.0));
            tokio::time::sleep(Duration::from_millis(500)).await;
            cpu_each.push((cpu_seconds(self.target.pid)? - cpu) * 1e6 / connections as f64);
        }
        self.record("one event to all, p50", "ms", p50);
        self.record("one event to all, the last", "ms", last);
        self.record("one event to all, processor for each", "µs", cpu_each);
        drop(clients);
        self.await_all_closed().await
    }

    /// All connections break at once and reconnect at once.
    async fn storm(&mut self, memory_before: u64) -> Result<()> {
        let (mut seconds, mut cpu_each) = (Vec::new(), Vec::new());
        let (mut memory, mut refused) = (Vec::new(), Vec::new());
        let mut plans = self.owners()?;
        if let Some(resume) = self.target.resume(plans.len()).await? {
            for plan in &mut plans {
                plan.first_message = Some(resume.clone());
            }
        }
        let (mut connections, _) =
            Connections::open(plans.clone(), HANDSHAKES_AT_ONCE, &self.measurements).await?;
        for _ in 0..self.options.rounds {
            let cpu = cpu_seconds(self.target.pid)?;
            let refused_before = self.measurements.refused.load(Ordering::SeqCst);
            drop(connections);
            self.await_all_closed().await?;
            let (again, took) =
                Connections::open(plans.clone(), plans.len(), &self.measurements).await?;
            connections = again;
            seconds.push(took);
            let refusals = self.measurements.refused.load(Ordering::SeqCst) - refused_before;
            refused.push(refusals as f64);
            tokio::time::sleep(SETTLE_TIME).await;
            let used = cpu_seconds(self.target.pid)? - cpu;
            cpu_each.push(used * 1e6 / self.options.connections as f64);
            memory.push(self.grown_kb(memory_before)?);
        }
        self.record("reconnect storm, until all are open again", "s", seconds);
        self.record("reconnect storm, handshakes refused", "times", refused);
        self.record("reconnect storm, processor for each", "µs", cpu_each);
        self.record("memory of a connection after the storm", "kB", memory);
        drop(connections);
        self.await_all_closed().await
    }
}
