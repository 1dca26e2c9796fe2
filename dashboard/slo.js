// Are the promises kept? Targets, error budgets and burn rates as docs/slo.md has them, of the last hour as this page knows it.

/** The one place of the page's targets; they are those of `dronedispatch slo`. */
export const TARGETS = {
  assign: { until: "assigned", maxSec: 40, share: 0.95 },
  deliver: { until: "delivered", maxSec: 180, share: 0.95 },
  api: { maxMs: 300, share: 0.95 },
};
const LONG_SEC = 3600;
const SHORT_SEC = 300;
const BURN_LIMIT = 2;
const RISK_BUDGET = 0.25;
const EVENTS_MIN = 20;
const ANSWERS_MAX = 7200; // of GET /stats, two a second
const NOT_OURS = new Set(["out_of_area", "out_of_range", "no_fly_zone"]);

/**
 * When the order was decided (Unix seconds), and how; null while it is open, or when it does not count.
 * @param {import("/dashboard/history.js").Fact} fact
 */
export function judge(fact, { until, maxSec }, now) {
  const due = fact.at + maxSec;
  const reached = fact[until];
  if (reached <= due) return { at: reached, good: true };
  if (NOT_OURS.has(fact.reason)) return null;
  if (fact.status === "cancelled" && fact.ended <= due) return null;
  if (fact.status === "failed" && fact.ended <= due) return { at: fact.ended, good: false };
  return now > due ? { at: due, good: false } : null;
}

/** Budget, burn and verdict of what was judged. @param {{at: number, good: boolean}[]} judged */
export function budget(judged, share, now) {
  const window = (sec) => {
    const inside = judged.filter(({ at }) => at > now - sec && at <= now);
    const bad = inside.filter(({ good }) => !good).length;
    return { events: inside.length, burn: inside.length ? bad / inside.length / (1 - share) : 0 };
  };
  const long = window(LONG_SEC);
  const short = window(SHORT_SEC);
  const left = 1 - long.burn;
  let verdict = "kept";
  if (long.events < EVENTS_MIN) verdict = "unknown";
  else if (left < 0) verdict = "broken";
  else if (left < RISK_BUDGET || (long.burn > BURN_LIMIT && short.burn > BURN_LIMIT)) verdict = "risk";
  return { events: long.events, left, long: long.burn, short: short.burn, verdict };
}

/** How long this page's own questions take: what somebody out here sees of the API. */
export class Answers {
  constructor() {
    /** @type {{at: number, ms: number}[]} */
    this.all = [];
  }

  note(at, ms) {
    this.all.push({ at, ms });
    if (this.all.length > ANSWERS_MAX) this.all.shift();
  }

  judged() {
    return this.all.map(({ at, ms }) => ({ at, good: ms <= TARGETS.api.maxMs }));
  }
}
