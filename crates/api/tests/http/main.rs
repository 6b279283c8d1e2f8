//! The HTTP interface from outside: requests in, codes, headers and texts out, over series in memory and a sink that
//! records. Each call goes through the whole router.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

mod connections;
mod endpoints;
mod operate;
mod otlp;
mod paths;
mod query;
mod read;
mod search;
mod support;
mod tls;
mod web;
mod write;
mod write_v2;
