//! PromQL: text ⇄ checked syntax tree, canonical printer, prettifier.
//!
//! Not here: how anything is evaluated (`engine`) or distributed.

pub mod ast;
pub mod functions;
