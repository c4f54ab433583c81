//! What Calico leaves on a node, found and removed.

use fleet::{Fleet, failure};
use remote::{Command, Error, Host};
use stage::Failure;

/// Names what Calico keeps on this node, one a line.
///
/// * No arguments. Exit: 0.
pub const LOOK: &str = r#"# kubeline: cni-look v1
set -u
for f in /etc/cni/net.d/10-calico.conflist /etc/cni/net.d/calico-kubeconfig /var/lib/calico /run/calico; do
  [ -e "$f" ] && echo "$f"
done
for l in vxlan.calico wireguard.cali; do
  [ -e "/sys/class/net/$l" ] && echo "link $l"
done
for t in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
  command -v "$t-save" >/dev/null || continue
  "$t-save" 2>/dev/null | grep -q '^:cali-' && echo "chains of $t"
done
exit 0
"#;

/// Removes what is left of Calico on this node: its own files, links, routes and chains of the packet filter, and nothing else.
///
/// A rule of another chain goes only where it jumps to a chain of Calico's or bears its mark; kube-proxy's rules stay, and
/// each table is changed in one transaction of iptables-restore. Pods' own links go with their pods.
///
/// * No arguments. Exit: 0, or 3 when calico-node still runs here after a minute. What is gone already is no fault.
pub const CLEAN: &str = r#"# kubeline: cni-clean v1
set -u
n=0
while pidof calico-node >/dev/null; do
  n=$((n + 1))
  if [ "$n" -gt 120 ]; then echo "calico-node still runs: its DaemonSet is not gone" >&2; exit 3; fi
  sleep 0.5
done
rm -rf /etc/cni/net.d/10-calico.conflist /etc/cni/net.d/calico-kubeconfig /var/lib/calico /run/calico
for l in vxlan.calico wireguard.cali; do
  ip link delete "$l" 2>/dev/null
done
ip route flush proto 80 2>/dev/null
for t in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
  command -v "$t-save" >/dev/null || continue
  for table in raw mangle nat filter; do
    rules=$("$t-save" -t "$table" 2>/dev/null) || continue
    printf '%s\n' "$rules" | grep -q '^:cali-' || continue
    {
      echo "*$table"
      printf '%s\n' "$rules" | grep '^-A' | grep -v '^-A cali-' | grep -E -- '-[jg] cali-|"cali:' | sed 's/^-A/-D/'
      printf '%s\n' "$rules" | sed -n 's/^:\(cali-[^ ]*\) .*/-F \1/p'
      printf '%s\n' "$rules" | sed -n 's/^:\(cali-[^ ]*\) .*/-X \1/p'
      echo COMMIT
    } | "$t-restore" --noflush
  done
done
if command -v nft >/dev/null; then
  for family in ip ip6; do nft delete table "$family" calico 2>/dev/null; done
fi
if command -v ipset >/dev/null; then
  ipset list -n 2>/dev/null | grep '^cali[46]0' | while read -r s; do ipset destroy "$s"; done
fi
exit 0
"#;

/// What is left on a node.
pub(crate) async fn remains(host: Host) -> Result<Vec<String>, Error> {
    let said = host.ok(&Command::sh(LOOK).sudo().title("look for Calico")).await?;
    Ok(said.text().lines().map(str::to_owned).collect())
}

/// Removes it.
pub(crate) async fn clean(fleet: &Fleet, machine: &str) -> Result<(), Failure> {
    let command = Command::sh(CLEAN).sudo().title("remove what is left of Calico");
    let done = fleet.host(machine)?.ok(&command).await;
    done.map(drop).map_err(|e| failure(format!("cannot clean {machine} of Calico"), &e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const SAVED: &str = "*filter
:FORWARD ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:cali-FORWARD - [0:0]
-A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD
-A FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -j KUBE-FORWARD
-A cali-FORWARD -i cali+ -j ACCEPT
COMMIT
";

    const RESTORED: &str = "--noflush
*filter
-D FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD
-D FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark 0x10000/0x10000 -j ACCEPT
-F cali-FORWARD
-X cali-FORWARD
COMMIT
";

    /// The part of the script that changes the packet filter, run by a real shell beside programs that only tell.
    #[test]
    fn of_the_packet_filter_only_calicos_rules_go() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("saved"), SAVED).unwrap();
        let save = "#!/bin/sh\n[ \"$2\" = filter ] && cat \"${0%/*}/saved\"\n";
        let restore = "#!/bin/sh\n{ echo \"$*\"; cat; } >\"${0%/*}/restored\"\n";
        for (name, text) in [("iptables-nft-save", save), ("iptables-nft-restore", restore)] {
            std::fs::write(at(name), text).unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let begin = CLEAN.find("for t in iptables-nft").unwrap();
        let end = CLEAN.find("if command -v nft").unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let run =
            std::process::Command::new("sh").args(["-c", &CLEAN[begin..end]]).env("PATH", path).output();
        assert!(run.unwrap().stderr.is_empty());
        assert_eq!(std::fs::read_to_string(at("restored")).unwrap(), RESTORED);
    }

    #[test]
    fn the_scripts_are_shell() {
        for script in [LOOK, CLEAN] {
            let run = std::process::Command::new("sh").args(["-n", "-c", script]).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        }
    }
}
