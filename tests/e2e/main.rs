//! The whole system as its users run it: real programs, real sockets, port 0 everywhere.
//!
//! - `process`: one program, to start, kill, pause and start again. `system`: all of them, wired as compose wires them.
//! - `one_command`: `dronedispatch up`. `orders`: what order generators rely on. `kv`: what the KV promises.
//! - `faults`: things killed and stopped under load. `contract`: bad input.
//! - `fleet`: every order comes to its end while everything is killed at random.
//! - `take_over`: what a killed dispatcher was at, done by another one in time.
//! - `shards`: a fleet that several drone-sims fly.
//! - `synced`: whether a write is on two disks before anybody is told.
//! - `no_fly`: nobody is seen over a no-fly zone.
//! - `twice`: every order sent twice while things die.
//! - `traces`: one order is one trace.
//! - `overload`: far more at once than a kvfront takes.
//! - `register`: the KV alone, every answer judged, through everything that can happen to one node.

mod contract;
mod faults;
mod fleet;
mod kv;
mod no_fly;
mod one_command;
mod orders;
mod overload;
mod process;
mod register;
mod shards;
mod synced;
mod system;
mod take_over;
mod traces;
mod twice;
