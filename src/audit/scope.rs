//! The scope of an audit.

/// The part of the ledger that an audit compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditScope {
    /// Everything: each transaction is read from the chain.
    Full { memory: Memory },
    /// What is new since the last checkpoint, and this many old transactions at random. Everything, where there is no checkpoint.
    Incremental { sample: u32 },
}

impl AuditScope {
    pub const FULL: AuditScope = AuditScope::Full {
        memory: Memory::Trusted,
    };
}

/// The use of what earlier runs have stored: which transactions of others were read, and how far an interrupted full audit came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Trusted,
    /// Nothing that is stored is believed.
    Ignored,
}
