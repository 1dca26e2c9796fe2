// What became of the orders of the last hour, from their records: the gateway's snapshot brings what was before this page was
// opened, events the rest.

const HOUR_SEC = 3600;
const FACTS_MAX = 20_000; // the oldest go
export const BINS = 60;
const BIN_SEC = HOUR_SEC / BINS;

/**
 * @typedef {object} Fact  what is remembered of an order; times in Unix seconds, NaN: not yet
 * @property {number} at @property {number} assigned @property {number} pickedUp @property {number} delivered @property {number} ended
 * @property {string} status @property {string} reason
 */

export class History {
  constructor() {
    /** @type {Map<string, Fact>} */
    this.facts = new Map();
    this.oldest = Infinity; // the oldest order that was ever told
  }

  /** Takes an order's record. */
  note(order) {
    if (!Number.isFinite(order.timestamp)) return;
    const time = (value) => (Number.isFinite(value) ? value : NaN);
    this.oldest = Math.min(this.oldest, order.timestamp);
    this.facts.set(order.id, {
      at: order.timestamp,
      assigned: time(order.assigned_at),
      pickedUp: time(order.picked_up_at),
      delivered: time(order.delivered_at),
      ended: time(order.delivered_at ?? order.cancelled_at ?? order.failed_at),
      status: order.status,
      reason: order.reason ?? "",
    });
    if (this.facts.size > FACTS_MAX * 1.1) this.prune();
  }

  prune() {
    const ids = [...this.facts.keys()].sort();
    for (const id of ids.slice(0, ids.length - FACTS_MAX)) this.facts.delete(id);
  }

  /**
   * The last hour in minutes, oldest first. Null: nothing is known of that minute.
   * @param {number} now Unix seconds
   */
  bins(now) {
    const begin = now - HOUR_SEC;
    const of = () => Array.from({ length: BINS }, () => 0);
    const lists = () => Array.from({ length: BINS }, () => []);
    const [ordered, delivered, change] = [of(), of(), of()];
    const [toAssign, toDeliver] = [lists(), lists()];
    const bin = (at) => Math.floor((at - begin) / BIN_SEC);
    const is = (index) => index >= 0 && index < BINS;
    let waiting = 0; // at the beginning of the hour
    for (const fact of this.facts.values()) {
      const left = Number.isNaN(fact.assigned) ? fact.ended : fact.assigned; // no longer waiting
      if (fact.at < begin && !(left < begin)) waiting += 1;
      if (is(bin(fact.at))) {
        ordered[bin(fact.at)] += 1;
        change[bin(fact.at)] += 1;
      }
      if (is(bin(left))) change[bin(left)] -= 1;
      if (is(bin(fact.assigned))) toAssign[bin(fact.assigned)].push(fact.assigned - fact.at);
      if (is(bin(fact.delivered))) {
        delivered[bin(fact.delivered)] += 1;
        toDeliver[bin(fact.delivered)].push(fact.delivered - fact.at);
      }
    }
    // Before the oldest order that was told nothing is known, unless there simply was none.
    const known = this.facts.size >= 900 ? Math.max(0, bin(this.oldest)) : 0;
    const mask = (values) => values.map((value, index) => (index < known ? null : value));
    return {
      ordered: mask(ordered),
      delivered: mask(delivered),
      backlog: mask(change.map((step) => (waiting += step))),
      assign50: mask(toAssign.map((took) => percentile(took, 0.5))),
      assign95: mask(toAssign.map((took) => percentile(took, 0.95))),
      deliver50: mask(toDeliver.map((took) => percentile(took, 0.5))),
      deliver95: mask(toDeliver.map((took) => percentile(took, 0.95))),
    };
  }
}

/** The nearest rank: the least value that is not below this share of all; null of none. */
export function percentile(values, share) {
  if (!values.length) return null;
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
}
