// The last 15 minutes, recorded from the stream: where every drone was, once a second, in bounded memory.

import { addWords, onLanguage, t } from "/dashboard/i18n.js";
import { TRAIL } from "/dashboard/tracks.js";

addWords({
  "playback": ["Playback of the last 15 minutes", "Riproduzione degli ultimi 15 minuti"],
  "playback.live": ["Live", "Dal vivo"],
  "playback.play": ["Play", "Riproduci"],
  "playback.pause": ["Pause", "Pausa"],
  "playback.ago": ["{time} ago", "{time} fa"],
  "playback.speed": ["Speed", "Velocità"],
  "playback.badge": ["Playback · {time}", "Riproduzione · {time}"],
});

export const LENGTH_SEC = 900;
const MEMORY_MAX = 24 << 20; // bytes of recorded frames
const BYTES = 10; // per drone and frame
const EVERY_SEC = 1;
const SPEEDS = [1, 4, 16];
const LIVE_WITHIN_SEC = 0.25; // less than a step of the slider: who goes back one step stays in the past, though clocks are set right by a little
const TRAIL_FRAMES = 8;

export class Recorder {
  /** @param {import("/dashboard/store.js").Store} store */
  constructor(store) {
    this.store = store;
    /** @type {{at: number, ids: string[], lat: Float32Array, lon: Float32Array, status: string[], battery: Uint8Array}[]} */
    this.frames = [];
    this.names = new Map(); // one string per status, however many drones have it
  }

  /** Time between frames: longer the more drones there are, so that the whole stays within MEMORY_MAX. */
  everySec() {
    return Math.max(EVERY_SEC, (this.store.drones.size * BYTES * LENGTH_SEC) / MEMORY_MAX);
  }

  /** Called often; takes a frame when one is due. */
  record() {
    const { drones, tracks, clock } = this.store;
    const at = clock.now();
    const last = this.frames.at(-1);
    if (!this.store.whole || (last && at - last.at < this.everySec())) return;
    const known = last && last.ids.length === tracks.slots.size && last.ids.every((id) => tracks.slots.has(id));
    const ids = known ? last.ids : [...tracks.slots.keys()];
    const count = ids.length;
    const frame = { at, ids, lat: new Float32Array(count), lon: new Float32Array(count), status: new Uint8Array(count), battery: new Uint8Array(count) };
    ids.forEach((id, index) => {
      const slot = tracks.slots.get(id);
      const drone = drones.get(id);
      frame.lat[index] = tracks.lat[slot];
      frame.lon[index] = tracks.lon[slot];
      frame.status[index] = this.code(drone?.status);
      frame.battery[index] = drone?.battery ?? 0;
    });
    this.frames.push(frame);
    while (this.frames[0].at < at - LENGTH_SEC) this.frames.shift();
  }

  code(status) {
    if (!this.names.has(status)) this.names.set(status, this.names.size);
    return this.names.get(status);
  }

  statusOf(code) {
    for (const [name, known] of this.names) if (known === code) return name;
    return "inactive";
  }

  /** The frame before `at` and the one after it. */
  around(at) {
    let low = 0;
    let high = this.frames.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.frames[middle].at <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** The past, in the shape in which the map shows the present. */
class Past {
  constructor(recorder) {
    this.recorder = recorder;
    this.drones = new Map();
    this.open = new Map();
    this.orderChanges = 0;
    this.at = 0;
    this.tracks = { slots: new Map(), capacity: 0, advance: () => this.advance() };
    this.shown = { index: -1, ids: null };
  }

  now() {
    return this.at;
  }

  advance() {
    const { recorder, tracks } = this;
    const index = recorder.around(this.at);
    const before = recorder.frames[index];
    if (!before) return false;
    if (before.ids !== this.shown.ids) this.lay(before.ids);
    if (before !== this.shown.frame) this.turnTo(before, index);
    const following = recorder.frames[index + 1];
    const after = following?.ids === before.ids ? following : before;
    const part = after === before ? 0 : Math.min(1, Math.max(0, (this.at - before.at) / (after.at - before.at)));
    for (let slot = 0; slot < before.ids.length; slot += 1) {
      const north = after.lat[slot] - before.lat[slot];
      const east = after.lon[slot] - before.lon[slot];
      tracks.lat[slot] = before.lat[slot] + north * part;
      tracks.lon[slot] = before.lon[slot] + east * part;
      if (north || east) tracks.heading[slot] = Math.atan2(east * 0.744, north);
    }
    return true;
  }

  /** Other drones than before. */
  lay(ids) {
    const count = ids.length;
    Object.assign(this.tracks, {
      slots: new Map(ids.map((id, slot) => [id, slot])), capacity: count,
      lat: new Float64Array(count), lon: new Float64Array(count), heading: new Float32Array(count).fill(NaN),
      trailLat: new Float32Array(count * TRAIL), trailLon: new Float32Array(count * TRAIL),
      trailHead: new Uint8Array(count), trailLength: new Uint8Array(count),
    });
    this.drones.clear();
    this.shown.ids = ids;
  }

  /** Another frame: states, trails and open orders of that second. */
  turnTo(frame, index) {
    const { recorder, tracks } = this;
    this.shown.frame = frame;
    this.findOpen();
    const byDrone = new Map([...this.open.values()].map((order) => [order.drone_id, order.id]));
    const trail = recorder.frames.slice(Math.max(0, index - TRAIL_FRAMES), index + 1).filter((one) => one.ids === frame.ids);
    frame.ids.forEach((id, slot) => {
      const known = recorder.store.drones.get(id);
      this.drones.set(id, {
        id, type: known?.type, status: recorder.statusOf(frame.status[slot]), battery: frame.battery[slot],
        pos: { lat: frame.lat[slot], lon: frame.lon[slot] }, current_delivery: byDrone.get(id) ?? null,
      });
      trail.forEach((one, place) => {
        tracks.trailLat[slot * TRAIL + place] = one.lat[slot];
        tracks.trailLon[slot * TRAIL + place] = one.lon[slot];
      });
      tracks.trailLength[slot] = trail.length;
    });
    this.orderChanges += 1;
  }

  /** Orders tell by themselves when they were open, and how far they were. */
  findOpen() {
    this.open.clear();
    for (const order of this.recorder.store.orders.values()) {
      const ended = order.delivered_at ?? order.cancelled_at ?? order.failed_at ?? Infinity;
      if (order.timestamp > this.at || ended <= this.at) continue;
      const assigned = order.assigned_at <= this.at;
      const leg = !assigned ? null : order.picked_up_at <= this.at ? "to_destination" : "to_origin";
      const { delivery_eta: _unknownThen, ...rest } = order;
      this.open.set(order.id, { ...rest, leg, status: assigned ? "in_flight" : "pending", drone_id: assigned ? order.drone_id : null });
    }
  }
}

/** The slider and its buttons. */
export class Playback {
  /** @param {HTMLElement} root @param {Recorder} recorder @param {(scene: object|null) => void} show the past, or null for the present */
  constructor(root, recorder, show) {
    this.recorder = recorder;
    this.past = new Past(recorder);
    this.showScene = show;
    this.isLive = true;
    this.plays = false;
    this.speed = 0;
    const button = (className) => {
      const node = document.createElement("button");
      node.type = "button";
      node.className = `small ${className}`;
      return node;
    };
    this.playButton = button("icon");
    this.slider = Object.assign(document.createElement("input"), { type: "range", min: "0", max: String(LENGTH_SEC), step: "1", value: String(LENGTH_SEC) });
    this.slider.id = "playback-slider";
    this.label = document.createElement("output");
    this.label.htmlFor = this.slider.id;
    this.speedButton = button("speed");
    this.liveButton = button("live");
    this.liveButton.dataset.testid = "playback-live";
    root.append(this.playButton, this.slider, this.label, this.speedButton, this.liveButton);
    this.slider.addEventListener("input", () => this.goTo(Number(this.slider.value)));
    this.playButton.addEventListener("click", () => this.toggle());
    this.liveButton.addEventListener("click", () => this.live());
    this.speedButton.addEventListener("click", () => {
      this.speed = (this.speed + 1) % SPEEDS.length;
      this.words();
    });
    onLanguage(() => this.words());
    this.live();
  }

  present() {
    return this.recorder.store.clock.now();
  }

  /** @param {number} place 0 to LENGTH_SEC, of the slider */
  goTo(place) {
    if (place >= LENGTH_SEC || !this.recorder.frames.length) {
      this.live();
      return;
    }
    const oldest = this.recorder.frames[0].at;
    this.past.at = Math.max(oldest, this.present() - (LENGTH_SEC - place));
    if (this.isLive) {
      this.isLive = false;
      this.plays = false;
      this.past.advance();
      this.showScene(this.past);
    }
    this.words();
  }

  toggle() {
    if (this.isLive) this.goTo(LENGTH_SEC - 60);
    this.plays = !this.isLive && !this.plays;
    this.words();
  }

  live() {
    this.isLive = true;
    this.plays = false;
    this.slider.value = String(LENGTH_SEC);
    this.showScene(null);
    this.words();
  }

  /** Goes on by the time that has passed. */
  frame(passedSec) {
    if (this.isLive) return;
    if (this.plays) this.past.at += passedSec * SPEEDS[this.speed];
    if (this.past.at >= this.present() - LIVE_WITHIN_SEC) this.live();
    else if (this.plays) this.words();
  }

  words() {
    const ago = this.isLive ? 0 : Math.max(0, Math.round(this.present() - this.past.at));
    const time = `${Math.floor(ago / 60)}:${String(ago % 60).padStart(2, "0")}`;
    const text = this.isLive ? t("playback.live") : t("playback.ago", { time });
    if (!this.isLive) this.slider.value = String(LENGTH_SEC - ago);
    this.slider.setAttribute("aria-label", t("playback"));
    this.slider.setAttribute("aria-valuetext", text);
    if (this.label.textContent !== text) this.label.textContent = text;
    this.playButton.textContent = this.plays ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-label", t(this.plays ? "playback.pause" : "playback.play"));
    this.speedButton.textContent = `${SPEEDS[this.speed]}×`;
    this.speedButton.setAttribute("aria-label", `${t("playback.speed")} ${SPEEDS[this.speed]}×`);
    this.liveButton.textContent = t("playback.live");
    this.liveButton.setAttribute("aria-pressed", String(this.isLive));
  }

  /** What the badge on the map says; empty while it is live. */
  badge() {
    return this.isLive ? "" : t("playback.badge", { time: new Date(this.past.at * 1000).toLocaleTimeString() });
  }
}
