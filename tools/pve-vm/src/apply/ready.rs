//! Waits until a machine answers over SSH with the host key in its mark. What Proxmox and the guest agent tell
//! meanwhile is asked side by side: it ends a wait that is in vain, and says what is missing.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use stage::{Ctx, Failure, Waiting};

use super::guest::{addresses, config, marked, note_keys, public_key, status};
use crate::pve::{Error, Request, text};
use crate::ssh::{self, Answer};
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How long a first boot may take.
const BOOT: Duration = Duration::from_secs(900);
/// How long a machine that answers may refuse us, or show the key of its image: cloud-init makes the account after
/// the SSH server is up.
const ACCOUNT: Duration = Duration::from_secs(120);

const KEYS: [&str; 3] =
    ["/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/ssh_host_ecdsa_key.pub", "/etc/ssh/ssh_host_rsa_key.pub"];

/// What a machine that is up and not yet right gets as grace.
#[derive(Default)]
struct Grace(Mutex<Option<Instant>>);

impl Grace {
    fn over(&self) -> bool {
        let mut since = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed() > ACCOUNT
    }
}

/// Waits for the proof: SSH with the key in its mark.
pub async fn ready(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    address: Ipv4Addr,
    doing: &str,
) -> Result<(), Failure> {
    let options = config(world, at).await.map_err(|e| e.failure(doing, &world.client.grantee()))?;
    let keys = marked(&options).map(|m| m.host_keys).unwrap_or_default();
    if keys.is_empty() {
        return Err(Failure::precondition(doing)
            .because("its notes hold no host key")
            .hint(format!("pve-vm replace {}", at.machine)));
    }
    let (grace, keys) = (Grace::default(), &keys);
    let grace = &grace;
    let probe = || async move {
        let ssh = std::pin::pin!(ssh::ask(want, &at.machine, address, keys));
        let sight = std::pin::pin!(sight(world, at, address));
        // Whichever is first; only SSH is the proof.
        let (answer, sight) = match select(ssh, sight).await {
            Either::Left((answer, sight)) => match answer {
                Answer::Yes => return Ok(Waiting::Seen(())),
                answer => (answer, sight.await),
            },
            Either::Right((sight, ssh)) => (ssh.await, sight),
        };
        match (answer, sight) {
            (Answer::Yes, _) => Ok(Waiting::Seen(())),
            (Answer::Silent(_), Sight::Wrong(why)) => Err(refusal(doing, why, Some(console(at)))),
            (Answer::Silent(why), Sight::Tells(more)) => Ok(Waiting::NotYet(format!("{why}; {more}"))),
            (Answer::Silent(why), Sight::Nothing) => Ok(Waiting::NotYet(why)),
            (Answer::WrongKey(why, hint) | Answer::NotLetIn(why, hint), _) => {
                if grace.over() || why.contains("there is no key") {
                    return Err(refusal(doing, why, hint));
                }
                Ok(Waiting::NotYet(why))
            }
        }
    };
    let what = format!("{at} to answer at {address}");
    ctx.wait_for(&what, BOOT, probe).await.map_err(|failure| failure.hint(console(at)))
}

fn console(at: &At) -> String {
    format!("look at its console: guest {} on node {}", at.vmid, at.node)
}

/// What is seen of a machine from outside.
enum Sight {
    /// Nothing that helps.
    Nothing,
    /// It is not as it has to be, and waiting will not help.
    Wrong(String),
    /// How far it is.
    Tells(String),
}

/// Asks Proxmox whether it runs, and its guest agent, where there is one, for its addresses.
async fn sight(world: &World, at: &At, address: Ipv4Addr) -> Sight {
    let state = world.client.read(Request::get(status(at, "current"))).await;
    match state.ok().and_then(|s| text(&s, "status")) {
        Some(state) if state != "running" => return Sight::Tells(format!("Proxmox says that it is {state}")),
        _ => {}
    }
    match agent_addresses(world, at).await {
        None => Sight::Nothing,
        Some(all) if all.is_empty() => Sight::Tells("its agent shows no address yet".to_owned()),
        Some(all) if all.iter().any(|a| *a == address.to_string()) => {
            Sight::Tells("its agent shows that address".to_owned())
        }
        Some(all) => Sight::Wrong(format!(
            "it does not answer at {address}, and its agent shows another address: {}",
            all.join(", ")
        )),
    }
}

/// Reads the host key of a machine that runs and whose key nobody noted, as its agent shows it.
pub async fn learn(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    address: Ipv4Addr,
    doing: &str,
) -> Result<(), Failure> {
    let grace = Grace::default();
    let grace = &grace;
    let probe = || async move {
        let keys = match agent_keys(world, at, doing).await? {
            Waiting::Seen(keys) => keys,
            Waiting::NotYet(why) if grace.over() => {
                return Err(refusal(doing, why, Some(format!("pve-vm replace {}", at.machine))));
            }
            Waiting::NotYet(why) => return Ok(Waiting::NotYet(why)),
        };
        match ssh::ask(want, &at.machine, address, &keys).await {
            Answer::Yes => Ok(Waiting::Seen(keys)),
            // cloud-init makes new keys during the first boot; the next look shows them.
            Answer::Silent(why) | Answer::WrongKey(why, _) => Ok(Waiting::NotYet(why)),
            Answer::NotLetIn(why, hint) if grace.over() || why.contains("there is no key") => {
                Err(refusal(doing, why, hint))
            }
            Answer::NotLetIn(why, _) => Ok(Waiting::NotYet(why)),
        }
    };
    let keys = ctx.wait_for(&format!("{at} at {address}"), BOOT, probe).await?;
    note_keys(world, ctx, at, &keys, &want.design.cluster, doing).await
}

fn refusal(doing: &str, why: String, hint: Option<String>) -> Failure {
    let failure = Failure::precondition(doing).because(why);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The machine's public host key over the guest agent, a channel that the API authenticates.
async fn agent_keys(world: &World, at: &At, doing: &str) -> Result<Waiting<Vec<String>>, Failure> {
    let path = format!("/nodes/{}/qemu/{}/agent/file-read", at.node, at.vmid);
    let mut last = "no host key is there yet".to_owned();
    for file in KEYS {
        let turn = world.turn(&at.node).await;
        let answer = world.client.send(&Request::get(&path).with("file", file)).await;
        drop(turn);
        match answer {
            Ok(value) => {
                if let Some(key) = text(&value, "content").as_deref().and_then(public_key) {
                    return Ok(Waiting::Seen(vec![key]));
                }
            }
            // Without the right, or without an agent in its configuration, no waiting helps.
            Err(error)
                if error.status() == Some(403)
                    || error.to_string().contains("No QEMU guest agent configured")
                    || error.is_absent() =>
            {
                let failure = error.failure(doing, &world.client.grantee());
                return Err(failure.hint(format!("pve-vm replace {}", at.machine)));
            }
            // That file is not there; another may be.
            Err(Error::Refused { said, .. }) if said.contains("No such file") => last = said,
            Err(error) => return Ok(Waiting::NotYet(error.to_string())),
        }
    }
    Ok(Waiting::NotYet(last))
}

async fn agent_addresses(world: &World, at: &At) -> Option<Vec<String>> {
    let path = format!("/nodes/{}/qemu/{}/agent/network-get-interfaces", at.node, at.vmid);
    let turn = world.turn(&at.node).await;
    let value = world.client.send(&Request::get(path)).await.ok();
    drop(turn);
    value.map(|v| addresses(&v))
}
