//! Logs: one line per event that a person can act upon, as text or as JSON.
//!
//! Invariant: no secret is ever logged. Our own lines contain none. Lines of libraries below `info`, which we have not reviewed
//! and which may contain headers and URLs, never pass, regardless of the filter.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use thiserror::Error;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogConfig, LogFormat};

/// Logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    #[error(
        "LOG_LEVEL={value:?} is not a filter such as `info` or `warn,gridtokenx=debug`: {source}"
    )]
    Filter { value: String, source: ParseError },
    #[error("logging was set up twice in this process: {0}")]
    Twice(#[from] TryInitError),
}

/// The filter of this process, and the handle to change it. A process has one set of logs.
struct Switch {
    /// LOG_LEVEL.
    configured: String,
    filter: reload::Handle<EnvFilter, Registry>,
}

static SWITCH: OnceLock<Switch> = OnceLock::new();

/// Writes this process's logs to standard error, because standard output is for the output of commands. Must be called once.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = parse(&config.level).map_err(|source| LogError::Filter {
        value: config.level.clone(),
        source,
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let filter = filter.and(filter_fn(may_be_logged));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
        LogFormat::Pretty => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter)
            .boxed(),
    };
    let switch = Switch {
        configured: config.level.clone(),
        filter: handle,
    };
    tracing_subscriber::registry().with(lines).try_init()?;
    // `try_init` has already refused a second set of logs.
    let _ = SWITCH.set(switch);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(filter)
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || is_ours(metadata.target())
}

fn is_ours(target: &str) -> bool {
    target == "gridtokenx" || target.starts_with("gridtokenx::")
}

/// Logs a panic like any other event. This is the only place that logs its cause: code that catches the panic logs only the
/// consequences.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let cause = panic.payload_as_str().unwrap_or("no message");
    match panic.location() {
        Some(location) => tracing::error!(%location, cause, "panic"),
        None => tracing::error!(cause, "panic"),
    }
}

/// Changes the filter; `None` restores LOG_LEVEL. An invalid filter changes nothing. Without effect in a process that never
/// set up its logs.
pub fn set_log_level(filter: Option<&str>) {
    let Some(switch) = SWITCH.get() else {
        return;
    };
    let text = filter.unwrap_or(&switch.configured);
    let changed = parse(text)
        .map_err(|error| error.to_string())
        .and_then(|filter| {
            switch
                .filter
                .reload(filter)
                .map_err(|error| error.to_string())
        });
    match changed {
        Ok(()) => tracing::warn!(log_level = text, "log level changed"),
        Err(error) => tracing::error!(log_level = text, error, "log level could not be changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_filter_is_reported_with_its_value() {
        let mut config = crate::config::Config::defaults().log;
        config.level = "gridtokenx=loud".to_owned();
        let error = init(&config).unwrap_err();
        assert!(error.to_string().contains("gridtokenx=loud"), "{error}");
    }

    #[test]
    fn only_our_own_crate_is_ours() {
        assert!(is_ours("gridtokenx") && is_ours("gridtokenx::mint::batch"));
        assert!(!is_ours("hyper::client") && !is_ours("gridtokenx_foreign"));
    }
}
