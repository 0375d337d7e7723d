//! `gridtokenx listen`: prints the events of the running system as they arrive, one a line.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::follow::{FeedMessage, Follow, FollowError, FollowStep, follow};
use super::running::{Running, RunningError};
use super::signals::stop_on_signal;
use super::tokens::{TokenError, TokenSource, with_development_secret};
use crate::config::{AuthConfig, DataDir};
use crate::meters::Role;

/// Subject of the token when the whole feed is listened to.
const LISTENER: &str = "listener";

/// The arguments of `gridtokenx listen`.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Only what this owner may see: their meters' events; unset, an admin's view: everything
    #[arg(long, value_name = "NAME")]
    pub sub: Option<String>,

    /// Events after this number, as far as they are kept; unset, from now on
    #[arg(long, value_name = "SEQ")]
    pub after: Option<i64>,

    /// Prints each event as the JSON document that it is
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub data_dir: DataDir,

    #[command(flatten)]
    pub auth: AuthConfig,
}

/// The feed cannot be followed.
#[derive(Debug, Error)]
pub enum ListenError {
    #[error(transparent)]
    NotRunning(#[from] RunningError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
}

/// Prints until a signal, or until stdout is closed.
pub async fn run(args: ListenArgs) -> Result<ExitCode, ListenError> {
    let stop = stop_on_signal().map_err(ListenError::Signals)?;
    let running = Running::read(&args.data_dir.path)?;
    let auth = with_development_secret(args.auth.clone(), &args.data_dir.path)?;
    let tokens = match &args.sub {
        Some(owner) => TokenSource::new(&auth, owner, Role::User)?,
        None => TokenSource::new(&auth, LISTENER, Role::Admin)?,
    };
    let target = Follow {
        ws_url: running.ws_url,
        after: args.after,
    };
    print_events(target, args.json, &tokens, &stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Remarks about the connection go to stderr.
async fn print_events(
    target: Follow,
    as_json: bool,
    tokens: &TokenSource,
    stop: &CancellationToken,
) -> Result<(), FollowError> {
    let ws_url = target.ws_url.clone();
    follow(target, tokens, stop, |step| match step {
        FollowStep::Connected {
            resumed_after: None,
        } => {
            eprintln!("Listening at {ws_url}. Ctrl-C ends it.");
        }
        FollowStep::Connected {
            resumed_after: Some(seq),
        } => {
            eprintln!("Listening at {ws_url}, from after event {seq}.");
        }
        FollowStep::Event { message, raw } => {
            let line = if as_json {
                raw.to_owned()
            } else {
                line_of(&message)
            };
            // A closed stdout, as after `head`, ends it.
            if print_line(&line).is_err() {
                stop.cancel();
            }
        }
        FollowStep::Gap { raw } => {
            eprintln!("Events are missing because they are no longer kept: {raw}")
        }
        FollowStep::Remark { raw } => eprintln!("The service reports: {raw}"),
        FollowStep::Disconnected { reason, retry_in } => {
            eprintln!(
                "Cut off: {reason}. Again in {:.1} s.",
                retry_in.as_secs_f64()
            );
        }
    })
    .await
}

fn print_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Number, time and type, then what the event carries.
fn line_of(message: &FeedMessage) -> String {
    let mut parts = vec![
        format!("{:>7}", message.seq.unwrap_or_default()),
        message.timestamp.clone().unwrap_or_default(),
        format!("{:<28}", message.r#type),
    ];
    parts.extend(message.meter_id.clone());
    parts.extend(message.kwh_amount.as_ref().map(|kwh| format!("{kwh} kWh")));
    parts.extend(
        message
            .tokens_minted
            .as_ref()
            .map(|units| format!("{units} base units")),
    );
    if let Some(total) = message.total_readings {
        let mut figures = format!(
            "{total} readings: {} minted, {} failed",
            message.successful_mints.unwrap_or_default(),
            message.failed_mints.unwrap_or_default()
        );
        if let Some(waiting @ 1..) = message.waiting_mints {
            figures += &format!(", {waiting} waiting");
        }
        parts.push(figures);
    }
    parts.extend(message.transaction_signature.clone());
    parts.extend(message.error_reason.clone());
    parts.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &str) -> String {
        line_of(&serde_json::from_str(event).unwrap())
    }

    #[test]
    fn a_line_holds_what_the_event_carries() {
        assert_eq!(
            line(
                r#"{"seq":42,"id":"…","type":"TokensMinted","version":1,"timestamp":"2026-11-25T04:00:00.000001Z",
                    "meter_id":"ausgrid-12-2011-07-01","kwh_amount":"0.1230","tokens_minted":"123000000",
                    "transaction_signature":"5Kj3"}"#
            ),
            "     42  2026-11-25T04:00:00.000001Z  TokensMinted                  ausgrid-12-2011-07-01  0.1230 kWh  123000000 base units  5Kj3"
        );
        assert_eq!(
            line(r#"{"seq":7,"type":"AutoMintToggled","timestamp":"2026-11-25T04:00:00Z"}"#),
            "      7  2026-11-25T04:00:00Z  AutoMintToggled"
        );
        assert_eq!(
            line(
                r#"{"seq":8,"type":"BatchMintingCompleted","timestamp":"t","total_readings":3,"successful_mints":2,"failed_mints":1}"#
            ),
            "      8  t  BatchMintingCompleted         3 readings: 2 minted, 1 failed"
        );
        assert_eq!(
            line(
                r#"{"seq":9,"type":"BatchMintingCompleted","timestamp":"t","total_readings":3,"successful_mints":1,"failed_mints":0,"waiting_mints":2}"#
            ),
            "      9  t  BatchMintingCompleted         3 readings: 1 minted, 0 failed, 2 waiting"
        );
    }
}
