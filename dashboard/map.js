// The live map: zones, charge points, orders and drones on a canvas.
//
// What hardly changes (cells, labels, charge points) is drawn once on a canvas of its own and copied; only the rest is
// drawn per frame.
// A drone's shape is its type, its colour its status, the ring around it its battery: nothing is told by colour alone.

const TONES = [
  "idle", "busy", "charging", "retiring", "inactive", "pending", "assigned", "in_flight", "failed", "text", "muted", "accent",
  "map-bg", "map-cell", "map-line", "map-label", "map-halo",
];
const PADDING_PX = 22;
const DRONE_PX = 7;
const RING_PX = 12;
const LOW_BATTERY_PCT = 30;

export class LiveMap {
  constructor(canvas, pick) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.backdrop = document.createElement("canvas");
    this.zones = null;
    this.drawn = [];
    this.readColours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColours();
      this.drawBackdrop();
    });
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
    canvas.addEventListener("click", (event) => pick(this.droneAt(event.offsetX, event.offsetY)));
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    this.colour = Object.fromEntries(TONES.map((tone) => [tone, style.getPropertyValue(`--${tone}`).trim()]));
    this.font = style.fontFamily;
  }

  setZones(zones) {
    this.zones = zones;
    this.drawBackdrop();
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    this.scale = window.devicePixelRatio || 1;
    this.width = Math.max(1, box.width);
    this.height = Math.max(1, box.height);
    for (const canvas of [this.canvas, this.backdrop]) {
      canvas.width = Math.round(this.width * this.scale);
      canvas.height = Math.round(this.height * this.scale);
    }
    this.drawBackdrop();
  }

  /// Fits the served area into the canvas; a degree of longitude is shorter than one of latitude by the cosine of the
  /// latitude.
  project(point) {
    const { lat_min, lat_max, lon_min, lon_max } = this.zones.bounds;
    const squeeze = Math.cos(((lat_min + lat_max) / 2) * (Math.PI / 180));
    const wide = (lon_max - lon_min) * squeeze;
    const high = lat_max - lat_min;
    const unit = Math.min((this.width - 2 * PADDING_PX) / wide, (this.height - 2 * PADDING_PX) / high);
    return {
      x: this.width / 2 + (point.lon - (lon_min + lon_max) / 2) * squeeze * unit,
      y: this.height / 2 - (point.lat - (lat_min + lat_max) / 2) * unit,
    };
  }

  drawBackdrop() {
    const context = this.backdrop.getContext("2d");
    const c = this.colour;
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.fillStyle = c["map-bg"];
    context.fillRect(0, 0, this.width, this.height);
    if (!this.zones) return;
    context.font = `12px ${this.font}`;
    for (const zone of this.zones.zones) {
      const a = this.project({ lat: zone.bounds.lat_max, lon: zone.bounds.lon_min });
      const b = this.project({ lat: zone.bounds.lat_min, lon: zone.bounds.lon_max });
      context.fillStyle = (zone.row + zone.col) % 2 ? c["map-bg"] : c["map-cell"];
      context.fillRect(a.x, a.y, b.x - a.x, b.y - a.y);
      this.drawGraticule(context, a, b);
      context.strokeStyle = c["map-line"];
      context.lineWidth = 1;
      context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
      context.fillStyle = c["map-label"];
      context.fillText(zone.name, a.x + 8, a.y + 18);
    }
    for (const zone of this.zones.zones) this.drawCharge(context, this.project(zone.charge));
    this.drawScaleBar(context);
  }

  drawGraticule(context, a, b) {
    context.strokeStyle = this.colour["map-line"];
    context.globalAlpha = 0.35;
    context.lineWidth = 0.5;
    context.beginPath();
    for (let part = 1; part < 6; part += 1) {
      const x = a.x + ((b.x - a.x) * part) / 6;
      const y = a.y + ((b.y - a.y) * part) / 6;
      context.moveTo(x, a.y);
      context.lineTo(x, b.y);
      context.moveTo(a.x, y);
      context.lineTo(b.x, y);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  drawCharge(context, { x, y }) {
    context.fillStyle = this.colour.charging;
    context.globalAlpha = 0.16;
    circle(context, x, y, 17);
    context.fill();
    context.globalAlpha = 1;
    const bolt = [[1.5, -9], [-5.5, 2], [-0.5, 2], [-1.5, 9], [5.5, -2], [0.5, -2]];
    polygon(context, bolt.map(([dx, dy]) => [x + dx, y + dy]));
    context.fill();
  }

  /// On the right: on the left it would lie under the note about what is selected.
  drawScaleBar(context) {
    const { lat_min, lon_max } = this.zones.bounds;
    const kmPerDegree = 111.195 * Math.cos((lat_min * Math.PI) / 180);
    const corner = this.project({ lat: lat_min, lon: lon_max });
    const left = this.project({ lat: lat_min, lon: lon_max - 2 / kmPerDegree }).x - 12;
    const right = corner.x - 12;
    const y = corner.y - 12;
    context.strokeStyle = this.colour["map-label"];
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(left, y - 4);
    context.lineTo(left, y);
    context.lineTo(right, y);
    context.lineTo(right, y - 4);
    context.stroke();
    context.fillStyle = this.colour["map-label"];
    context.fillText("2 km", left + 6, y - 6);
  }

  /// One frame: `fleet` as Fleet.at gives it, `orders` that are open, and what is selected.
  draw(fleet, orders, selected) {
    const context = this.context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.backdrop, 0, 0);
    if (!this.zones) return;
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    for (const order of orders) this.drawOrder(context, order, order.id === selected.order);
    this.drawn = fleet.map((entry) => ({ ...entry, ...this.project(entry.place) }));
    const byId = new Map(orders.map((order) => [order.id, order]));
    for (const entry of this.drawn) {
      this.drawTrail(context, entry);
      this.drawCourse(context, entry, byId.get(entry.drone.current_delivery));
    }
    // Idle drones share the charge points: those that fly are drawn last, on top.
    const rank = (entry) => (entry.drone.id === selected.drone ? 2 : entry.drone.status === "busy" ? 1 : 0);
    this.drawn.sort((a, b) => rank(a) - rank(b));
    spread(this.drawn);
    for (const entry of this.drawn) this.drawDrone(context, entry, entry.drone.id === selected.drone);
  }

  drawOrder(context, order, isSelected) {
    const from = this.project(order.origin);
    const to = this.project(order.destination);
    const tone = this.colour[order.status] || this.colour.muted;
    const pickedUp = order.leg === "to_destination";
    context.strokeStyle = tone;
    context.fillStyle = tone;
    context.globalAlpha = isSelected ? 1 : order.status === "pending" ? 0.45 : 0.7;
    context.lineWidth = isSelected ? 2.5 : 1.25;
    context.setLineDash(pickedUp ? [] : [4, 4]);
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    circle(context, from.x, from.y, 4.5);
    context.save();
    context.fillStyle = this.colour["map-halo"];
    context.fill();
    context.restore();
    context.stroke();
    context.fillRect(to.x - 4, to.y - 4, 8, 8);
  }

  drawTrail(context, { drone, trail, x, y }) {
    if (trail.length < 2) return;
    context.strokeStyle = this.colour[drone.status] || this.colour.muted;
    context.lineWidth = 2.5;
    context.lineCap = "round";
    let before = this.project(trail[0]);
    for (let index = 1; index <= trail.length; index += 1) {
      const next = index < trail.length ? this.project(trail[index]) : { x, y };
      context.globalAlpha = 0.5 * (index / trail.length);
      context.beginPath();
      context.moveTo(before.x, before.y);
      context.lineTo(next.x, next.y);
      context.stroke();
      before = next;
    }
    context.globalAlpha = 1;
  }

  /// The way of a busy drone to its pick-up; from there on it follows its order's line.
  drawCourse(context, { drone, x, y }, order) {
    if (order?.leg !== "to_origin") return;
    const target = this.project(order.origin);
    context.strokeStyle = this.colour[drone.status] || this.colour.muted;
    context.lineWidth = 1.5;
    context.globalAlpha = 0.8;
    context.setLineDash([1, 5]);
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(target.x, target.y);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  drawDrone(context, { drone, x, y }, isSelected) {
    const c = this.colour;
    const tone = c[drone.status] || c.muted;
    const battery = Math.max(0, Math.min(100, Number(drone.battery) || 0));
    // The halo hides what is below, also below a faint drone.
    context.fillStyle = c["map-halo"];
    circle(context, x, y, RING_PX + 1.5);
    context.fill();
    context.globalAlpha = drone.status === "inactive" && !isSelected ? 0.6 : 1;
    context.lineWidth = 2.5;
    context.strokeStyle = c["map-line"];
    circle(context, x, y, RING_PX);
    context.stroke();
    context.strokeStyle = battery <= LOW_BATTERY_PCT ? c.failed : tone;
    context.beginPath();
    context.arc(x, y, RING_PX, -Math.PI / 2, -Math.PI / 2 + (battery / 100) * 2 * Math.PI);
    context.stroke();
    context.fillStyle = tone;
    shape(context, drone.type, x, y, DRONE_PX);
    context.fill();
    if (isSelected) {
      context.strokeStyle = c.accent;
      context.lineWidth = 2;
      circle(context, x, y, RING_PX + 5);
      context.stroke();
    }
    if (drone.status === "busy" || isSelected) this.drawLabel(context, drone.id.replace("drone-", ""), x, y);
    context.globalAlpha = 1;
  }

  drawLabel(context, text, x, y) {
    context.font = `600 11px ${this.font}`;
    context.lineWidth = 3;
    context.strokeStyle = this.colour["map-halo"];
    context.strokeText(text, x + RING_PX + 4, y + 4);
    context.fillStyle = this.colour.text;
    context.fillText(text, x + RING_PX + 4, y + 4);
  }

  /// The id of the drone drawn at this place of the canvas, or null.
  droneAt(x, y) {
    const near = this.drawn.findLast((entry) => Math.hypot(entry.x - x, entry.y - y) <= RING_PX + 4);
    return near ? near.drone.id : null;
  }
}

/// Drones that stand at one place are drawn on a ring around it, so that each can be seen.
function spread(entries) {
  const groups = new Map();
  for (const entry of entries) {
    if (entry.drone.status === "busy") continue;
    const key = `${Math.round(entry.x / 8)}:${Math.round(entry.y / 8)}`;
    const group = groups.get(key);
    if (group) group.push(entry);
    else groups.set(key, [entry]);
  }
  for (const group of groups.values()) {
    if (group.length < 2) continue;
    group.sort((a, b) => a.drone.id.localeCompare(b.drone.id, "en", { numeric: true }));
    const radius = Math.max(26, (group.length * (RING_PX * 2 + 5)) / (2 * Math.PI));
    const { x, y } = group[0];
    group.forEach((entry, index) => {
      const angle = (index / group.length) * 2 * Math.PI - Math.PI / 2;
      entry.x = x + radius * Math.cos(angle);
      entry.y = y + radius * Math.sin(angle);
    });
  }
}

function circle(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
}

function polygon(context, corners) {
  context.beginPath();
  corners.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
}

const CORNERS = { light: 3, medium: 4, heavy: 6 };

function shape(context, type, x, y, radius) {
  const corners = CORNERS[type];
  if (!corners) return circle(context, x, y, radius);
  const turn = corners === 6 ? 0 : -Math.PI / 2;
  polygon(
    context,
    Array.from({ length: corners }, (_, index) => {
      const angle = turn + (index / corners) * 2 * Math.PI;
      return [x + radius * Math.cos(angle), y + radius * Math.sin(angle)];
    }),
  );
}
