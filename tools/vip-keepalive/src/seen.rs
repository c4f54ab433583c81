//! What is there: plain data, and how it is looked at.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use fleet::units::Unit;
use fleet::{links, packages, units};
use remote::{Command, Error, Host};
use serde::{Deserialize, Serialize};

use crate::config::{CONFIG, ENDED, HAPROXY_UNIT, KEEPALIVED_UNIT, PENDING, SCRIPT};
use crate::state::Vrrp;

/// The load balancers as they are.
pub type Seen = fleet::View<MachineSeen>;

/// One load balancer as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSeen {
    /// The version of keepalived; `None` when it is not installed.
    pub version: Option<String>,
    /// True when iputils-arping is installed, for the probe.
    pub arping: bool,
    /// keepalived.service.
    pub unit: Unit,
    /// keepalived.conf.
    pub config: Option<String>,
    /// The check.
    pub script: Option<String>,
    /// Mode and owner of the check, such as `755 root`.
    pub script_mode: String,
    /// The drop-in of haproxy.service.
    pub haproxy_unit: Option<String>,
    /// The drop-in of keepalived.service.
    pub keepalived_unit: Option<String>,
    /// True when systemd has not read the drop-in of haproxy.service.
    pub haproxy_stale: bool,
    /// True when keepalived is told that HAProxy ended.
    pub ended: bool,
    /// True when the file on the disk was not read by keepalived yet.
    pub pending: bool,
    /// The machine's IPv4 addresses, each with its interface.
    pub addresses: BTreeMap<Ipv4Addr, String>,
    /// Whether the check passes; `None` before it is installed.
    pub healthy: Option<bool>,
    /// What keepalived says of itself; `None` where it was not asked, or did not tell.
    pub vrrp: Option<Vrrp>,
}

/// The machines that hold an address now.
pub fn holders(seen: &Seen, vip: Ipv4Addr) -> Vec<&str> {
    let holds = seen.machines.iter().filter(|(_, m)| m.addresses.contains_key(&vip));
    holds.map(|(name, _)| name.as_str()).collect()
}

/// Looks at one machine. `monitor` is what the check asks for.
///
/// # Errors
/// Transport trouble.
pub async fn machine(host: &Host, monitor: &str) -> Result<MachineSeen, Error> {
    let stat = Command::new("stat").args(["-c", "%a %U", SCRIPT]);
    let check = Command::new(SCRIPT).arg(monitor);
    let (version, arping, unit, haproxy, config, script, pending, addresses, stat) = futures::try_join!(
        packages::version(host, "keepalived"),
        packages::version(host, "iputils-arping"),
        units::unit(host, "keepalived.service"),
        units::unit(host, "haproxy.service"),
        host.read(CONFIG),
        host.read(SCRIPT),
        host.read(PENDING),
        links::addresses(host),
        host.run(&stat),
    )?;
    let (haproxy_unit, keepalived_unit, ended) =
        futures::try_join!(host.read(HAPROXY_UNIT), host.read(KEEPALIVED_UNIT), host.read(ENDED))?;
    let healthy = match &script {
        Some(text) if text == crate::config::SCRIPT_TEXT.as_bytes() => {
            Some(host.run(&check).await?.success())
        }
        _ => None,
    };
    let text = |bytes: Option<Vec<u8>>| bytes.map(|b| String::from_utf8_lossy(&b).into_owned());
    Ok(MachineSeen {
        version,
        arping: arping.is_some(),
        unit,
        config: text(config),
        script: text(script),
        script_mode: stat.text().trim().to_owned(),
        haproxy_unit: text(haproxy_unit),
        keepalived_unit: text(keepalived_unit),
        haproxy_stale: haproxy.stale,
        ended: text(ended).is_some_and(|said| said.trim() != "0"),
        pending: pending.is_some(),
        addresses,
        healthy,
        vrrp: None,
    })
}
