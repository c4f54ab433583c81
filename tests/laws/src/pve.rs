//! A whole lab with its Proxmox cluster, for the tool that makes the machines.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use lab::{Config, Lab};
use serde_json::Value;

use crate::Case;

/// Options that Proxmox makes up anew for each guest.
const CHANCE: [&str; 3] = ["vmgenid", "smbios1", "meta"];

/// A lab of its own, and the folder that it keeps its files in.
pub struct Site {
    /// The three windows.
    pub lab: Arc<Lab>,
    dir: tempfile::TempDir,
}

impl Site {
    /// A lab without latencies. Inside a tokio runtime.
    ///
    /// # Errors
    /// No free loopback network, or no temporary folder.
    pub async fn start() -> io::Result<Site> {
        Site::with(|_| ()).await
    }

    /// A lab with another setting.
    ///
    /// # Errors
    /// As for [`Site::start`].
    pub async fn with(set: impl FnOnce(&mut Config)) -> io::Result<Site> {
        let dir = tempfile::tempdir()?;
        let mut config = Config::quick(dir.path());
        set(&mut config);
        Ok(Site { lab: Arc::new(Lab::start(config).await?), dir })
    }

    /// The lab's folder: the tool's working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A case of this lab with this document.
    pub fn case(self, document: &Value) -> Case {
        let net = self.lab.world.net.host(0).to_string();
        let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        // Proxmox keeps the operator's key percent-encoded.
        let operator = read("id_ed25519.pub").split_whitespace().nth(1).unwrap_or("none").to_owned();
        let operator = operator.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
        let same = vec![
            (format!("ssh-ed25519%20{operator}"), "<the operator's key>".to_owned()),
            (read("id_ed25519.pub").trim().to_owned(), "<the operator's key>%20lab".to_owned()),
            (self.dir.path().display().to_string(), "DIR".to_owned()),
            (net.trim_end_matches('0').to_owned(), "NET.".to_owned()),
            (self.lab.artefacts.address().to_string(), "ARTEFACTS".to_owned()),
        ];
        let token = read("pve-token").trim().split_once('=').map(|(_, secret)| secret.to_owned());
        // The line of the key that holds the secret half.
        let key = read("id_ed25519").lines().nth(3).map(str::to_owned);
        let lab = self.lab.clone();
        Case {
            journal: self.lab.world.journal.clone(),
            faults: self.lab.world.faults.clone(),
            dir: self.dir.path().to_path_buf(),
            document: format!("{document:#}\n"),
            secrets: token.into_iter().chain(key).collect(),
            same,
            picture: Box::new(move || picture(&lab)),
            keep: Box::new(self),
        }
    }
}

/// All that a run leaves at Proxmox: guests with their options, volumes, pools; and on machines that run, whether
/// they answer with the host key that their notes name, and which files of `/etc` are not the image's.
pub fn picture(lab: &Lab) -> String {
    let mut text = String::new();
    for guest in lab.pve.view() {
        let state = if guest.running { "runs" } else { "is off" };
        text.push_str(&format!("== {} {} on {} {state}\n", guest.vmid, guest.name, guest.node));
        text.push_str(&format!("pool {:?}, template {}\n", guest.pool, guest.template));
        let options: BTreeMap<&String, &String> =
            guest.config.iter().filter(|(option, _)| !CHANCE.contains(&option.as_str())).collect();
        for (option, value) in &options {
            text.push_str(&format!("{option}: {value}\n"));
        }
        if guest.template || !guest.running {
            continue;
        }
        let Some(host) = lab.hosts.all().into_iter().find(|h| h.vmid == guest.vmid) else { continue };
        let machine = host.machine();
        let noted = guest.config.get("description").is_some_and(|d| d.contains(&machine.public_key()));
        text.push_str(&format!("its notes name its host key: {noted}\n"));
        for path in machine.fs.walk("/etc/cloud") {
            text.push_str(&format!("{path}\n{}\n", machine.fs.text(&path)));
        }
    }
    for node in lab.pve.nodes() {
        text.push_str(&format!("== volumes of {node}\n{}\n", lab.pve.volumes(&node).join("\n")));
    }
    text.push_str(&format!("== pools {:?}\n", lab.pve.pools()));
    for (kind, entries) in lab.pve.ha() {
        for (name, entry) in entries {
            text.push_str(&format!("== ha {kind} {name} {entry}\n"));
        }
    }
    text
}
