//! kvfront over nodes in this process: real kvstores on port 0 with databases in temporary folders, and stand-ins that misbehave on
//! command. One binary, every test on its own cluster.

mod faults;
mod hints;
mod kv;
mod locks;
mod many;
mod support;
