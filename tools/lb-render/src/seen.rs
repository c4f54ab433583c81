//! What is there: plain data, and how it is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use fleet::units::Unit;
use fleet::{Fleet, packages, units};
use remote::{Command, Error, Host};
use serde::{Deserialize, Serialize};
use stage::{Ctx, Failure};

use crate::config::{CA, CERTIFICATES, CONFIG, HEADER, digest};
use crate::runtime::{self, ServerState};

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
    /// The version of the package; `None` when it is not installed.
    pub version: Option<String>,
    /// haproxy.service.
    pub unit: Unit,
    /// haproxy.cfg.
    pub config: FileSeen,
    /// The digest of the CA file.
    pub ca: Option<String>,
    /// The digests of the certificates, by file name.
    pub certificates: BTreeMap<String, String>,
    /// The machine's IPv4 addresses, the shared one too when it holds it.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The HAProxy that runs; `None` when its socket does not answer.
    pub running: Option<Running>,
}

/// A configuration file, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSeen {
    /// There is none.
    #[default]
    Absent,
    /// Ours, with this digest.
    Ours(String),
    /// As the package brought it.
    Pristine,
    /// Somebody's own.
    Foreign,
}

/// A HAProxy that answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Its version.
    pub version: String,
    /// Its `description`, which names our configuration.
    pub description: String,
    /// The servers behind it.
    pub servers: Vec<ServerState>,
}

/// Looks at all machines side by side.
///
/// # Errors
/// Exit 5 when a command that only looks fails.
pub async fn observe(fleet: &Fleet, terminates: bool, ctx: &Ctx) -> Result<Seen, Failure> {
    let outcome = fleet.each(ctx, "look at HAProxy on", |host| machine(host, terminates)).await?;
    Ok(Seen { machines: outcome.of, unreachable: outcome.unreachable })
}

async fn machine(host: Host, terminates: bool) -> Result<MachineSeen, Error> {
    let (version, unit, config, ca, certificates, addresses, running) = futures::try_join!(
        packages::version(&host, "haproxy"),
        units::unit(&host, "haproxy.service"),
        host.read(CONFIG),
        host.read(CA),
        served(&host, terminates),
        addresses(&host),
        running(&host),
    )?;
    let config = match config {
        None => FileSeen::Absent,
        Some(text) if text.starts_with(HEADER.as_bytes()) => FileSeen::Ours(digest(&text)),
        Some(_) if pristine(&host, version.is_some()).await? => FileSeen::Pristine,
        Some(_) => FileSeen::Foreign,
    };
    let ca = ca.map(|pem| digest(&pem));
    Ok(MachineSeen { version, unit, config, ca, certificates, addresses, running })
}

/// What runs, by its own account.
///
/// # Errors
/// Transport trouble.
pub async fn running(host: &Host) -> Result<Option<Running>, Error> {
    let (info, stat) = futures::try_join!(runtime::ask(host, "show info"), runtime::ask(host, "show stat"))?;
    let (Some(info), Some(stat)) = (info, stat) else { return Ok(None) };
    let mut info = runtime::info(&info);
    let mut take = |key: &str| info.remove(key).unwrap_or_default();
    Ok(Some(Running {
        version: take("Version"),
        description: take("description"),
        servers: runtime::servers(&stat),
    }))
}

/// Whether haproxy.cfg is as the package brought it: dpkg compares it with the digest that it recorded, and is
/// silent about a file that is right (dpkg(1), --verify).
async fn pristine(host: &Host, installed: bool) -> Result<bool, Error> {
    if !installed {
        return Ok(false);
    }
    let verify = Command::new("dpkg").args(["--verify", "haproxy"]).sudo();
    let output = host.run(&verify).await?;
    Ok(!output.text().lines().any(|line| line.ends_with(CONFIG)))
}

async fn addresses(host: &Host) -> Result<BTreeSet<Ipv4Addr>, Error> {
    let output = host.ok(&Command::new("ip").args(["-j", "addr"])).await?;
    let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let links = parsed.as_array().into_iter().flatten();
    let infos = links.flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    Ok(infos.filter_map(|info| info["local"].as_str()?.parse().ok()).collect())
}

async fn served(host: &Host, terminates: bool) -> Result<BTreeMap<String, String>, Error> {
    if !terminates {
        return Ok(BTreeMap::new());
    }
    let listed = host.run(&Command::new("ls").args(["-1", CERTIFICATES]).sudo()).await?;
    let listed = listed.text().lines().map(str::to_owned).collect::<Vec<_>>();
    let mut found = BTreeMap::new();
    for name in listed {
        if let Some(content) = host.read(&format!("{CERTIFICATES}{name}")).await? {
            found.insert(name, digest(&content));
        }
    }
    Ok(found)
}
