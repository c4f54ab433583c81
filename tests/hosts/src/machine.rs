//! One machine: systemd-nspawn around an overlay of the base.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::random;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::groups::{GROUPS, run};
use crate::must::must;
use crate::{Result, until};

/// A boot takes a second; with all the others at once, on a busy machine, some.
const BOOTING: Duration = Duration::from_secs(90);
/// How much of its console and of nspawn's own words is told of a machine that does not answer, in bytes.
const TOLD: usize = 3000;

/// A machine that runs, or is switched off.
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub address: Ipv4Addr,
    /// Its SSH host key, as a line of known_hosts has it.
    pub host_key: String,
    base: PathBuf,
    root: PathBuf,
    nspawn: Arc<Mutex<Option<u32>>>,
}

/// What nspawn with --keep-unit ends with when the machine reboots: who started it is to start it again
/// (systemd's sources, nspawn.c, RESTART=133).
const REBOOTS: i32 = 133;

fn slot(nspawn: &Mutex<Option<u32>>) -> MutexGuard<'_, Option<u32>> {
    nspawn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Joins the control group given first, then becomes the rest.
const JOIN: &str = r#"echo $$ >"$1/cgroup.procs" && shift && exec "$@""#;

fn boot(name: &str, root: &Path) -> std::io::Result<Child> {
    let log = std::fs::File::create(root.with_file_name("console"))?;
    // With --keep-unit nspawn makes its groups below the one that it runs in: machines that share one take each
    // other's away in the middle of a boot (status=219/CGROUP). A new one for each boot: an old one may not be empty yet.
    let group = Path::new(GROUPS).join(run()).join(format!("{name}-{:08x}", random::<u32>()));
    std::fs::create_dir_all(&group)?;
    Command::new("sh")
        .args(["-c", JOIN, "sh"])
        .arg(&group)
        .arg("systemd-nspawn")
        .args(["--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe", "--network-bridge=br0"])
        .arg(format!("--machine={name}"))
        .arg(format!("--directory={}", root.display()))
        // A unified hierarchy of the machine's own, whatever the machine that tests has.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(std::fs::File::create(root.with_file_name("nspawn"))?)
        .spawn()
}

impl Machine {
    /// Makes the machine below `dir` and switches it on. `authorized` is the key that the account lets in.
    pub(crate) async fn new(
        dir: &Path,
        base: &Path,
        name: &str,
        address: Ipv4Addr,
        authorized: &str,
    ) -> Result<Machine> {
        let own = dir.join(name);
        let root = own.join("root");
        for part in ["upper", "work", "root"] {
            std::fs::create_dir_all(own.join(part))?;
        }
        let key: PrivateKey = Ed25519Keypair::from_seed(&random()).into();
        let machine = Machine {
            name: name.to_owned(),
            address,
            host_key: key.public_key().to_openssh()?,
            base: base.into(),
            root: root.clone(),
            nspawn: Arc::default(),
        };
        machine.mount().await?;
        let put = |path: &str, content: &str, mode: u32| -> Result<()> {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(&root))?;
            std::fs::write(&path, content)?;
            Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?)
        };
        put("etc/hostname", &format!("{name}\n"), 0o644)?;
        put("etc/hosts", &format!("127.0.0.1 localhost\n127.0.1.1 {name}\n"), 0o644)?;
        put("etc/ssh/ssh_host_ed25519_key", &key.to_openssh(LineEnding::LF)?, 0o600)?;
        put("etc/ssh/ssh_host_ed25519_key.pub", &key.public_key().to_openssh()?, 0o644)?;
        put("home/kubeline/.ssh/authorized_keys", &format!("{authorized}\n"), 0o644)?;
        let network =
            format!("[Match]\nName=host0\n[Network]\nAddress={address}/24\nLinkLocalAddressing=no\n");
        put("etc/systemd/network/10-host0.network", &network, 0o644)?;
        machine.power_on().await?;
        Ok(machine)
    }

    fn nspawn(&self) -> Option<u32> {
        *slot(&self.nspawn)
    }

    /// Switches it on and waits until its SSH server answers.
    ///
    /// # Errors
    /// It does not within a minute and a half; what is known of it then.
    pub async fn power_on(&self) -> Result<()> {
        self.press();
        self.answers().await
    }

    /// Switches it on and waits for nothing. A machine that reboots starts again.
    pub fn press(&self) {
        let (name, root, nspawn) = (self.name.clone(), self.root.clone(), self.nspawn.clone());
        let Ok(mut child) = boot(&name, &root) else { return };
        *slot(&nspawn) = child.id();
        tokio::spawn(async move {
            while child.wait().await.is_ok_and(|status| status.code() == Some(REBOOTS)) {
                let Ok(again) = boot(&name, &root) else { break };
                child = again;
                *slot(&nspawn) = child.id();
            }
            *slot(&nspawn) = None;
        });
    }

    /// Waits until its SSH server lets people in: it answers a little before the boot is done with (pam_nologin).
    ///
    /// # Errors
    /// It does not within a minute and a half; what is known of it then.
    pub async fn answers(&self) -> Result<()> {
        let what = format!("{} answers", self.name);
        let answered = until(&what, BOOTING, async || {
            self.greets().await
                && self.run(&["test", "!", "-e", "/run/nologin"]).await.is_ok_and(|r| r.status.success())
        });
        match answered.await {
            Ok(()) => Ok(()),
            Err(e) => Err(format!("{e}; {}", self.why_not().await).into()),
        }
    }

    /// What can be known of a machine that does not answer: whether it runs, what it works at, its last words.
    async fn why_not(&self) -> String {
        let Some(nspawn) = self.nspawn() else {
            return format!("it ended. nspawn: {}; console: {}", self.tail("nspawn"), self.tail("console"));
        };
        let mut told = format!("nspawn is {nspawn}, its PID 1 {:?}", self.leader());
        for argv in [
            &["systemctl", "list-jobs"][..],
            &["systemctl", "status", "--failed", "--no-pager", "--lines=20"],
            &["ip", "address"],
        ] {
            let asked = tokio::time::timeout(Duration::from_secs(5), self.run(argv)).await;
            let said = asked.map_or_else(
                |_| "no answer in 5 s".to_owned(),
                |ran| match ran {
                    Ok(ran) => String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned(),
                    Err(e) => e.to_string(),
                },
            );
            told.push_str(&format!("\n$ {}\n{said}", argv.join(" ")));
        }
        format!("{told}\nnspawn: {}\nconsole: {}", self.tail("nspawn"), self.tail("console"))
    }

    fn tail(&self, log: &str) -> String {
        let whole = std::fs::read(self.root.with_file_name(log)).unwrap_or_default();
        String::from_utf8_lossy(whole.get(whole.len().saturating_sub(TOLD)..).unwrap_or_default())
            .into_owned()
    }

    async fn greets(&self) -> bool {
        let banner = async {
            let mut stream = TcpStream::connect((self.address, 22)).await.ok()?;
            let mut said = [0; 4];
            stream.read_exact(&mut said).await.ok()?;
            (&said == b"SSH-").then_some(())
        };
        matches!(tokio::time::timeout(Duration::from_millis(500), banner).await, Ok(Some(())))
    }

    /// The process that is PID 1 in the machine; it changes with each boot.
    fn leader(&self) -> Option<u32> {
        let nspawn = self.nspawn()?;
        let children = std::fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Takes the power away: nothing in the machine can do anything any more.
    ///
    /// # Errors
    /// It was off, or does not end.
    pub async fn power_off(&self) -> Result<()> {
        let leader = self.leader().ok_or_else(|| format!("{} is off", self.name))?;
        must("kill", &["-KILL", &leader.to_string()]).await?;
        until(&format!("{} is off", self.name), Duration::from_secs(10), async || self.nspawn().is_none())
            .await
    }

    /// Runs a command in the machine as root, past SSH and the tools.
    ///
    /// # Errors
    /// The machine is off.
    pub async fn run(&self, argv: &[&str]) -> Result<Output> {
        let leader = self.leader().ok_or_else(|| format!("{} is off", self.name))?;
        let mut inside = Command::new("nsenter");
        inside.args(["--all", "--target", &leader.to_string(), "--"]).args(argv).stdin(Stdio::null());
        Ok(inside.output().await?)
    }

    /// The same for a command that has to succeed: what it printed.
    ///
    /// # Errors
    /// What it said when it failed.
    pub async fn ok(&self, argv: &[&str]) -> Result<String> {
        let said = self.run(argv).await?;
        if said.status.success() {
            return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
        }
        let told = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        Err(format!("{}: {}: {} {told}", self.name, argv.join(" "), said.status).into())
    }

    /// Whether one of its interfaces has the address.
    pub async fn holds(&self, address: Ipv4Addr) -> bool {
        let shown = self.run(&["ip", "-4", "-o", "address", "show", "to", &address.to_string()]).await;
        shown.is_ok_and(|said| !said.stdout.is_empty())
    }

    /// The state that keepalived told last: `MASTER`, `BACKUP` or `FAULT`; `None` when it does not run.
    pub async fn vrrp_state(&self) -> Option<String> {
        let active = self.run(&["systemctl", "is-active", "--quiet", "keepalived"]).await.ok()?;
        // The last line of that kind, however much it wrote since.
        let last = ["-g", "Entering [A-Z]+ STATE", "-r", "-n", "1"];
        let log = [&["journalctl", "-b", "-u", "keepalived", "-o", "cat", "--no-pager"], &last[..]].concat();
        let log = self.run(&log).await.ok()?;
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        let last = log.lines().rev().find_map(|l| l.split_once("Entering ")?.1.split_once(" STATE"));
        active.status.success().then(|| last.map(|(state, _)| state.to_owned()))?
    }

    /// Keeps what the machine is now, for [`Machine::back`]. It is switched off for it, and on again.
    ///
    /// # Errors
    /// It does not start again.
    pub async fn keep(&self) -> Result<()> {
        self.ok(&["sync"]).await?;
        self.power_off().await?;
        must("cp", &["-a", &self.layer("upper"), &self.layer("kept")]).await?;
        self.power_on().await
    }

    /// Makes the machine what it was when it was kept, and switches it on.
    ///
    /// # Errors
    /// It was never kept, or does not start.
    pub async fn back(&self) -> Result<()> {
        self.power_off().await?;
        must("umount", &[&self.root.to_string_lossy()]).await?;
        for part in ["upper", "work"] {
            must("rm", &["-rf", &self.layer(part)]).await?;
        }
        must("cp", &["-a", &self.layer("kept"), &self.layer("upper")]).await?;
        must("mkdir", &[&self.layer("work")]).await?;
        self.mount().await?;
        self.power_on().await
    }

    fn layer(&self, part: &str) -> String {
        self.root.with_file_name(part).to_string_lossy().into_owned()
    }

    async fn mount(&self) -> Result<()> {
        let (upper, work) = (self.layer("upper"), self.layer("work"));
        let layers = format!("lowerdir={},upperdir={upper},workdir={work}", self.base.display());
        must("mount", &["-t", "overlay", "overlay", "-o", &layers, &self.root.to_string_lossy()]).await
    }

    /// The path of a file of the machine on the test's own side.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The name of its link's end at the bridge.
    fn link(&self) -> String {
        format!("vb-{}", self.name)
    }

    /// Pulls the cable: the machine's interface loses its carrier.
    ///
    /// # Errors
    /// There is no such link.
    pub async fn pull_cable(&self) -> Result<()> {
        must("ip", &["link", "set", &self.link(), "down"]).await
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// There is no such link.
    pub async fn plug_cable(&self) -> Result<()> {
        must("ip", &["link", "set", &self.link(), "up"]).await
    }

    /// A switch that drops everything while the link stays up: the machine cannot tell.
    ///
    /// # Errors
    /// There is no such link.
    pub async fn cut_off(&self) -> Result<()> {
        must("ip", &["link", "set", &self.link(), "nomaster"]).await
    }

    /// The switch works again.
    ///
    /// # Errors
    /// There is no such link.
    pub async fn join_again(&self) -> Result<()> {
        must("ip", &["link", "set", &self.link(), "master", "br0"]).await
    }
}
