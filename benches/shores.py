#!/usr/bin/env python3
"""Measures several shores over one ledger in PostgreSQL, on one machine, beside one shore with an SQLite file.

    benches/shores.py --program target/release/contentmonster fleet|small|outage|idle|handover

`fleet` delivers 20 files of 1 MiB to 200 vessels, `small` 100,000 files of 1 KiB to 3, with each ledger in turn. `outage` ends the
database for some minutes while uploads are in flight, and counts the bytes on the link beside a run without an outage. `idle`
counts the statements that the database executes while nothing happens. `handover` ends one of two shores again and again, under
traffic, and measures when the other one has all work.

The vessels are accounts of one sshd. Needs root, iproute2, sshd and PostgreSQL's server, which runs as the user nobody in a
temporary directory; all network traffic stays in new namespaces.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from two_links import MIB, fingerprint, interface_bytes, run, serve

KIB = 1 << 10
LOOPBACK = "127.0.0.1"
# What `idle` counts belongs to this user; the script itself asks as the superuser.
USER = "contentmonster"


class Database:
    """A PostgreSQL server with its own defaults, at a Unix socket."""

    def __init__(self, place):
        self.place = place
        self.programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        place.mkdir()
        shutil.chown(place, "nobody", "nogroup")
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", place / "data")
        self.start()
        self._run("createuser", "-h", place, "-U", "postgres", USER)
        self._run("createdb", "-h", place, "-U", "postgres", "--owner", USER, "ledger")
        self.query("CREATE EXTENSION pg_stat_statements")

    def _run(self, program, *words):
        # The server refuses to run as root. What it says goes to a file, because the server itself keeps a pipe open.
        unprivileged = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", self.programs / program]
        with open(self.place.parent / "database.log", "ab") as log:
            words = [str(word) for word in [*unprivileged, *words]]
            subprocess.run(words, check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.place)

    def start(self):
        options = f"-k {self.place} -c listen_addresses= -c shared_preload_libraries=pg_stat_statements"
        self._run("pg_ctl", "-D", self.place / "data", "-w", "-o", options, "start")

    def stop(self, how):
        self._run("pg_ctl", "-D", self.place / "data", "-m", how, "stop")

    def address(self):
        return f"postgresql://{USER}@localhost/ledger?host={self.place}&sslmode=disable"

    def query(self, statement):
        return run(self.programs / "psql", "-h", self.place, "-U", "postgres", "-d", "ledger", "-Atqc", statement).strip()

    def forget_statements(self):
        self.query("SELECT pg_stat_statements_reset()")

    def statements(self):
        """How many statements the program had executed since they were forgotten."""
        return int(self.query(f"SELECT sum(calls) {self._of_user}"))

    def print_statements(self, order):
        """Shows what took most, with the numbers of parameters left out."""
        text = "left(regexp_replace(regexp_replace(query, '\\s+', ' ', 'g'), '\\$\\d+(, \\$\\d+)*', '$', 'g'), 120)"
        sums = f"SELECT {text} AS text, sum(calls) AS calls, sum(total_exec_time) AS ms {self._of_user} GROUP BY 1"
        print(self.query(f"SELECT calls || ' x, ' || round(ms) || ' ms: ' || text FROM ({sums}) s ORDER BY {order} DESC LIMIT 12"))

    _of_user = f"FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid WHERE rolname = '{USER}'"


class Shore:
    """One running program."""

    def __init__(self, program, place, name, settings):
        self.program, self.log, self.settings = program, place / f"{name}.log", place / f"{name}.ini"
        socket = f"[MONSTER]\nSocket = {place}/{name}.sock\n"
        own = socket + (f"ShoreName = {name}\n" if "postgresql:" in settings else "")
        self.settings.write_text(settings.replace("[MONSTER]\n", own, 1))
        with open(self.log, "ab") as log:
            words = [str(program), "--settings", str(self.settings)]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def ask(self, *words):
        return json.loads(run(self.program, "--settings", self.settings, *words, "--json"))

    def peak(self):
        """The most memory that it ever had, in bytes."""
        return self._kib("VmHWM") * KIB

    def _kib(self, field):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field)))

    def processor_time(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Fleet:
    """Vessels, and the shores that serve them with a new ledger."""

    def __init__(self, arguments, vessels, ledger, namespace=None, address=LOOPBACK, keys=""):
        self.program, self.vessels = Path(arguments.program).resolve(), vessels
        self.place = Path(tempfile.mkdtemp(prefix="shores-", dir=arguments.dir))
        self.place.chmod(0o711)
        self.shores, self.database, self.server, self.logs = [], None, None, arguments.logs
        try:
            (self.place / "in").mkdir()
            (self.place / "made").mkdir()
            self.server = serve(self.place, namespace)
            if ledger == "postgresql":
                self.database = Database(self.place / "database")
            where = self.database.address() if self.database else self.place / "ledger"
            self.settings = self._settings(where, address, "\n".join([keys, *arguments.set]))
        except BaseException:
            self.__exit__()
            raise

    def _settings(self, ledger, address, keys):
        return f"""[MONSTER]
Database = {ledger}

[DEFAULT]
Address = {address}
Port = 2222
Username = root
IdentityFile = {self.place}/user
HostKey = {fingerprint(self.place)}
TempDir = {self.place}/temp/{{vessel}}

[Directory in]
Location = {self.place}/in
RemoteLocation = {self.place}/there/{{vessel}}
SettleTime = 300ms

[Group fleet]
Timeout = 60s
{keys}

[Vessel ship{{0001..{self.vessels:04}}}]
Groups = fleet
"""

    def start(self, shores):
        names = [f"shore{number}" for number in range(1, shores + 1)]
        self.shores = [Shore(self.program, self.place, name, self.settings) for name in names]

    def wait_until_shared(self):
        """Waits until each shore has its share of the vessels, and all vessels have received a file."""
        if len(self.shores) > 1:
            def shared():
                try:
                    served = [len(shore["vessels"]) for shore in self.shores[0].ask("shores")]
                except (subprocess.CalledProcessError, json.JSONDecodeError):
                    return False
                return len(served) == len(self.shores) and sum(served) == self.vessels and max(served) - min(served) <= 1

            self.wait(shared, 300, "the shores share the vessels", 0.5)
        self.put("first", random.randbytes(KIB))
        self.wait_until_retired(["first"], 600)

    def make(self, name, content):
        """Writes a file where it is not seen yet."""
        path = self.place / "made" / name
        path.write_bytes(content)
        return path

    def put(self, name, content):
        self.make(name, content).rename(self.place / "in" / name)

    def wait_until_retired(self, names, seconds, step=0.02):
        wanted, processed = set(names), self.place / "in/processed"
        self.wait(lambda: processed.exists() and wanted.issubset(os.listdir(processed)), seconds, "the files retire", step)

    def wait(self, condition, seconds, what, step):
        end = time.monotonic() + seconds
        while not condition():
            for shore in self.shores:
                if shore.process.poll() is not None:
                    sys.exit(f"{what}: a shore has ended\n{self.tail()}")
            if time.monotonic() > end:
                sys.exit(f"{what}: not within {seconds} s\n{self.tail()}")
            time.sleep(step)

    def tail(self):
        return "\n".join(shore.log.read_text(errors="replace")[-2000:] for shore in self.shores)

    def assert_delivered(self, digests):
        """Ends the script unless each vessel has exactly these files, with these digests."""
        for number in range(1, self.vessels + 1):
            place = self.place / f"there/ship{number:04}"
            held = set(os.listdir(place)) - {"first"}
            wrong = held ^ digests.keys()
            wrong |= {name for name in held & digests.keys() if digest((place / name).read_bytes()) != digests[name]}
            if wrong:
                sys.exit(f"{place} is wrong: {len(wrong)} files, such as {sorted(wrong)[0]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for shore in self.shores:
            shore.end()
        if self.database:
            self.database.stop("fast")
        if self.server:
            self.server.terminate()
            self.server.wait()
        if self.logs:
            for log in self.place.glob("*.log"):
                shutil.copy(log, self.logs / f"{self.place.name}-{log.name}")
        shutil.rmtree(self.place, ignore_errors=True)


def digest(content):
    return hashlib.sha256(content).digest()


def verdict(value, bar, is_met):
    print(f"{value}; the bar is {bar}: {'met' if is_met else 'MISSED'}", flush=True)


def in_turn(rounds, kinds, measure):
    """Measures each kind once a round, in alternating order. Returns the figures of each kind."""
    figures = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            figures[kind].append(measure(*kind))
    return figures


def fleet(arguments):
    """All files to all vessels: several shores with PostgreSQL, and one with SQLite."""
    vessels, files, peaks = arguments.vessels or 200, arguments.files or 20, []
    contents = {f"file{number:02}": random.randbytes(MIB) for number in range(files)}
    digests = {name: digest(content) for name, content in contents.items()}

    def measure(ledger, shores):
        with Fleet(arguments, vessels, ledger) as it:
            began = time.monotonic()
            it.start(shores)
            it.wait_until_shared()
            connected = time.monotonic() - began
            for name, content in contents.items():
                it.make(name, content)
            if it.database:
                it.database.forget_statements()
            used, began = sum(shore.processor_time() for shore in it.shores), time.monotonic()
            for name in contents:
                (it.place / "made" / name).rename(it.place / "in" / name)
            it.wait_until_retired(contents, 1800)
            took = time.monotonic() - began
            used = sum(shore.processor_time() for shore in it.shores) - used
            most = [shore.peak() for shore in it.shores]
            if it.database and arguments.statements:
                it.database.print_statements("ms")
            it.assert_delivered(digests)
        if ledger == "postgresql":
            peaks.extend(most)
        print(f"{ledger}, shores: {shores}; {took:.1f} s ({vessels * files * MIB / took / 1e6:.0f} MB/s), {used:.1f} s of processor "
              f"time, at most {', '.join(f'{one / MIB:.0f}' for one in most)} MiB; all connected after {connected:.1f} s", flush=True)
        return took

    figures = in_turn(arguments.rounds, [("sqlite", 1), ("postgresql", arguments.shores or 3)], measure)
    one, several = (statistics.median(times) for times in figures.values())
    verdict(f"{several:.1f} s against {one:.1f} s (medians), {several / one:.2f}", "1.00", several <= one)
    verdict(f"{max(peaks) / MIB:.0f} MiB at most in a shore", "200 MiB", max(peaks) <= 200 * MIB)


def small(arguments):
    """Very many small files, one shore, either ledger."""
    vessels, files = arguments.vessels or 3, arguments.files or 100_000
    contents = {f"file{number:06}": random.randbytes(KIB) for number in range(files)}
    digests = {name: digest(content) for name, content in contents.items()}

    def measure(ledger, shores):
        with Fleet(arguments, vessels, ledger) as it:
            for name, content in contents.items():
                it.put(name, content)
            # Sources that were written just now would wait for SettleTime.
            time.sleep(2)
            began = time.monotonic()
            it.start(shores)
            # The names of all files take a while to list, so the look at the last name comes first.
            source, last = it.place / "in", it.place / "in" / max(contents)
            it.wait(lambda: not last.exists() and os.listdir(source) == ["processed"], 3600, "the files retire", 0.5)
            took, used, most = time.monotonic() - began, it.shores[0].processor_time(), it.shores[0].peak()
            if it.database and arguments.statements:
                it.database.print_statements("ms")
            it.assert_delivered(digests)
        rate = files * vessels / took
        print(f"{ledger}: {took:.1f} s, {rate:.0f} deliveries/s, {used:.1f} s of processor time, {most / MIB:.0f} MiB", flush=True)
        return rate

    figures = in_turn(arguments.rounds, [("sqlite", 1), ("postgresql", 1)], measure)
    sqlite, postgresql = (statistics.median(rates) for rates in figures.values())
    ratio = postgresql / sqlite
    verdict(f"{postgresql:.0f}/s against {sqlite:.0f}/s (medians), {ratio:.2f}", "0.70", ratio >= 0.7)


class Wire:
    """A link to the vessels' namespace, without limits of its own; the kernel counts its bytes."""

    here, there, near = "10.98.1.1", "10.98.1.2", "cmshores"

    def __enter__(self):
        self.namespace = f"cmshores{os.getpid()}"
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", "cmvessels", "netns", self.namespace)
        run("ip", "addr", "add", f"{self.here}/24", "dev", self.near)
        run("ip", "link", "set", self.near, "up")
        for words in (["addr", "add", f"{self.there}/24", "dev", "cmvessels"], ["link", "set", "cmvessels", "up"]):
            run("ip", "netns", "exec", self.namespace, "ip", *words)
        return self

    def sent(self):
        return interface_bytes(self.near)[1]

    def __exit__(self, *_):
        run("ip", "netns", "del", self.namespace)


def outage(arguments):
    """The database ends while uploads are in flight, and comes back minutes later."""
    vessels, shores, minutes, rate = arguments.vessels or 6, arguments.shores or 2, arguments.minutes, MIB
    large = {f"large{number}": random.randbytes(40 * MIB) for number in range(arguments.files or 3)}
    # These arrive while the database is away.
    later = {f"small{number:03}": random.randbytes(200 * KIB) for number in range(max(1, int(minutes * 60 / 10)))}
    digests = {name: digest(content) for name, content in (large | later).items()}
    size = vessels * sum(len(content) for content in (large | later).values())

    def deliver(wire, away):
        with Fleet(arguments, vessels, "postgresql", wire.namespace, wire.there, f"RateLimit = {rate >> 20} MiB/s") as it:
            it.start(shores)
            it.wait_until_shared()
            before = wire.sent()
            for name, content in large.items():
                it.put(name, content)
            if away:
                it.wait(lambda: wire.sent() - before > 10 * rate * vessels, 120, "uploads are in flight", 0.1)
                it.database.stop("immediate")
                stopped = wire.sent() - before
                print(f"the database ends after {stopped / 1e6:.1f} MB of {size / 1e6:.1f} MB", flush=True)
            began = time.monotonic()
            for number, (name, content) in enumerate(later.items(), 1):
                it.put(name, content)
                if away:
                    time.sleep(max(0, began + minutes * 60 * number / len(later) - time.monotonic()))
            if away:
                print(f"the database starts; meanwhile {(wire.sent() - before - stopped) / 1e6:.1f} MB were sent", flush=True)
                it.database.start()
            began = time.monotonic()
            it.wait_until_retired(digests, 1800, 0.2)
            took, sent = time.monotonic() - began, wire.sent() - before
            it.assert_delivered(digests)
            written = int(it.database.query("SELECT sum(written_bytes) FROM contentmonster.delivery"))
            litter = [path for path in (it.place / "temp").rglob("*") if path.is_file()]
        what = f"{minutes:g} minutes without the database" if away else "no outage"
        print(f"{what}: all delivered {took:.1f} s later; {sent} bytes on the link for {size} of files; the ledger counts "
              f"{written - vessels * KIB}; {len(litter)} files left in TempDir", flush=True)
        return sent, written - vessels * KIB

    with Wire() as wire:
        (plain, _), (broken, written) = deliver(wire, False), deliver(wire, True)
    # What a second of the limit carries is the least that is in flight between a write and its acknowledgement.
    flying = vessels * rate
    verdict(f"{broken - plain} bytes more on the link than without an outage", f"{flying} in flight", broken - plain <= flying)
    verdict(f"{written - size} bytes more written than the files have", f"{flying} in flight", written - size <= flying)


def idle(arguments):
    """Connected vessels and nothing to do."""
    vessels, shores = arguments.vessels or 200, arguments.shores or 2
    with Fleet(arguments, vessels, "postgresql") as it:
        it.start(shores)
        it.wait_until_shared()
        time.sleep(arguments.seconds / 4)
        it.database.forget_statements()
        used, began = [shore.processor_time() for shore in it.shores], time.monotonic()
        time.sleep(arguments.seconds)
        calls = it.database.statements()
        took = time.monotonic() - began
        used = [shore.processor_time() - before for shore, before in zip(it.shores, used)]
        print(f"{vessels} vessels, {shores} shores, {took:.0f} s: {calls} statements; {', '.join(f'{one / took:.1%}' for one in used)} "
              f"of a core, {', '.join(f'{shore.peak() / MIB:.0f}' for shore in it.shores)} MiB at most")
        it.database.print_statements("calls")
    verdict(f"{calls / took:.1f} statements per second", "20", calls / took <= 20)


def handover(arguments):
    """One of two shores ends under traffic, and the other one takes all work."""
    work = "SELECT count(*) FROM contentmonster.lease w JOIN contentmonster.lease s ON s.token = w.shore WHERE w.name NOT LIKE 'shore %'"
    with Fleet(arguments, arguments.vessels or 20, "postgresql") as it:
        it.start(2)
        it.wait_until_shared()
        over = threading.Event()

        def write():
            for number in itertools.cycle(range(300)):
                if over.wait(0.2):
                    return
                it.put(f"file{number}", random.randbytes(random.choice([KIB, 100 * KIB, 300 * KIB])))

        traffic = threading.Thread(target=write)
        traffic.start()
        took = []
        try:
            for number in range(arguments.rounds):
                shore, other = it.shores[number % 2], it.shores[1 - number % 2]
                # Long enough for the one that came last to have its share.
                time.sleep(12)
                everything = it.database.query(work)
                shore.process.terminate()
                began = time.monotonic()
                while it.database.query(f"{work} AND s.name = 'shore {other.settings.stem}'") != everything:
                    if time.monotonic() > began + 60:
                        sys.exit(f"{shore.settings.stem} has not handed over within 60 s\n{it.tail()}")
                    time.sleep(0.01)
                took.append(time.monotonic() - began)
                shore.end()
                it.shores[number % 2] = Shore(it.program, it.place, shore.settings.stem, it.settings)
        finally:
            over.set()
            traffic.join()
    took.sort()
    print("handed over after", ", ".join(f"{one:.2f}" for one in took), "s")
    verdict(f"median {statistics.median(took):.2f} s, most {took[-1]:.2f} s", "1 s", took[-1] <= 1)


CASES = {"fleet": fleet, "small": small, "outage": outage, "idle": idle, "handover": handover}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--program", required=True, help="the program to measure")
    parser.add_argument("--dir", help="where files, ledgers and the database go")
    parser.add_argument("--logs", type=Path, help="a directory that keeps the logs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--statements", action="store_true", help="shows what the database spent its time on (fleet, small)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="adds to the settings of the vessels")
    parser.add_argument("--vessels", type=int, help="vessels: 200, small 3, outage 6")
    parser.add_argument("--files", type=int, help="files: fleet 20, small 100000, outage 3 large ones")
    parser.add_argument("--shores", type=int, help="shores with PostgreSQL: fleet 3, outage and idle 2")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each kind (fleet, small), or handovers")
    parser.add_argument("--minutes", type=float, default=10, help="minutes without the database (outage)")
    parser.add_argument("--seconds", type=float, default=120, help="seconds to watch (idle)")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    # A namespace of its own: the port of the server meets no other one.
    if "SHORES_INSIDE" not in os.environ:
        os.environ["SHORES_INSIDE"] = "yes"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    run("ip", "link", "set", "lo", "up")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    CASES[arguments.case](arguments)


if __name__ == "__main__":
    main()
