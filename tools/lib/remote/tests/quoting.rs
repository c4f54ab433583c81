//! What is quoted comes out of real shells as it went in.

// Helpers outside #[test] functions count as tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command as Process, Stdio};

use proptest::prelude::*;
use remote::{Command, quote};

fn words_of(shell: &str, line: &str) -> Vec<String> {
    let output = Process::new(shell)
        .args(["-c", line])
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{shell}: {e}"));
    assert!(output.status.success(), "{shell}: {line}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words: Vec<String> = text.split('\0').map(str::to_owned).collect();
    assert_eq!(words.pop().as_deref(), Some(""));
    words
}

fn shells() -> impl Iterator<Item = &'static str> {
    ["/bin/sh", "/bin/bash"].into_iter().filter(|shell| std::path::Path::new(shell).exists())
}

// Any text, and text made of what a shell looks at.
fn argument() -> impl Strategy<Value = String> {
    prop_oneof!["[^\\x00]{0,12}", "[-a-z '\"\\\\$`!*?~{}()<>|&;#=%\\[\\]\n\t^]{0,12}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arguments_survive_a_shell(args in prop::collection::vec(argument(), 1..6)) {
        let line = args.iter().fold(r"printf '%s\0'".to_owned(), |line, arg| line + " " + &quote(arg));
        for shell in shells() {
            prop_assert_eq!(&words_of(shell, &line), &args);
        }
    }

    #[test]
    fn a_command_line_survives_a_shell(args in prop::collection::vec(argument(), 1..6)) {
        let command = Command::sh(r#"printf '%s\0' "$@""#).args(args.clone()).env("A", "b c");
        for shell in shells() {
            prop_assert_eq!(&words_of(shell, &command.line()), &args);
        }
    }
}

#[test]
fn a_keyword_or_an_assignment_is_a_command() {
    for word in ["if", "for", "case", "while", "A=b"] {
        let line = Command::new(word).line();
        let output = Process::new("/bin/sh").args(["-c", &line]).output().unwrap();
        assert_eq!(output.status.code(), Some(127), "{line}");
    }
}
