//! The contract of all tools: the document, its sections, newtypes and exit codes.
