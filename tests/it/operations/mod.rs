//! The guarantees for operators: starts, drains, health, metrics, traces, upgrades, documents, the structure of the code.

mod api;
mod deploy;
mod documents;
mod drain;
mod health;
mod open_files;
mod pruning;
mod roles;
mod run;
mod scans;
mod scrape;
mod service_level;
mod sql_types;
mod structure;
mod traces;
mod versions;
