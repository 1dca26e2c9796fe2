//! Every service in one process, wired as compose wires containers, and stopped in the order that loses nothing.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bus::{Bus, InProcess, Rabbit};
use kv_client::Kv;
use service::Shutdown;
use service::settings::{SettingError, is_set, try_parse_from};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::chaos;
use crate::chaos::bus::SwitchedBus;
use crate::chaos::switch::{Action, Switch};
use crate::cli::{Orders, UpArgs};
use crate::ports::{KVSTORES, Listeners, ServiceListeners, url};
use crate::status::{self, Above};

/// After Ctrl-C everything has ended within this time.
const STOP_WITHIN: Duration = Duration::from_millis(4_500);
/// How long one layer may take of that.
const LAYER_STOP_WITHIN: Duration = Duration::from_millis(1_500);
/// How long the system may take until it answers its first request.
const START_WITHIN: Duration = Duration::from_secs(30);
/// Pause between looks at whether it does.
const START_POLL: Duration = Duration::from_millis(50);

/// The demo's settings where they differ from the programs' own defaults, as in `compose.yml`: variable and value. The environment goes
/// before them.
const DEMO: [(&str, &str); 7] = [
    ("DRONE_TICK_SEC", "0.375"),
    ("BATTERY_PER_KM", "2"),
    ("BASE_ACTIVE", "6"),
    ("SCALE_RATIO", "1"),
    ("LOW_RPS", "0.2"),
    ("PEAK_SEC", "7"),
    ("ACCESS_LOG", "off"),
];

/// Services that stop together, once those before them have.
struct Layer {
    stop: Shutdown,
    running: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Layer {
    fn new() -> Self {
        Self {
            stop: Shutdown::new(),
            running: JoinSet::new(),
        }
    }

    fn start<Fut>(&mut self, name: &'static str, run: impl FnOnce(Shutdown) -> Fut)
    where
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let service = run(self.stop.child());
        self.running.spawn(async move { (name, service.await) });
    }

    /// As [`Self::start`], for what listens; with a switch around it when there is a switchboard.
    fn start_switched<Fut>(
        &mut self,
        name: &'static str,
        listener: TcpListener,
        switch: Option<Arc<Switch>>,
        run: impl Fn(TcpListener, Shutdown) -> Fut + Send + Sync + 'static,
    ) where
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        match switch {
            Some(switch) => self.start(name, |stop| switch.run(listener, run, stop)),
            None => self.start(name, |stop| run(listener, stop)),
        }
    }

    /// Stops the layer, waiting no longer than `deadline`.
    async fn stop(mut self, deadline: Instant) {
        self.stop.stop();
        let deadline = deadline.min(Instant::now() + LAYER_STOP_WITHIN);
        while let Ok(Some(ended)) = timeout_at(deadline, self.running.join_next()).await {
            if let Ok((name, Err(error))) = ended {
                tracing::warn!(service = name, "ended with an error: {error:#}");
            }
        }
    }
}

/// Runs the whole system until `shutdown`.
///
/// # Errors
/// When a port, the data folder or a setting cannot be used, or when a service ends by itself.
pub async fn up(args: &UpArgs, shutdown: Shutdown) -> anyhow::Result<()> {
    let _lock = lock_data_dir(&args.data_dir)?;
    let listeners = Listeners::open(args.bind, args.port_base, args.gateways).await?;
    let (lb_url, kv_url) = (url(&listeners.rest.lb)?, url(&listeners.kvfront)?);
    let stats_url = format!(
        "{}/stats",
        url(listeners.rest.gateways.first().context("at least one gateway")?)?
    );
    let store_urls = listeners.kvstores.iter().map(url).collect::<Result<Vec<_>, _>>()?;
    let bus_stop = Shutdown::new();
    let rabbit = match &args.rabbit_url {
        Some(url) => Some(Rabbit::connect(url, bus_stop.token()).context("RABBIT_URL (--rabbit-url)")?),
        None => None,
    };
    let bus: Arc<dyn Bus> = match &rabbit {
        Some(rabbit) => Arc::<Rabbit>::clone(rabbit),
        None => InProcess::with_shutdown(bus_stop.token()),
    };
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut board = if args.chaos { Some(Board::open().await?) } else { None };
    let bus = match &mut board {
        Some(board) => board.switched(bus, &bus_stop),
        None => bus,
    };
    let mut layers = start_kv(args, listeners.kvstores, listeners.kvfront, board.as_mut())?;

    let kv_ready = format!("{kv_url}/ready");
    let mut ended = until_end(&mut layers, &shutdown, answers(&client, &kv_ready)).await?;
    if ended.is_running() {
        // In front of what is there already: the layers are stopped from the first to the last.
        let services = Services {
            kv_url: &kv_url,
            lb_url: &lb_url,
            bus: &bus,
            bus_stop: &bus_stop,
        };
        let started = services.start(args, listeners.rest, board.as_mut()).await?;
        let kv = std::mem::replace(&mut layers, started);
        layers.extend(kv);
        if let Some(board) = board {
            layers.push(board.serve());
        }
        let way = format!("{lb_url}/zones");
        ended = until_end(&mut layers, &shutdown, answers(&client, &way)).await?;
    }
    if ended.is_running() {
        greet(args, &lb_url, &kv_url, &store_urls);
        let show = tokio::spawn(status::show(client, stats_url, shutdown.child()));
        ended = until_end(&mut layers, &shutdown, std::future::pending()).await?;
        shutdown.stop();
        // It asks nobody any more and ends at once.
        let _ = show.await;
    }
    let deadline = Instant::now() + STOP_WITHIN;
    for layer in layers {
        layer.stop(deadline).await;
    }
    bus_stop.stop();
    if let Some(rabbit) = rabbit {
        // Whatever has not been answered by then the broker delivers again.
        let _ = timeout_at(deadline, rabbit.closed()).await;
    }
    match ended {
        Ended::Service(name, Ok(())) => bail!("{name} ended by itself"),
        Ended::Service(name, Err(error)) => Err(error.context(format!("{name} failed"))),
        Ended::Running | Ended::Asked => Ok(()),
    }
}

/// What `CHAOS=1` adds: a switch for each service, and the port where they are worked.
struct Board {
    switches: Vec<Arc<Switch>>,
    control: TcpListener,
    url: String,
}

impl Board {
    async fn open() -> anyhow::Result<Self> {
        let control = chaos::control::open().await.context("no port for CHAOS (--chaos)")?;
        Ok(Self {
            switches: Vec::new(),
            url: url(&control)?,
            control,
        })
    }

    /// The bus with a switch around it.
    fn switched(&mut self, bus: Arc<dyn Bus>, stop: &Shutdown) -> Arc<dyn Bus> {
        let switch = Switch::new(("bus".to_owned(), "bus"), None, chaos::SERVICE_ACTIONS, None);
        let passage = switch.follow(stop.child());
        self.switches.push(switch);
        SwitchedBus::new(bus, passage)
    }

    /// A way to the KV at `kv_url` through a gate that is worked by `switch`; its URL.
    async fn gated(&self, switch: &Switch, kv_url: &str, stop: &Shutdown) -> anyhow::Result<String> {
        let kv = kv_url
            .trim_start_matches("http://")
            .parse()
            .context("kvfront's address")?;
        let listener = chaos::control::open().await.context("no port for CHAOS (--chaos)")?;
        let gated = url(&listener)?;
        tokio::spawn(chaos::gate::keep(listener, kv, switch.outward(), stop.child()));
        Ok(gated)
    }

    /// One drone that can be paused.
    fn add_drone(&mut self, kv_url: &str, stop: &Shutdown) -> anyhow::Result<()> {
        let kv = Kv::new(kv_url, kv_client::Options::default())?;
        let switch = Switch::new(("drone-1".to_owned(), "drone"), None, chaos::DRONE_ACTIONS, None);
        tokio::spawn(chaos::drone::follow(Arc::clone(&switch), kv, stop.child()));
        self.switches.push(switch);
        Ok(())
    }

    fn serve(self) -> Layer {
        let mut layer = Layer::new();
        layer.start("chaos", |stop| {
            chaos::control::serve(self.control, Arc::new(self.switches), stop)
        });
        layer
    }
}

/// The switch of a service that listens, when there is a board for it.
fn switch(
    board: &mut Option<&mut Board>,
    names: (String, &'static str),
    listener: &TcpListener,
    actions: &'static [Action],
    database: Option<PathBuf>,
) -> anyhow::Result<Option<Arc<Switch>>> {
    let Some(board) = board else { return Ok(None) };
    let switch = Switch::new(names, Some(listener.local_addr()?), actions, database);
    board.switches.push(Arc::clone(&switch));
    Ok(Some(switch))
}

/// Starts the kvstores and kvfront.
fn start_kv(
    args: &UpArgs,
    stores: Vec<TcpListener>,
    front: TcpListener,
    mut board: Option<&mut Board>,
) -> anyhow::Result<Vec<Layer>> {
    // Named, so that keys stay where they are when the ports are others at the next start.
    let named = |(name, store)| url(store).map(|url| format!("{name}={url}"));
    let backends = KVSTORES.into_iter().zip(&stores).map(named);
    let backends = backends.collect::<Result<Vec<_>, _>>()?.join(",");
    let mut nodes = Layer::new();
    for (name, listener) in KVSTORES.into_iter().zip(stores) {
        let db_file = args.data_dir.join(name).with_extension("db");
        let config: kvstore::Config = settings("kvstore", [("--db-file", db_file.clone().into_os_string())])?;
        let names = (name.to_owned(), "kvstore");
        let switch = switch(&mut board, names, &listener, chaos::STORE_ACTIONS, Some(db_file))?;
        nodes.start_switched(name, listener, switch, move |listener, stop| {
            kvstore::run(config.clone(), listener, stop)
        });
    }
    let mut coordinator = Layer::new();
    let config: kvfront::Config = settings("kvfront", [("--backends", backends.into())])?;
    coordinator.start("kvfront", |stop| kvfront::run(config, front, stop));
    Ok(vec![coordinator, nodes])
}

/// What the services around the KV are wired to.
struct Services<'a> {
    kv_url: &'a str,
    lb_url: &'a str,
    bus: &'a Arc<dyn Bus>,
    /// When all that use the bus have ended.
    bus_stop: &'a Shutdown,
}

impl Services<'_> {
    /// How a service with this switch reaches the KV and the bus: through gates, when there is a board.
    async fn ways(
        &self,
        board: Option<&Board>,
        switch: Option<&Arc<Switch>>,
    ) -> anyhow::Result<(&'static str, OsString, Arc<dyn Bus>)> {
        const FLAG: &str = "--kv-url";
        let (Some(board), Some(switch)) = (board, switch) else {
            return Ok((FLAG, self.kv_url.into(), Arc::clone(self.bus)));
        };
        let kv_url = board.gated(switch, self.kv_url, self.bus_stop).await?;
        let bus = SwitchedBus::new(Arc::clone(self.bus), switch.outward());
        Ok((FLAG, kv_url.into(), bus))
    }

    /// Starts everything but the KV; the layers come in the order in which they are to be stopped: whoever asks before whoever answers.
    async fn start(
        &self,
        args: &UpArgs,
        listeners: ServiceListeners,
        mut board: Option<&mut Board>,
    ) -> anyhow::Result<Vec<Layer>> {
        let drones = || ("--drone-pool-max", OsString::from(args.drones.to_string()));
        let gateway_urls = listeners
            .gateways
            .iter()
            .map(url)
            .collect::<Result<Vec<_>, _>>()?
            .join(",");

        let mut workers = Layer::new();
        let names = ("dispatcher".to_owned(), "dispatcher");
        let switch_of = switch(&mut board, names, &listeners.dispatcher, chaos::SERVICE_ACTIONS, None)?;
        let (flag, kv_url, bus) = self.ways(board.as_deref(), switch_of.as_ref()).await?;
        let config: dispatcher::Config = settings("dispatcher", [(flag, kv_url), drones()])?;
        workers.start_switched("dispatcher", listeners.dispatcher, switch_of, move |listener, stop| {
            dispatcher::run(config.clone(), listener, Arc::clone(&bus), stop)
        });
        let names = ("drones".to_owned(), "drones");
        let switch_of = switch(&mut board, names, &listeners.drone, chaos::SERVICE_ACTIONS, None)?;
        let (flag, kv_url, bus) = self.ways(board.as_deref(), switch_of.as_ref()).await?;
        // Here is only one; a SHARD meant for other processes would leave the rest of the fleet to nobody.
        let whole = ("--shard", OsString::from(drone_sim::Shard::WHOLE.to_string()));
        let config: drone_sim::Config = settings("drone-sim", [(flag, kv_url), drones(), whole])?;
        workers.start_switched("drone", listeners.drone, switch_of, move |listener, stop| {
            drone_sim::run(config.clone(), listener, Arc::clone(&bus), stop)
        });

        let mut gateways = Layer::new();
        for (number, listener) in (1..).zip(listeners.gateways) {
            let names = (format!("gateway_{number}"), "gateway");
            let switch_of = switch(&mut board, names, &listener, chaos::SERVICE_ACTIONS, None)?;
            let (flag, kv_url, bus) = self.ways(board.as_deref(), switch_of.as_ref()).await?;
            let mut config: gateway::Config = settings("gateway", [(flag, kv_url)])?;
            config.lb_status_url.get_or_insert_with(|| self.lb_url.to_owned());
            config.chaos_url = board.as_ref().map(|board| board.url.clone());
            gateways.start_switched("gateway", listener, switch_of, move |listener, stop| {
                gateway::run(config.clone(), listener, Arc::clone(&bus), stop)
            });
        }
        if let Some(board) = board {
            board.add_drone(self.kv_url, self.bus_stop)?;
        }
        let mut entrance = Layer::new();
        let config: lb::Config = settings("lb", [("--target-url", gateway_urls.into())])?;
        let parts = lb::Parts {
            access_log: Box::new(Above(std::io::stdout())),
            ..lb::Parts::new(&config)
        };
        entrance.start("lb", |stop| lb::run_with(config, listeners.lb, stop, parts));

        let mut orders = Layer::new();
        if args.orders == Orders::Bursty {
            let config: ordergen::Config = settings("ordergen", [("--lb-url", self.lb_url.into())])?;
            // With TOTAL set it ends by itself, and the rest goes on.
            orders.start("ordergen", |stop| async move {
                ordergen::run(config, stop.clone()).await?;
                stop.stopped().await;
                Ok(())
            });
        }
        Ok(vec![orders, entrance, gateways, workers])
    }
}

/// A service's settings: what is fixed here, then the environment, then the demo's values, then the service's own defaults.
fn settings<C, const N: usize>(service: &str, fixed: [(&str, OsString); N]) -> Result<C, SettingError>
where
    C: service::program::Program,
{
    let mut args = vec![OsString::from(service)];
    let command = C::command();
    for (variable, value) in DEMO {
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_env().is_some_and(|env| env == variable));
        if let Some(long) = arg.and_then(|arg| arg.get_long())
            && !is_set(variable)
        {
            args.push(format!("--{long}={value}").into());
        }
    }
    for (flag, value) in fixed {
        args.extend([flag.into(), value]);
    }
    // The listener is already open; a LISTEN meant for some other program must not fail this one.
    if command.get_arguments().any(|arg| arg.get_long() == Some("listen")) {
        args.push("--listen=127.0.0.1:0".into());
    }
    let config: C = try_parse_from(args)?;
    config.validate()?;
    Ok(config)
}

/// Why the system is not running any more, if it is not.
enum Ended {
    Running,
    /// Somebody asked for it.
    Asked,
    /// A service ended by itself.
    Service(&'static str, anyhow::Result<()>),
}

impl Ended {
    fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }
}

/// Waits for `work`, unless a service ends by itself or the end is asked for meanwhile.
async fn until_end(
    layers: &mut [Layer],
    shutdown: &Shutdown,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Ended> {
    let ends = layers
        .iter_mut()
        .filter(|layer| !layer.running.is_empty())
        .map(|layer| Box::pin(layer.running.join_next()));
    tokio::select! {
        (ended, ..) = futures_util::future::select_all(ends) => Ok(match ended {
            Some(Ok((name, result))) => Ended::Service(name, result),
            Some(Err(error)) => Ended::Service("a service", Err(error.into())),
            None => Ended::Service("a service", Ok(())),
        }),
        () = shutdown.stopped() => Ok(Ended::Asked),
        result = work => result.map(|()| Ended::Running),
    }
}

/// Waits until this URL answers with success.
async fn answers(client: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_WITHIN;
    loop {
        let answer = client.get(url).timeout(Duration::from_secs(2)).send().await;
        match answer.and_then(reqwest::Response::error_for_status) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(format!("the system did not answer within {START_WITHIN:?}"));
            }
            Err(_) => tokio::time::sleep(START_POLL).await,
        }
    }
}

/// Says where to look.
fn greet(args: &UpArgs, lb_url: &str, kv_url: &str, store_urls: &[String]) {
    let bus = args.rabbit_url.as_ref().map_or("in process", |_| "RabbitMQ");
    status::say(&format!(
        "DroneDispatch is up: {} drones, {} gateways, bus {bus}",
        args.drones, args.gateways
    ));
    status::say(&format!("  dashboard  {lb_url}/dashboard"));
    status::say(&format!("  API        {lb_url}/deliveries"));
    status::say(&format!(
        "  KV         {kv_url}/kv/zones_config   (nodes: {})",
        store_urls.join(" ")
    ));
    status::say(&format!(
        "  data       {}   (delete it to start anew)",
        args.data_dir.display()
    ));
    if args.chaos {
        status::say("  CHAOS      whoever reaches the dashboard can stop, pause and wipe these services");
    }
    status::say("Ctrl-C stops it.");
}

/// Makes the data folder and keeps a second process out of it: two would write the same databases.
fn lock_data_dir(folder: &Path) -> anyhow::Result<File> {
    let name = folder.display();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the data folder {name} (--data-dir)"))?;
    let path = folder.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot write {} (--data-dir)", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another dronedispatch uses the data folder {name}: stop it, or choose another with --data-dir")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
