// Asks the gateway for what the page shows.
//
// Promises: one request at a time; a round every PERIOD_MS while all goes well, slower and slower (up to
// BACKOFF_MAX_MS) while it does not; nothing while the tab is hidden; every request has a time limit.

export const PERIOD_MS = 500;
const BACKOFF_MAX_MS = 8000;
const TIMEOUT_MS = 4000;
const ZONES_EVERY_MS = 30_000; // the zones hardly ever change
const ORDERS_LIMIT = 100;
const EXTRA_ORDERS_PER_ROUND = 4; // flying orders that are older than the newest ORDERS_LIMIT

async function getJson(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer.json();
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function untilVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}

/// Polls for ever. `onZones`, `onDrones`, `onOrders` and `onStats` get what arrived, `onFailure` the error of a failed
/// round.
/// `missingOrders()` names the orders that are needed beyond the newest ones.
export async function poll({ onZones, onDrones, onOrders, onStats, onFailure, missingOrders }) {
  let zonesAt = -Infinity;
  let backoff = PERIOD_MS;
  for (;;) {
    await untilVisible();
    const begin = performance.now();
    try {
      if (begin - zonesAt > ZONES_EVERY_MS) {
        onZones(await getJson("/zones"));
        zonesAt = begin;
      }
      onDrones((await getJson("/drones")).items);
      onOrders((await getJson(`/deliveries?limit=${ORDERS_LIMIT}`)).items);
      for (const id of missingOrders().slice(0, EXTRA_ORDERS_PER_ROUND)) {
        onOrders([await getJson(`/deliveries/${encodeURIComponent(id)}`)], { extra: true });
      }
      onStats(await getJson("/stats"));
      backoff = PERIOD_MS;
      await pause(Math.max(50, PERIOD_MS - (performance.now() - begin)));
    } catch (error) {
      onFailure(error);
      backoff = Math.min(backoff * 2, BACKOFF_MAX_MS);
      // Jitter: many open pages must not come back in step after an outage.
      await pause(backoff * (0.5 + Math.random() / 2));
    }
  }
}
