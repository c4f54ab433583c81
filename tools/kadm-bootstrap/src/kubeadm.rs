//! kubeadm: run on a machine, waited for, and undone.

use std::time::Duration;

use remote::{Command, Error, Host, RemoteFile};
use stage::{Ctx, Failure, Waiting};

use crate::hosts::{must, put};
use crate::said;

/// How long kubeadm may take for one machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);

/// Removes what `kubeadm reset` leaves: pod network, packet filter rules, etcd's directory, files of this tool.
///
/// * No arguments. Exit: 0. What is gone already is no fault.
pub const CLEAN: &str = r#"# kubeline: kadm-clean v4
set -u
systemctl stop kubelet 2>/dev/null
rm -rf /etc/cni/net.d/10-* /etc/cni/net.d/*calico* /var/lib/cni /var/lib/calico /run/calico /var/lib/etcd/member \
  /run/kubeline-kadm-* /var/lib/kubeline/kadm-init /var/lib/kubeline/kadm-renewing \
  /var/lib/kubeline/kadm-kubelet /var/lib/kubeline/kadm-programs
for l in cni0 vxlan.calico wireguard.cali kube-ipvs0; do
  ip link delete "$l" 2>/dev/null
done
for t in iptables ip6tables; do
  command -v "$t-save" >/dev/null || continue
  "$t-save" 2>/dev/null | grep -Ev 'KUBE-|cali[-:]|CNI-' | "$t-restore" 2>/dev/null
done
for f in ip ip6; do
  command -v nft >/dev/null && nft delete table "$f" kube-proxy 2>/dev/null
done
exit 0
"#;

/// Tells whether a kubeadm runs.
///
/// * No arguments. Exit: 0 one runs, 1 none does.
pub const BUSY: &str = r#"# kubeline: kadm-busy v1
for f in /proc/[0-9]*/comm; do
  read -r c 2>/dev/null <"$f" && [ "$c" = kubeadm ] && exit 0
done
exit 1
"#;

/// Waits until no kubeadm runs on a machine: sshd lets that of a run that was killed go on.
///
/// # Errors
/// Exit 5 when it does not end.
pub async fn idle(host: &Host, ctx: &Ctx) -> Result<(), Failure> {
    let what = format!("the end of a kubeadm on {} that this run did not start", host.name());
    let look = Command::sh(BUSY).sudo().title("look for a kubeadm that runs");
    ctx.wait_for(&what, PATIENCE, || async {
        let output = host.run(&look).await.map_err(|e| fleet::failure(&what, &e))?;
        Ok(match output.exit {
            1 => Waiting::Seen(()),
            _ => Waiting::NotYet("it still runs".to_owned()),
        })
    })
    .await
}

/// Runs kubeadm; its complaints are the causes of a failure.
pub async fn run(host: &Host, command: &Command, doing: &str) -> Result<(), Failure> {
    let output = host.run(command).await.map_err(|e: Error| fleet::failure(doing, &e))?;
    if output.success() {
        return Ok(());
    }
    let stderr = output.error_text();
    // A check that failed wants the operator; all else may pass by itself.
    let fatal = said::complaints(&stderr).iter().any(|c| matches!(c, said::Complaint::Fatal(..)));
    let failure = if fatal { Failure::precondition(doing) } else { Failure::transient(doing) };
    let failure = failure.because(format!("`{}` exited {}", command.line(), output.exit));
    Ok(said::causes(&stderr).into_iter().fold(failure, Failure::because)).and_then(Err)
}

/// Runs kubeadm with a configuration that is there only while it runs, for root alone.
pub(crate) async fn with_config(
    host: &Host,
    name: &str,
    config: String,
    words: &[&str],
    doing: &str,
) -> Result<(), Failure> {
    // /run is memory: the secret reaches no disk.
    let path = format!("/run/kubeline-kadm-{name}.yaml");
    put(host, &RemoteFile::new(&path, config).mode(0o600), doing).await?;
    let command = Command::new("kubeadm").args(words.iter().copied()).args(["--config", &path]).sudo();
    let ran = run(host, &command.timeout(PATIENCE), doing).await;
    let removed = host.remove(&path).await.map_err(|e| fleet::failure(doing, &e));
    ran.and(removed.map(drop))
}

/// Undoes what kubeadm did, and cleans up after it.
pub async fn reset(host: &Host) -> Result<(), Failure> {
    let doing = format!("cannot reset {}", host.name());
    let reset = Command::new("kubeadm").args(["reset", "-f"]).sudo().timeout(Duration::from_secs(600));
    run(host, &reset, &doing).await?;
    must(host, &Command::sh(CLEAN).sudo().title("clean up after kubeadm"), &doing).await.map(drop)
}
