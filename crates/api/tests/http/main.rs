//! The HTTP interface from outside: requests in, codes, headers and texts out, over series in memory and a sink that
//! records. Each call goes through the whole router.

mod connections;
mod operate;
mod paths;
mod query;
mod support;
mod write;
