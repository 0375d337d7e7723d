//! The measurements, one after another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Options;
use crate::client::{Call, Crowd, ONE_AFTER_ANOTHER, Scores};
use crate::figures::{
    Compression, Figure, IDLE_MEMORY, P99_AT_THE_RATE, Report, TargetFigures, quantile_ms,
};
use crate::process::{cpu_seconds, resident_bytes};
use crate::targets::{self, Ground, Target, TargetName, Who};

/// A transaction so often.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
/// What was sent and is not heard within this is lost.
const HEARD_LIMIT: Duration = Duration::from_secs(30);
/// After thousands of connections memory and tasks come to rest.
const REST: Duration = Duration::from_secs(3);
/// Longer than the service's pings are apart, so that each connection had one.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Broadcasts are quick, so there are more of them.
const BROADCASTS_MIN: usize = 5;
/// The slow ones share an owner whose events are big, so that their sockets fill.
const SLOW_OWNER: usize = usize::MAX;
const SLOW_EVENT_BYTES: usize = 16 * 1024;
const SLOW_EVENTS_PER_SECOND: u64 = 10;
/// The kernel holds 4 MiB for each (net.ipv4.tcp_wmem), the service 100 events: both are full after some 40 seconds.
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
            "dev: neither our code nor its libraries are optimised"
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
        for deflate in options.compression.asked() {
            // What one target does is no reason not to measure the next.
            if let Err(error) = measure(*name, *deflate, options, &mut report).await {
                let failure = format!("{name}, asked for compression: {deflate}: {error:#}");
                eprintln!("{failure}");
                report.failures.push(failure);
            }
            // What is there is kept, whatever comes next.
            std::fs::write(&options.out, serde_json::to_vec_pretty(&report)?)?;
        }
    }
    println!("{}\n{}", report.table(), report.verdicts());
    println!(
        "built as {}; all figures: {}",
        report.profile,
        options.out.display()
    );
    Ok(())
}

async fn measure(
    name: TargetName,
    deflate: bool,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    match name {
        TargetName::Service => {
            let ground = Ground::lay().await?;
            measure_all(ground.service(options, deflate).await?, options, report).await
        }
        TargetName::Bare => measure_all(targets::bare(deflate).await?, options, report).await,
        TargetName::Nchan => {
            measure_all(targets::nchan(options, deflate).await?, options, report).await
        }
    }
}

/// One target with its clients.
struct Trial<'a> {
    target: Target,
    options: &'a Options,
    scores: Arc<Scores>,
    next_event: usize,
    figures: Vec<Figure>,
}

/// What was measured before something went wrong is in the report, too.
async fn measure_all(target: Target, options: &Options, report: &mut Report) -> Result<()> {
    let events =
        options.rate * (options.seconds as usize * options.rounds + options.soak_seconds as usize);
    let mut trial = Trial {
        scores: Scores::new(2 * events + 100_000),
        target,
        options,
        next_event: 1,
        figures: Vec::new(),
    };
    trial.tell("starts");
    tokio::time::sleep(REST).await;
    let before = resident_bytes(trial.target.pid)?;
    let owners = trial.idle(before).await?;
    let compression = trial.agreed()?;
    let done = trial.under_load(owners, before).await;
    report.add(TargetFigures {
        target: trial.target.name,
        compression,
        figures: trial.figures,
    });
    done
}

impl Trial<'_> {
    fn tell(&self, what: &str) {
        let asked = if self.target.deflate {
            " asked for compression"
        } else {
            ""
        };
        eprintln!("{}{asked}: {what}", self.target.name);
    }

    fn note(&mut self, what: &'static str, unit: &'static str, rounds: Vec<f64>) {
        let figure = Figure::of(what, unit, rounds);
        self.tell(&format!("{what}: {:.1} {unit}", figure.median));
        self.figures.push(figure);
    }

    fn owners(&self) -> Result<Vec<Call>> {
        (0..self.options.connections)
            .map(|index| self.target.call(Who::Owner(index)))
            .collect()
    }

    fn everyone(&self) -> Result<Vec<Call>> {
        (0..self.options.connections)
            .map(|_| self.target.call(Who::Everyone))
            .collect()
    }

    fn number(&mut self) -> usize {
        self.next_event += 1;
        self.next_event
    }

    /// What clients and server agreed on.
    fn agreed(&self) -> Result<Compression> {
        let deflating = self.scores.deflating.load(Ordering::SeqCst);
        match (self.target.deflate, deflating) {
            (false, 0) => Ok(Compression::Off),
            (true, all) if all >= self.options.connections => Ok(Compression::On),
            (asked, agreed) => {
                anyhow::bail!("compression was agreed on {agreed} times, asked for: {asked}")
            }
        }
    }

    async fn under_load(&mut self, owners: Crowd, memory_before: u64) -> Result<()> {
        self.steady().await?;
        if self.options.soak_seconds > 0 && self.target.name == TargetName::Service {
            self.soak().await?;
        }
        drop(owners);
        self.all_left().await?;
        self.broadcast().await?;
        self.storm(memory_before).await?;
        let lost = self.scores.lost.load(Ordering::SeqCst) as f64;
        self.note("connections lost, slow ones apart", "in all", vec![lost]);
        Ok(())
    }

    /// Resident memory for each connection, kB.
    fn grown_kb(&self, before: u64) -> Result<f64> {
        let grown = resident_bytes(self.target.pid)?.saturating_sub(before);
        Ok(grown as f64 / self.options.connections as f64 / 1_000.0)
    }

    /// Opens one connection for each owner; what they cost while nothing happens.
    async fn idle(&mut self, before: u64) -> Result<Crowd> {
        let calls = self.owners()?;
        let (crowd, seconds) = Crowd::gather(calls, ONE_AFTER_ANOTHER, &self.scores).await?;
        self.note("all connections open", "s", vec![seconds]);
        tokio::time::sleep(REST).await;
        let (cpu, since) = (cpu_seconds(self.target.pid)?, Instant::now());
        tokio::time::sleep(IDLE_TIME).await;
        let used = (cpu_seconds(self.target.pid)? - cpu) / since.elapsed().as_secs_f64();
        let memory = self.grown_kb(before)?;
        self.note(IDLE_MEMORY, "kB", vec![memory]);
        self.note("processor while idle", "% of a core", vec![100.0 * used]);
        Ok(crowd)
    }

    /// Waits until no connection is open any more.
    async fn all_left(&self) -> Result<()> {
        let started = Instant::now();
        while self.scores.open.load(Ordering::SeqCst) > 0 {
            anyhow::ensure!(started.elapsed() < HEARD_LIMIT, "connections do not end");
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
            let latencies = self.all_heard(sent).await?;
            let seconds = started.elapsed().as_secs_f64();
            let used = cpu_seconds(self.target.pid)? - cpu;
            let load = cpu_seconds(std::process::id())? - load;
            p50.push(quantile_ms(&latencies, 0.5));
            p99.push(quantile_ms(&latencies, 0.99));
            cpu_each.push(used * 1e6 / sent as f64);
            cpu_of_load.push(100.0 * load / seconds);
        }
        self.note("commit to delivery at the rate, p50", "ms", p50);
        self.note(P99_AT_THE_RATE, "ms", p99);
        self.note(
            "processor for a delivered event at the rate",
            "µs",
            cpu_each,
        );
        self.note(
            "processor of the load at the rate",
            "% of a core",
            cpu_of_load,
        );
        Ok(())
    }

    /// Gives how many were sent to owners. With `slow_events_per_second` the slow ones get theirs too.
    async fn send_for(&mut self, time: Duration, slow_events_per_second: u64) -> Result<usize> {
        let started = Instant::now();
        let (mut sent, mut slow_sent) = (0usize, 0u64);
        let mut ticks = tokio::time::interval(PUBLISH_EVERY);
        while started.elapsed() < time {
            ticks.tick().await;
            // What is due by now, also after a pause.
            let due = (started.elapsed().as_secs_f64() * self.options.rate as f64) as usize;
            let mut events = Vec::new();
            while sent < due {
                let owner = Who::Owner(sent % self.options.connections);
                events.push((owner, self.number()));
                sent += 1;
            }
            self.target.publish(&events, 0, &self.scores).await?;
            let due = started.elapsed().as_millis() as u64 * slow_events_per_second / 1_000;
            if slow_sent < due {
                slow_sent += 1;
                // Not among those whose latency counts.
                let event = [(Who::Owner(SLOW_OWNER), usize::MAX)];
                self.target
                    .publish(&event, SLOW_EVENT_BYTES, &self.scores)
                    .await?;
            }
        }
        Ok(sent)
    }

    /// Waits until so many events were heard, and gives their latencies.
    async fn all_heard(&mut self, wanted: usize) -> Result<Vec<u32>> {
        let started = Instant::now();
        while self.scores.heard.load(Ordering::SeqCst) < wanted {
            let heard = self.scores.heard.load(Ordering::SeqCst);
            anyhow::ensure!(
                started.elapsed() < HEARD_LIMIT,
                "{}: {heard} of {wanted} deliveries came",
                self.target.name
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.scores.heard.store(0, Ordering::SeqCst);
        Ok(self.scores.take_latencies())
    }

    /// The rate for long, beside slow readers: whether others are delayed, and memory grows.
    async fn soak(&mut self) -> Result<()> {
        let slow = (self.options.connections / 100).max(1);
        let mut call = self.target.call(Who::Owner(SLOW_OWNER))?;
        call.sleeps = Some(SLOW_PAUSE);
        // They are counted apart.
        let slow_scores = Scores::new(0);
        let calls = vec![call; slow];
        let (crowd, _) = Crowd::gather(calls, ONE_AFTER_ANOTHER, &slow_scores).await?;
        let given_up_before = self.target.streams_given_up().await?;
        let part = Duration::from_secs(self.options.soak_seconds) / SOAK_PARTS;
        let (mut p99, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..SOAK_PARTS {
            let sent = self.send_for(part, SLOW_EVENTS_PER_SECOND).await?;
            p99.push(quantile_ms(&self.all_heard(sent).await?, 0.99));
            memory.push(resident_bytes(self.target.pid)? as f64 / 1e6);
        }
        // The first part pays for what all later ones use again.
        let growth = memory
            .get(1)
            .zip(memory.last())
            .map(|(early, last)| last - early);
        self.note("soak with 1 % slow readers, p99 of the others", "ms", p99);
        self.note("soak, memory of the process in each tenth", "MB", memory);
        if let Some(growth) = growth {
            self.note(
                "soak, memory from the second tenth to the last",
                "MB more",
                vec![growth],
            );
        }
        if let (Some(before), Some(after)) =
            (given_up_before, self.target.streams_given_up().await?)
        {
            self.note("soak, slow readers closed", "times", vec![after - before]);
        }
        drop(crowd);
        Ok(())
    }

    /// One event to all connections.
    async fn broadcast(&mut self) -> Result<()> {
        let calls = self.everyone()?;
        let (crowd, _) = Crowd::gather(calls, ONE_AFTER_ANOTHER, &self.scores).await?;
        tokio::time::sleep(REST).await;
        let connections = self.options.connections;
        let (mut p50, mut last, mut cpu_each) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.options.rounds.max(BROADCASTS_MIN) {
            let cpu = cpu_seconds(self.target.pid)?;
            let event = [(Who::Everyone, self.number())];
            self.target.publish(&event, 0, &self.scores).await?;
            let latencies = self.all_heard(connections).await?;
            p50.push(quantile_ms(&latencies, 0.5));
            last.push(quantile_ms(&latencies, 1.0));
            tokio::time::sleep(Duration::from_millis(500)).await;
            cpu_each.push((cpu_seconds(self.target.pid)? - cpu) * 1e6 / connections as f64);
        }
        self.note("one event to all, p50", "ms", p50);
        self.note("one event to all, the last", "ms", last);
        self.note("one event to all, processor for each", "µs", cpu_each);
        drop(crowd);
        self.all_left().await
    }

    /// All connections break at once and come back at once.
    async fn storm(&mut self, memory_before: u64) -> Result<()> {
        let (mut seconds, mut cpu_each) = (Vec::new(), Vec::new());
        let (mut memory, mut refused) = (Vec::new(), Vec::new());
        let mut calls = self.owners()?;
        if let Some(resume) = self.target.resume(calls.len()).await? {
            for call in &mut calls {
                call.first_message = Some(resume.clone());
            }
        }
        let (mut crowd, _) = Crowd::gather(calls.clone(), ONE_AFTER_ANOTHER, &self.scores).await?;
        for _ in 0..self.options.rounds {
            let cpu = cpu_seconds(self.target.pid)?;
            let refused_before = self.scores.refused.load(Ordering::SeqCst);
            drop(crowd);
            self.all_left().await?;
            let (again, took) = Crowd::gather(calls.clone(), calls.len(), &self.scores).await?;
            crowd = again;
            seconds.push(took);
            let refusals = self.scores.refused.load(Ordering::SeqCst) - refused_before;
            refused.push(refusals as f64);
            tokio::time::sleep(REST).await;
            let used = cpu_seconds(self.target.pid)? - cpu;
            cpu_each.push(used * 1e6 / self.options.connections as f64);
            memory.push(self.grown_kb(memory_before)?);
        }
        self.note("reconnect storm, until all are open again", "s", seconds);
        self.note("reconnect storm, handshakes refused", "times", refused);
        self.note("reconnect storm, processor for each", "µs", cpu_each);
        self.note("memory of a connection after the storm", "kB", memory);
        drop(crowd);
        self.all_left().await
    }
}
