// The two tables. Rows are kept per id and only what changed is written, so that focus, selection and scrolling survive
// every update.
// Data reaches the page through textContent and attributes only, never as markup.

const STATUS_NAMES = { in_flight: "in flight" };

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

export const statusName = (status) => STATUS_NAMES[status] || String(status ?? "–");

const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const setData = (node, name, value) => {
  if (node.dataset[name] !== value) node.dataset[name] = value;
};

class Table {
  constructor(body, empty, testId, pick) {
    this.body = body;
    this.empty = empty;
    this.testId = testId;
    this.pick = pick;
    this.rows = new Map();
  }

  show(items, selectedId) {
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
      row.button.setAttribute("aria-pressed", String(item.id === selectedId));
      this.fill(row, item);
    }
    this.empty.hidden = items.length > 0;
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

  makeRow(id) {
    const row = super.makeRow(id);
    row.button.classList.add("code");
    row.button.title = id;
    row.button.setAttribute("aria-label", `Show order ${id} on the map`);
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

  makeRow(id) {
    const row = super.makeRow(id);
    row.button.setAttribute("aria-label", `Show ${id} on the map`);
    const box = document.createElement("span");
    box.className = "battery";
    const meter = document.createElement("meter");
    Object.assign(meter, { min: 0, max: 100, low: 30, high: 60, optimum: 100 });
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
    setText(type, drone.type ?? "–");
    this.badge(status, drone.status);
    const battery = Math.round(Number(drone.battery) || 0);
    if (meter.value !== battery) meter.value = battery;
    setText(percent, `${battery} %`);
    setText(place, zone(drone.zone));
    setText(order, drone.current_delivery ? shortId(drone.current_delivery) : "–");
  }
}

const zone = (name) => (name ? String(name).replace("zone ", "z") : "outside");
