//! A lab and the real binaries against it, as a person would run them.
#![allow(clippy::unwrap_used, dead_code)] // A test says what it expects; not every test uses all of this.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::{Config, Lab};
use serde_json::Value;

/// The eight tools in the order of the shell pipe.
pub const PIPE: [&str; 8] = [
    "pve-vm",
    "lb-render",
    "vip-keepalive",
    "kadm-bootstrap",
    "cni-install",
    "nfs-provision",
    "ingress-install",
    "obs-install",
];

/// Where cargo put the binaries beside this test.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_path_buf()
}

/// A lab in a directory of its own, which is the tools' working directory.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub lab: Lab,
}

/// What a run said.
pub struct Said {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Site {
    pub async fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(Config::quick(&dir.path().join("lab"))).await.unwrap();
        Site { dir, lab }
    }

    pub fn document(&self) -> PathBuf {
        self.dir.path().join("lab/cluster.json")
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out/demo").join(name)
    }

    pub fn result(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.out("cluster.json")).unwrap()).unwrap()
    }

    /// A program in the site's directory, with a bare environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(self.dir.path()).env_clear();
        for keep in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(keep) {
                command.env(keep, value);
            }
        }
        command.env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The chain, as the Justfile calls it.
    pub fn chain_command(&self, verb: &str, flags: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/chain");
        let mut command = self.command("bash");
        command.arg(script).arg(verb).arg(binaries()).arg(self.document()).args(flags);
        // A group of its own, so that a test can kill all of it.
        command.process_group(0);
        command
    }

    pub async fn chain(&self, verb: &str, flags: &[&str]) -> Said {
        let mut command = self.chain_command(verb, flags);
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
    }

    /// Runs the chain and kills it when `enough` says so; false when it ended before.
    pub async fn killed(&self, verb: &str, enough: impl Fn(&Site) -> bool) -> bool {
        let mut command = self.chain_command(verb, &[]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        loop {
            if enough(self) {
                // The whole group dies at once, as a machine that loses power.
                let group = format!("-{}", child.id());
                Command::new("kill").args(["-KILL", "--", &group]).status().unwrap();
                child.wait().unwrap();
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// How many steps were done so far, by the events.
    pub fn steps_done(&self) -> usize {
        let events = std::fs::read_to_string(self.out("events.ndjson")).unwrap_or_default();
        events.lines().filter(|line| line.contains("\"event\":\"done\"")).count()
    }

    /// The world as it counts for "the same": guests, the holder, nodes, workloads; without generated ids.
    pub fn picture(&self) -> String {
        use lab::world::Kubernetes as _;
        let mut lines = Vec::new();
        for guest in self.lab.pve.view() {
            lines.push(format!(
                "guest {} {} {} running={}",
                guest.vmid, guest.name, guest.node, guest.running
            ));
        }
        let holders = self.lab.hosts.holders(self.lab.world.net.host(10));
        lines.push(format!("holders {}", holders.len()));
        for cluster in self.lab.kube.clusters() {
            for (version, kind) in [
                ("v1", "Namespace"),
                ("v1", "Node"),
                ("apps/v1", "Deployment"),
                ("apps/v1", "DaemonSet"),
                ("apps/v1", "StatefulSet"),
                ("v1", "Service"),
                ("v1", "ConfigMap"),
                ("v1", "PersistentVolumeClaim"),
                ("storage.k8s.io/v1", "StorageClass"),
            ] {
                let mut names: Vec<String> = self
                    .lab
                    .kube
                    .list(&cluster, version, kind)
                    .iter()
                    .map(|o| format!("{}/{}", o["metadata"]["namespace"], o["metadata"]["name"]))
                    .collect();
                names.sort();
                lines.push(format!("{kind} {}", names.join(" ")));
            }
        }
        lines.join("\n")
    }

    /// Fails on everything that the lab did not know.
    pub fn assert_known(&self) {
        let unknown = self.lab.world.journal.unknown();
        assert!(unknown.is_empty(), "the lab did not know: {unknown:#?}");
    }
}
