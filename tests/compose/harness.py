"""What the checks and the soak share: the system of compose.yml as a project of its own, and small helpers.

Nothing here disturbs a demo that is already running: project, image and published ports are this process's own.
Needs the standard library only.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from one_process import Checks  # noqa: E402, F401

LOG = ROOT / "target" / "test-logs" / "compose-system.log"
PROJECT = f"ddtest{os.getpid()}"
IMAGE = "dronedispatch:test"
GATEWAYS = 3

BUILD_SEC = 600  # one command that may build images or compile
COMMAND_SEC = 120  # any other command
UP_SEC = 240  # until `up` has returned: it waits for every health check on the way
DELIVERED_SEC = 120  # until a handful of orders is delivered
REQUEST_SEC = 5  # one HTTP request

# Published ports by the variable of compose.yml that moves them.
PORTS = [
    "LB_PORT", "KVFRONT_PORT", "KVSTORE_A_PORT", "KVSTORE_B_PORT", "KVSTORE_C_PORT", "RABBIT_PORT", "RABBIT_UI_PORT",
]  # fmt: skip


class Failed(Exception):
    """The test cannot go on."""


def command(arguments, limit_sec=COMMAND_SEC, environment=None):
    """Runs a command and gives its standard output; ends the test when it fails or takes too long."""
    arguments = [str(a) for a in arguments]
    try:
        done = subprocess.run(
            arguments, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=limit_sec, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Failed(f"`{' '.join(arguments)}` took more than {limit_sec} s") from error
    if done.returncode != 0:
        raise Failed(f"`{' '.join(arguments)}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def compose_commands():
    """The ways to call Compose that exist here: today's plugin first."""
    found = []
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        found.append(["docker", "compose"])
    if shutil.which("docker-compose"):
        found.append(["docker-compose"])
    if not found:
        raise Failed("neither `docker compose` nor `docker-compose` is there")
    return found


def free_ports(count):
    """Ports that nobody uses right now."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def http(method, url, body=None, headers=None):
    """Status and JSON body (or text); (0, reason) when there was no answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SEC) as answer:
            status, raw = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    except (urllib.error.URLError, OSError) as error:
        return 0, str(error)
    try:
        return status, json.loads(raw)
    except ValueError:
        return status, raw.decode(errors="replace")


def id_of(answer):
    """The id in an answer of `http`, None when it has none."""
    return answer[1].get("id") if isinstance(answer[1], dict) else None


def wait_for(condition, limit_sec, every_sec=0.25):
    """The first true value of `condition()`, or its last one when the time is up."""
    deadline = time.monotonic() + limit_sec
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(every_sec)


class System:
    """The containers of this run."""

    def __init__(self):
        LOG.parent.mkdir(parents=True, exist_ok=True)
        LOG.write_text("", encoding="utf-8")
        self.compose_command = compose_commands()[0]
        self.environment = os.environ | {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "IMAGE": IMAGE,
            "IMAGE_TARGET": "prebuilt",
            # Ten synthetic orders show that the generator works; more would only keep the drones from ours.
            "TOTAL": "10",
            "LOW_RPS": "1",
            # Four times the demo's pace: deliveries take seconds, and waiting for them is most of the run.
            "TIME_SCALE": os.environ.get("TIME_SCALE", "100"),
        }
        self.environment |= dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.lb = f"http://127.0.0.1:{self.environment['LB_PORT']}"
        self.kvfront = f"http://127.0.0.1:{self.environment['KVFRONT_PORT']}"

    def compose(self, *arguments, limit_sec=COMMAND_SEC):
        """Runs Compose on this project."""
        return command([*self.compose_command, "-f", "compose.yml", *arguments], limit_sec, self.environment)

    def up(self, build=True):
        """Starts everything, as the README says."""
        begin = time.monotonic()
        options = ["-d", "--build"] if build else ["-d"]
        self.compose("up", *options, "--scale", f"gateway={GATEWAYS}", limit_sec=UP_SEC)
        print(f"# up returned after {time.monotonic() - begin:.0f} s", flush=True)

    def down(self, *arguments):
        """Stops and removes the containers; returns the seconds it took."""
        begin = time.monotonic()
        self.compose("down", *arguments)
        return time.monotonic() - begin

    def containers(self, service):
        """The ids of a service's containers."""
        return self.compose("ps", "-q", service).split()

    def states(self):
        """Per container its name, state, health and exit code."""
        ids = self.compose("ps", "-a", "-q").split()
        health = "{{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}}"
        form = f"{{{{.Name}}}} {{{{.State.Status}}}} {health} {{{{.State.ExitCode}}}}"
        return [line.split() for line in command(["docker", "inspect", "-f", form, *ids]).splitlines()]

    def keep_logs(self, title):
        """Appends the containers' logs so far to the log file."""
        with LOG.open("a", encoding="utf-8") as log:
            log.write(f"===== {title}\n{self.compose('logs', '--no-color')}")

    def order(self, key=None):
        """Posts one order of about 2 km; status and body."""
        order = {
            "origin": {"lat": 41.89, "lon": 12.48},
            "destination": {"lat": 41.90, "lon": 12.50},
            "weight": 1.5,
        }
        return http("POST", f"{self.lb}/deliveries", order, {"Idempotency-Key": key} if key else None)

    def orders(self, count):
        """Posts `count` orders, each with a key of its own; the ids of those that were accepted."""
        ids = []
        for _ in range(count):
            status, body = self.order(str(uuid.uuid4()))
            if status == 201:
                ids.append(body["id"])
            else:
                print(f"# POST /deliveries: {status} {body}", flush=True)
        return ids

    def status_of(self, order):
        """An order's status, or what was answered instead."""
        status, body = http("GET", f"{self.lb}/deliveries/{order}")
        return body["status"] if status == 200 else f"{status} {body}"

    def undelivered(self, ids, limit_sec=DELIVERED_SEC):
        """Which of the orders are not delivered when the time is up, with their status; empty when all are."""
        left = dict.fromkeys(ids, "?")

        def all_done():
            for order in list(left):
                left[order] = self.status_of(order)
                if left[order] == "delivered":
                    del left[order]
            return not left

        wait_for(all_done, limit_sec, every_sec=0.5)
        return left

    def clean_up(self, keep, show_states):
        """Keeps the logs and removes what this run has made."""
        with contextlib.suppress(Failed):
            self.keep_logs("last life")
            if show_states:
                print(f"# containers at the end: {self.states()}\n# their logs: {LOG.relative_to(ROOT)}", flush=True)
        if keep:
            print(f"# running at {self.lb}; end it with: docker-compose -p {PROJECT} down -v", flush=True)
            return
        with contextlib.suppress(Failed):
            self.compose("down", "-v", "--remove-orphans", "-t", "2")
        subprocess.run(["docker", "rmi", "-f", IMAGE], capture_output=True, timeout=COMMAND_SEC, check=False)


def build():
    """Makes sure of the base images, compiles the programs and puts them where the image takes them."""
    begin = time.monotonic()
    print(command(["scripts/base-images"], BUILD_SEC), end="", flush=True)
    command(["scripts/stage-programs"], BUILD_SEC)
    print(f"# base images and programs ready after {time.monotonic() - begin:.0f} s", flush=True)
