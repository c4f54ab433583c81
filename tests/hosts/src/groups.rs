//! The control groups of a test's machines, apart from those of the machine that tests.

use std::process::Command;

use crate::Result;
use crate::must::must;

/// Where the hierarchy is mounted inside.
pub(crate) const GROUPS: &str = "/sys/fs/cgroup";
/// Tells the test inside the name of its own group.
pub(crate) const RUN: &str = "KUBELINE_HOSTS_GROUP";

/// The name of this run's group.
pub(crate) fn run() -> String {
    std::env::var(RUN).unwrap_or_else(|_| "kubeline-hosts".to_owned())
}

/// Mounts the unified hierarchy over whatever the machine that tests has, in the test's own mounts.
///
/// # Errors
/// The kernel has none, or this is a container that may not mount.
pub(crate) async fn mount() -> Result<()> {
    must("mount", &["-t", "cgroup2", "cgroup2", GROUPS]).await
}

/// Removes the group of a run that has ended, and all below it: processes are gone, groups stay until somebody does.
pub(crate) fn remove(run: &str) {
    let script = format!(
        "mount -t cgroup2 cgroup2 {GROUPS} && cd {GROUPS} && [ -d \"$1\" ] && find \"$1\" -depth -type d -exec rmdir {{}} +"
    );
    let ended = Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", &script, "sh", run])
        .output();
    drop(ended);
}
