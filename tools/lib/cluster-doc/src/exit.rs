//! The exit codes that all eight tools share.

/// How a run ends, as its process's exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for is so.
    Done = 0,
    /// A fault of the tool itself.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The document is refused; nothing was touched.
    Refused = 3,
    /// The operator must act first; the message says how.
    Precondition = 4,
    /// Something passing; run again.
    Transient = 5,
    /// `check` found differences.
    Differs = 6,
    /// Done, but for machines that cannot be reached.
    Partial = 7,
    /// The input was empty: the stage before gave nothing.
    Empty = 8,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The number that the process exits with.
    pub fn code(self) -> u8 {
        self as u8
    }
}
