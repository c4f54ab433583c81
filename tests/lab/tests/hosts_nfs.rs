//! NFS: exports, mounts, and who may write.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail so")]

mod site;

use site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_decide_who_writes() {
    let site = Site::new();
    let server = site.machine("nfs-1", 60).await;
    let client = site.machine("w-1", 31).await;
    for host in [&server, &client] {
        host.ok("sudo -n -- apt-get update").await;
    }
    server.ok("sudo -n -- apt-get install -y nfs-kernel-server").await;
    server.ok("sudo -n -- mkfs.ext4 -q -L data /dev/sdb").await;
    server.ok("sudo -n -- mkdir -p /srv/nfs").await;
    server.put("/etc/fstab", "LABEL=data /srv/nfs ext4 defaults,nofail 0 2\n").await;
    server.ok("sudo -n -- mount /srv/nfs").await;
    assert_eq!(server.ok("findmnt -no SOURCE,FSTYPE -M /srv/nfs").await, "/dev/sdb ext4\n");
    server.ok("sudo -n -- install -d -m 0755 /srv/nfs/prod /srv/nfs/ro").await;
    let net = site.world.net.cidr();
    server
        .put(
            "/etc/exports.d/kubeline.exports",
            &format!("/srv/nfs/prod {net}(rw,sync,no_subtree_check,no_root_squash)\n/srv/nfs/ro *(ro,async,all_squash,anonuid=65534,anongid=65534)\n"),
        )
        .await;
    server.ok("sudo -n -- exportfs -ra").await;
    assert_eq!(
        server.ok("sudo -n -- exportfs -s").await,
        format!(
            "/srv/nfs/prod  {net}(sync,wdelay,hide,no_subtree_check,sec=sys,rw,no_root_squash,no_all_squash)\n\
             /srv/nfs/ro  *(async,wdelay,hide,no_subtree_check,sec=sys,ro,root_squash,all_squash)\n"
        )
    );
    let mount = format!("sudo -n -- mount -t nfs -o nfsvers=4.2 {}:/srv/nfs/prod /mnt", site.address(60));
    assert_eq!(client.run(&mount).await.exit, Some(32), "no client programs yet");
    client.ok("sudo -n -- apt-get install -y nfs-common").await;
    client.ok(&mount).await;
    assert_eq!(client.run("touch /mnt/mine").await.exit, Some(1), "root's directory");
    client.ok("sudo -n -- touch /mnt/roots").await;
    client.ok("sudo -n -- install -d -m 0777 /mnt/open").await;
    client.ok("touch /mnt/open/mine").await;
    assert_eq!(
        server.ok("stat -c '%U %n' /srv/nfs/prod/open/mine").await,
        "kubeline /srv/nfs/prod/open/mine\n"
    );

    // Root squashed: what root could do a moment ago, nobody cannot.
    server
        .put("/etc/exports.d/kubeline.exports", &format!("/srv/nfs/prod {net}(rw,sync,no_subtree_check)\n"))
        .await;
    server.ok("sudo -n -- exportfs -ra").await;
    assert_eq!(client.run("sudo -n -- touch /mnt/more").await.exit, Some(1));
    server.put("/etc/exports.d/kubeline.exports", "/srv/nfs/prod 10.0.0.0/24(rw,sync,nosuchopt)\n").await;
    let said = server.run("sudo -n -- exportfs -ra").await;
    assert_eq!(
        (said.exit, said.err.as_str()),
        (Some(1), "exportfs: /etc/exports.d/kubeline.exports:1: unknown keyword \"nosuchopt\"\n\n")
    );
    assert_eq!(
        client.run("cat /mnt/roots").await.err,
        "cat: cannot access '/mnt/roots': Stale file handle\n"
    );
    site.nothing_unknown();
}
