//! Sends spans to the collector with `reqwest`, the HTTP client that the service uses everywhere.

use std::pin::Pin;

use axum::http::{Request, Response};
use bytes::{Bytes, BytesMut};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

/// A collector answers briefly; a longer answer is not read to its end.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The exporter calls from its own thread, which has no runtime, so requests run on `runtime`.
#[derive(Debug)]
pub(super) struct OtlpClient {
    pub http: reqwest::Client,
    pub runtime: Handle,
}

impl HttpClient for OtlpClient {
    // The trait uses `async_trait`; this is its expanded signature.
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
        // This also turns a user and password in the URL into a header.
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
