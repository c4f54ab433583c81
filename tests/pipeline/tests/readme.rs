//! The READMEs are executed: blocks fenced `sh` run as they stand, and links lead somewhere.
//!
//! A `sh` block needs no lab: it uses the programs offline only. What needs a lab, hardware or root is fenced `console`.
//! `<!-- exit N -->` before a block is the exit code that it ends in, 0 unless said; a block fenced `text`
//! right after it is exactly what it prints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

use std::path::{Path, PathBuf};
use std::process::Command;

const TOOLS: [&str; 8] = [
    "pve-vm",
    "lb-render",
    "vip-keepalive",
    "kadm-bootstrap",
    "cni-install",
    "nfs-provision",
    "ingress-install",
    "obs-install",
];
const OFFLINE: [&str; 7] = ["lint", "schema", "get", "render", "completions", "--version", "--help"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Where Cargo puts the workspace's programs: two folders above this test.
fn programs() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf()
}

/// A fenced block.
#[derive(Debug, Default)]
struct Block {
    line: usize,
    language: String,
    content: String,
    /// The code of `<!-- exit N -->` before it.
    exit: i32,
    /// True when nothing but blank lines stands between it and the block before.
    follows: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    let mut open = false;
    let (mut exit, mut prose) = (0, true);
    for (n, line) in text.lines().enumerate() {
        match (open, line.strip_prefix("```")) {
            (false, Some(language)) => {
                let follows = !prose && !all.is_empty();
                all.push(Block { line: n + 1, language: language.into(), exit, follows, ..Block::default() });
                open = true;
                (exit, prose) = (0, false);
            }
            (true, Some(_)) => open = false,
            (true, None) => all.last_mut().unwrap().content += &format!("{line}\n"),
            (false, None) => {
                let code = line.strip_prefix("<!-- exit ").and_then(|r| r.strip_suffix(" -->"));
                exit = code.map_or(if line.is_empty() { exit } else { 0 }, |c| c.parse().unwrap());
                prose |= !line.is_empty();
            }
        }
    }
    assert!(!open, "a block is not closed");
    all
}

/// The programs that a block runs; each with a verb that touches nothing.
fn used(block: &Block) -> Vec<&'static str> {
    let words: Vec<&str> = block.content.split_whitespace().collect();
    let mut used = Vec::new();
    for (n, word) in words.iter().enumerate() {
        let Some(tool) = TOOLS.iter().find(|t| *t == word) else { continue };
        let verb = words.get(n + 1).copied().unwrap_or_default();
        assert!(
            OFFLINE.contains(&verb),
            "README.md:{}: `{tool} {verb}` needs more than the programs; fence the block as console",
            block.line
        );
        used.push(*tool);
    }
    used
}

#[test]
fn the_blocks_of_the_readme_run_and_print_what_they_say() {
    let readme = text("README.md");
    let all = blocks(&readme);
    let bin = programs();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut found = 0;
    for (n, block) in all.iter().enumerate().filter(|(_, b)| b.language == "sh") {
        found += 1;
        let used = used(block);
        assert!(!used.is_empty(), "README.md:{}: the block runs none of the programs", block.line);
        if let Some(missing) = used.iter().find(|tool| !bin.join(tool).is_file()) {
            println!("skipped: README.md:{}: {missing} is not built in {}", block.line, bin.display());
            continue;
        }
        let script = format!("exec 2>&1 </dev/null\n{}", block.content);
        let output = Command::new("sh")
            .args(["-euc", &script])
            .current_dir(root())
            .env("PATH", &path)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(block.exit),
            "README.md:{}: the block printed\n{printed}",
            block.line
        );
        if let Some(expected) = all.get(n + 1).filter(|next| next.language == "text" && next.follows) {
            assert_eq!(printed, expected.content, "README.md:{}: it prints something else", expected.line);
        }
    }
    assert!(found > 1, "README.md has {found} blocks fenced sh: nothing was tested");
}

#[test]
fn the_readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; 150 at most");
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for file in ["README.md", "tools/README.md", "tests/lab/README.md"] {
        let folder = root().join(file).parent().unwrap().to_path_buf();
        let text = text(file);
        let targets: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(!targets.is_empty() || file.starts_with("tests/"), "{file} links to nothing");
        for target in targets.into_iter().filter(|t| !t.contains("://") && !t.starts_with('#')) {
            if !folder.join(target.split('#').next().unwrap()).exists() {
                wrong.push(format!("{file}: {target} does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn blocks_are_read_as_they_stand() {
    let all =
        blocks("a\n\n```sh\nx\n```\n\n```text\ny\n```\n\n<!-- exit 3 -->\n```sh\nz\n```\nb\n```text\n```\n");
    let shape: Vec<_> = all.iter().map(|b| (b.language.as_str(), b.exit, b.follows)).collect();
    assert_eq!(shape, [("sh", 0, false), ("text", 0, true), ("sh", 3, false), ("text", 0, false)]);
    assert_eq!(all[0].content, "x\n");
}
