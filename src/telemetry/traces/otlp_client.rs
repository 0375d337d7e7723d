//! Carries spans to the collector with the HTTP client that the service has anyway.

use std::pin::Pin;

use axum::http::{Request, Response};
use bytes::{Bytes, BytesMut};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

/// A collector answers with a few words; what is beyond them is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The exporter waits on a thread of its own, which has no runtime: requests run on this one.
#[derive(Debug)]
pub(super) struct OtlpClient {
    pub http: reqwest::Client,
    pub runtime: Handle,
}

impl HttpClient for OtlpClient {
    // The trait is written with `async_trait`; this is what it stands for.
    fn send_bytes<'life, 'future>(
        &'life self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        let sent = send(self.http.clone(), request);
        let task = self.runtime.spawn(sent);
        Box::pin(async move { Ok(task.await??) })
    }
}

async fn send(http: reqwest::Client, request: Request<Bytes>) -> reqwest::Result<Response<Bytes>> {
    let (head, body) = request.into_parts();
    let mut answer = http
        // Also turns a user and password of the URL into a header.
        .request(head.method, head.uri.to_string())
        .headers(head.headers)
        .body(body)
        .send()
        .await
        .map_err(reqwest::Error::without_url)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(body.freeze());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
