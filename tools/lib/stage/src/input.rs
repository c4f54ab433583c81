//! Reading the document: bounded, from a file or from the stage before.

use std::io::Read;
use std::path::Path;

use cluster_doc::{Document, Exit, MAX_BYTES, Refusals};

use crate::Failure;

/// Reads the document.
pub(crate) fn document(
    stdin: Option<Box<dyn Read + Send>>,
    file: Option<&Path>,
) -> Result<Document, Failure> {
    let bytes = match (file, stdin) {
        (Some(path), _) => {
            let cannot = |e: std::io::Error| {
                Failure::new(Exit::Precondition, format!("cannot read {}", path.display()))
                    .because(e.to_string())
            };
            let file = std::fs::File::open(path).map_err(cannot)?;
            bounded(file).map_err(cannot)?
        }
        (None, Some(stdin)) => bounded(stdin).map_err(|e| {
            Failure::new(Exit::Refused, "cannot read the document from standard input").because(e.to_string())
        })?,
        (None, None) => return Err(Refusals::empty_input().into()),
    };
    Ok(Document::parse(bytes)?)
}

/// One byte more than is allowed is enough to refuse it.
fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
