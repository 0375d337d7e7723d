//! The kinds of job, one file each: what a job carries, the name of its queue, and the constructors that enqueuers call.
//!
//! The workers decode the same structs; `queue/` holds one handler for each. A stored name, payload or key never changes,
//! because a version that cannot read another version's rows loses its jobs: a test in each file pins the bytes.
//!
//! To add a kind, write its file here, its handler (`impl Handle for …`) in `queue/`, the `mod` lines of both, and its line in
//! `queue/kinds.rs`.

mod mint_reading;
mod sweep_unminted;
mod trigger_batch;

pub use mint_reading::MintReading;
pub use sweep_unminted::SweepUnminted;
pub use trigger_batch::TriggerBatch;
