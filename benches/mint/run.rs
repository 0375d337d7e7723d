//! Runs the rounds one after another and writes the report.

use anyhow::Result;

use super::Options;
use super::report::{BatchFigures, Report};
use super::{measure, peer};

/// Runs all rounds; the service and the chain alone take turns, so that a slower hour of the machine affects both.
pub async fn run(options: &Options) -> Result<()> {
    let mut report = Report::new(options)?;
    for batch_size in &options.batch_sizes {
        let (mut rounds, mut peers) = (Vec::new(), Vec::new());
        for number in 1..=options.rounds {
            eprintln!("batch size {batch_size}, round {number}: service");
            let round = measure::round(options, *batch_size).await?;
            eprintln!("batch size {batch_size}, round {number}: chain alone");
            let wallets = usize::try_from(options.wallets)?;
            let payments = round.payments.div_ceil(round.transactions);
            peers.push(peer::round(wallets, round.transactions, payments).await?);
            rounds.push(round);
        }
        report.add(BatchFigures::of(*batch_size, &rounds, &peers));
        // Written after each batch size, so that a later failure loses nothing.
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
