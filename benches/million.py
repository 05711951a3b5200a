#!/usr/bin/env python3
"""Measures a long queue: how soon it is taken in, listed, shown by a browser and begun to be sent after a start.

    benches/million.py --program target/release/contentmonster --files 1000000 --store both

Each figure is one line; a line with a bar says whether the bar is kept. The files are in memory, the ledger is on a disk.
Needs sshd; chromium and chromium-driver for the page, and PostgreSQL for `--store postgresql` (`scripts/test packages`).
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

from chromium import Browser, MIB, free_port, wait

BAR_ANSWER, BAR_FIRST, BAR_MEMORY = 100, 10, 200
CASES = ["answers", "page", "restart", "cold"]
# Files of a directory of their own, which come last.
RARE = 100
# So many files are in one directory of the tree.
SPREAD = 1000


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


class Figures:
    """Prints the figures of one store."""

    def __init__(self, store):
        self.store = store

    def say(self, what, value):
        print(f"{self.store}: {what}: {value}", flush=True)

    def within(self, what, value, bar, unit, more=""):
        kept = "kept" if value <= bar else "MISSED"
        self.say(what, f"{value:.1f} {unit}{more} (bar {bar} {unit}: {kept})")

    def times(self, what, seconds, bar=BAR_ANSWER):
        worst = max(seconds) * 1000
        more = f"median {statistics.median(seconds) * 1000:.1f} ms, most {worst:.1f} ms of {len(seconds)}"
        self.say(what, more + (f" (bar {bar} ms: {'kept' if worst <= bar else 'MISSED'})" if bar else ""))


class Postgres:
    """A server of its own with a Unix socket and no port; fsync and all else are as after the installation."""

    def __init__(self, place):
        self.place = place / "postgres"
        self.place.mkdir()
        self.programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        # The server refuses to run as root.
        self.user = []
        if os.geteuid() == 0:
            self.user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
            shutil.chown(self.place, "nobody", "nogroup")
        made = ["--username=cm", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", self.place / "data"]
        run(*self.user, self.programs / "initdb", *made)
        words = [*self.user, self.programs / "postgres", "-D", self.place / "data", "-k", self.place, "-c", "listen_addresses="]
        with open(self.place / "log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)
        wait(lambda: not subprocess.run([self.programs / "pg_isready", "-q", "-h", self.place]).returncode, 60, "PostgreSQL")

    def new_database(self, name):
        run(self.programs / "createdb", "-h", self.place, "-U", "cm", name)
        return f"postgresql://cm@localhost/{name}?host={self.place}&sslmode=disable"

    def size(self, name):
        asked = [self.programs / "psql", "-h", self.place, "-U", "cm", "-tAc", f"SELECT pg_database_size('{name}')", name]
        return int(run(*asked))

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)


class Host:
    """The files, a vessel, and the program."""

    def __init__(self, arguments, store):
        self.program = Path(arguments.program).resolve()
        self.files, self.keys = arguments.files, arguments.set
        self.place = Path(tempfile.mkdtemp(prefix="million-", dir=arguments.dir))
        self.disk = Path(tempfile.mkdtemp(prefix="million-", dir=arguments.ledger))
        for path in (self.place, self.disk):
            path.chmod(0o755)
        self.postgres = Postgres(self.disk) if store == "postgresql" else None
        self.port, self.listen = free_port(), free_port()
        self.daemon = self.server = None
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.place / name)

    def make_files(self):
        """Makes those files that are not there, and leaves them alone until they count as finished."""
        source, content = self.place / "in", b"x" * 100
        shutil.rmtree(source / "processed", ignore_errors=True)
        shutil.rmtree(self.place / "rare", ignore_errors=True)
        (self.place / "rare").mkdir()
        for number in range(self.files - RARE):
            path = source / f"d{number // SPREAD:04}"
            if number % SPREAD == 0:
                path.mkdir(parents=True, exist_ok=True)
                there = set(os.listdir(path))
            name = f"file-{number:07}"
            if name not in there:
                path.joinpath(name).write_bytes(content)
        time.sleep(3)

    def add_rare(self):
        for number in range(RARE):
            (self.place / "rare" / f"rare-{number:03}").write_bytes(b"y" * 100)

    def new_ledger(self, name):
        """Writes settings with an empty ledger, and empties the vessel."""
        for there in ("there-in", "there-rare", "temp"):
            shutil.rmtree(self.place / there, ignore_errors=True)
        self.database = self.postgres.new_database(name) if self.postgres else self.disk / name
        self.name = name
        fingerprint = run("ssh-keygen", "-l", "-f", self.place / "host.pub").split()[1]
        text = f"[MONSTER]\nDatabase = {self.database}\nSocket = {self.place}/socket\nListen = 127.0.0.1:{self.listen}\n\n"
        text += f"[Directory in]\nLocation = {self.place}/in\nRecursive = yes\n"
        text += "".join(f"{key}\n" for key in self.keys) + f"\n[Directory rare]\nLocation = {self.place}/rare\n\n"
        text += f"[Vessel away]\nAddress = 127.0.0.1\nPort = {self.port}\nUsername = root\nIdentityFile = {self.place}/user\n"
        text += f"HostKey = {fingerprint}\nTempDir = {self.place}/temp\n"
        text += f"RemoteLocation.in = {self.place}/there-in\nRemoteLocation.rare = {self.place}/there-rare\n"
        self.settings = self.place / "settings.ini"
        self.settings.write_text(text)

    def ledger_size(self):
        if self.postgres:
            return self.postgres.size(self.name)
        return sum(path.stat().st_size for path in self.disk.glob(f"{self.name}*") if path.is_file())

    def start(self):
        self.started = time.monotonic()
        with open(self.place / "log", "ab") as log:
            self.daemon = subprocess.Popen([self.program, "--settings", self.settings], stdout=log, stderr=log)

    def stop(self):
        """Stops the program; returns how many seconds that took."""
        begun = time.monotonic()
        self.daemon.terminate()
        self.daemon.wait(120)
        self.daemon = None
        return time.monotonic() - begun

    def start_server(self):
        config = self.place / "sshd_config"
        config.write_text("\n".join([
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.place}/host", "StrictModes no", "UsePAM no",
            f"AuthorizedKeysFile {self.place}/user.pub", "PermitRootLogin yes", "PidFile none", "MaxStartups 100",
            "MaxSessions 100", "Subsystem sftp internal-sftp", "",
        ]))
        Path("/run/sshd").mkdir(exist_ok=True)
        words = [shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin"), "-D", "-f", config]
        self.server = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
        wait(self.greets, 30, "sshd")

    def greets(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as one:
            return one.recv(4) == b"SSH-"
        return False

    def stop_server(self):
        self.server.terminate()
        self.server.wait()
        self.server = None

    def is_published(self):
        """Whether the vessel has a file under its final name."""
        for top in ("there-in", "there-rare"):
            for _, _, names in os.walk(self.place / top):
                if any(not name.startswith(".") for name in names):
                    return True
        return False

    def resident(self, what="VmHWM"):
        for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) / 1024
        return 0

    def cpu(self):
        after_name = Path(f"/proc/{self.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path, **query):
        """The answer of the page's API; fails unless it is 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.listen, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, f"{path} {query}: {answer.status} {body[:200]}"
            return json.loads(body)

    def status(self):
        """The status document; None until the program listens."""
        assert self.daemon.poll() is None, "the program has ended"
        with contextlib.suppress(ConnectionError):
            return self.get("/api/status")

    def waiting(self):
        status = self.status()
        return status["vessels"][0]["backlog"]["files"] if status else 0

    def command(self, *words):
        begun = time.monotonic()
        said = run(self.program, "--settings", self.settings, *words)
        return time.monotonic() - begun, said

    def end(self):
        if self.daemon:
            self.stop()
        if self.server:
            self.stop_server()
        if self.postgres:
            self.postgres.end()
        for path in (self.place, self.disk):
            shutil.rmtree(path, ignore_errors=True)


def take_in(host, figures):
    """The vessel is away; the files are taken in."""
    host.new_ledger("first")
    host.start()
    wait(lambda: host.waiting() >= host.files - RARE, 7200, "all files to be taken in", 0.5)
    took = time.monotonic() - host.started
    figures.say(f"{host.files - RARE} files taken in", f"{took:.1f} s, {host.cpu():.1f} s CPU, peak {host.resident():.0f} MiB")
    host.add_rare()
    wait(lambda: host.waiting() == host.files, 600, "the rare files", 0.5)
    figures.say("ledger", f"{host.ledger_size() / MIB:.0f} MiB")


def cursors(host, figures):
    """Goes through the whole queue; returns the cursors half way, and near the end, where 50 files of each directory follow."""
    times, found, after, half, end = [], 0, None, None, None
    while True:
        begun = time.monotonic()
        left = host.files - RARE - 60 - found
        limit = min(1000, left) if left > 0 else 1000
        answer = host.get("/api/queue", limit=limit, **({"after": after} if after else {}))
        times.append(time.monotonic() - begun)
        found, after = found + len(answer["deliveries"]), answer["next"]
        half = half or (after if found >= host.files // 2 else None)
        end = end or (after if found == host.files - RARE - 60 else None)
        if after is None:
            break
    figures.times(f"API, the whole queue of {found} in pages of 1000", times)
    assert found == host.files, f"{found} of {host.files} listed"
    return {"half way": half, "near the end": end}


def answers(host, figures, rounds):
    """The queue, by the API and by the command, from different places of it and with different filters."""
    places = {"first page": None, **cursors(host, figures)}
    last = f"file-{host.files - RARE - 1:07}"
    # What is asked, and whether there is a page of 50 behind each place.
    asked = {
        "all": {}, "a vessel": {"vessel": "away"}, "waiting": {"state": "waiting"}, "a directory": {"directory": "in"},
        "search file-": {"search": "file-"}, "search, the last file": {"search": last}, "search in vain": {"search": "nowhere"},
        "a rare directory": {"directory": "rare"}, "parked": {"state": "parked"},
    }
    for place, after in places.items():
        for what, query in asked.items():
            query = {**query, "limit": 50, **({"after": after} if after else {})}
            times = []
            for _ in range(rounds):
                begun = time.monotonic()
                answer = host.get("/api/queue", **query)
                times.append(time.monotonic() - begun)
            figures.times(f"API, {what}, {place} ({len(answer['deliveries'])} files)", times)
    figures.times("API, status", [timed(host.status) for _ in range(rounds)])
    # What a process takes that does nothing.
    figures.times("contentmonster --version", [timed(lambda: run(host.program, "--version")) for _ in range(rounds)], bar=None)
    for place, after in places.items():
        for words in (["away"], ["in"], ["--state", "waiting"], ["--search", "file-"]):
            words = ["queue", *words, "--limit", "50", *(["--after", after] if after else [])]
            times = [host.command(*words)[0] for _ in range(rounds)]
            figures.times(f"contentmonster {' '.join(words[:-2] if after else words)}, {place}", times)
    # These look at every file of the queue, answer by answer.
    for words in (["rare"], ["--search", last], ["--search", "nowhere"]):
        times = [host.command("queue", *words, "--limit", "50")[0] for _ in range(3)]
        figures.times(f"contentmonster queue {' '.join(words)} --limit 50, all files examined", times, bar=None)
    figures.say("the program after these answers", f"{host.resident('VmRSS'):.0f} MiB, peak {host.resident():.0f} MiB")


def timed(act):
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def page(host, figures, seconds):
    """The page with that queue, in a browser, while new files come."""
    browser = Browser(host.place)
    stop = threading.Event()
    try:
        lines = "document.querySelectorAll('#queue li').length"
        browser.open(f"http://127.0.0.1:{host.listen}/#queue")
        browser.wait(f"{lines} === 50", "the first 50 files")
        paint = browser.eval("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1")
        answered = browser.eval(
            "performance.getEntriesByType('resource').find(e => e.name.includes('/api/queue')).responseEnd")
        figures.say("page, first paint", f"{paint:.0f} ms")
        figures.say("page, the first 50 files have come", f"{answered:.0f} ms")
        said, least = browser.memory()
        figures.say("page, at the start", said)
        button = "[...document.querySelectorAll('#queue button')].find(e => e.innerText === '{}')"
        shown = "document.querySelector('#queue [role=status]').innerText"
        times = []
        for number in range(2, 32):
            browser.eval(f"{button.format('Show more')}.click()")
            up_to = f"{number * 50} shown" if number <= 20 else f"to {number * 50} shown"
            times.append(browser.wait(f"{shown}.includes('{up_to}')", up_to))
        figures.times("page, one page more", times, bar=None)
        said, paged = browser.memory()
        figures.say(f"page, after paging 30 times, {browser.eval(lines)} files shown", said)
        browser.eval(f"{button.format('Back to the first')}.click()")
        browser.wait(f"{lines} === 50", "the first 50 files again")
        figures.say("page, back at the first", browser.memory()[0])
        threading.Thread(target=new_files, args=(host, stop), daemon=True).start()
        heaps = []
        for part in range(1, 5):
            time.sleep(seconds / 4)
            said, heap = browser.memory()
            heaps.append(heap)
            figures.say(f"page, after {part * seconds / 4:.0f} s of updates", said)
        bounded = "kept" if max(heaps) <= max(least, paged) * 1.5 else "MISSED"
        said = f"{least:.1f} MiB first, {paged:.1f} MiB paged, at most {max(heaps):.1f} MiB updated (bounded: {bounded})"
        figures.say("page, heap", said)
    finally:
        stop.set()
        browser.end()


def new_files(host, stop):
    number = 0
    while not stop.wait(0.25):
        (host.place / "rare" / f"new-{number:05}").write_bytes(b"z" * 100)
        number += 1


def begin(host, figures, what, seconds):
    """Starts the program with the vessel there: the first delivery, and the memory while it sends and scans."""
    host.start_server()
    host.start()
    wait(host.is_published, 3600, "the first delivery", 0.02)
    figures.within(f"{what}, the first delivery", time.monotonic() - host.started, BAR_FIRST, "s")
    figures.say(f"{what}, at the first delivery", f"{host.cpu():.1f} s CPU, peak {host.resident():.0f} MiB")
    times, delivered, is_ready, end = [], 0, False, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        status = host.status()
        times.append(timed(lambda: host.get("/api/queue", limit=50)))
        after = time.monotonic() - host.started
        if status["daemon"]["ready"] and not is_ready:
            is_ready = True
            figures.say(f"{what}, all directories scanned", f"{after:.1f} s, peak {host.resident():.0f} MiB")
        acknowledged = status["vessels"][0]["acknowledged"]["files"]
        if acknowledged >= 20_000 > delivered:
            figures.within(f"{what}, peak at 20,000 delivered after {after:.0f} s", host.resident(), BAR_MEMORY, "MiB")
        delivered = acknowledged
    if not is_ready:
        figures.say(f"{what}, all directories scanned", f"not within {seconds:.0f} s")
    figures.say(f"{what}, delivered {seconds:.0f} s later", f"{delivered}, {host.cpu():.1f} s CPU")
    figures.within(f"{what}, peak {seconds:.0f} s later", host.resident(), BAR_MEMORY, "MiB",
                   f", {host.resident('RssAnon'):.0f} MiB anonymous at the end")
    figures.times(f"{what}, API, first page while it sends", times)
    figures.say(f"{what}, stopped in", f"{host.stop():.1f} s")
    host.stop_server()


def measure(arguments, store):
    figures, host = Figures(store), Host(arguments, store)
    try:
        host.make_files()
        take_in(host, figures)
        if "answers" in arguments.cases:
            answers(host, figures, arguments.rounds)
        if "page" in arguments.cases:
            page(host, figures, arguments.seconds)
        figures.say("stopped in", f"{host.stop():.1f} s")
        if "restart" in arguments.cases:
            begin(host, figures, "restart", arguments.seconds)
        if "cold" in arguments.cases:
            host.make_files()
            host.new_ledger("second")
            begin(host, figures, "cold start", arguments.seconds)
    except BaseException:
        with contextlib.suppress(OSError):
            print((host.place / "log").read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        host.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(CASES)}; default: all")
    parser.add_argument("--program", required=True, help="the program to measure")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--store", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--dir", default="/dev/shm", help="where the files go (5 KiB each)")
    parser.add_argument("--ledger", default="/var/tmp", help="where the ledger or the database goes")
    parser.add_argument("--rounds", type=int, default=50, help="how often each answer is asked for")
    parser.add_argument("--seconds", type=float, default=120, help="how long updates are shown, and deliveries made")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a line for the directory's settings")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"invalid case `{unknown.pop()}`; expected some of {', '.join(CASES)}")
    arguments.cases = arguments.cases or CASES
    # `finally` removes what was made when the measurement is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    for store in ["sqlite", "postgresql"] if arguments.store == "both" else [arguments.store]:
        measure(arguments, store)


if __name__ == "__main__":
    main()
