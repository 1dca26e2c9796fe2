// A small plot of one hour: one or two lines, and a target.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 240;
const HIGH = 72;

const draw = (parent, name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  parent.append(node);
  return node;
};

/** The next round number: 1, 2 or 5 times a power of ten. */
export function roundUp(value) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * ten).find((step) => step >= value) ?? ten * 10;
}

export class Plot {
  /** @param {HTMLElement} root @param {{lines: string[], unit: string, target?: number}} what the classes of its lines */
  constructor(root, { lines, unit, target = null }) {
    this.unit = unit;
    this.target = target;
    this.names = lines;
    const svg = draw(root, "svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img" });
    this.svg = svg;
    for (const part of [0.25, 0.5, 0.75]) draw(svg, "line", { class: "grid", x1: WIDE * part, x2: WIDE * part, y1: 0, y2: HIGH });
    draw(svg, "line", { class: "grid", x1: 0, x2: WIDE, y1: HIGH / 2, y2: HIGH / 2 });
    this.area = draw(svg, "path", { class: `area ${lines[0]}` });
    this.limit = target === null ? null : draw(svg, "line", { class: "limit", x1: 0, x2: WIDE });
    this.lines = lines.map((name) => draw(svg, "path", { class: `line ${name}` }));
    this.top = document.createElement("span");
    this.top.className = "plot-top muted";
    this.value = document.createElement("span");
    this.value.className = "plot-value";
    root.append(this.top, this.value);
    root.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      this.pointed = Math.floor(((event.clientX - box.left) / box.width) * (this.series?.[0].length ?? 0));
      this.say();
    });
    root.addEventListener("pointerleave", () => {
      this.pointed = null;
      this.say();
    });
    this.pointed = null;
  }

  /** @param {(number|null)[][]} series one per line, oldest first @param {string} label what it is, to be read aloud */
  show(series, label) {
    this.series = series;
    this.label = label;
    const most = Math.max(this.target ?? 0, ...series.flat().filter((value) => value !== null));
    const top = roundUp(most * 1.05);
    const y = (value) => (HIGH - 2 - (value / top) * (HIGH - 6)).toFixed(1);
    series.forEach((values, index) => this.lines[index].setAttribute("d", this.way(values, y)));
    this.area.setAttribute("d", this.way(series[0], y, true));
    if (this.limit) for (const end of ["y1", "y2"]) this.limit.setAttribute(end, y(this.target));
    this.top.textContent = `${top}${this.unit}`;
    this.say();
  }

  /** The line through what is known; where nothing is known it is broken. */
  way(values, y, isArea = false) {
    const step = WIDE / Math.max(1, values.length - 1);
    let out = "";
    let first = null;
    values.forEach((value, index) => {
      const x = (index * step).toFixed(1);
      if (value !== null) {
        if (first === null) out += isArea ? `M${x} ${HIGH}L${x} ${y(value)}` : `M${x} ${y(value)}h.01`;
        else out += `L${x} ${y(value)}`;
        first ??= index;
      }
      if (first !== null && (value === null || index === values.length - 1)) {
        const end = ((value === null ? index - 1 : index) * step).toFixed(1);
        if (isArea) out += `L${end} ${HIGH}Z`;
        first = null;
      }
    });
    return out;
  }

  /** The newest values, or those under the pointer. */
  say() {
    if (!this.series) return;
    const of = (values) => {
      const value = this.pointed === null ? values.findLast((one) => one !== null) : values[this.pointed];
      return value === null || value === undefined ? "–" : `${value < 10 && this.unit ? value.toFixed(1) : Math.round(value)}${this.unit}`;
    };
    const text = this.series.map(of).join(" / ");
    this.value.textContent = text;
    this.svg.setAttribute("aria-label", `${this.label}: ${text}`);
  }
}
