//! Golden directories: a document and what is seen give a plan.
//!
//! A case is a folder below `tests/golden`: `document.json`, `seen.json`, perhaps `flags` (one a line); expected are
//! `plan.txt`, and `teardown.txt` or `status.json` where they stand. `BLESS=1` writes what is expected anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use cluster_doc::Document;
use pve_vm::args::Flags;
use pve_vm::seen::Seen;
use pve_vm::{plan, status, teardown, want};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut all: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    assert!(!all.is_empty(), "no golden case was found");
    all
}

fn actual(case: &Path) -> Vec<(&'static str, String)> {
    let text = fs::read(case.join("document.json")).unwrap();
    let doc = Document::parse(text).unwrap();
    let flags = fs::read_to_string(case.join("flags")).unwrap_or_default();
    let flags = Cli::parse_from(std::iter::once("pve-vm").chain(flags.lines())).flags;
    let mut design = want::design(&flags, &doc, &doc.spec(want::READS).unwrap()).unwrap();
    design.grantee = "--users 'kubeline@pve' --tokens 'kubeline@pve!cli'".to_owned();
    let seen: Seen = serde_json::from_slice(&fs::read(case.join("seen.json")).unwrap()).unwrap();
    let first = plan(&design, &seen);
    assert_eq!(first, plan(&design, &seen), "the plan is a function");
    let section = serde_json::to_string_pretty(&status(&design, &seen)).unwrap() + "\n";
    vec![
        ("plan.txt", first.text("pve-vm")),
        ("teardown.txt", teardown(&design, &seen).text("pve-vm")),
        ("status.json", section),
    ]
}

#[test]
fn documents_and_worlds_give_plans() {
    let update = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let mut compared = 0;
        for (file, text) in actual(&case) {
            let path = case.join(file);
            if update && (path.exists() || file == "plan.txt") {
                fs::write(&path, &text).unwrap();
            }
            match fs::read_to_string(&path) {
                Ok(expected) if expected == text => compared += 1,
                Ok(expected) => {
                    wrong.push(format!("{}\nexpected:\n{expected}\nfound:\n{text}", path.display()))
                }
                Err(_) => {}
            }
        }
        if compared == 0 {
            wrong.push(format!("{} expects nothing", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 writes them", wrong.join("\n"));
}
