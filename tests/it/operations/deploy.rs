//! The files of `deploy/` use only settings, commands, flags and routes that this program has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Grid;
use crate::support::server::blocking_program;

/// The time that an orchestrator must allow beyond `SHUTDOWN_TIMEOUT_SECS` before it kills the process.
const BEHIND_THE_DRAIN_SECS: u64 = 15;
/// A migration of a large table takes minutes, and one that is killed starts from the beginning.
const MIGRATION_SECS: u64 = 30 * 60;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// File name and text of each manifest.
fn manifests() -> Vec<(String, String)> {
    let mut manifests: Vec<(String, String)> = std::fs::read_dir(folder().join("kubernetes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .map(|name| (name.clone(), read(&format!("kubernetes/{name}"))))
        .collect();
    manifests.sort();
    assert!(manifests.len() >= 4, "{manifests:?}");
    manifests
}

fn manifest(name: &str) -> String {
    read(&format!("kubernetes/{name}"))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines below each line that is `head`, as far as they are indented further.
fn below(text: &str, head: &str) -> Vec<String> {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'))
        .collect();
    let heads = (0..lines.len()).filter(|at| lines[*at].trim() == head);
    heads
        .map(|at| {
            let inside = lines[at + 1..].iter();
            let inside = inside.take_while(|line| indent(line) > indent(lines[at]));
            inside.copied().collect::<Vec<_>>().join("\n")
        })
        .collect()
}

/// The texts behind `key`, up to the end of the value.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| !line.trim().starts_with('#'))
        .flat_map(|line| line.split(key).skip(1))
        .filter_map(|rest| rest.split([',', '}', ' ']).next())
        .map(|value| value.trim_matches('"'))
        .collect()
}

fn number(text: &str, key: &str) -> u64 {
    let found = values(text, key);
    let [number] = found[..] else {
        panic!("{key} {found:?}");
    };
    number.trim_end_matches('s').parse().unwrap()
}

/// Every setting with its default.
fn settings() -> Vec<(String, String)> {
    gridtokenx::config::env_example()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(variable, default)| (variable.to_owned(), default.to_owned()))
        .collect()
}

fn shutdown_timeout_secs() -> u64 {
    let settings = settings();
    let setting = settings
        .iter()
        .find(|(variable, _)| variable == "SHUTDOWN_TIMEOUT_SECS");
    setting.unwrap().1.parse().unwrap()
}

fn check_variables(file: &str, variables: &[&str]) {
    let known: BTreeSet<String> = settings()
        .into_iter()
        .map(|(variable, _)| variable)
        .collect();
    assert!(!variables.is_empty(), "{file} sets none");
    for variable in variables {
        assert!(
            known.contains(*variable),
            "{file} sets {variable}, which is not a setting"
        );
    }
}

/// Asserts that a command of the program has all these flags.
fn check_flags(file: &str, words: &[&str]) {
    let [command, flags @ ..] = words else {
        panic!("{file} runs no command");
    };
    let help = blocking_program()
        .args([command, "--help"])
        .output()
        .unwrap();
    assert!(help.status.success(), "{file}: no command {command}");
    let help = String::from_utf8(help.stdout).unwrap();
    let known: BTreeSet<&str> = help
        .split(|character: char| character.is_whitespace() || character == ',')
        .collect();
    for flag in flags {
        let name = flag.split('=').next().unwrap();
        assert!(
            name.starts_with("--") && known.contains(name),
            "{file}: gridtokenx {command} does not know {flag}"
        );
    }
}

#[test]
fn every_variable_is_a_setting() {
    for (file, text) in manifests() {
        let of_containers = below(&text, "env:").join("\n");
        let mut variables = values(&of_containers, "name: ");
        let of_maps = below(&text, "data:").join("\n");
        variables.extend(
            of_maps
                .lines()
                .filter_map(|line| line.trim().split(':').next()),
        );
        variables.extend(
            text.split("--from-literal=")
                .skip(1)
                .filter_map(|rest| rest.split('=').next()),
        );
        // The audit sets no other variable.
        if file != "audit.yaml" {
            check_variables(&file, &variables);
        }
    }
    let compose = read("compose.yaml");
    let service = below(&compose, "gridtokenx:").join("\n");
    let environment = below(&service, "environment:").join("\n");
    let variables: Vec<&str> = environment
        .lines()
        .filter_map(|line| line.trim().split(':').next())
        .collect();
    check_variables("compose.yaml", &variables);

    let dockerfile = read("Dockerfile");
    let variables: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("ENV "))
        .flat_map(|line| line.split(' '))
        .filter_map(|pair| pair.split('=').next())
        .collect();
    check_variables("Dockerfile", &variables);
}

#[test]
fn every_command_and_flag_is_known() {
    for name in ["gridtokenx.service", "gridtokenx-audit.service"] {
        let unit = read(name).replace("\\\n", " ");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        let mut words = line.unwrap().split_whitespace();
        assert_eq!(words.next(), Some("/usr/local/bin/gridtokenx"), "{name}");
        check_flags(name, &words.collect::<Vec<_>>());
        for line in unit.lines() {
            assert!(!line.starts_with("Environment="), "{name}: {line}");
        }
    }
    let mut commands = 0;
    for (file, text) in manifests() {
        for line in text.lines() {
            let arguments = line
                .trim()
                .strip_prefix("args: [")
                .and_then(|rest| rest.strip_suffix(']'));
            if let Some(arguments) = arguments {
                check_flags(&file, &arguments.split(", ").collect::<Vec<_>>());
                commands += 1;
            }
        }
    }
    assert_eq!(commands, 3, "API, worker and audit");
}

#[test]
fn no_unit_kills_a_process_that_still_drains() {
    let configured = number(&manifest("service.yaml"), "SHUTDOWN_TIMEOUT_SECS: ");
    for file in ["api.yaml", "worker.yaml"] {
        let text = manifest(file);
        let pause: u64 = values(&text, "command: [sleep, \"")
            .iter()
            .map(|pause| pause.trim_end_matches("\"]").parse::<u64>().unwrap())
            .sum();
        let has_pause = text.contains("preStop:");
        assert_eq!(pause > 0, has_pause, "{file} pauses as this test reads it");
        let least = pause + configured + BEHIND_THE_DRAIN_SECS;
        let grace = number(&text, "terminationGracePeriodSeconds: ");
        assert!(grace >= least, "{file} kills after {grace} s of {least}");
    }

    let default = shutdown_timeout_secs();
    let unit = read("gridtokenx.service");
    assert!(!unit.contains("--shutdown-timeout-secs"));
    let grace = number(&unit, "TimeoutStopSec=");
    let least = default + BEHIND_THE_DRAIN_SECS;
    assert!(grace >= least, "systemd kills after {grace} s of {least}");

    let service = below(&read("compose.yaml"), "gridtokenx:").join("\n");
    assert!(!service.contains("SHUTDOWN_TIMEOUT_SECS:"));
    let grace = number(&service, "stop_grace_period: ");
    assert!(grace >= least, "Compose kills after {grace} s of {least}");
}

#[test]
fn a_long_migration_is_not_killed() {
    for file in ["api.yaml", "worker.yaml"] {
        let probes = below(&manifest(file), "startupProbe:");
        let [probe] = &probes[..] else {
            panic!("{file} has {} startup probes", probes.len());
        };
        let secs = number(probe, "periodSeconds: ") * number(probe, "failureThreshold: ");
        assert!(secs >= MIGRATION_SECS, "{file} gives a start {secs} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_probe_requests_a_route_that_is_served() {
    let grid = Grid::start().await;
    let served = grid.admin().get_text("/api/openapi.json").await;
    let served: Value = serde_json::from_str(&served).unwrap();
    for file in ["api.yaml", "worker.yaml"] {
        let text = manifest(file);
        let paths = values(&text, "httpGet: {path: ");
        assert_eq!(paths.len(), 3, "{file}: {paths:?}");
        for path in paths {
            let operation = &served["paths"][path]["get"];
            assert!(operation.is_object(), "{file} asks for {path}");
        }
        // Readiness is false while the database is unavailable, which a restart does not fix.
        let liveness = below(&text, "livenessProbe:").join("\n");
        assert_eq!(values(&liveness, "path: "), ["/health/live"], "{file}");
    }
}

#[test]
fn the_image_is_of_this_version() {
    let mut images = 0;
    for (file, text) in manifests() {
        for image in values(&text, "image: ") {
            let version = env!("CARGO_PKG_VERSION");
            assert_eq!(image, format!("gridtokenx:{version}"), "{file}");
            images += 1;
        }
    }
    assert_eq!(images, 3, "API, worker and audit");
}
