// One card per node: its state by shape, word and colour, what waits, its clock.

import { count, el, Keyed, setAttribute, setText, svg } from "/dashboard/dom.js";
import { isWord, t } from "/dashboard/i18n.js";
import { dot } from "/dashboard/cluster-ring.js";

// A shape of its own for each state: nobody needs to tell colours apart.
const SHAPES = {
  up: "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1Zm-1 9.9 5-5-1.4-1.4L7 8.1 5.4 6.5 4 7.900Z",
  filling: "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1Zm0 2v10A5 5 0 0 0 8 3Z",
  suspected: "M8 1 15.500 14.500H.5Zm-1 5v4h2V6Zm0 5v2h2v-2Z",
  down: "M2 2h12v12H2Zm3.100 4.500L6.600 8l-1.500 1.500 1.400 1.400L8 9.400l1.500 1.500 1.400-1.400L9.400 8l1.500-1.500-1.400-1.400L8 6.600 6.500 5.100Z",
};
/// What that state is called; one that is not known is shown as it came.
export const stateName = (state) => (isWord(`node.${state}`) ? t(`node.${state}`) : String(state));

/// What is shown of a node: its state, or `filling` while it is there and does not vote.
export const shownState = (node) => (node.state === "up" && node.standing !== "voting" ? "filling" : node.state);

const FACTS = ["hints", "queued", "clock", "answer", "share", "generation"];

const sign = (ms) => (Number.isFinite(ms) ? `${ms > 0 ? "+" : ""}${count(ms)} ms` : "–");
const ago = (ms) => (Number.isFinite(ms) ? t("node.ago", { time: ms < 1000 ? `${count(ms)} ms` : `${count(ms / 1000)} s` }) : t("node.never"));

export class NodeCards {
  constructor(box, colourOf) {
    this.colourOf = colourOf;
    this.cards = new Keyed(box, (node) => this.make(node), (view, node) => this.show(view, node));
  }

  update(nodes, partitions) {
    this.partitions = partitions;
    this.cards.update(nodes, (node) => node.name);
  }

  make(node) {
    const path = svg("path");
    const word = el("span", { class: "state-word" });
    const facts = Object.fromEntries(FACTS.map((id) => [id, el("dd", { "data-fact": id })]));
    const error = el("p", { class: "node-error" });
    const root = el("article", { class: "node-card", "data-testid": "node-card", "data-node": node.name },
      el("header", {}, el("h3", {}, dot(this.colourOf(node.name)), node.name),
        el("p", { class: "node-state" }, svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, path), word)),
      el("dl", {}, ...FACTS.map((id) => el("div", {}, facts[id], el("dt", { "data-i18n": `node.${id}` }, t(`node.${id}`))))),
      error);
    return { root, path, word, facts, error };
  }

  show({ root, path, word, facts, error }, node) {
    setAttribute(root, "data-state", node.shown);
    setAttribute(root, "data-standing", node.standing ?? "unknown");
    setAttribute(root, "data-generation", node.generation ?? 0);
    setAttribute(root, "data-hints", node.hints_waiting ?? 0);
    setAttribute(path, "d", SHAPES[node.shown] ?? SHAPES.suspected);
    setText(word, stateName(node.shown));
    setText(facts.hints, t(node.hints_waiting === 1 ? "node.hint" : "node.hintMany", { count: count(node.hints_waiting) }));
    setText(facts.queued, count(node.queued));
    setText(facts.clock, sign(node.clock_ahead_ms));
    setText(facts.answer, ago(node.last_answer_ms_ago));
    setText(facts.share, `${((100 * node.home_partitions) / this.partitions).toFixed(0)} %`);
    setText(facts.generation, count(node.generation));
    setText(error, node.shown === "up" ? "" : node.error ?? "");
  }
}
