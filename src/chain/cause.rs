//! The cause for which the circuit breaker is open, with a text for operators.

use std::fmt::{self, Display};

use super::error::ChainError;
use super::fee_budget::Funds;
use crate::domain::SigningRefused;

/// The cause for which the circuit breaker is open. Health checks, the admin status and a reading's `last_error` show its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No endpoint answers, or none of those that answer shows the accounts.
    Unreachable(ChainError),
    /// Endpoints answer, all of them behind.
    Lagging(Vec<LaggingEndpoint>),
    /// Every endpoint answered 429 and is in its pause.
    RateLimited,
    /// Probes succeed, and batches fail all the same; the last one with this error.
    Failing(ChainError),
    /// The fee payer cannot pay another fee.
    FeePayerEmpty(Funds),
    /// The mint does not exist, or this service may not mint it.
    MintUnknown(ChainError),
    /// The ledger lets nothing be signed.
    LedgerBreaker(SigningRefused),
}

/// An endpoint that answers and is behind the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaggingEndpoint {
    pub name: String,
    pub lag_blocks: u64,
}

impl Cause {
    /// The word for it in the admin status.
    pub fn label(&self) -> &'static str {
        match self {
            Cause::Unreachable(_) => "unreachable",
            Cause::Lagging(_) => "lagging",
            Cause::RateLimited => "rate_limited",
            Cause::Failing(_) => "failing",
            Cause::FeePayerEmpty(_) => "fee_payer_empty",
            Cause::MintUnknown(_) => "mint_unknown",
            Cause::LedgerBreaker(_) => "ledger",
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unreachable(error) | Cause::MintUnknown(error) => error.fmt(f),
            Cause::Lagging(endpoints) => {
                for (index, LaggingEndpoint { name, lag_blocks }) in endpoints.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(
                        f,
                        "{separator}RPC endpoint {name} is {lag_blocks} blocks behind"
                    )?;
                }
                Ok(())
            }
            Cause::RateLimited => f.write_str("every RPC endpoint has requested a pause"),
            Cause::Failing(error) => {
                write!(f, "batches fail in a row, the last one because {error}")
            }
            Cause::FeePayerEmpty(funds) => write!(
                f,
                "the fee payer holds {} lamports, of which {} must stay and {} are in flight: top it up",
                funds.balance, funds.minimum, funds.in_flight
            ),
            Cause::LedgerBreaker(reason) => reason.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lagging_endpoint_is_named() {
        let lagging = |name: &str, lag_blocks| LaggingEndpoint {
            name: name.to_owned(),
            lag_blocks,
        };
        assert_eq!(
            Cause::Lagging(vec![lagging("rpc-1", 30), lagging("rpc-2", 300)]).to_string(),
            "RPC endpoint rpc-1 is 30 blocks behind; RPC endpoint rpc-2 is 300 blocks behind"
        );
    }
}
