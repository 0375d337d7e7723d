//! WebSockets on the server's side (RFC 6455), with permessage-deflate (RFC 7692).
//!
//! Invariant: whatever a client sends, its connection costs no more than its limits. A message has [`MESSAGE_BYTES_MAX`] bytes
//! at most, also after inflation, and [`FRAGMENTS_MAX`] fragments, and none of that is read before its header was judged.
//! Between messages a connection holds no buffer at all.
//!
//! A message to many is framed and compressed once: a [`Text`] keeps the bytes that go over the wire, which are the same
//! for all clients, since we never use a compression context of a connection (`server_no_context_takeover`).
//!
//! | file | what it does |
//! |---|---|
//! | `handshake` | the request that becomes a WebSocket, and its answer |
//! | `extension` | which compression a client offers, and what is agreed |
//! | `deflate` | one message compressed, one inflated within a limit |
//! | `frame` | frames out of what has arrived, and into bytes |
//! | `message` | frames into messages |
//! | `text` | a message to clients, framed and compressed once |
//! | `socket` | the connection: a half to read, a half to write |

mod deflate;
mod extension;
mod frame;
mod handshake;
mod message;
mod socket;
mod text;

pub use extension::Compression;
pub use handshake::{HandshakeError, Opening, Upgrade};
pub use message::{Closing, FRAGMENTS_MAX, Incoming, MESSAGE_BYTES_MAX, SocketError};
pub use socket::{Reader, Socket, Writer};
pub use text::{Packing, Text, array};
