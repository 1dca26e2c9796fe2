//! The solver against every matching there is, against the Hungarian method, against itself from cold; the grid against sorting.

mod cold;
mod hungarian;
mod nearest;
mod pricing;
mod problems;
mod warm;
