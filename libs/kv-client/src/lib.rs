//! Typed client of the KV API: get, put, cas, batch, scan and lock guard.
