//! The kinds of worlds there are.

use crate::mix::Work;
use crate::rng::Rng;

/// One kind of world: how large, what the clients do, what may go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Homes of each key.
    pub homes: u8,
    /// Nodes in each key's list: homes and spares.
    pub list: u8,
    /// Nodes there are.
    pub nodes: u8,
    /// Keys, from and up to.
    pub keys: (u16, u16),
    /// Coordinators, from and up to.
    pub fronts: (u8, u8),
    /// Clients, from and up to.
    pub clients: (u8, u8),
    /// Steps of each client, from and up to.
    pub calls: (u32, u32),
    /// What the clients do.
    pub work: Work,
    /// Nemeses that are always there, as letters.
    pub always: &'static str,
    /// Nemeses of which one or two are drawn for each world, as letters.
    pub nemeses: &'static str,
    /// The nodes are new when the world begins.
    pub first_start: bool,
    /// Ballots meet: all coordinators share one incarnation, and all clocks go in coarse steps. Two may then draw one ballot, which each
    /// node promises to one of them only. That keeps every change safe that is prepared. A blind write's ballot, and one that is reserved
    /// (a node that has promised the very same takes it for granted), must be nobody else's, so there are neither in such worlds: `work`
    /// has no puts and plain deletes, and the coordinators remember nothing.
    pub ballots_meet: bool,
}

impl Kind {
    /// Two homes and a spare, a few keys, everything that may go wrong.
    const DEFAULT: Self = Self {
        name: "default",
        about: "what users do, on a few keys, with any one or two nemeses",
        homes: 2,
        list: 3,
        nodes: 3,
        keys: (2, 6),
        fronts: (2, 3),
        clients: (3, 6),
        calls: (10, 40),
        work: Work {
            batch_per_mille: 100,
            retry_per_mille: 300,
            lock_per_mille: 250,
            ..Work::PLAIN
        },
        always: "",
        nemeses: "ludcpiwbfkhsra",
        first_start: false,
        ballots_meet: false,
    };

    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::DEFAULT,
        Self {
            name: "plain",
            about: "one key, two homes and a spare; the network at its worst",
            keys: (1, 1),
            calls: (3, 8),
            work: Work::PLAIN,
            always: "lud",
            nemeses: "ci",
            ..Self::DEFAULT
        },
        Self {
            name: "restarts",
            about: "a few keys, whose nodes' floors rise with each other; coordinators die and are replaced",
            keys: (1, 3),
            calls: (3, 8),
            work: Work::PLAIN,
            always: "ludr",
            nemeses: "ci",
            ..Self::DEFAULT
        },
        Self {
            name: "five",
            about: "three homes and two spares",
            homes: 3,
            list: 5,
            nodes: 5,
            keys: (1, 3),
            calls: (3, 8),
            work: Work::PLAIN,
            always: "ludr",
            nemeses: "cip",
            ..Self::DEFAULT
        },
        Self {
            name: "four",
            about: "three homes of four nodes",
            homes: 3,
            list: 4,
            nodes: 4,
            keys: (1, 2),
            calls: (3, 8),
            work: Work::PLAIN,
            always: "lud",
            nemeses: "ci",
            ..Self::DEFAULT
        },
        Self {
            name: "two",
            about: "two nodes that are all homes",
            list: 2,
            nodes: 2,
            keys: (1, 2),
            calls: (3, 8),
            work: Work::PLAIN,
            always: "lud",
            nemeses: "is",
            ..Self::DEFAULT
        },
        Self {
            name: "ttl",
            about: "values that end by themselves",
            keys: (1, 3),
            calls: (3, 10),
            work: Work {
                ttl_per_mille: 800,
                ..Work::PLAIN
            },
            always: "ludr",
            nemeses: "cik",
            ..Self::DEFAULT
        },
        Self {
            name: "fences",
            about: "writes with fences",
            keys: (1, 2),
            calls: (3, 8),
            work: Work {
                get: 25,
                put: 40,
                delete: 0,
                cas: 35,
                cas_version: 0,
                fence_per_mille: 700,
                ..Work::PLAIN
            },
            always: "ludr",
            nemeses: "ci",
            ..Self::DEFAULT
        },
        Self {
            name: "locks",
            about: "locks that do not end by themselves",
            keys: (1, 2),
            calls: (3, 8),
            work: Work {
                lock_per_mille: 1_000,
                ..Work::PLAIN
            },
            always: "ludr",
            nemeses: "ci",
            ..Self::DEFAULT
        },
        Self {
            name: "ending-locks",
            about: "locks that end by themselves",
            keys: (1, 2),
            calls: (3, 8),
            work: Work {
                lock_per_mille: 1_000,
                lock_ttl_ms: 3_000,
                ..Work::PLAIN
            },
            always: "lud",
            nemeses: "cik",
            ..Self::DEFAULT
        },
        Self {
            name: "one",
            about: "one answer is enough: only rest is judged",
            keys: (1, 3),
            calls: (3, 10),
            work: Work {
                cas: 0,
                cas_version: 0,
                one_per_mille: 700,
                ..Work::PLAIN
            },
            always: "ludr",
            nemeses: "ci",
            ..Self::DEFAULT
        },
        Self {
            name: "retries",
            about: "changes whose answers are lost are sent again, and take effect once",
            keys: (1, 3),
            calls: (3, 10),
            work: Work {
                retry_per_mille: 800,
                ..Work::PLAIN
            },
            always: "ludr",
            nemeses: "cis",
            ..Self::DEFAULT
        },
        Self {
            name: "deletes",
            about: "keys are made and deleted all the time, and what is left of them is collected under way",
            keys: (1, 2),
            calls: (4, 12),
            work: Work {
                get: 30,
                put: 20,
                delete: 30,
                cas: 15,
                cas_version: 5,
                ..Work::PLAIN
            },
            always: "lud",
            nemeses: "cirp",
            ..Self::DEFAULT
        },
        Self {
            name: "crashes",
            about: "nodes crash all the time, and are back soon",
            keys: (1, 2),
            calls: (8, 20),
            work: Work {
                get: 30,
                put: 10,
                delete: 10,
                cas: 50,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "cd",
            nemeses: "lua",
            ..Self::DEFAULT
        },
        Self {
            name: "reserved",
            about: "coordinators that change one key again and again, while copies of their changes come from elsewhere first",
            keys: (1, 1),
            clients: (2, 4),
            calls: (5, 14),
            work: Work {
                get: 40,
                put: 0,
                delete: 0,
                cas: 60,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "d",
            nemeses: "luip",
            ..Self::DEFAULT
        },
        Self {
            name: "collecting",
            about: "little but deletes, and coordinators that collect them at once",
            keys: (1, 1),
            clients: (2, 3),
            calls: (4, 10),
            work: Work {
                get: 25,
                put: 10,
                delete: 40,
                cas: 25,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "lud",
            nemeses: "cir",
            ..Self::DEFAULT
        },
        Self {
            name: "reborn",
            about: "coordinators die all the time, and clocks jump",
            keys: (1, 1),
            calls: (6, 16),
            work: Work {
                get: 30,
                put: 30,
                delete: 0,
                cas: 40,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "rk",
            nemeses: "ld",
            ..Self::DEFAULT
        },
        Self {
            name: "first-start",
            about: "the nodes are new when the world begins",
            keys: (1, 3),
            calls: (3, 10),
            work: Work::PLAIN,
            always: "ld",
            nemeses: "cirsa",
            first_start: true,
            ..Self::DEFAULT
        },
        Self {
            name: "many-keys",
            about: "more keys than nodes in each list: a node is home of one and spare of the next",
            nodes: 5,
            keys: (8, 24),
            always: "",
            ..Self::DEFAULT
        },
        Self {
            name: "disks",
            about: "disks are lost or go back in time, and are filled again",
            keys: (1, 4),
            always: "ud",
            nemeses: "wbwbwbrsclk",
            ..Self::DEFAULT
        },
        Self {
            name: "meeting",
            about: "coordinators that share an incarnation and a coarse clock, so that their ballots meet; every change is prepared",
            keys: (1, 2),
            calls: (4, 12),
            work: Work {
                get: 25,
                put: 0,
                delete: 0,
                cas: 50,
                cas_version: 25,
                ..Work::PLAIN
            },
            always: "",
            nemeses: "ludcpisa",
            ballots_meet: true,
            ..Self::DEFAULT
        },
        Self {
            name: "apart",
            about: "coordinators whose clocks are apart change one key in turn: ballots arrive long after they were drawn",
            keys: (1, 1),
            clients: (2, 4),
            calls: (5, 14),
            work: Work {
                get: 40,
                put: 0,
                delete: 0,
                cas: 60,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "dk",
            nemeses: "usr",
            ..Self::DEFAULT
        },
    ];

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|kind| kind.name == name)
    }

    /// All of them, one by one.
    #[must_use]
    pub fn all() -> Vec<&'static Self> {
        Self::ALL.iter().collect()
    }

    /// Whether its histories are linearizable; those of operations that are content with one answer are not.
    pub(crate) fn is_judged(&self) -> bool {
        self.work.one_per_mille == 0
    }

    /// The key of a client's next call: some are hotter than others.
    pub(crate) fn draw_key(&self, rng: &mut Rng, keys: usize) -> usize {
        let (a, b) = (rng.index(keys), rng.index(keys));
        a.min(b)
    }
}
