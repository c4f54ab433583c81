//! A test in namespaces of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Result, Site, groups, image};

/// Set to 1 where these tests are meant to run: they want root and minutes.
pub const OPT_IN: &str = "KUBELINE_HOSTS";
/// Tells the test that it runs inside: the base of the machines.
const INSIDE: &str = "KUBELINE_HOSTS_INSIDE";
/// The folder that the site is put over.
const FOLDER: &str = "KUBELINE_HOSTS_FOLDER";
/// How long one test may take, in seconds.
const PATIENCE: u64 = 280;
/// What has to be installed: the program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("timeout", "coreutils"),
    ("ip", "iproute2"),
];

/// Measurements are of little worth while another test boots machines beside.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Why these tests cannot run here; `None` when they can.
pub fn missing() -> Option<String> {
    if std::env::var(OPT_IN).as_deref() != Ok("1") {
        return Some(format!("real machines are made only where {OPT_IN}=1 asks for it: scripts/test hosts"));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("machines and networks need root: sudo scripts/test hosts".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let absent = PROGRAMS.iter().find(|(name, _)| !dirs.iter().any(|d| d.join(name).exists()));
    if let Some((name, package)) = absent {
        return Some(format!("{name} is not installed (apt-get install {package})"));
    }
    let allowed = Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]).output();
    match allowed {
        Ok(said) if said.status.success() => None,
        Ok(said) => Some(format!("no namespaces here: {}", String::from_utf8_lossy(&said.stderr).trim())),
        Err(e) => Some(format!("no namespaces here: {e}")),
    }
}

/// Runs the test called `name` (as libtest knows it) in a network, mounts and processes of its own, with `balancers`
/// machines for load balancers.
///
/// Outside it starts this very test again, inside. What is left at the end, the kernel removes.
///
/// # Panics
/// When the body does, or takes too long.
pub fn alone(name: &str, balancers: u8, body: impl AsyncFnOnce(Site)) {
    alone_for(PATIENCE, name, balancers, body);
}

/// The same with a bound of its own, in seconds.
///
/// # Panics
/// When the body does, or takes too long.
#[allow(clippy::panic, clippy::print_stdout, reason = "it is a test's frame")]
pub fn alone_for(seconds: u64, name: &str, balancers: u8, body: impl AsyncFnOnce(Site)) {
    if let Some(base) = std::env::var_os(INSIDE) {
        let folder = std::env::var_os(FOLDER).unwrap_or_default();
        if let Err(e) = inside(Path::new(&base), Path::new(&folder), balancers, body) {
            panic!("{name}: {e}");
        }
        return;
    }
    if let Some(why) = missing() {
        println!("skipped: {why}");
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(e) = outside(seconds, name) {
        panic!("{name}: {e}");
    }
}

fn outside(seconds: u64, name: &str) -> Result<()> {
    let base = image::ensure()?;
    let me = std::env::current_exe()?;
    // What is put over it inside is not seen here: it stays empty.
    let folder = tempfile::tempdir()?;
    let group = format!("kubeline-hosts-{:08x}", rand::random::<u32>());
    let status = Command::new("timeout")
        .args(["--kill-after=5", &seconds.to_string(), "unshare"])
        .args([
            "--net",
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(me)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &base)
        .env(FOLDER, folder.path())
        .env(groups::RUN, &group)
        // The futures of whole runs of the tools are large without optimisation.
        .env("RUST_MIN_STACK", (64 << 20).to_string())
        .status()?;
    groups::remove(&group);
    if status.success() { Ok(()) } else { Err(format!("it ended with {status} inside").into()) }
}

fn inside(base: &Path, folder: &Path, balancers: u8, body: impl AsyncFnOnce(Site)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        groups::mount().await?;
        let site = Site::new(base, folder, balancers).await?;
        body(site).await;
        Ok::<(), crate::Error>(())
    })?;
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}
