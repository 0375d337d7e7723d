//! Creates a cluster: completely or not at all.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use rand::RngCore;

use super::binaries::Binaries;
use super::data_location::DataLocation;
use super::error::EmbeddedError;
use super::log_file::{LogFile, last_error};
use super::postgres_options::{Lifetime, PostgresOptions, SUPERUSER};
use crate::config::Secret;

/// Beside the cluster, readable by the server's user and root.
const PASSWORD_FILE: &str = "password";
const PASSWORD_BYTES: usize = 32;
/// Names of unfinished clusters; each belongs to a start that was killed.
const UNFINISHED_PREFIX: &str = "data.new-";

/// Creates the cluster where it does not exist yet, and returns its password.
///
/// `initdb` works in a directory of another name, which gets its final name when everything is done: what a killed start
/// leaves behind is removed by the next one, and a surviving `initdb` cannot damage the finished cluster.
pub(super) async fn ensure_cluster(
    options: &PostgresOptions,
    location: &DataLocation,
    binaries: &Binaries,
    log: &LogFile,
) -> Result<Secret, EmbeddedError> {
    let data = location.data();
    if data.exists() {
        return location
            .load(PASSWORD_FILE)
            .map(Secret::new)
            .ok_or_else(|| EmbeddedError::NoPassword {
                path: location.dir().join(PASSWORD_FILE),
            });
    }
    remove_unfinished(location.dir())?;
    let password = random_hex(PASSWORD_BYTES);
    location.store(PASSWORD_FILE, &password)?;

    let unfinished = location
        .dir()
        .join(format!("{UNFINISHED_PREFIX}{}", random_hex(4)));
    let mut command = location.user().command(&binaries.initdb(), location.dir());
    command
        .arg("--pgdata")
        .arg(&unfinished)
        .arg("--pwfile")
        .arg(location.dir().join(PASSWORD_FILE))
        .args(["--username", SUPERUSER])
        .args(["--auth", login_method(options.lifetime)])
        .args(["--encoding=UTF8", "--locale=C"])
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
            reason: last_error(&log.tail(start)),
            log: log.path().to_owned(),
        });
    }
    crate::failpoint!("embedded.initialised");
    fs::rename(&unfinished, &data).map_err(EmbeddedError::file("cannot rename", &unfinished))?;
    if options.fsync {
        fs::File::open(location.dir())
            .and_then(|dir| dir.sync_all())
            .map_err(EmbeddedError::file("cannot sync", location.dir()))?;
    }
    Ok(Secret::new(password))
}

/// How a client proves that it has the password. SCRAM costs each login 4,096 hashes: 27 ms in a build without optimisation, which
/// a run of the tests would spend ten thousand times. A temporary cluster is reached over the loopback interface alone, and its
/// password ends with it.
fn login_method(lifetime: Lifetime) -> &'static str {
    match lifetime {
        Lifetime::UntilStopped => "scram-sha-256",
        Lifetime::ThisProcess => "md5",
    }
}

fn remove_unfinished(location: &Path) -> Result<(), EmbeddedError> {
    let entries = fs::read_dir(location).map_err(EmbeddedError::file("cannot read", location))?;
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
