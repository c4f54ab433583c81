//! The readers of other programs' words, over the corpus of the fuzz targets and over damage to it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what it expects")]

#[path = "../../fuzz/readers.rs"]
mod readers;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use readers::READERS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = fuzz().join("corpus").join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

#[test]
fn every_reader_is_a_target_with_a_corpus() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (name, _) in READERS {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} is no target");
        let target = std::fs::read_to_string(fuzz().join(format!("targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("readers::{name}(data)")), "{target}");
    }
    for list in ["corpus", "targets"] {
        assert_eq!(std::fs::read_dir(fuzz().join(list)).unwrap().count(), READERS.len(), "{list}");
    }
}

#[test]
fn the_corpus_is_read() {
    for (name, reader) in READERS {
        for text in corpus(name) {
            reader(&text);
        }
    }
}

/// Cut anywhere, one byte flipped, and two files of the corpus grown together.
#[test]
fn no_damage_makes_a_reader_panic() {
    for (name, reader) in READERS {
        let corpus = corpus(name);
        let at = any::<prop::sample::Index>;
        let strategy = (0..corpus.len(), 0..corpus.len(), at(), at(), at(), 1..=u8::MAX);
        let mut runner = TestRunner::new_with_rng(
            Config { cases: 1500, failure_persistence: None, ..Config::default() },
            prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
        );
        let ran = runner.run(&strategy, |(one, other, cut, begin, flip, bits)| {
            let mut text = corpus[one].clone();
            text.truncate(cut.index(text.len() + 1));
            reader(&text);
            text.extend_from_slice(&corpus[other][begin.index(corpus[other].len() + 1)..]);
            if !text.is_empty() {
                let at = flip.index(text.len());
                text[at] ^= bits;
            }
            reader(&text);
            Ok(())
        });
        ran.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
