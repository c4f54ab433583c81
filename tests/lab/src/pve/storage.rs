//! Storages: lists, content, downloads, uploads.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::config::StorageConfig;
use super::dispatch::Call;
use super::hub::Hub;
use super::reply::{Answer, Fail, nothing};
use super::state::{State, Volume};

const SEEN: &[&str] = &["Datastore.Audit", "Datastore.AllocateSpace"];

fn view(state: &State, storage: &StorageConfig, node: &str) -> Json {
    let used = state.used(&storage.name, node);
    json!({
        "storage": storage.name,
        "type": storage.kind.name(),
        "content": storage.content.join(","),
        "shared": u8::from(storage.kind.shared()),
        "active": 1,
        "enabled": 1,
        "total": storage.size,
        "used": used,
        "avail": storage.size.saturating_sub(used),
        "used_fraction": used as f64 / storage.size.max(1) as f64,
    })
}

/// `GET /nodes/{node}/storage`.
pub(super) fn list(call: &Call) -> Answer {
    let wanted: Vec<&str> =
        call.text("content").unwrap_or_default().split([',', ';', ' ']).filter(|c| !c.is_empty()).collect();
    let state = call.hub.state();
    let may = |s: &StorageConfig| {
        SEEN.iter().any(|p| call.hub.may(&state, &call.who, &format!("/storage/{}", s.name), p))
    };
    let list: Vec<Json> = state
        .storages
        .values()
        .filter(|s| s.on(call.node()) && (wanted.is_empty() || wanted.iter().any(|c| s.holds(c))))
        .filter(|s| call.text("storage").is_none_or(|name| name == s.name))
        .filter(|s| may(s))
        .map(|s| view(&state, s, call.node()))
        .collect();
    Ok(Json::Array(list).into())
}

fn named(call: &Call) -> &str {
    call.text("storage").unwrap_or_default()
}

/// `GET …/storage/{storage}`.
pub(super) fn index(call: &Call) -> Answer {
    call.hub.state().storage(named(call), call.node())?;
    Ok(json!([{ "subdir": "status" }, { "subdir": "content" }, { "subdir": "upload" }, { "subdir": "download-url" }]).into())
}

/// `GET …/storage/{storage}/status`.
pub(super) fn status(call: &Call) -> Answer {
    let state = call.hub.state();
    let storage = state.storage(named(call), call.node())?;
    Ok(view(&state, storage, call.node()).into())
}

fn entry(volume: &Volume) -> Json {
    let mut entry = json!({
        "volid": volume.volid,
        "content": volume.content,
        "format": volume.format,
        "size": volume.size,
        "ctime": volume.ctime,
    });
    if let Some(fields) = entry.as_object_mut() {
        if let Some(vmid) = volume.vmid {
            fields.insert("vmid".into(), vmid.into());
        }
        if let Some(parent) = volume.parent.as_ref().and_then(|p| p.split_once(':')) {
            fields.insert("parent".into(), parent.1.into());
        }
    }
    entry
}

/// `GET …/storage/{storage}/content`.
pub(super) fn content(call: &Call) -> Answer {
    let state = call.hub.state();
    state.storage(named(call), call.node())?;
    let place = state.place(named(call), call.node());
    let kind = call.text("content");
    let vmid = call.number("vmid").map(|v| v as u32);
    let list: Vec<Json> = state
        .volumes
        .iter()
        .filter(|((p, _), v)| *p == place && v.storage == named(call))
        .filter(|(_, v)| kind.is_none_or(|k| k == v.content) && (vmid.is_none() || vmid == v.vmid))
        .map(|(_, v)| entry(v))
        .collect();
    Ok(Json::Array(list).into())
}

fn volid(call: &Call) -> String {
    let volume = call.text("volume").unwrap_or_default();
    if volume.contains(':') { volume.to_owned() } else { format!("{}:{volume}", named(call)) }
}

/// `GET …/content/{volume}`.
pub(super) fn volume(call: &Call) -> Answer {
    let volid = volid(call);
    call.need_any(&format!("/storage/{}", named(call)), SEEN)?;
    let state = call.hub.state();
    let volume = state.volume(call.node(), &volid);
    let volume = volume.ok_or_else(|| Fail::die(format!("volume '{volid}' does not exist")))?;
    let path = format!("/dev/lab/{}", volid.replace(':', "/"));
    Ok(json!({ "path": path, "size": volume.size, "used": volume.size, "format": volume.format }).into())
}

/// `DELETE …/content/{volume}`: null when it was done within `delay`.
pub(super) async fn remove(call: Call) -> Answer {
    let (node, volid, storage) = (call.node().to_owned(), volid(&call), named(&call).to_owned());
    let images = {
        let state = call.hub.state();
        state.storage(&storage, &node)?;
        let found = state.volume(&node, &volid).map(|v| (v.content, v.parent.clone()));
        found.is_some_and(|(content, _)| content == "images")
    };
    let path = format!("/storage/{storage}");
    if images {
        call.need(&path, &["Datastore.Allocate"])?;
    } else {
        call.need_any(&path, &["Datastore.AllocateTemplate", "Datastore.Allocate"])?;
    }
    let (hub, gone, at) = (call.hub.clone(), volid.clone(), node.clone());
    let upid = call.work(&node, "imgdel", "", move |_| async move {
        let local = { (!hub.state().place(&storage, &at).is_empty()).then_some(at.as_str()) };
        let _lock = hub.locks.storage(&storage, local).await?;
        let mut state = hub.state();
        let child = state.volumes.values().any(|v| v.parent.as_deref() == Some(gone.as_str()));
        if child {
            return Err(format!("base volume '{gone}' is still in use by linked clones"));
        }
        match state.remove_volume(&at, &gone) {
            Some(_) => Ok(()),
            None => Err(format!("volume '{gone}' does not exist")),
        }
    });
    let delay = call.number("delay").unwrap_or(0);
    if delay > 0 && call.hub.task_ended(&upid, Duration::from_secs(delay)).await {
        let exit = call.hub.state().tasks.get(&upid).and_then(|t| t.exit.clone());
        return match exit.as_deref() {
            Some("OK") => nothing(),
            other => Err(Fail::die(other.unwrap_or_default())),
        };
    }
    Ok(upid.into())
}

/// The checks of a file's name and of the storage, shared by download and upload.
fn target(call: &Call) -> Result<(&'static str, &'static str), Fail> {
    let filename = call.text("filename").unwrap_or_default();
    let plain = filename.chars().all(|c| c.is_ascii_alphanumeric() || "-.+=_".contains(c))
        && !filename.starts_with('.');
    let ends = |list: &[&str]| list.iter().any(|e| filename.to_lowercase().ends_with(e));
    let kind = match call.text("content") {
        Some("import") if plain && ends(&[".ova", ".qcow2", ".raw", ".vmdk"]) => "import",
        Some("import") => return Err(Fail::parameter("filename", "invalid filename or wrong extension")),
        Some("vztmpl") if ends(&[".tar.gz", ".tar.xz", ".tar.zst"]) => "vztmpl",
        Some("iso") if ends(&[".iso", ".img"]) => "iso",
        _ => return Err(Fail::parameter("filename", "wrong file extension")),
    };
    let format = match kind {
        "import" if filename.ends_with(".qcow2") => "qcow2",
        "import" if filename.ends_with(".vmdk") => "vmdk",
        "import" => "raw",
        "iso" => "iso",
        _ => "tzst",
    };
    let state = call.hub.state();
    let storage = state.storage(named(call), call.node())?;
    if !storage.holds(kind) {
        return Err(Fail::die(format!(
            "storage '{}' is not configured for content-type '{kind}'",
            named(call)
        )));
    }
    Ok((kind, format))
}

/// `POST …/download-url`.
pub(super) fn download(call: &Call) -> Answer {
    let (kind, format) = target(call)?;
    let url = call.text("url").unwrap_or_default().to_owned();
    let filename = call.text("filename").unwrap_or_default().to_owned();
    let (node, storage) = (call.node().to_owned(), named(call).to_owned());
    let given = call.text("checksum").zip(call.text("checksum-algorithm"));
    let given = given.map(|(sum, algorithm)| (algorithm.to_owned(), sum.to_lowercase()));
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "download", &filename.clone(), move |log| async move {
        let image = hub.config.images.get(&url).cloned().unwrap_or_default();
        let volid = format!("{storage}:{kind}/{filename}");
        let path = format!("/var/lib/vz/template/{kind}/{filename}");
        log.line(format!("downloading {url} to {path}"));
        let there = { hub.state().volume(&node, &volid).map(|v| v.digests.clone()) };
        if let Some(digests) = there {
            let Some((algorithm, sum)) = &given else {
                return Err(format!("refusing to override existing file '{path}'"));
            };
            let have = digests.get(algorithm).unwrap_or(sum);
            if have == sum {
                log.line("OK, got correct file already, no need to download");
                return Ok(());
            }
            return Err(format!("checksum mismatch: got '{have}' != expect '{sum}', aborting"));
        }
        if image.missing {
            return Err("download failed: ERROR 404: Not Found.".into());
        }
        // A line of wget's for each 32 MiB.
        let lines = image.size.div_ceil(32 << 20).max(1);
        for line in 0..lines {
            hub.world.clock.wait(Duration::from_secs(60) / lines as u32).await;
            let dots = "........ ........ ........ ........";
            log.line(format!("{:>6}K {dots} {:>2}%  110M 1s", line << 15, (line + 1) * 100 / lines));
        }
        let mut digests = image.digests.clone();
        if let Some((algorithm, sum)) = given {
            let got = digests.entry(algorithm).or_insert_with(|| sum.clone()).to_lowercase();
            if got != sum {
                return Err(format!("checksum mismatch: got '{got}' != expect '{sum}', aborting"));
            }
            log.line("OK, checksum verified");
        }
        let volume = Volume {
            virtual_size: Some(image.virtual_size),
            digests,
            ..Volume::new(&volid, &storage, kind, format, image.size)
        };
        hub.state().put_volume(&node, volume);
        log.line(format!("download of '{url}' to '{path}' finished"));
        Ok(())
    });
    Ok(upid.into())
}

fn digest(algorithm: &str, bytes: &[u8]) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    Some(match algorithm {
        "sha256" => hex(&Sha256::digest(bytes)),
        "sha384" => hex(&Sha384::digest(bytes)),
        "sha512" => hex(&Sha512::digest(bytes)),
        _ => return None,
    })
}

/// `POST …/upload`.
pub(super) fn upload(call: &Call) -> Answer {
    let (kind, format) = target(call)?;
    let Some(file) = call.upload.clone() else {
        return Err(Fail::parameter("filename", "no file in the upload"));
    };
    let (node, storage) = (call.node().to_owned(), named(call).to_owned());
    let filename = call.text("filename").unwrap_or_default().to_owned();
    let mut digests = BTreeMap::new();
    for algorithm in ["sha256", "sha384", "sha512"] {
        digests.extend(digest(algorithm, &file.content).map(|d| (algorithm.to_owned(), d)));
    }
    let given = call.text("checksum").zip(call.text("checksum-algorithm"));
    let given = given.map(|(sum, algorithm)| (algorithm.to_owned(), sum.to_lowercase()));
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "imgcopy", "", move |log| async move {
        if let Some((algorithm, sum)) = given {
            let got = digests.get(&algorithm).cloned().ok_or(format!("the lab computes no {algorithm}"))?;
            if got != sum {
                return Err(format!("checksum mismatch: got '{got}' != expect '{sum}'"));
            }
        }
        hub.world.clock.wait(Duration::from_secs(1)).await;
        let volid = format!("{storage}:{kind}/{filename}");
        let size = file.content.len() as u64;
        let volume =
            Volume { digests, bytes: file.content, ..Volume::new(&volid, &storage, kind, format, size) };
        hub.state().put_volume(&node, volume);
        log.line("finished file import successfully");
        Ok(())
    });
    Ok(upid.into())
}

fn configuration(storage: &StorageConfig) -> Json {
    let mut view = json!({
        "storage": storage.name,
        "type": storage.kind.name(),
        "content": storage.content.join(","),
        "digest": "0".repeat(40),
    });
    if let Some(fields) = view.as_object_mut() {
        if storage.kind.shared() {
            fields.insert("shared".into(), 1.into());
        }
        if !storage.nodes.is_empty() {
            fields.insert("nodes".into(), storage.nodes.join(",").into());
        }
        if storage.kind.files() {
            fields.insert("path".into(), format!("/srv/{}", storage.name).into());
        }
    }
    view
}

fn seen(hub: &Hub, state: &State, call: &Call, storage: &str) -> bool {
    let path = format!("/storage/{storage}");
    ["Datastore.Audit", "Datastore.AllocateSpace"].iter().any(|p| hub.may(state, &call.who, &path, p))
}

/// `GET /storage`.
pub(super) fn configured(call: &Call) -> Answer {
    let state = call.hub.state();
    let list: Vec<Json> = state
        .storages
        .values()
        .filter(|s| call.text("type").is_none_or(|t| t == s.kind.name()))
        .filter(|s| seen(&call.hub, &state, call, &s.name))
        .map(configuration)
        .collect();
    Ok(Json::Array(list).into())
}

/// `GET /storage/{storage}`.
pub(super) fn one_configured(call: &Call) -> Answer {
    let state = call.hub.state();
    let name = named(call);
    let found =
        state.storages.get(name).ok_or_else(|| Fail::die(format!("storage '{name}' does not exist")))?;
    Ok(configuration(found).into())
}
