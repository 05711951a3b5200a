#!/usr/bin/env python3
"""Measures a vessel with two links: how fast they take over from each other, what budgets cost, what both carry at once.

    benches/two_links.py --program target/release/contentmonster --emulator EMULATOR switches|day|together

EMULATOR is a program that joins two network interfaces by a bad link. It is called as `EMULATOR IF IF ONE_WAY_MS LOSS_PERCENT
MBIT QUEUE_KIB CUT_EVERY_S CUT_FOR_S SEED`, says `ready`, turns the link off and on at SIGUSR1, and at SIGTERM ends with the
counters of both directions (`… bytes=N …`). Needs root, iproute2 and sshd; all network traffic stays in two new namespaces.
"""

import argparse
import hashlib
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

MIB = 1 << 20


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def interface_bytes(name):
    """The bytes that the interface received and sent, as the kernel counts them."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        interface, _, counters = line.strip().partition(":")
        if interface == name:
            return int(counters.split()[0]), int(counters.split()[8])
    sys.exit(f"there is no interface {name}")


def serve(place, namespace=None):
    """Starts an SSH server at port 2222, with new keys of the host and the user in `place`."""
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name)
    lines = [
        "Port 2222", "ListenAddress 0.0.0.0", f"HostKey {place}/host", f"AuthorizedKeysFile {place}/user.pub",
        "StrictModes no", "UsePAM no", "PermitRootLogin yes", "PidFile none", "MaxStartups 1000", "MaxSessions 100",
        "Subsystem sftp internal-sftp",
    ]
    config = place / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    words = ["ip", "netns", "exec", namespace] if namespace else []
    words += [shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin"), "-D", "-f", config]
    return subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)


def fingerprint(place):
    return run("ssh-keygen", "-l", "-f", place / "host.pub").split()[1]


class Emulated:
    """One link, from this namespace to the vessel's."""

    def __init__(self, emulator, number, rtt, mbit, namespace, queue=256):
        self.here, self.there = f"10.98.{number}.1", f"10.98.{number}.2"
        near, far = f"cmshore{number}", f"cmvessel{number}"
        words = [emulator, near, far, rtt / 2, 0, mbit, queue, 0, 0, number]
        self.process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        run("ip", "link", "set", far, "netns", namespace)
        run("ip", "addr", "add", f"{self.here}/24", "dev", near)
        run("ip", "link", "set", near, "up")
        run("ip", "netns", "exec", namespace, "ip", "addr", "add", f"{self.there}/24", "dev", far)
        run("ip", "netns", "exec", namespace, "ip", "link", "set", far, "up")
        self.near, self.is_up = near, True

    def set(self, is_up):
        if is_up != self.is_up:
            self.process.send_signal(signal.SIGUSR1)
            self.is_up = is_up

    def bytes(self):
        """The bytes that went into the link on either side."""
        return sum(interface_bytes(self.near))

    def end(self):
        self.process.terminate()
        self.process.communicate()


class Bench:
    """Two links, a vessel behind them, and the program."""

    def __init__(self, arguments, links, vessel_keys, link_keys, queue):
        self.program = Path(arguments.program).resolve()
        self.place = Path(tempfile.mkdtemp(prefix="two-links-", dir=arguments.dir))
        self.namespace = f"cmvessel{os.getpid()}"
        run("ip", "netns", "add", self.namespace)
        run("ip", "netns", "exec", self.namespace, "ip", "link", "set", "lo", "up")
        run("ip", "link", "set", "lo", "up")
        self.links = {
            name: Emulated(arguments.emulator, number, rtt, mbit, self.namespace, queue)
            for number, (name, rtt, mbit) in enumerate(links, 1)
        }
        self.processes = [serve(self.place, self.namespace)]
        self._write_settings(vessel_keys, link_keys)
        self.daemon = None

    def _write_settings(self, vessel_keys, link_keys):
        text = f"[MONSTER]\nDatabase = {self.place}/ledger\n\n"
        for name in self.links:
            text += f"[Link {name}]\n{link_keys.get(name, '')}\n\n"
        for name in ("in", "mirror"):
            (self.place / name).mkdir()
            (self.place / f"there-{name}").mkdir()
        text += f"[Directory in]\nLocation = {self.place}/in\nSettleTime = 100ms\n\n"
        text += f"[Directory mirror]\nLocation = {self.place}/mirror\nMode = mirror\nRecursive = yes\nSettleTime = 100ms\n\n"
        text += f"[Vessel aurora]\nPort = 2222\nUsername = root\nIdentityFile = {self.place}/user\nHostKey = {fingerprint(self.place)}\n"
        text += "".join(f"Address.{name} = {link.there}\n" for name, link in self.links.items())
        text += f"TempDir = {self.place}/temp\nRemoteLocation.in = {self.place}/there-in\n"
        text += f"RemoteLocation.mirror = {self.place}/there-mirror\n{vessel_keys}\n"
        self.settings = self.place / "settings.ini"
        self.settings.write_text(text)

    def start(self):
        log = open(self.place / "log", "ab")
        words = [self.program, "--settings", self.settings]
        self.daemon = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait(60)
        self.daemon = None

    def log(self):
        return (self.place / "log").read_text(errors="replace")

    def status(self):
        return json.loads(run(self.program, "--settings", self.settings, "status", "--json"))

    def put(self, name, size, directory="in"):
        path = self.place / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.place / "new"
        temporary.write_bytes(random.randbytes(size))
        temporary.rename(path)
        return path

    def wait(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                print(self.log()[-3000:], file=sys.stderr)
                sys.exit(f"{what}: not within {seconds} s")
            time.sleep(0.005)

    def landed(self):
        """The bytes that the vessel has of all files, complete or not."""
        places = [self.place / "temp", self.place / "there-in", self.place / "there-mirror"]
        sizes = 0
        for place in places:
            for path in place.rglob("*"):
                try:
                    sizes += path.stat().st_size if path.is_file() else 0
                except FileNotFoundError:
                    pass
        return sizes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.daemon:
            self.stop()
        for process in self.processes:
            process.terminate()
            process.wait()
        for link in self.links.values():
            link.end()
        run("ip", "netns", "del", self.namespace)
        shutil.rmtree(self.place, ignore_errors=True)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trees_differ(one, other):
    def files(top):
        return {path.relative_to(top): digest(path) for path in top.rglob("*") if path.is_file()}

    first, second = files(one), files(other)
    return sorted(str(path) for path in first.keys() | second.keys() if first.get(path) != second.get(path))


def distribution(seconds, bar):
    seconds = sorted(seconds)
    within = sum(one <= bar for one in seconds)
    return (f"{within} of {len(seconds)} within {bar} s, median {statistics.median(seconds):.2f}, "
            f"most {seconds[-1]:.2f}")


def switches(bench, arguments):
    """LTE goes down and up; how long until the other link carries the mirror's files."""
    bench.start()
    first = bench.put("first", 1000, "mirror")
    bench.wait(lambda: (bench.place / "there-mirror/first").exists(), 60, "the first file")
    stop, count = threading.Event(), [0]

    def traffic():
        while not stop.wait(0.25):
            count[0] += 1
            bench.put(f"d{count[0] % 7}/f{count[0] % 40}", random.choice([1000, 20_000, 300_000]), "mirror")

    writer = threading.Thread(target=traffic, daemon=True)
    writer.start()
    to, pause = {"vsat": [], "lte": []}, 12
    for _number in range(arguments.switches // 2):
        for name, is_up in (("vsat", False), ("lte", True)):
            time.sleep(pause * random.uniform(0.8, 1.2))
            before = bench.links[name].bytes()
            began = time.monotonic()
            bench.links["lte"].set(is_up)
            # The satellite's connection is there already and has only keepalives; one over LTE logs in first.
            least = 4_000 if name == "vsat" else 30_000
            bench.wait(lambda: bench.links[name].bytes() - before > least, 60, f"{name} carries")
            to[name].append(time.monotonic() - began)
    stop.set()
    writer.join()
    bench.wait(lambda: not trees_differ(bench.place / "mirror", bench.place / "there-mirror"), 300, "all files")
    time.sleep(45)
    litter = [str(path) for path in (bench.place / "temp").rglob("*") if path.is_file()]
    litter += [path for path in trees_differ(bench.place / "mirror", bench.place / "there-mirror")]
    assert first.exists()
    print(f"to vsat: {distribution(to['vsat'], 3)}")
    print(f"to lte: {distribution(to['lte'], 3)}")
    print(f"{count[0]} versions, all there as on the shore; left after 45 s: {litter or 'nothing'}")


def day(bench, arguments):
    """LTE comes and goes; the satellite has a budget. Compared with what an ideal plan would carry."""
    budget, cycle, share, cycles = arguments.budget * 1_000_000, arguments.cycle, 0.25, arguments.cycles
    ideal = cycles * cycle * share * 20e6 / 8 + min(budget, cycles * cycle * (1 - share) * 2e6 / 8)
    for number in range(int(ideal / (16 * MIB)) + 4):
        bench.put(f"film-{number:03}", 16 * MIB)
    bench.links["lte"].set(False)
    bench.start()
    bench.wait(lambda: bench.links["vsat"].bytes() > 100_000, 60, "the satellite carries")
    began, kills = time.monotonic(), 0
    for number in range(cycles):
        bench.links["lte"].set(True)
        time.sleep(cycle * share)
        bench.links["lte"].set(False)
        rest = cycle * (1 - share)
        if arguments.kills:
            time.sleep(rest * 0.2)
            bench.daemon.kill()
            bench.daemon.wait()
            kills += 1
            bench.start()
            rest *= 0.8
        time.sleep(rest)
    took, landed = time.monotonic() - began, bench.landed()
    status = bench.status()
    counted = bench.links["vsat"].bytes()
    time.sleep(20)
    later = bench.links["vsat"].bytes()
    ways = {way["link"]: way for way in status["vessels"][0]["ways"] if way.get("link")}
    known = ways.get("vsat", {})
    print(f"{took:.0f} s, {kills} kills: {landed / 1e6:.1f} MB there, {landed / ideal:.1%} of the ideal {ideal / 1e6:.1f} MB")
    print(f"satellite: {counted} bytes at the counter, {counted / budget - 1:+.2%} of the budget, {later - counted} in 20 s more")
    print(f"the program counts: {json.dumps(known)}")


def together(bench, arguments):
    """One file of 64 MiB over both links at once."""
    rates = []
    bench.start()
    bench.put("first", 1000)
    bench.wait(lambda: (bench.place / "there-in/first").exists(), 60, "the first file")
    for number in range(arguments.rounds):
        size = 64 * MIB
        name = f"large-{number}"
        bench.put(name, size)
        began = time.monotonic()
        bench.wait(lambda: (bench.place / "in/processed" / name).exists(), 300, name)
        took = time.monotonic() - began
        rates.append(size * 8 / took / 30e6)
        print(f"64 MiB in {took:.2f} s: {rates[-1]:.1%} of the sum", flush=True)
    print(f"median {statistics.median(rates):.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["switches", "day", "together"])
    parser.add_argument("--program", required=True, help="the program to measure")
    parser.add_argument("--emulator", required=True, help="the program that makes a link")
    parser.add_argument("--dir", help="where the files go")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--switches", type=int, default=200, help="switches of the links (switches)")
    parser.add_argument("--cycle", type=float, default=240, help="seconds from one time of LTE to the next, a fourth of which it is there (day)")
    parser.add_argument("--budget", type=int, default=50, help="megabytes a day for the satellite (day)")
    parser.add_argument("--cycles", type=int, default=3, help="times of LTE (day)")
    parser.add_argument("--kills", action="store_true", help="kill -9 in each cycle (day)")
    parser.add_argument("--rounds", type=int, default=5, help="files, one after the other (together)")
    arguments = parser.parse_args()
    arguments.emulator = str(Path(arguments.emulator).resolve())
    random.seed(arguments.seed)
    # A namespace of its own: the shore's addresses meet no others.
    if "TWO_LINKS_INSIDE" not in os.environ:
        os.environ["TWO_LINKS_INSIDE"] = "yes"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    ship = [("lte", 60, 20), ("vsat", 600, 2)]
    case, links, vessel_keys, link_keys, queue = {
        "switches": (switches, ship, "", {"lte": "Preference = 10"}, 256),
        "day": (day, ship, "", {"lte": "Preference = 10", "vsat": f"Budget = {arguments.budget} MB/day"}, 256),
        "together": (together, [("near", 50, 10), ("far", 300, 20)], "Together = yes", {"near": "Preference = 1"}, 512),
    }[arguments.case]
    with Bench(arguments, links, vessel_keys, link_keys, queue) as bench:
        case(bench, arguments)


if __name__ == "__main__":
    main()
