//! The feed: delivers every event once and in order to the clients that may see it.
//!
//! Invariant: a client that resumes after the last number it received gets each of its events once and in order, over any
//! connection to any process, or an explicit gap if some were dropped. Kept in three steps:
//!
//! 1. Writers put events into `outbox` in their own transactions. After the commit the [`sequencer`] moves them to `events` and
//!    numbers them without gaps: a number that can be read is final, and no lower one appears later.
//! 2. Each process has one [`Hub`], which reads new numbers once, in order, and publishes every event to those of the process's
//!    subscribers that may see it. It also remembers the newest events, so that a client that reconnects after a moment, or whose
//!    buffer overflowed in a burst, costs no query.
//! 3. A [`Follower`] follows the feed for one client: it reads the [`log`] until the hub remembers every event after its
//!    position, and subscribes to the hub at exactly that number, under the hub's lock: no hole, no duplicate.
//!
//! **Who may see an event?** `viewer` decides it, in [`Viewer::may_see`].
//!
//! `docs/feed.md` describes the protocol.
//!
//! | file | what it does |
//! |---|---|
//! | `event` | a numbered event |
//! | `viewer` | decides who may see an event |
//! | `filter` | which of those events a client requested |
//! | `head`, `sequencer`, `partitions` | the newest number and its lock; numbers committed events; makes partitions for future numbers |
//! | `retention` | drops events that are too old |
//! | `log` | pages of numbered events |
//! | `hub`, `subscribers` | reads new events once per process; offers them to subscribers |
//! | `follower` | one client's path through log and hub |
//! | `connection` | one WebSocket: everything that may end it |
//! | `client_input`, `client_message` | reads what a client sends, within limits; parses it |
//! | `stream_session`, `server_message` | sends one client its events; the other messages |
//! | `frames`, `push_pacer` | packs events into frames; limits pushes per minute |
//! | `close_reason`, `close_frame` | the reasons for which streams end; the frame that reports them |
//! | `stream_permit`, `drain_schedule` | limits open streams; schedules their ends while the process drains |
//! | `tickets` | single-use secrets that open a stream from a web page |

mod client_input;
mod client_message;
mod close_frame;
mod close_reason;
mod connection;
mod drain_schedule;
mod event;
mod filter;
mod follower;
mod frames;
mod head;
mod hub;
pub mod log;
mod partitions;
mod push_pacer;
pub mod retention;
pub mod sequencer;
mod server_message;
mod stream_permit;
mod stream_session;
mod subscribers;
pub mod tickets;
mod viewer;

pub use client_message::{ClientMessage, ProtocolError};
pub use close_reason::{AuthFailure, CloseReason};
pub use connection::{Listener, close, end_of_token, serve_socket};
pub use drain_schedule::DrainSchedule;
pub use event::{FeedEvent, Seq};
pub use follower::{Follower, Step};
pub use hub::Hub;
pub use log::{EventsPage, Gap, LogSize};
pub use stream_permit::{StreamKind, StreamPermit};
pub use stream_session::StreamLimits;
pub use viewer::Viewer;
