//! Files that a reader never sees half of: a neighbour is written, synced, and put in the file's place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Who may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone (0600): it holds a secret.
    Owner,
    /// Everybody (0644, less the umask).
    Everybody,
}

/// Replaces the file at `path`, or leaves it as it was.
pub fn write(path: &Path, contents: &[u8], readers: Readers) -> io::Result<()> {
    put(path, contents, readers, |neighbour| {
        fs::rename(neighbour, path)
    })
}

/// The secret at `path`, which whoever comes first makes: of two that make it at once, both get the same.
pub fn read_or_create(path: &Path, make: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    // Unlike a rename, a link does not replace what stands there already.
    let created = put(path, &make(), Readers::Owner, |neighbour| {
        fs::hard_link(neighbour, path).and_then(|()| fs::remove_file(neighbour))
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
    let mut neighbour = std::ffi::OsString::from(".");
    neighbour.push(name);
    neighbour.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let neighbour = folder.join(neighbour);

    let put = write_whole(&neighbour, contents, readers)
        .and_then(|()| place(&neighbour))
        // The new name survives a power cut only once the folder is on disk.
        .and_then(|()| File::open(&folder)?.sync_all());
    if put.is_err() {
        let _ = fs::remove_file(&neighbour);
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
        Readers::Everybody => 0o644,
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
            "no neighbour is left behind"
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_secret_that_many_make_at_once_is_one() {
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
            "no neighbour is left behind"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
