// The strip of promises at the top, and the plots of the last hour below the map.

import { addWords, onLanguage, t, translate } from "/dashboard/i18n.js";
import { percentile } from "/dashboard/history.js";
import { make } from "/dashboard/panel.js";
import { Plot } from "/dashboard/plot.js";
import { Answers, budget, judge, TARGETS } from "/dashboard/slo.js";

addWords({
  "slo.assign": ["Assigned within {max} s", "Assegnati entro {max} s"],
  "slo.deliver": ["Delivered within {max} s", "Consegnati entro {max} s"],
  "slo.api": ["API answers within {max} ms", "API risponde entro {max} ms"],
  "slo.kept": ["kept", "mantenuta"],
  "slo.risk": ["at risk", "a rischio"],
  "slo.broken": ["broken", "non mantenuta"],
  "slo.unknown": ["not enough data", "pochi dati"],
  "slo.budget": ["error budget {left} %, burn {long}× 1 h, {short}× 5 min", "margine d’errore {left} %, consumo {long}× 1 h, {short}× 5 min"],
  "slo.left": ["budget {left} %", "margine {left} %"],
  "slo.gap": ["Above the best possible", "Oltre il minimo possibile"],
  "slo.gapOf": ["mean {mean} · bound {bound} · {count} deliveries", "media {mean} · limite {bound} · {count} consegne"],
  "slo.gapSpeed": ["drones fly faster than SPEED_BASE_KMH and TIME_SCALE say", "i droni volano più veloci di SPEED_BASE_KMH e TIME_SCALE"],
  "slo.help": ["What it means: {what}", "Che cosa significa: {what}"],
  "slo.promise": ["{share} % of the last hour’s are to do so. The error budget is the rest; burn says how many times faster than allowed it is used up.",
    "Vale per il {share} % dell’ultima ora. Il resto è il margine d’errore; il consumo dice quante volte più in fretta del dovuto si esaurisce."],
  "slo.gapHelp": [
    "How much longer the deliveries of the last {min} minutes took, on average, than the lower bound: what no dispatcher could beat on these orders, "
      + "with a drone at every door or the whole fleet in one. So it is the most that is left to gain, and 0 % is out of reach.",
    "Quanto più a lungo sono durate, in media, le consegne degli ultimi {min} minuti rispetto al limite inferiore: ciò che nessuno potrebbe battere con questi "
      + "ordini, con un drone a ogni porta o l’intera flotta in uno. È dunque il massimo che resta da guadagnare, e lo 0 % è irraggiungibile."],
  "history.title": ["The last hour", "L’ultima ora"],
  "history.note": ["per minute; from the orders’ own records", "al minuto; dai dati degli ordini stessi"],
  "history.flow": ["Ordered and delivered a minute", "Ordinati e consegnati al minuto"],
  "history.backlog": ["Waiting for a drone", "In attesa di un drone"],
  "history.assign": ["Time to assign, p50 and p95", "Tempo di assegnazione, p50 e p95"],
  "history.deliver": ["Time to deliver, p50 and p95", "Tempo di consegna, p50 e p95"],
  "history.ago": ["60 min ago", "60 min fa"],
  "history.half": ["30 min", "30 min"],
  "history.now": ["now", "ora"],
});

const seconds = (value) => (Number.isFinite(value) ? `${value < 10 ? value.toFixed(1) : Math.round(value)} s` : "–");
const millis = (value) => (Number.isFinite(value) ? `${Math.round(value)} ms` : "–");

export class Promises {
  /** @param {HTMLElement} strip @param {HTMLElement} plots @param {import("/dashboard/history.js").History} history */
  constructor(strip, plots, history) {
    this.history = history;
    this.answers = new Answers();
    this.latency = null;
    this.tiles = Object.keys(TARGETS).map((name) => this.tile(strip, name));
    this.gap = this.tile(strip, "gap");
    this.plots = [
      this.plot(plots, "flow", ["a", "b"], "", null, ["ordered", "delivered"]),
      this.plot(plots, "backlog", ["c"], "", null, ["backlog"]),
      this.plot(plots, "assign", ["a", "d"], " s", TARGETS.assign.maxSec, ["assign50", "assign95"]),
      this.plot(plots, "deliver", ["a", "d"], " s", TARGETS.deliver.maxSec, ["deliver50", "deliver95"]),
    ];
    onLanguage(() => this.words());
    this.words();
  }

  tile(strip, name) {
    const node = make("dl", "tile slo");
    node.dataset.testid = `slo-${name}`;
    const term = make("dt");
    const label = make("span");
    const ask = make("button", "ask");
    const help = make("dd", "slo-help");
    Object.assign(ask, { type: "button", textContent: "?", popoverTargetElement: help });
    help.popover = "auto";
    const helpWords = make("p");
    const figures = make("p", "muted");
    help.append(helpWords, figures);
    term.append(label, ask);
    const value = make("dd", "slo-value");
    const more = make("dd", "also muted");
    const bar = make("dd", "slo-bar");
    const fill = make("span");
    bar.append(fill);
    bar.setAttribute("aria-hidden", "true"); // the words beside it say the same
    node.append(term, value, more, bar, help);
    strip.append(node);
    return { name, node, label, ask, helpWords, figures, value, more, fill };
  }

  plot(root, name, lines, unit, target, series) {
    const figure = make("figure", "plot");
    figure.dataset.testid = `plot-${name}`;
    const caption = make("figcaption");
    const box = make("div", "plot-box");
    const axis = make("div", "plot-axis muted");
    for (const key of ["history.ago", "history.half", "history.now"]) {
      const mark = make("span");
      mark.dataset.i18n = key;
      axis.append(mark);
    }
    figure.append(caption, box, axis);
    root.append(figure);
    return { name, caption, plot: new Plot(box, { lines, unit, target }), series, root: figure };
  }

  words() {
    for (const { name, label, ask, helpWords } of [...this.tiles, this.gap]) {
      const target = TARGETS[name];
      label.textContent = t(`slo.${name}`, { max: target?.maxSec ?? target?.maxMs });
      ask.setAttribute("aria-label", t("slo.help", { what: label.textContent }));
      helpWords.textContent = target ? t("slo.promise", { share: target.share * 100 }) : t("slo.gapHelp", { min: Math.round((this.latency?.window_sec ?? 900) / 60) });
    }
    for (const { name, caption, plot, root } of this.plots) {
      caption.textContent = t(`history.${name}`);
      plot.svg.setAttribute("aria-label", caption.textContent);
      translate(root);
    }
  }

  /** Takes an answer of GET /stats. */
  note(stats) {
    this.latency = stats.latency;
    if (Number.isFinite(stats.answered_in_ms)) this.answers.note(stats.now, stats.answered_in_ms);
  }

  /** @param {number} now Unix seconds */
  show(now) {
    for (const tile of this.tiles) this.showTile(tile, now);
    this.showGap();
    const bins = this.history.bins(now);
    for (const { name, plot, series } of this.plots) plot.show(series.map((key) => bins[key]), t(`history.${name}`));
  }

  /** How far the mean time to deliver is above its lower bound, see docs/dispatch.md. */
  showGap() {
    const { node, value, more } = this.gap;
    const { gap = null, count = 0, mean_sec: mean, lower_bound_sec: bound } = this.latency?.bound ?? {};
    const known = count > 0 ? t("slo.gapOf", { mean: seconds(mean), bound: seconds(bound), count }) : t("slo.unknown");
    value.textContent = gap === null ? "–" : `+${Math.round(gap * 100)} %`;
    more.textContent = gap === null && count > 0 && mean < bound ? t("slo.gapSpeed") : known;
    node.dataset.gap = gap ?? "";
  }

  showTile({ name, node, figures: inHelp, value, more, fill }, now) {
    const target = TARGETS[name];
    const isApi = name === "api";
    const judged = isApi ? this.answers.judged() : [...this.history.facts.values()].map((fact) => judge(fact, target, now)).filter(Boolean);
    const sum = budget(judged, target.share, now);
    const own = this.answers.all.map(({ ms }) => ms);
    const figures = this.latency?.[name];
    const [p50, p95, p99] = isApi
      ? [0.5, 0.95, 0.99].map((share) => millis(percentile(own, share) ?? NaN))
      : [figures?.p50_sec, figures?.p95_sec, figures?.p99_sec].map((one) => seconds(one ?? NaN));
    const left = Math.round(Math.max(-9.99, sum.left) * 100);
    value.textContent = p95;
    more.textContent = `p95 · p50 ${p50} · p99 ${p99} · ${sum.verdict === "unknown" ? t("slo.unknown") : `${t(`slo.${sum.verdict}`)}, ${t("slo.left", { left })}`}`;
    node.dataset.verdict = sum.verdict;
    inHelp.textContent = t("slo.budget", { left, long: sum.long.toFixed(1), short: sum.short.toFixed(1) });
    fill.style.width = `${sum.verdict === "unknown" ? 0 : Math.max(0, Math.min(100, left))}%`;
  }
}
