// The live map, in layers: the city and the zones (drawn when the view changes), what waits and where it goes (drawn when orders
// change, a few times a second at most), and drones (each frame in which something moves).
//
// The more there is to see the less is drawn of each: while few drones are in view, each has its battery, heading and trail
// (map-drones.js). More of them are a small picture and a short trail (swarm.js), very many are tiny and have no trail.

import { drawBase } from "/dashboard/basemap.js";
import { Camera, handControl } from "/dashboard/camera.js";
import { t, zoneName } from "/dashboard/i18n.js";
import { drawFew, drawSelected } from "/dashboard/map-drones.js";
import { CHARGE_PX, chargePoints, drawOrders } from "/dashboard/map-orders.js";
import { smallCode, smallPictures, SPRITE_PX, Sprites } from "/dashboard/sprites.js";
import { STRIDE } from "/dashboard/swarm-pixels.js";
import { Swarm } from "/dashboard/swarm.js";
import { Tiles } from "/dashboard/tiles.js";
import { TRAIL } from "/dashboard/tracks.js";

const TONES = [
  "idle", "busy", "charging", "retiring", "inactive", "lost", "pending", "assigned", "in_flight", "failed", "text", "muted", "accent",
  "map-bg", "map-out", "map-line", "map-label", "map-halo", "map-park", "map-road", "map-wall", "map-water", "map-place",
];
/** Levels of detail: 0 draws all there is to say of a drone. A level holds up to `max` drones in view; pictures are `wide` CSS pixels. */
const LEVELS = [{ max: 150 }, { max: 1500, wide: 14 }, { max: Infinity, wide: 9 }];
const LEVEL_BACK = 0.85; // a level is left downwards at this part of the limit: no flickering between two
const TRAILS_MAX = 3000;
const COMET = 7; // places in the short trail
const ORDERS_EVERY_MS = 250;
const LIST_EVERY_MS = 250;
const ARRANGE_EVERY_MS = 500;
const PICK_PX = 18;
const RING_GROUP_MAX = 16; // as many drones stand in a ring around a place; more lie in a spiral
const SPIRAL_MAX_PX = 54;
const SIGN_PX = 36;
export const AT_CHARGE_DEG = 0.0006;
const FOLLOW_PART = 0.12; // of the way per frame

/** The part of the store that the map shows; playback has the same shape. @typedef {object} Scene
 * @property {Map<string, any>} drones @property {Map<string, any>} open @property {import("/dashboard/tracks.js").Tracks} tracks
 * @property {number} changes @property {number} orderChanges @property {() => number} now */

export class LiveMap {
  /** @param {{base: HTMLCanvasElement, orders: HTMLCanvasElement, drones: HTMLCanvasElement}} layers
   *  @param {HTMLCanvasElement} swarm the layer of many drones, between orders and drones
   *  @param {(what: {drone?: string, order?: string, charge?: string}) => void} pick */
  constructor(layers, swarm, pick) {
    this.layers = layers;
    this.swarmCanvas = swarm;
    /** @type {Swarm|null} */
    this.swarm = null; // made when it is needed first
    this.pictures = ""; // for which level and scale the swarm has its pictures
    this.level = 0;
    this.pick = pick;
    this.contexts = Object.fromEntries(Object.entries(layers).map(([name, canvas]) => [name, canvas.getContext("2d")]));
    this.camera = new Camera();
    this.tiles = new Tiles(() => { this.drawnVersion = -1; });
    this.zones = null;
    /** @type {Scene|null} */
    this.scene = null;
    this.selected = { drone: null, order: null, charge: null };
    this.follows = false;
    this.shows = () => true; // which drones
    this.showsOrders = true;
    this.drawnVersion = -1;
    this.ordersDrawn = { at: -Infinity, version: -1, changes: -1 };
    this.arranged = -Infinity;
    this.listed = -Infinity;
    this.hold(0);
    this.isDirty = true;
    this.readColours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.readColours());
    new ResizeObserver(() => this.resize()).observe(layers.drones);
    this.resize();
    handControl(layers.drones, this.camera, {
      onClick: (x, y) => this.pick(this.at(x, y)),
      onHand: () => { this.follows = false; },
      onStep: (by) => this.step(by),
      onCharge: () => this.stepCharge(),
    });
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    this.colour = Object.fromEntries(TONES.map((tone) => [tone, style.getPropertyValue(`--${tone}`).trim()]));
    this.font = style.fontFamily;
    this.sprites = new Sprites(this.colour, this.scale ?? 1);
    this.pictures = "";
    this.redraw();
  }

  /** Everything is to be drawn anew. */
  redraw() {
    this.drawnVersion = -1;
    this.ordersDrawn.at = -Infinity;
    this.ordersDrawn.version = -1;
    this.listed = -Infinity;
    this.isDirty = true;
  }

  setZones(zones) {
    this.zones = zones;
    this.camera.setBounds(zones.bounds);
    this.redraw();
  }

  setScene(scene) {
    this.scene = scene;
    this.arranged = -Infinity;
    this.redraw();
  }

  select(selected) {
    this.selected = selected;
    this.listed = -Infinity; // what was chosen is shown, whatever the filters say
    this.ordersDrawn.version = -1;
    this.isDirty = true;
  }

  resize() {
    const box = this.layers.drones.getBoundingClientRect();
    this.scale = Math.min(window.devicePixelRatio || 1, 3);
    for (const canvas of Object.values(this.layers)) {
      canvas.width = Math.max(1, Math.round(box.width * this.scale));
      canvas.height = Math.max(1, Math.round(box.height * this.scale));
    }
    this.camera.setSize(Math.max(1, box.width), Math.max(1, box.height));
    this.swarm?.resize(this.camera.width, this.camera.height, this.scale);
    this.sprites = new Sprites(this.colour, this.scale);
    this.redraw();
  }

  /** One frame; `nowMs` is the time of requestAnimationFrame. */
  frame(nowMs) {
    const { scene, camera } = this;
    if (!scene) return;
    const moved = scene.tracks.advance(scene.now());
    if (this.follows) this.followOn();
    const viewChanged = camera.version !== this.drawnVersion;
    if (viewChanged) {
      drawBase(this.begin("base"), camera, this.colour, this.font, this.zones, zoneName, this.tiles, this.scale);
      this.drawnVersion = camera.version;
      this.layers.drones.dataset.view = `${camera.zoom.toFixed(3)} ${camera.lat.toFixed(5)} ${camera.lon.toFixed(5)}`;
    }
    const orders = this.ordersDrawn;
    const isDue = scene.orderChanges !== orders.changes && nowMs - orders.at > ORDERS_EVERY_MS;
    if (camera.version !== orders.version || isDue) {
      drawOrders(this.begin("orders"), this);
      Object.assign(orders, { at: nowMs, version: camera.version, changes: scene.orderChanges });
      this.isDirty = true;
    }
    if (nowMs - this.arranged > ARRANGE_EVERY_MS) {
      this.arrange();
      this.arranged = nowMs;
    }
    if (nowMs - this.listed > LIST_EVERY_MS) {
      this.list();
      this.listed = nowMs;
      this.isDirty = true; // states and batteries change without movement
    }
    if (!moved && !viewChanged && !this.isDirty) return;
    this.isDirty = false;
    this.drawDrones();
  }

  /** Room for that many drones; what a frame needs lies in arrays that are kept, so that frames make no garbage. */
  hold(capacity) {
    this.offsets = new Float32Array(capacity * 2);
    this.slots = new Int32Array(capacity); // those listed, in the order in which they are drawn
    this.codes = new Uint8Array(capacity);
    /** @type {string[]} */
    this.ids = [];
    this.listCount = 0;
    this.seen = new Int32Array(capacity); // places in the list of those in view, and where they are
    this.seenX = new Float32Array(capacity);
    this.seenY = new Float32Array(capacity);
    this.seenCount = 0;
    this.data = new Float32Array(capacity * STRIDE);
  }

  /** Which drones are shown, and how; those that fly come last, on top. */
  list() {
    const { tracks, drones } = this.scene;
    if (this.slots.length < tracks.capacity) this.hold(tracks.capacity);
    let count = 0;
    for (const flies of [false, true]) {
      for (const [id, slot] of tracks.slots) {
        const drone = drones.get(id);
        if (!drone || (drone.status === "busy") !== flies || (!this.shows(drone) && id !== this.selected.drone)) continue;
        this.slots[count] = slot;
        this.codes[count] = smallCode(drone.type, drone.status);
        this.ids[count] = id;
        count += 1;
      }
    }
    this.ids.length = count;
    this.listCount = count;
  }

  begin(layer) {
    const context = this.contexts[layer];
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (layer !== "base") context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.globalAlpha = 1;
    return context;
  }

  followOn() {
    const slot = this.scene.tracks.slots.get(this.selected.drone);
    const order = this.scene.open.get(this.selected.order);
    if (slot !== undefined) this.camera.approach(this.scene.tracks.lat[slot], this.scene.tracks.lon[slot], FOLLOW_PART);
    else if (order) this.camera.approach(order.origin.lat, order.origin.lon, FOLLOW_PART);
  }

  /** Drones that stand at one place lie around it, so that each can be seen. */
  arrange() {
    const { tracks, drones } = this.scene;
    if (this.offsets.length < tracks.capacity * 2) this.hold(tracks.capacity);
    this.offsets.fill(0);
    const groups = new Map();
    for (const [id, slot] of tracks.slots) {
      const drone = drones.get(id);
      if (!drone || drone.status === "busy" || !this.shows(drone)) continue;
      const key = Math.round(tracks.lat[slot] / AT_CHARGE_DEG) * 1e6 + Math.round(tracks.lon[slot] / AT_CHARGE_DEG);
      const group = groups.get(key);
      if (group) group.push(slot);
      else groups.set(key, [slot]);
    }
    for (const group of groups.values()) {
      if (group.length > 1 || this.isCharge(group[0])) group.sort((a, b) => a - b).forEach((slot, index) => this.offset(slot, index, group.length));
    }
  }

  isCharge(slot) {
    const { tracks } = this.scene;
    const near = (a, b) => Math.abs(a - b) < AT_CHARGE_DEG;
    return this.zones?.zones.some(({ charge }) => near(charge.lat, tracks.lat[slot]) && near(charge.lon, tracks.lon[slot])) ?? false;
  }

  offset(slot, index, count) {
    let radius;
    let angle;
    if (count <= RING_GROUP_MAX) {
      radius = Math.max(SIGN_PX, (count * (SPRITE_PX - 3)) / (2 * Math.PI));
      angle = (index / count) * 2 * Math.PI - Math.PI / 2;
    } else {
      // A sunflower: each seed the golden angle further. The middle stays free for the charge point's sign and figures.
      const step = Math.min(8, SPIRAL_MAX_PX / Math.sqrt(count));
      radius = Math.hypot(SIGN_PX, step * Math.sqrt(index));
      angle = index * 2.39996;
    }
    this.offsets[slot * 2] = radius * Math.cos(angle);
    this.offsets[slot * 2 + 1] = radius * Math.sin(angle);
  }

  /** Finds those in view; the number of them. */
  locate() {
    const { camera, slots, offsets } = this;
    const { lat, lon } = this.scene.tracks;
    const right = camera.width + SPRITE_PX;
    const bottom = camera.height + SPRITE_PX;
    let count = 0;
    for (let place = 0; place < this.listCount; place += 1) {
      const slot = slots[place];
      const x = camera.x(lon[slot]) + offsets[slot * 2];
      const y = camera.y(lat[slot]) + offsets[slot * 2 + 1];
      if (!(x > -SPRITE_PX && y > -SPRITE_PX && x < right && y < bottom)) continue;
      this.seen[count] = place;
      this.seenX[count] = x;
      this.seenY[count] = y;
      count += 1;
    }
    this.seenCount = count;
    return count;
  }

  drawDrones() {
    const count = this.locate();
    while (count > LEVELS[this.level].max) this.level += 1;
    while (this.level && count < LEVELS[this.level - 1].max * LEVEL_BACK) this.level -= 1;
    if (this.level) this.drawMany(count);
    else {
      if (this.swarm) this.swarm.shown = false;
      const visible = [];
      for (let index = 0; index < count; index += 1) visible.push(this.entry(index));
      drawFew(this.begin("drones"), this, visible.filter(({ drone }) => drone));
      this.hasDetail = true;
    }
  }

  /** One of those in view. */
  entry(index) {
    const place = this.seen[index];
    return { drone: this.scene.drones.get(this.ids[place]), slot: this.slots[place], x: this.seenX[index], y: this.seenY[index] };
  }

  drawMany(count) {
    this.prepareSwarm();
    const { data, camera } = this;
    const { tracks } = this.scene;
    const hasTrails = count <= TRAILS_MAX;
    let chosen = -1;
    for (let index = 0, at = 0; index < count; index += 1, at += STRIDE) {
      const place = this.seen[index];
      const slot = this.slots[place];
      data[at] = data[at + 2] = this.seenX[index];
      data[at + 1] = data[at + 3] = this.seenY[index];
      data[at + 4] = this.codes[place];
      const length = tracks.trailLength[slot];
      if (hasTrails && length > 1) {
        const end = slot * TRAIL + ((tracks.trailHead[slot] + Math.max(0, length - COMET)) % TRAIL);
        data[at + 2] = camera.x(tracks.trailLon[end]);
        data[at + 3] = camera.y(tracks.trailLat[end]);
      }
      if (this.ids[place] === this.selected.drone) chosen = index;
    }
    this.swarm.draw({ data, count, hasTrails });
    if (chosen < 0 && !this.hasDetail) return;
    const context = this.begin("drones");
    const entry = chosen < 0 ? null : this.entry(chosen);
    this.hasDetail = Boolean(entry?.drone);
    if (entry?.drone) drawSelected(context, this, entry);
  }

  prepareSwarm() {
    if (!this.swarm) {
      const wish = new URLSearchParams(location.search).get("map");
      this.swarm = new Swarm(this.swarmCanvas, wish === "webgl" || wish === "pixels" ? wish : "auto", () => {
        this.pictures = "";
        this.resize();
      });
      this.swarm.resize(this.camera.width, this.camera.height, this.scale);
    }
    const { wide } = LEVELS[this.level];
    const pictures = `${wide} ${this.swarm.scale}`;
    if (pictures !== this.pictures) this.swarm.setPictures(smallPictures(this.colour, wide, this.swarm.scale));
    this.pictures = pictures;
    this.swarm.shown = true;
  }

  /** What is drawn at this place of the canvas. */
  at(x, y) {
    let best = { far: PICK_PX };
    for (const { name, charge } of this.zones?.zones ?? []) {
      // The sign itself; drones stand around it.
      if (Math.hypot(this.camera.x(charge.lon) - x, this.camera.y(charge.lat) - y) <= CHARGE_PX) return { charge: name };
    }
    for (let index = 0; index < this.seenCount; index += 1) {
      const far = Math.hypot(this.seenX[index] - x, this.seenY[index] - y);
      if (far < best.far) best = { far, drone: this.ids[this.seen[index]] };
    }
    if (best.drone) return { drone: best.drone };
    if (!this.showsOrders) return {};
    for (const order of this.scene?.open.values() ?? []) {
      for (const point of [order.origin, order.destination]) {
        const far = Math.hypot(this.camera.x(point.lon) - x, this.camera.y(point.lat) - y);
        if (far < best.far) best = { far, order: order.id };
      }
    }
    return best.order ? { order: best.order } : {};
  }

  /** Selects the next or the previous of the drones that are shown. */
  step(by) {
    const ids = [...(this.scene?.drones.values() ?? [])].filter(this.shows).map((drone) => drone.id);
    ids.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    if (!ids.length) return;
    const place = ids.indexOf(this.selected.drone);
    const next = place < 0 ? (by > 0 ? 0 : ids.length - 1) : (place + by + ids.length) % ids.length;
    if (ids[next] !== this.selected.drone) this.pick({ drone: ids[next] });
  }

  /** Selects the next charge point, by zone. */
  stepCharge() {
    const names = (this.zones?.zones ?? []).map((zone) => zone.name);
    if (names.length) this.pick({ charge: names[(names.indexOf(this.selected.charge) + 1) % names.length] });
  }

  /** A charge point with its drones, see chargePoints; none of that name: undefined. */
  chargePoint(name) {
    return this.zones && this.scene ? chargePoints(this.zones, this.scene.drones).find(({ zone }) => zone.name === name) : undefined;
  }

  /** For those who do not see it. */
  describe() {
    const drones = this.scene ? [...this.scene.drones.values()] : [];
    const flying = drones.filter((drone) => drone.status === "busy").length;
    return t("map.label", { drones: drones.length, flying, orders: this.scene?.open.size ?? 0 });
  }
}
