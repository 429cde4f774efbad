# SPDX-License-Identifier: Apache-2.0
"""What only vsock has: ranges of ports, and a backlog that resets."""

import contextlib
import pathlib
import signal
import subprocess

import pytest

import carrier as carriers
from crowds import ranged_site, stay_idle
from harness import PATIENCE, PYTHON, SLOWNESS, TIMEOUT, WORLD4, run, until
from inbound import Inside

pytestmark = pytest.mark.vsock

PORTS = 8


ORPHANS = """
import socket, sys
def connect():
    s = socket.socket()  # blocking: without a vendor there is no other way
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.settimeout(float(sys.argv[3]))
    return s
socks = [connect() for _ in range(50)]
print("ready", flush=True)
sys.stdin.readline()
for s in socks:
    try:
        assert s.recv(1) == b""
    except ConnectionResetError:
        pass
with connect() as s:
    s.sendall(b"x")
    assert s.recv(1) == b"x"
print("all ended, and another one works")
"""


@pytest.fixture
def ranged(new_site):
    return ranged_site(new_site, PORTS)


def used_ports(first):
    """How many connections there are to each port of a range."""
    counts = dict.fromkeys(range(first, first + PORTS), 0)
    out = run(["ss", "-Hn", "--vsock", "state", "established"]).ok().out
    for line in out.splitlines():
        port = int(line.split()[3].rpartition(":")[2])
        if port in counts:
            counts[port] += 1
    return counts


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
def test_range_outward(ranged, carrier, crowd, echo_port):
    """Connections are spread over all ports of a range."""
    client = ranged.enclave.popen(
        [crowd, "idle", WORLD4, echo_port, 200],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with client:
        assert client.stdout.readline() == b"good 200 bad 0\n"
        counts = used_ports(ranged.first)
        assert sum(counts.values()) >= 200
        assert min(counts.values()) > 0 and max(counts.values()) < 100, counts
        client.stdin.close()
        assert client.wait(TIMEOUT) == 0


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
def test_range_without_vendor(ranged, carrier, echo_port):
    """The library by itself knows it too."""
    client = ranged.enclave.popen(
        ["--no-vendor", PYTHON, "-c", ORPHANS, WORLD4, echo_port, PATIENCE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with client:
        assert client.stdout.readline() == b"ready\n"
        counts = used_ports(ranged.first)
        assert sum(counts.values()) >= 50
        assert max(counts.values()) < 25, counts
        client.kill()


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
def test_range_inward(ranged, carrier):
    """A server's port is asked for over one port, its clients come over others."""
    with Inside(ranged, "redis", None) as server:
        for _ in range(10):
            server.ask()


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
def test_range_idle(new_site, carrier, crowd, echo_port):
    """10 000 that are idle. (On one port each new one would cost more.)"""
    stay_idle(ranged_site(new_site, 32), crowd, echo_port, WORLD4, 10000)


@contextlib.contextmanager
def short_backlog(entries):
    """What is started meanwhile has a backlog of that many at most."""
    limit = pathlib.Path("/proc/sys/net/core/somaxconn")
    before = limit.read_text(encoding="ascii")
    limit.write_text(str(entries), encoding="ascii")
    assert int(limit.read_text(encoding="ascii")) == entries
    try:
        yield
    finally:
        limit.write_text(before, encoding="ascii")


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
def test_full_backlog(new_site, carrier, crowd, echo_port):
    """A backlog that is full resets: whoever connects comes again, as long as it
    may be nobody that resets (common/carrier.h); so there are not too many."""
    site = new_site(start=False)
    with short_backlog(4):
        site.start_proxy(["--workers", "1"])
    got = site.run([crowd, "storm", WORLD4, echo_port, 16, 500],
                   timeout=4 * TIMEOUT)
    assert (got.out, got.err) == ("good 500 bad 0\n", "")


ONE = """
import socket, sys
print("ready", flush=True)
sys.stdin.readline()
s = socket.socket()
s.connect((sys.argv[1], int(sys.argv[2])))
s.sendall(b"x")
print(s.recv(1))
"""


def fill_backlog(endpoint):
    """Connect until there is no room for more. Return the connections."""
    taken = []
    for _ in range(64):
        try:
            taken.append(carriers.connect(endpoint, TIMEOUT))
        except ConnectionResetError:
            return taken
    raise AssertionError("the backlog does not fill")


def sleeps_in(pid):
    """The number of the system call in which a process sleeps, or None."""
    with open("/proc/%d/syscall" % pid, encoding="ascii") as file:
        word = file.read().split()[0]
    return int(word) if word.isdigit() else None


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
def test_full_backlog_without_vendor(new_site, carrier, echo_port):
    """The library comes again by itself, too."""
    site = new_site(start=False)
    with short_backlog(4):
        site.start_proxy(["--workers", "1"])
    client = site.enclave.popen(
        ["--no-vendor", PYTHON, "-c", ONE, WORLD4, echo_port],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with client:
        assert client.stdout.readline() == b"ready\n"
        pid, = site.enclave.processes("python3")
        until(lambda: sleeps_in(pid) is not None, "it reads")
        reading = sleeps_in(pid)
        site.proxy.signal(signal.SIGSTOP)
        try:
            taken = fill_backlog(site.enclave.endpoint)
            client.stdin.write(b"\n")
            client.stdin.flush()
            # the first connect() cannot have succeeded
            until(lambda: sleeps_in(pid) not in (None, reading),
                  "it waits for another try")
        finally:
            site.proxy.signal(signal.SIGCONT)
        assert client.stdout.readline() == b"b'x'\n"
        for conn in taken:
            conn.close()
        client.stdin.close()
        assert client.wait(TIMEOUT) == 0


# Nobody listens: known at once, not after the kernel's two seconds.
REFUSED = """
import errno, socket, sys, time
s = socket.socket()
start = time.monotonic()
print(errno.errorcode[s.connect_ex((sys.argv[1], 80))])
print(time.monotonic() - start)
"""


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
@pytest.mark.parametrize("options", [[], ["--no-vendor"]])
def test_no_proxy(new_site, carrier, options):
    site = new_site(start=False)
    got = site.run([PYTHON, "-c", REFUSED, WORLD4], options=options)
    error, seconds = got.ok().out.split()
    assert error == "ENETDOWN" and float(seconds) < 2 * SLOWNESS


@pytest.mark.parametrize("carrier", ["vsock"], scope="module")
def test_proxy_dies(new_site, carrier, echo_port):
    """Connections whose proxy is killed end, they do not hang."""
    site = new_site()
    client = site.enclave.popen(
        [PYTHON, "-c", ORPHANS, WORLD4, echo_port, PATIENCE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with client:
        assert client.stdout.readline() == b"ready\n"
        site.proxy.kill()
        site.start_proxy()
        client.stdin.write(b"\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"all ended, and another one works\n"
        assert client.wait(TIMEOUT) == 0
