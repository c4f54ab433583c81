//! The sixth law for the whole chain: trouble strikes, the run ends well or in its exit code, the next one repairs.
#![allow(clippy::unwrap_used)] // A test says what it expects.

mod site;

use lab::{Action, Fault, Window};
use site::Site;

/// What strikes, and the exits that are right for it.
struct Trouble {
    name: &'static str,
    fault: Fault,
    flags: &'static [&'static str],
    exits: &'static [i32],
}

fn trouble(name: &'static str, window: Window, matching: &str, times: usize, action: Action) -> Trouble {
    let fault = Fault { window, matching: matching.to_owned(), skip: 0, times, action };
    Trouble { name, fault, flags: &[], exits: &[0, 5] }
}

fn troubles() -> Vec<Trouble> {
    use Window::{Kube, Pve, Ssh};
    let unknown = |status, text: &str| Action::StatusAfter(status, text.to_owned());
    let timeout = "can't lock file '/var/lock/qemu-server/lock-9000.conf' - got timeout";
    vec![
        trouble("Proxmox answers 500 to clones", Pve, "/clone", 3, Action::Status(500, timeout.into())),
        trouble("Proxmox answers 596, outcome unknown", Pve, "/clone", 2, unknown(596, "Broken pipe")),
        trouble("Proxmox drops before", Pve, "POST ", 3, Action::DropBefore),
        trouble("Proxmox drops after", Pve, "POST ", 3, Action::DropAfter),
        trouble("a clone task ends in got timeout", Pve, "/clone", 2, Action::TaskEnd(timeout.into())),
        Trouble {
            flags: &["--timeout", "4s"],
            exits: &[5],
            ..trouble("Proxmox hangs", Pve, "POST ", 1000, Action::Hang)
        },
        trouble("SSH drops as kubeadm init starts", Ssh, "kubeadm init", 1, Action::DropBefore),
        trouble("SSH drops when kubeadm init is done", Ssh, "kubeadm init", 1, Action::DropAfter),
        trouble("SSH drops when a join is done", Ssh, "kubeadm join", 2, Action::DropAfter),
        trouble("the API server is away", Kube, "", 40, Action::DropBefore),
        trouble("the API server restarts at writes", Kube, "PATCH", 20, Action::DropAfter),
        trouble(
            "the API server starts up",
            Kube,
            "",
            40,
            Action::Status(503, "apiserver is shutting down".into()),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_ends_well_or_in_its_exit_code_and_the_next_run_repairs() {
    let undisturbed = Site::new().await;
    let said = undisturbed.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    let same = undisturbed.picture();
    drop(undisturbed);

    let (mut well, mut code) = (0, 0);
    let troubles = troubles();
    for Trouble { name, fault, flags, exits } in &troubles {
        let site = Site::new().await;
        site.lab.world.faults.inject(fault.clone());
        let said = site.chain("up", flags).await;
        assert!(exits.contains(&said.exit), "{name}: exit {}\n{}", said.exit, said.stderr);
        let struck = site.lab.world.faults.left(&fault.matching).is_some_and(|left| left < fault.times);
        assert!(struck, "{name}: nothing was struck");
        if said.exit == 0 {
            well += 1;
        } else {
            code += 1;
            assert!(said.stderr.contains("hint: "), "{name}: no hint\n{}", said.stderr);
        }
        site.lab.world.faults.clear();
        let said = site.chain("up", &[]).await;
        assert_eq!(said.exit, 0, "{name}: the next run does not repair\n{}", said.stderr);
        let picture = site.picture();
        assert!(picture == same, "{name}:\n{picture}\nrather than\n{same}");
        site.assert_known();
    }
    println!(
        "pipeline faults: {}, {well} ended well, {code} in their exit code, all repaired",
        troubles.len()
    );
}
