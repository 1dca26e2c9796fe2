"""What all checks of the page share: counting, waiting, the browser."""

import pathlib
import shutil
import sys
import time

from playwright.sync_api import Page

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from one_process import LOGS, ROOT, Checks, running_system  # noqa: E402, F401

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # tests run as root in CI
    "--disable-gpu",
    "--disable-background-networking",
    # No name resolves: a page that needs anything from the network fails here.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def wait_for(condition, limit_sec: float, page: Page) -> bool:
    """Whether `condition()` became true within `limit_sec`, while the page goes on."""
    deadline = time.monotonic() + limit_sec
    while time.monotonic() < deadline:
        if condition():
            return True
        page.wait_for_timeout(100)
    return bool(condition())


def text_of(page: Page, selector: str) -> str:
    """The text of an element, shown or not."""
    return page.locator(selector).first.text_content() or ""


def canvas_changes(page: Page) -> bool:
    """Whether the map's pixels differ between two looks within three seconds."""
    grab = "document.querySelector('canvas[data-testid=map], [data-testid=map] canvas').toDataURL()"
    before = page.evaluate(grab)
    return wait_for(lambda: page.evaluate(grab) != before, 3, page)


def chromium() -> str:
    """The system's browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    raise SystemExit("no Chromium found: apt-get install chromium")
