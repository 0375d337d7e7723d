//! The measurements, one after another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Options;
use crate::client::{Call, Crowd, Scores};
use crate::figures::{Figure, Report, TargetFigures, quantile_ms};
use crate::process::{cpu_seconds, resident_bytes};
use crate::targets::{self, Ground, Target, Who};

/// A transaction so often.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
/// What was sent and is not heard within this is lost.
const HEARD_LIMIT: Duration = Duration::from_secs(30);
/// After thousands of connections memory and tasks come to rest.
const REST: Duration = Duration::from_secs(3);
/// The slow ones share an owner whose events are big, so that their sockets fill.
const SLOW_OWNER: usize = usize::MAX;
const SLOW_EVENT_BYTES: usize = 16 * 1024;
const SLOW_EVENTS_PER_SECOND: u64 = 10;

pub async fn run(options: &Options) -> Result<()> {
    let mut report = Report {
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
    };
    let compressions: &[bool] = match options.compression.as_str() {
        "off" => &[false],
        "on" => &[true],
        "both" => &[false, true],
        other => anyhow::bail!("--compression {other}: give off, on or both"),
    };
    for name in &options.targets {
        match name.as_str() {
            "service" => {
                let ground = Ground::lay().await?;
                for deflate in compressions {
                    let target = ground.service(options, *deflate).await?;
                    report.targets.push(measure(target, options).await?);
                }
            }
            "bare" => report
                .targets
                .push(measure(targets::bare().await?, options).await?),
            "nchan" => match targets::nchan(options, false).await? {
                Some(target) => report.targets.push(measure(target, options).await?),
                None => eprintln!(
                    "nchan is left out: {} and {} are missing, or do not start",
                    options.nginx.display(),
                    options.nchan.display()
                ),
            },
            other => anyhow::bail!("--targets {other}: known are service, bare and nchan"),
        }
        // What is there is kept, whatever comes next.
        std::fs::write(&options.out, serde_json::to_vec_pretty(&report)?)?;
    }
    println!("{}", report.table());
    println!(
        "built as {}; all figures: {}",
        report.profile,
        options.out.display()
    );
    Ok(())
}

/// One target with its clients.
struct Trial<'a> {
    target: Target,
    options: &'a Options,
    scores: Arc<Scores>,
    next_event: usize,
    figures: Vec<Figure>,
}

async fn measure(target: Target, options: &Options) -> Result<TargetFigures> {
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
    let owners = trial.idle().await?;
    trial.steady().await?;
    let is_service = trial.target.name == "service";
    if options.soak_seconds > 0 && is_service {
        trial.soak().await?;
    }
    drop(owners);
    tokio::time::sleep(REST).await;
    trial.broadcast().await?;
    trial.storm().await?;
    let deflating = trial.scores.deflating.load(Ordering::SeqCst) > 0;
    Ok(TargetFigures {
        target: trial.target.name.clone(),
        compression: if deflating { "on" } else { "off" },
        figures: trial.figures,
    })
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

    /// Opens one connection for each owner; what they cost while nothing happens.
    async fn idle(&mut self) -> Result<Crowd> {
        let before = resident_bytes(self.target.pid)?;
        let calls = self.owners()?;
        let (crowd, seconds) = Crowd::gather(calls, &self.scores).await?;
        tokio::time::sleep(REST).await;
        let connections = self.options.connections as f64;
        let grown = resident_bytes(self.target.pid)?.saturating_sub(before) as f64;
        self.note(
            "memory of an idle connection",
            "kB",
            vec![grown / connections / 1_000.0],
        );
        self.note("all connections open", "s", vec![seconds]);
        let (cpu, since) = (cpu_seconds(self.target.pid)?, Instant::now());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let used = (cpu_seconds(self.target.pid)? - cpu) / since.elapsed().as_secs_f64();
        self.note("processor while idle", "% of a core", vec![100.0 * used]);
        Ok(crowd)
    }

    /// Events at the rate, each to one owner.
    async fn steady(&mut self) -> Result<()> {
        let (mut p50, mut p99, mut cpu_each) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.options.rounds {
            let cpu = cpu_seconds(self.target.pid)?;
            let sent = self
                .send_for(Duration::from_secs(self.options.seconds), 0)
                .await?;
            let latencies = self.all_heard(sent).await?;
            let used = cpu_seconds(self.target.pid)? - cpu;
            p50.push(quantile_ms(&latencies, 0.5));
            p99.push(quantile_ms(&latencies, 0.99));
            cpu_each.push(used * 1e6 / sent as f64);
        }
        self.note("commit to delivery at the rate, p50", "ms", p50);
        self.note("commit to delivery at the rate, p99", "ms", p99);
        self.note(
            "processor for a delivered event at the rate",
            "µs",
            cpu_each,
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
        call.sleeps_secs = Some(30);
        let (crowd, _) = Crowd::gather(vec![call; slow], &self.scores).await?;
        let lost_before = self.scores.lost.load(Ordering::SeqCst);
        let tenth = Duration::from_secs_f64(self.options.soak_seconds as f64 / 10.0);
        let (mut p99, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let sent = self.send_for(tenth, SLOW_EVENTS_PER_SECOND).await?;
            p99.push(quantile_ms(&self.all_heard(sent).await?, 0.99));
            memory.push(resident_bytes(self.target.pid)? as f64 / 1e6);
        }
        let lost = self.scores.lost.load(Ordering::SeqCst) - lost_before;
        self.note("soak with 1 % slow readers, p99 of the others", "ms", p99);
        self.note("soak, memory of the process in each tenth", "MB", memory);
        self.note("soak, slow readers closed", "times", vec![lost as f64]);
        drop(crowd);
        Ok(())
    }

    /// One event to all connections.
    async fn broadcast(&mut self) -> Result<()> {
        let calls = self.everyone()?;
        let (_crowd, _) = Crowd::gather(calls, &self.scores).await?;
        tokio::time::sleep(REST).await;
        let connections = self.options.connections;
        let (mut p50, mut last, mut cpu_each) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.options.rounds.max(5) {
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
        Ok(())
    }

    /// All connections break at once and come back at once.
    async fn storm(&mut self) -> Result<()> {
        let (mut seconds, mut cpu_each) = (Vec::new(), Vec::new());
        let calls = self.owners()?;
        let (mut crowd, _) = Crowd::gather(calls.clone(), &self.scores).await?;
        for _ in 0..self.options.rounds {
            let cpu = cpu_seconds(self.target.pid)?;
            drop(crowd);
            while self.scores.open.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (again, took) = Crowd::gather(calls.clone(), &self.scores).await?;
            crowd = again;
            seconds.push(took);
            let used = cpu_seconds(self.target.pid)? - cpu;
            cpu_each.push(used * 1e6 / self.options.connections as f64);
        }
        self.note("reconnect storm", "s", seconds);
        self.note("reconnect storm, processor for each", "µs", cpu_each);
        Ok(())
    }
}
