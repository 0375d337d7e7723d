//! The two budgets of an endpoint, and what each is for.

/// Which budget of an endpoint a call spends. Each has its own pause after a refusal, and only one of them is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcClass {
    /// What minting waits for: blockhash, accounts, simulation, send, statuses of young transactions, health. Never paced. After a
    /// 429 a call fails at once, so that the caller can query another endpoint.
    Hot,
    /// What can wait: proofs, history, audit, look-ups that a request causes. Paced by `RPC_BACKGROUND_CALLS_PER_SECOND`. After a
    /// 429 a call waits and is made again: what was read so far is kept, and minting does not notice.
    Background,
}

impl RpcClass {
    /// Value of the label `class` of metrics.
    pub fn label(self) -> &'static str {
        match self {
            RpcClass::Hot => "hot",
            RpcClass::Background => "background",
        }
    }
}
