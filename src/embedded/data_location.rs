//! The directory that holds a cluster: the data directory, or another one when the server's user cannot enter that.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

use super::error::EmbeddedError;
use super::server_user::ServerUser;

/// Parent of the directories of clusters whose data directory the server's user cannot enter, such as one below `/root`.
pub(super) const FALLBACK_PARENT: &str = "/var/lib/gridtokenx";
/// In the data directory of such a cluster: the path of the cluster's directory.
const NOTE: &str = "location";

/// A directory that the server's user owns, and that user.
#[derive(Clone, Debug)]
pub(super) struct DataLocation {
    dir: PathBuf,
    user: ServerUser,
}

impl DataLocation {
    /// The location of the cluster of this data directory, created where it does not exist.
    pub(super) fn prepare(
        data_dir: &Path,
        fallback_parent: &Path,
    ) -> Result<DataLocation, EmbeddedError> {
        let user = ServerUser::choose()?;
        fs::create_dir_all(data_dir).map_err(EmbeddedError::file("cannot create", data_dir))?;
        let data_dir =
            fs::canonicalize(data_dir).map_err(EmbeddedError::file("cannot resolve", data_dir))?;
        let above = data_dir.parent().unwrap_or(&data_dir);

        let dir = if let Some(noted) = noted(&data_dir)? {
            noted
        } else if user.can_enter(above) {
            data_dir
        } else if data_dir.join("data").exists() {
            return Err(EmbeddedError::Unreachable { path: data_dir });
        } else {
            create_fallback(&data_dir, fallback_parent)?
        };
        user.own(&dir)
            .map_err(EmbeddedError::file("cannot take ownership of", &dir))?;
        Ok(DataLocation { dir, user })
    }

    /// The directory that an earlier start created, if any.
    pub(super) fn find(data_dir: &Path) -> Result<Option<PathBuf>, EmbeddedError> {
        match fs::canonicalize(data_dir) {
            Ok(data_dir) => Ok(Some(noted(&data_dir)?.unwrap_or(data_dir))),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn user(&self) -> &ServerUser {
        &self.user
    }

    /// The cluster itself, complete as soon as it exists.
    pub(super) fn data(&self) -> PathBuf {
        data_in(&self.dir)
    }

    /// Stores a small file for the server's user and root, atomically.
    pub(super) fn store(&self, name: &str, content: &str) -> Result<(), EmbeddedError> {
        let path = self.dir.join(name);
        let write = || {
            let new = write_private(&path, content)?;
            self.user.own(&new)?;
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

/// The cluster inside its location.
pub(super) fn data_in(location: &Path) -> PathBuf {
    location.join("data")
}

/// The directory that the note of this data directory names. A note that names no directory is an error: an empty database in
/// place of a lost one would pay every reading a second time.
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

/// Creates a directory below `parent`, named after the data directory, and notes it in the data directory. A name that is
/// taken belongs to a data directory that has been renamed since: its note moved with it.
fn create_fallback(data_dir: &Path, parent: &Path) -> Result<PathBuf, EmbeddedError> {
    fs::create_dir_all(parent).map_err(EmbeddedError::file("cannot create", parent))?;
    let hash = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut number = 1;
    let location = loop {
        let location = parent.join(format!("{name}-{number}"));
        match fs::create_dir(&location) {
            Ok(()) => break location,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(EmbeddedError::file("cannot create", &location)(error)),
        }
    };
    let note = data_dir.join(NOTE);
    write_private(&note, &format!("{}\n", location.display()))
        .and_then(|new| fs::rename(new, &note))
        .map_err(EmbeddedError::file("cannot write", &note))?;
    Ok(location)
}

/// Writes a file beside it, to be renamed.
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

    /// A directory that only the current user may enter, and one that every user may enter.
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
    fn a_data_directory_that_the_server_can_enter_is_the_location() {
        let (root, _, open) = closed_and_open("location-open");
        let location =
            DataLocation::prepare(&open.join("postgres"), &root.join("fallback")).unwrap();
        assert_eq!(
            location.dir(),
            fs::canonicalize(&open).unwrap().join("postgres")
        );
        location.store("port", "15432\n").unwrap();
        assert_eq!(location.load("port").as_deref(), Some("15432"));
        let mode = fs::metadata(location.dir().join("port"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(location.user().can_enter(location.dir()));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn root_uses_another_directory_when_the_server_cannot_enter_the_data_directory() {
        let (root, closed, _) = closed_and_open("location-closed");
        let (data_dir, fallback) = (closed.join("postgres"), root.join("fallback"));
        let first = DataLocation::prepare(&data_dir, &fallback).unwrap();
        if matches!(first.user(), ServerUser::Current) {
            // An ordinary user can enter its own directories.
            assert_eq!(first.dir(), fs::canonicalize(&data_dir).unwrap());
            return fs::remove_dir_all(root).unwrap();
        }
        assert!(first.dir().starts_with(&fallback));
        assert!(first.user().can_enter(first.dir()));
        assert_eq!(
            DataLocation::prepare(&data_dir, &fallback).unwrap().dir(),
            first.dir()
        );

        // The data directory is renamed, and a fresh one takes its name: each has its own location.
        let aside = closed.join("aside");
        fs::rename(&data_dir, &aside).unwrap();
        let second = DataLocation::prepare(&data_dir, &fallback).unwrap();
        assert_ne!(second.dir(), first.dir());
        assert_eq!(
            DataLocation::find(&aside).unwrap().as_deref(),
            Some(first.dir())
        );

        fs::remove_dir_all(second.dir()).unwrap();
        let lost = DataLocation::prepare(&data_dir, &fallback).unwrap_err();
        assert!(matches!(lost, EmbeddedError::Lost { .. }), "{lost}");
        fs::remove_dir_all(root).unwrap();
    }
}
