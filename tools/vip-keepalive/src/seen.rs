//! What is there: plain data, and how it is looked at.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use fleet::units::Unit;
use fleet::{Fleet, packages, units};
use remote::{Command, Error, Host};
use serde::{Deserialize, Serialize};
use stage::{Ctx, Failure};

use crate::config::{CONFIG, ENDED, HAPROXY_UNIT, KEEPALIVED_UNIT, PENDING, SCRIPT};

/// The load balancers as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The machines that answer, by name.
    pub machines: BTreeMap<String, MachineSeen>,
    /// Those that do not, and why.
    #[serde(default)]
    pub unreachable: BTreeMap<String, String>,
}

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
}

impl Seen {
    /// The machines that hold an address now.
    pub fn holders(&self, vip: Ipv4Addr) -> Vec<&str> {
        let holds = self.machines.iter().filter(|(_, m)| m.addresses.contains_key(&vip));
        holds.map(|(name, _)| name.as_str()).collect()
    }
}

/// Looks at all machines side by side. `monitor` is what the check asks for.
///
/// # Errors
/// Exit 5 when a command that only looks fails.
pub async fn observe(fleet: &Fleet, monitor: &str, ctx: &Ctx) -> Result<Seen, Failure> {
    let outcome = fleet.each(ctx, "look at keepalived on", |host| machine(host, monitor.to_owned())).await?;
    Ok(Seen { machines: outcome.of, unreachable: outcome.unreachable })
}

async fn machine(host: Host, monitor: String) -> Result<MachineSeen, Error> {
    let stat = Command::new("stat").args(["-c", "%a %U", SCRIPT]);
    let check = Command::new(SCRIPT).arg(&monitor);
    let (version, arping, unit, haproxy, config, script, pending, addresses, stat) = futures::try_join!(
        packages::version(&host, "keepalived"),
        packages::version(&host, "iputils-arping"),
        units::unit(&host, "keepalived.service"),
        units::unit(&host, "haproxy.service"),
        host.read(CONFIG),
        host.read(SCRIPT),
        host.read(PENDING),
        addresses(&host),
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
    })
}

/// The IPv4 addresses of a machine, each with its interface.
///
/// # Errors
/// Transport trouble.
pub async fn addresses(host: &Host) -> Result<BTreeMap<Ipv4Addr, String>, Error> {
    let output = host.ok(&Command::new("ip").args(["-j", "addr"])).await?;
    let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let mut found = BTreeMap::new();
    for link in parsed.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default();
        let infos = link["addr_info"].as_array().into_iter().flatten();
        for address in infos.filter_map(|info| info["local"].as_str()?.parse().ok()) {
            found.insert(address, name.to_owned());
        }
    }
    Ok(found)
}
