//! Interfaces and their addresses on a machine.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use remote::{Command, Error, Host};

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

/// The hardware (MAC) address of an interface; `None` when it has none.
///
/// # Errors
/// Transport trouble, or no such interface.
pub async fn hardware(host: &Host, interface: &str) -> Result<Option<String>, Error> {
    let output = host.ok(&Command::new("ip").args(["-j", "link", "show", "dev", interface])).await?;
    Ok(first(&output.stdout, "address"))
}

/// The hardware address that a machine has for a neighbour's (its ARP entry); `None` when it has none.
///
/// # Errors
/// Transport trouble.
pub async fn neighbour(host: &Host, address: Ipv4Addr) -> Result<Option<String>, Error> {
    let show = Command::new("ip").args(["-j", "neigh", "show", "to"]).arg(address.to_string());
    Ok(first(&host.ok(&show).await?.stdout, "lladdr"))
}

fn first(stdout: &[u8], key: &str) -> Option<String> {
    let parsed: serde_json::Value = serde_json::from_slice(stdout).ok()?;
    Some(parsed.get(0)?.get(key)?.as_str()?.to_lowercase())
}
