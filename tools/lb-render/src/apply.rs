//! One step: do it, and see that it is done.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::{Fleet, failure, packages};
use remote::{Command, Host, RemoteFile};
use stage::{Ctx, Failure, Waiting};

use crate::SERVICE;
use crate::config::{CANDIDATE, CONFIG, mark};
use crate::files::{FOLDER, Files};
use crate::plan::Step;
use crate::seen::running;
use crate::want::{Balancer, Want};

/// How long HAProxy may take to run with a new configuration.
const LOADING: Duration = Duration::from_secs(20);

/// Does one step.
///
/// # Errors
/// Exit 4 with HAProxy's or apt's own words, exit 5 for transport trouble.
pub async fn apply(step: &Step, fleet: &Fleet, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let host = fleet.host(step.on())?;
    match step {
        Step::Install { .. } => {
            packages::install(host, &want.packages, &["haproxy"], ctx).await?;
            SERVICE.enable(host).await
        }
        Step::Enable { .. } => SERVICE.enable(host).await,
        Step::Test { machine, digest } => test(host, balancer(want, machine, digest)?, want).await,
        Step::Load { machine, digest } => load(host, balancer(want, machine, digest)?, want, ctx).await,
        Step::Remove { .. } => remove(host).await,
    }
}

fn balancer<'w>(want: &'w Want, machine: &str, digest: &str) -> Result<&'w Balancer, Failure> {
    let balancer = want.balancer(machine)?;
    if balancer.text.digest == digest {
        return Ok(balancer);
    }
    Err(Failure::internal(format!("{digest} is not the configuration of {machine}")))
}

/// Writes what the configuration refers to: into a folder of its own, which nothing that runs reads.
async fn write(host: &Host, want: &Want) -> Result<(), remote::Error> {
    for file in want.files.remote() {
        host.write(&file).await?;
    }
    Ok(())
}

async fn test(host: &Host, balancer: &Balancer, want: &Want) -> Result<(), Failure> {
    let doing = || format!("cannot test the configuration of {}", balancer.name);
    write(host, want).await.map_err(|e| failure(doing(), &e))?;
    let candidate = RemoteFile::new(CANDIDATE, balancer.text.text.as_bytes());
    host.write(&candidate).await.map_err(|e| failure(doing(), &e))?;
    let check = Command::new("/usr/sbin/haproxy").args(["-c", "-f", CANDIDATE]).sudo();
    let said = host.run(&check).await.map_err(|e| failure(doing(), &e))?;
    host.remove(CANDIDATE).await.map_err(|e| failure(doing(), &e))?;
    if said.success() {
        return Ok(());
    }
    forget(host, want).await.map_err(|e| failure(doing(), &e))?;
    Err(Failure::precondition(format!(
        "HAProxy on {} refuses its new configuration; nothing live was touched",
        balancer.name
    ))
    .because(said.tail())
    .hint(format!("lb-render render {}/haproxy.cfg", balancer.name)))
}

async fn load(host: &Host, balancer: &Balancer, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let doing = || format!("cannot load the configuration of {}", balancer.name);
    write(host, want).await.map_err(|e| failure(doing(), &e))?;
    let config = RemoteFile::new(CONFIG, balancer.text.text.as_bytes());
    SERVICE.swap(host, &[config], CONFIG, Box::pin(healthy(host, balancer, ctx))).await?;
    // What the old one referred to: a reload that failed would have needed it.
    want.files
        .tidy(host)
        .await
        .map_err(|e| failure(format!("cannot clear {FOLDER} of {}", balancer.name), &e))
}

/// Removes a refused set of files again, unless the live configuration refers to it.
async fn forget(host: &Host, want: &Want) -> Result<(), remote::Error> {
    let Some(name) = want.files.name() else { return Ok(()) };
    let folder = format!("{FOLDER}/{name}");
    let live = host.read(CONFIG).await?.unwrap_or_default();
    if String::from_utf8_lossy(&live).contains(&folder) {
        return Ok(());
    }
    host.ok(&Command::new("rm").args(["-rf", "--", &folder]).sudo()).await.map(drop)
}

/// Waits until HAProxy says that it runs with this configuration and lists all its servers. `systemctl reload`
/// cannot tell: a master that cannot start its new worker goes on with the old one.
async fn healthy(host: &Host, balancer: &Balancer, ctx: &Ctx) -> Result<(), Failure> {
    let doing = || format!("cannot ask HAProxy on {}", balancer.name);
    let what = format!("HAProxy on {} with its new configuration", balancer.name);
    ctx.wait_for(&what, LOADING, async || {
        let Some(running) = running(host).await.map_err(|e| failure(doing(), &e))? else {
            return Ok(Waiting::NotYet("its runtime socket does not answer".to_owned()));
        };
        if running.description != mark(&balancer.text.digest) {
            return Ok(Waiting::NotYet("it still runs with the old one".to_owned()));
        }
        let listed: BTreeSet<String> =
            running.servers.iter().map(|s| format!("{}/{}", s.backend, s.server)).collect();
        let missing = balancer.config.servers().into_iter().find(|s| !listed.contains(s));
        Ok(missing.map_or(Waiting::Seen(()), |s| Waiting::NotYet(format!("it does not list {s}"))))
    })
    .await
}

async fn remove(host: &Host) -> Result<(), Failure> {
    let doing = || format!("cannot remove HAProxy's configuration on {}", host.name());
    let transport = |e: remote::Error| failure(doing(), &e);
    SERVICE.disable(host).await?;
    // haproxy.cfg last: by it the next run knows that something is left to do.
    Files::default().tidy(host).await.map_err(transport)?;
    host.remove(CONFIG).await.map(drop).map_err(transport)
}
