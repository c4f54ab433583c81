//! An error of the Kubernetes API as the end of a run.

use kube_apply::{Class, Error};
use stage::{Exit, Failure};

/// An error of the Kubernetes API as the end of a run.
pub fn failure(doing: impl Into<String>, error: &Error) -> Failure {
    let exit = match error.class() {
        Class::Unreachable | Class::Transient => Exit::Transient,
        Class::Precondition => Exit::Precondition,
        Class::Internal => Exit::Internal,
    };
    let failure = Failure::new(exit, doing).caused_by(error);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
