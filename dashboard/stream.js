// What happens, as the gateway tells it: one EventSource for all tabs of this page.
//
// The tab that holds the lock LOCK leads: it has the connection and passes on what it hears over a BroadcastChannel. When it
// goes, the browser gives the lock to another tab, which resumes at the last event that it was passed. Without locks (a page
// that is not from localhost or https has none) each tab has its own connection.
//
// Promises: after a break it comes back by itself, first at once, then slower and slower up to RETRY_MAX_MS; it resumes at the
// last event, so that nothing is missed where the gateway still knows it, and begins anew with a snapshot where it does not.

/**
 * @typedef {"snapshot"|"drones"|"deliveries"} Kind
 * @typedef {"connecting"|"live"|"broken"} Link
 * @typedef {object} Listener
 * @property {(kind: Kind, data: any) => void} onEvent  what arrived, in order
 * @property {(link: Link) => void} onLink  how the connection is
 * @property {(stats: any) => void} onStats  the answer of GET /stats, about twice a second
 * @property {() => {at: number, drones: object[], deliveries: object[]}|null} snapshot  all that is known, for a new tab
 * @property {() => boolean} expectsNews  whether a living gateway would not be silent
 */

const LOCK = "dronedispatch-events";
const CHANNEL = "dronedispatch-events-1";
const KINDS = ["snapshot", "drones", "deliveries"];

const RETRY_MIN_MS = 150;
const RETRY_MAX_MS = 8000;
const OPEN_MAX_MS = 2500; // a connection that takes longer is tried anew
const SILENCE_MAX_MS = 2500; // while drones move, this long without news means that nobody is there
const QUIET_MAX_MS = 60_000; // while nothing moves either
const WATCH_EVERY_MS = 500;
const STATS_EVERY_MS = 500;
const BEAT_EVERY_MS = 1000;
const STATS_TIMEOUT_MS = 4000;
const STATS_EVERY_HIDDEN_MS = 15_000;
const FOLLOWER_SILENT_MS = 5000; // without word from another tab for so long, there is none to pass events on to
const LEADER_SILENT_MS = 4000; // a leader that says nothing for so long is frozen

/** One connection to GET /events that always comes back. */
class Source {
  /** @param {string|null} after id of the last event known
   *  @param {Listener} listener
   *  @param {(kind: Kind, id: string, data: any) => void} pass */
  constructor(after, listener, pass) {
    this.after = after;
    this.listener = listener;
    this.pass = pass;
    this.failures = 0;
    this.quiet = SILENCE_MAX_MS;
    this.timer = 0;
    this.open();
    setInterval(() => this.watch(), WATCH_EVERY_MS);
    addEventListener("online", () => this.events.readyState === EventSource.CLOSED && this.open());
  }

  open() {
    clearTimeout(this.timer);
    this.events?.close();
    this.sinceMs = performance.now();
    const events = new EventSource(this.after ? `/events?after=${encodeURIComponent(this.after)}` : "/events");
    this.events = events;
    events.onopen = () => this.isUp();
    events.onerror = () => {
      // The browser would come back by itself, but not after an answer like 503, and not at once.
      if (events === this.events) this.again();
    };
    for (const kind of KINDS) {
      events.addEventListener(kind, (event) => {
        if (events !== this.events) return;
        this.sinceMs = performance.now();
        this.quiet = SILENCE_MAX_MS;
        this.isUp();
        this.after = event.lastEventId;
        this.pass(/** @type {Kind} */ (kind), event.lastEventId, JSON.parse(event.data));
      });
    }
  }

  isUp() {
    this.failures = 0;
    this.listener.onLink("live");
  }

  again() {
    this.events.close();
    const wait = Math.min(RETRY_MIN_MS * 2 ** this.failures, RETRY_MAX_MS);
    this.failures += 1;
    this.listener.onLink("broken");
    clearTimeout(this.timer);
    // Jitter: many open pages must not come back in step after an outage.
    this.timer = setTimeout(() => this.open(), wait * (0.5 + Math.random() / 2));
  }

  /** A connection may die without an end: the gateway stands still, the network swallows everything. */
  watch() {
    const silent = performance.now() - this.sinceMs;
    if (this.events.readyState === EventSource.CONNECTING) {
      if (silent > OPEN_MAX_MS) this.again();
    } else if (this.events.readyState === EventSource.OPEN) {
      const limit = this.listener.expectsNews() ? this.quiet : QUIET_MAX_MS;
      if (silent <= limit) return;
      // Perhaps it is the drones that stand still: ask more and more rarely.
      this.quiet = Math.min(this.quiet * 2, QUIET_MAX_MS);
      this.open();
    }
  }
}

/** Asks for GET /stats, which events do not tell, about twice a second. */
class StatsAsker {
  /** @param {(stats: any) => void} pass */
  constructor(pass) {
    this.pass = pass;
    this.askedMs = -Infinity;
    setInterval(() => this.mayAsk(), STATS_EVERY_MS / 4);
  }

  /** Also called as events arrive: timers of hidden tabs are slow, and this tab may be hidden while it leads others. */
  async mayAsk() {
    const every = document.hidden && !this.hasFollowers ? STATS_EVERY_HIDDEN_MS : STATS_EVERY_MS;
    if (this.asking || performance.now() - this.askedMs < every) return;
    this.asking = true;
    this.askedMs = performance.now();
    try {
      const answer = await fetch("/stats", { signal: AbortSignal.timeout(STATS_TIMEOUT_MS) });
      if (answer.ok) this.pass({ ...(await answer.json()), answered_in_ms: performance.now() - this.askedMs });
    } catch {
      // The stream tells whether the gateway is there.
    } finally {
      this.asking = false;
    }
  }
}

/** The stream of this tab, led or passed on. */
export class Stream {
  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener;
    this.lastId = null;
    this.leads = false;
    this.whole = false;
    if (!("BroadcastChannel" in globalThis) || !navigator.locks) {
      this.lead();
      return;
    }
    this.me = crypto.randomUUID();
    this.heardMs = performance.now();
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = (event) => this.leads ? this.hear(event.data) : this.follow(event.data);
    this.channel.postMessage({ kind: "hello", from: this.me });
    navigator.locks.request(LOCK, () => {
      this.lead();
      return new Promise(() => {}); // for as long as this tab lives
    });
    this.guard = setInterval(() => {
      if (performance.now() - this.heardMs > LEADER_SILENT_MS) this.lead();
    }, WATCH_EVERY_MS);
  }

  /** This tab has the connection from now on. */
  lead() {
    if (this.leads) return;
    this.leads = true;
    clearInterval(this.guard);
    this.followedMs = performance.now(); // there may be others, who know nothing yet of the change
    this.stats = new StatsAsker((stats) => {
      this.listener.onStats(stats);
      this.say({ kind: "stats", stats });
    });
    this.source = new Source(
      this.whole ? this.lastId : null,
      { ...this.listener, onLink: (link) => this.setLink(link) },
      (kind, id, data) => {
        this.take(kind, id, data);
        this.stats.hasFollowers = performance.now() - this.followedMs < FOLLOWER_SILENT_MS;
        if (this.stats.hasFollowers) this.say({ kind: "event", event: kind, id, data });
        this.stats.mayAsk();
      },
    );
    setInterval(() => this.say({ kind: "beat", link: this.link }), BEAT_EVERY_MS);
  }

  /** @param {Link} link */
  setLink(link) {
    if (link === this.link) return;
    this.link = link;
    this.listener.onLink(link);
    this.say({ kind: "beat", link });
  }

  /** @param {Kind} kind @param {string} id @param {any} data */
  take(kind, id, data) {
    this.lastId = id;
    this.whole ||= kind === "snapshot";
    if (this.whole) this.listener.onEvent(kind, data);
  }

  say(message) {
    this.channel?.postMessage({ ...message, from: this.me });
  }

  /** What the leader hears from others. */
  hear(message) {
    if (message.kind === "here" || message.kind === "hello") this.followedMs = performance.now();
    if (message.kind !== "hello") return;
    const snapshot = this.listener.snapshot();
    if (snapshot) this.say({ kind: "state", to: message.from, snapshot, id: this.lastId, link: this.link });
  }

  /** What the others hear from the leader. */
  follow(message) {
    if (message.kind === "hello" || message.kind === "here") return;
    this.heardMs = performance.now();
    if (message.kind === "event") this.take(message.event, message.id, message.data);
    else if (message.kind === "stats") this.listener.onStats(message.stats);
    else if (message.kind === "state" && message.to === this.me && !this.whole) this.take("snapshot", message.id, message.snapshot);
    if (message.kind === "beat") this.channel.postMessage({ kind: this.whole ? "here" : "hello", from: this.me });
    if (message.link) this.setFollowed(message.link);
  }

  setFollowed(link) {
    if (link === this.link) return;
    this.link = link;
    this.listener.onLink(link);
  }
}
