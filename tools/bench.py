# SPDX-License-Identifier: Apache-2.0
"""What tools/bench runs: the same load through several forwarders, in turns.

Theory of operation

All runs in a network namespace of its own, on its loopback. One server takes all
tests (tests/bench/load.c). Every forwarder is started once for each way and stays
up, idle ones cost nothing. In each round every test is run once through each
forwarder, one right after the other, so that what else the machine does meets them
all alike, and each round begins with another one of them, so that none always comes
behind the same other. What matters are the ratios: the load generator, the server
and the forwarder share the processors. A ratio is taken in each round, from runs
that are less than seconds apart; their median is printed, and behind it the interval
that holds the true median with a probability of 95 % (order statistics). Many short
rounds are better than few long ones: a machine that others use as well changes from
one second to the next.

Beside the rate stands what the forwarder's own processes took of a processor for
each connection, round trip or megabyte. It hardly depends on what else the machine
does, so it is the better figure on one that is busy.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TESTS = [("c", "connections/s"), ("p", "64 B round trips/s"), ("b", "bulk MB/s")]
WAYS = ["tcp", "unix"]
NAMES = ["direct", "proxy", "haproxy", "socat"]

HAPROXY = """
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 60s
    timeout client 1h
    timeout server 1h
listen tcp
    bind 127.0.0.1:{tcp}
    server s 127.0.0.1:{server}
listen unix
    bind unix@{unix}
    server s 127.0.0.1:{server}
"""


def enter_namespace():
    """Start again where no port is taken and nothing can get out."""
    if os.environ.get("BENCH_NAMESPACE"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    argv = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        argv += ["--user", "--map-root-user"]
    os.environ["BENCH_NAMESPACE"] = "1"
    os.execvp("unshare", argv + [sys.executable, "-B"] + sys.argv)


def build(path):
    if not path:
        path = os.path.join(ROOT, "build-bench")
        if not os.path.exists(path + "/build.ninja"):
            subprocess.run(["meson", "setup", path, "--buildtype=release", ROOT],
                           check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["ninja", "-C", path, "proxy/proxy", "tests/bench/bench_load"],
                       check=True, stdout=subprocess.DEVNULL)
    return os.path.abspath(path)


class Forwarders:
    """Where to connect for each name and way."""

    def __init__(self, build_dir, directory):
        self.load = build_dir + "/tests/bench/bench_load"
        self.directory = directory
        self.port = 7000
        self.endpoints = {}
        self.pids = {}
        server = self._port()
        unix = directory + "/direct.sock"
        self._start([self.load, "server", "tcp:127.0.0.1:%d" % server])
        self._start([self.load, "server", "unix:" + unix])
        self.endpoints["direct"] = {
            "tcp": "tcp:127.0.0.1:%d" % server, "unix": "unix:" + unix}
        target = "127.0.0.1:%d" % server

        places = self._places("proxy")
        for way in WAYS:
            self.pids["proxy", way] = [self._start([
                build_dir + "/proxy/proxy", "vsock-to-ip", "--log", "warn",
                "-v", places[way], "-i", target])]

        places = self._places("haproxy")
        conf = directory + "/haproxy.cfg"
        with open(conf, "w", encoding="ascii") as file:
            file.write(HAPROXY.format(server=server, tcp=places["tcp"].split(":")[2],
                                      unix=places["unix"][5:]))
        pid = self._start(["haproxy", "-db", "-q", "-f", conf])
        for way in WAYS:
            self.pids["haproxy", way] = [pid]

        places = self._places("socat")
        self.pids["socat", "tcp"] = [self._start([
            "socat", "TCP-LISTEN:%s,bind=127.0.0.1,reuseaddr,fork,"
            "backlog=1024" % places["tcp"].split(":")[2], "TCP:" + target])]
        self.pids["socat", "unix"] = [self._start([
            "socat", "UNIX-LISTEN:%s,fork,backlog=1024" % places["unix"][5:],
            "TCP:" + target])]

    def _port(self):
        self.port += 1
        return self.port

    def _places(self, name):
        self.endpoints[name] = {
            "tcp": "tcp:127.0.0.1:%d" % self._port(),
            "unix": "unix:%s/%s.sock" % (self.directory, name)}
        return self.endpoints[name]

    @staticmethod
    def _start(argv):
        # they die with the namespace
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL).pid

    def cpu_seconds(self, name, way):
        """Of a forwarder and the children that it had."""
        total = 0
        for pid in self.pids.get((name, way), ()):
            with open("/proc/%d/stat" % pid, encoding="ascii") as stat:
                fields = stat.read().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
        for pid in self._children(self.pids.get((name, way), ())):
            try:
                with open("/proc/%d/stat" % pid, encoding="ascii") as stat:
                    fields = stat.read().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
            except OSError:
                continue  # it is among its parent's by now, or will be
        return total / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _children(pids):
        out = []
        for pid in pids:
            with open("/proc/%d/task/%d/children" % (pid, pid),
                      encoding="ascii") as file:
                out += map(int, file.read().split())
        return out

    def measure(self, name, way, test, seconds, parallel):
        """(rate per second, processor seconds for each); tried again for as long
        as a forwarder may need to start."""
        end = time.monotonic() + 10
        while True:
            cpu = self.cpu_seconds(name, way)
            done = subprocess.run(
                [self.load, "client", self.endpoints[name][way], test, str(seconds),
                 str(parallel)], capture_output=True, text=True, check=False,
                timeout=seconds + 30)
            if done.returncode == 0:
                rate = float(done.stdout)
                cpu = self.cpu_seconds(name, way) - cpu
                return rate, cpu / max(1, rate * seconds)
            if time.monotonic() > end:
                raise SystemExit("%s, %s: %s" % (name, way, done.stderr))
            time.sleep(0.05)


def interval(values):
    """Median, and 95 % confidence interval of the median, of some ratios."""
    values = sorted(values)
    nr = len(values)
    reach = 0.98 * nr ** 0.5
    low = max(0, round(nr / 2 - reach))
    high = min(nr - 1, round(nr / 2 + reach))
    return statistics.median(values), values[low], values[high]


def ratios(results, way, test, value, name, better):
    """How the proxy compares in each round, as text: more than 1 is better."""
    out = []
    for mine, theirs in zip(results["proxy", way, test], results[name, way, test]):
        one, other = value(mine, test), value(theirs, test)
        if better == "less":
            one, other = other, one
        # processor time is counted in ticks: in a short round it may be none
        if one and other:
            out.append(one / other)
    return "%.2f (%.2f-%.2f)" % interval(out) if out else "-"


def table(results, heading, value, better):
    """Medians of one figure, and how the proxy compares."""
    print("\n%-32s" % heading + "".join("%9s" % n for n in NAMES) +
          "%20s %20s" % ("proxy:haproxy", "proxy:socat"))
    for way in WAYS:
        for test, title in TESTS:
            row = {name: statistics.median(value(r, test) for r in
                                           results[name, way, test])
                   for name in NAMES}
            print("%-22s %-9s" % (title, way + "-tcp") + "".join(
                "%9s" % ("%.0f" % row[n] if row[n] else "-") for n in NAMES) +
                "".join("%21s" % ratios(results, way, test, value, n, better)
                        for n in ("haproxy", "socat")))


def show(results):
    table(results, "rate", lambda r, test: r[0] / (1e6 if test == "b" else 1),
          "more")
    table(results, "processor time, us for each",
          lambda r, test: r[1] * (1e12 if test == "b" else 1e6), "less")


def main():
    parser = argparse.ArgumentParser(prog="tools/bench")
    parser.add_argument("--build", metavar="DIR", help="a meson build directory")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--parallel", type=int, default=32)
    args = parser.parse_args()
    if not os.environ.get("BENCH_NAMESPACE"):
        build(args.build)
    enter_namespace()
    build_dir = os.path.abspath(args.build or os.path.join(ROOT, "build-bench"))
    results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        forwarders = Forwarders(build_dir, directory)
        for way in WAYS:  # all are up
            for name in NAMES:
                forwarders.measure(name, way, "p", 0.1, 1)
        print("%d processors, %d rounds of %g s, %d connections at a time "
              "(bulk: 4)" % (os.cpu_count(), args.rounds, args.seconds,
                             args.parallel), flush=True)
        for turn in range(args.rounds):
            first = turn % len(NAMES)
            for way in WAYS:
                for test, _ in TESTS:
                    for name in NAMES[first:] + NAMES[:first]:
                        rate = forwarders.measure(
                            name, way, test, args.seconds,
                            4 if test == "b" else args.parallel)
                        results.setdefault((name, way, test), []).append(rate)
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
