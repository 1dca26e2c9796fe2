// What is known of the drone or order that was chosen: facts, and all that happened to it.

import { statusName, t, typeName, zoneName } from "/dashboard/i18n.js";
import { age, shortId } from "/dashboard/tables.js";

const FLOWN_MAX = 12;
const CHARGING_MAX = 20;

/** An element with text and class; data never becomes markup. */
export function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

export class Panel {
  /** @param {HTMLElement} root @param {{store: any, select: Function, follow: (on: boolean) => void, chargePoint: (name: string) => any}} page */
  constructor(root, { store, select, follow, chargePoint }) {
    this.root = root;
    this.chargePoint = chargePoint;
    this.store = store;
    this.select = select;
    this.shownKey = "";
    this.fetched = new Map(); // orders that the store has not, by id; null while asked for or gone
    this.title = make("h3");
    this.badge = make("span", "badge");
    this.followButton = make("button", "small");
    this.followButton.type = "button";
    this.followButton.addEventListener("click", () => follow(this.followButton.getAttribute("aria-pressed") !== "true"));
    const close = make("button", "small icon", "×");
    close.type = "button";
    close.dataset.i18nLabel = "detail.close";
    close.addEventListener("click", () => select({}));
    const head = make("div", "detail-head");
    head.append(this.title, this.badge, this.followButton, close);
    this.body = make("div", "detail-body");
    this.body.tabIndex = 0;
    this.body.setAttribute("role", "region");
    this.body.dataset.i18nLabel = "detail";
    root.append(head, this.body);
  }

  /** @param {{drone: string|null, order: string|null, charge: string|null, first: "drone"|"order"|"charge"}} selected */
  show(selected, follows) {
    this.root.hidden = !selected.drone && !selected.order && !selected.charge;
    if (this.root.hidden) return;
    this.followButton.textContent = t("detail.follow");
    this.followButton.setAttribute("aria-pressed", String(follows));
    this.followButton.hidden = selected.first === "charge";
    this.badge.hidden = selected.first === "charge";
    if (selected.first === "charge") {
      this.showCharge(selected.charge, this.chargePoint(selected.charge));
      return;
    }
    const drone = selected.first === "drone" ? this.store.drones.get(selected.drone) : null;
    if (drone) this.showDrone(drone);
    else this.showOrder(selected.order, this.order(selected.order));
  }

  order(id) {
    const known = this.store.orders.get(id) ?? this.fetched.get(id);
    if (known === undefined && id) this.fetch(id);
    return known ?? null;
  }

  async fetch(id) {
    this.fetched.set(id, null);
    try {
      const answer = await fetch(`/deliveries/${encodeURIComponent(id)}`);
      if (answer.ok) this.fetched.set(id, await answer.json());
    } catch {
      this.fetched.delete(id); // asked again the next time
    }
  }

  head(title, status) {
    this.title.textContent = title;
    this.badge.textContent = statusName(status);
    this.badge.dataset.tone = String(status);
  }

  /** Replaces the body only when something changed, so that focus and scrolling stay. */
  fill(parts) {
    const key = JSON.stringify(parts);
    if (key === this.shownKey) return;
    this.shownKey = key;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset?.key : null;
    this.body.replaceChildren(...parts.map((part) => this.part(part)));
    if (focused) [...this.body.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused)?.focus();
  }

  part({ facts, title, steps, links, note }) {
    if (facts) {
      const list = make("dl", "facts");
      for (const [name, value] of facts) {
        const pair = make("div");
        pair.append(make("dt", "", name), make("dd", "", value));
        list.append(pair);
      }
      return list;
    }
    if (title) return make("h4", "", title);
    if (steps) {
      const list = make("ol", "steps");
      for (const { text, when, tone } of steps) {
        const step = make("li");
        step.dataset.tone = tone;
        step.append(make("span", "", text), make("time", "muted", when));
        list.append(step);
      }
      return list;
    }
    if (links) {
      const list = make("ul", "links");
      for (const { order, drone, text, tone } of links) {
        const item = make("li");
        const button = make("button", "pick", text);
        button.type = "button";
        button.dataset.key = order ?? drone;
        button.addEventListener("click", () => this.select(order ? { order } : { drone }, true));
        item.append(button);
        if (tone) {
          const badge = make("span", "badge", statusName(tone));
          badge.dataset.tone = tone;
          item.append(badge);
        }
        list.append(item);
      }
      return list;
    }
    return make("p", "muted", note);
  }

  showDrone(drone) {
    this.head(drone.id, drone.status);
    const facts = [
      [t("type"), typeName(drone.type)],
      [t("battery"), `${Math.round(drone.battery)} %`],
      [t("zone"), drone.zone ? zoneName({ name: drone.zone }) : t("outside")],
      [t("detail.position"), drone.pos ? `${drone.pos.lat.toFixed(4)}, ${drone.pos.lon.toFixed(4)}` : "–"],
    ];
    const flown = [...this.store.orders.values()].filter((order) => order.drone_id === drone.id);
    flown.sort((a, b) => (a.id < b.id ? 1 : -1));
    const links = flown.slice(0, FLOWN_MAX).map((order) => ({ order: order.id, text: shortId(order.id), tone: order.status }));
    this.fill([{ facts }, { title: t("detail.flown") }, links.length ? { links } : { note: t("detail.noOrders") }]);
  }

  showCharge(name, point) {
    this.title.textContent = t("charge.title", { zone: zoneName({ name }) });
    const parts = [];
    for (const group of ["here", "waiting", "coming"]) {
      const drones = point?.[group] ?? [];
      parts.push({ title: t(`charge.${group}`, { count: drones.length }) });
      const links = drones.slice(0, CHARGING_MAX).map(({ id, battery, status }) => ({ drone: id, text: `${id} · ${Math.round(battery)} %`, tone: status }));
      if (links.length) parts.push({ links });
    }
    this.fill(parts);
  }

  showOrder(id, order) {
    if (!order) {
      this.head(shortId(id), "–");
      this.fill([{ note: t("detail.unknown") }]);
      return;
    }
    this.head(`${t("order")} ${shortId(id)}`, order.status);
    const now = this.store.clock.now();
    const until = (at) => (at - now < 1 ? t("detail.now") : age(at - now));
    const facts = [
      [t("weight"), `${order.weight.toFixed(1)} kg`],
      [t("route"), `${zoneOf(order.origin_zone)} → ${zoneOf(order.destination_zone)}`],
    ];
    if (order.leg) facts.push([t("status"), t(`leg.${order.leg}`)]);
    if (Number.isFinite(order.pickup_eta)) facts.push([t("detail.pickup"), until(order.pickup_eta)]);
    if (Number.isFinite(order.delivery_eta)) facts.push([t("detail.arrives"), until(order.delivery_eta)]);
    if (order.waits_for) facts.push([t("detail.waits"), String(order.waits_for)]);
    if (order.reason) facts.push([t("detail.reason"), String(order.reason)]);
    const steps = (order.history ?? []).toReversed().map((entry) => ({
      text: [statusName(entry.status), entry.leg ? t(`leg.${entry.leg}`) : "", entry.drone_id ?? ""].filter(Boolean).join(" · "),
      when: t("detail.since", { age: age(now - entry.at) }),
      tone: entry.status,
    }));
    const parts = [{ facts }];
    if (order.drone_id) parts.push({ links: [{ drone: order.drone_id, text: order.drone_id }] });
    parts.push({ title: t("detail.history") }, { steps });
    this.fill(parts);
  }
}

const zoneOf = (name) => (name ? zoneName({ name }) : t("outside"));
