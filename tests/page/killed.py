"""Checks of the page against real processes (processes.py): it agrees with the KV; the gateway that feeds it is killed; raster tiles from another
server."""

import base64
import http.server
import random
import threading
import time

from playwright.sync_api import Browser, Page

from checks import Checks, text_of, wait_for
from played import is_live
from processes import Stack, running_stack

BACK_SEC = 3  # what is promised
AGREES_SEC = 1  # likewise
CHANGES = 8  # in a row
ROUNDS = 12
START_SEC = 20  # until the page shows drones
# One grey pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")


class Tiles(http.server.ThreadingHTTPServer):
    """A server of tiles that are all the same; notes what was asked of it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TileHandler)
        self.asked: list[tuple[str, str | None]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class TileHandler(http.server.BaseHTTPRequestHandler):
    """One tile."""

    server: Tiles

    def log_message(self, *_args) -> None:
        """Says nothing."""

    def do_GET(self) -> None:  # noqa: N802, the name is that of http.server
        """Answers a pixel."""
        self.server.asked.append((self.path, self.headers.get("Referer")))
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(PIXEL)))
        self.end_headers()
        self.wfile.write(PIXEL)


def look_at_real_gateways(checks: Checks, browser: Browser) -> None:
    """What is in the KV is on the page; then the gateway that serves it is killed; then tiles."""
    tiles = Tiles()
    port = tiles.server_address[1]
    settings = {"TILE_URL": f"http://127.0.0.1:{port}/{{z}}/{{x}}/{{y}}.png", "TILE_ATTRIBUTION": "© nobody"}
    with running_stack(settings) as stack:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{stack.url}/dashboard", wait_until="load")
        agrees_with_kv(checks, page, stack)
        comes_back(checks, page, stack)
        shows_tiles(checks, page, tiles, stack)
        checks.check("nothing broke in the page meanwhile", not problems, problems[:3])
        context.close()


def agrees_with_kv(checks: Checks, page: Page, stack: Stack) -> None:
    """What the KV says is on the page within a second: a drone, an order, the counters, the cluster view."""
    live = wait_for(lambda: is_live(page) and page.get_by_test_id("drone-row").count() > 0, START_SEC, page)
    checks.check("two real gateways: the page is live", live, text_of(page, ".link"))
    record = {"id": order_id(0), "status": "pending", "drone_id": None, "origin": {"lat": 41.89, "lon": 12.49}, "destination": {"lat": 41.91, "lon": 12.46},
              "weight": 1.0, "timestamp": time.time(), "leg": None}
    row = f"document.querySelector('[data-testid=order-row] [title=\"{record['id']}\"]')?.closest('tr')?.cells"

    def battery(turn: int) -> str:
        stack.put("drone:drone-still", {"id": "drone-still", "type": "heavy", "status": "idle", "battery": 10 + turn, "speed": 0.15, "pos": record["origin"]})
        return ("[...document.querySelectorAll('[data-testid=drone-row]')].some(row => row.cells[0].textContent === 'drone-still' && "
                f"row.cells[3].textContent.trim() === '{10 + turn} %')")

    def order(turn: int) -> str:
        weight = 1.5 + turn % 7
        stack.put(f"delivery:{record['id']}", record | {"weight": weight})
        return f"{row}?.[2].textContent === '{weight:.1f} kg'"

    def counter(turn: int) -> str:
        one = record | {"id": order_id(turn)}
        stack.put(f"delivery:{one['id']}", one)
        return f"document.getElementById('count-waiting').textContent === '{turn + 1}'"

    shown_in_time(checks, page, "a drone", battery)
    shown_in_time(checks, page, "an order", order)
    shown_in_time(checks, page, "a counter", counter)
    page.get_by_role("link", name="Cluster").click()
    page.get_by_test_id("journey-key").fill("changing")
    page.get_by_test_id("journey-key").press("Enter")

    def version(turn: int) -> str:
        made = stack.put("changing", turn).split("-")[0]
        return f"[...document.querySelectorAll('[data-testid=journey-row]')].filter(row => row.textContent.includes('{made}')).length >= 2"

    shown_in_time(checks, page, "a key's version on its nodes", version)
    page.get_by_role("link", name="Live").click()


def order_id(number: int) -> str:
    """A UUIDv7 of now."""
    ms = int(time.time() * 1000)
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7000-8000-{number:012x}"


def shown_in_time(checks: Checks, page: Page, what: str, change) -> None:
    """Changes are shown within AGREES_SEC, CHANGES in a row. A machine that is busy elsewhere may spoil a round, not every one: a page that looks too
    rarely would spoil them all."""
    turn, slowest = 0, [0.0]
    for _ in range(ROUNDS):
        slowest.append(0.0)
        for _ in range(CHANGES):
            turn += 1
            page.wait_for_timeout(random.random() * 500)  # at any moment between two looks
            shown = change(turn)
            begun = time.monotonic()
            while not page.evaluate(shown):
                if time.monotonic() > begun + START_SEC:
                    checks.check(f"{what} agrees with the KV", False, f"it is not shown within {START_SEC} s: {shown}")
                    return
                page.wait_for_timeout(20)
            slowest[-1] = max(slowest[-1], time.monotonic() - begun)
        if slowest[-1] <= AGREES_SEC:
            break
    print(f"# {what}: shown {slowest[-1]:.2f} s after the KV had it, at most, {CHANGES} times in a row", flush=True)
    checks.check(f"{what} agrees with the KV within {AGREES_SEC} s", slowest[-1] <= AGREES_SEC, slowest[1:])


def comes_back(checks: Checks, page: Page, stack: Stack) -> None:
    """The page of a killed gateway is live again, over another one, and what it shows goes on."""
    drones = page.get_by_test_id("drone-row")
    serving = stack.serving()
    if not checks.check("one of them feeds it", serving is not None):
        return
    killed_at = time.monotonic()
    stack.kill(serving)
    told = wait_for(lambda: "Connected again" in text_of(page, "#notice"), BACK_SEC, page)
    took = time.monotonic() - killed_at
    print(f"# the page was fed again {took:.1f} s after its gateway was killed", flush=True)
    checks.check(f"its gateway is killed: it is fed again by itself within {BACK_SEC} s", told and is_live(page), text_of(page, ".link"))
    before = place_of(page)
    checks.check("and drones move on", wait_for(lambda: place_of(page) != before, BACK_SEC, page), before)
    other = stack.serving()
    checks.check("over the gateway that is left", other not in (None, serving), (serving, other))
    page.reload(wait_until="load")
    checks.check("which serves the page, too", wait_for(lambda: is_live(page) and drones.count() > 0, START_SEC, page), text_of(page, ".link"))


def place_of(page: Page) -> str:
    """What the map shows, as a picture."""
    return page.evaluate("document.getElementById('map').toDataURL()")


def shows_tiles(checks: Checks, page: Page, tiles: Tiles, stack: Stack) -> None:
    """Tiles are asked for, with no more than the page's origin told, and drawn; another server is out of reach."""
    checks.check("tiles are fetched", wait_for(lambda: len(tiles.asked) >= 4, START_SEC, page), tiles.asked[:3])
    referers = {referer for _, referer in tiles.asked}
    checks.check("their server learns the page's origin alone", referers == {f"{stack.url}/"}, referers)
    grey = """() => {
        const layer = document.getElementById("map-base");
        // The layer holds pictures from elsewhere, so its pixels are nobody's to read: which is how one sees that they were drawn.
        try { layer.getContext("2d").getImageData(0, 0, 1, 1); return false; } catch { return true; }
    }"""
    checks.check("and drawn below the sketch", wait_for(lambda: page.evaluate(grey), START_SEC, page))
    blocked = page.evaluate("""() => new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), { once: true });
        new Image().src = "http://127.0.0.2:9/0/0/0.png";
        setTimeout(() => resolve("nothing was blocked"), 3000);
    })""")
    checks.check("a picture from any other server is blocked", blocked == "img-src", blocked)
