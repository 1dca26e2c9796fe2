//! What is killed, and when: all kinds at the same time, each at a pace of its own, chosen by the seed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use bus::testing::Broker;
use domain::drone::Drone;
use domain::keys;
use kv_client::Kv;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{now_unix_sec, report};
use crate::process::Process;

/// Drones of the system.
const DRONES: u32 = 18;
/// How long a drone is silent, seconds: in most cases long enough to be lost.
const SILENT_SEC: Range<f64> = 4.0..14.0;

/// How one kind of fault comes.
#[derive(Debug, Clone)]
struct Pace {
    /// Before the next one, milliseconds.
    rest_ms: Range<u64>,
    /// How long it lasts, milliseconds.
    down_ms: Range<u64>,
}

const DISPATCHERS: Pace = Pace {
    rest_ms: 1_000..8_000,
    down_ms: 100..4_000,
};
const FLEET: Pace = Pace {
    rest_ms: 3_000..9_000,
    down_ms: 100..3_000,
};
const STORES: Pace = Pace {
    rest_ms: 3_000..9_000,
    down_ms: 300..4_000,
};
const RABBIT: Pace = Pace {
    rest_ms: 5_000..15_000,
    down_ms: 500..4_000,
};
const SILENCE: Pace = Pace {
    rest_ms: 2_000..9_000,
    down_ms: 0..1,
};

/// What may be killed.
pub(super) struct Victims {
    pub(super) dispatchers: Vec<Process>,
    pub(super) drones: Vec<Process>,
    pub(super) stores: Vec<Process>,
    pub(super) broker: Broker,
}

/// What was killed, all of it running again.
#[derive(Default)]
pub(super) struct Survivors {
    /// How often each was.
    pub(super) killed: BTreeMap<String, u32>,
    _processes: Vec<Process>,
    _broker: Option<Broker>,
}

/// Kills until told to end.
pub(super) struct Faults {
    tasks: JoinSet<Result<Survivors, String>>,
    stop: watch::Sender<bool>,
}

impl Faults {
    pub(super) fn start(victims: Victims, kv: Kv, seed: u64, begun: Instant) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut number = 0;
        let mut hand = |pace: &Pace| {
            number += 1;
            Hand {
                // Apart from the customers' numbers.
                rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number)),
                pace: pace.clone(),
                stopped: stopped.clone(),
                begun,
            }
        };
        tasks.spawn(hand(&DISPATCHERS).kill("dispatcher", victims.dispatchers, true));
        tasks.spawn(hand(&FLEET).kill("drone-sim", victims.drones, false));
        tasks.spawn(hand(&STORES).kill("kvstore", victims.stores, false));
        tasks.spawn(hand(&RABBIT).kill_broker(victims.broker));
        tasks.spawn(hand(&SILENCE).silence(kv));
        Self { tasks, stop }
    }

    /// Lets nothing be killed any more; gives everything, once it runs.
    ///
    /// # Errors
    /// What did not start again.
    pub(super) async fn end(mut self) -> Result<Survivors, String> {
        // Nobody listens any more only when all have failed, which is told below.
        let _ = self.stop.send(true);
        let mut all = Survivors::default();
        while let Some(ended) = self.tasks.join_next().await {
            let some = ended.map_err(|error| error.to_string())??;
            all.killed.extend(some.killed);
            all._processes.extend(some._processes);
            all._broker = all._broker.or(some._broker);
        }
        Ok(all)
    }
}

/// Who does one kind of thing, now and then.
struct Hand {
    rng: StdRng,
    pace: Pace,
    stopped: watch::Receiver<bool>,
    begun: Instant,
}

impl Hand {
    /// Waits for a time from `range`; false when it is to end.
    async fn rests(&mut self, range: Range<u64>) -> bool {
        let rest = Duration::from_millis(self.rng.random_range(range));
        // Fails only when all is over, which is an end too.
        tokio::time::timeout(rest, self.stopped.wait_for(|stopped| *stopped))
            .await
            .is_err()
    }

    fn tell(&self, what: &str) {
        report(&format!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64()));
    }

    /// Kills one of them at a time, or where `together` says so all of them.
    async fn kill(mut self, name: &str, mut processes: Vec<Process>, together: bool) -> Result<Survivors, String> {
        let mut count = 0;
        while self.rests(self.pace.rest_ms.clone()).await {
            let choices = processes.len() + usize::from(together);
            let chosen = self.rng.random_range(0..choices);
            let is_hit = |number: usize| chosen == number || chosen == choices - 1 && together;
            for (number, process) in processes.iter_mut().enumerate().filter(|(number, _)| is_hit(*number)) {
                self.tell(&format!("{name} {number} is killed"));
                tokio::task::block_in_place(|| process.kill());
                count += 1;
            }
            // Whatever was killed is started, also when it is to end.
            self.rests(self.pace.down_ms.clone()).await;
            for (number, process) in processes.iter_mut().enumerate().filter(|(number, _)| is_hit(*number)) {
                tokio::task::block_in_place(|| process.start_again());
                self.tell(&format!("{name} {number} runs again"));
            }
        }
        Ok(Survivors {
            killed: BTreeMap::from([(format!("× {name}"), count)]),
            _processes: processes,
            _broker: None,
        })
    }

    /// Kills the broker, or stops it in order.
    async fn kill_broker(mut self, mut broker: Broker) -> Result<Survivors, String> {
        let mut count = 0;
        while self.rests(self.pace.rest_ms.clone()).await {
            let in_order = self.rng.random_bool(0.3);
            self.tell(if in_order {
                "RabbitMQ is stopped"
            } else {
                "RabbitMQ is killed"
            });
            tokio::task::block_in_place(|| if in_order { broker.stop() } else { broker.kill() });
            count += 1;
            self.rests(self.pace.down_ms.clone()).await;
            // Everybody must do without it for as long as it takes, and be it for good: on a machine that has too much to do it may not come
            // back in time.
            loop {
                match tokio::task::block_in_place(|| broker.start_again()) {
                    Ok(()) => break self.tell("RabbitMQ runs again"),
                    Err(why) => self.tell(&why),
                }
                if !self.rests(self.pace.rest_ms.clone()).await {
                    break;
                }
            }
        }
        Ok(Survivors {
            killed: BTreeMap::from([("× RabbitMQ".to_owned(), count)]),
            _processes: Vec::new(),
            _broker: Some(broker),
        })
    }

    /// Lets a drone fall silent for a while: whatever it does, nobody hears of it.
    async fn silence(mut self, kv: Kv) -> Result<Survivors, String> {
        let mut count = 0;
        while self.rests(self.pace.rest_ms.clone()).await {
            let id = format!("drone-{}", self.rng.random_range(1..=DRONES));
            let span_sec = self.rng.random_range(SILENT_SEC);
            // Who does not get through, with the KV or the fleet at work on the record, tries the next one.
            if let Ok(Some(found)) = kv.get::<Drone>(&keys::drone(&id)).await {
                let mut drone = found.value;
                drone.freeze_until = Some(now_unix_sec() + span_sec);
                let swap = kv.cas_version(&found.key, Some(&found.version), &drone, None).await;
                if swap.is_ok_and(|swap| swap.is_done()) {
                    count += 1;
                    self.tell(&format!("{id} is silent for {span_sec:.1} s"));
                }
            }
        }
        Ok(Survivors {
            killed: BTreeMap::from([("× a drone silent".to_owned(), count)]),
            ..Survivors::default()
        })
    }
}
