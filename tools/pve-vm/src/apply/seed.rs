//! The seed of a first boot: made, uploaded, put in; and away again once nobody needs it.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use remote::{Host, NewHostKey, RemoteFile};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use stage::{Ctx, Failure, Waiting};

use super::guest::{config, config_path, marked, noted_keys};
use super::persist::{Look, persist};
use crate::image::hex;
use crate::mark::Mark;
use crate::options::{Properties, mac};
use crate::pve::{Content, Error, Request, Upload, encode, list, text};
use crate::seed::FirstBoot;
use crate::ssh;
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How long cloud-init may go on after the machine answers.
const FINISHING: Duration = Duration::from_secs(600);
/// The file that switches cloud-init off for all later boots (cloud-init's documentation, "Disable cloud-init").
const DISABLED: &str = "/etc/cloud/cloud-init.disabled";
/// What cloud-init leaves when it has ended, in boots that it runs in.
const RESULT: &str = "/run/cloud-init/result.json";
const WORDS: &str = "# kubeline: the first boot is over. Its seed is gone, and this machine keeps its address and host key.\n";

/// Where a seed is.
pub(super) struct Place<'p> {
    pub(super) at: &'p At,
    /// The address of the Proxmox node.
    pub(super) address: Option<&'p str>,
    pub(super) storage: &'p str,
    pub(super) file: &'p str,
    pub(super) slot: &'p str,
}

impl Place<'_> {
    fn volume(&self) -> String {
        format!("{}:iso/{}", self.storage, self.file)
    }

    /// True when the drive holds the seed.
    fn holds(&self, options: &crate::options::Options) -> bool {
        options.get(self.slot).is_some_and(|d| Properties::parse(d).head == Some(self.volume()))
    }
}

/// Makes a host key, uploads the seed with it, and notes the public half in the same change that puts it in.
pub(super) async fn plant(
    world: &World,
    ctx: &Ctx,
    place: &Place<'_>,
    boot: &FirstBoot,
    doing: &str,
) -> Result<(), Failure> {
    let at = place.at;
    let made = |e: remote::Error| fleet::failure(doing, &e);
    let key = NewHostKey::random().map_err(made)?;
    let options = config(world, at).await.map_err(|e| e.failure(doing, &world.client.grantee()))?;
    let Some((_, mac)) = options.get("net0").and_then(|net| mac(net)) else {
        return Err(Failure::precondition(doing).because("it has no network card net0"));
    };
    let image = Bytes::from(boot.image(&mac, key.public(), &key.private().map_err(made)?));
    let digest = hex(&Sha256::digest(&image));
    // An upload to another node is passed on with scp, which has lost files (CAPMOX issue 112): ask the node itself.
    let request = Request::post(format!("/nodes/{}/storage/{}/upload", at.node, place.storage))
        .with("content", "iso")
        .with("checksum-algorithm", "sha256")
        .with("checksum", digest)
        .with_upload(Upload { name: place.file.to_owned(), content: Content::Bytes(image) })
        .asked_at(place.address.map(|a| world.client.base_at(a)));
    // Sending it again is sending the same.
    persist(world, ctx, doing, || world.client.run(ctx, &request), || async { Ok(Look::NotYet) }).await?;
    let attempt = || async {
        let have = config(world, at).await?;
        let description = have.get("description").map(String::as_str).unwrap_or_default();
        let Some(mut mark) = Mark::read(description) else { return Err(unmarked(at)) };
        mark.host_keys = vec![key.public().to_owned()];
        let request = Request::post(config_path(at))
            .with("description", mark.write(description))
            .with(place.slot, format!("{},media=cdrom", place.volume()));
        world.client.run(ctx, &request).await
    };
    let look = || async {
        let have = config(world, at).await?;
        let noted = marked(&have).is_some_and(|m| m.host_keys.iter().any(|k| k == key.public()));
        Ok(if noted && place.holds(&have) { Look::Done } else { Look::NotYet })
    };
    persist(world, ctx, doing, attempt, look).await
}

fn unmarked(at: &At) -> Error {
    Error::Strange { request: format!("GET {}", config_path(at)), why: "our mark is gone from it".to_owned() }
}

/// Waits until cloud-init has ended, then switches it off for good: without its seed a later boot would find no
/// data source, and on some images lose its address.
pub(super) async fn finished(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    address: Ipv4Addr,
    doing: &str,
) -> Result<(), Failure> {
    let failed = |e: remote::Error| fleet::failure(doing, &e);
    let keys = noted_keys(world, at, doing).await?;
    let host =
        Host::connect(ssh::target(want, &at.machine, at.kind, address, &keys)).await.map_err(failed)?;
    if host.read(DISABLED).await.map_err(failed)?.is_none() {
        let (host, what) = (&host, format!("cloud-init on {at}"));
        let result = ctx.wait_for(&what, FINISHING, || async move {
            Ok(match host.read(RESULT).await.map_err(failed)? {
                Some(result) => Waiting::Seen(result),
                None => Waiting::NotYet("it is still at work".to_owned()),
            })
        });
        let result = result.await.map_err(|f| f.hint(format!("on {address}: cloud-init status --long")))?;
        for error in errors(&result) {
            ctx.say(&format!("cloud-init on {} says: {error}", at.machine));
        }
        host.write(&RemoteFile::new(DISABLED, WORDS)).await.map_err(failed)?;
    }
    host.close().await;
    Ok(())
}

/// What went wrong in modules that the machine came up without.
fn errors(result: &[u8]) -> Vec<String> {
    let result: Value = serde_json::from_slice(result).unwrap_or_default();
    let errors = result.pointer("/v1/errors").map(list).unwrap_or_default();
    errors.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Takes the seed out of its drive; the drive stays, empty.
pub(super) async fn eject(world: &World, ctx: &Ctx, place: &Place<'_>, doing: &str) -> Result<(), Failure> {
    let look = || async {
        let have = config(world, place.at).await?;
        Ok(if place.holds(&have) { Look::NotYet } else { Look::Done })
    };
    let attempt = || async {
        if look().await? == Look::Done {
            return Ok(());
        }
        let request = Request::post(config_path(place.at)).with(place.slot, "none,media=cdrom");
        world.client.run(ctx, &request).await
    };
    persist(world, ctx, doing, attempt, look).await
}

/// Deletes the seed's file.
pub(super) async fn delete(
    world: &World,
    ctx: &Ctx,
    node: &str,
    storage: &str,
    file: &str,
    doing: &str,
) -> Result<(), Failure> {
    let volume = format!("{storage}:iso/{file}");
    let path = format!("/nodes/{node}/storage/{storage}/content");
    let request = Request::delete(format!("{path}/{}", encode(&volume)));
    let look = || async {
        let all = world.client.read(Request::get(&path).with("content", "iso")).await?;
        let there = list(&all).iter().any(|v| text(v, "volid").as_deref() == Some(volume.as_str()));
        Ok(if there { Look::NotYet } else { Look::Done })
    };
    persist(world, ctx, doing, || world.client.run(ctx, &request), look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_cloud_init_is_read() {
        let good = br#"{"v1": {"datasource": "DataSourceNoCloud [seed=/dev/sr0]", "errors": []}}"#;
        assert_eq!(errors(good), Vec::<String>::new());
        let bad = br#"{"v1": {"datasource": null, "errors": ["('ssh', KeyError('x'))"]}}"#;
        assert_eq!(errors(bad), ["('ssh', KeyError('x'))"]);
    }
}
