//! A NoCloud seed: an ISO 9660 image labelled `cidata` with user-data, meta-data and network-config.

use std::net::Ipv4Addr;

use serde_json::Value as Json;

use crate::world::Boot;

/// What a seed says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seed {
    pub hostname: Option<String>,
    pub user: Option<String>,
    pub authorized_keys: Vec<String>,
    pub host_keys: Vec<String>,
    pub address: Option<Ipv4Addr>,
    pub instance: Option<String>,
}

impl Seed {
    /// Puts what the seed says over what the hardware says.
    pub fn fill(self, boot: &mut Boot) {
        if let Some(hostname) = self.hostname {
            boot.name = hostname;
        }
        if let Some(user) = self.user {
            boot.user = user;
        }
        if !self.authorized_keys.is_empty() {
            boot.authorized_keys = self.authorized_keys;
        }
        boot.host_keys = self.host_keys;
        // A data source without an instance id is none (cloud-init, DataSourceNoCloud.py).
        boot.instance = self.instance.unwrap_or_default();
        boot.address = self.address.or(boot.address);
        if boot.user.is_empty() {
            boot.user = "debian".into();
        }
    }
}

const SECTOR: usize = 2048;

/// Reads a seed; `None` when the bytes are no image with that label.
pub(super) fn read(image: &[u8]) -> Option<Seed> {
    let files = files(image)?;
    let find = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, text)| text.as_str());
    let yaml = |text: &str| serde_saphyr::from_str::<Json>(text).ok();
    let mut seed = Seed::default();
    if let Some(meta) = find("meta-data").and_then(yaml) {
        seed.hostname = text(&meta["local-hostname"]);
        seed.instance = text(&meta["instance-id"]);
    }
    if let Some(user) = find("user-data").and_then(yaml) {
        user_data(&mut seed, &user);
    }
    if let Some(network) = find("network-config").and_then(yaml) {
        seed.address = first_address(&network);
    }
    Some(seed)
}

fn text(value: &Json) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Json) -> Vec<String> {
    match value {
        Json::Array(list) => list.iter().filter_map(text).collect(),
        other => text(other).into_iter().collect(),
    }
}

fn user_data(seed: &mut Seed, user: &Json) {
    if let Some(name) = text(&user["hostname"]) {
        seed.hostname = Some(name);
    }
    if let Some(name) = text(&user["user"]).or_else(|| text(&user["user"]["name"])) {
        seed.user = Some(name);
    }
    seed.authorized_keys.extend(texts(&user["ssh_authorized_keys"]));
    for account in user["users"].as_array().into_iter().flatten() {
        if let Some(name) = text(&account["name"]) {
            seed.user.get_or_insert(name);
            seed.authorized_keys.extend(texts(&account["ssh_authorized_keys"]));
        }
    }
    for (name, key) in user["ssh_keys"].as_object().into_iter().flatten() {
        if name.ends_with("_private") {
            seed.host_keys.extend(text(key));
        }
    }
}

/// The first static IPv4 address, in either version of the network configuration.
fn first_address(value: &Json) -> Option<Ipv4Addr> {
    match value {
        Json::String(text) => text.split('/').next()?.parse().ok(),
        Json::Array(list) => list.iter().find_map(first_address),
        Json::Object(fields) => {
            let own = ["addresses", "address"].iter().find_map(|k| fields.get(*k)).and_then(first_address);
            let inner = || {
                let nested = fields.iter().filter(|(k, v)| {
                    (v.is_object() || v.is_array())
                        && !matches!(k.as_str(), "nameservers" | "routes" | "dns" | "match")
                });
                nested.map(|(_, v)| v).filter(|v| !texts_only(v)).find_map(first_address)
            };
            own.or_else(inner)
        }
        _ => None,
    }
}

/// A list of bare texts under another key than `addresses` is no list of addresses.
fn texts_only(value: &Json) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Json::is_string))
}

/// The files in the root directory, with long names: Joliet where there is one, else Rock Ridge, else the
/// plain names in lower case.
fn files(image: &[u8]) -> Option<Vec<(String, String)>> {
    let mut primary = None;
    let mut joliet = None;
    for n in 16..32 {
        let sector = image.get(n * SECTOR..(n + 1) * SECTOR)?;
        if sector.get(1..6)? != b"CD001" {
            return None;
        }
        match sector[0] {
            1 => primary = Some(sector),
            2 if sector.get(88..90) == Some(b"%/") => joliet = Some(sector),
            255 => break,
            _ => {}
        }
    }
    let primary = primary?;
    let label = String::from_utf8_lossy(primary.get(40..72)?).trim().to_ascii_lowercase();
    if label != "cidata" {
        return None;
    }
    let wide = joliet.is_some();
    let root = joliet.unwrap_or(primary).get(156..190)?;
    let directory = extent(image, root)?;
    let mut files = Vec::new();
    let mut at = 0;
    while at < directory.len() {
        let length = usize::from(directory[at]);
        if length == 0 {
            // Entries do not cross sectors.
            at = (at / SECTOR + 1) * SECTOR;
            continue;
        }
        let record = directory.get(at..at + length)?;
        at += length;
        let folder = record.get(25)? & 2 != 0;
        if folder {
            continue;
        }
        let name = name(record, wide)?;
        let content = extent(image, record)?;
        files.push((name, String::from_utf8_lossy(content).into_owned()));
    }
    Some(files)
}

fn extent<'a>(image: &'a [u8], record: &[u8]) -> Option<&'a [u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?) as usize);
    let start = number(2)? * SECTOR;
    image.get(start..start + number(10)?)
}

fn name(record: &[u8], wide: bool) -> Option<String> {
    let length = usize::from(*record.get(32)?);
    let raw = record.get(33..33 + length)?;
    if wide {
        let units: Vec<u16> = raw.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
        return Some(plain(&String::from_utf16_lossy(&units)));
    }
    // Rock Ridge: an NM entry in the system use area holds the real name.
    let mut at = 33 + length + (length + 1) % 2;
    while let Some(entry) = record.get(at..at + 5) {
        let size = usize::from(entry[2]);
        if &entry[..2] == b"NM" {
            return record.get(at + 5..at + size).map(|n| String::from_utf8_lossy(n).into_owned());
        }
        if size < 4 {
            break;
        }
        at += size;
    }
    Some(plain(&String::from_utf8_lossy(raw).to_ascii_lowercase()).replace('_', "-"))
}

/// Without the version and an empty extension.
fn plain(name: &str) -> String {
    name.split(';').next().unwrap_or_default().trim_end_matches('.').to_owned()
}
