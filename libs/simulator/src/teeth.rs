//! Deliberately wrong protocols, and what finds them.

use std::fmt;

use register::teeth::Tooth;

use crate::kinds::Kind;

/// Mistakes of a shell: what a node or a coordinator does around the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShellTooth {
    /// A node forgets its promises when it crashes.
    PromiseNotPersisted,
    /// A node answers before what it answers is durable.
    AckBeforeFsync,
    /// A node forgets its floor when it crashes.
    FloorNotPersisted,
    /// A node answers reads from what is not durable yet.
    ReadsUncommitted,
    /// A coordinator that starts again draws ballots under the incarnation it had before.
    IncarnationReused,
    /// A node throws away old tombstones by its own clock.
    SweepByOwnClock,
    /// The transport says "not delivered" when it does not know.
    DeliveryDenied,
}

impl ShellTooth {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::PromiseNotPersisted,
        Self::AckBeforeFsync,
        Self::FloorNotPersisted,
        Self::ReadsUncommitted,
        Self::IncarnationReused,
        Self::SweepByOwnClock,
        Self::DeliveryDenied,
    ];
}

/// A mistake, of the protocol or of a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// In `libs/register`.
    Protocol(Tooth),
    /// In the simulated shell.
    Shell(ShellTooth),
}

impl Wrong {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let protocol = Tooth::ALL.into_iter().map(Self::Protocol);
        protocol.chain(ShellTooth::ALL.into_iter().map(Self::Shell))
    }

    /// The one of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::all()
            .find(|wrong| wrong.to_string() == name)
            .ok_or_else(|| format!("{name:?} names no tooth"))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(tooth) => write!(f, "{tooth:?}"),
            Self::Shell(tooth) => write!(f, "{tooth:?}"),
        }
    }
}

/// A tooth, and where it shows.
#[derive(Debug, Clone, Copy)]
pub struct Catalogued {
    /// Which.
    pub wrong: Wrong,
    /// Kinds of worlds that show it, best first.
    pub shown_by: &'static [&'static str],
    /// So often that CI finds it from fresh seeds too.
    pub often: bool,
}

impl Catalogued {
    /// The kinds of worlds that show it.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static Kind> {
        self.shown_by.iter().filter_map(|name| Kind::named(name)).collect()
    }
}
