# SPDX-License-Identifier: Apache-2.0
"""Rates over vsock: direct, and through proxy in two ways (see tests/vm/bench).

	direct       bench_load's client and server, nothing between
	tcp          the same over TCP on the loopback
	vsock-to-ip  proxy forwards a vsock port to the server's TCP port
	socks5       the client asks proxy for a connection to that TCP port

In each round every test is run once each way, one right after the other, so that
what else the machine does meets them all alike; the median of the rounds counts.

What goes through the proxy goes over vsock once and over TCP once, on the same
processors. If the proxy itself cost nothing at all, the time for both would be the
sum of those of "direct" and "tcp": that is the column "at most", against which the
ratios are to be held. In brackets: connections at a time.

Then bulk by the window of the client's vsock socket, which is what the preload
library and the vendor set (the proxy's own is 1 MiB), and new connections per second (socks5) beside idle ones, when proxy listens on
one port, and on a range of 32.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

# test, title, connections at a time, wanted of the direct rate
TESTS = [("c", "connections/s", 8, 0.4), ("p", "64 B round trips/s", 1, 0.45),
         ("p", "64 B round trips/s", 16, 0.45), ("b", "bulk MB/s", 1, 0.6)]
WAYS = ["direct", "tcp", "vsock-to-ip", "socks5"]
THROUGH = WAYS[2:]
RANGE = 32
WINDOWS = [64, 256, 1024, 4096]  # KiB; 256 is the kernel's


class Machine:
    """The servers, and where they are."""

    def __init__(self, build):
        self.load = build + "/tests/bench/bench_load"
        self.proxy = build + "/proxy/proxy"
        self.port = 7000
        self.procs = []
        self.server = self._port()
        direct = "vsock:local:%d" % self._port()
        self.start([self.load, "server", "tcp:127.0.0.1:%d" % self.server])
        self.start([self.load, "server", direct])
        forward = "vsock:local:%d" % self._port()
        self.start([self.proxy, "vsock-to-ip", "--log", "warn", "-v", forward,
                    "-i", "127.0.0.1:%d" % self.server])
        self.where = {"direct": [direct],
                      "tcp": ["tcp:127.0.0.1:%d" % self.server],
                      "vsock-to-ip": [forward],
                      "socks5": self.socks5(1)[0]}

    def _port(self, count=1):
        self.port += count
        return self.port - count + 1

    def start(self, argv, stdout=subprocess.DEVNULL):
        proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout)
        self.procs.append(proc)
        return proc

    def socks5(self, ports):
        """Another proxy, on that many ports: (what a client connects to, and
        the process)."""
        first = self._port(ports)
        endpoint = "vsock:local:%d" % first
        if ports > 1:
            endpoint += "-%d" % (first + ports - 1)
        proc = self.start([self.proxy, "--log", "warn", "--listen", endpoint])
        return [endpoint, "127.0.0.1", str(self.server)], proc

    def client(self, where, test, seconds, parallel):
        return [self.load, "client", where[0], test, str(seconds), str(parallel)
                ] + where[1:]

    def measure(self, where, test, seconds, parallel, window=0):
        """A rate, per second; tried again for as long as servers may need to
        start."""
        end = time.monotonic() + 30
        while True:
            done = subprocess.run(
                self.client(where, test, seconds, parallel), capture_output=True,
                text=True, check=False, timeout=seconds + 120,
                env=dict(os.environ, **({"BENCH_WINDOW": str(window)} if window
                                        else {})))
            if done.returncode == 0:
                return float(done.stdout)
            if time.monotonic() > end:
                raise SystemExit("%s: %s" % (where, done.stderr))
            time.sleep(0.1)

    def close(self):
        for proc in self.procs:
            proc.kill()
            proc.wait()


def ratio(rates, way):
    """To the direct way, in each round; the median."""
    return statistics.median(mine / direct for mine, direct in zip(
        rates[way], rates["direct"]))


def compare(machine, args):
    results = {}
    for _ in range(args.rounds):
        for test, _, parallel, _ in TESTS:
            for way in WAYS:
                rate = machine.measure(
                    machine.where[way], test, args.seconds, parallel)
                results.setdefault((test, parallel), {}).setdefault(
                    way, []).append(rate)
    print("%-24s" % "" + "".join("%12s" % way for way in WAYS) +
          "".join("%19s" % (way + ":direct") for way in THROUGH) +
          "%9s%8s" % ("at most", "wanted"))
    for test, title, parallel, wanted in TESTS:
        rates = results[test, parallel]
        rate = {way: statistics.median(rates[way]) for way in WAYS}
        scale = 1e6 if test == "b" else 1
        print("%-24s" % ("%s (%d)" % (title, parallel)) +
              "".join("%12.1f" % (rate[way] / scale) for way in WAYS) +
              "".join("%19.2f" % ratio(rates, way) for way in THROUGH) +
              "%9.2f%8.2f" % (rate["tcp"] / (rate["tcp"] + rate["direct"]), wanted),
              flush=True)


def by_window(machine, args):
    """Bulk with a window of the kernel's default, ours, and others."""
    results = {}
    for _ in range(args.rounds):
        for way in ("direct", "socks5"):
            for kib in WINDOWS:
                results.setdefault((way, kib), []).append(machine.measure(
                    machine.where[way], "b", args.seconds, 1, kib * 1024))
    print("\n%-24s" % "bulk MB/s, window KiB" +
          "".join("%12d" % kib for kib in WINDOWS))
    for way in ("direct", "socks5"):
        print("%-24s" % way + "".join("%12.1f" % (
            statistics.median(results[way, kib]) / 1e6) for kib in WINDOWS),
              flush=True)


def beside_idle(machine, args):
    """Connections per second with and without many that are idle."""
    print("\n%-20s%13s%13s%13s%23s" % (
        "connections/s", "none idle", "%d idle" % args.idle, "ratio", "wanted"))
    for ports in (1, RANGE):
        where, proxy = machine.socks5(ports)
        machine.measure(where, "p", 0.1, 1)  # it is up
        before = statistics.median(
            machine.measure(where, "c", args.seconds, 16)
            for _ in range(args.rounds))
        idle = machine.start(
            machine.client(where, "i", 10000, args.idle), stdout=subprocess.PIPE)
        if idle.stdout.readline() != b"ready\n":
            raise SystemExit("the idle connections failed")
        beside = statistics.median(
            machine.measure(where, "c", args.seconds, 16)
            for _ in range(args.rounds))
        print("%-20s%13.1f%13.1f%13.2f%23s" % (
            "%d port%s" % (ports, "s" if ports > 1 else ""), before, beside,
            beside / before, "" if ports == 1 else "0.80"), flush=True)
        for proc in (idle, proxy):
            proc.kill()
            proc.wait()
        idle.stdout.close()


def main():
    parser = argparse.ArgumentParser(prog="tests/vm/bench")
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--idle", type=int, default=10000)
    args = parser.parse_args()
    # an idle connection is a port of the loopback's, and two fds of the proxy's
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w",
              encoding="ascii") as ports:
        ports.write("10000 65000")
    machine = Machine(os.path.abspath(args.build))
    try:
        print("%d processors, %d rounds of %g s" % (
            os.cpu_count(), args.rounds, args.seconds), flush=True)
        compare(machine, args)
        by_window(machine, args)
        beside_idle(machine, args)
    finally:
        machine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
