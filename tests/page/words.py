"""Whether the page speaks one language at a time: everything that can be read or heard, in English and in Italian."""

import re

from playwright.sync_api import Page

from checks import Checks, wait_for

# All text, and what is read aloud or shown on hovering; digits as 0, so that figures that go on meanwhile do not hide a sentence.
TEXTS = """() => {
  const found = new Set([document.title]);
  const note = (text) => text && text.trim() && found.add(text.trim().replace(/\\d/g, "0"));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
    node.nodeType === 1 && (["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName) || node.lang) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.nodeType === 3) note(node.data);
    else for (const name of ["aria-label", "title", "placeholder", "alt", "aria-valuetext"]) note(node.getAttribute(name));
  }
  return [...found];
}"""
# Names, ids and figures with their units, which are the same everywhere.
DATA = re.compile(r"(?:drone-0+|kvstore_[a-z]|gateway_0|zone 0|zones_config|\bz0|\bp00|\b[0-9a-f-]*0[0-9a-f-]*\b|(?<=0)\s*(?:ms|s|min|h|d|kg|km|m|/s)\b)")
# Words that are the same in both languages.
ALIKE = {"DroneDispatch", "Drone", "Cluster", "Hint", "RabbitMQ", "dispatcher", "drones", "bus"}
KEY = re.compile(r"[a-z]+(?:\.[A-Za-z0-9]+)+")


def speaks_both(checks: Checks, page: Page, what: str) -> None:
    """No text stays as it is when the language changes, and none is the bare name of a text. Leaves the page in English."""
    english = texts(page)
    page.get_by_role("button", name="Italiano").click()
    same: list[str] = []

    def all_translated() -> bool:
        same[:] = sorted(text for text in english & texts(page) if is_sentence(text))
        return not same

    # Tables and cards follow with their next figures.
    checks.check(f"{what}: no text stays English in Italian", wait_for(all_translated, 5, page), same[:8])
    names = [text for text in english | texts(page) if KEY.fullmatch(text)]
    checks.check(f"{what}: every text has its words", not names, names[:8])
    page.get_by_role("button", name="English").click()


def texts(page: Page) -> set[str]:
    """Every text of the page, in all of its views."""
    return set(page.evaluate(TEXTS))


def is_sentence(text: str) -> bool:
    """Whether there are words in it that ought to be translated."""
    return text not in ALIKE and re.search(r"[A-Za-z]{2,}", DATA.sub("", text)) is not None
