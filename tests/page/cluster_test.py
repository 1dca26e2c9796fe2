"""The cluster view as a user sees it: the ring, its nodes, a key's journey, and the five guided experiments, in Chromium.

    tests/page/run cluster              the checks
    tests/page/run cluster --url URL    looks at a system that runs already, started with CHAOS=1

Prints one `ok - …` or `not ok - …` line per check and `N passed, N failed` at the end; the exit code says the same. Pictures are in
target/test-logs.
"""

import argparse
import contextlib
import json
import os
import sys
import urllib.request

from checks import CHROMIUM_ARGUMENTS, Checks, chromium, wait_for
from page_test import LOG, demo
from people import serious_faults
from playwright.sync_api import Browser, Page, sync_playwright
from words import speaks_both

SHOWN_SEC = 30  # until the page shows what has happened
EXPERIMENTS_SEC = 420  # until all five have ended, on a busy machine
EXPERIMENTS = ["stop", "pause", "wipe", "bus", "gateway"]
NODES = ["kvstore_a", "kvstore_b", "kvstore_c"]
# What can be done to whom.
SERVICE = ["stop", "start", "pause", "isolate", "slow"]
BREAKABLE = {node: [*SERVICE, "wipe"] for node in NODES} | {name: SERVICE for name in ("bus", "dispatcher", "drones", "gateway_1", "gateway_2", "gateway_3")} \
    | {"drone-1": ["pause", "start"]}


def picture(page: Page, name: str) -> None:
    """Keeps what the page looks like."""
    page.screenshot(path=str(LOG.with_name(f"cluster-{name}.png")), full_page=True)


def card(page: Page, node: str):
    """The card of a node."""
    return page.locator(f"[data-testid=node-card][data-node={node}]")


def state(page: Page, node: str) -> str | None:
    """How its card says a node is."""
    return card(page, node).get_attribute("data-state")


def press(page: Page, action: str, service: str) -> None:
    """Presses a button of the panel in which things are broken."""
    page.get_by_role("button", name=f"{action} {service}", exact=True).click()


def look_at_whole(checks: Checks, page: Page, url: str) -> None:
    """The view of a cluster that is well."""
    page.goto(f"{url}/dashboard", wait_until="load")
    page.get_by_role("link", name="Cluster").click()
    whole = wait_for(lambda: all(state(page, node) == "up" for node in NODES), SHOWN_SEC, page)
    checks.check("all three nodes are shown up", whole, [state(page, node) for node in NODES])
    checks.check("they are counted", page.get_by_test_id("cluster-up").inner_text() == "3/3")
    words = page.locator("#ring-table tr").all_inner_texts()
    shares = [float(row.split("\t")[1].rstrip(" %")) for row in page.locator("#ring-table tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent).join('\\t'))")]
    checks.check("the ring's table names every node's share", len(words) == 3 and abs(sum(shares) - 100) < 0.2, shares)
    checks.check("the ring is drawn: two bands for each node", page.locator(".ring-piece").count() == 6)
    gateways = wait_for(lambda: page.locator("#lb-table tr").count() == 3, SHOWN_SEC, page)
    checks.check("the gateways behind lb are shown", gateways)
    figures = page.locator("#lb-table tr")

    def all_told() -> bool:
        rows = figures.evaluate_all("rows => rows.map(row => [row.cells[1].textContent, row.cells[2].textContent])")
        return all(rate.endswith("/s") and latency.endswith(" ms") for rate, latency in rows)

    checks.check("with the rate and the time of each", wait_for(all_told, SHOWN_SEC, page), figures.all_inner_texts())


def look_at_journey(checks: Checks, page: Page, url: str) -> None:
    """The journey of the zones' key agrees with what the cluster's API says."""
    page.get_by_test_id("journey-key").fill("zones_config")
    page.get_by_test_id("journey-key").press("Enter")
    rows = page.get_by_test_id("journey-row")
    checks.check("a key's journey has its three nodes", wait_for(lambda: rows.count() == 3, SHOWN_SEC, page))
    with urllib.request.urlopen(f"{url}/cluster/keys/zones_config", timeout=10) as answer:
        told = [node["name"] for node in json.load(answer)["nodes"]]
    shown = [rows.nth(place).get_attribute("data-node") for place in range(rows.count())]
    checks.check("in the order of the preference list", shown == told, (shown, told))
    checks.check("its place on the ring is marked", page.locator(".ring-marker path").count() == 1)


def node_goes_and_comes(checks: Checks, page: Page) -> None:
    """A node that goes down and comes back, on screen, by the buttons alone."""
    press(page, "stop", "kvstore_b")
    away = wait_for(lambda: state(page, "kvstore_b") == "down", SHOWN_SEC, page)
    checks.check("a node that is stopped is shown down", away, state(page, "kvstore_b"))
    word = card(page, "kvstore_b").locator(".state-word").inner_text()
    checks.check("in words, too", word == "down", word)
    dimmed = page.locator(".ring-piece[data-state=down]").count()
    checks.check("its ranges are dimmed on the ring", dimmed == 2, dimmed)
    checks.check("the others are shown up", [state(page, "kvstore_a"), state(page, "kvstore_c")] == ["up", "up"])
    picture(page, "down")
    press(page, "start", "kvstore_b")
    back = wait_for(lambda: state(page, "kvstore_b") == "up", SHOWN_SEC, page)
    checks.check("and up again once it is started", back, state(page, "kvstore_b"))


def mode(page: Page, service: str) -> str | None:
    """How the panel says a service is."""
    return page.locator(f"[data-testid=chaos-row][data-service={service}]").get_attribute("data-mode")


def becomes(page: Page, action: str, service: str, wanted: str) -> bool:
    """Whether pressing the button leads there."""
    press(page, action, service)
    return wait_for(lambda: mode(page, service) == wanted, SHOWN_SEC, page)


def buttons_break(checks: Checks, page: Page, url: str) -> None:
    """Every service has its buttons, and what they do shows: isolation, a slow broker, a drone that stands still."""
    rows = page.get_by_test_id("chaos-row").evaluate_all(
        "rows => rows.map(row => [row.dataset.service, [...row.querySelectorAll('button')].map(button => button.dataset.action)])")
    found = {service: sorted(actions) for service, actions in rows}
    checks.check("whatever can be broken has its buttons", found == {name: sorted(actions) for name, actions in BREAKABLE.items()}, found)

    life = card(page, "kvstore_c").get_attribute("data-generation")
    checks.check("a node is isolated", becomes(page, "isolate", "kvstore_c", "isolated"), mode(page, "kvstore_c"))
    away = wait_for(lambda: state(page, "kvstore_c") in ("suspected", "down"), SHOWN_SEC, page)
    checks.check("the cluster does not reach it", away, state(page, "kvstore_c"))
    press(page, "start", "kvstore_c")
    back = wait_for(lambda: state(page, "kvstore_c") == "up", SHOWN_SEC, page)
    same = card(page, "kvstore_c").get_attribute("data-generation")
    checks.check("back in the network it goes on, in the same life", back and life is not None and same == life, (state(page, "kvstore_c"), life, same))

    for service, action, wanted in [("bus", "slow", "slow"), ("bus", "pause", "paused"), ("gateway_2", "isolate", "isolated"), ("dispatcher", "pause", "paused")]:
        done = becomes(page, action, service, wanted)
        mended = becomes(page, "start", service, "running")
        checks.check(f"{service}: {action}, and start", done and mended, mode(page, service))

    def frozen() -> bool:
        with urllib.request.urlopen(f"{url}/drones/drone-1", timeout=10) as answer:
            return "freeze_until" in json.load(answer)

    checks.check("a drone is paused", becomes(page, "pause", "drone-1", "paused") and frozen())
    checks.check("and flies on", becomes(page, "start", "drone-1", "running") and not frozen())


def experiments_pass(checks: Checks, page: Page) -> None:
    """All five guided experiments hold, by themselves."""
    page.get_by_test_id("chaos-run-all").click()

    def result(name: str) -> str | None:
        return page.locator(f"[data-experiment={name}]").get_attribute("data-result")

    wait_for(lambda: all(result(name) in ("ok", "failed") for name in EXPERIMENTS), EXPERIMENTS_SEC, page)
    for name in EXPERIMENTS:
        steps = page.locator(f"[data-experiment={name}] li")
        done = steps.evaluate_all("steps => steps.map(step => `${step.dataset.step}: ${step.textContent}`)")
        held = result(name) == "ok" and len(done) >= 6 and all(step.startswith("ok: ") for step in done)
        checks.check(f"the experiment {name} holds", held, done)
    picture(page, "experiments")
    modes = page.get_by_test_id("chaos-row").evaluate_all("rows => rows.map(row => row.dataset.mode)")
    checks.check("everything runs again afterwards", set(modes) == {"running"}, modes)


def fits(checks: Checks, browser: Browser, url: str) -> None:
    """Narrow and wide, light and dark: nothing sticks out, nothing complains."""
    for width, scheme in [(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark"), (3840, "light")]:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        problems: list[str] = []
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{url}/dashboard#cluster", wait_until="load")
        wait_for(lambda: page.get_by_test_id("node-card").count() == 3, SHOWN_SEC, page)
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        checks.check(f"nothing sticks out at {width} px, {scheme}", over <= 0, f"{over} px too wide")
        checks.check(f"no complaint at {width} px, {scheme}", not problems, problems[:3])
        picture(page, f"{width}-{scheme}")
        if width < 3840:
            page.get_by_text("The ring as a table").click()
            serious = serious_faults(page)
            checks.check(f"axe finds nothing serious at {width} px, {scheme}", not serious, serious)
        page.close()


def keyboard_alone(checks: Checks, page: Page) -> None:
    """The view is reached and worked without a mouse."""
    page.get_by_role("link", name="Live").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    checks.check("Tab and Enter lead to the cluster", page.get_by_test_id("cluster-view").is_visible())
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    checks.check("Tab reaches the journey's key", "journey-key" in reached, reached)


def main() -> int:
    """The exit code: 0 when every check held."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--url", help="look at this running system, started with CHAOS=1")
    options = arguments.parse_args()
    os.environ["CHAOS"] = "1"
    os.environ["TOTAL"] = "20"  # then only the experiments' own orders want drones
    checks = Checks("page")
    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        url = (options.url or stack.enter_context(demo(checks))).rstrip("/")
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        look_at_whole(checks, page, url)
        look_at_journey(checks, page, url)
        speaks_both(checks, page, "the cluster")
        keyboard_alone(checks, page)
        fits(checks, browser, url)
        node_goes_and_comes(checks, page)
        buttons_break(checks, page, url)
        experiments_pass(checks, page)
        speaks_both(checks, page, "the cluster, all experiments run")
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
