"""Checks of the page against a played stream (replay.py): breaks on command, many drones, other states than a demo has."""

from playwright.sync_api import Browser, BrowserContext, Page

from checks import Checks, canvas_changes, text_of, wait_for
from replay import Gateway, World
from words import speaks_both

LIVE_SEC = 5  # until the page shows the stream
BACK_SEC = 3  # what issue and design promise: the page is back within this time
TAKE_OVER_SEC = 6  # another tab leads, or the pill says that nobody answers


def is_live(page: Page) -> bool:
    """Whether the pill says so."""
    return page.locator(".link").get_attribute("data-state") == "live"


def opened(context: BrowserContext, gateway: Gateway, query: str = "") -> Page:
    """A new tab that shows the stream."""
    page = context.new_page()
    page.goto(f"{gateway.url}/dashboard{query}", wait_until="load")
    wait_for(lambda: is_live(page) and page.locator("#map-box").get_attribute("data-state") != "loading", LIVE_SEC, page)
    return page


def look_at_stream(checks: Checks, browser: Browser) -> None:
    """One connection for all tabs; what happens when it breaks."""
    gateway = Gateway(0, World(drones=12, waiting=3))
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    first = opened(context, gateway)
    second = opened(context, gateway)
    checks.check("two tabs are live over one stream", is_live(first) and is_live(second) and gateway.opened == 1, gateway.opened)
    checks.check("the second tab's map moves too", canvas_changes(second))

    gateway.drop()
    missed_nothing = wait_for(lambda: "nothing was missed" in text_of(first, "#notice"), BACK_SEC, first)
    checks.check("after a break it resumes where it was, and says so", missed_nothing, text_of(first, "#notice"))
    checks.check("the other tab says so too", wait_for(lambda: "nothing was missed" in text_of(second, "#notice"), BACK_SEC, second))
    gateway.drop(epoch_too=True)
    anew = wait_for(lambda: "read anew" in text_of(first, "#notice"), BACK_SEC, first)
    checks.check("another gateway: everything anew, and it says so", anew, text_of(first, "#notice"))

    streams = gateway.opened
    first.close()
    took_over = wait_for(lambda: gateway.opened == streams + 1, TAKE_OVER_SEC, second)
    checks.check("the tab that had the stream closes: the other takes over", took_over and canvas_changes(second), gateway.opened)

    gateway.answers = False
    gateway.drop()
    offline = wait_for(lambda: second.locator(".link").get_attribute("data-state") == "offline", TAKE_OVER_SEC, second)
    checks.check("nobody answers: the page says so", offline, text_of(second, ".link"))
    gateway.answers = True
    checks.check("and is live again by itself", wait_for(lambda: is_live(second), 10, second), text_of(second, ".link"))
    context.close()


def look_at_map(checks: Checks, browser: Browser) -> None:
    """Moving the map, following a drone, filters, words, the keyboard alone."""
    gateway = Gateway(0, World(drones=18, waiting=5))
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB", color_scheme="dark")
    page = opened(context, gateway)
    before = view_of(page)
    page.locator("#zoom-in").click()
    checks.check("the map zooms", wait_for(lambda: view_of(page) != before, 3, page))
    page.locator("#zoom-fit").click()
    checks.check("and shows everything again", wait_for(lambda: view_of(page) == before, 3, page))

    page.get_by_test_id("map").focus()
    page.keyboard.press("n")
    detail = page.get_by_test_id("detail")
    checks.check("N chooses a drone", wait_for(detail.is_visible, 3, page) and "drone-1" in detail.inner_text(), "no details")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    checks.check("arrows and plus move the map", wait_for(lambda: view_of(page) != before, 3, page))
    page.get_by_role("button", name="Follow").press("Enter")
    followed = view_of(page)
    checks.check("a drone that is followed takes the map along", wait_for(lambda: view_of(page) != followed, 5, page))
    page.keyboard.press("Escape")
    checks.check("Escape puts it away", wait_for(detail.is_hidden, 3, page))
    page.get_by_test_id("order-row").get_by_role("button").first.press("Enter")
    steps = page.locator("#detail .steps li")
    checks.check("an order shows its whole history", wait_for(lambda: steps.count() >= 1, 3, page), steps.count())

    speaks_both(checks, page, "the map, an order")

    rows = page.get_by_test_id("drone-row")
    page.locator("[data-filter=busy]").click()
    checks.check("a filter takes away those in this state", wait_for(lambda: 0 < rows.count() < 18, 3, page), rows.count())
    page.locator("[data-filter=busy]").click()
    page.locator("#search").fill("nothing like this")
    checks.check("a search without result says so", wait_for(lambda: "Nothing matches" in text_of(page, "#orders-empty"), 3, page))
    page.locator("#search").fill("")
    page.get_by_role("button", name="Italiano").click()
    checks.check("it speaks Italian", "In attesa" in text_of(page, ".counters") and page.locator("html").get_attribute("lang") == "it")
    page.reload()
    checks.check("and remembers it", wait_for(lambda: "In attesa" in text_of(page, ".counters"), 3, page))
    context.close()
    look_at_fingers(checks, browser)


def look_at_fingers(checks: Checks, browser: Browser) -> None:
    """Two fingers that part zoom the map; one then moves it."""
    context = browser.new_context(viewport={"width": 800, "height": 1000}, locale="en-GB", has_touch=True)
    page = opened(context, Gateway(0, World(drones=18, waiting=5)))
    page.get_by_test_id("map").scroll_into_view_if_needed()
    box = page.get_by_test_id("map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    hand = context.new_cdp_session(page)

    def touch(what: str, *places: tuple[float, float]) -> None:
        points = [{"x": at_x, "y": at_y, "id": finger} for finger, (at_x, at_y) in enumerate(places)]
        hand.send("Input.dispatchTouchEvent", {"type": what, "touchPoints": points})

    before = view_of(page)
    touch("touchStart", (x - 20, y), (x + 20, y))
    for gap in range(30, 100, 10):
        touch("touchMove", (x - gap, y), (x + gap, y))
    touch("touchEnd")
    zoom = lambda: float(view_of(page).split()[0])  # noqa: E731
    checks.check("two fingers zoom the map", wait_for(lambda: zoom() > 2, 3, page), f"{before} → {view_of(page)}")
    zoomed = view_of(page)
    touch("touchStart", (x, y))
    for by in range(10, 80, 10):
        touch("touchMove", (x + by, y + by))
    touch("touchEnd")
    checks.check("one finger moves it then", wait_for(lambda: view_of(page) != zoomed, 3, page), view_of(page))
    context.close()


def look_at_charging(checks: Checks, browser: Browser) -> None:
    """Charge points: who charges, who waits for a slot, who is on its way."""
    gateway = Gateway(0, World(drones=60, waiting=5))
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    page = opened(context, gateway)
    before = page.get_by_test_id("map").bounding_box()
    figures = wait_for(lambda: page.get_by_test_id("slo-gap").get_attribute("data-gap"), 3, page)
    after = page.get_by_test_id("map").bounding_box()
    checks.check("the first figures move nothing", figures and before == after, f"{before} → {after}")
    page.get_by_test_id("map").focus()
    detail = page.get_by_test_id("detail")
    # Drones 9, 29 and 49 stand at the second zone's charge point, which has two slots; 10, 30 and 50 fly to the third's or the first's.
    for _ in range(2):
        page.keyboard.press("c")
    waits = wait_for(lambda: "Waiting for a slot: 1" in detail.inner_text(), 3, page)
    checks.check("C leads to a charge point, with its queue", waits and "Charge point, zone 1" in detail.inner_text(), detail.inner_text())
    checks.check("and who charges", "Charging: 2" in detail.inner_text() and "drone-9 ·" in detail.inner_text(), detail.inner_text())
    detail.get_by_role("button", name="drone-49").click()
    checks.check("from there to a drone", wait_for(lambda: detail.locator("h3").inner_text() == "drone-49", 3, page), detail.inner_text())
    page.keyboard.press("Escape")
    # The first zone's sign lies a quarter into what is served, which fills the map's height up to its padding.
    half = (after["height"] - 32) / 4
    wide = half * (0.23 * 0.7437) / 0.18  # a degree of longitude is that much shorter in Rome
    page.get_by_test_id("map").click(position={"x": after["width"] / 2 - wide, "y": after["height"] / 2 - half})
    checks.check("a click on its sign leads there, too", wait_for(lambda: "Charge point, zone 0" in text_of(page, "#detail"), 3, page), text_of(page, "#detail"))
    context.close()


# How many pixels of the map's still layer are in the colour of no-fly zones, in the light scheme.
HATCHED = """() => {
  const canvas = document.getElementById("map-base");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) count += data[at] > 160 && data[at + 1] < 110 && data[at + 2] < 110;
  return count;
}"""


def look_at_no_fly(checks: Checks, browser: Browser) -> None:
    """Zones that nobody flies over are hatched and explained; without any the map is as it was."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB", color_scheme="light")
    page = opened(context, Gateway(0, World(drones=3, waiting=1)))
    key = page.get_by_test_id("no-fly-key")
    checks.check("without no-fly zones nothing is hatched", wait_for(lambda: view_of(page) != "", 3, page) and page.evaluate(HATCHED) == 0, page.evaluate(HATCHED))
    checks.check("and nothing explained", key.is_hidden())
    world = World(drones=3, waiting=1)
    corners = [(41.82, 12.47), (41.82, 12.50), (41.96, 12.50), (41.96, 12.47)]
    world.zones["no_fly"] = [{"vertices": [{"lat": lat, "lon": lon} for lat, lon in corners]}]
    page = opened(context, Gateway(0, world))
    key = page.get_by_test_id("no-fly-key")
    checks.check("a no-fly zone is hatched", wait_for(lambda: page.evaluate(HATCHED) > 500, 3, page), page.evaluate(HATCHED))
    checks.check("and explained", wait_for(lambda: key.is_visible() and key.inner_text() == "no flying here", 3, page), key.inner_text())
    page.get_by_role("button", name="Italiano").click()
    checks.check("in Italian, too", wait_for(lambda: key.inner_text() == "divieto di volo", 3, page), key.inner_text())
    context.close()


def view_of(page: Page) -> str:
    """Zoom and middle of the map as it was drawn last."""
    return page.get_by_test_id("map").get_attribute("data-view") or ""


def look_at_promises(checks: Checks, browser: Browser) -> None:
    """The strip of promises, the plots of the last hour, the playback."""
    gateway = Gateway(0, World(drones=18, waiting=5))
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    page = opened(context, gateway)
    # The played figures: p95 of 28.1 s to assign, all of some 250 delivered in time.
    assigned = page.get_by_test_id("slo-assign")
    checks.check("the time to assign is shown", wait_for(lambda: "28 s" in (assigned.text_content() or ""), LIVE_SEC, page), assigned.text_content())
    delivered = page.get_by_test_id("slo-deliver")
    checks.check("a promise that is kept says so", wait_for(lambda: delivered.get_attribute("data-verdict") == "kept", LIVE_SEC, page),
                 delivered.text_content())
    gap = page.get_by_test_id("slo-gap")
    shown = gap.locator(".slo-value").inner_text(), gap.locator(".also").inner_text()
    checks.check("how far that is from the best possible is shown", shown == ("+35 %", "mean 54 s · bound 40 s · 200 deliveries"), shown)
    gap.locator(".ask").press("Enter")
    help_text = gap.locator(".slo-help")
    checks.check("and explained, by the keyboard alone", help_text.is_visible() and "lower bound" in help_text.inner_text(), help_text.text_content())
    page.keyboard.press("Escape")
    checks.check("Escape closes that", help_text.is_hidden())
    lines = "[...document.querySelectorAll('.plot path.line')].map(line => line.getAttribute('d').split('L').length)"
    checks.check("the plots reach back to before the page was opened", min(page.evaluate(lines)) > 30, page.evaluate(lines))

    page.wait_for_timeout(3000)  # something to play back
    page.locator("#playback-slider").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    badge = page.get_by_test_id("playback-badge")
    checks.check("the slider goes back in time", wait_for(badge.is_visible, 3, page), "no badge")
    page.get_by_role("button", name="Play", exact=True).click()
    checks.check("the past moves", canvas_changes(page))
    page.get_by_test_id("playback-live").click()
    checks.check("and back to the present", wait_for(badge.is_hidden, 3, page))
    context.close()
