// The page: what the stream tells goes into the store, and from there to the tables (about once a second) and the map (each frame).

import { noFlyOf } from "/dashboard/basemap.js";
import { Filters } from "/dashboard/filters.js";
import { History } from "/dashboard/history.js";
import { language, onLanguage, setLanguage, t, translate } from "/dashboard/i18n.js";
import { LiveMap } from "/dashboard/map.js";
import { Panel } from "/dashboard/panel.js";
import { Playback, Recorder } from "/dashboard/playback.js";
import { Promises } from "/dashboard/promises.js";
import { Store } from "/dashboard/store.js";
import { Stream } from "/dashboard/stream.js";
import { age, FleetTable, OrdersTable } from "/dashboard/tables.js";

const TABLES_EVERY_MS = 400; // in turn the orders and the fleet: both in one frame would be seen in how the map moves
const PROMISES_EVERY_MS = 800;
const ROWS_MAX = 50; // more rows than anybody reads; the map shows all
const OFFLINE_AFTER_MS = 3000;
const NOTICE_MS = 6000;
const FORGET_DELIVERED_MS = 10_000; // a smaller count of delivered orders is believed after this long

const byId = (id) => document.getElementById(id);
const store = new Store();
const live = {
  drones: store.drones,
  open: store.open,
  tracks: store.tracks,
  get orderChanges() { return store.orderChanges; },
  now: () => store.clock.now(),
};
const state = {
  selected: { drone: null, order: null, charge: null, first: "drone" },
  delivered: { count: 0, at: -Infinity },
  ended: { failed: 0, cancelled: 0 },
  link: "connecting",
  brokenAt: null,
};

const map = new LiveMap({ base: byId("map-base"), orders: byId("map-orders"), drones: byId("map") }, byId("map-swarm"), select);
map.setScene(live);
const history = new History();
store.orderListeners.push((order) => history.note(order));
const promises = new Promises(byId("promises"), byId("plots"), history);
const recorder = new Recorder(store);
const playback = new Playback(byId("playback"), recorder, (past) => map.setScene(past ?? live));
const panel = new Panel(byId("detail"), { store, select, follow, chargePoint: (name) => map.chargePoint(name) });
const filters = new Filters(byId("filters"), () => {
  map.shows = (drone) => filters.shows(drone);
  map.showsOrders = filters.showsOrders;
  map.redraw();
  showTables();
});
const ordersTable = new OrdersTable(byId("orders"), byId("orders-empty"), "order-row", (id) => select({ order: id }));
const fleetTable = new FleetTable(byId("fleet"), byId("fleet-empty"), "drone-row", (id) => select({ drone: id }));
const byName = new Intl.Collator("en", { numeric: true });

/// Selecting a drone also shows the order it flies, and the other way round; selecting it again, or nothing, clears the selection.
function select({ drone = null, order = null, charge = null }, keeps = false) {
  const { selected } = state;
  const again = !keeps && ((drone && drone === selected.drone && selected.first === "drone") || (order && order === selected.order && selected.first === "order") || (charge && charge === selected.charge));
  if (again || (!drone && !order && !charge)) state.selected = { drone: null, order: null, charge: null, first: "drone" };
  else if (drone) state.selected = { drone, order: store.drones.get(drone)?.current_delivery ?? null, charge: null, first: "drone" };
  else if (order) state.selected = { drone: store.open.get(order)?.drone_id ?? null, order, charge: null, first: "order" };
  else state.selected = { drone: null, order: null, charge, first: "charge" };
  if (!state.selected.drone && !state.selected.order) map.follows = false;
  map.select(state.selected);
  showTables();
}

function follow(on) {
  map.follows = on;
  if (on && map.camera.zoom < 2.5) map.camera.zoomAt(2.5 / map.camera.zoom);
  showTables();
}

/// Whether one of these texts contains what is sought.
const matches = (sought, texts) => !sought || texts.some((text) => text && String(text).toLowerCase().includes(sought));

/// Both tables, or that one, and what belongs to them.
function showTables(only = null) {
  const sought = byId("search").value.trim().toLowerCase();
  if (only !== "fleet") showOrders(sought);
  if (only !== "orders") showFleet(sought);
  // A drone that was chosen takes a new order, and its line with it.
  const { selected } = state;
  const current = selected.first === "drone" ? (store.drones.get(selected.drone)?.current_delivery ?? null) : selected.order;
  if (current !== selected.order) map.select(Object.assign(selected, { order: current }));
  panel.show(selected, map.follows);
  const described = map.describe();
  if (byId("map").getAttribute("aria-label") !== described) byId("map").setAttribute("aria-label", described);
  const badge = playback.badge();
  byId("map-badge").hidden = !badge;
  byId("map-badge").textContent = badge;
  showMapState();
}

function showOrders(sought) {
  const now = store.clock.now();
  const newest = [...store.orders.keys()].sort().reverse();
  const rows = [];
  for (const id of newest) {
    const order = store.orders.get(id);
    if (!matches(sought, [id, order.status, t(`status.${order.status}`), order.drone_id, order.origin_zone, order.destination_zone])) continue;
    rows.push({ ...order, age_sec: now - order.timestamp });
    if (rows.length === ROWS_MAX) break;
  }
  ordersTable.show(rows, state.selected.order, sought);
  byId("orders-note").textContent = rows.length < newest.length ? t("orders.some", { shown: rows.length, count: newest.length }) : t("orders.note");
}

/// All drones by name; sorted anew only when there are others than before.
let sortedIds = [];
function dronesByName() {
  if (sortedIds.length !== store.drones.size || !sortedIds.every((id) => store.drones.has(id))) {
    sortedIds = [...store.drones.keys()].sort(byName.compare);
  }
  return sortedIds.map((id) => store.drones.get(id));
}

function showFleet(sought) {
  const all = dronesByName();
  const fitting = all.filter((drone) => filters.shows(drone)
    && matches(sought, [drone.id, drone.type, drone.status, t(`status.${drone.status}`), drone.zone, drone.current_delivery]));
  fleetTable.show(fitting.slice(0, ROWS_MAX), state.selected.drone, sought);
  const shown = Math.min(fitting.length, ROWS_MAX);
  byId("fleet-note").textContent = shown < all.length ? t("fleet.some", { shown, count: all.length }) : all.length ? t("fleet.count", { count: all.length }) : "";
  filters.setCounts(store.byStatus());
}

/// A map without drones says why.
function showMapState() {
  const is = !store.whole || !map.zones ? "loading" : store.drones.size ? "full" : "empty";
  const box = byId("map-box");
  if (box.dataset.state === is && box.dataset.language === language()) return;
  box.dataset.state = is;
  box.dataset.language = language();
  byId("map-note").hidden = is === "full";
  byId("map-note").textContent = t(is === "empty" ? "map.empty" : "map.loading");
}

function onStats(stats) {
  const { deliveries } = stats;
  promises.note(stats);
  byId("count-waiting").textContent = String(deliveries.pending);
  byId("count-flying").textContent = String(deliveries.assigned + deliveries.in_flight);
  // Several gateways answer in turn, each up to half a second behind: what has been delivered stays delivered, unless
  // it stays undone (another system under the same address, or its data deleted).
  if (deliveries.delivered >= state.delivered.count || performance.now() - state.delivered.at > FORGET_DELIVERED_MS) {
    state.delivered = { count: deliveries.delivered, at: performance.now() };
  }
  byId("count-delivered").textContent = String(state.delivered.count);
  state.ended = deliveries;
  byId("count-also").textContent = t("also", deliveries);
}

/// After a break the first event tells how it went on: a snapshot begins anew, anything else is what was missed.
function onEvent(kind, data) {
  store.apply(kind, data);
  if (kind === "snapshot") showTables(); // at once: everything is new
  if (state.brokenAt === null || state.link !== "live") return;
  const away = age((performance.now() - state.brokenAt) / 1000);
  notice(() => t(kind === "snapshot" ? "back.anew" : "back.whole", { age: away }));
  state.brokenAt = null;
}

function onLink(link) {
  state.link = link;
  if (link === "broken") state.brokenAt ??= performance.now();
  showLink();
}

let noticeTimer = 0;
/** @type {(() => string) | null} what the notice says, in the language of the moment */
let noticed = null;
function notice(say) {
  const place = byId("notice");
  noticed = say;
  place.textContent = say();
  place.hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { place.hidden = true; }, NOTICE_MS);
}

function showLink() {
  const brokenMs = state.brokenAt === null ? 0 : performance.now() - state.brokenAt;
  let { link } = state;
  if (link === "broken") link = brokenMs > OFFLINE_AFTER_MS ? "offline" : "late";
  const pill = byId("link-state").parentElement;
  pill.dataset.state = link;
  const word = t(`link.${link}`);
  if (byId("link-state").textContent !== word) byId("link-state").textContent = word;
  byId("link-age").textContent = link === "offline" ? t("link.old", { age: age(brokenMs / 1000) }) : "";
}

let frameMs = performance.now();
function frame(nowMs) {
  playback.frame(Math.max(0, nowMs - frameMs) / 1000);
  frameMs = nowMs;
  map.frame(nowMs);
  requestAnimationFrame(frame);
}

async function readZones() {
  try {
    const answer = await fetch("/zones");
    if (answer.ok) {
      const zones = await answer.json();
      map.setZones(zones);
      byId("map-key").hidden = !noFlyOf(zones).length;
      return;
    }
  } catch {
    // The pill shows that nobody answers.
  }
  setTimeout(readZones, 1000);
}

function showLanguage() {
  for (const button of document.querySelectorAll("[data-language]")) button.setAttribute("aria-pressed", String(button.dataset.language === language()));
}

onLanguage(() => {
  ordersTable.rebuild();
  fleetTable.rebuild();
  filters.words();
  map.redraw();
  byId("count-also").textContent = t("also", state.ended);
  if (noticed) byId("notice").textContent = noticed();
  showLanguage();
  showLink();
  showTables();
  if (store.whole) promises.show(store.clock.now());
});
for (const button of document.querySelectorAll("header [data-language]")) button.addEventListener("click", () => setLanguage(button.dataset.language));
byId("zoom-in").addEventListener("click", () => map.camera.zoomAt(1.6));
byId("zoom-out").addEventListener("click", () => map.camera.zoomAt(1 / 1.6));
byId("zoom-fit").addEventListener("click", () => {
  map.follows = false;
  map.camera.centre();
});
byId("search").addEventListener("input", () => showTables());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target !== byId("search")) select({});
});

translate(document);
showLanguage();
requestAnimationFrame(frame);
readZones();
let turn = "orders";
setInterval(() => {
  showLink();
  recorder.record();
  turn = turn === "orders" ? "fleet" : "orders";
  if (!document.hidden) showTables(turn);
}, TABLES_EVERY_MS);
setInterval(() => {
  if (store.whole && !document.hidden) promises.show(store.clock.now());
}, PROMISES_EVERY_MS);
new Stream({ onEvent, onLink, onStats, snapshot: () => store.snapshot(), expectsNews: () => store.expectsNews() });
