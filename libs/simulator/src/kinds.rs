//! The kinds of worlds there are.

use register::proposer::Limits;

use crate::mix::Work;
use crate::rng::Rng;
use crate::tilt::{Burden, Sort, Tilt};

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
    /// Ballots meet: all coordinators share one incarnation. With clocks that go in coarse steps two may then draw one ballot, which each
    /// node promises to one of them only. That keeps every change safe that is prepared. A blind write's ballot, and one that is reserved
    /// (a node that has promised the very same takes it for granted), must be nobody else's, so there are neither in such worlds: `work`
    /// has no puts and plain deletes, and the coordinators remember nothing.
    pub ballots_meet: bool,
    /// Changes of one key take turns at each coordinator, as they do in kvfront. Without, they all go at once, which tries the protocol harder.
    pub turns: bool,
    /// What is not left to the dice.
    pub tilt: Tilt,
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
        turns: false,
        tilt: Tilt::NONE,
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
            name: "turns",
            about: "many clients swap few keys; changes take turns at each coordinator and refute those behind them",
            keys: (1, 2),
            clients: (4, 8),
            calls: (5, 14),
            work: Work {
                get: 20,
                put: 5,
                delete: 10,
                cas: 45,
                cas_version: 20,
                fence_per_mille: 100,
                ttl_per_mille: 50,
                retry_per_mille: 200,
                ..Work::PLAIN
            },
            nemeses: "ludcpirsa",
            turns: true,
            ..Self::DEFAULT
        },
        Self {
            name: "together",
            about: "many clients write few keys blindly, which have their turns together, and swap them in between",
            keys: (1, 2),
            clients: (4, 8),
            calls: (5, 14),
            work: Work {
                get: 20,
                put: 45,
                delete: 10,
                cas: 15,
                cas_version: 10,
                fence_per_mille: 50,
                ttl_per_mille: 50,
                retry_per_mille: 100,
                ..Work::PLAIN
            },
            nemeses: "ludcpirsa",
            turns: true,
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
            tilt: Tilt {
                clock_step_ms: 64,
                ..Tilt::NONE
            },
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
        Self {
            name: "halfway",
            about: "deletes that one node takes, and changes between prepare and accept, while tombstones are collected",
            homes: 3,
            list: 3,
            keys: (1, 1),
            clients: (2, 4),
            calls: (4, 12),
            work: Work {
                get: 35,
                put: 10,
                delete: 20,
                cas: 35,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "",
            nemeses: "lr",
            tilt: Tilt {
                requests: &[
                    Burden {
                        lost_per_mille: 150,
                        ..Burden::on(Sort::Prepare)
                    },
                    Burden {
                        lost_per_mille: 200,
                        late_per_mille: 300,
                        late_ms: (5, 200),
                        ..Burden::on(Sort::Accept)
                    },
                    Burden {
                        lost_per_mille: 100,
                        late_per_mille: 1_000,
                        late_ms: (0, 300),
                        ..Burden::on(Sort::Collect)
                    },
                ],
                limits: Some(Limits {
                    deadline_ms: 2_000,
                    phase_ms: 300,
                    spare_after_ms: 50,
                    backoff_ms: 4,
                }),
                background_ms: Some(60),
                think_ms: Some(20),
                ..Tilt::NONE
            },
            ..Self::DEFAULT
        },
        Self {
            name: "late-copies",
            about: "one home is hard to reach: what it missed comes long after the key was deleted and collected",
            keys: (1, 2),
            fronts: (3, 4),
            clients: (2, 3),
            calls: (3, 6),
            work: Work {
                get: 30,
                put: 20,
                delete: 20,
                cas: 30,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "",
            nemeses: "ulr",
            tilt: Tilt {
                requests: &[
                    Burden {
                        rank: Some(1),
                        late_per_mille: 500,
                        late_ms: (10, 60),
                        ..Burden::on(Sort::Prepare)
                    },
                    Burden {
                        rank: Some(1),
                        lost_per_mille: 800,
                        ..Burden::on(Sort::Accept)
                    },
                    Burden {
                        rank: Some(1),
                        late_per_mille: 1_000,
                        late_ms: (200, 3_000),
                        ..Burden::on(Sort::Install)
                    },
                ],
                limits: Some(Limits {
                    deadline_ms: 2_000,
                    phase_ms: 100,
                    spare_after_ms: 5,
                    backoff_ms: 4,
                }),
                background_ms: Some(100),
                think_ms: Some(200),
                ..Tilt::NONE
            },
            ..Self::DEFAULT
        },
        Self {
            name: "swapped",
            about: "keys that hardly anybody has heard of, whose changes travel for longer than a node takes to lose its disk and be filled",
            homes: 3,
            list: 3,
            keys: (3, 8),
            clients: (3, 6),
            calls: (2, 5),
            work: Work {
                get: 30,
                put: 50,
                delete: 0,
                cas: 20,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "w",
            nemeses: "lr",
            tilt: Tilt {
                requests: &[Burden {
                    lost_per_mille: 250,
                    late_per_mille: 350,
                    late_ms: (500, 4_000),
                    ..Burden::on(Sort::Accept)
                }],
                limits: Some(Limits {
                    deadline_ms: 8_000,
                    phase_ms: 6_000,
                    spare_after_ms: 3_000,
                    backoff_ms: 4,
                }),
                background_ms: Some(1_000),
                think_ms: Some(200),
                fault_pause_ms: Some(500),
                fault_lasts_ms: Some(100),
                ..Tilt::NONE
            },
            ..Self::DEFAULT
        },
        Self {
            name: "slow-disks",
            about: "nodes that take long to make things durable, and crash all the time",
            homes: 3,
            list: 3,
            keys: (1, 2),
            clients: (2, 4),
            calls: (6, 12),
            work: Work {
                get: 50,
                put: 20,
                delete: 0,
                cas: 30,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "c",
            nemeses: "lda",
            tilt: Tilt {
                requests: &[Burden {
                    lost_per_mille: 250,
                    ..Burden::on(Sort::Accept)
                }],
                limits: Some(Limits {
                    deadline_ms: 2_000,
                    phase_ms: 300,
                    spare_after_ms: 100,
                    backoff_ms: 20,
                }),
                background_ms: Some(1_000),
                commit_ms: Some(100),
                think_ms: Some(20),
                fault_pause_ms: Some(1_000),
                fault_lasts_ms: Some(50),
                ..Tilt::NONE
            },
            ..Self::DEFAULT
        },
        Self {
            name: "coarse-clocks",
            about: "coordinators die all the time, and clocks stand still between their steps",
            homes: 3,
            list: 3,
            keys: (1, 1),
            clients: (2, 4),
            calls: (4, 10),
            work: Work {
                get: 20,
                put: 40,
                delete: 0,
                cas: 40,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "r",
            nemeses: "ldk",
            tilt: Tilt {
                requests: &[Burden {
                    lost_per_mille: 100,
                    late_per_mille: 400,
                    late_ms: (10, 300),
                    ..Burden::on(Sort::Accept)
                }],
                think_ms: Some(20),
                fault_pause_ms: Some(50),
                clock_step_ms: 200,
                ..Tilt::NONE
            },
            ..Self::DEFAULT
        },
        Self {
            name: "late-changes",
            about: "nodes are told of changes long after the key was deleted and collected, and crash meanwhile",
            homes: 3,
            list: 3,
            keys: (1, 1),
            clients: (2, 3),
            calls: (2, 4),
            work: Work {
                get: 20,
                put: 40,
                delete: 40,
                cas: 0,
                cas_version: 0,
                ..Work::PLAIN
            },
            always: "c",
            nemeses: "ul",
            tilt: Tilt {
                requests: &[Burden {
                    late_per_mille: 250,
                    late_ms: (300, 3_000),
                    ..Burden::on(Sort::Accept)
                }],
                limits: Some(Limits {
                    deadline_ms: 2_000,
                    phase_ms: 100,
                    spare_after_ms: 50,
                    backoff_ms: 4,
                }),
                background_ms: Some(100),
                think_ms: Some(600),
                fault_pause_ms: Some(800),
                fault_lasts_ms: Some(50),
                ..Tilt::NONE
            },
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
