//! Logs: one line per thing that a person can act upon, as text or as JSON.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogConfig, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    #[error(
        "LOG_LEVEL={value:?} is not a filter such as `info` or `warn,gridtokenx=debug`: {source}"
    )]
    Filter {
        value: String,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging was set up twice in this process: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends this process's logs to standard error: standard output belongs to what a command prints. To be called once.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = EnvFilter::builder()
        .parse(&config.level)
        .map_err(|source| LogError::Filter {
            value: config.level.clone(),
            source,
        })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
        LogFormat::Pretty => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_parsed_is_told_with_its_value() {
        let mut config = crate::config::Config::defaults().log;
        config.level = "gridtokenx=loud".to_owned();
        let error = init(&config).unwrap_err();
        assert!(error.to_string().contains("gridtokenx=loud"), "{error}");
    }
}
