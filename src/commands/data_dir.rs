//! The data directory: everything that `gridtokenx run` keeps between its starts.
//!
//! Invariant: one process at a time uses it, and only a program that supports its format. Kept by a lock on the file `lock`, which
//! the kernel releases however the process ends, and by the number in the file `format`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::atomic_file::{self, Readers};
use crate::domain::rfc3339_micros;

/// Raised when a newer program can no longer use the data of an older one.
const FORMAT: &str = "1";

/// The data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    #[error(
        "the data directory {} is in use by another gridtokenx; stop that one, or set GRIDTOKENX_DATA_DIR to another directory", .path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "the data directory {} has format {found:?} and this program knows format {FORMAT:?}; start with --fresh to set it aside, or with the program that wrote it", .path.display()
    )]
    OtherFormat { path: PathBuf, found: String },
    #[error("the data directory's file {} is unreadable: {detail}", .path.display())]
    Malformed { path: PathBuf, detail: String },
    #[error("the data directory's {} cannot be read or written: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Never read: dropping it releases the lock.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing and takes its lock, whatever its format is.
    pub fn lock(path: &Path) -> Result<DataDir, DataDirError> {
        let failed_at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(failed_at(path))?;
        // Absolute from here on: child processes and readers of `running.json` may have another working directory.
        let path = fs::canonicalize(path).map_err(failed_at(path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed_at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(failed_at(&lock_path)(source)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The time of the first start, which is written together with the format when there is none yet.
    pub fn first_start(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, DataDirError> {
        let started_path = self.path.join("first-start");
        match self.read("format")? {
            Some(format) if format.trim() == FORMAT => {}
            Some(format) => {
                return Err(DataDirError::OtherFormat {
                    path: self.path.clone(),
                    found: format.trim().to_owned(),
                });
            }
            None => {
                // The format is written last: where it exists, the rest exists too.
                self.write("first-start", &rfc3339_micros(now))?;
                self.write("format", FORMAT)?;
            }
        }
        let started = self.read("first-start")?.unwrap_or_default();
        DateTime::parse_from_rfc3339(started.trim())
            .map(|moment| moment.to_utc())
            .map_err(|error| DataDirError::Malformed {
                path: started_path,
                detail: error.to_string(),
            })
    }

    /// 32 random bytes that are generated once and stay with the directory.
    pub fn seed(&self, name: &str) -> Result<[u8; 32], DataDirError> {
        let path = self.path.join(name);
        let failed = |source| DataDirError::Io {
            path: path.clone(),
            source,
        };
        let bytes = atomic_file::read_or_create(&path, || rand::random::<[u8; 32]>().to_vec())
            .map_err(failed)?;
        bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| DataDirError::Malformed {
                path: path.clone(),
                detail: format!("it holds {} bytes instead of 32", bytes.len()),
            })
    }

    /// Renames the directory after the current time and creates an empty one in its place. Returns the old one's new name.
    pub fn set_aside(self, now: DateTime<Utc>) -> Result<(DataDir, PathBuf), DataDirError> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!("-{}", now.format("%Y%m%dT%H%M%S%.3fZ")));
        let aside = PathBuf::from(name);
        fs::rename(&self.path, &aside).map_err(|source| DataDirError::Io {
            path: self.path.clone(),
            source,
        })?;
        Ok((DataDir::lock(&self.path)?, aside))
    }

    fn read(&self, name: &str) -> Result<Option<String>, DataDirError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataDirError::Io { path, source }),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        atomic_file::write(&path, format!("{text}\n").as_bytes(), Readers::All)
            .map_err(|source| DataDirError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_path() -> PathBuf {
        std::env::temp_dir().join(format!("data-dir-{}", uuid::Uuid::new_v4()))
    }

    fn moment(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_start_and_the_seed_are_kept() {
        let path = new_path();
        let first = moment("2026-11-25T04:00:00.000001Z");

        let data_dir = DataDir::lock(&path).unwrap();
        assert_eq!(data_dir.first_start(first).unwrap(), first);
        let seed = data_dir.seed("seed").unwrap();
        drop(data_dir);

        let again = DataDir::lock(&path).unwrap();
        assert_eq!(
            again.first_start(moment("2027-01-01T00:00:00Z")).unwrap(),
            first
        );
        assert_eq!(again.seed("seed").unwrap(), seed);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_second_process_is_refused_while_the_directory_is_in_use() {
        let path = new_path();
        let _first = DataDir::lock(&path).unwrap();

        let refused = DataDir::lock(&path).unwrap_err();

        assert!(matches!(refused, DataDirError::InUse { .. }), "{refused}");
        assert!(!refused.to_string().contains('\n'));
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn another_format_is_refused_and_can_be_set_aside() {
        let path = new_path();
        let now = moment("2026-11-25T04:00:00Z");
        let data_dir = DataDir::lock(&path).unwrap();
        fs::write(data_dir.path().join("format"), "2\n").unwrap();

        let refused = data_dir.first_start(now).unwrap_err();
        assert!(
            matches!(&refused, DataDirError::OtherFormat { found, .. } if found == "2"),
            "{refused}"
        );

        let (fresh, aside) = data_dir.set_aside(now).unwrap();
        assert_eq!(fresh.first_start(now).unwrap(), now);
        assert!(aside.to_string_lossy().ends_with("-20261125T040000.000Z"));
        assert_eq!(fs::read_to_string(aside.join("format")).unwrap(), "2\n");
        fs::remove_dir_all(&path).unwrap();
        fs::remove_dir_all(&aside).unwrap();
    }
}
