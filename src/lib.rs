//! GridTokenX: smart meters report energy, this service mints SPL tokens on Solana into the meter owner's wallet,
//! each accepted reading exactly once, and anyone can check it.
//!
//! The rooms, from top to bottom. Dependencies point down this list only:
//!
//! | room | what it is for |
//! |---|---|
//! | [`commands`] | one file per subcommand of the program |
//! | [`api`] | HTTP: router, authentication, problem documents, one file per resource |
//! | [`queue`] | apalis: workers, a handler for each kind of job, deferral, pruning |
//! | [`canary`] | our own meter, which shows minute by minute that readings are minted |
//! | [`feed`] | numbers events, keeps them, decides who may see each, streams them |
//! | [`websocket`] | WebSocket frames, messages and compression, on the server's side |
//! | [`readings`] | validation (too old, too much, overlapping) and intake by group commit |
//! | [`mint`] | collect, pack, sign, record, send |
//! | [`admin`] | what admins see and change while the service runs: settings, batches, retries |
//! | [`audit`] | proves that ledger and chain agree |
//! | [`admin_log`] | what admins did: a log that is only appended to, chained by hashes |
//! | [`ledger`] | which reading is paid by which transaction, and whether that is dead; the only writer of reading states |
//! | [`meters`] | meters and their owners |
//! | [`chain`] | RPC endpoints and their health, signer, fee payer |
//! | [`outbox`] | puts an event and a job into the caller's transaction |
//! | [`coalesce`] | gathers the items of concurrent callers into batches |
//! | [`embedded`] | the private Postgres and the local chain of `gridtokenx run` |
//! | [`db`] | the pool and its limits, migrations, leader locks, what errors of SQL mean, the domain's types in SQL |
//! | [`telemetry`] | logs, metrics, traces, and the health of each part |
//! | [`periodic`] | tasks that run on a period: name, period and limit as data, one runner |
//! | [`config`] | the settings |
//! | [`domain`] | pure: amounts, intervals, states, which readings share a transaction, how long to back off, Merkle tree, memo |
//! | [`failpoint`](mod@failpoint) | named points where a test stops or fails the process |
//! | [`fault_proxy`] | a proxy that breaks the RPC of the chain on purpose, for tests |
#![forbid(unsafe_code)]

pub mod admin;
pub mod admin_log;
pub mod api;
pub mod audit;
pub mod canary;
pub mod chain;
pub mod coalesce;
pub mod commands;
pub mod config;
pub mod db;
pub mod domain;
pub mod embedded;
pub mod failpoint;
#[cfg(feature = "failpoints")]
pub mod fault_proxy;
pub mod feed;
pub mod ledger;
pub mod meters;
pub mod mint;
pub mod outbox;
pub mod periodic;
pub mod queue;
pub mod readings;
pub mod telemetry;
pub mod websocket;
