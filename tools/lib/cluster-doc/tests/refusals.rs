//! Each document in `refusals/` is refused with exactly the words beside it.
//!
//! `BLESS=1 cargo test -p cluster-doc --test refusals` writes the words anew, for review by `git diff`.

use std::fs;
use std::path::Path;

use cluster_doc::{Document, Section};

fn words(text: &[u8]) -> Option<String> {
    match Document::parse(text) {
        Err(wrong) => Some(wrong.to_string()),
        Ok(doc) => doc.spec(Section::ALL).err().map(|wrong| wrong.to_string()),
    }
}

#[test]
fn golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refusals");
    let mut cases = 0;
    let mut wrong = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for input in entries.iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        cases += 1;
        let name = input.file_name().unwrap().to_string_lossy().into_owned();
        let Some(said) = words(&fs::read(input).unwrap()) else {
            wrong.push(format!("{name}: was not refused"));
            continue;
        };
        let expectation = input.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expectation, format!("{said}\n")).unwrap();
        }
        match fs::read_to_string(&expectation) {
            Ok(expected) if expected.trim_end() == said => {}
            Ok(expected) => wrong.push(format!("{name}: said\n{said}\nexpected\n{expected}")),
            Err(_) => wrong.push(format!("{name}: has no expectation")),
        }
    }
    assert!(cases >= 20, "only {cases} cases found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_no_document() {
    let deep = "[".repeat(1 << 20);
    let spaces = " ".repeat(cluster_doc::MAX_BYTES + 1);
    let cases: [(&[u8], &str); 9] = [
        (b"", "the input is empty"),
        (b" \n\t", "the input is empty"),
        (b"{", "ends too early"),
        (b"{\"a\": 1, \"a\": 2}", "duplicate key: a stands twice; keep one of them (line 1,"),
        (b"\xff{}", "byte 0xff is no UTF-8"),
        (b"{\0}", "is no JSON"),
        (deep.as_bytes(), "is nested too deeply"),
        (spaces.as_bytes(), "is larger than 16 MiB"),
        (b"[]", "is no JSON object"),
    ];
    for (input, expected) in cases {
        let said = Document::parse(input).unwrap_err().to_string();
        assert!(said.contains(expected), "said {said:?}, expected {expected:?}");
    }
}

proptest::proptest! {
    /// Whatever the bytes, the answer is a document or a refusal.
    #[test]
    fn never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = words(&bytes);
    }

    /// Any one byte of a good document changed: a document or a refusal with a place.
    #[test]
    fn one_byte_off(at in 0usize..4000, byte in proptest::num::u8::ANY) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/clusters/ha.json");
        let mut text = fs::read(path).unwrap();
        let at = at % text.len();
        text[at] = byte;
        if let Some(said) = words(&text) {
            proptest::prop_assert!(said.contains("line ") || said.contains("empty"), "no place in {said}");
        }
    }
}
