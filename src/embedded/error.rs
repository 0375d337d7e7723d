//! The errors with which the private database or the local chain does not start.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each text is one sentence that says what to do where an operator can do something.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no PostgreSQL server of version {at_least} or newer is installed: install one (apt-get install postgresql) or \
         set DATABASE_URL"
    )]
    NoServer { at_least: u32 },
    #[error(
        "the database in {} was made by PostgreSQL {major}, which is not installed: install it (apt-get install \
         postgresql-{major})",
        .path.display()
    )]
    NoServerOfVersion { path: PathBuf, major: u32 },
    #[error(
        "PostgreSQL's extension {extension} is not installed: install it (apt-get install postgresql-contrib) or set \
         DATABASE_URL"
    )]
    NoExtension { extension: &'static str },
    #[error(
        "PostgreSQL refuses to run as root and there is neither a user postgres nor a user nobody: add one (useradd \
         --system postgres) or run as an ordinary user"
    )]
    NoAccount,
    #[error("the database that {} points to is not in {} any more: put it back, or start over with --fresh", .note.display(), .path.display())]
    Lost { note: PathBuf, path: PathBuf },
    #[error("{} cannot be entered by the user that runs PostgreSQL, though a database is kept there: allow it (chmod o+x on the directories above)", .path.display())]
    Unreachable { path: PathBuf },
    #[error("the password of the database in {} is missing: put the file back, or start over with --fresh", .path.display())]
    NoPassword { path: PathBuf },
    #[error("{} cannot be found: build it (cargo build --features localnet)", .path.display())]
    NoLocalnet { path: PathBuf },
    #[error("{addr} is in use by another program: stop it, or choose another address for {what}")]
    AddressInUse {
        addr: SocketAddr,
        what: &'static str,
    },
    /// `reason` is the last thing that the program logged.
    #[error("{program} did not start: {reason} (more in {})", .log.display())]
    Exited {
        program: &'static str,
        reason: String,
        log: PathBuf,
    },
    #[error("{program} did not answer within {} seconds (more in {})", .limit.as_secs(), .log.display())]
    NoAnswer {
        program: &'static str,
        limit: Duration,
        log: PathBuf,
    },
    #[error("{action} {}: {source}", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the private database refused a connection or statement: {0}")]
    Database(#[from] sqlx::Error),
}

impl EmbeddedError {
    /// For `map_err`: what failed, with which file.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| EmbeddedError::File {
            action,
            path,
            source,
        }
    }
}
