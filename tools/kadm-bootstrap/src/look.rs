//! One look at a machine: a fixed script, and its answer read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use remote::Command;

use crate::certificate;
use crate::fields;
use crate::seen::{FileSeen, HostSeen, PackageSeen, Whose};

/// The exact first line of every file of ours.
pub const HEADER: &str = "Managed by kubeline (kadm-bootstrap)";

/// Where the intent of an init is noted.
pub const INTENT: &str = "/var/lib/kubeline/kadm-init";

/// Where a renewal of certificates is noted while it goes on.
pub const RENEWING: &str = "/var/lib/kubeline/kadm-renewing";

/// The components whose metrics monitoring wants from other machines.
pub const METRICS: [&str; 3] = ["etcd", "kube-controller-manager", "kube-scheduler"];

/// Tells all that planning needs to know of a machine, one fact a line.
///
/// * `$1` a directory with package files, or empty. The other arguments are paths of files that this tool manages.
/// * Standard output: lines of a word and its values, as the reader below knows them. Certificates are public; no key
///   is printed.
/// * Exit: 0.
pub const LOOK: &str = r#"# kubeline: kadm-look v6
set -u
export LC_ALL=C
debs=$1
shift
echo "hostname $(uname -n)"
echo "machine-id $(cat /etc/machine-id 2>/dev/null)"
echo "product-uuid $(cat /sys/class/dmi/id/product_uuid 2>/dev/null)"
for d in /sys/class/net/*; do
  [ -e "$d/device" ] && echo "mac $(cat "$d/address")"
done
(. /etc/os-release && echo "os $ID ${VERSION_ID:-}")
echo "cpus $(nproc)"
echo "memory $(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
echo "time $(date +%s)"
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo 'cgroup 2'; else echo 'cgroup 1'; fi
echo "kernel $(uname -r)"
[ "$(wc -l </proc/swaps)" -gt 1 ] && echo 'swap on'
grep -Eq '^[^#]+[[:space:]]swap[[:space:]]' /etc/fstab 2>/dev/null && echo 'swap boot'
dpkg-query -W -f='package ${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\n' \
  containerd containerd.io kubeadm kubelet kubectl chrony age nfs-common 2>/dev/null
for p in containerd kubeadm kubelet kubectl; do
  [ ! -e "/usr/local/bin/$p" ] && dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed && continue
  case $p in
  containerd)
    [ ! -e /usr/local/bin/containerd ] && dpkg-query -W -f='${db:Status-Status}' containerd.io 2>/dev/null | grep -qx installed && continue
    command -v containerd >/dev/null && echo "program containerd $(containerd --version | cut -d' ' -f3)" ;;
  kubeadm) command -v kubeadm >/dev/null && echo "program kubeadm $(kubeadm version -o short)" ;;
  kubelet) command -v kubelet >/dev/null && echo "program kubelet $(kubelet --version | cut -d' ' -f2)" ;;
  kubectl) command -v kubectl >/dev/null && echo "program kubectl $(kubectl version --client -o json |
    sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p' | head -n 1)" ;;
  esac
done
p=/var/lib/kubeline/pinned
for n in kubeadm:/usr/local/bin/kubeadm kubelet:/usr/local/bin/kubelet kubectl:/usr/local/bin/kubectl \
  crictl:/usr/local/bin/crictl cni-plugins:/opt/cni/bin/bridge containerd:/usr/local/bin/containerd \
  runc:/usr/local/sbin/runc; do
  f=${n#*:}
  n=${n%%:*}
  [ -f "$f" ] || continue
  [ -f "$p/$n" ] || { echo "unowned $f"; continue; }
  case $n in
  crictl | cni-plugins | containerd) echo "pinned $n $(cat "$p/$n")" ;;
  *) echo "pinned $n $(sha256sum <"$f" | cut -d' ' -f1)" ;;
  esac
done
for u in containerd kubelet systemd-timesyncd chrony ntpsec openntpd ntp kubeline-etcd-backup.timer; do
  echo "unit $u $(systemctl is-active "$u" 2>/dev/null)"
done
for f in "$@"; do
  [ -f "$f" ] || continue
  w=foreign
  m=$(md5sum <"$f" | cut -d' ' -f1)
  if head -n 1 "$f" | grep -qF 'Managed by kubeline (kadm-bootstrap)'; then w=ours
  elif dpkg-query -W -f='${Conffiles}\n' containerd containerd.io 2>/dev/null | grep -qF " $f $m"; then w=pristine
  fi
  echo "file $w $(sha256sum <"$f" | cut -d' ' -f1) $f"
done
k=/etc/kubernetes
for f in $k/admin.conf $k/super-admin.conf $k/controller-manager.conf $k/scheduler.conf $k/kubelet.conf \
  $k/bootstrap-kubelet.conf $k/manifests/etcd.yaml $k/manifests/kube-apiserver.yaml \
  $k/manifests/kube-controller-manager.yaml $k/manifests/kube-scheduler.yaml $k/pki/ca.crt $k/pki/ca.key \
  /var/lib/kubelet/config.yaml /var/lib/etcd/member; do
  [ -e "$f" ] && echo "state $f"
done
for c in etcd kube-apiserver kube-controller-manager kube-scheduler; do
  m=$k/manifests/$c.yaml
  [ -f "$m" ] || continue
  echo "static $c $(sed -n 's/^ *image: *"\{0,1\}.*:\([^":@]*\)"\{0,1\}$/\1/p' "$m" | head -n 1)"
  case $c in
  etcd)
    grep -q -- '--listen-metrics-urls=http://0\.0\.0\.0:' "$m" && echo "metrics $c"
    grep -q -- '--initial-cluster-state=existing' "$m" || echo begins-anew ;;
  kube-apiserver) ;;
  *) grep -q -- '--bind-address=0\.0\.0\.0' "$m" && echo "metrics $c" ;;
  esac
done
c=/var/lib/kubelet/config.yaml
[ -f "$c" ] && echo "kubelet $(base64 -w 0 <"$c")"
[ -f /var/lib/kubeline/kadm-kubelet ] && echo configuring
[ -f /var/lib/kubeline/kadm-programs ] && echo exchanging
f=/var/lib/kubelet/pki/kubelet-server-current.pem
[ -f "$f" ] && echo "serves $(sed -n '/^-----BEGIN CERT/,/^-----END CERT/p;/^-----END CERT/q' "$f" | base64 -w 0)"
for f in /var/lib/kubeline/etcd-before-*.db; do
  [ -e "$f" ] && echo "snapshot $f"
done
for f in /etc/cni/net.d/10-* /etc/cni/net.d/*calico* /var/lib/cni; do
  [ -e "$f" ] && echo "remains $f"
done
for f in /run/kubeline-kadm-*; do
  [ -e "$f" ] && echo "left $f"
done
[ -f /var/lib/kubeline/kadm-init ] && echo intent
[ -f /var/lib/kubeline/kadm-renewing ] && echo renewing
for f in ca apiserver apiserver-etcd-client apiserver-kubelet-client front-proxy-client etcd/server etcd/peer \
  etcd/healthcheck-client; do
  [ -f "$k/pki/$f.crt" ] && echo "certificate $f $(base64 -w 0 <"$k/pki/$f.crt")"
done
for f in admin controller-manager scheduler; do
  [ -f "$k/$f.conf" ] && echo "certificate $f.conf $(sed -n 's/^ *client-certificate-data: *//p' "$k/$f.conf" | head -n 1)"
done
[ -f $k/kubelet.conf ] && echo "server $(sed -n 's/^ *server: *//p' $k/kubelet.conf | head -n 1)"
grep -qw overlay /proc/filesystems && echo 'module overlay'
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] && echo 'module br_netfilter'
for s in net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables \
  fs.inotify.max_user_instances fs.inotify.max_user_watches kernel.panic kernel.panic_on_oops vm.overcommit_memory; do
  v=$(sysctl -n "$s" 2>/dev/null) && echo "sysctl $s $v"
done
if [ -n "$debs" ]; then
  for f in "$debs"/*.deb; do
    [ -f "$f" ] && echo "deb $f"
  done
fi
exit 0
"#;

/// The command that looks.
pub fn command<'p>(debs: &str, paths: impl Iterator<Item = &'p str>) -> Command {
    Command::sh(LOOK).arg(debs).args(paths).sudo().title("look at the machine")
}

/// Reads the answer; a line that is not known is skipped, so that a newer script may say more.
pub fn read(text: &str) -> HostSeen {
    let mut seen = HostSeen::default();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "hostname" => seen.hostname = rest.to_owned(),
            "machine-id" => seen.machine_id = rest.to_owned(),
            "product-uuid" => seen.product_uuid = rest.to_lowercase(),
            "mac" => drop(seen.macs.insert(rest.to_lowercase())),
            "os" => seen.os = rest.trim().to_owned(),
            "cpus" => seen.cpus = rest.parse().unwrap_or(0),
            "memory" => seen.memory_kib = rest.parse().unwrap_or(0),
            "time" => seen.time = rest.parse().unwrap_or(0),
            "cgroup" => seen.cgroup = rest.parse().unwrap_or(0),
            "swap" if rest == "on" => seen.swap = true,
            "swap" if rest == "boot" => seen.swap_at_boot = true,
            "package" => package(&mut seen.packages, rest),
            "program" => insert(&mut seen.programs, first, second),
            "pinned" => insert(&mut seen.pinned, first, second),
            "unowned" => drop(seen.unowned.insert(rest.to_owned())),
            "unit" => insert(&mut seen.units, first, second),
            "file" => file(&mut seen, first, second),
            "state" => drop(seen.state.insert(rest.to_owned())),
            "remains" => drop(seen.remains.insert(rest.to_owned())),
            "left" => drop(seen.leftovers.insert(rest.to_owned())),
            "intent" => seen.intent = true,
            "renewing" => seen.renewing = true,
            "server" if !rest.is_empty() => seen.server = Some(rest.to_owned()),
            "certificate" => {
                if let Some(certificate) = certificate::of_base64(second) {
                    seen.certificates.insert(first.to_owned(), certificate);
                }
            }
            "module" => drop(seen.modules.insert(rest.to_owned())),
            "sysctl" => insert(&mut seen.sysctls, first, second),
            "static" => insert(&mut seen.static_pods, first, second),
            "metrics" => drop(seen.metrics.insert(rest.to_owned())),
            "begins-anew" => seen.begins_anew = true,
            "kernel" => seen.kernel = rest.to_owned(),
            "kubelet" => {
                let text = STANDARD.decode(rest).unwrap_or_default();
                seen.kubelet = fields::read(&String::from_utf8_lossy(&text));
                seen.serving = seen.kubelet.get("serverTLSBootstrap").is_some_and(|v| *v == true);
            }
            "configuring" => seen.configuring = true,
            "exchanging" => seen.exchanging = true,
            "serves" => seen.serves = certificate::of_base64(rest),
            "snapshot" => drop(seen.snapshots.insert(rest.to_owned())),
            "deb" => seen.debs.push(rest.to_owned()),
            _ => {}
        }
    }
    seen
}

fn insert(map: &mut BTreeMap<String, String>, key: &str, value: &str) {
    map.insert(key.to_owned(), value.to_owned());
}

/// `NAME VERSION WANT STATUS`.
fn package(packages: &mut BTreeMap<String, PackageSeen>, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    if let [name, version, want, "installed"] = words.as_slice() {
        packages.insert(
            (*name).to_owned(),
            PackageSeen { version: (*version).to_owned(), held: *want == "hold" },
        );
    }
}

/// `WHOSE`, then `SHA256 PATH`.
fn file(seen: &mut HostSeen, whose: &str, rest: &str) {
    let Some((sha256, path)) = rest.split_once(' ') else { return };
    let whose = match whose {
        "ours" => Whose::Ours,
        "pristine" => Whose::Pristine,
        _ => Whose::Foreign,
    };
    seen.files.insert(path.to_owned(), FileSeen { sha256: sha256.to_owned(), whose });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_facts() {
        let seen = read(
            "hostname cp-1\nos debian 13\ncpus 4\nswap on\npackage kubelet 1.36.2-1.1 hold installed\n\
             package chrony 4.6 deinstall config-files\nfile ours abc /etc/x y\nstate /etc/kubernetes/admin.conf\n\
             left /run/kubeline-kadm-join.yaml\nnonsense\nunit kubelet active\nsysctl kernel.panic 10\n",
        );
        assert_eq!((seen.hostname.as_str(), seen.cpus, seen.swap), ("cp-1", 4, true));
        assert!(seen.packages["kubelet"].held && !seen.packages.contains_key("chrony"));
        assert_eq!(seen.files["/etc/x y"].whose, Whose::Ours);
        assert!(seen.traces() && seen.active("kubelet") && seen.leftovers.len() == 1);
        assert!(LOOK.contains(HEADER) && LOOK.contains(INTENT) && LOOK.contains(RENEWING));
        assert!(LOOK.contains(crate::kubelet::CONFIGURING) && LOOK.contains(crate::kubelet::CONFIG));
    }

    /// The script is POSIX shell: the system's own reads it.
    #[test]
    fn the_scripts_parse() {
        for script in [
            LOOK,
            crate::hosts::SWAP,
            crate::kubeadm::BUSY,
            crate::kubeadm::CLEAN,
            crate::hosts::KEY,
            crate::kubelet::RESTART,
            crate::pins::PIN,
            crate::probe::PROBE,
            crate::roll::SNAPSHOT,
            crate::backup::BACKUP,
            crate::restore::ASIDE,
            crate::restore::UNPACK,
        ] {
            let status = std::process::Command::new("sh").args(["-n", "-c", script]).status().unwrap();
            assert!(status.success());
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(?s).{0,400}") {
            let _ = read(&text);
        }
    }
}
