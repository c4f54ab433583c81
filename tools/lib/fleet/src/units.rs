//! systemd units on a machine.

use remote::{Command, Error, Host};
use serde::{Deserialize, Serialize};

/// What systemd says of a unit, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`.
    pub active: String,
    /// `enabled`, `disabled`, `masked`; empty when there is no such unit.
    pub enabled: String,
    /// True when its files changed since systemd read them: what runs next is not what lies on the disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Unit {
    /// True when it runs.
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// True when it starts at boot.
    pub fn is_enabled(&self) -> bool {
        self.enabled == "enabled"
    }

    /// True when the operator forbade it to start.
    pub fn is_masked(&self) -> bool {
        self.load == "masked" || self.enabled == "masked"
    }
}

/// Asks for a unit.
///
/// # Errors
/// Transport trouble, or a systemctl that fails.
pub async fn unit(host: &Host, name: &str) -> Result<Unit, Error> {
    let show = Command::new("systemctl").args([
        "show",
        "-p",
        "LoadState,ActiveState,UnitFileState,NeedDaemonReload",
        name,
    ]);
    let output = host.ok(&show).await?;
    let text = output.text();
    let of = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    let stale = of("NeedDaemonReload") == "yes";
    Ok(Unit { load: of("LoadState"), active: of("ActiveState"), enabled: of("UnitFileState"), stale })
}
