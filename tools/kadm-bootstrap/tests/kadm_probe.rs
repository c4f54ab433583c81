//! The look across machines: ports, ways and disks, before one is touched.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail so")]

mod site;

use cluster_doc::Exit;
use site::Site;

/// All that is wrong with all machines stands in one message, and nothing was touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_of_all_machines_in_one_message() {
    let site = Site::new(1, 2).await;
    let document = site.document();
    // A slow disk is a warning alone; a load balancer that is down and a port that is taken are faults.
    let put = |host: &str, path: &str, text: &str| {
        site.hosts.find(host).unwrap().machine().fs.put(path, text, 0o644, "root", "root");
    };
    put("cp-1", "/etc/lab/fsync", "212 48700 90100");
    for argv in [&["apt-get", "update"][..], &["apt-get", "install", "-y", "haproxy"]] {
        assert_eq!(site.hosts.exec("w-2", argv).await.unwrap().exit, 0);
    }
    put(
        "w-2",
        "/etc/haproxy/haproxy.cfg",
        "frontend odd\n  mode tcp\n  bind *:10250\n  default_backend odd\nbackend odd\n",
    );
    assert_eq!(site.hosts.exec("w-2", &["systemctl", "restart", "haproxy"]).await.unwrap().exit, 0);
    assert_eq!(site.hosts.exec("lb-1", &["systemctl", "stop", "haproxy"]).await.unwrap().exit, 0);
    let mark = site.world.journal.len();
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    let vip = format!("it does not reach {}:6443 (connection refused)", site.world.net.host(10));
    for word in [
        vip.as_str(),
        "cp-1: its disk took 48.7 ms to keep a write (99th percentile of 212",
        "listens on its port 10250",
        "lb-render check; vip-keepalive check",
    ] {
        assert!(ran.err.contains(word), "{word} in {}", ran.err);
    }
    assert_eq!(ran.err.matches("warning: cp-1").count(), 1, "{}", ran.err);
    assert!(site.changes(mark).is_empty(), "{:#?}", site.changes(mark));
    let check = site.run(&["check"], &document).await;
    assert_eq!(check.exit, Exit::Differs);
    assert!(check.out.contains("48.7 ms"), "{}", check.out);

    // Put right, it goes on.
    assert_eq!(site.hosts.exec("lb-1", &["systemctl", "start", "haproxy"]).await.unwrap().exit, 0);
    assert_eq!(site.hosts.exec("w-2", &["systemctl", "stop", "haproxy"]).await.unwrap().exit, 0);
    site.done(&[], &document).await;
    site.nothing_unknown();
}

/// Once the cluster lives, `check` tells what etcd itself counted of its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_s_own_figure_is_told() {
    let site = Site::new(1, 1).await;
    let document = site.document();
    assert_eq!(site.run(&[], &document).await.exit, Exit::Done);
    site.network().await;
    let check = site.run(&["check"], &document).await;
    assert_eq!(check.exit, Exit::Done, "{}{}", check.out, check.err);
    let figure =
        "cp-1: its etcd takes 1.9 ms (99th percentile of 10000 fsyncs since etcd began) to keep a write";
    assert!(check.out.contains(figure), "{}", check.out);
    site.hosts.find("cp-1").unwrap().machine().fs.put(
        "/etc/lab/wal",
        "0.008 100\n0.016 900\n0.032 1000\n+Inf 1000\n",
        0o644,
        "root",
        "root",
    );
    let check = site.run(&["check"], &document).await;
    assert_eq!(check.exit, Exit::Differs, "{}", check.out);
    assert!(
        check.out.contains("its etcd takes 30.4 ms") && check.out.contains("less than 10 ms"),
        "{}",
        check.out
    );
    site.nothing_unknown();
}

/// After a first boot apt-daily holds the package lists for a while, and apt-get waits for dpkg's lock alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn package_lists_that_somebody_holds_are_waited_for() {
    let site = Site::new(1, 1).await;
    let said = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)\n\
        E: Unable to lock directory /var/lib/apt/lists/";
    let update = "w-1 env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update";
    let fault = |times, said: &str| lab::Fault {
        window: lab::Window::Ssh,
        matching: update.into(),
        skip: 0,
        times,
        action: lab::Action::Exit(100, said.into()),
    };
    // What is no matter of waiting is told.
    site.world.faults.inject(fault(1, "E: Failed to fetch http://deb.debian.org"));
    let ran = site.run(&[], &site.document()).await;
    assert!(ran.exit != Exit::Done && ran.err.contains("Failed to fetch"), "{:?} {}", ran.exit, ran.err);
    site.world.faults.clear();
    site.world.faults.inject(fault(3, said));
    site.done(&[], &site.document()).await;
    assert_eq!(site.world.faults.left(update), Some(0));
    site.nothing_unknown();
}
