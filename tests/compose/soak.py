"""A long chaos run over the containers of compose.yml: `scripts/soak --compose`.

Orders arrive at a steady rate while parts of the system are killed, paused, cut off and stopped, one fault after the
other, chosen by a seed. At the end everything is healed, and every order that was acknowledged must be delivered.
The summary goes to docs/results/ with command, seed and commit.
"""

import argparse
import collections
import datetime
import random
import signal
import sys
import threading
import time
import uuid

import harness
from harness import ROOT, Failed, System, command, http

RESULTS = ROOT / "docs" / "results"
FAULT_SEC = (3.0, 20.0)  # how long a fault lasts
REST_SEC = (3.0, 10.0)  # how long the system is left alone after it
RETRY_SEC = 1.0  # pause before an order without answer is sent again, under its key
SENDERS = 8  # orders under way at once: a stalled system must not stall the clock
GOOD_LATITUDES = (41.82, 41.96)  # inside the zones of domain.md, with room for the way
GOOD_LONGITUDES = (12.40, 12.57)
REACH_DEG = 0.02  # how far a destination may lie from its origin on each axis, about 2 km


class Orders:
    """A steady stream of orders and what became of each."""

    def __init__(self, system, rng, rate_per_sec):
        self.system = system
        self.rng = rng
        self.rate_per_sec = rate_per_sec
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.acknowledged = {}  # id: key
        self.failures = collections.Counter()  # what was answered instead: how often
        self.last_success = time.monotonic()
        self.longest_gap_sec = 0.0
        self.due = 0
        self.begin = time.monotonic()
        self.threads = [threading.Thread(target=self.send, daemon=True) for _ in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def next_order(self):
        """The next order, once it is due; None when the run is over."""
        with self.lock:
            at = self.begin + self.due / self.rate_per_sec
            self.due += 1
            lat, lon = self.rng.uniform(*GOOD_LATITUDES), self.rng.uniform(*GOOD_LONGITUDES)
            to_lat, to_lon = (x + self.rng.uniform(-REACH_DEG, REACH_DEG) for x in (lat, lon))
            order = {
                "origin": {"lat": lat, "lon": lon},
                "destination": {"lat": to_lat, "lon": to_lon},
                "weight": round(self.rng.uniform(0.2, 10.0), 2),
            }
        return None if self.stop.wait(max(0.0, at - time.monotonic())) else order

    def send(self):
        """One sender: posts orders until told to stop; repeats each under its key until it is acknowledged."""
        while (order := self.next_order()) is not None:
            key = str(uuid.uuid4())
            while True:
                status, body = http("POST", f"{self.system.lb}/deliveries", order, {"Idempotency-Key": key})
                with self.lock:
                    now = time.monotonic()
                    if status in (200, 201):
                        self.acknowledged[body["id"]] = key
                        self.last_success = now
                        break
                    self.longest_gap_sec = max(self.longest_gap_sec, now - self.last_success)
                    self.failures[f"{status} {str(body)[:80]}"] += 1
                if self.stop.wait(RETRY_SEC):
                    return

    def take_gap(self):
        """The longest time without a success since the last call, seconds."""
        with self.lock:
            gap, self.longest_gap_sec = self.longest_gap_sec, 0.0
        return gap

    def finish(self):
        """Stops sending."""
        self.stop.set()
        for thread in self.threads:
            thread.join(harness.REQUEST_SEC * 2)


class Faults:
    """What can be done to the system. Each fault is a pair: break it, heal it."""

    def __init__(self, system, rng):
        self.system = system
        self.rng = rng

    def one_of(self, service):
        """A container of the service."""
        return self.rng.choice(sorted(self.system.containers(service)))

    def choose(self):
        """Name, breaking and healing of the next fault."""
        kvstore = self.rng.choice(["kvstore_a", "kvstore_b", "kvstore_c"])
        name, service, breaking, healing = self.rng.choice([
            ("kill a kvstore", kvstore, "kill", "start"),
            ("pause a kvstore", kvstore, "pause", "unpause"),
            ("cut a kvstore off", kvstore, "cut", "join"),
            ("kill a gateway", "gateway", "kill", "start"),
            ("kill the dispatcher", "dispatcher", "kill", "start"),
            ("kill the drones", "drone", "kill", "start"),
            ("kill kvfront", "kvfront", "kill", "start"),
            ("stop RabbitMQ", "rabbitmq", "stop", "start"),
            ("kill everything", None, "kill", "start"),
        ])  # fmt: skip
        if service is None:
            mine = f"label=com.docker.compose.project={harness.PROJECT}"
            containers = command(["docker", "ps", "-q", "-f", mine]).split()
        else:
            containers = [self.one_of(service)]
        return (
            name,
            lambda: self.act(breaking, containers, service),
            lambda: self.act(healing, containers, service),
        )

    def act(self, verb, containers, service):
        """Does one half of a fault."""
        network = f"{harness.PROJECT}_default"
        if verb == "cut":
            command(["docker", "network", "disconnect", network, *containers])
        elif verb == "join":
            command(["docker", "network", "connect", "--alias", service, network, *containers])
        else:
            command(["docker", verb, *containers])


def run(system, options, rng, ends_at):
    """Breaks and heals until the time is up; per fault the number of times and the longest gap between successes."""
    orders = Orders(system, random.Random(rng.random()), options.rate)
    faults, seen = Faults(system, rng), collections.defaultdict(list)
    while time.monotonic() < ends_at:
        name, break_it, heal_it = faults.choose()
        lasts_sec, rest_sec = rng.uniform(*FAULT_SEC), rng.uniform(*REST_SEC)
        print(f"# {datetime.datetime.now():%H:%M:%S} {name} for {lasts_sec:.0f} s", flush=True)
        break_it()
        time.sleep(lasts_sec)
        heal_it()
        time.sleep(rest_sec)
        seen[name].append(orders.take_gap())
    orders.finish()
    return orders, seen


def delivery_times_sec(system, ids):
    """From order to delivery, of those that were delivered."""
    records = [http("GET", f"{system.lb}/deliveries/{order}")[1] for order in ids]
    delivered = [r for r in records if isinstance(r, dict) and r.get("delivered_at")]
    return [r["delivered_at"] - r["timestamp"] for r in delivered]


def percentile(values, share):
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def report(system, options, seed, orders, seen, left, to_deliver_sec, took_min):
    """The summary as Markdown."""
    commit = command(["git", "rev-parse", "HEAD"]).strip()
    if command(["git", "status", "--porcelain"]).strip():
        commit += " with uncommitted changes"
    verdict = "every acknowledged order was delivered" if not left else f"{len(left)} acknowledged orders NOT delivered"
    lines = [
        f"# Soak {datetime.date.today()}: {verdict}",
        "",
        f"- command: `scripts/soak --compose --minutes {options.minutes:g} --rate {options.rate:g} --seed {seed}`",
        f"- commit: {commit}",
        f"- flight at TIME_SCALE={system.environment['TIME_SCALE']}",
        f"- {took_min:.0f} minutes, {sum(map(len, seen.values()))} faults",
        f"- orders: {len(orders.acknowledged)} acknowledged, {len(left)} of them not delivered",
        f"- attempts that failed and were repeated: {sum(orders.failures.values())}",
        f"- order to delivery: p50 {percentile(to_deliver_sec, 0.5):.0f} s,"
        f" p95 {percentile(to_deliver_sec, 0.95):.0f} s, longest {percentile(to_deliver_sec, 1.0):.0f} s",
        "",
        "| fault | times | longest time without an accepted order, s |",
        "|---|---|---|",
        *(f"| {name} | {len(gaps)} | {max(gaps):.1f} |" for name, gaps in sorted(seen.items())),
        "",
    ]
    if orders.failures:
        lines += ["Answers to the failed attempts:", ""]
        lines += [f"- {count} × `{answer}`" for answer, count in orders.failures.most_common(10)] + [""]
    lines += [f"- not delivered: {order}: {status}" for order, status in list(left.items())[:20]]
    return "\n".join(lines) + "\n"


def main():
    """The exit code: 0 when every acknowledged order was delivered."""
    arguments = argparse.ArgumentParser(prog="scripts/soak --compose", description=__doc__)
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--minutes", type=float, default=30.0, help="how long faults go on [30]")
    arguments.add_argument("--rate", type=float, default=0.4, help="orders per second [0.4]")
    arguments.add_argument("--seed", type=int, help="chooses faults and orders [random]")
    arguments.add_argument("--drain-minutes", type=float, default=10.0, help="limit for the last deliveries [10]")
    options = arguments.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"# seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clean-up below runs
    system, left = None, {"?": "the run did not end"}
    try:
        harness.build()
        system = System()
        system.up()
        begin = time.monotonic()
        orders, seen = run(system, options, random.Random(seed), begin + options.minutes * 60)
        print(f"# {len(orders.acknowledged)} orders acknowledged; waiting for their delivery", flush=True)
        left = system.undelivered(orders.acknowledged, options.drain_minutes * 60)
        to_deliver_sec = delivery_times_sec(system, orders.acknowledged)
        text = report(system, options, seed, orders, seen, left, to_deliver_sec, (time.monotonic() - begin) / 60)
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"soak-{datetime.datetime.now():%Y%m%d-%H%M}.md"
        path.write_text(text, encoding="utf-8")
        print(f"{text}\n# kept as {path.relative_to(ROOT)}", flush=True)
    except Failed as error:
        print(f"soak: {error}", file=sys.stderr)
    finally:
        if system is not None:
            system.clean_up(keep=False, show_states=bool(left))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
