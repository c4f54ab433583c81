//! What one machine needs before kubeadm runs on it.

use std::collections::{BTreeMap, BTreeSet};

use stage::{HeldKind, Plan, StepId};

use crate::fault::hold_theirs;
use crate::files;
use crate::pins;
use crate::seen::{HostSeen, Whose};
use crate::source::Source;
use crate::step::{Repository, Step};
use crate::version::{EXACT, containerd_version, right};
use crate::want::Want;

/// What they depend on, taken along from a folder.
const ALONG: [&str; 4] = ["cri-tools", "kubernetes-cni", "conntrack", "runc"];
/// Services that set the clock.
const CLOCKS: [&str; 5] = ["systemd-timesyncd", "chrony", "ntpsec", "openntpd", "ntp"];

/// Adds the steps of one machine; `None` when something is held that must be there before it can join.
///
/// `runs` is true for a machine that is part of the cluster: its versions are not touched here.
pub fn prepare(
    plan: &mut Plan<Step>,
    want: &Want,
    name: &str,
    host: &HostSeen,
    runs: bool,
) -> Option<Vec<StepId>> {
    let mut ids = Vec::new();
    ids.extend(kernel(plan, want, name, host));
    if !clock(host) && host.packages.contains_key("chrony") {
        let step = Step::Start { host: name.to_owned(), unit: "chrony".to_owned() };
        ids.push(plan.step(step, "nothing sets the clock"));
    }
    let packages = packages(plan, want, name, host, runs).ok()?;
    let pinned = pins::prepare(plan, want, name, host, runs).ok()?;
    let installed: Vec<StepId> = packages.into_iter().chain(pinned).collect();
    ids.extend(&installed);
    ids.extend(runtime(plan, want, name, host, &installed).ok()?);
    ids.extend(timer(plan, want, name, host, &installed));
    if !host.leftovers.is_empty() {
        let step = Step::Sweep { host: name.to_owned(), files: host.leftovers.clone() };
        ids.push(plan.step(step, "an interrupted run left secrets"));
    }
    Some(ids)
}

fn kernel(plan: &mut Plan<Step>, want: &Want, name: &str, host: &HostSeen) -> Option<StepId> {
    let differs = |path: &str, digest: &str| host.files.get(path).is_none_or(|f| f.sha256 != digest);
    let files: BTreeMap<String, String> = want
        .files
        .kernel
        .iter()
        .filter(|(path, file)| differs(path, &file.sha256))
        .map(|(path, file)| (path.clone(), file.sha256.clone()))
        .collect();
    let modules: BTreeSet<String> =
        files::modules().filter(|m| !host.modules.contains(*m)).map(str::to_owned).collect();
    let settings = files::sysctls().any(|(key, value)| host.sysctls.get(key).is_none_or(|v| v != value));
    // Who lets the kubelet run with swap wants it on.
    let swaps = want.kubelet.get("failSwapOn").is_some_and(|v| *v == false);
    let swap_off = !swaps && (host.swap || host.swap_at_boot);
    let why = match () {
        () if swap_off && host.swap => "swap is on",
        () if swap_off => "swap comes back with the next boot",
        () if !modules.is_empty() => "pods need these modules",
        () if settings => "settings differ",
        () if !files.is_empty() => "files differ",
        () => return None,
    };
    Some(plan.step(Step::Kernel { host: name.to_owned(), files, modules, settings, swap_off }, why))
}

/// True when something sets the clock.
fn clock(host: &HostSeen) -> bool {
    CLOCKS.iter().any(|u| host.active(u))
}

fn packages(
    plan: &mut Plan<Step>,
    want: &Want,
    name: &str,
    host: &HostSeen,
    runs: bool,
) -> Result<Option<StepId>, ()> {
    let version = want.version.to_string();
    // A node that runs gets another version by an upgrade, in its turn, not in passing.
    let pinned = pins::kubernetes(want);
    let wrong: Vec<&str> =
        EXACT.into_iter().filter(|p| !runs && !pinned && !right(host, p, &version)).collect();
    let mut missing: Vec<&str> = wrong.clone();
    if containerd_version(host).is_none() && !want.pins.contains_key("containerd") {
        missing.push("containerd");
    }
    if !clock(host) && !host.packages.contains_key("chrony") {
        missing.push("chrony");
    }
    // What the timer that saves etcd runs.
    let saves = !want.files.backup.is_empty() && want.node(name).is_some_and(|n| n.control_plane);
    missing.extend(["age", "nfs-common"].into_iter().filter(|p| saves && !host.packages.contains_key(*p)));
    let mut hold: Vec<String> = Vec::new();
    for package in EXACT {
        let installed = host.packages.get(package);
        if wrong.contains(&package) || installed.is_some_and(|p| !p.held) {
            hold.push(package.to_owned());
        }
    }
    if missing.is_empty() && hold.is_empty() {
        return Ok(None);
    }
    let why = match missing.as_slice() {
        [] => "apt would change them".to_owned(),
        some if some.iter().any(|p| host.packages.contains_key(*p)) => {
            format!("not there in this version: {}", some.join(", "))
        }
        some => format!("missing: {}", some.join(", ")),
    };
    let (install, repository) = obtain(plan, want, name, host, &missing)?;
    let step = Step::Packages { host: name.to_owned(), install, hold, repository };
    Ok(Some(plan.step(step, why)))
}

/// How packages are had: what apt installs, and the repository when it is needed; those of Kubernetes in the exact
/// version.
///
/// # Errors
/// When they are not to be had, which is then held.
pub(crate) fn obtain(
    plan: &mut Plan<Step>,
    want: &Want,
    name: &str,
    host: &HostSeen,
    missing: &[&str],
) -> Result<(Vec<String>, Option<Repository>), ()> {
    let version = want.version.to_string();
    let exact = |p: &str| format!("{p}={version}-*");
    Ok(match &want.source {
        _ if missing.is_empty() => (Vec::new(), None),
        Source::Present => {
            let why = format!("spec.packages.source is \"present\", but there is no {}", missing.join(", "));
            let why =
                if missing.iter().any(|p| EXACT.contains(p)) { format!("{why} in {version}") } else { why };
            plan.hold(HeldKind::Unmet, name, why, Some(format!("apt-get install {}", missing.join(" "))));
            return Err(());
        }
        Source::Directory(folder) => (from_folder(plan, name, host, folder, missing, &version)?, None),
        Source::Repository { url, key_url, key_sha256 } => {
            let install =
                missing.iter().map(|p| if EXACT.contains(p) { exact(p) } else { (*p).to_owned() }).collect();
            let fetched = host.files.get(files::KEYRING).is_some_and(|f| f.sha256 == *key_sha256);
            let needed = missing.iter().any(|p| EXACT.contains(p));
            let repository = want.files.list.as_ref().filter(|_| needed).map(|list| Repository {
                url: url.clone(),
                list_sha256: list.sha256.clone(),
                key_url: (!fetched).then(|| key_url.clone()),
                key_sha256: key_sha256.clone(),
            });
            (install, repository)
        }
    })
}

fn from_folder(
    plan: &mut Plan<Step>,
    name: &str,
    host: &HostSeen,
    folder: &str,
    missing: &[&str],
    version: &str,
) -> Result<Vec<String>, ()> {
    let find = |package: &str| {
        let begin = if EXACT.contains(&package) {
            format!("{folder}/{package}_{version}-")
        } else {
            format!("{folder}/{package}_")
        };
        host.debs.iter().filter(|d| d.starts_with(&begin)).max().cloned()
    };
    let lacking: Vec<&str> = missing.iter().copied().filter(|p| find(p).is_none()).collect();
    if !lacking.is_empty() {
        let why = format!("{folder} has no package of {}", lacking.join(", "));
        plan.hold(HeldKind::Unmet, name, why, Some(format!("ls {folder}")));
        return Err(());
    }
    Ok(missing.iter().copied().chain(ALONG).filter_map(find).collect())
}

/// The timer that saves etcd on control planes; what of it the document dropped goes.
fn timer(
    plan: &mut Plan<Step>,
    want: &Want,
    name: &str,
    host: &HostSeen,
    after: &[StepId],
) -> Option<StepId> {
    let wanted = &want.files.backup;
    if wanted.is_empty() || !want.node(name).is_some_and(|n| n.control_plane) {
        let remove = own_timer(host);
        let step = Step::Timer { host: name.to_owned(), files: BTreeMap::new(), remove };
        let some = matches!(&step, Step::Timer { remove, .. } if !remove.is_empty());
        return some.then(|| plan.step(step, "the document dropped it"));
    }
    let differs = |path: &str, digest: &str| host.files.get(path).is_none_or(|f| f.sha256 != digest);
    let files: BTreeMap<String, String> = wanted
        .iter()
        .filter(|(path, file)| differs(path, &file.sha256))
        .map(|(path, file)| (path.clone(), file.sha256.clone()))
        .collect();
    if files.is_empty() && host.active(files::TIMER_UNIT) {
        return None;
    }
    let foreign =
        files.keys().find(|p| host.files.get(p.as_str()).is_some_and(|f| f.whose == Whose::Foreign));
    if let Some(path) = foreign {
        hold_theirs(plan, name, path);
        return None;
    }
    let why = if files.is_empty() { "it does not run" } else { "the document has etcd saved" };
    let step = Step::Timer { host: name.to_owned(), files, remove: BTreeSet::new() };
    Some(plan.step_after(after, step, why))
}

/// The files of the timer on a machine that are ours.
pub fn own_timer(host: &HostSeen) -> BTreeSet<String> {
    let paths = [files::BACKUP, files::BACKUP_SERVICE, files::BACKUP_TIMER];
    let ours = |p: &&str| host.files.get(*p).is_some_and(|f| f.whose == Whose::Ours);
    paths.into_iter().filter(ours).map(str::to_owned).collect()
}

fn runtime(
    plan: &mut Plan<Step>,
    want: &Want,
    name: &str,
    host: &HostSeen,
    after: &[StepId],
) -> Result<Option<StepId>, ()> {
    let wanted = want.files.containerd(containerd_version(host));
    let seen = host.files.get(files::CONTAINERD);
    // Every containerd reads version 2: what was written before its version was known stays.
    let reads = [&wanted.sha256, &want.files.containerd_2.sha256];
    if seen.is_some_and(|f| reads.contains(&&f.sha256)) {
        let start = !host.active("containerd");
        let step = Step::Runtime { host: name.to_owned(), sha256: None };
        return Ok(start.then(|| plan.step_after(after, step, "it does not run")));
    }
    if seen.is_some_and(|f| f.whose == Whose::Foreign) {
        hold_theirs(plan, name, files::CONTAINERD);
        return Err(());
    }
    let step = Step::Runtime { host: name.to_owned(), sha256: Some(wanted.sha256.clone()) };
    let why = match seen.map(|f| f.whose) {
        None => "there is none",
        Some(Whose::Ours) => "it differs",
        _ => "it is the package's own, without systemd's cgroups",
    };
    Ok(Some(plan.step_after(after, step, why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever sets the clock is enough: apt would remove it for chrony's sake.
    #[test]
    fn any_service_that_sets_the_clock_will_do() {
        let mut host = HostSeen::default();
        assert!(!clock(&host));
        for unit in CLOCKS {
            host.units = [(unit.to_owned(), "active".to_owned())].into();
            assert!(clock(&host), "{unit}");
            assert!(crate::look::LOOK.contains(&format!(" {unit} ")), "nobody asks for {unit}");
        }
    }
}
