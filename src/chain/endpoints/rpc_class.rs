//! The classes of calls: which of an endpoint's two budgets a call spends, and whether it waits for the end of a pause.

/// The class of a call. Hot calls have a budget, and all others share one: each budget has its own pause after a refusal, and only
/// the second is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcClass {
    /// For everything that minting waits for: blockhash, accounts, simulation, send, statuses of young transactions, health.
    /// Never paced. After a 429 a call fails at once, so that the caller can query another endpoint.
    Hot,
    /// For everything that can wait: proofs, history, audit, look-ups that a request causes. Paced by
    /// `RPC_BACKGROUND_CALLS_PER_SECOND`. After a 429 a call waits and is made again: what was read so far is kept, and minting
    /// does not notice.
    Background,
    /// One question of a round that queries every endpoint and comes again soon: old statuses, heights. Paced with the background
    /// calls. After a 429 it fails at once, so that it holds up nothing else of its round.
    LookUp,
}

impl RpcClass {
    /// Value of the label `class` of metrics: the budget.
    pub fn label(self) -> &'static str {
        match self {
            RpcClass::Hot => "hot",
            RpcClass::Background | RpcClass::LookUp => "background",
        }
    }
}
