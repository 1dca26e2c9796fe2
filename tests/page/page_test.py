"""The dashboard as a user sees it: starts the whole system in one process, opens the page in Chromium and looks.

    tests/page/run                the checks
    tests/page/run --save         also writes docs/dashboard.png, the README's picture
    tests/page/run --frames       only frame times with 1,000 drones; for an idle machine, needs no programs
    tests/page/run --url URL      looks at a system that runs already

Prints one `ok - …` or `not ok - …` line per check and `N passed, N failed` at the end; the exit code says the same.
"""

import argparse
import contextlib
import sys
import urllib.parse

from playwright.sync_api import Browser, Page, sync_playwright

from checks import CHROMIUM_ARGUMENTS, LOGS, ROOT, Checks, canvas_changes, chromium, running_system, wait_for
from killed import look_at_real_gateways
from people import look_at_frames, look_at_many, look_at_sizes, look_at_states
from played import look_at_charging, look_at_map, look_at_no_fly, look_at_promises, look_at_stream

PICTURE = ROOT / "docs" / "dashboard.png"
LOG = LOGS / "page-system.log"

DRONES_SEC = 15  # until drones are on the page
DELIVERED_SEC = 90  # until the first order is delivered
PICTURE_RPS = 0.4  # orders a second in it, which the fleet can do
PICTURE_AFTER_SEC = 45  # how long the system runs before the README's picture is taken


def demo(checks: Checks, low_rps: float = 1) -> "contextlib.AbstractContextManager[str]":
    """The system with orders from the first second on: the demo's pauses would only make the test wait."""
    return running_system(checks, LOG, "/dashboard", "bursty", {"LOW_RPS": str(low_rps), "SILENT_SEC": "1"})


def number_in(page: Page, test_id: str) -> int:
    """The number that the counter `test_id` shows."""
    digits = "".join(c for c in page.get_by_test_id(test_id).first.inner_text() if c.isdigit())
    return int(digits or 0)


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
    checks.check("how far that is from the best possible is told", wait_for(lambda: gap_of(page) is not None, DRONES_SEC, page), "no gap")
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


def gap_of(page: Page) -> float | None:
    """How far the mean time to deliver is above its lower bound; never below."""
    gap = page.get_by_test_id("slo-gap").get_attribute("data-gap")
    return float(gap) if gap and float(gap) >= 0 else None


def counter_goes_on(page: Page) -> bool:
    """Whether more orders are delivered while one looks: the page is live and not a snapshot."""
    before = number_in(page, "count-delivered")
    return wait_for(lambda: number_in(page, "count-delivered") > before, 60, page)


def main() -> int:
    """The exit code: 0 when every check held."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--save", action="store_true", help="write docs/dashboard.png")
    arguments.add_argument("--url", help="look at this running system, e.g. http://127.0.0.1:8080")
    arguments.add_argument("--frames", action="store_true", help="only judge frame times with 1,000 drones; for an idle machine")
    options = arguments.parse_args()
    checks = Checks("page")
    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        url = None if options.frames else options.url or stack.enter_context(demo(checks, PICTURE_RPS if options.save else 1))
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        stack.callback(browser.close)
        if url is None:
            look_at_frames(checks, browser)
        else:
            look_at_all(checks, browser, url, options.save)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


def look_at_all(checks: Checks, browser: Browser, url: str, saves: bool) -> None:
    """Everything that holds on a busy machine, too."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    look(checks, page, url.rstrip("/"), PICTURE_AFTER_SEC if saves else None)
    for looked in (look_at_stream, look_at_map, look_at_charging, look_at_no_fly, look_at_promises):
        looked(checks, browser)
    look_at_sizes(checks, browser, LOG.parent)
    for looked in (look_at_states, look_at_many, look_at_real_gateways):
        looked(checks, browser)


if __name__ == "__main__":
    sys.exit(main())
