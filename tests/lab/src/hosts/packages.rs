//! The packages that can be installed, and the files that come with them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::Machine;
use super::fs::Fs;

/// A repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repo {
    /// Debian trixie.
    Debian,
    /// Docker's for Debian.
    Docker,
    /// pkgs.k8s.io of one minor version: there is a repository for each.
    Kubernetes(u32),
}

impl Repo {
    /// How `apt-cache` names it.
    pub fn origin(self) -> String {
        match self {
            Repo::Debian => "https://deb.debian.org/debian trixie/main amd64".into(),
            Repo::Docker => "https://download.docker.com/linux/debian trixie/stable amd64".into(),
            Repo::Kubernetes(minor) => format!("https://pkgs.k8s.io/core:/stable:/v1.{minor}/deb "),
        }
    }
}

/// A package.
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// Versions, oldest first.
    pub versions: &'static [&'static str],
    /// Where it comes from.
    pub repo: Repo,
    /// What it depends on, among those here.
    pub depends: &'static [&'static str],
    /// True when a cloud image has it.
    pub base: bool,
}

impl Package {
    /// The newest version.
    pub fn newest(&self) -> &'static str {
        self.versions.last().copied().unwrap_or_default()
    }
}

const fn debian(
    name: &'static str,
    versions: &'static [&'static str],
    depends: &'static [&'static str],
) -> Package {
    Package { name, versions, repo: Repo::Debian, depends, base: false }
}

const fn base(name: &'static str, versions: &'static [&'static str]) -> Package {
    Package { name, versions, repo: Repo::Debian, depends: &[], base: true }
}

const fn kubernetes(
    minor: u32,
    name: &'static str,
    versions: &'static [&'static str],
    depends: &'static [&'static str],
) -> Package {
    Package { name, versions, repo: Repo::Kubernetes(minor), depends, base: false }
}

const V34: &[&str] = &["1.34.0-1.1", "1.34.1-1.1", "1.34.8-1.1"];
const V35: &[&str] = &["1.35.0-1.1", "1.35.1-1.1", "1.35.5-1.1", "1.35.6-1.1"];
const V36: &[&str] = &["1.36.0-1.1", "1.36.1-1.1", "1.36.2-1.1", "1.36.3-1.1", "1.36.4-1.1"];

/// What the lab serves as pkgs.k8s.io's Release.key; a document for the lab pins its digest.
pub const RELEASE_KEY: &str =
    "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nbGFi\n-----END PGP PUBLIC KEY BLOCK-----\n";

/// Everything that the lab's archives hold.
pub const CATALOGUE: &[Package] = &[
    base("ca-certificates", &["20250419"]),
    base("iproute2", &["6.15.0-1"]),
    base("iptables", &["1.8.11-2"]),
    base("curl", &["8.14.1-2+deb13u2"]),
    base("kmod", &["34.2-2"]),
    base("openssh-server", &["1:10.0p1-7"]),
    base("procps", &["2:4.0.4-9"]),
    base("sudo", &["1.9.16p2-3"]),
    base("systemd", &["257.9-1~deb13u1"]),
    base("util-linux", &["2.41-5"]),
    debian("age", &["1.2.1-1+b5"], &[]),
    debian("chrony", &["4.6.1-3"], &[]),
    debian("conntrack", &["1:1.4.8-2"], &[]),
    debian("containerd", &["1.7.24~ds1-6+deb13u1"], &["runc"]),
    debian("ethtool", &["1:6.14.2-1"], &[]),
    debian("gnupg", &["2.4.7-21"], &[]),
    debian("gpg", &["2.4.7-21"], &[]),
    debian("haproxy", &["3.0.11-1+deb13u3", "3.0.11-1+deb13u4"], &[]),
    debian("iputils-arping", &["3:20240905-3"], &[]),
    debian("keepalived", &["1:2.3.3-1"], &[]),
    debian("nfs-common", &["1:2.8.3-1"], &[]),
    debian("nfs-kernel-server", &["1:2.8.3-1"], &["nfs-common"]),
    debian("open-iscsi", &["2.1.11-1"], &[]),
    debian("prometheus-node-exporter", &["1.9.0-1+b4"], &[]),
    debian("qemu-guest-agent", &["1:10.0.2+ds-2+deb13u1"], &[]),
    debian("restic", &["0.18.0-1"], &[]),
    debian("runc", &["1.1.15+ds1-2+b4"], &[]),
    debian("socat", &["1.8.0.3-1"], &[]),
    debian("xfsprogs", &["6.13.0-2+b1"], &[]),
    debian("etcd-client", &["3.5.16-4"], &[]),
    Package {
        name: "containerd.io",
        versions: &["2.1.5-1~debian.13~trixie", "2.3.1-1~debian.13~trixie"],
        repo: Repo::Docker,
        depends: &[],
        base: false,
    },
    kubernetes(34, "cri-tools", &["1.34.0-1.1"], &[]),
    kubernetes(34, "kubeadm", V34, &["cri-tools"]),
    kubernetes(34, "kubectl", V34, &[]),
    kubernetes(34, "kubelet", V34, &["kubernetes-cni"]),
    kubernetes(34, "kubernetes-cni", &["1.7.1-1.1"], &[]),
    kubernetes(35, "cri-tools", &["1.35.0-1.1"], &[]),
    kubernetes(35, "kubeadm", V35, &["cri-tools"]),
    kubernetes(35, "kubectl", V35, &[]),
    kubernetes(35, "kubelet", V35, &["kubernetes-cni"]),
    kubernetes(35, "kubernetes-cni", &["1.8.0-1.1"], &[]),
    kubernetes(36, "cri-tools", &["1.36.0-1.1"], &[]),
    kubernetes(36, "kubeadm", V36, &["cri-tools"]),
    kubernetes(36, "kubectl", V36, &[]),
    kubernetes(36, "kubelet", V36, &["kubernetes-cni"]),
    kubernetes(36, "kubernetes-cni", &["1.8.0-1.1"], &[]),
];

/// Configuration files that packages bring: package, path, pristine content.
pub const CONFFILES: &[(&str, &str, &str)] = &[
    ("haproxy", "/etc/haproxy/haproxy.cfg", super::haproxy::DEFAULT),
    ("haproxy", "/etc/default/haproxy", "# Defaults file for HAProxy\n"),
    (
        "nfs-kernel-server",
        "/etc/exports",
        "# /etc/exports: the access control list for filesystems which may be exported\n",
    ),
    ("nfs-kernel-server", "/etc/nfs.conf", "[nfsd]\n"),
    (
        "containerd",
        "/etc/containerd/config.toml",
        "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n",
    ),
    ("containerd.io", "/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n"),
    ("kubelet", "/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n"),
    ("chrony", "/etc/chrony/chrony.conf", "pool 2.debian.pool.ntp.org iburst\n"),
    ("prometheus-node-exporter", "/etc/default/prometheus-node-exporter", "ARGS=\"\"\n"),
];

/// The repositories that the machine's sources name, and apt's complaints about them.
pub fn repositories(fs: &Fs) -> (BTreeSet<Repo>, Vec<String>) {
    let mut found = BTreeSet::new();
    let mut errors = Vec::new();
    let mut texts = vec![fs.text("/etc/apt/sources.list")];
    for name in fs.list("/etc/apt/sources.list.d").unwrap_or_default() {
        let path = format!("/etc/apt/sources.list.d/{name}");
        match name.rsplit('.').next() {
            Some("list") => texts.extend(fs.text(&path).lines().map(String::from)),
            Some("sources") => texts.extend(fs.text(&path).split("\n\n").map(String::from)),
            _ => {}
        }
    }
    for text in texts {
        let text: String =
            text.lines().filter(|l| !l.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
        let Some(repo) = repository(&text) else {
            if text.contains("://") {
                errors.push(format!("E: The repository '{}' does not have a Release file.", text.trim()));
            }
            continue;
        };
        let lower = text.to_lowercase();
        let keyring = lower.find("signed-by").map(|at| &text[at + "signed-by".len()..]);
        let keyring =
            keyring.and_then(|k| k.trim_start_matches([':', '=', ' ']).split([' ', ']', '\n', ',']).next());
        let trusted = lower.contains("trusted=yes") || lower.contains("trusted: yes");
        let signed = keyring.is_some_and(|k| fs.read(k).is_ok_and(|content| !content.is_empty()));
        if signed || trusted {
            found.insert(repo);
        } else {
            let origin = repo.origin();
            errors.push(format!("W: GPG error: {origin} InRelease: The following signatures couldn't be verified because the public key is not available"));
            errors.push(format!("E: The repository '{origin} InRelease' is not signed."));
        }
    }
    (found, errors)
}

fn repository(text: &str) -> Option<Repo> {
    if let Some(at) = text.find(":/v1.") {
        let minor: String = text[at + 5..].chars().take_while(char::is_ascii_digit).collect();
        return minor.parse().ok().filter(|m| (34..=36).contains(m)).map(Repo::Kubernetes);
    }
    if text.contains("docker.com/linux/debian") {
        return Some(Repo::Docker);
    }
    text.contains("debian").then_some(Repo::Debian)
}

/// Puts a package's files in place.
pub fn unpack(machine: &mut Machine, name: &str, version: &str) {
    let fs = &mut machine.fs;
    let mut unit = |unit: &str, text: &str| {
        fs.put(&format!("/usr/lib/systemd/system/{unit}"), text, 0o644, "root", "root")
    };
    let service = |exec: &str, kind: &str| {
        format!(
            "[Unit]\nDescription=lab\n\n[Service]\nType={kind}\nExecStart={exec}\n\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
    match name {
        "haproxy" => unit(
            "haproxy.service",
            &service("/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE\nRestart=always", "notify"),
        ),
        "keepalived" => unit("keepalived.service", &service("/usr/sbin/keepalived --dont-fork", "notify")),
        "chrony" => unit("chrony.service", &service("/usr/sbin/chronyd", "forking")),
        "containerd" | "containerd.io" => {
            unit("containerd.service", &service("/usr/bin/containerd", "notify"))
        }
        "kubelet" => unit("kubelet.service", &service("/usr/bin/kubelet", "simple")),
        "qemu-guest-agent" => unit("qemu-guest-agent.service", &service("/usr/sbin/qemu-ga", "simple")),
        "prometheus-node-exporter" => {
            unit(
                "prometheus-node-exporter.service",
                &service("/usr/bin/prometheus-node-exporter $ARGS", "simple"),
            );
        }
        "nfs-kernel-server" => unit("nfs-server.service", &service("/usr/sbin/rpc.nfsd", "oneshot")),
        _ => {}
    }
    for (_, path, text) in CONFFILES.iter().filter(|(package, _, _)| *package == name) {
        if !fs.exists(path) {
            fs.put(path, *text, 0o644, "root", "root");
        }
    }
    let dirs: &[(&str, u32)] = match name {
        "keepalived" => &[("/etc/keepalived", 0o755)],
        "nfs-kernel-server" => &[("/etc/exports.d", 0o755), ("/var/lib/nfs", 0o755)],
        "nfs-common" => &[("/etc/nfs.conf.d", 0o755)],
        "kubelet" => &[("/etc/kubernetes/manifests", 0o755), ("/var/lib/kubelet", 0o750)],
        _ => &[],
    };
    for (dir, mode) in dirs {
        let _ = fs.mkdir_p(dir, *mode);
    }
    if name == "nfs-kernel-server" {
        let _ = fs.symlink("nfs-server.service", "/usr/lib/systemd/system/nfs-kernel-server.service");
    }
    if name == "kubeadm" {
        let drop_in = "[Service]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\n";
        fs.put("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", drop_in, 0o644, "root", "root");
    }
    if name == "kubeadm" {
        machine.kube.kubeadm_version = version.split('-').next().map(String::from);
    }
}

/// Removes a package's files; configuration too when purged.
pub fn erase(fs: &mut Fs, name: &str, purge: bool) {
    let unit = |name: &str| format!("/usr/lib/systemd/system/{name}.service");
    match name {
        "kubeadm" => {
            fs.remove_all("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf");
        }
        "nfs-kernel-server" => {
            fs.remove_all(&unit("nfs-server"));
            fs.remove_all(&unit(name));
        }
        "containerd.io" => {
            fs.remove_all(&unit("containerd"));
        }
        name => {
            fs.remove_all(&unit(name));
        }
    }
    if !purge {
        return;
    }
    match name {
        "haproxy" => {
            fs.remove_all("/etc/haproxy/haproxy.cfg");
            // dpkg removes a directory only when it is empty.
            if fs.list("/etc/haproxy").is_ok_and(|l| l.is_empty()) {
                fs.remove_all("/etc/haproxy");
            }
        }
        "keepalived" if fs.list("/etc/keepalived").is_ok_and(|l| l.is_empty()) => {
            fs.remove_all("/etc/keepalived");
        }
        "nfs-kernel-server" => {
            fs.remove_all("/etc/exports");
        }
        _ => {}
    }
}

/// Compares two Debian versions: epoch, then runs of non-digits and digits in turn; `~` sorts before everything.
pub fn compare(a: &str, b: &str) -> Ordering {
    let split = |v: &str| match v.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0u64), rest.to_string()),
        None => (0, v.to_string()),
    };
    let ((epoch_a, a), (epoch_b, b)) = (split(a), split(b));
    epoch_a.cmp(&epoch_b).then_with(|| runs(&a, &b))
}

fn runs(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let weight = |c: Option<&u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_digit() => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    loop {
        while a.first().is_some_and(|c| !c.is_ascii_digit()) || b.first().is_some_and(|c| !c.is_ascii_digit())
        {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
        let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
        let (na, nb) = (digits(a), digits(b));
        let value =
            |s: &[u8]| s.iter().fold(0u64, |n, c| n.saturating_mul(10).saturating_add(u64::from(c - b'0')));
        let order = value(&a[..na]).cmp(&value(&b[..nb]));
        if order.is_ne() {
            return order;
        }
        (a, b) = (&a[na..], &b[nb..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_dpkg_does() {
        assert!(compare("1:2.3.3-1", "9.0").is_gt());
        assert!(compare("3.0.11-1+deb13u3", "3.0.11-1+deb13u4").is_lt());
        assert!(compare("1.7.24~ds1-6", "1.7.24").is_lt());
        assert!(compare("1.36.10-1.1", "1.36.9-1.1").is_gt());
        assert!(compare("1.36.2-1.1", "1.36.2-1.1").is_eq());
    }
}
