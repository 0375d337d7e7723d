//! The feed: every event once, in order, to whoever may see it.
//!
//! Invariant: a listener that goes on after the last number it saw gets each of its events once and in order, over any
//! connection to any process, or is told by an explicit gap that some are gone. Kept in three steps:
//!
//! 1. Writers put events into `outbox` in their own transactions. Once committed, the one [`sequencer`] moves them to `events`
//!    and numbers them without gaps: a number that can be read stands for good, and no lower one appears later.
//! 2. Each process has one [`Hub`], which reads new numbers once, in order, and hands every event to those of its
//!    connections that may see it. It also remembers the newest ones, so that a connection that was away for a moment, or
//!    whose buffer ran over in a burst, costs no query.
//! 3. A [`Follower`] goes through the feed for one listener: it reads the [`log`] until the hub remembers everything behind its position, and
//!    joins the hub at exactly that number, under the hub's lock: no hole, no double.
//!
//! The protocol is described in `docs/feed.md`.
//!
//! | file | what it does |
//! |---|---|
//! | `sequencer`, `partitions` | numbers committed events; makes room for the numbers ahead |
//! | `retention` | drops what is too old |
//! | `event`, `viewer` | a numbered event, and who may see it |
//! | `log` | pages of numbered events |
//! | `hub`, `follower` | one reader per process, many listeners; one listener's way through log and hub |
//! | `protocol`, `filter` | what clients say, what they are told |
//! | `connection`, `stream_session` | one WebSocket: who ends it, and what it is sent |
//! | `frames`, `push_pacer` | messages into frames, pushes per minute |
//! | `close_reason`, `drain_schedule` | close codes; how streams leave a process that ends |
//! | `tickets` | a stream opened without a header: for pages |

mod close_reason;
mod connection;
mod drain_schedule;
mod event;
mod filter;
mod follower;
mod frames;
mod hub;
pub mod log;
mod partitions;
mod protocol;
mod push_pacer;
pub mod retention;
pub mod sequencer;
mod stream_session;
pub mod tickets;
mod viewer;

pub use close_reason::CloseReason;
pub use connection::{Listener, StreamLimits, close, end_of_token, serve_socket};
pub use drain_schedule::DrainSchedule;
pub use event::{FeedEvent, Seq};
pub use follower::{Follower, Step};
pub use hub::{Hub, StreamKind, StreamPermit};
pub use log::{EventsPage, Gap, LogSize};
pub use protocol::{ClientMessage, ProtocolError};
pub use viewer::Viewer;
