//! A lab, and the tool run in it as a program would be.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use lab::{Config, Lab, Window};
use pve_vm::PveVmTool;
use serde_json::{Value, json};
use stage::{Edges, Exit};

/// A buffer that a run writes to.
#[derive(Clone, Default)]
pub struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a run left.
#[derive(Debug)]
pub struct Run {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
    pub crashed: bool,
}

impl Run {
    /// Its document, after a run that went as expected.
    pub fn doc(&self, exit: Exit) -> Value {
        assert_eq!(self.exit, exit, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    pub fn machines(&self, exit: Exit) -> Vec<Value> {
        self.doc(exit)["status"]["pve-vm"]["machines"].as_array().unwrap().clone()
    }
}

/// A lab and a directory for it.
pub struct Site {
    pub lab: Lab,
    pub dir: tempfile::TempDir,
}

pub async fn site() -> Site {
    site_of(|_| ()).await
}

/// A lab with another setting.
pub async fn site_of(set: impl FnOnce(&mut Config)) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::quick(dir.path());
    set(&mut config);
    let lab = Lab::start(config).await.unwrap();
    Site { lab, dir }
}

impl Site {
    /// The twin document with the sections that pve-vm reads.
    pub fn whole(&self) -> Value {
        self.lab.document()
    }

    /// The same with four machines of three roles.
    pub fn small(&self) -> Value {
        let mut doc = self.whole();
        let pools = doc["spec"]["pools"].as_array_mut().unwrap();
        pools.retain(|p| ["lb", "prod", "nfs"].contains(&p["name"].as_str().unwrap()));
        pools[0]["count"] = json!(2);
        pools[1]["count"] = json!(1);
        for gone in ["kubernetes", "cni", "storage", "ingress", "observability", "backup", "loadBalancer"] {
            doc["spec"].as_object_mut().unwrap().remove(gone);
        }
        doc
    }

    pub async fn run(&self, args: &[&str], doc: &Value) -> Run {
        self.run_until(args, &doc.to_string(), None).await
    }

    /// Runs the tool, and kills it after so many steps.
    pub async fn run_until(&self, args: &[&str], doc: &str, crash_after: Option<usize>) -> Run {
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let input = std::io::Cursor::new(doc.to_owned().into_bytes());
        let mut edges = Edges::plain(input, stdout.clone(), stderr.clone(), self.dir.path().to_owned());
        edges.crash_after = crash_after;
        let crashed = edges.crashed.clone();
        let args = std::iter::once("pve-vm").chain(args.iter().copied()).map(OsString::from).collect();
        let exit = Box::pin(stage::run::<PveVmTool>(args, edges)).await;
        Run { exit, stdout: stdout.text(), stderr: stderr.text(), crashed: crashed.load(Ordering::SeqCst) }
    }

    /// Changing requests to Proxmox since a place in the journal.
    pub fn changes(&self, since: usize) -> Vec<String> {
        let entries = self.lab.world.journal.changing_since(since);
        entries.into_iter().filter(|e| e.window == Window::Pve).map(|e| e.request).collect()
    }

    pub fn nothing_unknown(&self) {
        let unknown = self.lab.world.journal.unknown();
        assert!(unknown.is_empty(), "{unknown:#?}");
    }

    /// Guests and volumes without what is made up at random: keys, MAC addresses, identities.
    pub fn world(&self) -> Value {
        let one = |g: lab::pve::GuestView| {
            let config: BTreeMap<String, String> = g
                .config
                .into_iter()
                .filter(|(k, _)| !["vmgenid", "smbios1", "meta"].contains(&k.as_str()))
                .map(|(k, v)| match k.as_str() {
                    // A machine's begins with its MAC address, a container's names it.
                    "net0" if v.contains("hwaddr=") => {
                        let parts = v.split(',').filter(|p| !p.starts_with("hwaddr="));
                        (k, parts.collect::<Vec<_>>().join(","))
                    }
                    "net0" => (k, v.split_once(',').map(|(_, rest)| rest.to_owned()).unwrap_or(v)),
                    "description" => (k, v.split("\"hostKeys\"").next().unwrap_or_default().to_owned()),
                    _ => (k, v),
                })
                .collect();
            json!({ "vmid": g.vmid, "node": g.node, "running": g.running, "pool": g.pool, "config": config })
        };
        let guests: Vec<Value> = self.lab.pve.view().into_iter().map(one).collect();
        let volumes: BTreeMap<String, Vec<String>> =
            self.lab.pve.nodes().into_iter().map(|n| (n.clone(), self.lab.pve.volumes(&n))).collect();
        json!({ "guests": guests, "volumes": volumes })
    }

    /// Our machines that are there.
    pub fn guests(&self) -> Vec<lab::pve::GuestView> {
        self.lab.pve.view().into_iter().filter(|g| g.tags.iter().any(|t| t == "pve-vm")).collect()
    }
}

/// The requests of a build, one for each kind: a part of the line that names it, and whether it changes something.
pub async fn requests(site: &Site) -> Vec<(String, bool)> {
    let mark = site.lab.world.journal.len();
    site.run(&[], &site.small()).await.doc(Exit::Done);
    let mut kinds: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for entry in site.lab.world.journal.since(mark) {
        if entry.window != Window::Pve {
            continue;
        }
        let kind: Vec<&str> = entry
            .request
            .split('/')
            .map(|part| match part {
                _ if part.starts_with("UPID") => "UPID",
                _ if part.starts_with("pve") => "NODE",
                _ if part.parse::<u32>().is_ok() => "ID",
                _ if part.contains("%3A") || part.contains(':') => "VOLUME",
                part => part,
            })
            .collect();
        // A task's name is another one in each run.
        let matching = entry.request.split("UPID").next().unwrap();
        // So is a seed's, which ends in the digest of its key.
        let seed = matching.contains("kubeline-seed.").then(|| matching.rsplitn(3, '.').nth(2)).flatten();
        let matching = seed.unwrap_or(matching).to_owned();
        kinds.entry(kind.join("/")).or_insert((matching, entry.changing));
    }
    kinds.into_values().collect()
}

/// Names a machine or node, or else who was asked, and what to do next.
pub fn helps(stderr: &str) -> bool {
    let names = ["demo-", "node pve", "on pve", "https://", "pool k8s-prod", "the Proxmox cluster"];
    names.iter().any(|n| stderr.contains(n)) && stderr.contains("hint: ")
}
