//! Numbers as Go prints and parses them, which the HTTP API and the exposition formats promise.
