//! Proof of death: what is stored of the chain's blocks, so that a transaction that did not land is proven dead (rule 3).
//!
//! Invariant: no transaction that landed is ever proven dead. A proof needs two things, in tables that are written together:
//!
//! 1. a run of finalized blocks ([`BlockRun`](crate::chain::BlockRun)) that begins at or before the slot of its blockhash and spans
//!    all heights at which the blockhash is valid, read from one endpoint of our chain without a hole (`scanned_runs`);
//!    each block names slot and hash of the one before;
//! 2. no finalized block, of any endpoint, in which its signature was found (`scanned_signatures`).
//!
//! The statement that marks a transaction dead
//! ([`mark_dead_expired`](crate::ledger::transitions::mark_dead_expired)) checks both in the tables, whatever a leader has in memory.
//! A person may call one dead without the first; against the second, only if an endpoint shows that it failed.
//!
//! # Which signatures are kept
//!
//! A block of the main network holds thousands of signatures, so only our own are stored. Which ones are ours is looked up in the
//! ledger *after the endpoint has answered with the block*, never before. That is enough, because bytes are sent only once they are
//! recorded (rule 1):
//!
//! * A transaction in a finalized block was sent before that block was made, so it was recorded before the block was read, and a
//!   look-up after the reading finds it. One that was recorded while the block was being read is found too; a look-up before the
//!   reading would miss it.
//! * A transaction that is recorded after the look-up cannot be in the block: its bytes have not left the process.
//! * Every open transaction counts, a confirmed one too: after a fork it may need a proof.
//!
//! One kind of transaction enters the ledger after it has landed: a mint that an admin adopts. Its signature is stored as found in
//! the transaction that adopts it ([`run_store::store_found`]), because blocks that were read before have dropped it.
//!
//! The ledger may go backwards, after a restore or a fail-over; runs and records are rows of one database, so they go together.
//! What is lost then is the subject of rule 7.
//!
//! # How it ends
//!
//! The resolver searches (`resolver/expiry.rs`), one leader at a time. Two leaders that overlap do no harm: a run is only extended
//! from the ends that were read ([`Saved::Stale`](crate::chain::Saved) otherwise). Runs are deleted when no open transaction
//! could be in one of their blocks, found signatures when their transaction has ended.
//!
//! | file | what it does |
//! |---|---|
//! | `run_store` | runs and found signatures |
//! | `late` | transactions that are late: when each is looked up and searched for again |
//! | `clock` | how long a transaction has been unproven, and which are quarantined |
//! | `progress` | figures for metrics and status |

pub(super) mod clock;
pub(super) mod late;
pub(super) mod progress;
pub(super) mod run_store;
