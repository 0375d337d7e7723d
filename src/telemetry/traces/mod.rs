//! Traces: one for each reading, from its request to its finalized transaction, whatever processes it passes through.
//!
//! Invariant: tracing never delays a reading. No step waits for a collector: spans wait in a bounded queue, and those that do
//! not fit are counted and dropped. Without a collector no span is created, stored or sent.
//!
//! Spans are created through OpenTelemetry's own interface and not from the spans of the log. So LOG_LEVEL does not affect
//! traces, and tracing changes no line of the log; a step may begin in one process and end in another; and spans of libraries,
//! whose fields we have not reviewed, never leave the process.
//!
//! | span | where | under |
//! |---|---|---|
//! | `POST /api/meters/submit-reading` and other routes | the request | the caller's `traceparent`, or nothing |
//! | `submit reading` | the request, until its transaction is committed | the request; its context is stored with the job |
//! | `mint reading` | the job's run | `submit reading` |
//! | `send transaction` | from the signature to the first send; links to `mint transaction` | `submit reading` |
//! | `confirm transaction`, `finalize transaction` | the resolver | `submit reading` |
//! | `mint batch` | the minter | nothing: it begins a separate trace |
//! | `mint transaction` | the minter; links to each `submit reading` that it pays | `mint batch` |
//! | `getLatestBlockhash` and other calls | an RPC endpoint, which receives `traceparent` | the calling span |
//!
//! Only the context of a sampled trace is stored with a reading, so no later step starts a trace that lacks its beginning.

pub mod attributes;
mod installed;
mod otlp_client;
mod provider;
mod queue;
mod span;
mod step;
mod step_export;
mod trace_context;
mod traces_table;

pub use installed::is_on;
pub use provider::{Traces, TracesError, start};
pub use span::{SendFailure, Span, TransactionSpan};
pub use step::{Step, StepKind};
pub use trace_context::{TRACEPARENT, TRACERESPONSE, TraceContext};
pub use traces_table::{of_readings, prune, store_contexts};
