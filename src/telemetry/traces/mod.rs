//! Traces: one for each reading, from its request to its finalized transaction, whatever processes it passes through.
//!
//! Invariant: being traced costs a reading nothing. Nobody waits for a collector: spans wait in a bounded queue, and what does
//! not fit is counted and dropped. Without a collector nothing is made, stored or sent.
//!
//! Spans are made by OpenTelemetry's own interface and not out of the spans of the log. So LOG_LEVEL has no say in what is
//! traced, and no line of the log changes; a step that began in one process and ends in another can be told; and what a
//! library calls a span, whose fields nobody here has read, never leaves the process.
//!
//! | span | where | under |
//! |---|---|---|
//! | `POST /api/meters/submit-reading` and other routes | the request | the caller's `traceparent`, or nothing |
//! | `submit reading` | the request, until its transaction is committed | the request; its context is stored with the job |
//! | `mint reading` | the job's run | `submit reading` |
//! | `send transaction` | from the signature to the first send; links to `mint transaction` | `submit reading` |
//! | `confirm transaction`, `finalize transaction` | the Resolver | `submit reading` |
//! | `mint batch` | the Minter | nothing: a trace of its own |
//! | `mint transaction` | the Minter; links to each `submit reading` that it pays | `mint batch` |
//! | `getLatestBlockhash` and other calls | an RPC endpoint, which gets `traceparent` | whatever asks |
//!
//! What is told of a reading is about a sampled trace only: an unsampled one is not stored, so nobody begins it anew.

mod context;
mod otlp_client;
mod provider;
mod queue;
mod span;
mod steps;
mod store;

pub use context::{TRACEPARENT, TRACERESPONSE, TraceContext};
pub use provider::{Traces, TracesError, is_on, start};
pub use span::{Span, TransactionSpan, attributes};
pub use steps::{Step, StepKind};
pub use store::{keep, of_readings, prune};
