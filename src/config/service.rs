//! Settings of HTTP, feed, logs and process.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::Args;
use reqwest::Url;
use solana_sdk::pubkey::Pubkey;
use tracing_subscriber::EnvFilter;

use super::connections::is_http;
use super::role::ProcessRole;
use super::setting::{common, days, text, text_that, whole};

/// The HTTP server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP", mut_args(common))]
pub struct HttpConfig {
    /// Address of the API: an address such as 127.0.0.1:8080
    #[arg(id = "HTTP_ADDR", env, long = "http-addr", default_value = "127.0.0.1:8080", value_parser = text::<SocketAddr>("an address such as 127.0.0.1:8080"))]
    pub addr: SocketAddr,

    /// Web pages that may call the API: origins such as https://grid.example, comma separated
    #[arg(id = "CORS_ORIGINS", env, long = "cors-origins", value_delimiter = ',', value_parser = text::<Origin>("origins such as https://grid.example, comma separated").map(|origin| origin.0))]
    pub cors_origins: Vec<HeaderValue>,

    /// Requests per minute and subject: a whole number from 1 to 10000000
    #[arg(id = "API_RATE_LIMIT", env, long = "api-rate-limit", default_value = "12000", value_parser = whole(1..=10_000_000u32))]
    pub rate_limit_per_minute: u32,
}

/// An origin as browsers send it (RFC 6454, section 6.2): scheme, host, and the port unless it is the scheme's own.
#[derive(Clone)]
struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = ();

    fn from_str(text: &str) -> Result<Origin, ()> {
        let url = Url::parse(text).map_err(|_| ())?;
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !bare || !is_http(&url) {
            return Err(());
        }
        let origin = url.origin().ascii_serialization();
        HeaderValue::from_str(&origin).map(Origin).map_err(|_| ())
    }
}

/// The event feed over WebSocket.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "WebSocket", mut_args(common))]
pub struct WebsocketConfig {
    /// Connections at the same time: a whole number from 1 to 100000
    #[arg(id = "WEBSOCKET_MAX_CONNECTIONS", env, long = "websocket-max-connections", default_value = "10000", value_parser = whole(1..=100_000u32))]
    pub max_connections: u32,

    /// Pushes per minute to one client; beyond it, one push carries several events: a whole number from 1 to 60000
    #[arg(id = "WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", env, long = "websocket-rate-limit-events-per-minute", default_value = "60", value_parser = whole(1..=60_000u32))]
    pub rate_limit_events_per_minute: u32,

    /// Events that may wait for one client; beyond it, the connection is closed and the client resumes: a whole number from 1 to 100000
    #[arg(id = "WEBSOCKET_EVENT_BUFFER_SIZE", env, long = "websocket-event-buffer-size", default_value = "1000", value_parser = whole(1..=100_000u32))]
    pub event_buffer_size: u32,

    /// Require a token: true or false
    #[arg(id = "WEBSOCKET_AUTH_REQUIRED", env, long = "websocket-auth-required", action = clap::ArgAction::Set, default_value = "true", value_parser = text::<bool>("true or false"))]
    pub auth_required: bool,

    /// Offer permessage-deflate: true or false
    #[arg(id = "WEBSOCKET_COMPRESSION_ENABLED", env, long = "websocket-compression-enabled", action = clap::ArgAction::Set, default_value = "true", value_parser = text::<bool>("true or false"))]
    pub compression_enabled: bool,
}

/// The event log behind the feed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Feed", mut_args(common))]
pub struct FeedConfig {
    /// How long events can be replayed before they are dropped, in days: a whole number from 1 to 3650
    #[arg(id = "FEED_RETENTION_DAYS", env, long = "feed-retention-days", default_value = "30", value_parser = whole(1..=3650u64).map(days))]
    pub retention: Duration,
}

/// Logs and traces.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs and traces", mut_args(common))]
pub struct LogConfig {
    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as info,gridtokenx::mint=debug
    #[arg(id = "LOG_LEVEL", env, long = "log-level", default_value = "info", value_parser = text_that("a level (error, warn, info, debug, trace) or a filter such as info,gridtokenx::mint=debug", |filter: &String| is_log_filter(filter)))]
    pub level: String,

    /// Format of log lines: pretty or json
    #[arg(id = "LOG_FORMAT", env, long = "log-format", default_value = "pretty", value_parser = text::<LogFormat>("pretty or json"))]
    pub format: LogFormat,

    /// Collector of traces, to which /v1/traces is appended; if unset, no traces are exported: an http:// or https:// URL
    #[arg(id = "OTEL_EXPORTER_OTLP_ENDPOINT", env, long = "otel-exporter-otlp-endpoint", hide_env_values = true, value_parser = text_that("an http:// or https:// URL", is_http))]
    pub otlp_endpoint: Option<Url>,
}

/// Whether the text is valid for LOG_LEVEL.
pub fn is_log_filter(filter: &str) -> bool {
    // `EnvFilter` takes a bare word for the name of a module, so a misspelt level would silence all logs.
    let is_level = || {
        filter
            .parse::<tracing::level_filters::LevelFilter>()
            .is_ok()
    };
    EnvFilter::try_new(filter).is_ok() && (is_level() || filter.contains(['=', ',']))
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<LogFormat, ()> {
        match text {
            "pretty" => Ok(LogFormat::Pretty),
            "json" => Ok(LogFormat::Json),
            _ => Err(()),
        }
    }
}

/// The process.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service", mut_args(common))]
pub struct ServiceConfig {
    /// Part of the service that this process runs, also as --role: all, api or worker
    #[arg(id = "GRIDTOKENX_ROLE", env, long = "gridtokenx-role", visible_alias = "role", default_value = "all", value_parser = text::<ProcessRole>("all, api or worker"))]
    pub role: ProcessRole,

    /// How long a shutdown waits for work in progress, in seconds: a whole number from 1 to 600
    #[arg(id = "SHUTDOWN_TIMEOUT_SECS", env, long = "shutdown-timeout-secs", default_value = "30", value_parser = whole(1..=600u64).map(Duration::from_secs))]
    pub shutdown_timeout: Duration,

    /// Send a reading of a dedicated meter through the whole system every minute: true or false
    #[arg(id = "CANARY_ENABLED", env, long = "canary-enabled", action = clap::ArgAction::Set, default_value = "false", value_parser = text::<bool>("true or false"))]
    pub canary_enabled: bool,

    /// Wallet that the canary's readings pay; required with the canary unless the chain is local: 32 bytes in base58
    #[arg(id = "CANARY_WALLET_ADDRESS", env, long = "canary-wallet-address", value_parser = text::<Pubkey>("32 bytes in base58"))]
    pub canary_wallet: Option<Pubkey>,

    /// Free space on the disk of the data directory below which health is degraded, in megabytes: a whole number from 0 to 1000000000
    #[arg(id = "DISK_FREE_MIN_MB", env, long = "disk-free-min-mb", default_value = "500", value_parser = whole(0..=1_000_000_000u64))]
    pub disk_free_min_mb: u64,
}
