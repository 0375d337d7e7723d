//! A client of the feed's WebSocket that exposes frames, messages and close codes as they arrive.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gridtokenx::meters::Role;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::client::token;
use super::schema;
use super::wait::LIMIT;

pub struct FeedClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Messages of frames that were read.
    messages: VecDeque<Value>,
    /// Messages in each frame so far.
    pub frames: Vec<usize>,
}

/// What arrived next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Message(Value),
    /// Close code and reason; `None` for a connection that ended without a close frame.
    Closed(Option<(u16, String)>),
}

impl FeedClient {
    /// Connects; `Err` is the status of the rejection.
    pub async fn connect(
        api_url: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<FeedClient, u16> {
        FeedClient::connect_at(api_url, "/ws", headers).await
    }

    /// The same for another path and query.
    pub async fn connect_at(
        api_url: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<FeedClient, u16> {
        let url = format!("{}{path}", api_url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(*name, value);
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(FeedClient {
                socket,
                messages: VecDeque::new(),
                frames: Vec::new(),
            }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects as a user and sends the resume message; `None` if the process has ended or ends meanwhile.
    pub async fn try_resumed(api_url: &str, subject: &str, resume: &Value) -> Option<FeedClient> {
        let url = format!("{}/ws", api_url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {}", token(subject, Role::User));
        let bearer = HeaderValue::from_str(&bearer).unwrap();
        request.headers_mut().insert("authorization", bearer);
        let (socket, _) = connect_async(request).await.ok()?;
        let mut client = FeedClient {
            socket,
            messages: VecDeque::new(),
            frames: Vec::new(),
        };
        match client.next_in_time().await {
            Next::Message(hello) if hello["type"] == "hello" => {}
            Next::Message(other) => panic!("{other}"),
            Next::Closed(_) => return None,
        }
        let text = Message::text(resume.to_string());
        client.socket.send(text).await.ok()?;
        Some(client)
    }

    pub async fn with_token(api_url: &str, token: &str) -> FeedClient {
        let bearer = format!("Bearer {token}");
        FeedClient::connect(api_url, &[("authorization", &bearer)])
            .await
            .unwrap_or_else(|status| panic!("refused with {status}"))
    }

    /// Connects and reads hello; returns its number too.
    pub async fn open(api_url: &str, subject: &str, role: Role) -> (FeedClient, i64) {
        let mut client = FeedClient::with_token(api_url, &token(subject, role)).await;
        let hello = client.message().await;
        assert_eq!(hello["type"], "hello", "{hello}");
        let seq = hello["seq"].as_i64().unwrap();
        (client, seq)
    }

    /// Connects as a user and resumes after a number.
    pub async fn resumed(api_url: &str, subject: &str, role: Role, after: i64) -> FeedClient {
        let (mut client, _) = FeedClient::open(api_url, subject, role).await;
        client
            .send_json(json!({"type": "resume", "after": after}))
            .await;
        client
    }

    pub async fn send_json(&mut self, message: Value) {
        self.send(Message::text(message.to_string())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Waits for the next message or close frame, without a limit.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Next::Message(message);
            }
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    schema::check_frame(text.as_str());
                    match serde_json::from_str(text.as_str()).unwrap() {
                        Value::Array(messages) => self.messages.extend(messages),
                        message => self.messages.push_back(message),
                    }
                    self.frames.push(self.messages.len());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Next::Closed(
                        frame.map(|frame| (frame.code.into(), frame.reason.to_string())),
                    );
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Next::Closed(None),
            }
        }
    }

    /// The next message; a closed stream is a failure.
    pub async fn message(&mut self) -> Value {
        match self.next_in_time().await {
            Next::Message(message) => message,
            closed => panic!("{closed:?}"),
        }
    }

    /// The number of the next message, which must be an event.
    pub async fn seq(&mut self) -> i64 {
        let message = self.message().await;
        message["seq"]
            .as_i64()
            .unwrap_or_else(|| panic!("no event: {message}"))
    }

    /// Code and reason of the close frame, which must be next.
    pub async fn closed(&mut self) -> (u16, Value) {
        match self.next_in_time().await {
            Next::Closed(Some((code, reason))) => (code, reason_of(&reason)),
            other => panic!("{other:?}"),
        }
    }

    /// The same for a stream that may send other messages before.
    pub async fn eventually_closed(&mut self) -> (u16, Value) {
        loop {
            match self.next_in_time().await {
                Next::Closed(Some((code, reason))) => return (code, reason_of(&reason)),
                Next::Closed(None) => panic!("ended without a close frame"),
                Next::Message(_) => {}
            }
        }
    }

    async fn next_in_time(&mut self) -> Next {
        tokio::time::timeout(LIMIT, self.next())
            .await
            .expect("a message in time")
    }

    /// Fails if a message arrives within this time. Only for tests of silence: a message that arrives later goes unnoticed.
    pub async fn expect_silence_for(&mut self, time: Duration) {
        if let Ok(received) = tokio::time::timeout(time, self.next()).await {
            panic!("{received:?}");
        }
    }
}

/// Parses a close frame's reason, and checks it against the schema.
pub fn reason_of(reason: &str) -> Value {
    let reason = serde_json::from_str(reason).unwrap();
    schema::check_close(&reason);
    reason
}
