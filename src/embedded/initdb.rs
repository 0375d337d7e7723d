//! Makes a cluster: complete or not at all.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use rand::RngCore;

use super::EmbeddedError;
use super::binaries::Binaries;
use super::data_location::Home;
use super::log_file::{LogFile, reason};
use super::postgres::{PostgresOptions, SUPERUSER};
use crate::config::Secret;

/// Beside the cluster, readable by the server's user and root.
const PASSWORD_FILE: &str = "password";
const PASSWORD_BYTES: usize = 32;
/// Unfinished clusters; every one belongs to a start that was killed.
const UNFINISHED_PREFIX: &str = "data.new-";

/// The cluster's password; the cluster is made where it does not exist yet.
///
/// `initdb` works in a directory of another name, which gets its final name when all is done: a killed start leaves
/// something that the next one clears away, and that a surviving `initdb` can do no harm to.
pub(super) async fn ensure_cluster(
    options: &PostgresOptions,
    home: &Home,
    binaries: &Binaries,
    log: &LogFile,
) -> Result<Secret, EmbeddedError> {
    let data = home.data();
    if data.exists() {
        return home.load(PASSWORD_FILE).map(Secret::new).ok_or_else(|| {
            EmbeddedError::NoPassword {
                path: home.dir().join(PASSWORD_FILE),
            }
        });
    }
    clear_unfinished(home.dir())?;
    let password = random_hex(PASSWORD_BYTES);
    home.store(PASSWORD_FILE, &password)?;

    let unfinished = home
        .dir()
        .join(format!("{UNFINISHED_PREFIX}{}", random_hex(4)));
    let mut command = home.account().command(&binaries.initdb(), home.dir());
    command
        .arg("--pgdata")
        .arg(&unfinished)
        .arg("--pwfile")
        .arg(home.dir().join(PASSWORD_FILE))
        .args(["--username", SUPERUSER])
        .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
        .arg("--no-instructions");
    if !options.fsync {
        command.arg("--no-sync");
    }
    let start = log.size();
    let output = log.open()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output);
    let mut command = tokio::process::Command::from(command);
    let status = command
        .process_group(0)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(EmbeddedError::file("cannot run", &binaries.initdb()))?;
    if !status.success() {
        return Err(EmbeddedError::Exited {
            program: "initdb",
            reason: reason(&log.tail(start)),
            log: log.path().to_owned(),
        });
    }
    crate::failpoint!("embedded.initialised");
    fs::rename(&unfinished, &data).map_err(EmbeddedError::file("cannot rename", &unfinished))?;
    if options.fsync {
        fs::File::open(home.dir())
            .and_then(|dir| dir.sync_all())
            .map_err(EmbeddedError::file("cannot sync", home.dir()))?;
    }
    Ok(Secret::new(password))
}

fn clear_unfinished(home: &Path) -> Result<(), EmbeddedError> {
    let entries = fs::read_dir(home).map_err(EmbeddedError::file("cannot read", home))?;
    for entry in entries.filter_map(Result::ok) {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(UNFINISHED_PREFIX)
        {
            // A surviving initdb may still add files; then the rest stays until the next start.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::rng().fill_bytes(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
