//! A Proxmox cluster with stand-in machines, and a plain client for it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::pve::{Proxmox, ProxmoxConfig};
use lab::world::{AgentExec, AgentView, Boot, Machines, Shared, World};
use lab::{Clock, Faults, Journal, Subnet};
use reqwest::{Client, Method, Response};
use serde_json::Value as Json;

/// Machines that only remember.
#[derive(Default)]
pub struct Fake {
    pub on: Mutex<BTreeMap<u32, Boot>>,
    pub boots: Mutex<Vec<Boot>>,
    pub erased: Mutex<Vec<u32>>,
}

impl Machines for Fake {
    fn power_on(&self, boot: Boot) {
        self.boots.lock().unwrap().push(boot.clone());
        self.on.lock().unwrap().insert(boot.vmid, boot);
    }
    fn power_off(&self, vmid: u32) {
        self.on.lock().unwrap().remove(&vmid);
    }
    fn erased(&self, vmid: u32) {
        self.erased.lock().unwrap().push(vmid);
    }
    fn agent(&self, vmid: u32) -> Option<AgentView> {
        let on = self.on.lock().unwrap();
        let boot = on.get(&vmid)?;
        let addresses = vec![(boot.address?, 24)];
        Some(AgentView {
            hostname: boot.name.clone(),
            interfaces: vec![("eth0".into(), boot.mac.clone(), addresses)],
        })
    }
    fn agent_read(&self, vmid: u32, path: &str) -> Option<Vec<u8>> {
        self.on.lock().unwrap().get(&vmid)?;
        (path == "/etc/ssh/ssh_host_ed25519_key.pub").then(|| b"ssh-ed25519 AAAA host\n".to_vec())
    }
    fn agent_exec(&self, vmid: u32, argv: &[String]) -> Option<AgentExec> {
        self.on.lock().unwrap().get(&vmid)?;
        Some(AgentExec { exit: 0, stdout: argv.join(" ").into_bytes(), stderr: Vec::new() })
    }
}

pub struct Site {
    pub proxmox: Proxmox,
    pub world: Shared,
    pub machines: Arc<Fake>,
    pub client: Client,
    pub token: String,
    _dir: tempfile::TempDir,
}

pub struct Got {
    pub status: u16,
    pub reason: String,
    pub body: Json,
    pub text: String,
    pub closes: bool,
}

impl Got {
    pub fn data(self) -> Json {
        assert_eq!(self.status, 200, "{} {}", self.reason, self.text);
        self.body["data"].clone()
    }
}

pub fn site(config: ProxmoxConfig, clock: Clock) -> Site {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World {
        clock,
        journal: Journal::default(),
        faults: Faults::default(),
        net: Subnet::claim().unwrap(),
        dir: dir.path().to_owned(),
    });
    let machines = Arc::new(Fake::default());
    let proxmox = Proxmox::start(world.clone(), machines.clone(), config).unwrap();
    let ca = reqwest::Certificate::from_pem(proxmox.ca_pem().as_bytes()).unwrap();
    let client = Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .http1_only()
        .pool_idle_timeout(Duration::from_secs(4))
        .timeout(Duration::from_secs(30));
    let token = proxmox.token().unwrap();
    Site { proxmox, world, machines, client: client.build().unwrap(), token, _dir: dir }
}

pub fn quick() -> Site {
    site(ProxmoxConfig::default(), Clock::ZERO)
}

pub async fn read(response: Response) -> Got {
    let status = response.status().as_u16();
    let reason = response
        .extensions()
        .get::<hyper::ext::ReasonPhrase>()
        .map(|r| String::from_utf8_lossy(r.as_bytes()).into_owned())
        .unwrap_or_else(|| response.status().canonical_reason().unwrap_or_default().to_owned());
    let closes = response.headers().get("connection").is_some_and(|c| c == "close");
    let text = response.text().await.unwrap();
    Got { status, reason, body: serde_json::from_str(&text).unwrap_or(Json::Null), text, closes }
}

impl Site {
    pub fn request(&self, method: &str, node: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api2/json{path}", self.proxmox.url(node).unwrap());
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, url).header("Authorization", format!("PVEAPIToken={}", self.token))
    }

    pub async fn call(&self, method: &str, path: &str, params: &[(&str, &str)]) -> Got {
        let request = self.request(method, "pve1", path);
        let request = match method {
            "GET" | "DELETE" => request.query(params),
            _ => request.form(params),
        };
        read(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Json {
        self.call("GET", path, &[]).await.data()
    }

    /// Starts a task and gives its exit status.
    pub async fn task(&self, method: &str, path: &str, params: &[(&str, &str)]) -> String {
        let data = self.call(method, path, params).await.data();
        self.exit(data.as_str().expect("a UPID")).await
    }

    pub async fn exit(&self, upid: &str) -> String {
        let node = upid.split(':').nth(1).unwrap();
        let encoded = upid.replace(':', "%3A").replace('@', "%40").replace('!', "%21");
        for _ in 0..2000 {
            let status = self.get(&format!("/nodes/{node}/tasks/{encoded}/status")).await;
            if status["status"] == "stopped" {
                return status["exitstatus"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{upid} did not end");
    }
}

/// An ISO 9660 image with Joliet names, as `cloud-localds` makes them.
pub fn iso(label: &str, files: &[(&str, &str)]) -> Vec<u8> {
    const SECTOR: usize = 2048;
    let (root, wide_root, first) = (20usize, 21usize, 22usize);
    let mut image = vec![0u8; first * SECTOR];
    let both = |n: u32| [n.to_le_bytes(), n.to_be_bytes()].concat();
    let record = |sector: usize, size: usize, folder: bool, name: &[u8]| {
        let mut r = vec![0u8; 33];
        r[2..10].copy_from_slice(&both(sector as u32));
        r[10..18].copy_from_slice(&both(size as u32));
        r[25] = if folder { 2 } else { 0 };
        r[28] = 1;
        r[32] = name.len() as u8;
        r.extend(name);
        if r.len() % 2 == 1 {
            r.push(0);
        }
        r[0] = r.len() as u8;
        r
    };
    let (mut plain, mut wide) = (Vec::new(), Vec::new());
    for (list, sector) in [(&mut plain, root), (&mut wide, wide_root)] {
        list.extend(record(sector, SECTOR, true, &[0]));
        list.extend(record(sector, SECTOR, true, &[1]));
    }
    for (n, (name, text)) in files.iter().enumerate() {
        let at = image.len() / SECTOR;
        let utf16: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
        plain.extend(record(at, text.len(), false, format!("FILE{n}.;1").as_bytes()));
        wide.extend(record(at, text.len(), false, &utf16));
        image.extend(text.as_bytes());
        image.resize(image.len().div_ceil(SECTOR) * SECTOR, 0);
    }
    image[root * SECTOR..root * SECTOR + plain.len()].copy_from_slice(&plain);
    image[wide_root * SECTOR..wide_root * SECTOR + wide.len()].copy_from_slice(&wide);
    for (n, (kind, sector)) in [(1u8, root), (2, wide_root), (255, 0)].into_iter().enumerate() {
        let at = (16 + n) * SECTOR;
        image[at] = kind;
        image[at + 1..at + 7].copy_from_slice(b"CD001\x01");
        if kind == 255 {
            continue;
        }
        image[at + 40..at + 72].fill(b' ');
        image[at + 40..at + 40 + label.len()].copy_from_slice(label.as_bytes());
        if kind == 2 {
            image[at + 88..at + 91].copy_from_slice(b"%/E");
        }
        let entry = record(sector, SECTOR, true, &[0]);
        image[at + 156..at + 156 + entry.len()].copy_from_slice(&entry);
    }
    image
}
