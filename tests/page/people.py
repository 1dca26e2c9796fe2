"""Checks of how the page meets people: sizes, light and dark, screen readers, states, and frame times with many drones."""

import bisect
import collections
import json
import pathlib
import statistics

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from checks import Checks, wait_for
from played import LIVE_SEC, opened
from replay import Gateway, World

FRAME_MAX_MS = 8.0  # main thread per frame at p95
TRACE_SEC = 6
COVERED_MIN = 0.005  # of the layer, by some hundreds of drones
EMULATED_SEC = 20  # until a processor that plays a GPU has drawn a frame
SIZES = {"phone": (360, 780), "laptop": (1366, 768), "4k": (3840, 2160)}


def look_at_sizes(checks: Checks, browser: Browser, pictures: pathlib.Path) -> None:
    """From 360 px to 4K, in light and dark, with axe's judgement of each; pictures are kept."""
    gateway = Gateway(0, World(drones=18, waiting=5))
    for name, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-GB", bypass_csp=True)
            page = opened(context, gateway)
            page.locator("[data-testid=order-row] button").first.click()
            wait_for(page.get_by_test_id("detail").is_visible, LIVE_SEC, page)
            too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            checks.check(f"{name}, {scheme}: nothing sticks out to the right", too_wide <= 0, f"{too_wide} px")
            page.screenshot(path=str(pictures / f"page-{name}-{scheme}.png"))
            if name != "4k":
                serious = serious_faults(page)
                checks.check(f"{name}, {scheme}: axe finds nothing serious", not serious, serious)
                serious = serious_in_the_past(page)
                checks.check(f"{name}, {scheme}: nor in the past, with help open", not serious, serious)
            context.close()


def serious_in_the_past(page: Page) -> list[str]:
    """The same of the page while it plays the past, a charge point's details shown, and the help of a promise."""
    page.get_by_test_id("map").focus()
    page.keyboard.press("c")
    slider, badge = page.locator("#playback-slider"), page.get_by_test_id("playback-badge")

    def in_the_past() -> bool:
        slider.press("ArrowLeft")  # in vain while the page has just been opened
        return badge.is_visible()

    wait_for(in_the_past, LIVE_SEC, page)
    page.get_by_role("button", name="Play", exact=True).click()
    shown = wait_for(badge.is_visible, LIVE_SEC, page)
    ask = page.locator("[data-testid=slo-gap] .ask")
    ask.press("Enter")
    helped = wait_for(page.locator("[data-testid=slo-gap] .slo-help").is_visible, LIVE_SEC, page)
    return serious_faults(page) if shown and helped else [f"the past is shown: {shown}, the help: {helped}"]


def serious_faults(page: Page) -> list[str]:
    """What axe calls serious or critical."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found if one["impact"] in ("serious", "critical")]


def look_at_states(checks: Checks, browser: Browser) -> None:
    """An empty system, and one that does not answer at first."""
    empty = Gateway(0, World(drones=0, waiting=0), is_still=True)
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    page = opened(context, empty)
    note = page.locator("#map-note")
    checks.check("an empty system says so", wait_for(lambda: "No drones yet" in note.inner_text(), LIVE_SEC, page), note.inner_text())
    checks.check("and so do the tables", "No orders yet" in page.locator("#orders-empty").inner_text())
    context.close()


def look_at_many(checks: Checks, browser: Browser) -> None:
    """A thousand drones: what a frame costs, in processor time, which holds on a busy machine too. And the same in WebGL."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    page = opened(context, Gateway(0, World(drones=1000, waiting=100)))
    trace = traced(page)
    scripts, whole = p95(ms_of(trace, "FireAnimationFrame")), statistics.median(rendering_ms(trace) or [float("inf")])
    print(f"# 1,000 drones: script of a frame p95 {scripts:.1f} ms; script, layout and paint p50 {whole:.1f} ms", flush=True)
    checks.check(f"1,000 drones: the map's script takes under {FRAME_MAX_MS} ms a frame at p95", scripts < FRAME_MAX_MS, f"{scripts:.1f} ms")
    checks.check(f"1,000 drones: script and paint take under {FRAME_MAX_MS} ms in half of all frames", whole < FRAME_MAX_MS, f"{whole:.1f} ms")
    checks.check("without a GPU it sets pixels itself", renderer(page) == "pixels", renderer(page))
    checks.check("the drones are there", wait_for(lambda: covered(page) > COVERED_MIN, LIVE_SEC, page), covered(page))
    context.close()

    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    page = opened(context, Gateway(0, World(drones=10_000, waiting=100)))
    checks.check("ten thousand drones are there", wait_for(lambda: covered(page) > COVERED_MIN, EMULATED_SEC, page), covered(page))
    page.get_by_test_id("map").focus()
    page.keyboard.press("n")
    chosen = page.get_by_test_id("detail")
    checks.check("one of them can be chosen", wait_for(lambda: chosen.is_visible() and "drone-" in chosen.inner_text(), EMULATED_SEC, page))
    context.close()

    context = browser.new_context(viewport={"width": 1000, "height": 700}, locale="en-GB")
    page = opened(context, Gateway(0, World(drones=400, waiting=5)), "?map=webgl")
    checks.check("asked for, it draws in WebGL", wait_for(lambda: renderer(page) == "webgl", LIVE_SEC, page), renderer(page))
    checks.check("WebGL shows the drones", wait_for(lambda: covered(page) > COVERED_MIN, EMULATED_SEC, page), covered(page))
    page.evaluate("document.getElementById('map-swarm').getContext('webgl2').getExtension('WEBGL_lose_context').loseContext()")
    checks.check("a GPU that goes away is done without", wait_for(lambda: renderer(page) == "pixels", LIVE_SEC, page), renderer(page))
    checks.check("and the drones are there again", wait_for(lambda: covered(page) > COVERED_MIN, LIVE_SEC, page), covered(page))
    context.close()


def renderer(page: Page) -> str | None:
    """What draws the layer of many drones."""
    return page.locator("#map-swarm").get_attribute("data-renderer")


def covered(page: Page) -> float:
    """Which part of that layer is not empty. Asked right after a frame was drawn: WebGL forgets what it has shown."""
    return page.evaluate("""() => new Promise((resolve) => requestAnimationFrame(() => {
        const layer = document.getElementById("map-swarm");
        const copy = Object.assign(document.createElement("canvas"), { width: layer.width, height: layer.height });
        const context = copy.getContext("2d");
        context.drawImage(layer, 0, 0);
        const { data } = context.getImageData(0, 0, copy.width, copy.height);
        let drawn = 0;
        for (let at = 3; at < data.length; at += 4) drawn += data[at] > 0;
        resolve(drawn / (data.length / 4));
    }))""")


def look_at_frames(checks: Checks, browser: Browser) -> None:
    """A thousand drones: how long the main thread is busy per frame, with all else that the page does. For an idle machine."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    page = opened(context, Gateway(0, World(drones=1000, waiting=100)))
    trace = traced(page)
    rendering = rendering_ms(trace)
    for what, times in [("script of a frame", ms_of(trace, "FireAnimationFrame")), ("script, layout and paint of a frame", rendering),
                        ("the same and all else between two frames", busy_ms_per_frame(trace))]:
        print(f"# 1,000 drones: {what}: p50 {statistics.median(times or [0]):.1f} ms, p95 {p95(times):.1f} ms ({len(times)} frames in {TRACE_SEC} s)", flush=True)
    checks.check(f"1,000 drones: script and paint under {FRAME_MAX_MS} ms a frame at p95", p95(rendering) < FRAME_MAX_MS, f"{p95(rendering):.1f} ms")
    context.close()


def traced(page: Page) -> list[dict]:
    """What the page's main thread did in some seconds, in order."""
    page.wait_for_timeout(2000)  # until code is compiled and trails are there
    browser = page.context.browser
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"])
    page.wait_for_timeout(TRACE_SEC * 1000)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    threads = collections.Counter((e["pid"], e["tid"]) for e in events if e["name"] == "FireAnimationFrame")
    if not threads:
        return []
    main = threads.most_common(1)[0][0]
    return sorted((e for e in events if (e["pid"], e["tid"]) == main and e.get("ph") == "X"), key=lambda e: e["ts"])


def p95(times: list[float]) -> float:
    """The 95th percentile; endless of too few."""
    return statistics.quantiles(times, n=20)[-1] if len(times) > 20 else float("inf")


def ms_of(trace: list[dict], name: str) -> list[float]:
    """Processor time of all events of that name."""
    return [event["tdur"] / 1000 for event in trace if event["name"] == name and "tdur" in event]


def tasks_of(trace: list[dict]) -> list[dict]:
    """Tasks that are no part of another."""
    tasks, end = [], 0.0
    for event in trace:
        if event["name"] in ("RunTask", "ThreadControllerImpl::RunTask") and "tdur" in event and event["ts"] >= end:
            tasks.append(event)
            end = event["ts"] + event["dur"]
    return tasks


def rendering_ms(trace: list[dict]) -> list[float]:
    """Processor time of the tasks that made frames: script, layout and paint of each."""
    starts = [event["ts"] for event in trace if event["name"] == "FireAnimationFrame"]
    return [task["tdur"] / 1000 for task in tasks_of(trace)
            if (place := bisect.bisect_left(starts, task["ts"])) < len(starts) and starts[place] < task["ts"] + task["dur"]]


def busy_ms_per_frame(trace: list[dict]) -> list[float]:
    """Processor time of the main thread between one animation frame and the next: scripts, layout and paint."""
    starts = [event["ts"] for event in trace if event["name"] == "FireAnimationFrame"]
    busy = [0.0] * len(starts)
    for task in tasks_of(trace) if starts else ():
        frame = bisect.bisect_left(starts, task["ts"] + task["dur"]) - 1
        busy[max(0, frame)] += task["tdur"] / 1000
    return busy[1:-1]
