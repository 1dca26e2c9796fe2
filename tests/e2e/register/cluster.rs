//! Three kvstores and two kvfronts as programs, with a proxy on every way between them, and everything that can happen to them.
//!
//! What a test does to a node it names by number: stores 0 to 2, fronts 0 and 1. Whatever blocks (starting a program) is done where it
//! holds up neither the proxies nor the clients of the same runtime.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::proxy::{Proxy, Wire};
use super::soak::SOAK_SEC;
use crate::process::{Process, program, wait_until};
use crate::system::{body, client};

/// Runs a kvstore whose disk can be made full.
const START_KVSTORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/register/start-kvstore");
/// Nodes of the cluster.
pub(crate) const STORES: usize = 3;
/// Coordinators.
pub(crate) const FRONTS: usize = 2;
/// How long the cluster may take until both kvfronts serve.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a node that was away may take until every kvfront takes it for well again, its new disk filled with all there is after a
/// long soak.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// How often the cluster is asked how it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a kvstore may take to refuse its database.
const REFUSES_WITHIN: Duration = Duration::from_secs(10);
/// Bytes a "full" disk still has room for in each file: fewer than one page of the database.
const FULL_DISK_BYTES: u64 = 1_024;
/// A page of SQLite, as kvstore leaves it.
const PAGE_BYTES: u64 = 4_096;
/// A program, its settings, and what it left on disk.
#[derive(Debug)]
struct Place {
    process: Option<Process>,
    settings: Vec<(String, String)>,
    clock_file: PathBuf,
}

impl Place {
    fn new(dir: &Path, name: &str, settings: Vec<(String, String)>) -> Self {
        let clock_file = dir.join(format!("{name}.clock"));
        let mut settings = settings;
        settings.push(("TEST_CLOCK_OFFSET_FILE".to_owned(), text(&clock_file)));
        // Whoever watches a long run by hand wants to see its own lines, and not each suspicion of a node that is killed on purpose.
        if std::env::var_os(SOAK_SEC).is_some() {
            settings.push(("LOG".to_owned(), "error".to_owned()));
        }
        Self {
            process: None,
            settings,
            clock_file,
        }
    }

    /// Starts it on a free port. The old one may have been taken by somebody meanwhile, so nobody is promised the same.
    fn start(&mut self, program: &str) -> SocketAddr {
        self.kill();
        let settings: Vec<_> = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let process = block_in_place(|| Process::server(program, &settings));
        let addr = process.addr.expect("a server has an address");
        self.process = Some(process);
        addr
    }

    fn kill(&mut self) {
        block_in_place(|| drop(self.process.take()));
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            block_in_place(|| process.stop());
        }
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        block_in_place(|| process.signal(name));
    }

    /// Sets the clock's error. The file appears at once or not at all: a program may read it at any moment.
    fn set_clock_offset(&self, ms: i64) {
        let new = self.clock_file.with_extension("new");
        fs::write(&new, ms.to_string()).expect("a temporary file");
        fs::rename(&new, &self.clock_file).expect("a rename in a temporary folder");
    }
}

/// The cluster. Dropped, everything of it ends.
#[derive(Debug)]
pub(crate) struct Cluster {
    stores: Vec<Place>,
    fronts: Vec<Place>,
    /// By front, then by store.
    wires: Vec<Vec<Proxy>>,
    /// Where the fronts are now; the clients look here.
    pub(crate) front_urls: Arc<RwLock<Vec<String>>>,
    pub(crate) http: Client,
    /// Incarnations of stores that are gone with their disks.
    lost: BTreeSet<String>,
    dir: TempDir,
}

impl Cluster {
    /// A cluster that serves.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more settings for the kvfronts.
    pub(crate) async fn start_with(front_settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut stores: Vec<_> = (0..STORES)
            .map(|n| Place::new(dir.path(), &format!("store{n}"), store_settings(dir.path(), n)))
            .collect();
        let addrs: Vec<_> = stores.iter_mut().map(|store| store.start(START_KVSTORE)).collect();
        let wires = lay_wires(&addrs).await;
        let fronts = (0..FRONTS)
            .map(|n| {
                let mut settings = vec![("BACKENDS".to_owned(), backends(&wires[n]))];
                settings.extend(front_settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
                Place::new(dir.path(), &format!("front{n}"), settings)
            })
            .collect();
        let mut cluster = Self {
            stores,
            fronts,
            wires,
            front_urls: Arc::new(RwLock::new(vec![String::new(); FRONTS])),
            http: client(),
            lost: BTreeSet::new(),
            dir,
        };
        for front in 0..FRONTS {
            cluster.start_front(front);
        }
        for front in 0..FRONTS {
            cluster.front_is_ready(front).await;
        }
        cluster
    }

    pub(crate) fn kill_store(&mut self, n: usize) {
        self.stores[n].kill();
    }

    pub(crate) fn start_store(&mut self, n: usize) {
        let addr = self.stores[n].start(START_KVSTORE);
        for wires in &self.wires {
            wires[n].lead_to(addr);
        }
    }

    pub(crate) fn pause_store(&self, n: usize) {
        self.stores[n].signal("STOP");
    }

    pub(crate) fn resume_store(&self, n: usize) {
        self.stores[n].signal("CONT");
    }

    pub(crate) fn kill_front(&mut self, n: usize) {
        self.fronts[n].kill();
    }

    pub(crate) fn start_front(&mut self, n: usize) {
        let addr = self.fronts[n].start("kvfront");
        self.front_urls.write().expect("nobody panics with it")[n] = format!("http://{addr}");
    }

    pub(crate) fn pause_front(&self, n: usize) {
        self.fronts[n].signal("STOP");
    }

    pub(crate) fn resume_front(&self, n: usize) {
        self.fronts[n].signal("CONT");
    }

    /// Changes the wires from every front to a store.
    pub(crate) fn wire_store(&self, store: usize, wire: Wire) {
        for wires in &self.wires {
            wires[store].set(wire);
        }
    }

    /// Changes the wire from one front to one store.
    pub(crate) fn wire(&self, front: usize, store: usize, wire: Wire) {
        self.wires[front][store].set(wire);
    }

    /// Ends every connection between a store and its fronts, once.
    pub(crate) fn sever_store(&self, store: usize) {
        for wires in &self.wires {
            wires[store].sever();
        }
    }

    pub(crate) fn set_store_clock(&self, n: usize, offset_ms: i64) {
        self.stores[n].set_clock_offset(offset_ms);
    }

    pub(crate) fn set_front_clock(&self, n: usize, offset_ms: i64) {
        self.fronts[n].set_clock_offset(offset_ms);
    }

    /// Stops a store and takes its disk away: on its next start it finds none. Asks the others who it was, to know it from who it will be.
    pub(crate) async fn lose_disk(&mut self, n: usize) {
        self.kill_store(n);
        for front in 0..FRONTS {
            let incarnation = self.node_view(front, n).await["incarnation"].clone();
            self.lost.extend(incarnation.as_str().map(str::to_owned));
        }
        let file = database(self.dir.path(), n);
        for ending in ["", "-wal", "-shm"] {
            match fs::remove_file(format!("{}{ending}", text(&file))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("cannot remove {file:?}: {error}"),
                _ => {}
            }
        }
    }

    /// The disk of a store is swapped for an empty one.
    pub(crate) async fn replace_disk(&mut self, n: usize) {
        self.lose_disk(n).await;
        self.start_store(n);
    }

    /// Stops a store, writes nonsense over every second page of its database, and gives what the program says when it is started on it.
    pub(crate) async fn start_on_damage(&mut self, n: usize) -> (ExitStatus, String) {
        // In good order, so that everything is in the file, and not in its write-ahead log.
        self.stores[n].stop();
        let path = database(self.dir.path(), n);
        let file = fs::File::options().write(true).open(&path).expect("a database");
        let pages = file.metadata().expect("an open file").len() / PAGE_BYTES;
        assert!(pages > 2, "{pages} pages are too few to be damaged in the middle");
        let nonsense = vec![0xa5; usize::try_from(PAGE_BYTES).expect("a small number")];
        for page in (1..pages).step_by(2) {
            file.write_all_at(&nonsense, page * PAGE_BYTES)
                .expect("room for the same bytes");
        }
        let settings = self.stores[n].settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let mut command = tokio::process::Command::new(program("kvstore"));
        command.env("LISTEN", "127.0.0.1:0").envs(settings);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(REFUSES_WITHIN, command.output()).await;
        let output = output.expect("it ends soon").expect("the program runs");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// From now on every write of a store fails as on a full disk, or no longer.
    pub(crate) fn fill_disk(&self, n: usize, full: bool) {
        let pid = fs::read_to_string(pid_file(self.dir.path(), n)).expect("the store was started");
        let limit = if full {
            format!("--fsize={FULL_DISK_BYTES}:unlimited")
        } else {
            "--fsize=unlimited:unlimited".to_owned()
        };
        let status = block_in_place(|| Command::new("prlimit").args(["--pid", pid.trim(), &limit]).status());
        assert!(status.is_ok_and(|status| status.success()), "prlimit {limit} of {pid}");
    }

    pub(crate) fn database(&self, n: usize) -> PathBuf {
        database(self.dir.path(), n)
    }

    pub(crate) fn front_url(&self, n: usize) -> String {
        self.front_urls.read().expect("nobody panics with it")[n].clone()
    }

    pub(crate) fn store_url(&self, n: usize) -> String {
        self.stores[n].process.as_ref().expect("it runs").url()
    }

    /// Waits until a front has learnt enough clocks to serve.
    pub(crate) async fn front_is_ready(&self, n: usize) {
        let url = format!("{}/ready", self.front_url(n));
        wait_until(READY_WITHIN, "kvfront is ready", async || {
            self.http
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// `/cluster` as a front tells it, or null while it does not.
    pub(crate) async fn view(&self, front: usize) -> Value {
        match self.http.get(format!("{}/cluster", self.front_url(front))).send().await {
            Ok(answer) if answer.status() == 200 => body(answer).await,
            _ => Value::Null,
        }
    }

    /// A store's line of `/cluster`.
    pub(crate) async fn node_view(&self, front: usize, store: usize) -> Value {
        let view = self.view(front).await;
        let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
        let is_it = |node: &Value| node["name"] == *name(store);
        nodes.into_iter().find(is_it).unwrap_or(Value::Null)
    }

    /// Waits until every front takes every store for well, all of them vote, and no hint waits: the next fault may come.
    pub(crate) async fn whole(&self) -> Duration {
        let mut last = Value::Null;
        let begun = Instant::now();
        loop {
            let mut whole = true;
            for front in 0..FRONTS {
                let view = self.view(front).await;
                if !self.is_whole(&view) {
                    whole = false;
                    last = view;
                }
            }
            if whole {
                return begun.elapsed();
            }
            assert!(
                begun.elapsed() < BACK_WITHIN,
                "the cluster is not whole within {BACK_WITHIN:?}: {last:#}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All stores are up and vote, none of them is known by what it was before it lost its disk, and no hint waits.
    fn is_whole(&self, view: &Value) -> bool {
        let nodes = view["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let is_of_today = |node: &Value| node["incarnation"].as_str().is_some_and(|is| !self.lost.contains(is));
        let well = |node: &Value| node["up"] == true && node["standing"] == "voting" && is_of_today(node);
        nodes.len() == STORES && nodes.iter().all(well) && view["hints_waiting"] == 0
    }
}

/// The proxies, by front and store.
async fn lay_wires(stores: &[SocketAddr]) -> Vec<Vec<Proxy>> {
    let mut wires = Vec::new();
    for _ in 0..FRONTS {
        let mut own = Vec::new();
        for store in stores {
            own.push(Proxy::start(*store).await);
        }
        wires.push(own);
    }
    wires
}

/// `BACKENDS` of a front with these wires: the same names for all fronts, addresses of its own.
fn backends(wires: &[Proxy]) -> String {
    let entry = |(n, wire): (usize, &Proxy)| format!("{}=http://{}", name(n), wire.addr);
    wires.iter().enumerate().map(entry).collect::<Vec<_>>().join(",")
}

fn name(store: usize) -> String {
    format!("store{store}")
}

fn store_settings(dir: &Path, n: usize) -> Vec<(String, String)> {
    vec![
        ("DB_FILE".to_owned(), text(&database(dir, n))),
        ("PID_FILE".to_owned(), text(&pid_file(dir, n))),
        ("KVSTORE_PROGRAM".to_owned(), text(&program("kvstore"))),
    ]
}

fn database(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("{n}.db"))
}

fn pid_file(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("{n}.pid"))
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
