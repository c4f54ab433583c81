//! Programs as their publishers' files, where no package will do: each by the address and the digest that the document has.
//!
//! They lie where their publishers say, below `/usr/local` and in `/opt/cni/bin`, with systemd units of ours; a machine
//! that has one from elsewhere keeps it.

use std::collections::BTreeMap;
use std::time::Duration;

use remote::{Command, Host};
use stage::{Failure, HeldKind, Plan, StepId};

use crate::fault::hold_theirs;
use crate::files;
use crate::hosts::{self, must};
use crate::pin::{KNOWN, Pin, RUNTIME, publisher};
use crate::seen::{HostSeen, Whose};
use crate::step::Step;
use crate::version::{EXACT, containerd_version, right, two_numbers};
use crate::want::Want;

/// Fetches one file, checks its digest, and puts what is in it in place, each program atomically.
///
/// * `$1` its name, `$2` `program` or `archive`, `$3` where it is, `$4` its SHA-256, `$5` the folder, `$6` the version that
///   the program has to tell, or empty. apt-helper comes with apt, knows its proxies and checks the digest.
/// * It is noted below /var/lib/kubeline/pinned that the programs are this tool's: as begun before one is in place, and by
///   the digest once all are.
/// * Exit: 0 in place; 65 another version; else the failing command's.
pub const PIN: &str = r#"# kubeline: kadm-pin v1
set -eu
p=/var/lib/kubeline/pinned
mkdir -p -- "$p" "$5"
t=$(mktemp -d -- "$5/.kubeline.XXXXXX")
trap 'rm -rf -- "$t"' EXIT
/usr/lib/apt/apt-helper -qq download-file "$3" "$t/$1" "SHA256:$4"
mkdir "$t/new"
case $2 in
program) install -m 0755 -- "$t/$1" "$t/new/$1" ;;
archive) tar -C "$t/new" -xzf "$t/$1" ;;
esac
if [ -n "$6" ]; then
  case $1 in
  kubeadm) v=$("$t/new/kubeadm" version -o short) ;;
  kubelet) v=$("$t/new/kubelet" --version | cut -d' ' -f2) ;;
  *) v=$("$t/new/$1" version --client -o json | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p' | head -n 1) ;;
  esac
  [ "$v" = "v$6" ] || { echo "$3 is $1 $v, and not v$6" >&2; exit 65; }
fi
[ -f "$p/$1" ] || echo begun >"$p/$1"
find "$t/new" -type f -perm -100 | while read -r f; do
  chown root:root "$f"
  mv -fT -- "$f" "$5/${f##*/}"
done
# Containers go on while their runtime is started anew; it is noted as done only then.
[ "$1" != containerd ] || systemctl try-restart containerd
echo "$4" >"$t/note"
mv -fT -- "$t/note" "$p/.$1.new"
mv -fT -- "$p/.$1.new" "$p/$1"
"#;

/// True when kubeadm, kubelet and kubectl are pinned.
pub fn kubernetes(want: &Want) -> bool {
    want.pins.contains_key("kubeadm")
}

/// True when the machine's runtime is too old for the document's Kubernetes: Debian 12's 1.6 lacks what the kubelet of 1.36
/// asks of it.
pub fn old_runtime(want: &Want, host: &HostSeen) -> Option<(u32, u32)> {
    containerd_version(host).and_then(two_numbers).filter(|v| *v < (1, 7) && want.version.minor() >= 36)
}

/// Those of these names whose file is not there, or another one.
fn due(want: &Want, host: &HostSeen, names: &[&str]) -> Vec<Pin> {
    let differs = |pin: &&Pin| host.pinned.get(&pin.name).is_none_or(|sha256| *sha256 != pin.sha256);
    names.iter().filter_map(|name| want.pins.get(*name)).filter(differs).cloned().collect()
}

/// The programs of Kubernetes whose files are not there yet, and what comes along unless it is there from elsewhere.
pub(crate) fn lacking(want: &Want, host: &HostSeen) -> Vec<Pin> {
    let theirs =
        |pin: &Pin| KNOWN.iter().any(|(n, .., shows)| *n == pin.name && host.unowned.contains(*shows));
    let along = due(want, host, &["crictl", "cni-plugins"]).into_iter().filter(|pin| !theirs(pin));
    due(want, host, &EXACT).into_iter().chain(along).collect()
}

/// Those of Kubernetes of these names that are not there in the document's version, with what they need.
///
/// # Errors
/// When something of somebody's own is in the way, which is then held.
pub(crate) fn obtain(
    plan: &mut Plan<Step>,
    want: &Want,
    name: &str,
    host: &HostSeen,
    wrong: &[&str],
) -> Result<Vec<Pin>, ()> {
    // What an interrupted run left out of those that come along is brought in too.
    let begun = EXACT.iter().any(|name| host.pinned.contains_key(*name));
    let theirs =
        |pin: &Pin| KNOWN.iter().any(|(n, .., shows)| *n == pin.name && host.unowned.contains(*shows));
    // Who has these two from elsewhere keeps them: their version is no matter of the document's.
    let along = || due(want, host, &["crictl", "cni-plugins"]).into_iter().filter(|pin| !theirs(pin));
    if wrong.is_empty() {
        return Ok(along().filter(|_| begun).collect());
    }
    let packages: Vec<&str> = EXACT.into_iter().filter(|p| host.packages.contains_key(*p)).collect();
    if !packages.is_empty() {
        let why = format!(
            "it has the packages {}, whose units and programs would be in the way",
            packages.join(", ")
        );
        let hint = format!("apt-get remove --allow-change-held-packages {}", packages.join(" "));
        plan.hold(HeldKind::Unmet, name, why, Some(hint));
        return Err(());
    }
    free(plan, name, host, wrong)?;
    let mut pins: Vec<Pin> = wrong.iter().filter_map(|name| want.pins.get(*name)).cloned().collect();
    pins.extend(along());
    Ok(pins)
}

/// Holds what would overwrite somebody's own program.
pub(crate) fn free(plan: &mut Plan<Step>, name: &str, host: &HostSeen, wanted: &[&str]) -> Result<(), ()> {
    let paths = KNOWN.iter().filter(|(n, ..)| wanted.contains(n)).map(|(.., shows)| *shows);
    match paths.into_iter().find(|path| host.unowned.contains(*path)) {
        None => Ok(()),
        Some(path) => {
            hold_theirs(plan, name, path);
            Err(())
        }
    }
}

/// The pinned programs of a machine, beside its packages; `runs` is true for a part of the cluster, whose version changes in
/// its turn only.
///
/// # Errors
/// When something is held that must be there before it can join.
pub(crate) fn prepare(
    plan: &mut Plan<Step>,
    want: &Want,
    name: &str,
    host: &HostSeen,
    runs: bool,
) -> Result<Option<StepId>, ()> {
    let mut pins = Vec::new();
    let mut units = Vec::new();
    if kubernetes(want) {
        let version = want.version.to_string();
        let wrong: Vec<&str> = EXACT.into_iter().filter(|p| !runs && !right(host, p, &version)).collect();
        if !runs {
            pins.extend(obtain(plan, want, name, host, &wrong)?);
        }
        if host.pinned.contains_key("kubelet") || !wrong.is_empty() {
            units.push(files::KUBELET_UNIT);
        }
    } else if let Some(left) = EXACT.iter().find(|n| !runs && host.pinned.contains_key(**n)) {
        let why = format!("its {left} is a pinned file, and spec.artifacts names none any more");
        let hint = format!(
            "name it again; or on {name}: rm /usr/local/bin/kube{{adm,let,ctl}} /var/lib/kubeline/pinned/kube* {}",
            files::KUBELET_UNIT
        );
        plan.hold(HeldKind::Unmet, name, why, Some(hint));
        return Err(());
    }
    if want.pins.contains_key("containerd") {
        let lacks = containerd_version(host).is_none() || old_runtime(want, host).is_some();
        let ours = host.pinned.contains_key("containerd");
        if lacks || (ours && !runs) {
            let runtime = due(want, host, &RUNTIME);
            let names: Vec<&str> = runtime.iter().map(|p| p.name.as_str()).collect();
            free(plan, name, host, &names)?;
            pins.extend(runtime);
        }
        if lacks || ours {
            units.push(files::CONTAINERD_UNIT);
        }
    }
    let mut write = BTreeMap::new();
    for path in units {
        let (Some(file), seen) = (want.files.units.get(path), host.files.get(path)) else { continue };
        if seen.is_some_and(|f| f.whose == Whose::Foreign) {
            hold_theirs(plan, name, path);
            return Err(());
        }
        if seen.is_none_or(|f| f.sha256 != file.sha256) {
            write.insert(path.to_owned(), file.sha256.clone());
        }
    }
    if pins.is_empty() && write.is_empty() {
        return Ok(None);
    }
    let step = Step::Pin { host: name.to_owned(), pins, units: write };
    Ok(Some(plan.step(step, "the document pins them")))
}

/// Puts pinned files and their units in place.
///
/// # Errors
/// Exit 4 for another digest or version than the document's, 5 when a file cannot be had now.
pub async fn install(
    host: &Host,
    want: &Want,
    pins: &[Pin],
    units: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let doing = format!("cannot install pinned files on {}", host.name());
    // The units first: the runtime is started anew with its own as soon as its program is there.
    hosts::write(host, want, units, &doing).await?;
    if !units.is_empty() {
        must(host, &Command::new("systemctl").arg("daemon-reload").sudo(), &doing).await?;
    }
    for pin in pins {
        let Some((_, kind, folder, _)) = KNOWN.iter().find(|(name, ..)| *name == pin.name) else { continue };
        let version = pin.version.clone().unwrap_or_default();
        let command = Command::sh(PIN)
            .args([pin.name.as_str(), kind, pin.url.as_str(), pin.sha256.as_str(), folder, version.as_str()])
            .sudo()
            .timeout(Duration::from_secs(900))
            .title(format!("fetch {}", pin.url));
        must(host, &command, &doing).await.map_err(|f| {
            f.hint(format!(
                "compare spec.artifacts \"{}\" with {}",
                pin.name,
                publisher(&pin.name, want.version)
            ))
        })?;
    }
    Ok(())
}

/// Has a pinned kubelet started at boot, as its package would; before kubeadm starts it.
///
/// # Errors
/// systemctl's complaint.
pub async fn enable(host: &Host, want: &Want) -> Result<(), Failure> {
    if !kubernetes(want) {
        return Ok(());
    }
    let enable = Command::new("systemctl").args(["enable", "kubelet"]).sudo();
    must(host, &enable, &format!("cannot enable the kubelet on {}", host.name())).await.map(drop)
}
