// The cluster view: the ring, its nodes, what they are doing about trouble, lb's gateways, RabbitMQ's queues, a key's journey.
//
// Promises: asks once a second while it is looked at, never otherwise; slower while nobody answers; says how old what it shows is.

import "/dashboard/cluster-words.js";
import { Chaos } from "/dashboard/chaos.js";
import { NodeCards, shownState } from "/dashboard/cluster-nodes.js";
import { RingDrawing } from "/dashboard/cluster-ring.js";
import { Journey } from "/dashboard/cluster-journey.js";
import { count, fillTable, rate, setAttribute, setText } from "/dashboard/dom.js";
import { onLanguage, t, translate } from "/dashboard/i18n.js";

const PERIOD_MS = 450; // with the gateway's 400 ms what is shown is less than a second old
const BACKOFF_MAX_MS = 8000;
const TIMEOUT_MS = 4000;
const RATE_SPAN_MS = 10_000; // rates are over this long
const LATE_FAILURES = 2;

const byId = (id) => document.getElementById(id);
const view = byId("cluster-view");

async function getJson(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error(t("cluster.answered", { path, status: answer.status }));
  return answer.json();
}

/// Rates of counters over the last RATE_SPAN_MS. Another source (a program that was started again) begins anew.
class Rates {
  constructor() {
    this.samples = [];
    this.source = null;
  }

  add(at, source, values) {
    const last = this.samples.at(-1);
    const fell = last && Object.entries(values).some(([name, value]) => value < last.values[name]);
    if (source !== this.source || fell) this.samples = [];
    this.source = source;
    this.samples.push({ at, values });
    while (this.samples.length > 2 && at - this.samples[1].at >= RATE_SPAN_MS) this.samples.shift();
  }

  of(name) {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (!first || last.at - first.at < 500) return NaN;
    return (1000 * ((last.values[name] ?? 0) - (first.values[name] ?? 0))) / (last.at - first.at);
  }
}

const ring = new RingDrawing(byId("ring-box"), byId("ring-table"));
const cards = new NodeCards(byId("node-cards"), (name) => ring.colourOf(name));
const journey = new Journey({
  form: byId("journey-form"),
  input: byId("journey-key"),
  note: byId("journey-note"),
  body: byId("journey-table"),
  mark: (partition) => ring.mark(partition),
  colourOf: (name) => ring.colourOf(name),
});
const chaos = new Chaos({ panel: byId("chaos"), services: byId("chaos-services"), experiments: byId("chaos-experiments"), runAll: byId("chaos-run-all"), follow: (key) => journey.follow(key) });
const kvRates = new Rates();
const lbRates = new Rates();
let epoch = null;
let failures = 0;

function showKv({ says, error }, at) {
  setText(byId("cluster-error"), error ? t("cluster.silentKv", { why: error }) : "");
  setAttribute(view, "data-kv", error ? "away" : says.status);
  if (!says) return;
  const nodes = says.nodes.map((node) => ({ ...node, shown: shownState(node) }));
  kvRates.add(at, says.incarnation, says.counters);
  cards.update(nodes, says.ring.partitions);
  ring.showNodes(nodes);
  const clocks = nodes.filter((node) => node.state === "up").map((node) => Math.abs(node.clock_ahead_ms ?? 0));
  setText(byId("cluster-up"), `${nodes.filter((node) => node.shown === "up").length}/${nodes.length}`);
  setText(byId("cluster-hints"), count(says.hints_waiting));
  setText(byId("cluster-conflicts"), rate(kvRates.of("cas_conflicts")));
  setText(byId("cluster-repairs"), rate(kvRates.of("read_repairs") + kvRates.of("keys_repaired")));
  setText(byId("cluster-handed"), rate(kvRates.of("hints_handed_over")));
  setText(byId("cluster-skew"), clocks.length ? `${count(Math.max(...clocks))} ms` : "–");
  setAttribute(byId("cluster-hints"), "data-waiting", says.hints_waiting > 0);
  setAttribute(byId("cluster-hints"), "data-count", says.hints_waiting);
}

function showLb({ says, error }, at) {
  const note = error ?? (says ? "" : t("lb.unset"));
  if (says) {
    const of = (figure) => Object.entries(says.backends).map(([name, figures]) => [`${figure} ${name}`, figures[figure] ?? 0]);
    const picks = Object.fromEntries(Object.entries(says.backends).map(([name, figures]) => [name, figures.picks_total ?? 0]));
    lbRates.add(at, "lb", { ...picks, ...Object.fromEntries([...of("answers_total"), ...of("answer_seconds_total")]), count: says.upstream_count, seconds: says.upstream_seconds, retries: says.retries });
    const meanOf = (seconds, answers) => {
      const ms = (1000 * lbRates.of(seconds)) / lbRates.of(answers);
      return Number.isFinite(ms) ? `${count(ms)} ms` : "–";
    };
    const mean = meanOf("seconds", "count");
    setText(byId("lb-note"), t("lb.note", { rate: rate(lbRates.of("count")), mean, busy: count(says.in_flight), retries: count(says.retries) }));
    fillTable(byId("lb-table"), Object.keys(picks).sort().map((name) => [name, rate(lbRates.of(name)), meanOf(`answer_seconds_total ${name}`, `answers_total ${name}`), count(picks[name])]));
  } else {
    setText(byId("lb-note"), note);
    fillTable(byId("lb-table"), []);
  }
}

function showRabbit({ says, error }) {
  setText(byId("rabbit-note"), error ?? (says ? "" : t("rabbit.unset")));
  const rows = (says ?? []).map((queue) => [queue.name, count(queue.ready), count(queue.unacked), count(queue.redelivered), count(queue.consumers)]);
  fillTable(byId("rabbit-table"), rows);
  byId("rabbit-scroll").hidden = rows.length === 0;
}

async function look() {
  const status = await getJson("/cluster");
  const at = performance.now();
  if (status.kv.says && status.kv.says.epoch !== epoch) {
    ring.setRing(await getJson("/cluster/ring"));
    epoch = status.kv.says.epoch;
  }
  showKv(status.kv, at);
  showLb(status.lb, at);
  showRabbit(status.rabbit);
  await chaos.update(status.chaos);
  setAttribute(view, "data-looked", Number(view.dataset.looked ?? 0) + 1);
}

const isShown = () => !document.hidden && location.hash.startsWith("#cluster");

async function run() {
  let pause = PERIOD_MS;
  for (;;) {
    if (isShown()) {
      try {
        await look();
        failures = 0;
        pause = PERIOD_MS;
      } catch (error) {
        failures += 1;
        // A gateway that died is replaced by the next question.
        pause = failures < LATE_FAILURES ? PERIOD_MS / 4 : Math.min(pause * 2, BACKOFF_MAX_MS);
        if (failures >= LATE_FAILURES) setText(byId("cluster-error"), t("cluster.silent", { why: error.message }));
      }
    }
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, pause);
      addEventListener("hashchange", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }
}

/// Which of the two views is seen follows from the address, so that both can be linked to.
function choose() {
  const cluster = location.hash.startsWith("#cluster");
  document.body.dataset.view = cluster ? "cluster" : "live";
  view.hidden = !cluster;
  for (const link of document.querySelectorAll(".views a")) {
    if ((link.getAttribute("href") === "#cluster") === cluster) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

translate(document);
onLanguage(() => {
  journey.words();
  chaos.words();
  if (ring.ring) ring.setRing(ring.ring);
});
addEventListener("hashchange", choose);
choose();
run();
