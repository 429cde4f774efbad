# SPDX-License-Identifier: Apache-2.0
"""What "tools/bench --names" runs: the DNS stub beside the name server itself.

Theory of operation

All runs in a network namespace of its own, on its loopback: dnsmasq, the host
proxy on a unix socket, and socket_vendor with its stub. In each round the same
10 000 queries, 200 in flight, go to both over UDP, one right after the other; the
order changes from round to round. The load generator checks that each answer is
the answer to its own question. It shares the processors with those it measures,
so what matters is the ratio; medians of the rounds are printed.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import bench

TOTAL, FLIGHT = 10000, 200
SERVER, STUB = "127.0.0.2", "127.0.0.3"
LOAD = bench.ROOT + "/tests/e2e/programs/dnsload.py"


def build(path):
    path = bench.build(path)
    subprocess.run(["ninja", "-C", path, "proxy/proxy", "vendor/socket_vendor"],
                   check=True, stdout=subprocess.DEVNULL)
    return path


def wait_for(family, address):
    end = time.monotonic() + 10
    while True:
        try:
            with socket.socket(family) as probe:
                probe.connect(address)
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def start(build_dir, directory):
    """Return the processes."""
    endpoint = "unix:%s/proxy.sock" % directory
    conf = directory + "/resolv.conf"
    with open(conf, "w", encoding="ascii") as file:
        file.write("nameserver %s\n" % SERVER)
    commands = [
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
         "--no-hosts", "--user=root", "--pid-file=", "--listen-address=" + SERVER,
         "--bind-interfaces", "--address=/load.test/10.77.0.1"],
        [build_dir + "/proxy/proxy", "--log", "warn", "--listen", endpoint,
         "--resolv-conf", conf],
        [build_dir + "/vendor/socket_vendor", "--foreground", "--endpoint", endpoint,
         "--path", directory + "/vendor/vendor.sock", "--dns-listen", STUB],
    ]
    processes = [subprocess.Popen(argv) for argv in commands]
    wait_for(socket.AF_UNIX, endpoint[5:])
    wait_for(socket.AF_INET, (SERVER, 53))
    wait_for(socket.AF_INET, (STUB, 53))
    return processes


def measure(address):
    """Return (queries per second, how many were lost and asked again)."""
    out = subprocess.run([sys.executable, "-B", LOAD, address, str(TOTAL),
                          str(FLIGHT)], check=True, stdout=subprocess.PIPE,
                         timeout=120).stdout.split()
    return TOTAL / float(out[0]), int(out[1])


def show(results):
    print("%d queries, %d in flight, over UDP; medians of %d rounds\n" %
          (TOTAL, FLIGHT, len(results[SERVER])))
    ratios = [stub[0] / direct[0]
              for stub, direct in zip(results[STUB], results[SERVER])]
    print("%-28s %10s %6s %8s" % ("", "queries/s", "ratio", "lost"))
    for address, name, ratio in ((SERVER, "dnsmasq, asked directly", 1.0),
                                 (STUB, "stub, proxy, dnsmasq by TCP",
                                  statistics.median(ratios))):
        rates, lost = zip(*results[address])
        print("%-28s %10.0f %6.2f %8d" %
              (name, statistics.median(rates), ratio, sum(lost)))


def main():
    parser = argparse.ArgumentParser(prog="tools/bench --names")
    parser.add_argument("--build", help="a build directory")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    build_dir = build(args.build)
    bench.enter_namespace()
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(directory + "/vendor", 0o700)
        processes = start(build_dir, directory)
        results = {SERVER: [], STUB: []}
        try:
            for turn in range(args.rounds):
                for address in (SERVER, STUB)[::1 if turn % 2 else -1]:
                    results[address].append(measure(address))
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(10)
    show(results)


main()
