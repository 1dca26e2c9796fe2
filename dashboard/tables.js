// The two tables. Rows are kept per id and only what changed is written, so that focus, selection and scrolling survive
// every update.
// Data reaches the page through textContent and attributes only, never as markup.

import { statusName, t, typeName } from "/dashboard/i18n.js";

const LOW_PCT = 30;
const HIGH_PCT = 60;

/// The end of an id: the beginning of a UUIDv7 is its time, equal for all orders of a minute.
export const shortId = (id) => String(id).slice(-6);

export function age(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const setData = (node, name, value) => {
  if (node.dataset[name] !== value) node.dataset[name] = value;
};

const setPressed = (button, pressed) => {
  if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
};

class Table {
  constructor(body, empty, testId, pick) {
    this.body = body;
    this.empty = empty;
    this.testId = testId;
    this.pick = pick;
    this.rows = new Map();
  }

  /// `sought` is what the user filters by, to say so when nothing is left.
  show(items, selectedId, sought = "") {
    const keep = new Set(items.map((item) => item.id));
    for (const [id, row] of this.rows) {
      if (!keep.has(id)) {
        row.node.remove();
        this.rows.delete(id);
      }
    }
    let place = this.body.firstElementChild;
    for (const item of items) {
      let row = this.rows.get(item.id);
      if (!row) {
        row = this.makeRow(item.id);
        this.rows.set(item.id, row);
      }
      if (row.node === place) place = place.nextElementSibling;
      else this.body.insertBefore(row.node, place);
      setData(row.node, "selected", String(item.id === selectedId));
      setPressed(row.button, String(item.id === selectedId));
      this.fill(row, item);
    }
    this.empty.hidden = items.length > 0;
    this.empty.textContent = sought ? t("none.match", { text: sought }) : t(this.emptyKey);
  }

  /// After the language has changed.
  rebuild() {
    for (const { node } of this.rows.values()) node.remove();
    this.rows.clear();
  }

  makeRow(id) {
    const node = document.createElement("tr");
    node.dataset.testid = this.testId;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "pick";
    button.addEventListener("click", () => this.pick(id));
    const row = { node, button, cells: [] };
    this.columns.forEach((column, index) => {
      const cell = node.insertCell();
      if (column === "num") cell.className = "num";
      if (index === 0) {
        cell.append(button);
        row.cells.push(button);
      } else if (column === "badge") {
        const badge = document.createElement("span");
        badge.className = "badge";
        cell.append(badge);
        row.cells.push(badge);
      } else {
        row.cells.push(cell);
      }
    });
    return row;
  }

  badge(node, status) {
    setText(node, statusName(status));
    setData(node, "tone", String(status));
  }
}

export class OrdersTable extends Table {
  columns = ["id", "badge", "num", "text", "text", "num"];
  emptyKey = "orders.empty";

  makeRow(id) {
    const row = super.makeRow(id);
    row.button.classList.add("code");
    row.button.title = id;
    row.button.setAttribute("aria-label", t("show.order", { id }));
    return row;
  }

  fill({ cells: [id, status, weight, way, drone, since] }, order) {
    setText(id, shortId(order.id));
    this.badge(status, order.status);
    status.title = order.reason ? String(order.reason) : "";
    setText(weight, Number.isFinite(order.weight) ? `${order.weight.toFixed(1)} kg` : "–");
    setText(way, `${zone(order.origin_zone)} → ${zone(order.destination_zone)}`);
    setText(drone, order.drone_id ?? "–");
    setText(since, age(order.age_sec));
  }
}

export class FleetTable extends Table {
  columns = ["id", "text", "badge", "battery", "text", "text"];
  emptyKey = "fleet.empty";

  makeRow(id) {
    const row = super.makeRow(id);
    row.button.setAttribute("aria-label", t("show.drone", { id }));
    const box = document.createElement("span");
    box.className = "battery";
    // No <meter>: fifty of those, each with boxes and clips of its own inside, cost more to paint than the rest of the page.
    const meter = document.createElement("span");
    meter.className = "meter";
    const percent = document.createElement("span");
    meter.setAttribute("aria-hidden", "true"); // the number beside it says the same
    box.append(meter, percent);
    row.cells[3].append(box);
    row.meter = meter;
    row.percent = percent;
    return row;
  }

  fill({ cells: [id, type, status, , place, order], meter, percent }, drone) {
    setText(id, drone.id);
    setText(type, typeName(drone.type));
    this.badge(status, drone.status);
    const battery = Math.round(Number(drone.battery) || 0);
    if (meter.dataset.full !== String(battery)) {
      meter.dataset.full = String(battery);
      meter.dataset.level = battery <= LOW_PCT ? "low" : battery < HIGH_PCT ? "middle" : "high";
      meter.style.setProperty("--full", `${battery}%`);
    }
    setText(percent, `${battery} %`);
    setText(place, zone(drone.zone));
    setText(order, drone.current_delivery ? shortId(drone.current_delivery) : "–");
  }
}

const zone = (name) => (name ? String(name).replace("zone ", "z") : t("outside"));
