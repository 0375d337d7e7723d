//! Reads what one client sends, within limits.
//!
//! Invariant: a client costs no more than its limits, however fast it sends. It has a message rate, and a bounded number of
//! messages that wait for an answer; a client that exceeds either is disconnected.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Bytes;
use governor::{DefaultDirectRateLimiter, Quota};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::client_message::{ClientMessage, ProtocolError};
use super::close_reason::CloseReason;
use crate::websocket::{Incoming, Reader};

/// A client that was pinged three times without an answer is dead; it is disconnected within 90 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(80);
/// Messages that wait for an answer, of at most 64 KiB each. Each is answered at once unless the client does not read the
/// answers.
const UNANSWERED_MAX: usize = 8;
/// Messages, pings and pongs of a client: more than a ping each second, and a new filter now and then.
const CLIENT_MESSAGES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(240).unwrap();

/// Input that needs an answer.
#[derive(Debug)]
pub(super) enum ClientInput {
    Message(Result<ClientMessage, ProtocolError>),
    Ping(Bytes),
}

impl ClientInput {
    pub fn changes_filter(&self) -> bool {
        matches!(
            self,
            ClientInput::Message(Ok(
                ClientMessage::Subscribe { .. } | ClientMessage::Unsubscribe
            ))
        )
    }
}

/// A receiving end for [`read`]'s input. Boxed, because a channel allocates its first places for each of ten thousand streams.
pub(super) type ClientInputs = mpsc::Receiver<Box<ClientInput>>;

/// Takes the input that [`read`] reads.
pub(super) struct InputSink {
    inputs: mpsc::Sender<Box<ClientInput>>,
    activity: watch::Sender<()>,
}

/// Sees that a client is alive.
pub(super) struct Activity(watch::Receiver<()>);

pub(super) fn channel() -> (InputSink, ClientInputs, Activity) {
    let (inputs, receiver) = mpsc::channel(UNANSWERED_MAX);
    let (activity, seen) = watch::channel(());
    (InputSink { inputs, activity }, receiver, Activity(seen))
}

/// Reads until the client leaves or exceeds a limit.
pub(super) async fn read(reader: &mut Reader, sink: InputSink) -> CloseReason {
    let rate = DefaultDirectRateLimiter::direct(Quota::per_minute(CLIENT_MESSAGES_PER_MINUTE));
    loop {
        let incoming = match reader.next().await {
            Ok(incoming) => incoming,
            Err(error) => return error.into(),
        };
        sink.activity.send_replace(());
        if rate.check().is_err() {
            return CloseReason::TooManyMessages;
        }
        let input = match incoming {
            Incoming::Text(text) => ClientInput::Message(ClientMessage::parse(&text)),
            Incoming::Binary => ClientInput::Message(Err(ProtocolError::Binary)),
            Incoming::Ping(payload) => ClientInput::Ping(payload),
            Incoming::Pong => continue,
            Incoming::Close(code) => return CloseReason::Left(code),
        };
        if sink.inputs.try_send(Box::new(input)).is_err() {
            return CloseReason::Unanswered;
        }
        // Several messages may have arrived together: each is answered before the next is read, if the client reads answers.
        tokio::task::yield_now().await;
    }
}

impl Activity {
    /// Returns once the client has sent nothing for [`SILENCE_LIMIT`].
    pub async fn ended(mut self) {
        while let Ok(Ok(())) = timeout(SILENCE_LIMIT, self.0.changed()).await {}
    }
}
