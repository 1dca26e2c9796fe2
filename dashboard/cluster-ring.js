// The ring as a drawing: which node is the first home (outer band), the second home (inner band) of every key range, and where a key lies.

import { el, fillTable, svg } from "/dashboard/dom.js";
import { isWord, t } from "/dashboard/i18n.js";

const SIZE = 320;
const CENTRE = SIZE / 2;
const BANDS = [
  { outer: 150, inner: 122 }, // first homes
  { outer: 117, inner: 98 }, // second homes
];
const COLOURS = 8; // more nodes take turns

const at = (share, radius) => {
  const angle = 2 * Math.PI * share - Math.PI / 2;
  return `${(CENTRE + radius * Math.cos(angle)).toFixed(2)} ${(CENTRE + radius * Math.sin(angle)).toFixed(2)}`;
};

/// The path of a band's piece between two shares of the circle.
function piece(from, to, { outer, inner }) {
  if (to - from > 0.999) {
    // An arc cannot end where it begins: two halves.
    return piece(0, 0.5, { outer, inner }) + piece(0.5, 0.998, { outer, inner }) + piece(0.998, 1, { outer, inner });
  }
  const large = to - from > 0.5 ? 1 : 0;
  return `M${at(from, outer)}A${outer} ${outer} 0 ${large} 1 ${at(to, outer)}L${at(to, inner)}A${inner} ${inner} 0 ${large} 0 ${at(from, inner)}Z`;
}

/// Runs of partitions with the same node at this rank: node number → list of [from, to).
function runs(ring, rank) {
  const byNode = new Map();
  let last = null;
  ring.ranges.forEach((range, number) => {
    const node = range.nodes[rank];
    if (node === undefined) return;
    const to = ring.ranges[number + 1]?.from ?? ring.partitions;
    if (last && last.node === node && last.to === range.from) {
      last.to = to;
      return;
    }
    last = { node, from: range.from, to };
    if (!byNode.has(node)) byNode.set(node, []);
    byNode.get(node).push(last);
  });
  return byNode;
}

export class RingDrawing {
  /// `box` gets the drawing, `tableBody` the same in words.
  constructor(box, tableBody) {
    this.tableBody = tableBody;
    this.bands = svg("g");
    this.marker = svg("g", { class: "ring-marker" });
    this.big = svg("text", { x: CENTRE, y: CENTRE - 2, class: "ring-big" });
    this.small = svg("text", { x: CENTRE, y: CENTRE + 20, class: "ring-small" });
    this.title = svg("title");
    this.root = svg("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, class: "ring", role: "img", "data-testid": "ring" },
      this.title, this.bands, this.marker, this.big, this.small);
    this.paths = [];
    this.ring = null;
    box.append(this.root);
  }

  /// Takes the ring, as `/cluster/ring` gives it.
  setRing(ring) {
    this.ring = ring;
    this.paths = [];
    const rows = ring.nodes.map((name) => [name, 0, 0, 0]);
    BANDS.slice(0, ring.rf).forEach((band, rank) => {
      for (const [node, pieces] of runs(ring, rank)) {
        const d = pieces.map(({ from, to }) => piece(from / ring.partitions, to / ring.partitions, band)).join("");
        const path = svg("path", { d, "data-colour": node % COLOURS, class: "ring-piece" });
        this.paths.push({ node: ring.nodes[node], path });
        const held = pieces.reduce((sum, { from, to }) => sum + to - from, 0);
        rows[node][rank + 1] = held;
        if (rank === 0) rows[node][3] = pieces.length;
      }
    });
    this.bands.replaceChildren(...this.paths.map(({ path }) => path));
    const share = (partitions) => `${((100 * partitions) / ring.partitions).toFixed(1)} %`;
    fillTable(this.tableBody, rows.map(([name, first, second, ranges]) => [name, share(first), share(second), ranges]));
  }

  /// Which colour a node has, everywhere on the page.
  colourOf(name) {
    return Math.max(0, this.ring?.nodes.indexOf(name) ?? 0) % COLOURS;
  }

  /// States of the nodes: those that are not up are hatched.
  showNodes(nodes) {
    const states = new Map(nodes.map((node) => [node.name, node.shown]));
    for (const { node, path } of this.paths) {
      const state = states.get(node) ?? "unknown";
      if (path.dataset.state !== state) path.dataset.state = state;
    }
    const up = nodes.filter((node) => node.shown === "up").length;
    this.big.textContent = t("ring.up", { up, all: nodes.length });
    this.small.textContent = t("ring.nodesUp");
    const nameOf = (state) => (isWord(`node.${state}`) ? t(`node.${state}`) : state);
    const away = nodes.filter((node) => node.shown !== "up").map((node) => t("ring.away", { name: node.name, state: nameOf(node.shown) }));
    this.title.textContent = t("ring.title", { count: nodes.length, away: away.join(", ") || t("ring.allUp") });
  }

  /// Shows where a partition lies; nothing without one.
  mark(partition) {
    this.marker.replaceChildren();
    if (partition === null || !this.ring) return;
    const share = (partition + 0.5) / this.ring.partitions;
    this.marker.append(
      svg("path", { d: `M${at(share, 90)}L${at(share, 154)}` }),
      svg("circle", { cx: at(share, 155).split(" ")[0], cy: at(share, 155).split(" ")[1], r: 5 }),
    );
  }
}

/// A dot in a node's colour, for legends.
export const dot = (colour) => el("span", { class: "node-dot", "data-colour": colour, "aria-hidden": "true" });
