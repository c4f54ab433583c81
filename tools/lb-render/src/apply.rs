//! One step: do it, and see that it is done.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::{Fleet, failure, packages};
use remote::{Command, Host, RemoteFile};
use stage::{Ctx, Failure, Waiting};

use crate::config::{CA, CANDIDATE, CERTIFICATES, CONFIG, mark};
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
    let host = fleet.host(step.machine())?;
    match step {
        Step::Install { .. } => {
            packages::install(host, &want.packages, &["haproxy"]).await?;
            enable(host).await
        }
        Step::Enable { .. } => enable(host).await,
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

async fn enable(host: &Host) -> Result<(), Failure> {
    let enable = Command::new("systemctl").args(["enable", "haproxy"]).sudo();
    let done = host.ok(&enable).await;
    done.map(drop).map_err(|e| failure(format!("cannot enable haproxy on {}", host.name()), &e))
}

/// What the configuration refers to; nothing that runs reads it before the next load.
fn files(want: &Want) -> Vec<RemoteFile> {
    let ca = want.ca.iter().map(|pem| RemoteFile::new(CA, pem.as_bytes()));
    let served = want.certificates.iter();
    let served = served
        .map(|(name, pem)| RemoteFile::new(format!("{CERTIFICATES}{name}"), pem.as_bytes()).mode(0o600));
    ca.chain(served).collect()
}

async fn test(host: &Host, balancer: &Balancer, want: &Want) -> Result<(), Failure> {
    let doing = || format!("cannot test the configuration of {}", balancer.name);
    for file in files(want) {
        host.write(&file).await.map_err(|e| failure(doing(), &e))?;
    }
    let candidate = RemoteFile::new(CANDIDATE, balancer.text.text.as_bytes());
    host.write(&candidate).await.map_err(|e| failure(doing(), &e))?;
    let check = Command::new("/usr/sbin/haproxy").args(["-c", "-f", CANDIDATE]).sudo();
    let said = host.run(&check).await.map_err(|e| failure(doing(), &e))?;
    host.remove(CANDIDATE).await.map_err(|e| failure(doing(), &e))?;
    if said.success() {
        return Ok(());
    }
    Err(Failure::precondition(format!(
        "HAProxy on {} refuses its new configuration; nothing live was touched",
        balancer.name
    ))
    .because(said.tail())
    .hint(format!("lb-render render {}/haproxy.cfg", balancer.name)))
}

/// What a load replaces, kept until the load is proven.
struct Before {
    config: Option<Vec<u8>>,
    ca: Option<Vec<u8>>,
}

async fn load(host: &Host, balancer: &Balancer, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let doing = || format!("cannot load the configuration of {}", balancer.name);
    let transport = |e: remote::Error| failure(doing(), &e);
    let before = Before {
        config: host.read(CONFIG).await.map_err(transport)?,
        ca: host.read(CA).await.map_err(transport)?,
    };
    for file in files(want) {
        host.write(&file).await.map_err(transport)?;
    }
    let config = RemoteFile::new(CONFIG, balancer.text.text.as_bytes());
    host.write(&config).await.map_err(transport)?;
    let reloaded = host.run(&systemctl("reload-or-restart")).await.map_err(transport)?;
    let proven = match reloaded.success() {
        true => healthy(host, balancer, ctx).await,
        false => Err(Failure::precondition(doing()).because(reloaded.tail())),
    };
    if let Err(wrong) = proven {
        let log = journal(host).await;
        restore(host, before).await?;
        let mut told = Failure::precondition(format!(
            "HAProxy on {} does not run with its new configuration; the old one was put back",
            balancer.name
        ));
        told.causes.push(wrong.doing);
        told.causes.extend(wrong.causes);
        return Err(told.because(log).hint(format!("ssh {} sudo journalctl -u haproxy", balancer.name)));
    }
    if want.ca.is_none() {
        host.remove(CA).await.map_err(transport)?;
    }
    Ok(())
}

fn systemctl(verb: &str) -> Command {
    Command::new("systemctl").args([verb, "haproxy"]).sudo()
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

async fn journal(host: &Host) -> String {
    let tail = ["-u", "haproxy", "-n", "10", "--no-pager", "-o", "cat"];
    match host.run(&Command::new("journalctl").args(tail).sudo()).await {
        Ok(output) => output.text().trim().to_owned(),
        Err(e) => format!("its log cannot be read: {e}"),
    }
}

/// Puts back what was there. HAProxy is reloaded with it, or stopped when there was nothing.
async fn restore(host: &Host, before: Before) -> Result<(), Failure> {
    let doing = || format!("cannot put the old configuration of {} back", host.name());
    let transport = |e: remote::Error| failure(doing(), &e);
    for (path, content) in [(CONFIG, &before.config), (CA, &before.ca)] {
        match content {
            Some(content) => {
                host.write(&RemoteFile::new(path, content.clone())).await.map_err(transport)?;
            }
            None => {
                host.remove(path).await.map_err(transport)?;
            }
        }
    }
    let verb = if before.config.is_some() { "reload-or-restart" } else { "stop" };
    // The old one may not have run either: the failure that is being told matters more.
    let again = host.run(&systemctl(verb)).await.map_err(transport)?;
    tracing::debug!(host = host.name(), exit = again.exit, "{verb} with the old configuration");
    Ok(())
}

async fn remove(host: &Host) -> Result<(), Failure> {
    let doing = || format!("cannot remove HAProxy's configuration on {}", host.name());
    let transport = |e: remote::Error| failure(doing(), &e);
    let stop = Command::new("systemctl").args(["disable", "--now", "haproxy"]).sudo();
    host.ok(&stop).await.map_err(transport)?;
    let listed = host.run(&Command::new("ls").args(["-1", CERTIFICATES]).sudo()).await.map_err(transport)?;
    let served = listed.text().lines().map(|name| format!("{CERTIFICATES}{name}")).collect::<Vec<_>>();
    for path in served.iter().map(String::as_str).chain([CA, CONFIG]) {
        host.remove(path).await.map_err(transport)?;
    }
    Ok(())
}
