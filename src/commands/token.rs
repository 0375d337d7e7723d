//! `gridtokenx token`: prints one development token, and nothing else.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::replay::METER_OWNER;
use super::tokens::{self, TokenError};
use crate::config::{AuthConfig, DataDir};
use crate::meters::Role;

/// Prints a development token, signed by JWT_SECRET or else by the data directory's own secret
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// What the token allows
    #[arg(long)]
    pub role: RoleName,

    /// Subject of the token: by default "admin", or the owner of the play's meters
    #[arg(long)]
    pub sub: Option<String>,

    /// How long it is valid: a number with s, m, h or d
    #[arg(long, default_value = "24h", value_parser = parse_ttl)]
    pub ttl: Duration,

    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub data_dir: DataDir,
}

/// A role as the command line and the token write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleName {
    Admin,
    User,
}

const DEFAULT_ADMIN: &str = "admin";

/// Prints the token.
pub fn run(args: &TokenArgs) -> Result<ExitCode, TokenError> {
    let token = token(args)?;
    // A closed standard output is not an error.
    let _ = writeln!(io::stdout(), "{token}");
    Ok(ExitCode::SUCCESS)
}

fn token(args: &TokenArgs) -> Result<String, TokenError> {
    let auth = tokens::with_development_secret(args.auth.clone(), &args.data_dir.path)?;
    let (role, default_subject) = match args.role {
        RoleName::Admin => (Role::Admin, DEFAULT_ADMIN),
        RoleName::User => (Role::User, METER_OWNER),
    };
    let subject = args.sub.as_deref().unwrap_or(default_subject);
    Ok(tokens::authenticator(&auth)?.issue(subject, role, args.ttl)?)
}

/// No development task needs a longer life, and a token cannot be revoked.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `90s`, `15m`, `24h`, `7d`: 1 second to 365 days.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    let allowed = || format!("{text:?} is not a duration such as 90s, 15m, 24h or 7d, up to 365d");
    let unit = text.chars().last().ok_or_else(allowed)?;
    let seconds_per_unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(allowed()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(allowed());
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(seconds_per_unit))
        .map(Duration::from_secs)
        .filter(|ttl| !ttl.is_zero() && *ttl <= TTL_MAX)
        .ok_or_else(allowed)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    #[test]
    fn times_to_live() {
        assert_eq!(parse_ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_ttl("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_ttl("365d"), Ok(TTL_MAX));
        for odd in [
            "",
            "h",
            "0s",
            "-1h",
            "+1h",
            "1.5h",
            "366d",
            "24",
            "24µ",
            "99999999999999999999d",
        ] {
            assert!(parse_ttl(odd).is_err(), "{odd}");
        }
    }

    #[tokio::test]
    async fn a_printed_token_counts_where_the_same_secret_is() {
        let secret = "s".repeat(32);
        let token_of = |flags: &[&str]| {
            let flags = ["token", "--jwt-secret", &secret]
                .into_iter()
                .chain(flags.iter().copied());
            token(&Line::try_parse_from(flags).unwrap().token).unwrap()
        };
        let auth = crate::config::Config::from_flags(["--jwt-secret", &secret])
            .unwrap()
            .auth;
        let authenticator = tokens::authenticator(&auth).unwrap();
        for (flags, subject, role) in [
            (&["--role", "user"][..], METER_OWNER, Role::User),
            (&["--role", "admin"], DEFAULT_ADMIN, Role::Admin),
            (
                &["--role", "user", "--sub", "me", "--ttl", "5m"],
                "me",
                Role::User,
            ),
        ] {
            let principal = authenticator.verify(&token_of(flags)).await.unwrap();
            assert_eq!(principal.caller.subject, subject);
            assert_eq!(principal.caller.role, role);
        }
        assert!(Line::try_parse_from(["token", "--role", "root"]).is_err());
    }

    #[test]
    fn no_token_is_issued_when_an_identity_provider_signs_them() {
        let line = [
            "token",
            "--role",
            "user",
            "--jwt-jwks-url",
            "https://keys.example",
        ];
        let refused = token(&Line::try_parse_from(line).unwrap().token);
        assert!(matches!(
            refused,
            Err(TokenError::Auth(crate::domain::AuthError::CannotIssue))
        ));
    }
}
