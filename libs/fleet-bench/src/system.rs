//! All programs on free ports of this machine, as compose wires them, with their data in one folder.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use bus::testing::Broker;
use kv_bench::process::{LOOK_EVERY, Process, START_WITHIN};
use reqwest::Client;

use crate::args::Args;
use crate::metrics::Look;

/// Nodes of the KV.
const NODES: u32 = 3;
/// Nobody listens there.
const NO_BROKER: &str = "amqp://guest:guest@127.0.0.1:1/%2f";

/// A program that runs.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    process: Process,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Everything.
pub(crate) struct System {
    pub(crate) programs: Vec<Running>,
    pub(crate) broker: Option<Broker>,
}

impl System {
    /// Starts everything, and waits until the fleet is there.
    pub(crate) async fn start(args: &Args, data: &Path, http: &Client) -> anyhow::Result<Self> {
        let broker = match args.no_broker {
            true => None,
            false => Some(started_broker().await?),
        };
        let mut system = Self {
            programs: Vec::new(),
            broker,
        };
        let mut backends = Vec::new();
        for node in 0..NODES {
            let name = format!("kvstore-{node}");
            let file = data.join(&name).with_extension("db");
            let settings = [("DB_FILE", file.display().to_string())];
            backends.push(format!(
                "{name}={}",
                system.run(args, data, "kvstore", &name, &settings).await?
            ));
        }
        let settings = [("BACKENDS", backends.join(","))];
        let kv = system.run(args, data, "kvfront", "kvfront", &settings).await?;
        let rabbit = system
            .broker
            .as_ref()
            .map_or(NO_BROKER.to_owned(), |broker| broker.url.clone());
        let settings = [
            ("KV_URL", kv),
            ("RABBIT_URL", rabbit),
            ("DRONE_POOL_MAX", args.drones.to_string()),
            // The fleet is as large as it is said to be.
            ("AUTOSCALE_DISABLED", "1".to_owned()),
            ("DRONE_TICK_SEC", args.tick_sec.to_string()),
            ("TIME_SCALE", args.time_scale().to_string()),
            ("BATTERY_PER_KM", "2".to_owned()),
            // A tick of all drones, and some more while the broker is slow.
            ("EVENT_QUEUE_MAX", (args.drones * 4).to_string()),
        ];
        let gateway = system.run(args, data, "gateway", "gateway", &settings).await?;
        for number in 0..args.dispatchers {
            let name = format!("dispatcher-{number}");
            system.run(args, data, "dispatcher", &name, &settings).await?;
        }
        for number in 1..=args.shards {
            let name = format!("drone-sim-{number}");
            let shard = [("SHARD", format!("{number}/{}", args.shards))];
            let settings = [&settings[..], &shard].concat();
            system.run(args, data, "drone-sim", &name, &settings).await?;
        }
        let settings = [("TARGET_URL", gateway)];
        system.run(args, data, "lb", "lb", &settings).await?;
        system.await_fleet(args, http).await?;
        Ok(system)
    }

    async fn run(
        &mut self,
        args: &Args,
        data: &Path,
        name: &'static str,
        log: &str,
        settings: &[(&str, String)],
    ) -> anyhow::Result<String> {
        let mut command = Command::new(args.program(name)?);
        command
            .env("LOG", "warn")
            .env("ACCESS_LOG", "off")
            .args(["--listen", "127.0.0.1:0"]);
        command.envs(settings.iter().map(|(variable, value)| (*variable, value.as_str())));
        let mut process = Process::start(&mut command, data.join(log).with_extension("log"))?;
        let url = format!("http://{}", process.announced().await.with_context(|| log.to_owned())?);
        self.programs.push(Running {
            name,
            url: url.clone(),
            process,
        });
        Ok(url)
    }

    /// Where the first program of this name listens.
    pub(crate) fn url(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.programs.iter().find(|program| program.name == name);
        Ok(&found.with_context(|| format!("{name} does not run"))?.url)
    }

    /// What all programs of this name count, one by one.
    pub(crate) async fn looks(&self, http: &Client, name: &str) -> anyhow::Result<Vec<Look>> {
        let mut looks = Vec::new();
        for program in self.programs.iter().filter(|program| program.name == name) {
            looks.push(Look::at(http, &program.url).await?);
        }
        Ok(looks)
    }

    /// What all drone-sims count, together.
    pub(crate) async fn fleet(&self, http: &Client) -> anyhow::Result<Look> {
        Ok(self.looks(http, "drone-sim").await?.into_iter().collect())
    }

    /// Fails if any program has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let mut processes = self.programs.iter_mut().map(|program| &mut program.process);
        processes.try_for_each(Process::check)
    }

    /// Waits until the drone-sims have seen the whole fleet, and gateways and dispatchers are ready.
    async fn await_fleet(&mut self, args: &Args, http: &Client) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_WITHIN * 2;
        loop {
            self.check()?;
            let look = self.fleet(http).await.unwrap_or_default();
            let mut ready = look.sum("drone_sim_drones") >= f64::from(args.drones);
            for program in &self.programs {
                let answer = http.get(format!("{}/ready", program.url)).send().await;
                // lb answers what its backends do.
                ready &= program.name == "lb" || answer.is_ok_and(|answer| answer.status().is_success());
            }
            if ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the fleet of {} is not there after {:?}", args.drones, START_WITHIN * 2);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn started_broker() -> anyhow::Result<Broker> {
    if !Broker::installed() {
        bail!("RabbitMQ is not installed (package rabbitmq-server); --no-broker does without");
    }
    match tokio::task::spawn_blocking(Broker::start).await? {
        Ok(broker) => Ok(broker),
        Err(error) => bail!(error),
    }
}
