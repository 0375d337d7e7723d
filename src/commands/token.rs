//! `gridtokenx token`: prints one development token, and nothing else; and the secret that signs such tokens.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rand::TryRngCore;
use rand::rngs::OsRng;
use thiserror::Error;
use uuid::Uuid;

use crate::api::{AuthError, Authenticator, TokenKeys};
use crate::config::{AuthConfig, DataDir};
use crate::meters::Role;

/// Why no development token can be made.
#[derive(Debug, Error)]
pub enum TokenError {
    #[error("the secret of development tokens, {}, cannot be read or made: {source}", .path.display())]
    Secret { path: PathBuf, source: io::Error },
    #[error("the secret of development tokens, {}, is shorter than 32 bytes; remove the file to get a new one", .path.display())]
    ShortSecret { path: PathBuf },
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the token cannot be printed: {0}")]
    Print(io::Error),
}

/// Prints a development token, signed by JWT_SECRET or else by the data directory's own secret
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// What the token allows
    #[arg(long)]
    pub role: RoleName,

    /// Whom the token speaks for: by default "admin", or the owner of the play's meters
    #[arg(long)]
    pub sub: Option<String>,

    /// How long it counts: a number with s, m, h or d
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

/// Owner of the meters of the play.
const DEFAULT_USER: &str = "ausgrid-12";
const DEFAULT_ADMIN: &str = "admin";

/// Prints the token.
pub fn run(args: &TokenArgs) -> Result<(), TokenError> {
    let token = token(args)?;
    writeln!(io::stdout(), "{token}").map_err(TokenError::Print)
}

fn token(args: &TokenArgs) -> Result<String, TokenError> {
    let auth = &args.auth;
    let secret = match (&auth.jwt_secret, &auth.jwt_jwks_url) {
        (Some(secret), _) => secret.expose().to_owned(),
        (None, Some(_)) => return Err(TokenError::Auth(AuthError::CannotIssue)),
        (None, None) => development_secret(&args.data_dir.path)?,
    };
    let (role, default_subject) = match args.role {
        RoleName::Admin => (Role::Admin, DEFAULT_ADMIN),
        RoleName::User => (Role::User, DEFAULT_USER),
    };
    let authenticator =
        Authenticator::with_secret(&secret, auth.jwt_issuer.clone(), auth.jwt_audience.clone());
    let subject = args.sub.as_deref().unwrap_or(default_subject);
    Ok(authenticator.issue(subject, role, args.ttl)?)
}

/// File of the secret, in the data directory, readable by its owner alone.
const SECRET_FILE: &str = "jwt-secret";

/// The secret that signs development tokens where neither JWT_SECRET nor JWT_JWKS_URL is set. It stays with the data
/// directory: drawn once, whoever asks first.
pub fn development_secret(data_dir: &Path) -> Result<String, TokenError> {
    let path = data_dir.join(SECRET_FILE);
    let secret = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => draw(data_dir, &path),
        read => read,
    };
    let secret = secret.map_err(|source| TokenError::Secret {
        path: path.clone(),
        source,
    })?;
    let secret = secret.trim();
    if secret.len() < 32 {
        return Err(TokenError::ShortSecret { path });
    }
    Ok(secret.to_owned())
}

/// Draws a secret and puts it at `path`. Of several processes that draw at the same time one wins, since a link is made
/// whole or not at all, and never over another file; all return the winner's.
fn draw(data_dir: &Path, path: &Path) -> io::Result<String> {
    DirBuilder::new()
        .recursive(true)
        // The database's own user must be able to enter; each secret in it is closed by itself.
        .mode(0o755)
        .create(data_dir)?;
    let mut bytes = [0_u8; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = data_dir.join(format!(".{SECRET_FILE}.{}", Uuid::new_v4()));
    let linked = write_private(&draft, &secret).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => {
            File::open(data_dir)?.sync_all()?;
            fs::read_to_string(path)
        }
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A longer life makes no development token better, and it cannot be called back.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `90s`, `15m`, `24h`, `7d`: 1 second to 365 days.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    let allowed = || format!("{text:?} is no time such as 90s, 15m, 24h or 7d, up to 365d");
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
        let keys = TokenKeys::Secret(secret.clone());
        let authenticator = Authenticator::new(keys, None, None).unwrap();
        for (flags, subject, role) in [
            (&["--role", "user"][..], DEFAULT_USER, Role::User),
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
    fn the_data_directory_keeps_one_secret_for_all_who_ask() {
        use std::os::unix::fs::PermissionsExt;

        let data_dir = std::env::temp_dir().join(format!("gridtokenx-token-{}", Uuid::new_v4()));
        let askers: Vec<_> = (0..8)
            .map(|_| {
                let data_dir = data_dir.clone();
                std::thread::spawn(move || development_secret(&data_dir).unwrap())
            })
            .collect();
        let mut secrets: Vec<String> = askers
            .into_iter()
            .map(|asker| asker.join().unwrap())
            .collect();
        secrets.dedup();
        assert_eq!(secrets.len(), 1);
        assert_eq!(secrets[0].len(), 64);
        let names: Vec<_> = fs::read_dir(&data_dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [SECRET_FILE], "nothing else is left behind");
        let mode = fs::metadata(data_dir.join(SECRET_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(data_dir.join(SECRET_FILE), "short").unwrap();
        assert!(matches!(
            development_secret(&data_dir),
            Err(TokenError::ShortSecret { .. })
        ));
        fs::remove_dir_all(&data_dir).unwrap();
    }

    #[test]
    fn an_identity_providers_tokens_are_not_ours_to_make() {
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
            Err(TokenError::Auth(AuthError::CannotIssue))
        ));
    }
}
