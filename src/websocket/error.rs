//! The errors after which a connection cannot be read any further.

use thiserror::Error;

/// The connection cannot be read any further.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SocketError {
    /// The connection ended without a close frame, as most do.
    #[error("the connection is gone")]
    Gone,
    #[error(transparent)]
    Protocol(#[from] ProtocolViolation),
    #[error("a text is not valid UTF-8")]
    NotUtf8,
    #[error("a message is too big")]
    TooBig,
    #[error("a message has too many fragments")]
    TooManyFragments,
    /// A message began but did not arrive completely in time.
    #[error("a message is incomplete")]
    Unfinished,
}

/// A violation of RFC 6455 or 7692 by a client. The sentences are sent to the client.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProtocolViolation {
    #[error("a frame has an undefined opcode")]
    UndefinedOpcode,
    #[error("a client's frames must be masked")]
    Unmasked,
    #[error("a frame has reserved bits")]
    ReservedBits,
    #[error("a control frame must not be fragmented")]
    FragmentedControl,
    #[error("a control frame has at most 125 bytes")]
    LongControl,
    #[error("a control frame must not be compressed")]
    CompressedControl,
    #[error("a message is compressed although compression was not negotiated")]
    CompressionNotNegotiated,
    #[error("a compressed message cannot be inflated")]
    CorruptCompression,
    #[error("a message starts between the fragments of another one")]
    InterleavedMessage,
    #[error("a fragment belongs to no message")]
    StrayFragment,
    #[error("a later fragment has reserved bits")]
    ReservedBitsInFragment,
    #[error("a close frame has half a status code")]
    HalfStatusCode,
    #[error("a close frame has a status code that must not be sent")]
    InvalidStatusCode,
}
