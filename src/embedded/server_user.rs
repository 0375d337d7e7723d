//! The user that runs PostgreSQL, which refuses to run as root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use nix::unistd::{Uid, User};

use super::error::EmbeddedError;

/// Only the owner may enter.
const PRIVATE_DIR: u32 = 0o700;

/// The user that runs the server: the current one, or an ordinary user when the current one is root.
#[derive(Clone, Debug)]
pub(super) enum ServerUser {
    Current,
    Other { uid: u32, gid: u32 },
}

impl ServerUser {
    pub(super) fn choose() -> Result<ServerUser, EmbeddedError> {
        if !Uid::effective().is_root() {
            return Ok(ServerUser::Current);
        }
        ["postgres", "nobody"]
            .into_iter()
            .filter_map(|name| User::from_name(name).ok().flatten())
            .find(|user| !user.uid.is_root())
            .map(|user| ServerUser::Other {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })
            .ok_or(EmbeddedError::NoAccount)
    }

    /// A command that runs as this user. It starts inside `dir`, since this user may not enter our own directory, and with an
    /// empty environment, since variables such as `PGPORT` would change what it does. When root changes the user, all
    /// supplementary groups are dropped too (the standard library does that together with `uid`).
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C");
        if let ServerUser::Other { uid, gid } = self {
            command.uid(*uid).gid(*gid);
        }
        command
    }

    /// Makes this user the owner of the file or directory, and a directory accessible to no other user.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        if let ServerUser::Other { uid, gid } = self {
            chown(path, Some(*uid), Some(*gid))?;
        }
        if path.is_dir() {
            fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIR))?;
        }
        Ok(())
    }

    /// Whether this user can enter `dir`: tried, not computed, because more than the mode bits decides it.
    pub(super) fn can_enter(&self, dir: &Path) -> bool {
        match self {
            ServerUser::Current => true,
            ServerUser::Other { .. } => self
                .command(Path::new("/bin/true"), dir)
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}
