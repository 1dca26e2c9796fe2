// The buttons above the map: the legend, and what is shown of it.

import { statusName, t, typeName } from "/dashboard/i18n.js";

const TYPES = { light: "M8 2 14.5 13.5h-13Z", medium: "M8 1 15 8 8 15 1 8Z", heavy: "M4.5 2h7L15 8l-3.5 6h-7L1 8Z" };
const STATUSES = ["idle", "busy", "charging", "retiring", "inactive", "lost"];
const RARE = new Set(["lost"]); // shown only when there is one
const SVG = "http://www.w3.org/2000/svg";

function sign(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

export class Filters {
  /** @param {HTMLElement} root @param {() => void} onChange */
  constructor(root, onChange) {
    this.hidden = new Set();
    this.counts = new Map();
    this.onChange = onChange;
    this.buttons = new Map();
    for (const [type, path] of Object.entries(TYPES)) this.add(root, type, () => typeName(type), sign(path));
    for (const status of STATUSES) this.add(root, status, () => statusName(status), null, status);
    this.add(root, "orders", () => t("orders.filter"), sign("M8 3a5 5 0 1 0 0 10A5 5 0 0 0 8 3Zm0 2.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6Z"), null, "pending");
    this.words();
  }

  add(root, name, word, icon, status = null, tone = status) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.dataset.filter = name;
    button.setAttribute("aria-pressed", "true");
    if (tone) button.dataset.tone = tone;
    const label = document.createElement("span");
    const mark = icon ?? document.createElement("span");
    if (!icon) mark.className = "dot";
    button.append(mark, label);
    if (status) {
      const count = document.createElement("b");
      count.id = `fleet-${status}`;
      count.textContent = "–";
      button.append(count);
      this.counts.set(status, count);
    }
    button.hidden = RARE.has(name);
    button.addEventListener("click", () => {
      if (!this.hidden.delete(name)) this.hidden.add(name);
      button.setAttribute("aria-pressed", String(!this.hidden.has(name)));
      this.onChange();
    });
    this.buttons.set(name, { button, label, word });
    root.append(button);
  }

  words() {
    for (const { label, word } of this.buttons.values()) label.textContent = word();
  }

  /** @param {Record<string, number>} counts drones by status */
  setCounts(counts) {
    for (const [status, node] of this.counts) {
      const text = String(counts[status] ?? 0);
      if (node.textContent !== text) node.textContent = text;
      if (RARE.has(status)) this.buttons.get(status).button.hidden = !counts[status];
    }
  }

  shows(drone) {
    return !this.hidden.has(drone.type) && !this.hidden.has(drone.status);
  }

  get showsOrders() {
    return !this.hidden.has("orders");
  }
}
