//! The seven laws, one implementation for all tools.
