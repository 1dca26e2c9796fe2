// All that the page knows: drones and deliveries as the stream tells them.

import { ServerClock, Tracks } from "/dashboard/tracks.js";

/**
 * @typedef {{lat: number, lon: number}} Point
 * @typedef {object} Drone
 * @property {string} id @property {string} type @property {string} status @property {number} battery @property {Point} pos
 * @property {string|null} current_delivery @property {string|null} zone @property {boolean} at_charge
 * @typedef {object} Order  a delivery's record, see docs/api.md
 * @property {string} id @property {string} status @property {string|null} drone_id @property {Point} origin @property {Point} destination
 * @property {number} weight @property {string|null} leg @property {number} timestamp @property {object[]} [history]
 * @property {number} [pickup_eta] @property {number} [delivery_eta] @property {string} [waits_for]
 */

export const OPEN = new Set(["pending", "assigned", "in_flight"]);
const ENDED_MAX = 3000; // ended orders that are kept; the oldest go

export class Store {
  constructor() {
    /** @type {Map<string, Drone>} */
    this.drones = new Map();
    /** @type {Map<string, Order>} */
    this.orders = new Map();
    /** @type {Map<string, Order>} those not ended */
    this.open = new Map();
    this.tracks = new Tracks();
    this.clock = new ServerClock();
    this.whole = false;
    this.at = 0; // the newest event, Unix seconds
    this.changes = 0; // counts what changed, for those who look now and then
    this.orderChanges = 0;
    /** @type {((order: Order) => void)[]} */
    this.orderListeners = [];
  }

  /** @param {import("/dashboard/stream.js").Kind} kind */
  apply(kind, data) {
    this.clock.note(data.at);
    this.at = data.at;
    this.changes += 1;
    if (kind === "snapshot") this.begin(data);
    else if (kind === "drones") for (const patch of data.items) this.patchDrone(patch, data.at);
    else for (const order of data.items) this.putOrder(order);
    if (this.orders.size - this.open.size > ENDED_MAX * 1.2) this.prune();
  }

  begin({ at, drones, deliveries }) {
    const known = new Set(drones.map((drone) => drone.id));
    for (const id of [...this.drones.keys()]) if (!known.has(id)) this.removeDrone(id);
    for (const drone of drones) this.putDrone(drone, at);
    this.orders.clear();
    this.open.clear();
    for (const order of deliveries) this.putOrder(order);
    this.whole = true;
  }

  patchDrone(patch, at) {
    if (patch.deleted) {
      this.removeDrone(patch.id);
      return;
    }
    const drone = Object.assign(this.drones.get(patch.id) ?? {}, patch);
    this.putDrone(drone, "pos" in patch ? at : null);
  }

  putDrone(drone, at) {
    const { id, pos } = drone;
    this.drones.set(id, drone);
    if (pos && Number.isFinite(pos.lat) && Number.isFinite(pos.lon) && (at !== null || !this.tracks.slots.has(id))) {
      this.tracks.put(id, pos.lat, pos.lon, at ?? this.at);
    }
  }

  removeDrone(id) {
    this.drones.delete(id);
    this.tracks.remove(id);
  }

  putOrder(order) {
    this.orderChanges += 1;
    if (order.deleted) {
      this.orders.delete(order.id);
      this.open.delete(order.id);
      return;
    }
    this.orders.set(order.id, order);
    if (OPEN.has(order.status)) this.open.set(order.id, order);
    else this.open.delete(order.id);
    for (const listener of this.orderListeners) listener(order);
  }

  prune() {
    const ended = [...this.orders.keys()].filter((id) => !this.open.has(id)).sort();
    for (const id of ended.slice(0, ended.length - ENDED_MAX)) this.orders.delete(id);
  }

  /** All that is known, as a snapshot for another tab. */
  snapshot() {
    return this.whole ? { at: this.at, drones: [...this.drones.values()], deliveries: [...this.orders.values()] } : null;
  }

  /** How many drones are in each state. */
  byStatus() {
    const counts = {};
    for (const { status } of this.drones.values()) counts[status] = (counts[status] ?? 0) + 1;
    return counts;
  }

  /** Whether something ought to be moving. */
  expectsNews() {
    for (const { status, at_charge } of this.drones.values()) if (status === "busy" || (status === "charging" && !at_charge)) return true;
    return false;
  }
}
