//! The seed of a first boot: made, uploaded, put in; and away again once nobody needs it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use remote::{Host, NewHostKey, RemoteFile};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use stage::{Ctx, Exit, Failure, Waiting};

use super::guest::{borne, config, config_path, marked, noted_keys, runs};
use super::note::note;
use super::persist::{Look, persist};
use crate::digest::hex;
use crate::first_boot::FirstBoot;
use crate::mark::Mark;
use crate::options::{Options, Properties, mac};
use crate::pve::{Class, Content, Error, Request, Upload, encode, list, text};
use crate::seed::{attached, keyed};
use crate::ssh;
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How long cloud-init may go on after the machine answers.
const FINISHING: Duration = Duration::from_secs(600);
/// How long a machine that has answered may refuse us.
const ACCOUNT: Duration = Duration::from_secs(120);
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
    fn volume(&self, file: &str) -> String {
        format!("{}:iso/{file}", self.storage)
    }

    /// True when the drive holds this seed.
    fn holds(&self, options: &Options, file: &str) -> bool {
        options.get(self.slot).is_some_and(|d| Properties::parse(d).head == Some(self.volume(file)))
    }
}

/// Makes a host key, uploads the seed with it, and notes the public half in the same change that puts it in. When
/// another run is at the same machine, the first to note its key goes on, and the other ends here.
pub(super) async fn plant(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    place: &Place<'_>,
    before: &[String],
    boot: &FirstBoot,
    doing: &str,
) -> Result<(), Failure> {
    let at = place.at;
    let failed = |e: Error| e.failure(doing, &world.client.grantee());
    let made = |e: remote::Error| fleet::failure(doing, &e);
    let key = NewHostKey::random().map_err(made)?;
    let options = config(world, at).await.map_err(failed)?;
    let Some((_, mac)) = options.get("net0").and_then(|net| mac(net)) else {
        return Err(Failure::precondition(doing).because("it has no network card net0"));
    };
    let cluster = &want.design.cluster;
    let earlier = attached(cluster, &options);
    let file = keyed(place.file, key.public());
    let image = Bytes::from(boot.image(&mac, key.public(), &key.private().map_err(made)?));
    let digest = hex(&Sha256::digest(&image));
    // An upload to another node is passed on with scp, which has lost files (CAPMOX issue 112): ask the node itself.
    let request = Request::post(format!("/nodes/{}/storage/{}/upload", at.node, place.storage))
        .with("content", "iso")
        .with("checksum-algorithm", "sha256")
        .with("checksum", digest)
        .with_upload(Upload { name: file.clone(), content: Content::Bytes(image) })
        .asked_at(place.address.map(|a| world.client.base_at(a)));
    // Sending it again is sending the same.
    persist(world, ctx, doing, || world.client.run(ctx, &request), || async { Ok(Look::NotYet) }).await?;
    let (file, lost) = (&file, &AtomicBool::new(false));
    let attempt = || async {
        let told = world.client.read(Request::get(config_path(at))).await?;
        let have = crate::observe::options(&told);
        let (mut mark, description) = borne(&have, at)?;
        let ours = mark.host_keys.iter().any(|k| k == key.public());
        // One that begins anew must still be off: another run may have switched it on with the seed that it made.
        let taken = || async {
            Ok::<_, Error>(
                !before.is_empty() && runs(world, at, Look::Done, Look::NotYet).await? == Look::Done,
            )
        };
        if !ours && (mark.host_keys != *before || taken().await?) {
            lost.store(true, Ordering::Relaxed);
            return Ok(());
        }
        mark.host_keys = vec![key.public().to_owned()];
        mark.proven = false;
        // At once: a worker would look at the digest before it waits for its turn.
        let mut request = Request::put(config_path(at))
            .with("description", mark.write(description))
            .with(place.slot, format!("{},media=cdrom", place.volume(file)));
        // It is changed only as we saw it.
        if let Some(digest) = text(&told, "digest") {
            request = request.with("digest", digest);
        }
        match world.client.run(ctx, &request).await {
            // Whoever noted another key first needs none of ours.
            Err(error) if error.class() == Class::Gone => {
                let mark = marked(&config(world, at).await?);
                if mark.is_some_and(|m| m.host_keys == *before) {
                    return Err(error);
                }
                lost.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    };
    let look = || async {
        let have = config(world, at).await?;
        let noted = marked(&have).is_some_and(|m| m.host_keys.iter().any(|k| k == key.public()));
        Ok(if noted && place.holds(&have, file) { Look::Done } else { Look::NotYet })
    };
    persist(world, ctx, doing, attempt, look).await?;
    let first = !lost.load(Ordering::Relaxed);
    if first && runs(world, at, Look::Done, Look::NotYet).await.map_err(failed)? == Look::Done {
        // It was switched on before: by another run, with that one's seed, or by its node that came back, with none.
        restore(world, ctx, place, before, earlier.as_ref(), doing).await?;
        lost.store(true, Ordering::Relaxed);
    }
    if lost.load(Ordering::Relaxed) {
        delete(world, ctx, &at.node, place.storage, file, doing).await?;
        return Err(Failure::transient(doing)
            .because("another run noted its host key first, or it was switched on meanwhile")
            .hint("wait until nobody else is at it, then run again"));
    }
    match earlier {
        // The seed of a run that broke off, which nothing names any more.
        Some((_, storage, old)) if old != *file => delete(world, ctx, &at.node, &storage, &old, doing).await,
        _ => Ok(()),
    }
}

/// Puts the host keys back into the mark, and the seed into the drive, that it had before.
async fn restore(
    world: &World,
    ctx: &Ctx,
    place: &Place<'_>,
    keys: &[String],
    seed: Option<&(String, String, String)>,
    doing: &str,
) -> Result<(), Failure> {
    let at = place.at;
    let drive = match seed {
        Some((_, storage, file)) => format!("{storage}:iso/{file},media=cdrom"),
        None => "none,media=cdrom".to_owned(),
    };
    let right = |mark: &Mark, _: &Options| mark.host_keys == keys;
    let write = |mark: Mark, _: &Options| {
        (Mark { host_keys: keys.to_vec(), ..mark }, [(place.slot.to_owned(), drive.clone())].into())
    };
    note(world, ctx, at, doing, &right, &write).await
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
    // One that has gone silent since it was proven was moved, or switched off: another look tells.
    let failed = |e: remote::Error| match fleet::failure(doing, &e) {
        failure if failure.exit == Exit::Transient => failure.confined(),
        failure => failure,
    };
    let keys = &noted_keys(world, at, doing).await?;
    // While cloud-init sets up its instance anew it takes the account away for a moment.
    let connect = || async move {
        match Host::connect(ssh::target(want, &at.machine, at.kind, address, keys)).await {
            Ok(host) => Ok(Waiting::Seen(Ok(host))),
            Err(error @ remote::Error::Auth { .. }) => Ok(Waiting::NotYet(error.to_string())),
            Err(error) => Ok(Waiting::Seen(Err(error))),
        }
    };
    let host = ctx.wait_for(&format!("{at} to let us in"), ACCOUNT, connect).await?.map_err(failed)?;
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
        // Noted before it is so: one that goes off right after that is not begun anew.
        let proven = |mark: &Mark, _: &Options| mark.proven;
        let write = |mark: Mark, _: &Options| (Mark { proven: true, ..mark }, Options::new());
        note(world, ctx, at, doing, &proven, &write).await?;
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

/// Takes the seed out of its drive, which stays, empty; gives the storage and the file that were in it.
pub(super) async fn eject(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    at: &At,
    doing: &str,
) -> Result<Option<(String, String)>, Failure> {
    let failed = |e: Error| e.failure(doing, &world.client.grantee());
    let cluster = &want.design.cluster;
    let options = config(world, at).await.map_err(failed)?;
    let Some((slot, storage, file)) = attached(cluster, &options) else { return Ok(None) };
    let slot = &slot;
    let look = || async move {
        let have = config(world, at).await?;
        Ok(if attached(cluster, &have).is_some() { Look::NotYet } else { Look::Done })
    };
    let attempt = || async move {
        let request = Request::post(config_path(at)).with(slot, "none,media=cdrom");
        world.client.run(ctx, &request).await
    };
    persist(world, ctx, doing, attempt, look).await?;
    Ok(Some((storage, file)))
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
