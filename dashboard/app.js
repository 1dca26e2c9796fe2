// The page: what arrives from the gateway goes into a small state, and from there to the tables (as it arrives) and the
// map (each frame).

import { poll } from "/dashboard/api.js";
import { Fleet } from "/dashboard/fleet.js";
import { LiveMap } from "/dashboard/map.js";
import { age, FleetTable, OrdersTable, shortId, statusName } from "/dashboard/tables.js";

const LATE_MS = 3000; // data older than this is called late
const OFFLINE_FAILURES = 2;
const FORGET_DELIVERED_MS = 10_000; // a smaller count of delivered orders is believed after this long
const FLYING = ["assigned", "in_flight"];
const OPEN = ["pending", ...FLYING];

const byId = (id) => document.getElementById(id);
const state = {
  drones: [],
  orders: [], // the newest ones
  extra: new Map(), // orders under way that are older than those
  clockOffsetSec: 0, // what to add to this machine's clock to get the server's
  selected: { drone: null, order: null },
  delivered: { count: 0, at: -Infinity },
  lastAt: null,
  failures: 0,
};

const fleet = new Fleet();
const map = new LiveMap(byId("map"), (id) => select({ drone: id }));
const ordersTable = new OrdersTable(byId("orders"), byId("orders-empty"), "order-row", (id) => select({ order: id }));
const fleetTable = new FleetTable(byId("fleet"), byId("fleet-empty"), "drone-row", (id) => select({ drone: id }));

function findOrder(id) {
  return state.orders.find((order) => order.id === id) ?? state.extra.get(id) ?? null;
}

/// Selecting a drone also shows the order it flies, and the other way round; selecting it again clears the selection.
function select({ drone = null, order = null }) {
  const again = (drone && drone === state.selected.drone) || (order && order === state.selected.order);
  if (again || (!drone && !order)) {
    state.selected = { drone: null, order: null };
  } else if (drone) {
    const found = state.drones.find((one) => one.id === drone);
    state.selected = { drone, order: found?.current_delivery ?? null };
  } else {
    const flying = state.drones.find((one) => one.current_delivery === order);
    state.selected = { drone: flying?.id ?? null, order };
  }
  showTables();
}

function showTables() {
  const now = Date.now() / 1000 + state.clockOffsetSec;
  for (const order of state.orders) order.age_sec = now - order.timestamp;
  ordersTable.show(state.orders, state.selected.order);
  fleetTable.show(state.drones, state.selected.drone);
  byId("fleet-note").textContent = state.drones.length ? `${state.drones.length} drones` : "";
  showSelected(now);
}

function showSelected(now) {
  const { drone: droneId, order: orderId } = state.selected;
  const drone = state.drones.find((one) => one.id === droneId);
  const order = orderId ? findOrder(orderId) : null;
  const parts = [];
  if (drone) parts.push(`${drone.id}: ${drone.type}, ${statusName(drone.status)}, battery ${Math.round(drone.battery)} %`);
  if (order) {
    parts.push(`order ${shortId(order.id)}: ${statusName(order.status)}${order.reason ? ` (${order.reason})` : ""}, ${order.weight.toFixed(1)} kg, ${age(now - order.timestamp)} old`);
  }
  const box = byId("selected");
  box.hidden = parts.length === 0;
  box.textContent = parts.join(" · ");
}

function onDrones(drones) {
  const now = performance.now();
  state.drones = drones.toSorted((a, b) => String(a.id).localeCompare(String(b.id), "en", { numeric: true }));
  fleet.update(drones, now);
  const counts = { idle: 0, busy: 0, charging: 0, retiring: 0, inactive: 0 };
  for (const drone of drones) if (drone.status in counts) counts[drone.status] += 1;
  for (const [status, count] of Object.entries(counts)) byId(`fleet-${status}`).textContent = String(count);
}

function onOrders(orders, { extra = false } = {}) {
  if (extra) {
    for (const order of orders) state.extra.set(order.id, order);
    return;
  }
  state.orders = orders;
  const flown = new Set(state.drones.map((drone) => drone.current_delivery).filter(Boolean));
  for (const id of state.extra.keys()) if (!flown.has(id) && id !== state.selected.order) state.extra.delete(id);
}

/// Orders that a drone flies and that are not among the newest.
function missingOrders() {
  const known = new Set(state.orders.map((order) => order.id));
  const flown = state.drones.map((drone) => drone.current_delivery).filter((id) => id && !known.has(id));
  // Those never seen first; then the known ones in turn, for their leg changes.
  return flown.sort((a, b) => state.extra.has(a) - state.extra.has(b) || Math.random() - 0.5);
}

function onStats(stats) {
  const { deliveries } = stats;
  if (Number.isFinite(stats.now)) state.clockOffsetSec = stats.now - Date.now() / 1000;
  byId("count-waiting").textContent = String(deliveries.pending);
  byId("count-flying").textContent = String(deliveries.assigned + deliveries.in_flight);
  // Several gateways answer in turn, each up to half a second behind: what has been delivered stays delivered, unless
  // it stays undone (another system under the same address, or its data deleted).
  if (deliveries.delivered >= state.delivered.count || performance.now() - state.delivered.at > FORGET_DELIVERED_MS) {
    state.delivered = { count: deliveries.delivered, at: performance.now() };
  }
  byId("count-delivered").textContent = String(state.delivered.count);
  byId("count-failed").textContent = String(deliveries.failed);
  byId("count-cancelled").textContent = String(deliveries.cancelled);
  state.lastAt = performance.now();
  state.failures = 0;
  showTables();
  showLink();
}

function showLink() {
  const oldMs = state.lastAt === null ? null : performance.now() - state.lastAt;
  let link = "live";
  if (state.failures >= OFFLINE_FAILURES) link = "offline";
  else if (oldMs === null) link = "connecting";
  else if (oldMs > LATE_MS) link = "late";
  const pill = byId("link-state").parentElement;
  if (pill.dataset.state !== link) {
    pill.dataset.state = link;
    byId("link-state").textContent = link === "offline" ? "no answer, retrying" : link;
  }
  byId("link-age").textContent = oldMs === null || oldMs < LATE_MS ? "" : `data ${age(oldMs / 1000)} old`;
}

function frame() {
  const orders = new Map();
  for (const order of [...state.extra.values(), ...state.orders]) if (OPEN.includes(order.status)) orders.set(order.id, order);
  map.draw(fleet.at(performance.now()), [...orders.values()], state.selected);
  requestAnimationFrame(frame);
}

setInterval(() => {
  showLink();
  const flying = state.drones.filter((drone) => drone.status === "busy").length;
  const open = state.orders.filter((order) => OPEN.includes(order.status)).length;
  byId("map").setAttribute("aria-label", `Map: ${state.drones.length} drones, ${flying} of them flying, ${open} open orders`);
}, 1000);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") select({});
});

requestAnimationFrame(frame);
poll({
  onZones: (zones) => map.setZones(zones),
  onDrones,
  onOrders,
  onStats,
  onFailure: () => {
    state.failures += 1;
    showLink();
  },
  missingOrders,
});
