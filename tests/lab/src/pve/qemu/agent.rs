//! The guest agent, through the door to the machines.

use std::time::Duration;

use base64::Engine;
use serde_json::{Value as Json, json};

use super::super::config::Generation;
use super::super::dispatch::Call;
use super::super::reply::{Answer, Fail, nothing};
use super::super::state::Kind;
use crate::world::{AgentExec, AgentView};

/// How long Proxmox waits for an agent that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The agent's view, or Proxmox's refusal.
async fn reach(call: &Call) -> Result<AgentView, Fail> {
    let vmid = call.vmid();
    {
        let state = call.hub.state();
        let guest = state.guest(Kind::Qemu, call.node(), vmid)?;
        let configured = guest.config.get("agent").is_some_and(|a| super::show::agent_on(a));
        match &guest.running {
            _ if !configured => return Err(Fail::die("No QEMU guest agent configured")),
            None => return Err(Fail::die(format!("VM {vmid} is not running"))),
            Some(running) if !running.agent => return Err(Fail::die("No QEMU guest agent configured")),
            Some(_) => {}
        }
    }
    if let Some(view) = call.hub.machines.agent(vmid) {
        return Ok(view);
    }
    call.hub.world.clock.wait(PATIENCE).await;
    call.hub.machines.agent(vmid).ok_or_else(|| Fail::die("QEMU guest agent is not running"))
}

fn result(value: Json) -> Answer {
    Ok(json!({ "result": value }).into())
}

/// `POST …/agent/ping`.
pub async fn ping(call: Call) -> Answer {
    reach(&call).await?;
    result(json!({}))
}

/// `GET …/agent/network-get-interfaces`.
pub async fn interfaces(call: Call) -> Answer {
    let view = reach(&call).await?;
    let one = |(name, mac, addresses): &(String, String, Vec<(std::net::Ipv4Addr, u8)>)| {
        let addresses: Vec<Json> = addresses
            .iter()
            .map(|(ip, prefix)| json!({ "ip-address": ip.to_string(), "ip-address-type": "ipv4", "prefix": prefix }))
            .collect();
        let mut entry = json!({ "name": name });
        if let Some(entry) = entry.as_object_mut() {
            if !mac.is_empty() {
                entry.insert("hardware-address".into(), mac.to_lowercase().into());
            }
            if !addresses.is_empty() {
                entry.insert("ip-addresses".into(), addresses.into());
            }
        }
        entry
    };
    let mut list: Vec<Json> = view.interfaces.iter().map(one).collect();
    if !view.interfaces.iter().any(|(name, ..)| name == "lo") {
        list.insert(
            0,
            json!({
                "name": "lo",
                "hardware-address": "00:00:00:00:00:00",
                "ip-addresses": [{ "ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8 }],
            }),
        );
    }
    result(Json::Array(list))
}

/// `GET …/agent/get-osinfo`.
pub async fn os_info(call: Call) -> Answer {
    reach(&call).await?;
    result(json!({
        "id": "debian",
        "name": "Debian GNU/Linux",
        "version-id": "13",
        "version": "13 (trixie)",
        "pretty-name": "Debian GNU/Linux 13 (trixie)",
        "machine": "x86_64",
        "kernel-release": "6.12.48+deb13-amd64",
    }))
}

/// `GET …/agent/get-host-name`.
pub async fn host_name(call: Call) -> Answer {
    let view = reach(&call).await?;
    result(json!({ "host-name": view.hostname }))
}

/// `GET …/agent/info`.
pub async fn info(call: Call) -> Answer {
    reach(&call).await?;
    result(json!({ "version": "10.0.2", "supported_commands": [{ "name": "guest-ping", "enabled": true }] }))
}

/// `POST …/agent/exec`.
pub async fn exec(call: Call) -> Answer {
    reach(&call).await?;
    let argv = call.list("command");
    let failed = || {
        let how = if call.hub.config.generation == Generation::V8 { "qmp" } else { "qga" };
        Fail::die(format!("VM {} {how} command 'guest-exec' failed - got timeout", call.vmid()))
    };
    let done = call.hub.machines.agent_exec(call.vmid(), &argv).ok_or_else(failed)?;
    let mut state = call.hub.state();
    let pid = 1000 + state.count() as u32;
    state.guest_mut(Kind::Qemu, call.node(), call.vmid())?.commands.insert(pid, done);
    Ok(json!({ "pid": pid }).into())
}

/// `GET …/agent/exec-status`.
pub async fn exec_status(call: Call) -> Answer {
    reach(&call).await?;
    let pid = call.number("pid").unwrap_or(0) as u32;
    let state = call.hub.state();
    let guest = state.guest(Kind::Qemu, call.node(), call.vmid())?;
    let missing = || Fail::die(format!("Agent error: Invalid parameter 'pid' ({pid})"));
    let AgentExec { exit, stdout, stderr } = guest.commands.get(&pid).ok_or_else(missing)?;
    let mut view = json!({ "exited": 1, "exitcode": exit });
    if let Some(fields) = view.as_object_mut() {
        for (name, bytes) in [("out-data", stdout), ("err-data", stderr)] {
            if !bytes.is_empty() {
                fields.insert(name.into(), String::from_utf8_lossy(bytes).into_owned().into());
            }
        }
    }
    Ok(view.into())
}

/// `GET …/agent/file-read`.
pub async fn file_read(call: Call) -> Answer {
    reach(&call).await?;
    let path = call.text("file").unwrap_or_default();
    let content = call.hub.machines.agent_read(call.vmid(), path).ok_or_else(|| {
        Fail::die(format!("Agent error: failed to open file '{path}' (mode: 'r'): No such file or directory"))
    })?;
    let bytes = content.len();
    Ok(json!({ "content": String::from_utf8_lossy(&content), "bytes-read": bytes }).into())
}

/// `POST …/agent/file-write`, by way of a shell in the guest.
pub async fn file_write(call: Call) -> Answer {
    reach(&call).await?;
    let content = call.text("content").unwrap_or_default();
    // Without `encode=0` the content is plain and Proxmox encodes it; with it, it comes in base64.
    let encoded = match call.text("encode") {
        Some("0") => content.to_owned(),
        _ => base64::engine::general_purpose::STANDARD.encode(content),
    };
    let path = call.text("file").unwrap_or_default().replace('\'', r"'\''");
    let argv = ["sh", "-c", &format!("echo '{encoded}' | base64 -d > '{path}'")].map(str::to_owned);
    let done = call.hub.machines.agent_exec(call.vmid(), &argv);
    match done {
        Some(done) if done.exit == 0 => nothing(),
        _ => Err(Fail::die(format!("Agent error: failed to open file '{path}' (mode: 'wb')"))),
    }
}
