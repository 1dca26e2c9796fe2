//! The JSON shapes, limits and key rules of the KV API, shared by its servers and its client.
