"""Two real gateways behind a real lb, each a process of its own, over real kvstores: one of them can be killed while a page looks.

There is no dispatcher and no simulator: a thread writes drones that fly in circles into the KV, as often as a simulator would.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from checks import LOGS, ROOT

BINARIES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
START_SEC = 30  # until a program listens, and until the whole answers
STEP_SEC = 0.2
DRONES = 6
# Nothing listens there: gateways do without a broker, and say so.
NO_BROKER = "amqp://nobody:nothing@127.0.0.1:1/%2f"
SETTINGS = {"LISTEN": "127.0.0.1:0", "RABBIT_URL": NO_BROKER}


class Stack:
    """The running programs. `url`: lb's address."""

    def __init__(self, stack: contextlib.ExitStack, settings: dict[str, str]) -> None:
        self.stack = stack
        self.settings = settings
        self.data = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dronedispatch-page-")))
        stores = [self._start("kvstore", f"kvstore_{letter}", {"DB_FILE": str(self.data / f"{letter}.db")})[1] for letter in "abc"]
        self.kv = self._start("kvfront", "kvfront", {"BACKENDS": ",".join(stores)})[1]
        self.gateways = dict(self._start("gateway", f"gateway_{number}", {"KV_URL": self.kv})[::-1] for number in (1, 2))
        self.url = self._start("lb", "lb", {"TARGET_URL": ",".join(self.gateways)})[1]
        self.ended = threading.Event()
        stack.callback(self.ended.set)
        threading.Thread(target=self._fly, daemon=True).start()
        self._await(f"{self.url}/drones")

    def _start(self, program: str, name: str, settings: dict[str, str]) -> tuple[subprocess.Popen, str]:
        """Starts a program; it and its address once it listens."""
        log = LOGS / f"page-{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen([BINARIES / program], env=os.environ | SETTINGS | self.settings | settings,
                                       stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        deadline = time.monotonic() + START_SEC
        while time.monotonic() < deadline and process.poll() is None:
            listening = re.search(r"listening on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
            if listening:
                return process, listening[1]
            time.sleep(0.05)
        raise SystemExit(f"{name} does not listen within {START_SEC} s:\n{log.read_text(errors='replace')[-2000:]}")

    @staticmethod
    def _await(url: str) -> None:
        """Waits until something is told there."""
        deadline = time.monotonic() + START_SEC
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(url, timeout=2) as answer:
                    if json.load(answer):
                        return
            time.sleep(0.1)
        raise SystemExit(f"{url} tells nothing within {START_SEC} s")

    def _fly(self) -> None:
        """Drones in circles; what cannot be written is written with the next step."""
        while not self.ended.wait(STEP_SEC):
            for number in range(1, DRONES + 1):
                angle = time.time() / 4 + number
                drone = {"id": f"drone-{number}", "type": "medium", "status": "busy", "battery": 80.0, "speed": 0.25,
                         "pos": {"lat": 41.89 + 0.04 * math.sin(angle), "lon": 12.485 + 0.05 * math.cos(angle)},
                         "current_delivery": f"order-{number}"}
                with contextlib.suppress(OSError):
                    self.put(f"drone:drone-{number}", drone)

    def put(self, key: str, value: object) -> str:
        """Writes a key; its version."""
        request = urllib.request.Request(f"{self.kv}/kv/{key}", json.dumps({"value": value}).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=2) as answer:
            return json.load(answer)["version"]

    def viewers(self, gateway: str) -> int:
        """How many pages that gateway feeds; none when it is dead."""
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"{gateway}/metrics", timeout=2) as answer:
                found = re.search(r"^gateway_event_viewers (\d+)", answer.read().decode(), re.MULTILINE)
                return int(found[1]) if found else 0
        return 0

    def serving(self) -> str | None:
        """The gateway that feeds a page now."""
        return next((gateway for gateway in self.gateways if self.viewers(gateway)), None)

    def kill(self, gateway: str) -> None:
        """SIGKILL: it says goodbye to nobody."""
        self.gateways[gateway].kill()
        self.gateways[gateway].wait()


@contextlib.contextmanager
def running_stack(settings: dict[str, str] | None = None) -> Iterator[Stack]:
    """All programs, until the end of the block."""
    with contextlib.ExitStack() as stack:
        yield Stack(stack, settings or {})
