//! What a machine's ports, disk and ways to the others are like: plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Slower than this, in microseconds at the 99th percentile, etcd suffers (etcd.io, hardware recommendations: "99th
/// percentile of fdatasync ... less than 10ms").
pub const SLOW: u64 = 10_000;

/// What a probe found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probed {
    /// Ports on which something listens, and the program where it is known.
    pub listens: BTreeMap<u16, String>,
    /// How long the disk takes to keep a write.
    pub fsync: Option<Fsync>,
    /// What became of the ways that were tried: `open`, `refused`, or the system's words.
    pub ways: BTreeMap<String, String>,
}

/// The disk under etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fsync {
    /// How many writes were made.
    pub writes: u64,
    /// The 99th percentile of their times, in microseconds.
    pub p99: u64,
    /// The longest, in microseconds.
    pub max: u64,
}

/// What etcd counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wal {
    /// How many fsyncs there were.
    pub count: u64,
    /// The 99th percentile of their times, in microseconds.
    pub p99: u64,
}
