//! Whole-system tests over real processes: see `e2e/main.rs`.
