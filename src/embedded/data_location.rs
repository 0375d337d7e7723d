//! Where a cluster lives: in its data directory, or, where the server's user cannot reach that, elsewhere.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

use super::EmbeddedError;
use super::account::Account;

/// Homes of clusters whose data directory is closed to the server's user, such as one below `/root`.
pub(super) const ELSEWHERE: &str = "/var/lib/gridtokenx";
/// In the data directory of such a cluster: says where it lives.
const NOTE: &str = "location";

/// A directory that the server's user owns, and that user.
#[derive(Clone, Debug)]
pub(super) struct Home {
    dir: PathBuf,
    account: Account,
}

impl Home {
    /// The home of the cluster of this data directory, made where it does not exist.
    pub(super) fn prepare(data_dir: &Path, elsewhere: &Path) -> Result<Home, EmbeddedError> {
        let account = Account::choose()?;
        fs::create_dir_all(data_dir).map_err(EmbeddedError::file("cannot create", data_dir))?;
        let data_dir =
            fs::canonicalize(data_dir).map_err(EmbeddedError::file("cannot resolve", data_dir))?;
        let above = data_dir.parent().unwrap_or(&data_dir);

        let dir = if let Some(noted) = noted(&data_dir)? {
            noted
        } else if account.can_enter(above) {
            data_dir
        } else if data_dir.join("data").exists() {
            return Err(EmbeddedError::Unreachable { path: data_dir });
        } else {
            move_out(&data_dir, elsewhere)?
        };
        account
            .own(&dir)
            .map_err(EmbeddedError::file("cannot take possession of", &dir))?;
        Ok(Home { dir, account })
    }

    /// The home that an earlier start made, if any.
    pub(super) fn find(data_dir: &Path) -> Result<Option<PathBuf>, EmbeddedError> {
        match fs::canonicalize(data_dir) {
            Ok(data_dir) => Ok(Some(noted(&data_dir)?.unwrap_or(data_dir))),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// The cluster itself, complete as soon as it exists.
    pub(super) fn data(&self) -> PathBuf {
        data_in(&self.dir)
    }

    /// Stores a small file for the server's user and root, never half of it.
    pub(super) fn store(&self, name: &str, content: &str) -> Result<(), EmbeddedError> {
        let path = self.dir.join(name);
        let write = || {
            let new = write_private(&path, content)?;
            self.account.own(&new)?;
            fs::rename(&new, &path)
        };
        write().map_err(EmbeddedError::file("cannot write", &path))
    }

    pub(super) fn load(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name))
            .ok()
            .map(|content| content.trim().to_owned())
    }
}

/// The cluster inside a home.
pub(super) fn data_in(home: &Path) -> PathBuf {
    home.join("data")
}

/// Where the note of this data directory points. A note that points nowhere is an error: an empty database in place of a
/// lost one would pay everything a second time.
fn noted(data_dir: &Path) -> Result<Option<PathBuf>, EmbeddedError> {
    let note = data_dir.join(NOTE);
    match fs::read_to_string(&note) {
        Ok(line) => {
            let path = PathBuf::from(line.trim_end());
            if path.is_dir() {
                Ok(Some(path))
            } else {
                Err(EmbeddedError::Lost { note, path })
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EmbeddedError::file("cannot read", &note)(error)),
    }
}

/// Makes a home elsewhere, named after the data directory, and notes it there. A name that is taken belongs to a data
/// directory that has been renamed since, and takes its note along.
fn move_out(data_dir: &Path, elsewhere: &Path) -> Result<PathBuf, EmbeddedError> {
    fs::create_dir_all(elsewhere).map_err(EmbeddedError::file("cannot create", elsewhere))?;
    let hash = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut number = 1;
    let home = loop {
        let home = elsewhere.join(format!("{name}-{number}"));
        match fs::create_dir(&home) {
            Ok(()) => break home,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(EmbeddedError::file("cannot create", &home)(error)),
        }
    };
    let note = data_dir.join(NOTE);
    write_private(&note, &format!("{}\n", home.display()))
        .and_then(|new| fs::rename(new, &note))
        .map_err(EmbeddedError::file("cannot write", &note))?;
    Ok(home)
}

/// Writes beside the file, for a later rename.
fn write_private(path: &Path, content: &str) -> io::Result<PathBuf> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    io::Write::write_all(&mut file, content.as_bytes())?;
    file.sync_all()?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory that is closed to everyone but us, and one that is open to all.
    fn closed_and_open(name: &str) -> (PathBuf, PathBuf, PathBuf) {
        let root = std::env::temp_dir().join(format!("gridtokenx-{name}-{}", std::process::id()));
        let closed = root.join("closed");
        let open = root.join("open");
        fs::create_dir_all(&closed).unwrap();
        fs::create_dir_all(&open).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        (root, closed, open)
    }

    #[test]
    fn a_reachable_data_directory_is_the_home() {
        let (root, _, open) = closed_and_open("home-open");
        let home = Home::prepare(&open.join("postgres"), &root.join("elsewhere")).unwrap();
        assert_eq!(
            home.dir(),
            fs::canonicalize(&open).unwrap().join("postgres")
        );
        home.store("port", "15432\n").unwrap();
        assert_eq!(home.load("port").as_deref(), Some("15432"));
        let mode = fs::metadata(home.dir().join("port"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(home.account().can_enter(home.dir()));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn root_moves_out_of_a_directory_that_the_server_cannot_reach() {
        let (root, closed, _) = closed_and_open("home-closed");
        let (data_dir, elsewhere) = (closed.join("postgres"), root.join("elsewhere"));
        let first = Home::prepare(&data_dir, &elsewhere).unwrap();
        if matches!(first.account(), Account::Ourselves) {
            // An ordinary user reaches its own directories.
            assert_eq!(first.dir(), fs::canonicalize(&data_dir).unwrap());
            return fs::remove_dir_all(root).unwrap();
        }
        assert!(first.dir().starts_with(&elsewhere));
        assert!(first.account().can_enter(first.dir()));
        assert_eq!(
            Home::prepare(&data_dir, &elsewhere).unwrap().dir(),
            first.dir()
        );

        // The data directory is set aside, and a fresh one takes its name: each keeps its own home.
        let aside = closed.join("aside");
        fs::rename(&data_dir, &aside).unwrap();
        let second = Home::prepare(&data_dir, &elsewhere).unwrap();
        assert_ne!(second.dir(), first.dir());
        assert_eq!(Home::find(&aside).unwrap().as_deref(), Some(first.dir()));

        fs::remove_dir_all(second.dir()).unwrap();
        let lost = Home::prepare(&data_dir, &elsewhere).unwrap_err();
        assert!(matches!(lost, EmbeddedError::Lost { .. }), "{lost}");
        fs::remove_dir_all(root).unwrap();
    }
}
