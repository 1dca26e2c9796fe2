// Five guided experiments that check themselves. Each breaks something, sees on this page which part was broken and what the cluster did about
// it, mends it, and sees that no order suffered: every one it placed is there once, was not lost, and gets a drone.

import { journeyOf } from "/dashboard/cluster-journey.js";
import { el, setAttribute, setText } from "/dashboard/dom.js";
import { t } from "/dashboard/i18n.js";

const LOOK_EVERY_MS = 250;
const SHOWN_WITHIN_MS = 45_000; // until the page shows what is expected
const FLIES_WITHIN_MS = 90_000; // until an order has a drone
const ORDER_TIMEOUT_MS = 5000;
const ORDERS_MAX = 16; // placed until one lives where it is wanted: each node is home of two thirds of them
const READS = 20;
const UNDER_WAY = ["assigned", "in_flight", "delivered"];
const ORDER = { origin: { lat: 41.89, lon: 12.49 }, destination: { lat: 41.91, lon: 12.46 }, weight: 1 };

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/// What the page shows of a node: the card itself, not what it was made from.
const card = (node) => document.querySelector(`[data-testid=node-card][data-node="${node}"]`)?.dataset ?? {};
const hintsShown = () => Number(document.getElementById("cluster-hints").dataset.count);
const isWhole = (node) => card(node).state === "up" && card(node).standing === "voting";
const copyOf = (journey, node) => journey.nodes.find((copy) => copy.name === node);

/// What was expected did not come; told by the key of its words, so that it can be said in another language later.
class Failed extends Error {
  constructor(key, values = {}) {
    super(t(key, values));
    Object.assign(this, { key, values });
  }
}

function insist(holds, key, values) {
  if (!holds) throw new Failed(key, values);
}

/// One run of one experiment.
class Run {
  constructor(tools, tell) {
    Object.assign(this, tools);
    this.tell = tell;
    this.orders = [];
  }

  /// Tries until it holds; that it is not so within the limit says enough beside the step's own sentence.
  async until(holds, limitMs = SHOWN_WITHIN_MS) {
    const end = performance.now() + limitMs;
    let trouble = "";
    while (performance.now() < end) {
      try {
        if (await holds()) return;
      } catch (error) {
        trouble = error.message;
      }
      await pause(LOOK_EVERY_MS);
    }
    throw new Failed("exp.late", { sec: limitMs / 1000, why: trouble });
  }

  async do(service, action) {
    await this.act(service, action);
    const wanted = { stop: "stopped", start: "running", pause: "paused", slow: "slow" }[action];
    if (!wanted) return;
    await this.until(async () => {
      await this.refresh();
      return document.querySelector(`[data-testid=chaos-row][data-service="${service}"]`)?.dataset.mode === wanted;
    });
  }

  async post(order) {
    const answer = await fetch("/deliveries", {
      method: "POST",
      headers: { "Idempotency-Key": order.key },
      body: JSON.stringify(ORDER),
      signal: AbortSignal.timeout(ORDER_TIMEOUT_MS),
    });
    const body = await answer.json();
    if (answer.status !== 200 && answer.status !== 201) throw new Error(body.detail ?? t("cluster.answered", { path: "/deliveries", status: answer.status }));
    return { status: answer.status, id: body.id };
  }

  /// Places an order as a careful client does: under a name, again when it is not answered.
  async order() {
    const order = { key: `experiment-${crypto.randomUUID?.() ?? Math.random()}` };
    await this.until(async () => ((order.id = (await this.post(order)).id), true), 20_000);
    this.orders.push(order);
    return order;
  }

  /// Places orders until one lives on `node`; its key in the KV.
  async orderAt(node) {
    for (let placed = 0; placed < ORDERS_MAX; placed += 1) {
      const key = `delivery:${(await this.order()).id}`;
      if (copyOf(await journeyOf(key), node)?.role === "home") {
        this.follow(key);
        return key;
      }
    }
    throw new Failed("exp.elsewhere", { count: ORDERS_MAX, node });
  }

  /// Every order of this run is there once, and gets a drone.
  async unharmed() {
    for (const order of this.orders) {
      await this.until(async () => {
        const again = await this.post(order);
        insist(again.status === 200 && again.id === order.id, "exp.doubled", { id: order.id });
        return true;
      });
      await this.until(async () => {
        const answer = await fetch(`/deliveries/${order.id}`, { signal: AbortSignal.timeout(ORDER_TIMEOUT_MS) });
        return answer.ok && UNDER_WAY.includes((await answer.json()).status);
      }, FLIES_WITHIN_MS);
    }
    return [this.orders.length === 1 ? "exp.orderDone" : "exp.ordersDone", { count: this.orders.length }];
  }
}

const wholeAgain = (run, node) => run.until(() => isWhole(node));
const shownAway = (run, node) => run.until(() => ["suspected", "down"].includes(card(node).state));

/// The last step of each: its words are the same everywhere.
const unharmed = (run) => run.unharmed();

/// The scripts: what makes each step true; its sentence is `exp.ID.NUMBER` in cluster-words.js. `mend` puts things right whatever happened.
export const EXPERIMENTS = [
  {
    id: "stop",
    mend: [["kvstore_b", "start"]],
    steps: [
      (run) => run.do("kvstore_b", "stop"),
      (run) => shownAway(run, "kvstore_b"),
      async (run) => void (run.key = await run.orderAt("kvstore_b")),
      (run) => run.until(async () => (await journeyOf(run.key)).nodes.some((copy) => copy.hint_for === "kvstore_b")),
      (run) => run.until(() => hintsShown() > 0),
      async (run) => (await run.do("kvstore_b", "start"), wholeAgain(run, "kvstore_b")),
      (run) => run.until(async () => copyOf(await journeyOf(run.key), "kvstore_b").has === "newest" && hintsShown() === 0),
      unharmed,
    ],
  },
  {
    id: "pause",
    mend: [["kvstore_c", "start"]],
    steps: [
      (run) => run.do("kvstore_c", "pause"),
      (run) => shownAway(run, "kvstore_c"),
      async (run) => void (run.key = await run.orderAt("kvstore_c")),
      (run) => run.until(async () => (await journeyOf(run.key)).copies >= 2),
      async (run) => (await run.do("kvstore_c", "start"), wholeAgain(run, "kvstore_c")),
      (run) => run.until(async () => copyOf(await journeyOf(run.key), "kvstore_c").has === "newest" && hintsShown() === 0),
      unharmed,
    ],
  },
  {
    id: "wipe",
    mend: [["kvstore_a", "start"]],
    steps: [
      async (run) => void (run.key = await run.orderAt("kvstore_a")),
      async (run) => {
        run.life = Number(card("kvstore_a").generation);
        insist(run.life > 0, "exp.life", { node: "kvstore_a" });
        await run.do("kvstore_a", "stop");
        await shownAway(run, "kvstore_a");
        await run.do("kvstore_a", "wipe");
      },
      (run) => run.order(),
      async (run) => {
        await run.do("kvstore_a", "start");
        await run.until(() => Number(card("kvstore_a").generation) === run.life + 1);
      },
      (run) => wholeAgain(run, "kvstore_a"),
      (run) => run.until(async () => copyOf(await journeyOf(run.key), "kvstore_a").has === "newest"),
      unharmed,
    ],
  },
  {
    id: "bus",
    mend: [["bus", "start"]],
    steps: [
      (run) => run.do("bus", "stop"),
      (run) => run.order(),
      (run) => run.unharmed(),
      () => insist(["kvstore_a", "kvstore_b", "kvstore_c"].every(isWhole), "exp.notAll"),
      (run) => run.do("bus", "start"),
      (run) => run.order(),
      unharmed,
    ],
  },
  {
    id: "gateway",
    mend: [["gateway_1", "start"]],
    steps: [
      (run) => run.do("gateway_1", "stop"),
      async () => {
        for (let asked = 0; asked < READS; asked += 1) {
          const answer = await fetch("/zones", { cache: "no-store", signal: AbortSignal.timeout(ORDER_TIMEOUT_MS) });
          insist(answer.ok, "exp.unanswered", { count: asked + 1, status: answer.status });
        }
        return ["exp.answered", { count: READS }];
      },
      async (run) => {
        const looks = () => Number(document.getElementById("cluster-view").dataset.looked ?? 0);
        const before = looks();
        await run.until(() => looks() >= before + 2);
      },
      (run) => run.order(),
      async (run) => {
        await run.do("gateway_1", "start");
        const address = (await run.services()).find((service) => service.name === "gateway_1").address;
        const picks = async () => (await (await fetch("/cluster", { cache: "no-store" })).json()).lb.says.backends[address]?.picks_total ?? 0;
        let before = null;
        await run.until(async () => {
          await fetch("/zones", { cache: "no-store" });
          before ??= await picks();
          return (await picks()) > before;
        });
      },
      unharmed,
    ],
  },
];

const MARKS = { waiting: "○", running: "◌", ok: "✓", failed: "✕" };

export class Experiment {
  constructor(script, tools) {
    Object.assign(this, { script, tools });
    const key = `exp.${script.id}`;
    this.key = key;
    this.verdict = el("span", { class: "verdict", role: "status" });
    this.button = el("button", { type: "button", "data-i18n": "exp.run" }, t("exp.run"));
    this.steps = script.steps.map((step, number) => {
      const mark = el("span", { class: "step-mark", "aria-hidden": "true" }, MARKS.waiting);
      const note = el("span", { class: "step-note" });
      const words = step === unharmed ? "exp.unharmed" : `${key}.${number + 1}`;
      return { mark, note, root: el("li", { "data-step": "waiting" }, mark, el("span", { "data-i18n": words }, t(words)), note) };
    });
    this.root = el("article", { class: "experiment", "data-testid": "experiment", "data-experiment": script.id, "data-result": "waiting" },
      el("header", {}, el("h3", { "data-i18n": key }, t(key)), this.verdict, this.button),
      el("p", { class: "muted", "data-i18n": `${key}.about` }, t(`${key}.about`)),
      el("ol", {}, ...this.steps.map((step) => step.root)));
    this.words();
  }

  /// `note`: a key of words and their values, or text that came from elsewhere.
  set(step, state, note = null) {
    setAttribute(step.root, "data-step", state);
    setText(step.mark, MARKS[state]);
    step.said = note;
    this.say(step);
  }

  say({ note, said }) {
    setText(note, Array.isArray(said) ? t(...said) : (said ?? ""));
  }

  setResult(result) {
    setAttribute(this.root, "data-result", result);
    this.words();
  }

  /// In another language.
  words() {
    const { result } = this.root.dataset;
    setAttribute(this.button, "aria-label", t("exp.runThis", { title: t(this.key) }));
    setText(this.verdict, result === "waiting" ? "" : t(`exp.${result}`));
    for (const step of this.steps) this.say(step);
  }

  /// Forgets an earlier run.
  wait() {
    for (const step of this.steps) this.set(step, "waiting");
    this.setResult("waiting");
  }

  async run() {
    this.wait();
    this.setResult("running");
    const run = new Run(this.tools);
    let good = true;
    for (const [number, make] of this.script.steps.entries()) {
      const step = this.steps[number];
      this.set(step, "running");
      try {
        const note = await make(run);
        this.set(step, "ok", Array.isArray(note) ? note : null);
      } catch (error) {
        this.set(step, "failed", error instanceof Failed ? [error.key, error.values] : error.message);
        good = false;
        break;
      }
    }
    for (const [service, action] of this.script.mend) await run.do(service, action).catch(() => {});
    this.setResult(good ? "ok" : "failed");
  }
}
