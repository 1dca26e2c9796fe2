"""A gateway that plays a synthesised stream: the dashboard's files, `/events`, `/stats`, `/zones`, from one seed.

For looks at the page that need what a demo has not: a thousand drones, a break on command, an empty system.

    tests/page/replay.py --drones 1000 --port 21900
"""

import argparse
import http.server
import json
import math
import pathlib
import random
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "dashboard"
MEDIA = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml"}
POLICY = ("default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
          "require-trusted-types-for 'script'; trusted-types 'none'")
BOUNDS = {"lat_min": 41.80, "lat_max": 41.98, "lon_min": 12.37, "lon_max": 12.60}
ROWS = COLS = 2
SLOTS = 2  # of each charge point
TICK_SEC = 0.1  # time between frames of the stream
KEPT_FRAMES = 600
STEP_KM = 0.06  # per tick
KM_PER_DEGREE = 111.195


def zones() -> dict:
    """What `GET /zones` answers for two by two zones over Rome."""
    high = (BOUNDS["lat_max"] - BOUNDS["lat_min"]) / ROWS
    wide = (BOUNDS["lon_max"] - BOUNDS["lon_min"]) / COLS
    out = []
    for row in range(ROWS):
        for col in range(COLS):
            lat_max, lon_min = BOUNDS["lat_max"] - row * high, BOUNDS["lon_min"] + col * wide
            bounds = {"lat_min": lat_max - high, "lat_max": lat_max, "lon_min": lon_min, "lon_max": lon_min + wide}
            charge = {"lat": lat_max - high / 2, "lon": lon_min + wide / 2}
            out.append({"name": f"zone {row * COLS + col}", "row": row, "col": col, "bounds": bounds, "charge": charge,
                        "neighbors": []})
    return {"bounds": BOUNDS, "rows": ROWS, "cols": COLS, "zones": out, "adjacency": {}}


class World:
    """Drones that fly orders for ever, the same for the same seed."""

    def __init__(self, drones: int, waiting: int, seed: int = 7) -> None:
        self.chance = random.Random(seed)
        self.now = time.time()
        self.made = 0
        self.drones: dict[str, dict] = {}
        self.orders: dict[str, dict] = {}
        self.delivered = 0
        self.zones = zones()
        for number in range(1, drones + 1):
            self.drones[f"drone-{number}"] = self._drone(number)
        for _ in range(waiting):
            self._order(self.now - self.chance.random() * 60)
        for number, drone in enumerate(self.drones.values()):
            if number % 10 < 7:
                self._assign(drone, self._order(self.now - self.chance.random() * 90))
        for age in range(0, 3000, 12) if drones else ():
            self._past(self.now - 30 - age)

    def _place(self) -> dict:
        part = self.chance.random
        return {"lat": BOUNDS["lat_min"] + 0.18 * (0.06 + 0.88 * part()), "lon": BOUNDS["lon_min"] + 0.23 * (0.06 + 0.88 * part())}

    def _drone(self, number: int) -> dict:
        status = ("busy", "busy", "busy", "busy", "busy", "busy", "busy", "idle", "charging", "retiring")[(number - 1) % 10]
        zone = self.zones["zones"][number % 4]
        at_charge = status in ("charging", "idle")
        kind = ("light", "medium", "heavy")[number % 3]
        charging = {}
        if status == "charging":
            before = sum(one["status"] == "charging" and one["zone"] == zone["name"] for one in self.drones.values())
            charging = {"charge_queue": max(0, before + 1 - SLOTS), "charge_since": self.now - 60 + number}
        return charging | {"id": f"drone-{number}", "type": kind, "status": "idle" if status == "busy" else status,
                "battery": 20 + self.chance.random() * 80, "pos": dict(zone["charge"]) if at_charge else self._place(),
                "speed": 0.25, "current_delivery": None, "at_charge": at_charge, "zone": zone["name"]}

    def _order(self, at: float) -> dict:
        self.made += 1
        stamp = f"{int(at * 1000):012x}"
        one = {"id": f"{stamp[:8]}-{stamp[8:]}-7{self.made % 4096:03x}-8000-{self.made:012x}", "status": "pending", "drone_id": None,
               "origin": self._place(), "destination": self._place(), "weight": round(0.3 + self.chance.random() * 9, 2),
               "origin_zone": "zone 0", "destination_zone": "zone 3", "timestamp": at, "leg": None,
               "history": [{"at": at, "status": "pending"}], "delivery_eta": at + 120}
        self.orders[one["id"]] = one
        return one

    def _past(self, at: float) -> None:
        one = self._order(at)
        assigned, picked = at + 2 + self.chance.random() * 30, at + 40 + self.chance.random() * 30
        done = picked + 20 + self.chance.random() * 80
        one.pop("delivery_eta")
        one |= {"status": "delivered", "drone_id": f"drone-{self.chance.randint(1, len(self.drones))}", "assigned_at": assigned,
                "picked_up_at": picked, "delivered_at": done}
        one["history"] += [{"at": assigned, "status": "assigned", "leg": "to_origin", "drone_id": one["drone_id"]},
                           {"at": picked, "status": "in_flight", "leg": "to_destination", "drone_id": one["drone_id"]},
                           {"at": done, "status": "delivered"}]
        self.delivered += 1

    def _assign(self, drone: dict, one: dict) -> None:
        at = self.now
        one |= {"status": "in_flight", "drone_id": drone["id"], "leg": "to_origin", "assigned_at": at, "delivery_eta": at + 60}
        one["history"].append({"at": at, "status": "assigned", "leg": "to_origin", "drone_id": drone["id"]})
        drone |= {"status": "busy", "current_delivery": one["id"], "at_charge": False}

    def step(self, now: float) -> tuple[list, list]:
        """What changed: patches of drones, whole orders."""
        self.now = now
        patches, changed = [], []
        for drone in self.drones.values():
            if drone["status"] != "busy":
                continue
            one = self.orders[drone["current_delivery"]]
            target = one["origin"] if one["leg"] == "to_origin" else one["destination"]
            if self._fly(drone, target):
                self._arrived(drone, one, changed)
            drone["battery"] = drone["battery"] - 0.05 if drone["battery"] > 15 else 100.0
            patches.append({"id": drone["id"], "pos": dict(drone["pos"]), "battery": drone["battery"],
                            "status": drone["status"], "current_delivery": drone["current_delivery"]})
        return patches, changed

    @staticmethod
    def _fly(drone: dict, target: dict) -> bool:
        north = target["lat"] - drone["pos"]["lat"]
        east = target["lon"] - drone["pos"]["lon"]
        km = math.hypot(north, east * 0.744) * KM_PER_DEGREE
        part = min(1.0, STEP_KM / km) if km else 1.0
        drone["pos"] = {"lat": drone["pos"]["lat"] + north * part, "lon": drone["pos"]["lon"] + east * part}
        return part >= 1

    def _arrived(self, drone: dict, one: dict, changed: list) -> None:
        changed.append(one)
        if one["leg"] == "to_origin":
            one |= {"leg": "to_destination", "picked_up_at": self.now}
            one["history"].append({"at": self.now, "status": "in_flight", "leg": "to_destination", "drone_id": drone["id"]})
            return
        one |= {"status": "delivered", "leg": None, "delivered_at": self.now}
        one.pop("delivery_eta", None)
        one["history"].append({"at": self.now, "status": "delivered"})
        self.delivered += 1
        following = self._order(self.now)
        self._assign(drone, following)
        changed.append(following)

    def stats(self) -> dict:
        """What `GET /stats` answers."""
        count = {status: 0 for status in ("pending", "assigned", "in_flight", "delivered", "cancelled", "failed")}
        for one in self.orders.values():
            count[one["status"]] += 1
        figures = {"count": 200, "p50_sec": 12.4, "p95_sec": 28.1, "p99_sec": 31.9, "max_sec": 33.0}
        if not self.drones:
            figures = {"count": 0, "p50_sec": None, "p95_sec": None, "p99_sec": None, "max_sec": None}
        bound = {"count": 200, "mean_sec": 54.0, "lower_bound_sec": 40.0, "gap": 0.35} if self.drones else {"count": 0, "mean_sec": None,
                 "lower_bound_sec": None, "gap": None}
        slow = {key: value and (value if key == "count" else value * 4) for key, value in figures.items()}
        return {"now": time.time(), "deliveries": count | {"total": sum(count.values()), "complete": True},
                "latency": {"window_sec": 900.0, "assign": figures, "pick_up": figures, "deliver": slow, "bound": bound},
                "fleet": {}, "recent_events": []}


class Gateway(http.server.ThreadingHTTPServer):
    """Serves one world. `answers` False: it accepts nothing, as if it were dead; `drop()` ends all streams."""

    daemon_threads = True
    # A page asks for some forty files at once. Connections beyond five would be lost on a busy machine, and tried again seconds later.
    request_queue_size = 128

    def __init__(self, port: int, world: World, is_still: bool = False) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.world = world
        self.answers = True
        self.opened = 0
        self.generation = 0
        self.head = 0
        self.frames: list[str] = []
        self.lock = threading.Condition()
        self.is_still = is_still
        threading.Thread(target=self.serve_forever, daemon=True).start()
        threading.Thread(target=self._play, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def drop(self, epoch_too: bool = False) -> None:
        """Ends all streams; `epoch_too`: another gateway answers from now on, which does not know the ids of the first."""
        with self.lock:
            self.generation += 1
            if epoch_too:
                self.frames.clear()
                self.head += 1
            self.lock.notify_all()

    def _play(self) -> None:
        due = time.monotonic()
        while True:
            due += TICK_SEC
            time.sleep(max(0.0, due - time.monotonic()))
            if self.is_still:
                continue
            with self.lock:
                drones, orders = self.world.step(time.time())
                self._push(drones, orders)

    def _push(self, drones: list, orders: list) -> None:
        at = self.world.now
        self.head += 1
        text = ""
        for kind, items in (("drones", drones), ("deliveries", orders)):
            if items:
                text += f"event: {kind}\nid: {self.head}\ndata: {json.dumps({'at': at, 'items': items})}\n\n"
        self.frames.append(text)
        del self.frames[:-KEPT_FRAMES]
        self.lock.notify_all()

    def snapshot(self) -> str:
        """The event that tells everything."""
        body = {"at": time.time(), "drones": list(self.world.drones.values()), "deliveries": list(self.world.orders.values())[-1000:]}
        return f"retry: 1000\nevent: snapshot\nid: {self.head}\ndata: {json.dumps(body)}\n\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Gateway

    def log_message(self, *_args) -> None:
        """Says nothing."""

    def do_GET(self) -> None:  # noqa: N802, the name is that of http.server
        """Answers as the gateway does."""
        path = urllib.parse.urlsplit(self.path)
        if not self.server.answers:
            self.send_error(503)
        elif path.path in ("/dashboard", "/"):
            self._file("index.html")
        elif path.path.startswith("/dashboard/"):
            self._file(path.path.rsplit("/", 1)[-1])
        elif path.path == "/events":
            self._events(urllib.parse.parse_qs(path.query).get("after", [None])[0])
        elif path.path in ("/stats", "/zones"):
            with self.server.lock:
                self._json(self.server.world.stats() if path.path == "/stats" else self.server.world.zones)
        elif path.path.startswith("/deliveries/"):
            with self.server.lock:
                self._json(self.server.world.orders.get(path.path.split("/")[-1]))
        else:
            self.send_error(404)

    def _json(self, body: object) -> None:
        self._send(200 if body is not None else 404, "application/json", json.dumps(body).encode())

    def _file(self, name: str) -> None:
        file = DASHBOARD / name
        if file.suffix not in MEDIA or not file.is_file():
            self.send_error(404)
            return
        self._send(200, MEDIA[file.suffix], file.read_bytes())

    def _send(self, status: int, media: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def _events(self, after: str | None) -> None:
        server = self.server
        with server.lock:
            server.opened += 1
            generation = server.generation
            place = int(after) if after and after.isdigit() else -1
            first = server.head - len(server.frames)
            text = "".join(server.frames[place - first:]) if first <= place <= server.head else server.snapshot()
            place = server.head
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            while server.generation == generation and server.answers:
                self.wfile.write(text.encode())
                self.wfile.flush()
                with server.lock:
                    server.lock.wait_for(lambda: server.head != place or server.generation != generation, 10)
                    text = "".join(server.frames[len(server.frames) - (server.head - place):])
                    place = server.head
        except OSError:
            pass  # the viewer has gone


def main() -> None:
    """Plays until interrupted."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--drones", type=int, default=1000)
    arguments.add_argument("--waiting", type=int, default=20)
    arguments.add_argument("--port", type=int, default=0)
    options = arguments.parse_args()
    gateway = Gateway(options.port, World(options.drones, options.waiting))
    print(f"{gateway.url}/dashboard", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
