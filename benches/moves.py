#!/usr/bin/env python3
"""Measures what moves and duplicates cost on the link: bytes in both directions, and times, beside rsync in the same run.

    benches/moves.py --program target/release/contentmonster [--emulator EMULATOR] [--cases file tree swap rotation copy first]

`file` renames a file of 1 GiB in a mirror, and `tree` a directory with 10,000 files in 300 directories. `swap` exchanges the
names of two files of 64 MiB; `rotation` rotates logs of 64 MiB. `copy` drops a file of 1 GiB into a replicate directory that a
vessel has already: from another directory, and under another name. `first` mirrors 20,000 files of 1 KiB for the first time,
then 500 changed and 200 deleted ones, by `--once` and by a running program.

The kernel counts the bytes at the shore's interface of the vessel's link, from the change until 2 s after the vessel has it.
Times end when the vessel has the change, or when `--once` or rsync ends. Settings are the defaults, also SettleTime; only mirrors
have `Recursive = yes` and `Delete = yes`, and in `first` as much `MaxDelete` as deletions. So times contain the second for which deletions
wait. In the end, the trees are compared: names, sizes, SHA-256, and the files' times in seconds.

rsync runs as `rsync -a --delete` over ssh to the same sshd, with a tree of its own there. --emulator names a program that makes a
link (two_links.py says how it is called); with it, all changes are measured at 600 ms and 20 Mbit/s, and only what is there
before goes over a fast link. Needs root, iproute2, rsync and sshd; all network traffic stays in two new namespaces.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shores import KIB, Wire, in_turn
from two_links import MIB, Emulated, fingerprint, interface_bytes, run, serve

GIB = 1 << 30
# The vessel has this address on either link.
VESSEL = "10.98.9.2"
RTT, MBIT = 600, 20
# Time before a change in which nothing happens, and time after it in which bytes still count, in seconds.
BEFORE, AFTER = 5, 2


class Links:
    """A fast link to the vessel, and a slow one if there is an emulator."""

    def __init__(self, emulator):
        self.emulator, self.slow = emulator, None

    def __enter__(self):
        self.wire = Wire().__enter__()
        try:
            inside = ["ip", "netns", "exec", self.wire.namespace, "ip"]
            run(*inside, "link", "set", "lo", "up")
            run(*inside, "addr", "add", f"{VESSEL}/32", "dev", "lo")
            if self.emulator:
                self.slow = Emulated(self.emulator, 2, RTT, MBIT, self.wire.namespace)
        except BaseException:
            self.__exit__()
            raise
        return self

    def use_fast(self):
        self._use(self.wire)

    def use_measured(self):
        self._use(self.slow or self.wire)

    def _use(self, link):
        self.near = link.near
        run("ip", "route", "replace", f"{VESSEL}/32", "via", link.there)

    def bytes(self):
        """The bytes that came from the vessel, and those that went there, over the link in use."""
        return interface_bytes(self.near)

    def __exit__(self, *_):
        if self.slow:
            self.slow.end()
        self.wire.__exit__()


class Bench:
    """A vessel, and the program with a new ledger."""

    def __init__(self, arguments, links, mirrors=(), drops=(), keys=""):
        self.program, self.logs, self.links = Path(arguments.program).resolve(), arguments.logs, links
        self.mirrors, self.drops, self.keys = mirrors, drops, keys
        self.place = Path(tempfile.mkdtemp(prefix="moves-", dir=arguments.dir))
        self.made = self.place / "made"
        self.daemon = self.server = None
        try:
            self.made.mkdir()
            links.use_fast()
            self.server = serve(self.place, links.wire.namespace)
            self.renew()
        except BaseException:
            self.__exit__()
            raise

    def renew(self):
        """Begins with a new ledger and empty directories."""
        for path in [*self.place.glob("ledger*"), *self.place.glob("shore-*"), *self.place.glob("there-*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in (*self.mirrors, *self.drops, "ready"):
            self.shore(name).mkdir()
            self.there(name).mkdir()
            self.there_by_rsync(name).mkdir()
        self.settings = self.place / "settings.ini"
        mirror = f"Mode = mirror\nRecursive = yes\nDelete = yes\n{self.keys}\n"
        text = f"""[MONSTER]
Database = {self.place}/ledger

[Vessel aurora]
Address = {VESSEL}
Port = 2222
Username = root
IdentityFile = {self.place}/user
HostKey = {fingerprint(self.place)}
TempDir = {self.place}/temp
"""
        for name in (*self.mirrors, *self.drops, "ready"):
            text += f"\n[Directory {name}]\nLocation = {self.shore(name)}\nRemoteLocation = {self.there(name)}\n"
            text += mirror if name in self.mirrors else ""
        self.settings.write_text(text)

    def shore(self, name):
        return self.place / f"shore-{name}"

    def there(self, name):
        return self.place / f"there-{name}"

    def there_by_rsync(self, name):
        return self.place / f"there-rsync-{name}"

    def start(self):
        log = open(self.place / "log", "ab")
        self.daemon = subprocess.Popen([self.program, "--settings", self.settings], stdout=log, stderr=log)

    def wait_until_quiet(self):
        """Waits until the program has delivered a small file, and for a moment in which it does nothing."""
        name = f"ready-{time.monotonic_ns()}"
        self.drop("ready", name, b"ready")
        self.wait(lambda: (self.shore("ready") / "processed" / name).exists(), 900, "a small file is delivered")
        time.sleep(BEFORE)

    def go_on(self):
        """Goes over to the link that is measured."""
        if self.links.slow:
            self.stop()
            self.links.use_measured()
            self.start()
        self.wait_until_quiet()

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            try:
                self.daemon.wait(60)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
            self.daemon = None

    def once(self):
        with open(self.place / "log", "ab") as log:
            subprocess.run([self.program, "--settings", self.settings, "--once"], check=True, stdout=log, stderr=log)

    def drop(self, directory, name, content):
        """Puts bytes, or a copy of a file, into a directory in one step."""
        path = self.made / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copy2(content, path)
        path.rename(self.shore(directory) / name)

    def rsync(self, source, name):
        ssh = (f"ssh -F none -p 2222 -i {self.place}/user -o UserKnownHostsFile={self.place}/known "
               "-o StrictHostKeyChecking=accept-new -o LogLevel=ERROR")
        run("rsync", "-a", "--delete", "-e", ssh, f"{source}/", f"root@{VESSEL}:{self.there_by_rsync(name)}/")

    def wait(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if self.daemon and self.daemon.poll() is not None:
                sys.exit(f"{what}: the program has ended\n{self.tail()}")
            if time.monotonic() > end:
                sys.exit(f"{what}: not within {seconds} s\n{self.tail()}")
            time.sleep(0.01)

    def tail(self):
        return (self.place / "log").read_text(errors="replace")[-3000:]

    def measure_rsync(self, source, name):
        """Returns the bytes of a run of rsync, and how long it took."""
        counted, began = self.links.bytes(), time.monotonic()
        self.rsync(source, name)
        took = time.monotonic() - began
        time.sleep(AFTER)
        assert_equal(source, self.there_by_rsync(name))
        return [after - before for after, before in zip(self.links.bytes(), counted)], took

    def measure(self, name, change):
        """Carries out a change to a mirror. Returns the bytes, the seconds until the vessel has it, and those that the
        change itself took."""
        source, there = self.shore(name), self.there(name)
        before = shape(source)
        counted, began = self.links.bytes(), time.monotonic()
        # A change may return the paths that it touched, so that the shore's tree is not walked meanwhile.
        touched = change(source)
        changed = time.monotonic()
        after = shape(source) if touched is None else {path: state(source / path) for path in touched}
        paths = touched or [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        self.wait_for(there, {path: after.get(path) for path in paths})
        took = time.monotonic() - began
        time.sleep(AFTER)
        counted = [after - before for after, before in zip(self.links.bytes(), counted)]
        assert_equal(source, there)
        return counted, took, changed - began

    def wait_for(self, there, wanted):
        """Waits until all these paths have these states on the vessel."""
        paths = list(wanted)

        def is_there():
            while paths and state(there / paths[-1]) == wanted[paths[-1]]:
                paths.pop()
            return not paths

        self.wait(is_there, 1800, f"{there.name} changes")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        if self.server:
            self.server.terminate()
            self.server.wait()
        if self.logs and (self.place / "log").exists():
            shutil.copy(self.place / "log", self.logs / f"{self.place.name}.log")
        shutil.rmtree(self.place, ignore_errors=True)


def state(path):
    """What is at a path: the size and the time of a file, or that it is a directory; `None` if there is nothing."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return "directory" if path.is_dir() else (status.st_size, int(status.st_mtime))


def shape(top):
    """The states of all paths below a directory."""
    return {path.relative_to(top): state(path) for path in top.rglob("*")}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def assert_equal(source, there):
    """Ends the script unless both trees have the same names, sizes, contents and times of files."""
    one, other = shape(source), shape(there)
    wrong = [path for path in one.keys() | other.keys() if one.get(path) != other.get(path)]
    files = [path for path, what in one.items() if what != "directory"]
    wrong = wrong or [path for path in files if digest(source / path) != digest(there / path)]
    if wrong:
        path = min(wrong)
        sys.exit(f"{there} is wrong: {len(wrong)} paths, such as {path}: {one.get(path)} on the shore, {other.get(path)} there")


def write(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for at in range(0, size, MIB):
            file.write(random.randbytes(min(MIB, size - at)))


def print_figure(what, value, bar, is_kept):
    print(f"{what}: {value}; the bar is {bar}: {'kept' if is_kept else 'MISSED'}", flush=True)


def print_bytes(what, counted, bar):
    received, sent = counted
    print_figure(what, f"{sent + received} bytes ({sent} sent, {received} received)", f"{bar} bytes", sent + received <= bar)


def print_rsync(what, counted, took):
    received, sent = counted
    print(f"{what}, rsync: {sent + received} bytes ({sent} sent, {received} received), {took:.2f} s", flush=True)


def change_mirror(arguments, links, case, make, change, bytes_bar, seconds_bar=None):
    """Delivers a mirror, changes it, and measures that with the program, then with rsync."""
    with Bench(arguments, links, mirrors=["mirror"]) as it:
        make(it.shore("mirror"))
        it.rsync(it.shore("mirror"), "mirror")
        it.start()
        it.wait_for(it.there("mirror"), shape(it.shore("mirror")))
        it.go_on()
        counted, took, _ = it.measure("mirror", change)
        print_bytes(case, counted, bytes_bar)
        if seconds_bar:
            print_figure(case, f"{took:.2f} s", f"{seconds_bar} s", took <= seconds_bar)
        else:
            print(f"{case}: {took:.2f} s", flush=True)
        it.stop()
        print_rsync(case, *it.measure_rsync(it.shore("mirror"), "mirror"))


def scaled(arguments, number):
    return max(1, int(number * arguments.size))


def file(arguments, links):
    """A large file gets another name."""

    def make(top):
        write(top / "film", scaled(arguments, GIB))

    def change(top):
        (top / "film").rename(top / "renamed")

    change_mirror(arguments, links, "file", make, change, 64 * KIB)


def tree(arguments, links):
    """A directory with many files gets another name."""
    files, directories = scaled(arguments, 10_000), scaled(arguments, 300)

    def make(top):
        # Three levels below the directory that is renamed: 10 directories, 10 in each of them, and the others in those.
        paths = [top / "charts"]
        for number in range(1, directories):
            above = paths[0] if number <= 10 else paths[1 + number % 10] if number <= 110 else paths[11 + number % 100]
            paths.append(above / f"part{number:03}")
        for number in range(files):
            write(paths[number % directories] / f"chart{number:05}", random.randint(KIB, 4 * KIB))

    def change(top):
        (top / "charts").rename(top / "maps")

    change_mirror(arguments, links, "tree", make, change, 2 * MIB, 20 if arguments.emulator else 5)


def swap(arguments, links):
    """Two files exchange their names."""

    def make(top):
        for number, name in enumerate(("a", "b")):
            write(top / name, scaled(arguments, 64 * MIB))
            os.utime(top / name, (0, time.time() - 100 * number))

    def change(top):
        for one, other in (("a", "t"), ("b", "a"), ("t", "b")):
            (top / one).rename(top / other)

    change_mirror(arguments, links, "swap", make, change, 64 * KIB)


def rotation(arguments, links):
    """Logs are rotated, and a new one begins."""
    new = scaled(arguments, 100 * KIB)

    def make(top):
        for number, name in enumerate(("log", "log.1")):
            write(top / name, scaled(arguments, 64 * MIB))
            os.utime(top / name, (0, time.time() - 100 * number))

    def change(top):
        (top / "log.1").rename(top / "log.2")
        (top / "log").rename(top / "log.1")
        write(top / "log", new)

    change_mirror(arguments, links, "rotation", make, change, new + 64 * KIB)


def copy(arguments, links):
    """A file that the vessel has already is dropped into a directory in replicate mode."""
    size = scaled(arguments, GIB)

    def measure(it, name):
        """Measures the drop of the file `new` of the directory `made` into `drop`."""
        new, there = it.made / "new", it.there("drop") / name
        wanted, content = state(new), digest(new)
        counted, began = it.links.bytes(), time.monotonic()
        new.rename(it.shore("drop") / name)
        it.wait(lambda: state(there) == wanted, 1800, f"{there} is there")
        took = time.monotonic() - began
        time.sleep(AFTER)
        counted = [after - before for after, before in zip(it.links.bytes(), counted)]
        it.wait(lambda: (it.shore("drop") / "processed" / name).exists(), 60, "the file retires")
        if digest(there) != content or digest(it.shore("drop") / "processed" / name) != content:
            sys.exit(f"{there} is wrong")
        return counted, took

    def report(case, counted, took):
        print_bytes(case, counted, 64 * KIB)
        print(f"{case}: {took:.2f} s", flush=True)

    with Bench(arguments, links, mirrors=["archive"], drops=["drop"]) as it:
        film = it.shore("archive") / "film"
        write(film, size)
        it.start()
        it.wait_for(it.there("archive"), shape(it.shore("archive")))
        shutil.copy2(film, it.made / "new")
        it.go_on()
        report("copy, into another directory", *measure(it, "film"))
        it.stop()
        links.use_fast()
        it.rsync(it.shore("archive"), "archive")
        links.use_measured()
        print_rsync("copy, into another directory", *it.measure_rsync(it.shore("drop") / "processed", "drop"))

    with Bench(arguments, links, drops=["drop"]) as it:
        write(it.made / "film", size)
        (it.made / "film").rename(it.shore("drop") / "film")
        it.start()
        retired = it.shore("drop") / "processed/film"
        it.wait(retired.exists, 900, "the file retires")
        shutil.copy2(retired, it.made / "new")
        it.go_on()
        report("copy, under another name", *measure(it, "film-again"))
        it.stop()
        plain = it.place / "plain"
        plain.mkdir()
        (plain / "film").hardlink_to(retired)
        links.use_fast()
        it.rsync(plain, "drop")
        links.use_measured()
        (plain / "film-again").hardlink_to(it.shore("drop") / "processed/film-again")
        print_rsync("copy, under another name", *it.measure_rsync(plain, "drop"))


def first(arguments, links):
    """A tree of small files for the first time, and changes to it. No time contains the wait for SettleTime: the files are
    older when a command starts, and the running program sees them being closed."""
    files, changed, deleted = (scaled(arguments, number) for number in (20_000, 500, 200))
    paths = [Path(f"d{number % 100:02}/f{number:05}") for number in range(files)]
    contents = [random.randbytes(KIB) for _ in paths]

    with Bench(arguments, links, mirrors=["mirror"], keys=f"MaxDelete = {deleted}") as it:
        links.use_measured()
        source, there = it.shore("mirror"), it.there("mirror")

        def change(source):
            chosen = random.Random(arguments.seed).sample(paths, changed + deleted)
            for path in chosen[:changed]:
                (source / path).write_bytes(random.randbytes(KIB))
            for path in chosen[changed:]:
                (source / path).unlink()
            return chosen

        def timed(work):
            began = time.monotonic()
            work()
            return time.monotonic() - began

        def measure(kind):
            it.renew()
            for path, content in zip(paths, contents):
                (source / path).parent.mkdir(exist_ok=True)
                (source / path).write_bytes(content)
            time.sleep(3)
            if kind == "running":
                wanted = shape(source)
                begin = timed(lambda: (it.start(), it.wait_for(there, wanted)))
                it.wait_until_quiet()
                _, took, changing = it.measure("mirror", change)
                # rsync and `--once` begin after the changes.
                took -= changing
                it.stop()
            else:
                work = it.once if kind == "once" else lambda: it.rsync(source, "mirror")
                begin = timed(work)
                change(source)
                time.sleep(3)
                took = timed(work)
            assert_equal(source, it.there_by_rsync("mirror") if kind == "rsync" else there)
            print(f"first, {kind}: {begin:.2f} s, changes {took:.2f} s", flush=True)
            return begin, took

        figures = in_turn(arguments.rounds, [("once",), ("running",), ("rsync",)], measure)
    medians = {kind: [statistics.median(values) for values in zip(*figures[(kind,)])] for kind in ("once", "running", "rsync")}
    for number, what in enumerate(("first", "first, changes")):
        theirs = medians["rsync"][number]
        for kind in ("once", "running"):
            ours = medians[kind][number]
            value = f"{ours:.2f} s against {theirs:.2f} s (medians), {ours / theirs:.2f}"
            print_figure(f"{what}, {kind}", value, "1.50", ours <= 1.5 * theirs)


CASES = {"file": file, "tree": tree, "swap": swap, "rotation": rotation, "copy": copy, "first": first}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the program to measure")
    parser.add_argument("--emulator", help="the program that makes a link")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--dir", default="/dev/shm", help="where files and the ledger go (6 GiB)")
    parser.add_argument("--logs", type=Path, help="a directory that keeps the logs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (first)")
    parser.add_argument("--size", type=float, default=1, help="sizes and numbers of files are multiplied by this")
    arguments = parser.parse_args()
    arguments.emulator = arguments.emulator and str(Path(arguments.emulator).resolve())
    # A namespace of its own: the shore's addresses meet no others.
    if "MOVES_INSIDE" not in os.environ:
        os.environ["MOVES_INSIDE"] = "yes"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    run("ip", "link", "set", "lo", "up")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    which = f"a link of {RTT} ms and {MBIT} Mbit/s" if arguments.emulator else "a fast link"
    with Links(arguments.emulator) as links:
        for case in arguments.cases:
            random.seed(arguments.seed)
            print(f"{case}, over {which}; load average {os.getloadavg()[0]:.1f}", flush=True)
            CASES[case](arguments, links)


if __name__ == "__main__":
    main()
