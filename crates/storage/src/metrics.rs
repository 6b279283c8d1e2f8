//! Figures of storage.
