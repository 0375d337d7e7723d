//! `pg_dump` and `pg_restore` as docs/operations.md calls them, of the same version as the server that the tests found.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use gridtokenx::embedded::PostgresCluster;
use tokio::process::Command;

/// Dumps a database of the cluster into the file.
pub async fn dump(cluster: &PostgresCluster, database_url: &str, file: &Path) {
    let mut command = Command::new(beside_server(cluster, "pg_dump"));
    command.arg("-Fc").arg("--file").arg(file);
    command.arg(without_parameters(database_url));
    succeeds(command).await;
}

/// Restores a dump into an empty database of the cluster.
pub async fn restore(cluster: &PostgresCluster, database_url: &str, file: &Path) {
    let mut command = Command::new(beside_server(cluster, "pg_restore"));
    command.args(["--no-owner", "--exit-on-error", "--dbname"]);
    command.arg(without_parameters(database_url)).arg(file);
    succeeds(command).await;
}

/// The path of a program beside the server: a server is started by its full path, and PostgreSQL's programs share a directory.
fn beside_server(cluster: &PostgresCluster, name: &str) -> PathBuf {
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", cluster.pid())).unwrap();
    let server = line.split('\0').next().unwrap_or_default();
    let program = Path::new(server).with_file_name(name);
    assert!(
        program.is_file(),
        "{} does not exist: install PostgreSQL with its client programs (apt-get install postgresql), or take the server \
         without them out of PATH",
        program.display()
    );
    program
}

/// Our URLs have parameters that no other program understands.
fn without_parameters(database_url: &str) -> &str {
    database_url.split('?').next().unwrap_or_default()
}

async fn succeeds(mut command: Command) {
    // Otherwise variables such as PGPORT would take effect.
    let output = command.env_clear().stdin(Stdio::null()).output().await;
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
}
