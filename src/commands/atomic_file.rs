//! Writes files atomically: a temporary file beside the target is written, synced, and renamed to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The users that may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone (0600): it holds a secret.
    Owner,
    /// All users (0644, less the umask).
    All,
}

/// Replaces the file at `path`, or leaves it as it was.
pub fn write(path: &Path, contents: &[u8], readers: Readers) -> io::Result<()> {
    put(path, contents, readers, |temporary| {
        fs::rename(temporary, path)
    })
}

/// Reads the secret at `path`, or creates it. When several processes create it at once, all get the same.
pub fn read_or_create(path: &Path, make: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    // Unlike a rename, a link does not replace an existing file.
    let created = put(path, &make(), Readers::Owner, |temporary| {
        fs::hard_link(temporary, path).and_then(|()| fs::remove_file(temporary))
    });
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::read(path),
    }
}

fn put(
    path: &Path,
    contents: &[u8],
    readers: Readers,
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let folder = folder_of(path);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let temporary = folder.join(temporary);

    let put = write_whole(&temporary, contents, readers)
        .and_then(|()| place(&temporary))
        // The new name survives a power failure only once the folder is on disk.
        .and_then(|()| File::open(&folder)?.sync_all());
    if put.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    put
}

/// The folder that holds the file.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn write_whole(path: &Path, contents: &[u8], readers: Readers) -> io::Result<()> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::All => 0o644,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn new_folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("atomic-file-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_file_is_replaced_whole_and_read_by_its_owner_alone() {
        let folder = new_folder();
        let path = folder.join("secret");

        write(&path, b"the first, longer contents", Readers::Owner).unwrap();
        write(&path, b"second", Readers::Owner).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "no temporary file is left behind"
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_secret_that_several_create_at_once_is_one() {
        let folder = new_folder();
        let path = folder.join("secret");

        let got: std::collections::HashSet<Vec<u8>> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8u8)
                .map(|maker| {
                    let path = &path;
                    scope.spawn(move || read_or_create(path, || vec![maker]).unwrap())
                })
                .collect();
            makers
                .into_iter()
                .map(|maker| maker.join().unwrap())
                .collect()
        });

        assert_eq!(got.len(), 1);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "no temporary file is left behind"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
