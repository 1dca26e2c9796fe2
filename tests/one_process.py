"""What checks in Python share: counting, and the whole system in one process. Needs the standard library only."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "dronedispatch"
LOGS = ROOT / "target" / "test-logs"

START_SEC = 30  # until it serves
STOP_SEC = 10  # until it has stopped after Ctrl-C


class Checks:
    """Counts what held and what did not, in one area."""

    def __init__(self, area: str) -> None:
        self.area = area
        self.passed = 0
        self.failed = 0

    def check(self, what: str, holds: bool, why: object = "") -> bool:
        """Notes one check; `why` is shown when it does not hold."""
        if holds:
            self.passed += 1
            print(f"ok - {self.area}: {what}", flush=True)
        else:
            self.failed += 1
            print(f"not ok - {self.area}: {what}: {why}", flush=True)
        return holds


def find_lb(system: "subprocess.Popen[bytes]", log: pathlib.Path, path: str) -> str:
    """lb's address, once `path` is served there; ends the test when the system dies or takes too long."""
    begin = time.monotonic()
    problem: object = "it printed no address of a dashboard"
    while time.monotonic() - begin < START_SEC:
        if system.poll() is not None:
            raise SystemExit(f"the system ended with {system.returncode} at start:\n{log.read_text()[-2000:]}")
        printed = re.search(r"(http://127\.0\.0\.1:\d+)/dashboard", log.read_text(errors="replace"))
        if printed:
            try:
                with urllib.request.urlopen(f"{printed[1]}{path}", timeout=2):
                    print(f"# {path} served after {time.monotonic() - begin:.1f} s", flush=True)
                    return printed[1]
            except OSError as error:  # refused, or an answer that is no 200
                problem = error
        time.sleep(0.1)
    raise SystemExit(f"no {path} within {START_SEC} s: {problem}\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def running_system(checks: Checks, log: pathlib.Path, path: str, orders: str, settings: "dict[str, str]") -> Iterator[str]:
    """The whole system in one process; yields lb's address once it serves `path`, and stops it as Ctrl-C does."""
    data = tempfile.mkdtemp(prefix=f"dronedispatch-{checks.area}-")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [PROGRAM, "up", "--data-dir", data, "--port-base", "0", "--orders", orders]
    with log.open("wb") as output:
        system = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | settings,
        )  # fmt: skip
    try:
        yield find_lb(system, log, path)
        system.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            system.wait(STOP_SEC)
        checks.check("Ctrl-C stops everything cleanly", system.returncode == 0, f"exit code {system.returncode}")
    finally:
        if system.poll() is None:
            system.kill()
            system.wait()
        shutil.rmtree(data, ignore_errors=True)
