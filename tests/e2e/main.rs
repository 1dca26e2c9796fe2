//! The whole system as its users run it: real programs, real sockets, port 0 everywhere.
//!
//! - `process`: one program, to start, kill, pause and start again. `system`: all of them, wired as compose wires them.
//! - `one_command`: `dronedispatch up`. `orders`: what order generators rely on. `kv`: what the KV promises.
//! - `faults`: things killed and stopped under load. `contract`: bad input.
//! - `synced`: whether a write is on two disks before anybody is told.
//! - `overload`: far more at once than a kvfront takes.
//! - `register`: the KV alone, every answer judged, through everything that can happen to one node.

mod contract;
mod faults;
mod kv;
mod one_command;
mod orders;
mod overload;
mod process;
mod register;
mod synced;
mod system;
