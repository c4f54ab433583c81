//! One step: done, and waited for until it is seen.

use std::time::Duration;

use addon::Change as _;
use fleet::{Fleet, failure, packages};
use remote::{Command, Host, RemoteFile};
use stage::{Ctx, Failure, Waiting};

use crate::exports;
use crate::fstab;
use crate::plan::Step;
use crate::want::Want;

/// How long the server may take until its exports are in force.
const IN_FORCE: Duration = Duration::from_secs(60);

pub(crate) async fn apply(step: &Step, fleet: &Fleet, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let host = fleet.host(step.machine().unwrap_or_default())?;
    let fail = |e: remote::Error| failure(format!("cannot {step}"), &e);
    match step {
        Step::Install { package, .. } => packages::install(host, &want.packages, &[package], ctx).await?,
        Step::Format { device, label, .. } => format(step, host, device, label).await?,
        Step::Mount { source, fstype, mount, .. } => {
            let table = host.read("/etc/fstab").await.map_err(fail)?.unwrap_or_default();
            let table = String::from_utf8_lossy(&table).into_owned();
            host.ok(&Command::new("mkdir").args(["-p", mount]).sudo()).await.map_err(fail)?;
            if fstab::source_of(&table, mount).is_none() {
                let text = fstab::with(&table, source, mount, fstype);
                host.write(&RemoteFile::new("/etc/fstab", text)).await.map_err(fail)?;
                host.ok(&Command::new("systemctl").arg("daemon-reload").sudo()).await.map_err(fail)?;
            }
            let mounted = host.run(&Command::new("mountpoint").args(["-q", mount])).await.map_err(fail)?;
            if !mounted.success() {
                host.ok(&Command::new("mount").arg(mount).sudo()).await.map_err(fail)?;
            }
        }
        Step::Folder { path, mode, .. } => {
            let mode = format!("{mode:04o}");
            let make =
                Command::new("install").args(["-d", "-m", &mode, "-o", "root", "-g", "root", path]).sudo();
            host.ok(&make).await.map_err(fail)?;
        }
        Step::Export { exports: text, .. } => export(step, host, text, want, ctx).await?,
        Step::Unexport { .. } => {
            host.remove(exports::PATH).await.map_err(fail)?;
            host.ok(&Command::new("exportfs").arg("-ra").sudo()).await.map_err(fail)?;
        }
        Step::Start { .. } => {
            host.ok(&Command::new("systemctl").args(["enable", "--now", "nfs-server.service"]).sudo())
                .await
                .map_err(fail)?;
            in_force(host, want, ctx).await?;
        }
        Step::Cluster { .. } => {}
    }
    Ok(())
}

/// Asks the disk itself once more whether it is blank: lsblk shows what udev knew.
async fn format(step: &Step, host: &Host, device: &str, label: &str) -> Result<(), Failure> {
    let fail = |e: remote::Error| failure(format!("cannot {step}"), &e);
    let probe = host.run(&Command::new("blkid").args(["-p", device]).sudo()).await.map_err(fail)?;
    // blkid(8): 2 when it knows of nothing there.
    if probe.exit != 2 {
        let said = if probe.success() { probe.text().trim().to_owned() } else { probe.tail() };
        return Err(Failure::precondition(format!("cannot {step}"))
            .because(format!("the disk is not blank: {said}"))
            .hint("a disk that holds anything is never formatted"));
    }
    let make = Command::new("mkfs.ext4").args(["-q", "-m", "0", "-L", label, device]).sudo();
    host.ok(&make).await.map_err(fail)?;
    Ok(())
}

/// Puts the file in place and has it read; what the server does not take is undone.
async fn export(step: &Step, host: &Host, text: &str, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let fail = |e: remote::Error| failure(format!("cannot {step}"), &e);
    let before = host.read(exports::PATH).await.map_err(fail)?;
    host.write(&RemoteFile::new(exports::PATH, text)).await.map_err(fail)?;
    let reread = Command::new("exportfs").arg("-ra").sudo();
    let said = host.run(&reread).await.map_err(fail)?;
    if !said.success() {
        match before {
            Some(before) => host.write(&RemoteFile::new(exports::PATH, before)).await.map_err(fail)?,
            None => host.remove(exports::PATH).await.map_err(fail)?,
        };
        host.run(&reread).await.map_err(fail)?;
        return Err(Failure::precondition(format!("cannot {step}"))
            .because(format!("exportfs: {}", said.error_text().trim()))
            .because("the file that was there before was put back"));
    }
    let running = host.run(&Command::new("systemctl").args(["is-active", "-q", "nfs-server.service"])).await;
    if running.map_err(fail)?.success() { in_force(host, want, ctx).await } else { Ok(()) }
}

async fn in_force(host: &Host, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let Some(server) = &want.server else { return Ok(()) };
    let what = format!("the exports of {}", server.name);
    ctx.wait_for(&what, IN_FORCE, || async {
        let table = host.ok(&Command::new("exportfs").arg("-v").sudo()).await;
        let table = table.map_err(|e| failure(format!("cannot look at {what}"), &e))?;
        let table = exports::in_force(&table.text()).map_err(Failure::internal)?;
        let lacking = exports::lacking(&server.exports, &table);
        Ok(if lacking.is_empty() {
            Waiting::Seen(())
        } else {
            Waiting::NotYet(format!("not {}", lacking.join(", ")))
        })
    })
    .await
}
