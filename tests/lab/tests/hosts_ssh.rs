//! The SSH window: log in, run, write, switch off.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail so")]

mod site;

use std::time::Duration;

use lab::world::Machines;
use lab::{Action, Fault, Window};
use site::{Site, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_in_run_and_write() {
    let site = Site::new();
    let host = site.machine("lb-1", 11).await;
    assert_eq!(host.host_key.to_openssh().unwrap().trim(), site.hosts.host_key("lb-1").unwrap());
    assert!(site.try_connect(11, "root").await.is_none(), "root is refused");

    assert_eq!(host.ok("hostname").await, "lb-1\n");
    assert_eq!(host.ok("id -un").await, "kubeline\n");
    assert_eq!(host.ok("sudo -n -- id -u").await, "0\n");
    assert_eq!(host.run("cat /etc/ssh/ssh_host_ed25519_key").await.exit, Some(1));

    let write =
        "sudo -n -- sh -c '# kubeline: write v1\nset -eu' sh /etc/haproxy/haproxy.cfg 640 root root 5";
    assert_eq!(host.feed(write, b"hello").await.exit, Some(0));
    assert_eq!(host.feed(write, b"hello").await.exit, Some(80));
    assert_eq!(host.feed(write, b"hell").await.exit, Some(83));
    assert_eq!(
        host.ok("sudo -n -- stat -c '%a %U %G %s' /etc/haproxy/haproxy.cfg").await,
        "640 root root 5\n"
    );
    let changed: Vec<_> = site.world.journal.changing_since(0).iter().map(|e| e.request.clone()).collect();
    assert_eq!(changed, ["write v1 /etc/haproxy/haproxy.cfg 640 root root 5"]);
    let read = "sudo -n -- sh -c '# kubeline: read v1\n' sh /etc/haproxy/haproxy.cfg 100";
    assert_eq!(host.ok(read).await, "hello");
    site.nothing_unknown();

    assert_eq!(host.run("frobnicate --now").await.exit, Some(127));
    assert_eq!(host.run("echo $HOME").await.exit, Some(127));
    assert_eq!(host.run("sh -c 'echo hi'").await.exit, Some(127));
    assert_eq!(site.world.journal.unknown().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_lives_with_its_connection() {
    let site = Site::new();
    let first = site.machine("lb-1", 11).await;
    let second = site.connect(11).await;
    let lock = |who: &str| format!("sudo -n -- sh -c '# kubeline: lock v1\n' sh '{who}'");
    let mut held = first.handle.channel_open_session().await.unwrap();
    held.exec(true, lock("ann")).await.unwrap();
    loop {
        match held.wait().await {
            Some(russh::ChannelMsg::Data { data }) => {
                assert_eq!(&data[..], b"held\n");
                break;
            }
            Some(_) => {}
            None => panic!("no answer"),
        }
    }
    let refused = second.run(&lock("bob")).await;
    assert_eq!((refused.exit, refused.out.as_str()), (Some(84), "ann\n"));
    drop(held);
    drop(first);
    until("the lock is free", async || second.run(&lock("bob")).await.exit == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_and_disks() {
    let site = Site::new();
    let mut boot = site.boot("nfs-1", 60);
    boot.vmid = 3001;
    site.hosts.power_on(boot.clone());
    let host = site.connect(60).await;
    host.put("/etc/kept", "x").await;
    host.ok("sudo -n -- sysctl -w net.ipv4.ip_forward=1").await;
    site.hosts.power_off(3001);
    until("the connection is gone", async || host.run("true").await.exit.is_none()).await;
    assert!(site.try_connect(60, "kubeline").await.is_none());
    assert!(site.hosts.agent(3001).is_none());
    site.hosts.power_on(boot.clone());
    let host = site.connect(60).await;
    assert_eq!(host.ok("cat /etc/kept").await, "x");
    assert_eq!(host.ok("sysctl -n net.ipv4.ip_forward").await, "0\n");
    let view = site.hosts.agent(3001).unwrap();
    assert_eq!((view.hostname.as_str(), view.interfaces.len()), ("nfs-1", 2));
    assert!(site.hosts.agent_read(3001, "/etc/ssh/ssh_host_ed25519_key.pub").is_some());
    site.hosts.power_off(3001);
    site.hosts.erased(3001);
    boot.generation = 1;
    site.hosts.power_on(boot);
    let host = site.connect(60).await;
    assert_eq!(host.run("cat /etc/kept").await.exit, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults() {
    let site = Site::new();
    let host = site.machine("lb-1", 11).await;
    let inject = |action: Action| {
        site.world.faults.inject(Fault {
            window: Window::Ssh,
            matching: "lb-1 touch".into(),
            skip: 0,
            times: 1,
            action,
        });
    };
    inject(Action::Exit(3, "no luck".into()));
    let said = host.run("touch /tmp/a").await;
    assert_eq!((said.exit, said.err.as_str()), (Some(3), "no luck\n"));
    assert_eq!(host.run("test -e /tmp/a").await.exit, Some(1));
    inject(Action::DropAfter);
    assert_eq!(host.run("touch /tmp/a").await.exit, None);
    let host = site.connect(11).await;
    assert_eq!(host.run("test -e /tmp/a").await.exit, Some(0));
    inject(Action::DropBefore);
    assert_eq!(host.run("touch /tmp/b").await.exit, None);
    let host = site.connect(11).await;
    assert_eq!(host.run("test -e /tmp/b").await.exit, Some(1));
    inject(Action::Hang);
    assert!(tokio::time::timeout(Duration::from_millis(100), host.run("touch /tmp/b")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_and_units() {
    let site = Site::new();
    let host = site.machine("w-1", 31).await;
    assert_eq!(host.run("haproxy -v").await.exit, Some(127));
    assert_eq!(host.run("dpkg -s haproxy").await.exit, Some(1));
    let install =
        "sudo -n -- env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends haproxy";
    let said = host.run(install).await;
    assert_eq!((said.exit, said.err.as_str()), (Some(100), "E: Unable to locate package haproxy\n"));
    host.ok("sudo -n -- apt-get update").await;
    host.ok(install).await;
    assert_eq!(
        host.ok("dpkg-query -W -f='${db:Status-Status} ${Version}\\n' haproxy").await,
        "installed 3.0.11-1+deb13u4\n"
    );
    assert_eq!(host.ok("systemctl is-active haproxy").await, "active\n");
    assert_eq!(host.ok("systemctl is-enabled haproxy").await, "enabled\n");
    assert_eq!(
        host.ok("systemctl show haproxy -p ActiveState,SubState,UnitFileState").await,
        "ActiveState=active\nSubState=running\nUnitFileState=enabled\n"
    );
    assert_eq!(host.run("systemctl stop haproxy").await.exit, Some(1), "only root may");
    host.ok("sudo -n -- systemctl disable --now haproxy").await;
    assert_eq!(host.run("systemctl is-active haproxy").await.exit, Some(3));
    assert_eq!(host.run("systemctl is-active nosuch").await.exit, Some(4));

    assert_eq!(host.run("sudo -n -- apt-get install -y kubelet").await.exit, Some(100));
    host.put(
        "/etc/apt/sources.list.d/kubernetes.list",
        "deb [signed-by=/etc/apt/keyrings/k8s.asc] https://pkgs.k8s.io/core:/stable:/v1.36/deb/ /\n",
    )
    .await;
    assert_eq!(host.run("sudo -n -- apt-get update").await.exit, Some(100), "not signed");
    let key = host.ok("curl -fsSL https://pkgs.k8s.io/core:/stable:/v1.36/deb/Release.key").await;
    host.put("/etc/apt/keyrings/k8s.asc", &key).await;
    host.ok("sudo -n -- apt-get update").await;
    host.ok("sudo -n -- apt-get install -y kubelet=1.36.2-1.1 'kubeadm=1.36.2-*'").await;
    host.ok("sudo -n -- apt-mark hold kubelet kubeadm").await;
    assert_eq!(host.ok("apt-mark showhold").await, "kubeadm\nkubelet\n");
    assert_eq!(host.run("sudo -n -- apt-get install -y kubelet=1.36.3-1.1").await.exit, Some(100), "held");
    assert_eq!(host.ok("systemctl show kubelet -p SubState --value").await, "auto-restart\n");
    site.nothing_unknown();
}
