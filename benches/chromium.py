"""A headless Chromium, driven through chromedriver as in `tests/it/browser/driver.rs`, and what its pages take of memory."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

MIB = 1 << 20


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait(condition, seconds, what, pause=0.01):
    """Waits until a condition is met; returns what it gave and how many seconds that took."""
    begun = time.monotonic()
    while not (found := condition()):
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(pause)
    return found, time.monotonic() - begun


class Browser:
    """A browser of its own."""

    def __init__(self, place):
        self.profile = Path(tempfile.mkdtemp(prefix="browser-", dir=place))
        self.port = free_port()
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={self.port}", "--allowed-ips=127.0.0.1"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(self.profile), "HOME": str(self.profile)},
        )
        wait(self._is_ready, 60, "chromedriver")
        options = {"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900",
            f"--user-data-dir={self.profile}/profile",
        ]}
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})
        self.session = f"/session/{made['sessionId']}"

    def _is_ready(self):
        with contextlib.suppress(ConnectionError):
            return self._call("GET", "/status")["ready"]

    def _call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            value = json.loads(answer.read())["value"]
            assert answer.status == 200, value
            return value

    def open(self, address):
        self._call("POST", f"{self.session}/url", {"url": address})

    def eval(self, script):
        return self._call("POST", f"{self.session}/execute/sync", {"script": f"return {script}", "args": []})

    def devtools(self, command, **params):
        return self._call("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": params})

    def wait(self, script, what, seconds=60):
        return wait(lambda: self.eval(script) is True, seconds, what)[1]

    def memory(self):
        """The page's heap after a collection, the nodes of its document, and the largest renderer in memory."""
        for _ in range(2):
            self.devtools("HeapProfiler.collectGarbage")
        self.devtools("Performance.enable")
        metrics = {one["name"]: one["value"] for one in self.devtools("Performance.getMetrics")["metrics"]}
        heap, nodes = metrics["JSHeapUsedSize"] / MIB, int(metrics["Nodes"])
        return f"heap {heap:.1f} MiB, {nodes} nodes, renderer {max(self._renderers()):.0f} MiB", heap

    def _renderers(self):
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                words = (status.parent / "cmdline").read_bytes()
                if b"--type=renderer" in words and str(self.profile).encode() in words:
                    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                    yield int(lines["VmRSS"].split()[0]) / 1024

    def end(self):
        with contextlib.suppress(OSError):
            self._call("DELETE", self.session)
        self.driver.terminate()
        self.driver.wait()
