//! Routes for meters, readings, events and the live feed.
//!
//! | file | what it does |
//! |---|---|
//! | `meters` | registers and lists meters |
//! | `submissions` | accepts readings, one by one or in bulk |
//! | `readings` | shows and lists readings |
//! | `events`, `event_cursor` | pages of events; the position from which a client reads |
//! | `event_stream`, `websocket` | the live feed as server-sent events and over a WebSocket |

mod event_cursor;
pub mod event_stream;
pub mod events;
pub mod meters;
pub mod readings;
pub mod submissions;
pub mod websocket;
