//! `running.json` in the data directory: how the other commands find the running system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::atomic_file::{self, Readers};

const FILE_NAME: &str = "running.json";

/// The addresses of a running system. The file is readable by its owner alone: URLs may hold passwords and access keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Of the REST API, without a slash at the end.
    pub api_url: String,
    /// As configured: several are separated by commas.
    pub rpc_url: String,
    /// Of the event feed.
    pub ws_url: String,
    pub database_url: String,
    pub mint_address: String,
    /// Of `gridtokenx`.
    pub pid: u32,
}

/// The running system was not found.
#[derive(Debug, Error)]
pub enum RunningError {
    #[error("no system is running in the data directory {}; start it with `make run`", .data_dir.display())]
    NotRunning { data_dir: PathBuf },
    #[error("{} is unreadable: {detail}", .path.display())]
    Unreadable { path: PathBuf, detail: String },
}

impl Running {
    /// The system that runs in this data directory, or ran there until it was killed.
    pub fn read(data_dir: &Path) -> Result<Running, RunningError> {
        let path = data_dir.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RunningError::NotRunning {
                data_dir: data_dir.to_owned(),
            },
            _ => RunningError::Unreadable {
                path: path.clone(),
                detail: error.to_string(),
            },
        })?;
        serde_json::from_str(&text).map_err(|error| RunningError::Unreadable {
            path,
            detail: error.to_string(),
        })
    }

    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        atomic_file::write(&data_dir.join(FILE_NAME), &text, Readers::Owner)
    }

    /// At a clean shutdown. After a kill the file stays, and the next start replaces it.
    pub fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(FILE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_read_until_it_is_removed() {
        let data_dir = std::env::temp_dir().join(format!("running-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&data_dir).unwrap();
        let running = Running {
            api_url: "http://127.0.0.1:8080".to_owned(),
            rpc_url: "http://127.0.0.1:8899".to_owned(),
            ws_url: "ws://127.0.0.1:8080/ws".to_owned(),
            database_url: "postgres://localhost/gridtokenx".to_owned(),
            mint_address: "So11111111111111111111111111111111111111112".to_owned(),
            pid: 42,
        };

        running.write(&data_dir).unwrap();
        assert_eq!(Running::read(&data_dir).unwrap(), running);

        Running::remove(&data_dir).unwrap();
        Running::remove(&data_dir).unwrap();
        let refused = Running::read(&data_dir).unwrap_err();
        assert!(
            matches!(refused, RunningError::NotRunning { .. }),
            "{refused}"
        );
        fs::remove_dir_all(&data_dir).unwrap();
    }
}
