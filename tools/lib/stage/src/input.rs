//! Reading the document: bounded, from a file or from the stage before.

use std::io::Read;
use std::path::Path;

use cluster_doc::{Document, Exit, MAX_BYTES, Refusals};

use crate::Failure;

/// Reads the document, with the status of an earlier run when there is one.
pub(crate) fn document(
    stdin: Option<Box<dyn Read + Send>>,
    file: Option<&Path>,
    status: Option<&Path>,
) -> Result<Document, Failure> {
    let mut doc = bare(stdin, file)?;
    let Some(path) = status else { return Ok(doc) };
    let cannot = |why: String| {
        Failure::new(Exit::Precondition, format!("cannot take the status from {}", path.display()))
            .because(why)
    };
    let earlier = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(doc),
        Err(e) => return Err(cannot(e.to_string())),
        Ok(file) => bounded(file).map_err(|e| cannot(e.to_string()))?,
    };
    let earlier = Document::parse(earlier).map_err(|e| cannot(e.to_string()))?;
    if earlier.name() != doc.name() {
        return Err(cannot("it is of another cluster: metadata.name differs".to_owned()));
    }
    doc.take_status(&earlier);
    Ok(doc)
}

fn bare(stdin: Option<Box<dyn Read + Send>>, file: Option<&Path>) -> Result<Document, Failure> {
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
