//! What meters and their owners use: meters, readings, events, and the live feed.

pub mod event_stream;
pub mod events;
pub mod meters;
pub mod readings;
pub mod websocket;
