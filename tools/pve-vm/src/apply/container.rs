//! Makes a container, and learns its host key: by its fingerprint from the log of its making, then whole from the
//! container itself.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use stage::{Ctx, Failure, Waiting};

use super::guest::{cloned, noted_keys, status};
use super::persist::persist;
use super::ready::refusal;
use crate::change::join;
use crate::container::fingerprints;
use crate::mark::Mark;
use crate::options::{Options, tags as tags_of};
use crate::pve::{Error, Request, encode, list, number, text};
use crate::ssh::{self, Met};
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How long a container may take until its SSH server answers.
const BOOT: Duration = Duration::from_secs(300);
/// How long the list of tasks may lag behind a task's end.
const LISTED: Duration = Duration::from_secs(5);
/// Lines of a log that are read; one of a container's making has about twenty.
const LINES: u32 = 5000;

/// Makes it; one that is there and bears our mark is what was asked for.
pub(super) async fn make(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    options: &Options,
    pool: Option<&String>,
    doing: &str,
) -> Result<(), Failure> {
    let look = || cloned(world, ctx, at, &want.design, None);
    let mut request =
        Request::post(format!("/nodes/{}/lxc", at.node)).with("vmid", at.vmid).with_all(options);
    if let Some(pool) = pool {
        request = request.with("pool", pool);
    }
    let request = &request;
    persist(world, ctx, doing, || world.client.run(ctx, request), look).await
}

/// Notes the fingerprints of its host keys in its mark, and its tags. Where the log tells none, the mark stays without:
/// only the operator can vouch for the key then.
pub(super) async fn note(world: &World, ctx: &Ctx, at: &At, tags: &str, doing: &str) -> Result<(), Failure> {
    let failed = |e: Error| e.failure(doing, &world.client.grantee());
    let what = format!("the log of the making of {at}");
    let log = ctx.wait_for(&what, LISTED, || async {
        match log(world, at).await {
            Ok(Some(log)) => Ok(Waiting::Seen(Some(log))),
            Ok(None) => Ok(Waiting::NotYet("no task tells of it".to_owned())),
            Err(error) if crate::pve::passing(&error) => Ok(Waiting::NotYet(error.to_string())),
            Err(error) => Err(failed(error)),
        }
    });
    // It may have been rotated away since.
    let log = log.await.unwrap_or_default().unwrap_or_default();
    let found = fingerprints(log.iter().map(String::as_str));
    if found.is_empty() {
        ctx.say(&format!("the log of the making of {at} tells no SSH host key"));
    }
    write(world, ctx, at, found, Some(tags), doing).await
}

/// The log of the task that made it: the newest of its kind that ended well.
async fn log(world: &World, at: &At) -> Result<Option<Vec<String>>, Error> {
    let request = Request::get(format!("/nodes/{}/tasks", at.node))
        .with("vmid", at.vmid)
        .with("typefilter", "vzcreate")
        .with("source", "all");
    let tasks = world.client.read(request).await?;
    let good = |t: &&serde_json::Value| {
        let status = text(t, "status").unwrap_or_default();
        text(t, "type").as_deref() == Some("vzcreate") && (status == "OK" || status.starts_with("WARNINGS"))
    };
    let newest = list(&tasks).iter().filter(good).rev().max_by_key(|t| number(t, "starttime"));
    let Some(upid) = newest.and_then(|t| text(t, "upid")) else { return Ok(None) };
    let path = format!("/nodes/{}/tasks/{}/log", at.node, encode(&upid));
    let lines = world.client.read(Request::get(path).with("limit", LINES)).await?;
    Ok(Some(list(&lines).iter().filter_map(|l| text(l, "t")).collect()))
}

/// Waits until it answers with a key of those fingerprints, then notes the key whole. Where no fingerprint is known,
/// a key that the operator vouches for will do: one in `spec.ssh.knownHostsFile`, or any when told to accept new ones.
pub(super) async fn pin(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    address: Ipv4Addr,
    doing: &str,
) -> Result<(), Failure> {
    let known = noted_keys(world, at, doing).await?;
    let (known, unknown) = (&known, known.is_empty());
    let probe = || async move {
        match ssh::meet(want, ctx, at, address, known).await {
            Met::Key(key) => Ok(Waiting::Seen(key)),
            Met::Silent(why) => {
                let state = world.client.read(Request::get(status(at, "current"))).await;
                let state = state.ok().and_then(|s| text(&s, "status")).filter(|s| s != "running");
                let more = state.map(|s| format!("; Proxmox says that it is {s}")).unwrap_or_default();
                Ok(Waiting::NotYet(format!("{why}{more}")))
            }
            Met::Refused(why, hint) => {
                let failure = refusal(doing, why, hint);
                Err(match unknown {
                    true => failure.hint(format!(
                        "compare with, on node {}: pct exec {} -- ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
                        at.node, at.vmid
                    )),
                    false => failure,
                })
            }
        }
    };
    let console = format!("on node {}: pct console {}", at.node, at.vmid);
    let key = ctx.wait_for(&format!("{at} to answer at {address}"), BOOT, probe).await;
    let key = key.map_err(|f| if f.hints.is_empty() { f.hint(console) } else { f })?;
    write(world, ctx, at, vec![key], None, doing).await
}

/// Writes host keys into the mark.
async fn write(
    world: &World,
    ctx: &Ctx,
    at: &At,
    keys: Vec<String>,
    tags: Option<&str>,
    doing: &str,
) -> Result<(), Failure> {
    let there = |have: &Options| tags_of(have.get("tags").map(String::as_str).unwrap_or_default());
    let due = tags_of(tags.unwrap_or_default());
    let right = |mark: &Mark, have: &Options| mark.host_keys == keys && due.is_subset(&there(have));
    let set = |mark: Mark, have: &Options| {
        let all: BTreeSet<String> = there(have).union(&due).cloned().collect();
        let beside = tags.map(|_| ("tags".to_owned(), join(&all)));
        (Mark { host_keys: keys.clone(), ..mark }, beside.into_iter().collect())
    };
    super::note::note(world, ctx, at, doing, &right, &set).await
}
