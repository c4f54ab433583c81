//! Templates with strict variables and our filters.
