//! WebSockets on the server's side (RFC 6455), with permessage-deflate (RFC 7692).
//!
//! Invariant: whatever a client sends, its connection costs no more than its limits. A message has at most
//! [`MESSAGE_BYTES_MAX`] bytes, even after inflation, and at most [`FRAGMENTS_MAX`] fragments; a frame is checked by its header
//! before its payload is read. Between messages a connection holds no buffer at all.
//!
//! A message to many clients is framed and compressed once: a [`Text`] keeps its bytes as they are sent. They are the same for
//! every client because the server keeps no compression context per connection (`server_no_context_takeover`).
//!
//! | file | what it does |
//! |---|---|
//! | `handshake` | validates the upgrade request and answers it |
//! | `extension` | negotiates compression |
//! | `deflate` | compresses one message, inflates one within a limit |
//! | `frame` | parses frames from received bytes, encodes frames to send |
//! | `message` | assembles frames into messages |
//! | `error` | the errors after which a connection cannot be read any further |
//! | `text` | a message to clients, framed and compressed once |
//! | `socket` | the connection: a half to read, a half to write |

mod deflate;
mod error;
mod extension;
mod frame;
mod handshake;
mod message;
mod socket;
mod text;

pub use error::{ProtocolViolation, SocketError};
pub use extension::Compression;
pub use handshake::{HandshakeError, PendingSocket, Upgrade};
pub use message::{CloseCode, FRAGMENTS_MAX, Incoming, MESSAGE_BYTES_MAX};
pub use socket::{Reader, Socket, Writer};
pub use text::{ArrayCompression, Text, array};
