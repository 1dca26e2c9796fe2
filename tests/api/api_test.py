"""The public API, through lb: Schemathesis runs against its document, and the event stream is read as it comes.

    tests/api/run                 the checks
    tests/api/run --url URL       looks at a system that runs already
    tests/api/run --seed N        other generated requests

Prints one `ok - …` or `not ok - …` line per check and `N passed, N failed` at the end; the exit code says the same.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from one_process import LOGS, Checks, running_system  # noqa: E402

LOG = LOGS / "api-system.log"

EVENT_SEC = 10  # until an event arrives
LINE_SEC = 10  # until the access log has a line
SCHEMATHESIS_SEC = 300  # longest run of the generated requests
EXAMPLES = 20  # generated requests per operation and kind

ORDER = {"origin": {"lat": 41.89, "lon": 12.49}, "destination": {"lat": 41.91, "lon": 12.46}, "weight": 1.5}


def generated_requests(checks: Checks, lb: str, seed: int) -> None:
    """Schemathesis against the document that the system serves."""
    command = [
        str(pathlib.Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{lb}/openapi.json",
        # It never ends; read below.
        "--exclude-path=/events",
        # DELETE cancels: the record stays, and says so.
        "--exclude-checks=use_after_free",
        "--continue-on-failure",
        f"--max-examples={EXAMPLES}",
        f"--seed={seed}",
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory(prefix="dronedispatch-schemathesis-") as folder:
        try:
            run = subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=SCHEMATHESIS_SEC,
            )
        except subprocess.TimeoutExpired:
            checks.check("generated requests end in time", False, f"not within {SCHEMATHESIS_SEC} s")
            return
    cases = re.search(r"(\d+) generated", run.stdout)
    print(f"# {cases[1] if cases else 'no'} requests", flush=True)
    checks.check("schemathesis finds nothing", run.returncode == 0 and cases is not None, run.stdout + run.stderr)


def next_event(stream, name: str, contains: str) -> "dict | None":
    """The data of the next event of that name with that text in it."""
    deadline = time.monotonic() + EVENT_SEC
    event = ""
    while time.monotonic() < deadline:
        line = stream.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        if line.startswith("data: ") and event == name and contains in line:
            return json.loads(line.removeprefix("data: "))
    return None


def event_stream(checks: Checks, lb: str) -> None:
    """Events come through lb one by one, as they happen."""
    with urllib.request.urlopen(f"{lb}/events", timeout=EVENT_SEC) as stream:
        first = next_event(stream, "snapshot", "")
        checks.check("the first event is a snapshot", first is not None)
        # The fleet may only be on its way into the store.
        has_drones = bool(first and first["drones"]) or next_event(stream, "drones", "drone-1") is not None
        checks.check("drones are told", has_drones, first)
        request = urllib.request.Request(f"{lb}/deliveries", data=json.dumps(ORDER).encode())
        with urllib.request.urlopen(request, timeout=EVENT_SEC) as answer:
            order = json.load(answer)["id"]
        told = next_event(stream, "deliveries", order)
        checks.check("an order is told while the stream goes on", told is not None, f"nothing of {order}")


def marked_in_the_log(checks: Checks) -> None:
    """A stream has ended: its line in lb's access log says that its length is no latency."""
    deadline = time.monotonic() + LINE_SEC
    pattern = re.compile(r"\[access\] GET /events 200 [0-9.]+ms stream$", re.MULTILINE)
    while time.monotonic() < deadline:
        if pattern.search(LOG.read_text(errors="replace")):
            break
        time.sleep(0.1)
    lines = [line for line in LOG.read_text(errors="replace").splitlines() if "/events" in line]
    checks.check("the access log marks the stream", any(pattern.search(line) for line in lines), lines)


def main() -> int:
    """Runs the checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="lb's address of a system that runs already")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated requests [1]")
    arguments = parser.parse_args()
    checks = Checks("api")
    system = running_system(checks, LOG, "/events", "none", {"ACCESS_LOG": "text"})
    with contextlib.nullcontext(arguments.url) if arguments.url else system as lb:
        event_stream(checks, lb)
        generated_requests(checks, lb, arguments.seed)
        if not arguments.url:
            marked_in_the_log(checks)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
