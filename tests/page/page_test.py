"""The dashboard as a user sees it: starts the whole system in one process, opens the page in Chromium and looks.

    tests/page/run                the checks
    tests/page/run --save         also writes docs/dashboard.png, the README's picture
    tests/page/run --url URL      looks at a system that runs already

Prints one `ok - …` or `not ok - …` line per check and `N passed, N failed` at the end; the exit code says the same.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from playwright.sync_api import Page, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "dronedispatch"
PICTURE = ROOT / "docs" / "dashboard.png"
LOG = ROOT / "target" / "test-logs" / "page-system.log"

START_SEC = 30  # until the page is served
DRONES_SEC = 15  # until drones are on the page
DELIVERED_SEC = 90  # until the first order is delivered
STOP_SEC = 10  # until the system has stopped after Ctrl-C
PICTURE_AFTER_SEC = 45  # how long the system runs before the README's picture is taken

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # tests run as root in CI
    "--disable-gpu",
    "--disable-background-networking",
    # No name resolves: a page that needs anything from the network fails here.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class Checks:
    """Counts what held and what did not."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, what: str, holds: bool, why: object = "") -> bool:
        """Notes one check; `why` is shown when it does not hold."""
        if holds:
            self.passed += 1
            print(f"ok - page: {what}", flush=True)
        else:
            self.failed += 1
            print(f"not ok - page: {what}: {why}", flush=True)
        return holds


def find_lb(system: "subprocess.Popen[bytes]") -> str:
    """lb's address, once the dashboard is served there; ends the test when the system dies or takes too long."""
    begin = time.monotonic()
    problem: object = "it printed no address of a dashboard"
    while time.monotonic() - begin < START_SEC:
        if system.poll() is not None:
            raise SystemExit(f"the system ended with {system.returncode} at start:\n{LOG.read_text()[-2000:]}")
        printed = re.search(r"(http://127\.0\.0\.1:\d+)/dashboard", LOG.read_text(errors="replace"))
        if printed:
            try:
                with urllib.request.urlopen(f"{printed[1]}/dashboard", timeout=2):
                    print(f"# page served after {time.monotonic() - begin:.1f} s", flush=True)
                    return printed[1]
            except OSError as error:  # refused, or an answer that is no 200
                problem = error
        time.sleep(0.1)
    raise SystemExit(f"no dashboard within {START_SEC} s: {problem}\n{LOG.read_text()[-2000:]}")


@contextlib.contextmanager
def running_system(checks: Checks):
    """The whole system in one process; yields lb's address and stops it as Ctrl-C does."""
    data = tempfile.mkdtemp(prefix="dronedispatch-page-")
    LOG.parent.mkdir(parents=True, exist_ok=True)
    command = [PROGRAM, "up", "--data-dir", data, "--port-base", "0", "--orders", "bursty"]
    # Orders from the first second on: the demo's pauses would only make the test wait.
    environment = os.environ | {"LOW_RPS": "1", "SILENT_SEC": "1"}
    with LOG.open("wb") as log:
        system = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    try:
        yield find_lb(system)
        system.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            system.wait(STOP_SEC)
        checks.check("Ctrl-C stops everything cleanly", system.returncode == 0, f"exit code {system.returncode}")
    finally:
        if system.poll() is None:
            system.kill()
            system.wait()
        shutil.rmtree(data, ignore_errors=True)


def number_in(page: Page, test_id: str) -> int:
    """The number that the counter `test_id` shows."""
    digits = "".join(c for c in page.get_by_test_id(test_id).first.inner_text() if c.isdigit())
    return int(digits or 0)


def wait_for(condition, limit_sec: float, page: Page) -> bool:
    """Whether `condition()` became true within `limit_sec`, while the page goes on."""
    deadline = time.monotonic() + limit_sec
    while time.monotonic() < deadline:
        if condition():
            return True
        page.wait_for_timeout(200)
    return bool(condition())


def canvas_changes(page: Page) -> bool:
    """Whether the map's pixels differ between two looks a second apart."""
    grab = "document.querySelector('canvas[data-testid=map], [data-testid=map] canvas').toDataURL()"
    before = page.evaluate(grab)
    return wait_for(lambda: page.evaluate(grab) != before, 3, page)


def look(checks: Checks, page: Page, url: str, picture_after_sec: float | None) -> None:
    """All checks of the page at `url`."""
    origin = urllib.parse.urlsplit(url)
    problems: list[str] = []
    foreign: list[str] = []
    page.on("console", lambda m: problems.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))

    def note_request(request) -> None:
        address = urllib.parse.urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.netloc != origin.netloc:
            foreign.append(request.url)

    page.on("request", note_request)

    page.goto(f"{url}/", wait_until="load")
    checks.check("/ leads to the dashboard", urllib.parse.urlsplit(page.url).path == "/dashboard", page.url)
    drones = page.get_by_test_id("drone-row")
    orders = page.get_by_test_id("order-row")
    checks.check("drones appear in the fleet table", wait_for(lambda: drones.count() > 0, DRONES_SEC, page), "no row")
    checks.check("orders appear in the order table", wait_for(lambda: orders.count() > 0, DRONES_SEC, page), "no row")
    checks.check("the map is drawn and moves", canvas_changes(page), "no pixel changed within 3 s")
    checks.check(
        "orders get delivered",
        wait_for(lambda: number_in(page, "count-delivered") > 0, DELIVERED_SEC, page),
        f"none within {DELIVERED_SEC} s",
    )
    for counter in ("count-waiting", "count-flying"):
        checks.check(f"{counter} shows a number", number_in(page, counter) >= 0)
    checks.check("the counter goes on without a reload", counter_goes_on(page), "it stood still for 60 s")
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    checks.check("nothing sticks out to the right", width <= 0, f"{width} px too wide")
    if picture_after_sec is not None:
        page.wait_for_timeout(picture_after_sec * 1000)
        page.screenshot(path=str(PICTURE))
        print(f"# wrote {PICTURE.relative_to(ROOT)}", flush=True)
    else:
        page.screenshot(path=str(LOG.with_name("page.png")))
    checks.check("no error and no warning in the console", not problems, problems[:5])
    checks.check("no request leaves its own origin", not foreign, foreign[:5])


def counter_goes_on(page: Page) -> bool:
    """Whether more orders are delivered while one looks: the page is live and not a snapshot."""
    before = number_in(page, "count-delivered")
    return wait_for(lambda: number_in(page, "count-delivered") > before, 60, page)


def chromium() -> str:
    """The system's browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    raise SystemExit("no Chromium found: apt-get install chromium")


def main() -> int:
    """The exit code: 0 when every check held."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--save", action="store_true", help="write docs/dashboard.png")
    arguments.add_argument("--url", help="look at this running system, e.g. http://127.0.0.1:8080")
    options = arguments.parse_args()
    checks = Checks()
    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        url = options.url or stack.enter_context(running_system(checks))
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        look(checks, page, url.rstrip("/"), PICTURE_AFTER_SEC if options.save else None)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
