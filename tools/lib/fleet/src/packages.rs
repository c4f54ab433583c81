//! Debian packages on a machine, from where `spec.packages` says.

use std::time::Duration;

use cluster_doc::spec::{PackageSource, Packages};
use remote::{Command, Error, Host};
use stage::{Ctx, Failure, Waiting};

use crate::failure;

/// How long one run of apt may take: a slow mirror, or unattended-upgrades that hold dpkg's lock.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long somebody else may be at the package lists.
const UPDATING: Duration = Duration::from_secs(300);
/// The lock of the package lists.
const LISTS: &str = "/lists/lock";

/// The version of a package that is installed; `None` when it is not.
///
/// # Errors
/// Transport trouble.
pub async fn version(host: &Host, package: &str) -> Result<Option<String>, Error> {
    let query = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status} ${Version}\\n", package]);
    let output = host.run(&query).await?;
    let text = output.text();
    let line = text.lines().next().unwrap_or_default();
    Ok(line.strip_prefix("installed ").map(str::to_owned))
}

/// Installs packages that are missing.
///
/// A package list that is missing or old is fetched anew only once an installation failed for want of it. With
/// the source `directory` a package file `NAME_*.deb` of that folder is taken. For Debian's own packages
/// `mirror` means the machine's own sources, which name it.
///
/// # Errors
/// Exit 4 with apt's own words; exit 4 at once for the source `present`.
pub async fn install(host: &Host, source: &Packages, names: &[&str], ctx: &Ctx) -> Result<(), Failure> {
    let doing = || format!("cannot install {} on {}", names.join(", "), host.name());
    let mut wanted: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    match source.source {
        PackageSource::Present => {
            return Err(Failure::precondition(doing()).because(
                "spec.packages.source is \"present\": packages are installed by the operator alone",
            ));
        }
        PackageSource::Directory => {
            let folder = source.directory.as_ref().map(ToString::to_string).unwrap_or_default();
            wanted = from_folder(host, &folder, names).await?;
        }
        PackageSource::Repository | PackageSource::Mirror => {}
    }
    let first = host.run(&apt(&wanted)).await.map_err(|e| failure(doing(), &e))?;
    if first.success() {
        return Ok(());
    }
    let lists = Command::new("apt-get").args(["update", "-q"]).sudo().timeout(PATIENCE);
    let updated = update(host, &lists, &doing(), ctx).await;
    let second = host.run(&apt(&wanted)).await.map_err(|e| failure(doing(), &e))?;
    if second.success() {
        return Ok(());
    }
    let mut wrong = Failure::precondition(doing());
    for cause in updated.err().into_iter().flat_map(|f| f.causes) {
        wrong = wrong.because(format!("apt-get update: {cause}"));
    }
    Err(wrong.because(second.tail()).hint(format!("ssh {}, then: {}", host.name(), apt(&wanted))))
}

/// Brings the package lists up to date. apt waits for the lock of dpkg alone (`DPkg::Lock::Timeout`); that of the lists is
/// held for a while after a first boot, by apt-daily and cloud-init.
///
/// # Errors
/// apt's own words; exit 5 when the lists stay locked.
pub async fn update(host: &Host, update: &Command, doing: &str, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for(&format!("the package lists of {}", host.name()), UPDATING, || async {
        match host.ok(update).await {
            Ok(_) => Ok(Waiting::Seen(())),
            // Its path stands there in every language.
            Err(Error::Command { stderr, .. }) if stderr.contains(LISTS) => Ok(Waiting::NotYet(stderr)),
            Err(error) => Err(failure(doing, &error)),
        }
    })
    .await
}

fn apt(wanted: &[String]) -> Command {
    // A configuration file that somebody changed stays (force-confold): without a terminal dpkg cannot ask.
    let options = ["-o", "Dpkg::Options::=--force-confold", "-o", "DPkg::Lock::Timeout=120"];
    Command::new("apt-get")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(options)
        .args(wanted)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .sudo()
        .timeout(PATIENCE)
}

/// The package files of a folder on the machine, by package name.
async fn from_folder(host: &Host, folder: &str, names: &[&str]) -> Result<Vec<String>, Failure> {
    let doing = || format!("cannot find packages in {folder} on {}", host.name());
    let list = Command::new("ls").arg(folder).sudo();
    let output = host.run(&list).await.map_err(|e| failure(doing(), &e))?;
    let text = output.text();
    let mut found = Vec::new();
    for name in names {
        let files = text.lines().filter(|f| f.starts_with(&format!("{name}_")) && f.ends_with(".deb"));
        match files.max() {
            Some(file) => found.push(format!("{folder}/{file}")),
            None => {
                return Err(Failure::precondition(doing())
                    .because(format!("there is no {name}_*.deb"))
                    .hint(format!("put the package file of {name} there (spec.packages.directory)")));
            }
        }
    }
    Ok(found)
}
