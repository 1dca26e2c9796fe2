//! A whole cluster of registers in one thread, from one seed.

mod background;
mod catalog;
mod client;
mod event;
mod front;
mod kinds;
mod measure;
mod membership;
mod mix;
mod nemesis;
mod network;
mod node;
mod plan;
mod queue;
mod report;
mod rest;
mod rng;
mod run;
mod slab;
mod sweep;
mod task;
mod teeth;
mod tilt;
mod trace;
mod world;

pub use catalog::{TEETH, pinned};
pub use kinds::Kind;
pub use measure::{Effort, Found, Measured, TABLE_HEAD, measure, repin};
pub use mix::Work;
pub use nemesis::{LETTERS, Nemeses, Nemesis};
pub use report::{Report, command, explain, write_svg};
pub use run::{Counts, Failure, Runner, Spec};
pub use sweep::{Sweep, Swept};
pub use teeth::{Catalogued, ShellTooth, Wrong};
pub use tilt::{Burden, Sort, Tilt};
pub use world::Limits;
