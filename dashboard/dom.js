// Small helpers to build the cluster view. Data reaches the page through text and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/// An HTML element with attributes and children (nodes or text).
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/// The same for SVG.
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/// Writes text only when it differs, so that selections and screen readers are left alone.
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/// Writes an attribute only when it differs.
export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/// Keeps one child per key in `parent`, in the order of `items`: `make(key)` for new ones, `show(view, item)` for all. Focus survives.
export class Keyed {
  constructor(parent, make, show) {
    Object.assign(this, { parent, make, show, views: new Map() });
  }

  update(items, keyOf) {
    const keys = new Set(items.map(keyOf));
    for (const [key, view] of this.views) {
      if (keys.has(key)) continue;
      view.root.remove();
      this.views.delete(key);
    }
    let place = this.parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let view = this.views.get(key);
      if (!view) {
        view = this.make(item);
        this.views.set(key, view);
      }
      if (view.root === place) place = place.nextElementSibling;
      else this.parent.insertBefore(view.root, place);
      this.show(view, item);
    }
  }
}

/// Puts rows of text into a table's body. The first column names its row.
export function fillTable(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, number) => {
    const row = body.rows[number] ?? body.insertRow();
    cells.forEach((text, column) => {
      let cell = row.cells[column];
      if (!cell) {
        cell = column === 0 ? el("th", { scope: "row" }) : el("td");
        row.append(cell);
      }
      setText(cell, text);
    });
  });
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });

/// A count as people read it; a dash when there is none.
export const count = (value) => (Number.isFinite(value) ? plain.format(value) : "–");

/// So many per second.
export const rate = (value) => (Number.isFinite(value) ? `${fine.format(value)}/s` : "–");
