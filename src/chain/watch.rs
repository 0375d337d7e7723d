//! Keeps an eye on the endpoints and on the fee payer, for health and metrics.

use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use tokio_util::sync::CancellationToken;

use super::{ChainError, Endpoints};
use crate::telemetry::{Health, names};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// An endpoint that has not answered a balance by then counts as away.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Reports `chain` as healthy or degraded until told to stop. A chain that is away never makes the service unready:
/// readings are accepted and minted later.
pub async fn watch(
    endpoints: Endpoints,
    fee_payer: Pubkey,
    health: Health,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match balance(&endpoints, &fee_payer).await {
            Ok(lamports) => {
                metrics::gauge!(names::FEE_PAYER_BALANCE_LAMPORTS).set(lamports as f64);
                metrics::gauge!(names::CHAIN_BREAKER_OPEN).set(0.0);
                health.ok("chain");
            }
            Err(reason) => {
                metrics::gauge!(names::CHAIN_BREAKER_OPEN).set(1.0);
                health.degraded("chain", reason);
            }
        }
    }
}

/// Asks the endpoints in order; the first that answers is asked first from now on.
async fn balance(endpoints: &Endpoints, fee_payer: &Pubkey) -> Result<u64, String> {
    let mut reason = "no RPC endpoint is configured".to_owned();
    for endpoint in endpoints.iter() {
        let answer = tokio::time::timeout(ANSWER_LIMIT, endpoint.rpc().get_balance(fee_payer));
        match answer.await {
            Ok(Ok(lamports)) => return Ok(lamports),
            Ok(Err(error)) => reason = ChainError::from_client(endpoint.name(), &error).to_string(),
            Err(_) => reason = format!("RPC endpoint {} did not answer in time", endpoint.name()),
        }
        endpoints.turn_away_from(endpoint);
    }
    Err(reason)
}
