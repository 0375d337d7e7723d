//! Which user runs PostgreSQL, which refuses to be run by root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use nix::unistd::{Uid, User};

use super::EmbeddedError;

/// Only the owner may enter.
const PRIVATE_DIR: u32 = 0o700;

/// The user that runs the server: ourselves, or an ordinary user when we are root.
#[derive(Clone, Debug)]
pub(super) enum Account {
    Ourselves,
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub(super) fn choose() -> Result<Account, EmbeddedError> {
        if !Uid::effective().is_root() {
            return Ok(Account::Ourselves);
        }
        ["postgres", "nobody"]
            .into_iter()
            .filter_map(|name| User::from_name(name).ok().flatten())
            .find(|user| !user.uid.is_root())
            .map(|user| Account::Other {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })
            .ok_or(EmbeddedError::NoAccount)
    }

    /// A command of this user. It is started inside `dir`, since our own directory may be closed to it, and with an empty
    /// environment, since `PGPORT` and its like would have a say otherwise. A change of user by root also drops all
    /// supplementary groups (the standard library does that together with `uid`).
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C");
        if let Account::Other { uid, gid } = self {
            command.uid(*uid).gid(*gid);
        }
        command
    }

    /// Makes the file or directory this user's, and nobody else's.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        if let Account::Other { uid, gid } = self {
            chown(path, Some(*uid), Some(*gid))?;
        }
        if path.is_dir() {
            fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIR))?;
        }
        Ok(())
    }

    /// Whether this user can be inside `dir`: tried, not computed, because more than mode bits decides it.
    pub(super) fn can_enter(&self, dir: &Path) -> bool {
        match self {
            Account::Ourselves => true,
            Account::Other { .. } => self
                .command(Path::new("/bin/true"), dir)
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}
