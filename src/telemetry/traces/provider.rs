//! Starts and ends the export of traces.

use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::InvalidUri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::Url;
use sqlx::PgPool;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::installed::{install, is_on};
use super::otlp_client::OtlpClient;
use super::queue::Queue;
use super::step_export::{STEPS_WAITING_MAX, export_all};
use crate::config::LogConfig;

/// Limit of one export, its repetitions included. A collector that hangs loses the waiting spans and affects nothing else.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);
/// A mint transaction pays this many readings at most.
const LINKS_MAX: u32 = 1_000;

/// Traces cannot be exported.
#[derive(Debug, Error)]
pub enum TracesError {
    // Without the URL, which may contain a password.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT is not a URL to which traces can be sent")]
    Endpoint(#[from] InvalidUri),
    #[error("traces cannot be exported with these OTEL_EXPORTER_OTLP_* variables: {0}")]
    Exporter(ExporterBuildError),
    #[error("the HTTP client for traces could not be created: {0}")]
    Client(reqwest::Error),
}

/// The running export of this process. [`Traces::end`] flushes it.
pub struct Traces {
    provider: SdkTracerProvider,
    step_export: TaskTracker,
    stop: CancellationToken,
}

/// Starts the export if a collector is configured. `instance` identifies this process. A process exports to one collector:
/// a second service in the same process shares the exporter of the first.
pub fn start(
    config: &LogConfig,
    pool: &PgPool,
    instance: &str,
) -> Result<Option<Traces>, TracesError> {
    let Some(endpoint) = config.otlp_endpoint.as_ref().filter(|_| !is_on()) else {
        return Ok(None);
    };
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Queue::before(exporter(endpoint)?))
        .with_max_links_per_span(LINKS_MAX)
        .with_resource(resource(instance))
        .build();
    let (sender, steps) = mpsc::channel(STEPS_WAITING_MAX);
    if !install(provider.tracer("gridtokenx"), sender) {
        return Ok(None);
    }
    let (step_export, stop) = (TaskTracker::new(), CancellationToken::new());
    step_export.spawn(export_all(pool.clone(), steps, stop.clone()));
    step_export.close();
    Ok(Some(Traces {
        provider,
        step_export,
        stop,
    }))
}

fn exporter(endpoint: &Url) -> Result<SpanExporter, TracesError> {
    let url = traces_url(endpoint);
    // Checked here, because the error of the exporter would contain the whole URL.
    let _: Uri = url.parse()?;
    let http = reqwest::Client::builder()
        .timeout(EXPORT_LIMIT)
        .build()
        .map_err(TracesError::Client)?;
    let client = OtlpClient {
        http,
        runtime: Handle::current(),
    };
    SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(url)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_LIMIT)
        .build()
        .map_err(TracesError::Exporter)
}

/// The variable names the collector; the protocol defines the path for traces.
fn traces_url(endpoint: &Url) -> String {
    let mut url = endpoint.clone();
    url.set_path(&format!(
        "{}/v1/traces",
        endpoint.path().trim_end_matches('/')
    ));
    url.into()
}

fn resource(instance: &str) -> Resource {
    Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", "gridtokenx"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build()
}

impl Traces {
    /// Exports the waiting spans. Those that the collector does not accept within the limit are lost.
    pub async fn end(self, limit: Duration) {
        let until = Instant::now() + limit;
        self.stop.cancel();
        // If the database is unavailable, half of the time remains for spans that do not need it.
        let _ = timeout(limit / 2, self.step_export.wait()).await;
        let left = until.saturating_duration_since(Instant::now());
        // It blocks until the exporter's thread has ended, and returns within the limit.
        let provider = self.provider;
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(left));
        if !matches!(timeout(left, ended).await, Ok(Ok(Ok(())))) {
            tracing::info!("the collector did not accept the last traces in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_sent_to_a_path_below_the_collectors_url() {
        for (endpoint, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            (
                "https://key:secret@host/otlp",
                "https://key:secret@host/otlp/v1/traces",
            ),
        ] {
            assert_eq!(traces_url(&endpoint.parse().unwrap()), expected);
        }
    }
}
