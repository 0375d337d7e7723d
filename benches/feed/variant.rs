//! The variants that are measured: each server, with and without compression.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TargetName {
    Service,
    Bare,
    Nchan,
}

impl fmt::Display for TargetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            TargetName::Service => "service",
            TargetName::Bare => "bare",
            TargetName::Nchan => "nchan",
        })
    }
}

/// The compression that clients request, or have negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    Off,
    On,
}

impl Compression {
    pub fn word(self) -> &'static str {
        match self {
            Compression::Off => "off",
            Compression::On => "on",
        }
    }
}
