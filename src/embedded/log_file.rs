//! The log file of a child process.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::EmbeddedError;

/// Enough to understand a failure, too little to fill a disk.
const SIZE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// The reason of a failure is near the end.
const TAIL_BYTES: u64 = 8 * 1024;
/// A sentence, not a dump.
const REASON_CHARS_MAX: usize = 300;

/// The file to which a child process writes its output.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> LogFile {
        LogFile { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for a child, which only appends, so that it can be truncated while the child writes. A long file of earlier
    /// runs is renamed, replacing the previous one.
    pub(super) fn open(&self) -> Result<File, EmbeddedError> {
        if self.size() > SIZE_BYTES_MAX {
            let old = self.path.with_extension("log.old");
            fs::rename(&self.path, &old)
                .map_err(EmbeddedError::file("cannot rename", &self.path))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(EmbeddedError::file("cannot open", &self.path))
    }

    /// Truncates it when it has grown too long under a running child.
    pub(super) fn truncate_if_long(&self) {
        if self.size() > SIZE_BYTES_MAX {
            let cut = OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|file| file.set_len(0));
            if let Err(error) = cut {
                tracing::warn!(path = %self.path.display(), %error, "long log file could not be truncated");
            }
        }
    }

    /// Its length: a child that starts now logs behind it.
    pub(super) fn size(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// The text that was written since `start`, or the last part of it.
    pub(super) fn tail(&self, start: u64) -> String {
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(
                start.max(self.size().saturating_sub(TAIL_BYTES)),
            ))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

/// The line of a log that explains why a program ended: the last error, without what precedes it (time, process), else the
/// last line.
pub(super) fn last_error(tail: &str) -> String {
    const MARKS: [&str; 4] = ["FATAL:", "PANIC:", "ERROR:", "error:"];
    let lines = || tail.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = |line: &'_ str| MARKS.iter().filter_map(|mark| line.find(mark)).min();
    lines()
        .rev()
        .find_map(|line| error(line).map(|start| &line[start..]))
        .or_else(|| lines().next_back())
        .unwrap_or("it ended without an error message")
        .chars()
        .take(REASON_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_reported_else_the_last_line() {
        assert_eq!(
            last_error("LOG: a\n2026-11-25 UTC [7] FATAL:  no space left\nHINT: make some\n\n"),
            "FATAL:  no space left"
        );
        assert_eq!(last_error("one\ntwo\n"), "two");
        assert_eq!(last_error(""), "it ended without an error message");
    }

    #[test]
    fn a_long_log_is_truncated_under_its_writer_and_renamed_at_the_next_start() {
        let dir = std::env::temp_dir().join(format!("gridtokenx-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let log = LogFile::new(dir.join("child.log"));
        let mut file = log.open().unwrap();

        file.set_len(SIZE_BYTES_MAX + 1).unwrap();
        log.truncate_if_long();
        let start = log.size();
        std::io::Write::write_all(&mut file, b"goes on\n").unwrap();
        assert_eq!((start, log.tail(start).as_str()), (0, "goes on\n"));

        file.set_len(SIZE_BYTES_MAX + 1).unwrap();
        log.open().unwrap();
        assert_eq!(log.size(), 0);
        assert_eq!(
            fs::metadata(dir.join("child.log.old")).unwrap().len(),
            SIZE_BYTES_MAX + 1
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
