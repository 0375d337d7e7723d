//! The data directory, used by one process at a time: a lock that the kernel releases when its holder ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::LocalnetError;

/// A killed predecessor ends within milliseconds, but not at once: how long to wait for its lock.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(1_000);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A locked data directory. The lock is released when this value is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if needed and locks it.
    pub fn lock(path: &Path) -> Result<Self, LocalnetError> {
        let unusable = |source: io::Error| LocalnetError::DataDir {
            dir: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(unusable)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(unusable)?;
        let deadline = Instant::now() + LOCK_WAIT_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let holder = match holder.trim() {
                        "" => "(unknown)".to_owned(),
                        pid => pid.to_owned(),
                    };
                    return Err(LocalnetError::DataDirLocked {
                        dir: path.to_owned(),
                        holder,
                    });
                }
            }
        }
        // For the error message above in another process.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(unusable)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: file,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the store.
    pub fn store_file(&self) -> PathBuf {
        self.path.join("chain.redb")
    }
}
