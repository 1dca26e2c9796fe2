//! Every service in one process, wired as compose wires containers, and stopped in the order that loses nothing.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bus::{Bus, InProcess, Rabbit};
use service::Shutdown;
use service::settings::{SettingError, try_parse_from};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cli::{Orders, UpArgs};
use crate::ports::{KVSTORES, Listeners, url};
use crate::status;

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
    let (lb_url, kv_url) = (url(&listeners.lb)?, url(&listeners.kvfront)?);
    let stats_url = format!(
        "{}/stats",
        url(listeners.gateways.first().context("at least one gateway")?)?
    );
    let store_urls = listeners.kvstores.iter().map(url).collect::<Result<Vec<_>, _>>()?;
    let bus_stop = Shutdown::new();
    let bus: Arc<dyn Bus> = match &args.rabbit_url {
        Some(rabbit) => Rabbit::connect(rabbit, bus_stop.token()).context("RABBIT_URL (--rabbit-url)")?,
        None => InProcess::with_shutdown(bus_stop.token()),
    };
    let mut layers = start(args, listeners, &bus)?;

    let client = reqwest::Client::builder().no_proxy().build()?;
    let ended = tokio::select! {
        ended = first_end(&mut layers) => Some(ended),
        () = shutdown.stopped() => None,
        ready = answers(&client, &lb_url) => {
            ready?;
            greet(args, &lb_url, &kv_url, &store_urls);
            let show = tokio::spawn(status::show(client, stats_url, shutdown.child()));
            let ended = tokio::select! {
                ended = first_end(&mut layers) => Some(ended),
                () = shutdown.stopped() => None,
            };
            shutdown.stop();
            let _ = timeout(LAYER_STOP_WITHIN, show).await;
            ended
        }
    };
    let deadline = Instant::now() + STOP_WITHIN;
    for layer in layers {
        layer.stop(deadline).await;
    }
    bus_stop.stop();
    match ended {
        Some((name, Ok(()))) => bail!("{name} ended by itself"),
        Some((name, Err(error))) => Err(error.context(format!("{name} failed"))),
        None => Ok(()),
    }
}

/// Starts every service; the layers come in the order in which they are to be stopped: whoever asks before whoever answers.
fn start(args: &UpArgs, listeners: Listeners, bus: &Arc<dyn Bus>) -> anyhow::Result<Vec<Layer>> {
    let text = |text: &str| OsString::from(text);
    let kv_url = url(&listeners.kvfront)?;
    let store_urls = listeners.kvstores.iter().map(url).collect::<Result<Vec<_>, _>>()?;
    let gateway_urls = listeners.gateways.iter().map(url).collect::<Result<Vec<_>, _>>()?;
    let lb_url = url(&listeners.lb)?;
    let drones = args.drones.to_string();

    let mut stores = Layer::new();
    for (name, listener) in KVSTORES.into_iter().zip(listeners.kvstores) {
        let db_file = args.data_dir.join(name).with_extension("db");
        let config: kvstore::Config = settings("kvstore", [("--db-file", db_file.into_os_string())])?;
        stores.start(name, |stop| kvstore::run(config, listener, stop));
    }
    let mut front = Layer::new();
    let config: kvfront::Config = settings("kvfront", [("--backends", text(&store_urls.join(",")))])?;
    front.start("kvfront", |stop| kvfront::run(config, listeners.kvfront, stop));

    let mut workers = Layer::new();
    let fleet = [("--kv-url", text(&kv_url)), ("--drone-pool-max", text(&drones))];
    let config: dispatcher::Config = settings("dispatcher", fleet.clone())?;
    workers.start("dispatcher", |stop| {
        dispatcher::run(config, listeners.dispatcher, Arc::clone(bus), stop)
    });
    let config: drone_sim::Config = settings("drone-sim", fleet)?;
    workers.start("drone", |stop| {
        drone_sim::run(config, listeners.drone, Arc::clone(bus), stop)
    });

    let mut gateways = Layer::new();
    for listener in listeners.gateways {
        let config: gateway::Config = settings("gateway", [("--kv-url", text(&kv_url))])?;
        gateways.start("gateway", |stop| gateway::run(config, listener, Arc::clone(bus), stop));
    }
    let mut entrance = Layer::new();
    let config: lb::Config = settings("lb", [("--target-url", text(&gateway_urls.join(",")))])?;
    entrance.start("lb", |stop| lb::run(config, listeners.lb, stop));

    let mut orders = Layer::new();
    if args.orders == Orders::Bursty {
        let config: ordergen::Config = settings("ordergen", [("--lb-url", text(&lb_url))])?;
        // With TOTAL set it ends by itself, and the rest goes on.
        orders.start("ordergen", |stop| async move {
            ordergen::run(config, stop.clone()).await?;
            stop.stopped().await;
            Ok(())
        });
    }
    Ok(vec![orders, entrance, gateways, workers, front, stores])
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
            && std::env::var_os(variable).is_none()
        {
            args.push(format!("--{long}={value}").into());
        }
    }
    for (flag, value) in fixed {
        args.extend([flag.into(), value]);
    }
    // The listener is already open; a LISTEN meant for some other program must not fail this one.
    args.push("--listen=127.0.0.1:0".into());
    if !command.get_arguments().any(|arg| arg.get_long() == Some("listen")) {
        args.pop();
    }
    let config: C = try_parse_from(args)?;
    config.validate()?;
    Ok(config)
}

/// Waits for a service that ends by itself; for ever when none does.
async fn first_end(layers: &mut [Layer]) -> (&'static str, anyhow::Result<()>) {
    let ends = layers
        .iter_mut()
        .filter(|layer| !layer.running.is_empty())
        .map(|layer| Box::pin(layer.running.join_next()));
    let (ended, ..) = futures_util::future::select_all(ends).await;
    match ended {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => ("a service", Err(error.into())),
        None => ("a service", Ok(())),
    }
}

/// Waits until the whole way from lb to the KV answers.
async fn answers(client: &reqwest::Client, lb_url: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_WITHIN;
    let zones = format!("{lb_url}/zones");
    loop {
        let answer = client.get(&zones).timeout(Duration::from_secs(2)).send().await;
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
