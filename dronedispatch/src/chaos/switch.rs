//! A service that can be stopped, started, paused, slowed, isolated and wiped while the others run.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use service::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::gate::{self, Passage};

/// How long a service may take to end before it is dropped.
const END_WITHIN: Duration = Duration::from_millis(1_500);
/// How long its port may take to be free again.
const BIND_WITHIN: Duration = Duration::from_secs(5);
/// Pause between attempts to get it.
const BIND_POLL: Duration = Duration::from_millis(20);

/// How a service is, or is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It runs.
    Running,
    /// It runs, and no byte gets to it or away from it.
    Paused,
    /// It runs, and bytes are late.
    Slow,
    /// It runs, and reaches nobody; nobody reaches it.
    Isolated,
    /// It does not run.
    Stopped,
}

/// What can be done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// End it.
    Stop,
    /// Run it again, unpaused and at full speed.
    Start,
    /// Hold all its bytes.
    Pause,
    /// Hold them for a while.
    Slow,
    /// Cut it off from all others.
    Isolate,
    /// Delete what it keeps; only while it is stopped.
    Wipe,
}

impl Action {
    /// All there are.
    const ALL: [Self; 6] = [
        Self::Stop,
        Self::Start,
        Self::Pause,
        Self::Slow,
        Self::Isolate,
        Self::Wipe,
    ];

    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Its name in paths.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Slow => "slow",
            Self::Isolate => "isolate",
            Self::Wipe => "wipe",
        }
    }

    /// The mode it leads to, if to any.
    fn mode(self) -> Option<Mode> {
        match self {
            Self::Stop => Some(Mode::Stopped),
            Self::Start => Some(Mode::Running),
            Self::Pause => Some(Mode::Paused),
            Self::Slow => Some(Mode::Slow),
            Self::Isolate => Some(Mode::Isolated),
            Self::Wipe => None,
        }
    }
}

/// Why an action was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not with this service.
    #[error("action: {name} cannot be told to {action}; one of {expected} is expected", action = action.name())]
    NotPossible {
        /// The service.
        name: String,
        /// What was wanted.
        action: Action,
        /// What can be done to it.
        expected: String,
    },
    /// Its files are its own while it runs.
    #[error("{0} runs: stop it before its files are deleted")]
    Runs(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
}

/// One service's switch.
#[derive(Debug)]
pub struct Switch {
    /// The service's name.
    pub name: String,
    /// `kvstore`, `gateway`, `bus`, …
    pub kind: &'static str,
    /// Where it listens.
    pub addr: Option<SocketAddr>,
    /// What can be done to it.
    pub actions: &'static [Action],
    /// Its database, with the files beside it that begin with the same name.
    pub database: Option<PathBuf>,
    wanted: watch::Sender<Mode>,
    now: watch::Sender<Mode>,
    /// To it.
    inward: watch::Sender<Passage>,
    /// From it to others.
    outward: watch::Sender<Passage>,
}

impl Mode {
    /// How bytes pass on their way to a service in this mode.
    fn inward(self) -> Passage {
        match self {
            Self::Running | Self::Stopped => Passage::Open,
            Self::Paused => Passage::Held,
            Self::Slow => Passage::Slow,
            Self::Isolated => Passage::Cut,
        }
    }
}

impl Switch {
    /// A switch of something that runs.
    #[must_use]
    pub fn new(
        (name, kind): (String, &'static str),
        addr: Option<SocketAddr>,
        actions: &'static [Action],
        database: Option<PathBuf>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            kind,
            addr,
            actions,
            database,
            wanted: watch::Sender::new(Mode::Running),
            now: watch::Sender::new(Mode::Running),
            inward: watch::Sender::new(Passage::Open),
            outward: watch::Sender::new(Passage::Open),
        })
    }

    /// What it is to become, as that changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Mode> {
        self.wanted.subscribe()
    }

    /// It is like this now; for what is switched by somebody else.
    pub fn reached(&self, mode: Mode) {
        self.now.send_replace(mode);
    }

    /// How what the service itself sends, and is answered, passes.
    #[must_use]
    pub fn outward(&self) -> watch::Receiver<Passage> {
        self.outward.subscribe()
    }

    /// Bytes pass as this mode says from now on.
    fn pass(&self, mode: Mode) {
        let inward = mode.inward();
        self.inward.send_replace(inward);
        // A gateway's every answer waits on the way to it and back already. Several questions of its own for each would wait in turn.
        let is_gentle = self.kind == "gateway" && inward == Passage::Slow;
        self.outward
            .send_replace(if is_gentle { Passage::Open } else { inward });
    }

    /// How it is.
    #[must_use]
    pub fn now(&self) -> Mode {
        *self.now.borrow()
    }

    /// What it is to become; [`Self::now`] tells when it has.
    #[must_use]
    pub fn wanted(&self) -> Mode {
        *self.wanted.borrow()
    }

    /// Tells it what to become, and returns at once: the one who asks may be the one who is to be stopped. A wipe is done on return.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn tell(&self, action: Action) -> Result<(), Refused> {
        if !self.actions.contains(&action) {
            let expected: Vec<_> = self.actions.iter().map(|action| action.name()).collect();
            return Err(Refused::NotPossible {
                name: self.name.clone(),
                action,
                expected: expected.join(", "),
            });
        }
        match action.mode() {
            None => self.wipe(),
            Some(mode) => {
                tracing::warn!(service = self.name, action = action.name(), "on purpose");
                self.wanted.send_replace(mode);
                Ok(())
            }
        }
    }

    fn wipe(&self) -> Result<(), Refused> {
        // Both: a start that is under way counts as running.
        if self.now() != Mode::Stopped || *self.wanted.borrow() != Mode::Stopped {
            return Err(Refused::Runs(self.name.clone()));
        }
        let delete = || -> anyhow::Result<()> {
            let database = self.database.as_ref().context("it keeps nothing")?;
            let (folder, name) = (database.parent(), database.file_name());
            let (folder, name) = (folder.context("no folder")?, name.context("no name")?.to_string_lossy());
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(&*name) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        delete().map_err(|error| Refused::Failed(format!("{} could not be wiped: {error:#}", self.name)))
    }

    /// For what has no listener, until `stop`: it is as it is wanted, at once. A stopped one is cut off.
    pub fn follow(self: &Arc<Self>, stop: Shutdown) -> watch::Receiver<Passage> {
        let (switch, passage) = (Arc::clone(self), self.outward());
        tokio::spawn(async move {
            let mut wanted = switch.wanted.subscribe();
            loop {
                let mode = *wanted.borrow_and_update();
                switch.pass(if mode == Mode::Stopped { Mode::Isolated } else { mode });
                switch.now.send_replace(mode);
                tokio::select! {
                    () = stop.stopped() => return,
                    changed = wanted.changed() => if changed.is_err() { return },
                }
            }
        });
        passage
    }

    /// Runs a service as the switch says, behind a gate at `listener`, until `stop` or until it ends by itself. `start` is called once for
    /// every life of it.
    ///
    /// # Errors
    /// The service's own, or its port could not be had again.
    pub async fn run<Fut>(
        self: Arc<Self>,
        mut listener: TcpListener,
        start: impl Fn(TcpListener, Shutdown) -> Fut,
        stop: Shutdown,
    ) -> anyhow::Result<()>
    where
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let addr = listener.local_addr()?;
        loop {
            self.live(listener, &start, &stop).await?;
            if stop.is_stopping() {
                return Ok(());
            }
            self.now.send_replace(Mode::Stopped);
            let mut wanted = self.wanted.subscribe();
            tokio::select! {
                () = stop.stopped() => return Ok(()),
                started = wanted.wait_for(|mode| *mode != Mode::Stopped) => { started.context("the switch is gone")?; }
            }
            listener = bind_again(addr)
                .await
                .with_context(|| format!("{} has lost its port", self.name))?;
        }
    }

    /// One life: until it is stopped. Its listener is closed then.
    async fn live<Fut>(
        &self,
        listener: TcpListener,
        start: &impl Fn(TcpListener, Shutdown) -> Fut,
        stop: &Shutdown,
    ) -> anyhow::Result<()>
    where
        Fut: Future<Output = anyhow::Result<()>>,
    {
        let inside = TcpListener::bind("127.0.0.1:0").await?;
        let inside_addr = inside.local_addr()?;
        let own = stop.child();
        // On the heap: a whole service's future is large.
        let mut service = Box::pin(start(inside, own.clone()));
        let gate = gate::keep(listener, inside_addr, self.inward.subscribe(), own.clone());
        tokio::pin!(gate);
        let mut wanted = self.wanted.subscribe();
        let connections = loop {
            let mode = *wanted.borrow_and_update();
            self.pass(mode);
            if mode == Mode::Stopped {
                own.stop();
            } else {
                self.now.send_replace(mode);
            }
            tokio::select! {
                ended = &mut service, if !own.is_stopping() => {
                    ended?;
                    return if stop.is_stopping() { Ok(()) } else { Err(anyhow::anyhow!("it ended by itself")) };
                }
                connections = &mut gate => break connections,
                changed = wanted.changed() => changed.context("the switch is gone")?,
            }
        };
        // It answers what is under way; then its connections are cut.
        match timeout(END_WITHIN, service).await {
            Ok(ended) => ended?,
            Err(_) => tracing::warn!(service = self.name, "did not end in time and was dropped"),
        }
        drop(connections);
        Ok(())
    }
}

async fn bind_again(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_WITHIN;
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return Ok(listener),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(BIND_POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;

    const ACTIONS: &[Action] = &[
        Action::Stop,
        Action::Start,
        Action::Pause,
        Action::Isolate,
        Action::Wipe,
    ];

    /// Says the number of its life to everybody who connects.
    async fn service(life: usize, listener: TcpListener, stop: Shutdown) -> anyhow::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        loop {
            tokio::select! {
                () = stop.stopped() => return Ok(()),
                taken = listener.accept() => taken?.0.write_all(life.to_string().as_bytes()).await?,
            }
        }
    }

    /// Tells it, and waits until it is so.
    async fn becomes(switch: &Switch, action: Action) {
        switch.tell(action).unwrap();
        let (wanted, mut now) = (switch.wanted(), switch.now.subscribe());
        let reached = timeout(Duration::from_secs(10), now.wait_for(|now| *now == wanted)).await;
        reached.unwrap().unwrap();
    }

    async fn ask(addr: SocketAddr) -> std::io::Result<String> {
        let mut said = String::new();
        TcpStream::connect(addr).await?.read_to_string(&mut said).await?;
        Ok(said)
    }

    #[tokio::test]
    async fn a_service_stops_starts_anew_pauses_and_is_wiped() {
        let folder = std::env::temp_dir().join(format!("chaos-switch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let database = folder.join("a.db");
        for name in ["a.db", "a.db-wal", "b.db"] {
            std::fs::write(folder.join(name), "x").unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let switch = Switch::new(("a".to_owned(), "kvstore"), Some(addr), ACTIONS, Some(database));
        let (lives, stop) = (Arc::new(AtomicUsize::new(0)), Shutdown::new());
        let start = move |listener, stop| service(lives.fetch_add(1, Ordering::SeqCst) + 1, listener, stop);
        let running = tokio::spawn(Arc::clone(&switch).run(listener, start, stop.clone()));
        assert_eq!(ask(addr).await.unwrap(), "1");

        let wipe = switch.tell(Action::Wipe).unwrap_err().to_string();
        assert!(wipe.contains("stop it before"), "{wipe}");
        let slow = switch.tell(Action::Slow).unwrap_err().to_string();
        assert!(slow.contains("stop, start, pause, isolate, wipe"), "{slow}");
        becomes(&switch, Action::Stop).await;
        assert!(ask(addr).await.is_err(), "its port refuses connections");
        switch.tell(Action::Wipe).unwrap();
        assert!(!folder.join("a.db").exists() && !folder.join("a.db-wal").exists() && folder.join("b.db").exists());
        becomes(&switch, Action::Start).await;
        assert_eq!(ask(addr).await.unwrap(), "2", "a life of its own");

        becomes(&switch, Action::Pause).await;
        let waiting = tokio::spawn(ask(addr));
        assert_eq!((switch.now(), waiting.is_finished()), (Mode::Paused, false));
        becomes(&switch, Action::Start).await;
        let said = timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(said.unwrap(), "2", "the same life goes on");

        let outward = switch.outward();
        becomes(&switch, Action::Isolate).await;
        assert_eq!((switch.now(), *outward.borrow()), (Mode::Isolated, Passage::Cut));
        assert_ne!(ask(addr).await.ok().as_deref(), Some("2"), "nobody gets through");
        becomes(&switch, Action::Start).await;
        assert_eq!(*outward.borrow(), Passage::Open);
        assert_eq!(ask(addr).await.unwrap(), "2", "and the same life goes on");
        stop.stop();
        running.await.unwrap().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn what_has_no_listener_follows() {
        let switch = Switch::new(("bus".to_owned(), "bus"), None, ACTIONS, None);
        let stop = Shutdown::new();
        let mut passage = switch.follow(stop.clone());
        for (action, expected) in [
            (Action::Stop, Passage::Cut),
            (Action::Pause, Passage::Held),
            (Action::Isolate, Passage::Cut),
            (Action::Start, Passage::Open),
        ] {
            switch.tell(action).unwrap();
            let reached = passage.wait_for(|passage| *passage == expected);
            timeout(Duration::from_secs(10), reached).await.unwrap().unwrap();
        }
        stop.stop();
    }

    #[tokio::test]
    async fn a_service_that_ends_by_itself_is_no_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let switch = Switch::new(("a".to_owned(), "gateway"), None, ACTIONS, None);
        let start = |_: TcpListener, _: Shutdown| async { Ok(()) };
        let error = switch.run(listener, start, Shutdown::new()).await.unwrap_err();
        assert!(error.to_string().contains("by itself"), "{error}");
    }
}
