//! What one machine is made of: disks, packages, services, kernel settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use russh::keys::{Algorithm, PrivateKey};
use tokio_util::sync::CancellationToken;

use super::fs::Fs;
use super::haproxy::Running;
use super::kubeadm::NodeState;
use super::nfs::Export;
use super::programs::apt::Packages;
use super::units::Services;
use super::vrrp;
use crate::world::Boot;

/// The interface of `net0`, as Proxmox's cloud-init drive names it.
pub const INTERFACE: &str = "eth0";
/// The kernel that `uname -r` tells.
pub const KERNEL: &str = "6.12.57+deb13-cloud-amd64";

/// A mounted file system.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    /// A device, or `SERVER:/path` for NFS.
    pub source: String,
    /// Where it is mounted.
    pub target: String,
    /// Such as `ext4` or `nfs4`.
    pub fstype: String,
    /// Mount options.
    pub options: String,
}

/// A file system on a disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    /// Such as `ext4`.
    pub fstype: String,
    /// Its label.
    pub label: String,
    /// Its UUID.
    pub uuid: String,
}

/// A machine, running or off. Disks survive a power cycle; the rest begins anew with each boot.
pub struct Machine {
    /// How it was last switched on.
    pub boot: Boot,
    /// Ends when the machine is switched off; `None` while it is off.
    pub power: Option<CancellationToken>,
    /// True once the boot is over and services run.
    pub up: bool,
    /// The file system.
    pub fs: Fs,
    /// Installed packages and indexes.
    pub packages: Packages,
    /// Units and their states.
    pub services: Services,
    /// Kernel settings of the running system.
    pub sysctl: BTreeMap<String, String>,
    /// Loaded kernel modules.
    pub modules: BTreeSet<String>,
    /// True while swap is in use.
    pub swap: bool,
    /// Mounted file systems besides `/`.
    pub mounts: Vec<Mount>,
    /// File systems by device.
    pub formats: BTreeMap<String, Format>,
    /// The NFS exports in force.
    pub exports: Vec<Export>,
    /// The running HAProxy.
    pub haproxy: Option<Arc<Running>>,
    /// The running keepalived's configuration.
    pub keepalived: Option<vrrp::Config>,
    /// What kubeadm, the kubelet and etcd keep outside files.
    pub kube: NodeState,
    /// Who holds the host lock.
    pub lock: Option<String>,
    /// Log lines by unit.
    pub log: BTreeMap<String, Vec<String>>,
    /// The SSH server's key.
    pub host_key: PrivateKey,
}

impl Machine {
    /// A machine with blank disks, as a Debian 13 cloud image and cloud-init leave it.
    pub fn fresh(boot: &Boot) -> Machine {
        let host_key = given_key(boot).unwrap_or_else(random_key);
        debug_assert!(matches!(
            host_key.algorithm(),
            Algorithm::Ed25519 | Algorithm::Rsa { .. } | Algorithm::Ecdsa { .. }
        ));
        Machine {
            fs: debian(boot, &host_key),
            boot: boot.clone(),
            power: None,
            up: false,
            packages: Packages::debian(),
            services: Services::default(),
            sysctl: BTreeMap::new(),
            modules: BTreeSet::new(),
            swap: false,
            mounts: Vec::new(),
            formats: BTreeMap::new(),
            exports: Vec::new(),
            haproxy: None,
            keepalived: None,
            kube: NodeState::default(),
            lock: None,
            log: BTreeMap::new(),
            host_key,
        }
    }

    /// The host's public key in OpenSSH form, without a comment.
    pub fn public_key(&self) -> String {
        public_key(&self.host_key)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.boot.name
    }

    /// Appends a line to a unit's log.
    pub fn log(&mut self, unit: &str, line: impl Into<String>) {
        self.log.entry(unit.into()).or_default().push(line.into());
    }

    /// What cloud-init does with its drive at each boot. `before` is how the machine was last switched on.
    ///
    /// Switched off by its file, it leaves all as an earlier boot wrote it, the address too. A machine that looks
    /// for its drive and finds none anew has no address: images fall back to DHCP, and this network has none. A
    /// new instance id makes new host keys, unless the drive brings one.
    pub fn cloud_init(&mut self, before: &Boot) {
        if self.fs.exists(DISABLED) || self.boot.instance.is_empty() {
            self.boot.user.clone_from(&before.user);
            self.boot.authorized_keys.clone_from(&before.authorized_keys);
        }
        if self.fs.exists(DISABLED) {
            self.boot.address = before.address;
            self.boot.instance.clone_from(&before.instance);
            return;
        }
        if !self.boot.instance.is_empty() && self.boot.instance != before.instance {
            self.host_key = given_key(&self.boot).unwrap_or_else(random_key);
            self.write_host_key();
        }
        let (user, name) = (self.boot.user.clone(), self.boot.name.clone());
        if !user.is_empty() {
            let keys: String = self.boot.authorized_keys.iter().map(|k| format!("{}\n", k.trim())).collect();
            self.fs.put(&format!("{}/.ssh/authorized_keys", home(&user)), keys, 0o600, &user, &user);
        }
        if !name.is_empty() {
            self.fs.put("/etc/hostname", format!("{name}\n"), 0o644, "root", "root");
        }
    }

    /// The file by which cloud-init tells that it is done; only a boot in which it ran has it.
    pub fn cloud_init_done(&mut self) {
        if self.fs.exists(DISABLED) || self.boot.instance.is_empty() {
            return;
        }
        let text = "{\n \"v1\": {\n  \"datasource\": \"DataSourceNoCloud [seed=/dev/sr0]\",\n  \"errors\": []\n }\n}\n";
        self.fs.put("/run/cloud-init/result.json", text, 0o644, "root", "root");
    }

    fn write_host_key(&mut self) {
        host_key_files(&mut self.fs, &self.host_key, &self.boot.name);
    }

    /// True when the guest agent runs in this machine.
    pub fn agent_runs(&self) -> bool {
        self.boot.agent
    }

    /// What the kernel does at boot, before services start.
    pub fn boot_up(&mut self) {
        self.fs.remove_all("/run");
        for dir in ["/run", "/run/systemd/system", "/run/lock"] {
            let _ = self.fs.mkdir_p(dir, 0o755);
        }
        let _ = self.fs.change("/run/lock", Some(0o1777), None, None);
        self.lock = None;
        self.sysctl = DEFAULT_SYSCTL.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        self.modules = ["virtio_net", "virtio_scsi", "ext4"].map(String::from).into();
        for name in self.lines_of("/etc/modules-load.d", ".conf") {
            self.load_module(&name);
        }
        self.read_sysctl_files();
        self.mounts.clear();
        self.exports.clear();
        self.swap = false;
        for line in self.fs.text("/etc/fstab").lines().filter(|l| !l.trim_start().starts_with('#')) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [source, target, fstype, rest @ ..] = fields.as_slice() else { continue };
            match *fstype {
                "swap" => self.swap = true,
                _ if *target == "/" || *fstype == "vfat" => {}
                _ => {
                    let options = rest.first().copied().unwrap_or("defaults").to_string();
                    let mount = Mount {
                        source: self.device(source),
                        target: (*target).into(),
                        fstype: (*fstype).into(),
                        options,
                    };
                    self.mounts.push(mount);
                }
            }
        }
    }

    /// The device that `UUID=`, `LABEL=` or a path names.
    pub fn device(&self, source: &str) -> String {
        let by = |test: &dyn Fn(&Format) -> bool| {
            self.formats
                .iter()
                .find(|(_, f)| test(f))
                .map_or_else(|| source.to_string(), |(dev, _)| dev.clone())
        };
        match (source.strip_prefix("UUID="), source.strip_prefix("LABEL=")) {
            (Some(uuid), _) => by(&|f| f.uuid == uuid),
            (_, Some(label)) => by(&|f| f.label == label),
            _ => source.to_string(),
        }
    }

    /// Loads a kernel module; false when the kernel has none of that name.
    pub fn load_module(&mut self, name: &str) -> bool {
        if !MODULES.contains(&name) {
            return false;
        }
        self.modules.insert(name.into());
        if name == "br_netfilter" {
            for key in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"] {
                self.sysctl.entry(key.into()).or_insert_with(|| "1".into());
            }
        }
        true
    }

    /// Applies `/etc/sysctl.d/*.conf` and `/etc/sysctl.conf`, and tells what was set and what does not exist.
    pub fn read_sysctl_files(&mut self) -> Vec<Result<(String, String), String>> {
        let mut told = Vec::new();
        for line in self
            .lines_of("/etc/sysctl.d", ".conf")
            .into_iter()
            .chain(lines(&self.fs.text("/etc/sysctl.conf")))
        {
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) =
                (key.trim().trim_start_matches('-').replace('/', "."), value.trim().to_string());
            match self.sysctl.get_mut(&key) {
                Some(slot) => {
                    slot.clone_from(&value);
                    told.push(Ok((key, value)));
                }
                None => told.push(Err(key)),
            }
        }
        told
    }

    fn lines_of(&self, dir: &str, suffix: &str) -> Vec<String> {
        let names = self.fs.list(dir).unwrap_or_default();
        let files = names.iter().filter(|n| n.ends_with(suffix) && !n.starts_with('.'));
        files.flat_map(|n| lines(&self.fs.text(&format!("{dir}/{n}")))).collect()
    }
}

/// The lines of a configuration file without blanks and comments.
pub fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with(['#', ';']))
        .map(String::from)
        .collect()
}

const DEFAULT_SYSCTL: &[(&str, &str)] = &[
    ("fs.inotify.max_user_instances", "128"),
    ("fs.inotify.max_user_watches", "65536"),
    ("kernel.keys.root_maxbytes", "25000000"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.panic", "0"),
    ("kernel.panic_on_oops", "0"),
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.conf.all.arp_announce", "0"),
    ("net.ipv4.conf.all.arp_ignore", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.ip_local_port_range", "32768\t60999"),
    ("net.ipv4.ip_nonlocal_bind", "0"),
    ("net.ipv4.tcp_fin_timeout", "60"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.ipv6.conf.default.forwarding", "0"),
    ("net.ipv6.ip_nonlocal_bind", "0"),
    ("net.netfilter.nf_conntrack_max", "262144"),
    ("vm.max_map_count", "65530"),
    ("vm.overcommit_memory", "0"),
    ("vm.panic_on_oom", "0"),
    ("vm.swappiness", "60"),
];

const MODULES: &[&str] = &[
    "br_netfilter",
    "overlay",
    "nf_conntrack",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_sh",
    "ip_vs_wrr",
    "nfs",
    "nfsd",
    "nfsv4",
    "vxlan",
    "xt_set",
    "ip_set",
    "ipip",
    "wireguard",
    "dummy",
];

/// The file that switches cloud-init off (cloud-init's documentation, "How to disable cloud-init").
const DISABLED: &str = "/etc/cloud/cloud-init.disabled";

/// The home of an account.
pub(super) fn home(user: &str) -> String {
    if user == "root" { "/root".to_owned() } else { format!("/home/{user}") }
}

fn given_key(boot: &Boot) -> Option<PrivateKey> {
    boot.host_keys.iter().find_map(|k| PrivateKey::from_openssh(k).ok())
}

fn random_key() -> PrivateKey {
    let seed: [u8; 32] = rand::random();
    russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed).into()
}

fn host_key_files(fs: &mut Fs, key: &PrivateKey, name: &str) {
    let public = format!("{} root@{name}\n", public_key(key));
    fs.put("/etc/ssh/ssh_host_ed25519_key.pub", public, 0o644, "root", "root");
    let private = key.to_openssh(russh::keys::ssh_key::LineEnding::LF).map(|k| k.to_string());
    fs.put("/etc/ssh/ssh_host_ed25519_key", private.unwrap_or_default(), 0o600, "root", "root");
}

fn public_key(key: &PrivateKey) -> String {
    let mut public = key.public_key().clone();
    public.set_comment("");
    public.to_openssh().unwrap_or_default().trim().to_string()
}

fn debian(boot: &Boot, host_key: &PrivateKey) -> Fs {
    let mut fs = Fs::new();
    for dir in [
        "/boot",
        "/dev",
        "/etc/apt/apt.conf.d",
        "/etc/apt/keyrings",
        "/etc/apt/preferences.d",
        "/etc/apt/sources.list.d",
        "/etc/cloud",
        "/etc/default",
        "/etc/modules-load.d",
        "/etc/ssh",
        "/etc/sysctl.d",
        "/etc/systemd/system/multi-user.target.wants",
        "/etc/systemd/system/timers.target.wants",
        "/home",
        "/media",
        "/mnt",
        "/opt",
        "/proc/sys",
        "/run/lock",
        "/srv",
        "/sys",
        "/tmp",
        "/usr/bin",
        "/usr/lib/systemd/system",
        "/usr/local/bin",
        "/usr/local/sbin",
        "/usr/sbin",
        "/usr/share/keyrings",
        "/var/backups",
        "/var/cache/apt/archives",
        "/var/lib/apt/lists",
        "/var/lib/dpkg",
        "/var/log",
        "/var/tmp",
    ] {
        let _ = fs.mkdir_p(dir, 0o755);
    }
    let _ = fs.mkdir_p("/root", 0o700);
    for dir in ["/tmp", "/var/tmp", "/run/lock"] {
        let _ = fs.change(dir, Some(0o1777), None, None);
    }
    for link in ["bin", "sbin", "lib"] {
        let _ = fs.symlink(&format!("usr/{link}"), &format!("/{link}"));
    }
    let machine_id: String = (0..16).map(|_| format!("{:02x}", rand::random::<u8>())).collect();
    let put = |fs: &mut Fs, path: &str, text: String| fs.put(path, text, 0o644, "root", "root");
    put(&mut fs, "/etc/machine-id", format!("{machine_id}\n"));
    put(&mut fs, "/etc/hostname", format!("{}\n", boot.name));
    put(
        &mut fs,
        "/etc/hosts",
        format!("127.0.1.1 {0}\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n", boot.name),
    );
    put(&mut fs, "/etc/os-release", OS_RELEASE.into());
    put(&mut fs, "/etc/debian_version", "13.2\n".into());
    put(&mut fs, "/etc/fstab", "PARTUUID=00000000-01 / ext4 rw,discard,errors=remount-ro 0 1\n".into());
    put(&mut fs, "/etc/apt/sources.list.d/debian.sources", DEBIAN_SOURCES.into());
    fs.put("/usr/share/keyrings/debian-archive-keyring.gpg", "debian archive keys", 0o644, "root", "root");
    host_key_files(&mut fs, host_key, &boot.name);
    fs.put(
        "/proc/meminfo",
        format!("MemTotal:       {} kB\n", boot.memory_mib * 1024),
        0o444,
        "root",
        "root",
    );
    fs.put("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n", 0o444, "root", "root");
    let product = format!("{}-0000-4000-8000-{:012x}", &machine_id[..8], boot.vmid);
    let _ = fs.mkdir_p("/sys/class/dmi/id", 0o755);
    fs.put("/sys/class/dmi/id/product_uuid", format!("{product}\n"), 0o400, "root", "root");
    let _ = fs.mkdir_p("/sys/fs/cgroup", 0o755);
    fs.put(
        "/sys/fs/cgroup/cgroup.controllers",
        "cpuset cpu io memory hugetlb pids rdma misc\n",
        0o444,
        "root",
        "root",
    );
    let home = home(&boot.user);
    if !boot.user.is_empty() {
        let _ = fs.mkdir_p(&format!("{home}/.ssh"), 0o700);
        for path in [home.clone(), format!("{home}/.ssh")] {
            let _ = fs.change(&path, Some(0o700), Some(&boot.user), Some(&boot.user));
        }
    }
    fs
}

const OS_RELEASE: &str = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\n\
VERSION=\"13 (trixie)\"\nVERSION_CODENAME=trixie\nDEBIAN_VERSION_FULL=13.2\nID=debian\nHOME_URL=\"https://www.debian.org/\"\n";

const DEBIAN_SOURCES: &str = "Types: deb\nURIs: https://deb.debian.org/debian\nSuites: trixie trixie-updates trixie-backports\n\
Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(machine: &mut Machine, boot: Boot) {
        let before = std::mem::replace(&mut machine.boot, boot);
        machine.cloud_init(&before);
    }

    #[test]
    fn without_its_seed_a_machine_keeps_its_address_only_when_cloud_init_is_off() {
        let seeded = Boot {
            address: Some([10, 0, 0, 1].into()),
            user: "kubeline".into(),
            instance: "one".into(),
            ..Boot::default()
        };
        for off in [true, false] {
            let mut machine = Machine::fresh(&seeded);
            booted(&mut machine, seeded.clone());
            let key = machine.public_key();
            if off {
                machine.fs.put(DISABLED, "", 0o644, "root", "root");
            }
            booted(&mut machine, Boot::default());
            assert_eq!(machine.boot.address, off.then(|| [10, 0, 0, 1].into()));
            assert_eq!((machine.boot.user.as_str(), machine.public_key()), ("kubeline", key));
        }
    }

    #[test]
    fn a_new_instance_has_new_host_keys() {
        let boot = Boot { instance: "one".into(), ..Boot::default() };
        let mut machine = Machine::fresh(&boot);
        let key = machine.public_key();
        booted(&mut machine, boot.clone());
        assert_eq!(machine.public_key(), key);
        booted(&mut machine, Boot { instance: "two".into(), ..boot });
        assert_ne!(machine.public_key(), key);
        assert!(machine.fs.text("/etc/ssh/ssh_host_ed25519_key.pub").contains(&machine.public_key()));
    }
}
