// The journey of a key: its nodes in order, the version on each, and which hint waits where.

import { el, setText } from "/dashboard/dom.js";
import { isWord, t } from "/dashboard/i18n.js";
import { dot } from "/dashboard/cluster-ring.js";

const TIMEOUT_MS = 4000;
const AGAIN_MS = 700; // while a key is shown, it is looked at again this often
const KEY_MAX = 1024;

const MARKS = { newest: "●", older: "◐", absent: "○", unknown: "?" };

/// Asks where a key is.
export async function journeyOf(key) {
  const answer = await fetch(`/cluster/keys/${encodeURIComponent(key)}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? t("cluster.answered", { path: "/cluster/keys", status: answer.status }));
  return body;
}

/// The part that tells when; behind it comes who made it.
const shortVersion = (version) => (version ? version.split("-")[0] : "–");

function when(seconds) {
  return Number.isFinite(seconds) ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : "–";
}

function hintText(copy, nodes) {
  if (copy.hint_for) return t("journey.keepsFor", { name: copy.hint_for });
  const keeper = nodes.find((other) => other.hint_for === copy.name);
  return keeper ? t("journey.keeper", { name: keeper.name }) : "–";
}

/// What kvfront's word is called here; one that is not known is shown as it came.
const word = (kind, name) => (isWord(`${kind}.${name}`) ? t(`${kind}.${name}`) : String(name));

export class Journey {
  constructor({ form, input, note, body, mark, colourOf }) {
    Object.assign(this, { form, input, note, body, mark, colourOf });
    this.key = null;
    this.why = "journey.type";
    this.timer = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.follow(input.value);
    });
  }

  /// Shows a key, and goes on showing it.
  follow(key) {
    clearTimeout(this.timer);
    this.input.value = key;
    this.key = key || null;
    if (!this.key || new TextEncoder().encode(key).length > KEY_MAX) {
      this.forget(key ? "journey.long" : "journey.type");
      return;
    }
    setText(this.note, t("journey.asking"));
    this.look(this.key);
  }

  forget(why) {
    this.key = null;
    this.why = why;
    this.body.replaceChildren();
    this.mark(null);
    this.words();
  }

  /// In another language; a key that is shown is looked at again soon.
  words() {
    if (!this.key) setText(this.note, t(this.why, { max: KEY_MAX }));
  }

  async look(key) {
    try {
      const journey = document.hidden ? null : await journeyOf(key);
      if (this.key !== key) return;
      if (journey) this.show(journey);
    } catch (error) {
      if (this.key !== key) return;
      setText(this.note, t("journey.cannot", { why: error.message }));
    }
    this.timer = setTimeout(() => this.look(key), AGAIN_MS);
  }

  show(journey) {
    this.mark(journey.partition);
    const { partition, version, copies, nodes, quorum } = journey;
    setText(this.note, t(version === null ? "journey.nowhere" : "journey.found", { partition, version: shortVersion(version), copies, all: nodes.length, quorum }));
    this.body.replaceChildren(...journey.nodes.map((copy, place) =>
      el("tr", { "data-testid": "journey-row", "data-node": copy.name, "data-has": copy.has, "data-hint-for": copy.hint_for ?? "" },
        el("th", { scope: "row" }, `${place + 1}. `, dot(this.colourOf(copy.name)), copy.name),
        el("td", {}, word("role", copy.role)),
        el("td", { class: "has", "data-has": copy.has }, `${MARKS[copy.has] ?? ""} ${word("has", copy.deleted ? "deleted" : copy.has)}`),
        el("td", { class: "code" }, shortVersion(copy.version)),
        el("td", {}, when(copy.written_at)),
        el("td", {}, hintText(copy, journey.nodes)))));
  }
}
