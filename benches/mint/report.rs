//! The figures of all batch sizes, as JSON and as a table.

use anyhow::Result;
use serde::Serialize;

use super::Options;
use super::measure::Round;
use super::peer::PeerRound;
use crate::figure::{Figure, quantile_ms};

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub readings: usize,
    pub wallets: u32,
    pub clients: usize,
    pub seconds: u64,
    /// How the service, its dependencies and the local chain were built.
    pub profile: &'static str,
    pub cores: usize,
    pub batch_sizes: Vec<BatchFigures>,
}

/// All figures of one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct BatchFigures {
    pub batch_size: u32,
    pub figures: Vec<Figure>,
    /// Median of the readings that the service mints, divided by the median of the payments that the chain alone confirms.
    pub service_to_chain: f64,
}

impl BatchFigures {
    pub fn of(batch_size: u32, rounds: &[Round], peers: &[PeerRound]) -> BatchFigures {
        let of = |what, unit, value: &dyn Fn(&Round) -> f64| {
            Figure::of(what, unit, rounds.iter().map(value).collect())
        };
        let of_peer = |what, unit, value: &dyn Fn(&PeerRound) -> f64| {
            Figure::of(what, unit, peers.iter().map(value).collect())
        };
        let minted = of("minted from the backlog", "readings/s", &|round| {
            count(round.minted_readings) / round.mint.seconds
        });
        let alone = of_peer("chain alone", "payments/s", &|round| {
            count(round.payments) / round.seconds
        });
        let service_to_chain = minted.median / alone.median;
        let mut figures = vec![
            of("stored in bulk", "readings/s", &|round| {
                count(round.bulk_readings) / round.bulk.seconds
            }),
            of("stored singly", "readings/s", &|round| {
                count(round.single_readings) / round.single.seconds
            }),
            of("single submission, p50", "ms", &|round| {
                quantile_ms(&round.single_latencies_micros, 0.5)
            }),
            of("single submission, p99", "ms", &|round| {
                quantile_ms(&round.single_latencies_micros, 0.99)
            }),
            minted,
            alone,
        ];
        figures.extend(costs_of_minting(&of));
        figures.push(of_peer(
            "processor of the chain alone",
            "µs a payment",
            &|round| 1e6 * round.chain / count(round.payments),
        ));
        figures.extend([
            of("until all are final", "s", &|round| {
                round.seconds_to_finalized
            }),
            of("memory of the service at the end", "MB", &|round| {
                round.service_mb
            }),
            of("memory of the local chain at the end", "MB", &|round| {
                round.chain_mb
            }),
        ]);
        BatchFigures {
            batch_size,
            figures,
            service_to_chain,
        }
    }
}

type OfRounds<'a> = dyn Fn(&'static str, &'static str, &dyn Fn(&Round) -> f64) -> Figure + 'a;

/// The cost of a minted reading.
fn costs_of_minting(of: &OfRounds) -> Vec<Figure> {
    let each = |round: &Round, total: f64| total / count(round.minted_readings);
    vec![
        of(
            "processor of the service, minting",
            "µs a reading",
            &|round| 1e6 * each(round, round.mint.service),
        ),
        of("processor of Postgres, minting", "µs a reading", &|round| {
            1e6 * each(round, round.mint.postgres)
        }),
        of(
            "processor of the chain, minting",
            "µs a reading",
            &|round| 1e6 * each(round, round.mint.chain),
        ),
        of("WAL, minting", "bytes a reading", &|round| {
            each(round, round.mint.wal_bytes)
        }),
        of("commits, minting", "a thousand readings", &|round| {
            1e3 * each(round, round.mint.commits)
        }),
        of("WAL, stored in bulk", "bytes a reading", &|round| {
            round.bulk.wal_bytes / count(round.bulk_readings)
        }),
        of("readings per transaction", "readings", &|round| {
            count(round.minted_readings) / count(round.transactions)
        }),
        of("payments per transaction", "wallets", &|round| {
            count(round.payments) / count(round.transactions)
        }),
        of("fees", "lamports a reading", &|round| {
            each(round, round.fee_lamports as f64)
        }),
    ]
}

fn count(number: usize) -> f64 {
    number as f64
}

impl Report {
    pub fn new(options: &Options) -> Result<Report> {
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            readings: options.readings,
            wallets: options.wallets,
            clients: options.clients,
            seconds: options.seconds,
            profile: if cfg!(debug_assertions) {
                "dev: the service is not optimised"
            } else {
                "optimised"
            },
            cores: std::thread::available_parallelism()?.get(),
            batch_sizes: Vec::new(),
        })
    }

    pub fn add(&mut self, figures: BatchFigures) {
        self.batch_sizes.push(figures);
    }

    /// Markdown: one row per figure, one column per batch size.
    pub fn table(&self) -> String {
        let sizes = self.batch_sizes.iter();
        let heads: String = sizes
            .map(|size| format!(" batch size {} |", size.batch_size))
            .collect();
        let mut table = format!(
            "| |{heads}\n|---|{}\n",
            "---|".repeat(self.batch_sizes.len())
        );
        let rows = self
            .batch_sizes
            .first()
            .map_or(0, |size| size.figures.len());
        for row in 0..rows {
            let cells: Vec<&Figure> = self
                .batch_sizes
                .iter()
                .filter_map(|size| size.figures.get(row))
                .collect();
            let Some(first) = cells.first() else { continue };
            table.push_str(&format!("| {}, {} |", first.what, first.unit));
            for figure in &cells {
                table.push_str(&format!(" {} |", figure.cell()));
            }
            table.push('\n');
        }
        table.push_str("| service : chain alone |");
        for size in &self.batch_sizes {
            table.push_str(&format!(" {:.2} |", size.service_to_chain));
        }
        table.push('\n');
        table
    }
}
