//! Writes a file so that a reader never sees half of it: a neighbour is written, synced and renamed over the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = folder.join(unfinished);

    let written = write_whole(&unfinished, contents, readers)
        .and_then(|()| fs::rename(&unfinished, path))
        // The rename itself survives a power cut only once the folder is on disk.
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_whole(path: &Path, contents: &[u8], readers: Readers) -> io::Result<()> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o644,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_file_is_replaced_whole_and_read_by_its_owner_alone() {
        let folder = std::env::temp_dir().join(format!("atomic-file-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("secret");

        write(&path, b"the first, longer contents", Readers::Owner).unwrap();
        write(&path, b"second", Readers::Owner).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "no neighbour is left behind"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
