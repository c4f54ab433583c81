//! The seed's image in the eyes of programs that know ISO 9660.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on ends, and says what it skips")]

use std::process::Command;

use pve_vm::seed::iso::{File, image};

/// What a program prints, or `None` with the reason when it is not there.
fn said(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(e) => {
            println!("skipped {program}: {e}");
            None
        }
    }
}

#[test]
fn others_read_label_names_and_contents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.iso");
    let long = "x".repeat(5000);
    let files = [
        File { name: "user-data", content: long.as_bytes() },
        File { name: "meta-data", content: b"{}" },
        File { name: "network-config", content: b"version: 1\n" },
    ];
    std::fs::write(&path, image("cidata", &files)).unwrap();
    let path = path.to_str().unwrap();
    // What cloud-init's ds-identify looks by.
    if let Some(label) = said("blkid", &["-p", "-o", "value", "-s", "LABEL", path]) {
        assert_eq!(label.trim(), "cidata");
    }
    if let Some(kind) = said("blkid", &["-p", "-o", "value", "-s", "TYPE", path]) {
        assert_eq!(kind.trim(), "iso9660");
    }
    if let Some(names) = said("isoinfo", &["-J", "-f", "-i", path]) {
        assert_eq!(names.lines().collect::<Vec<_>>(), ["/meta-data", "/network-config", "/user-data"]);
    }
    if let Some(content) = said("isoinfo", &["-J", "-x", "/user-data", "-i", path]) {
        assert_eq!(content, long);
    }
    if let Some(content) = said("isoinfo", &["-x", "/META-DATA.;1", "-i", path]) {
        assert_eq!(content, "{}");
    }
}
