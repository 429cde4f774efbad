# SPDX-License-Identifier: Apache-2.0
"""Servers in the enclave outlive their vendor's worker and the host proxy, and
nothing is left behind by whoever dies."""

import os
import random
import signal
import socket
import subprocess
import time

import pytest

from harness import (BUILD, PRELOAD_EXTRA, PROXY_BUILD, PYTHON, SLOWNESS,
                     TIMEOUT, WORLD4, cpu_seconds, run, say, until)
from inbound import PROGRAMS, SERVERS, Inside, asks, reachable

RECOVERY_SECONDS = 2.0 * SLOWNESS
SANITIZED = PRELOAD_EXTRA or PROXY_BUILD != BUILD

# Ten listeners that nobody talks to.
TEN = """
import signal, socket, sys
keep = []
for port in map(int, sys.argv[1:]):
    s = socket.socket()
    s.bind(("", port))
    s.listen(128)
    keep.append(s)
print("ready", flush=True)
signal.pause()
"""

CYCLES = """
import socket, sys
for i in range(int(sys.argv[2])):
    s = socket.socket()
    s.bind(("", int(sys.argv[1])))
    if i % 2:
        s.listen(5)
    s.close()
"""

ANY_PORT = """
import socket
s = socket.socket()
s.bind(("", 0))
port = s.getsockname()[1]
assert port != 0
s.listen(5)
assert s.getsockname()[1] == port
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
print(port, flush=True)
c, peer = s.accept()
c.sendall(peer[0].encode())
"""

IN_USE = """
import errno, socket, sys
a, b = socket.socket(), socket.socket()
a.bind(("", int(sys.argv[1])))
try:
    b.bind(("", int(sys.argv[1])))
    print("bound twice")
except OSError as e:
    print(errno.errorcode[e.errno])
"""


def worker(enclave):
    """The vendor's worker: the process whose parent is a vendor too."""
    vendors = enclave.processes("socket_vendor")
    for pid in vendors:
        with open("/proc/%d/stat" % pid) as stat:
            parent = int(stat.read().rpartition(")")[2].split()[1])
        if parent in vendors:
            return pid
    return None


def carriers(site):
    """Connections from the enclave that the proxy has."""
    if site.carrier == "unix":
        path = site.enclave.endpoint.partition(":")[2]
        with open("/proc/net/unix") as table:
            # state 03 is connected; the listening socket is 01
            return sum(1 for line in table
                       if line.rstrip().endswith(path) and line.split()[5] == "03")
    port = site.enclave.endpoint.rpartition(":")[2]
    if site.carrier == "vsock":
        out = run(["ss", "-Hn", "--vsock", "state", "established"]).ok().out
        return sum(1 for line in out.splitlines()
                   if line.split()[3].endswith(":" + port))
    out = run(["ss", "-Htn", "state", "established", "sport = :" + port]).ok().out
    return len(out.splitlines())


def answers_soon(server):
    start = time.monotonic()
    until(lambda: asks(server), "the server is reached again")
    return time.monotonic() - start


@pytest.mark.parametrize("name", ["nginx", "python-threading", "python-asyncio",
                                  "node-http"])
@pytest.mark.parametrize("victim", ["worker", "proxy", "both"])
def test_kill(new_site, world, name, victim):
    site = new_site()
    with Inside(site, name, None) as server:
        server.ask()
        for _ in range(3):
            if victim != "proxy":
                os.kill(worker(site.enclave), signal.SIGKILL)
            if victim != "worker":
                site.proxy.kill()
                site.start_proxy()
            assert answers_soon(server) < RECOVERY_SECONDS
        assert server.proc.poll() is None
        server.ask()


@pytest.mark.parametrize("name", ["python-threading", "python-asyncio"])
def test_no_vendor_left(new_site, world, name):
    """Both processes of the vendor are killed: the server waits without spinning
    for the one that the next proxify starts."""
    site = new_site()
    with Inside(site, name, None) as server:
        server.ask()
        for pid in site.enclave.processes("socket_vendor"):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not reachable(WORLD4, server.port), "the port is free")
        (pid,) = site.enclave.processes("python3")
        before, start = cpu_seconds(pid), time.monotonic()
        until(lambda: time.monotonic() - start > 1, "a second has passed")
        assert cpu_seconds(pid) - before < 0.3, "it spins"
        site.run(["true"]).ok()
        assert answers_soon(server) < RECOVERY_SECONDS
        server.ask()


def test_server_before_the_proxy(new_site, world):
    """bind() fails at once and clearly, or waits with PROXY_WAIT."""
    site = new_site(start=False)
    port = world.port()
    got = site.enclave.run([PYTHON, "-c", IN_USE, port])
    assert got.rc != 0 and "Network is down" in got.err
    assert got.seconds < 5 * SLOWNESS
    server = Inside(site, "python-asyncio", None)
    waiting = site.enclave.popen(
        ["python3", PROGRAMS + "serve.py", "asyncio", server.port],
        env={"PROXY_WAIT": 60}, stdin=subprocess.DEVNULL, stdout=server.log,
        stderr=server.log)
    server.proc = waiting
    until(lambda: site.enclave.processes("python3"), "the server waits")
    site.start_proxy()
    with_deadline = until(lambda: asks(server), "the server serves")
    assert with_deadline
    server.stop()


def test_idle_pool(site, world):
    """Ten idle ports hold at most ten times four connections; a burst of 500
    is absorbed."""
    ports = [world.port() for _ in range(10)]
    before = carriers(site)
    proc = site.enclave.popen([PYTHON, "-c", TEN, *ports],
                              stdout=subprocess.PIPE)
    assert proc.stdout.readline() == b"ready\n"
    until(lambda: all(reachable(WORLD4, p) for p in ports), "all ports listen")
    until(lambda: carriers(site) - before <= 10 * 4 + 10, "the pools are idle")
    os.killpg(proc.pid, signal.SIGKILL)
    proc.wait()
    proc.stdout.close()
    with Inside(site, "python-asyncio", None) as server:
        run([PYTHON, PROGRAMS + "hammer.py", WORLD4, server.port, 500, 1],
            timeout=4 * TIMEOUT).ok()


def supervisor(enclave):
    pid = worker(enclave)
    return next(v for v in enclave.processes("socket_vendor") if v != pid)


def fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def files_below(folder):
    return sorted(os.path.join(d, f) for d, _, files in os.walk(folder)
                  for f in files if not f.endswith(".log.1"))


def rss(pid):
    """Private memory in KiB."""
    with open("/proc/%d/smaps_rollup" % pid) as smaps:
        return sum(int(line.split()[1]) for line in smaps
                   if line.startswith(("Private_Clean", "Private_Dirty")))


def test_bind_cycles(site, world, request):
    """Bound, listened and closed again and again: nothing is left."""
    n = 10000 if request.config.getoption("--full") else 500
    port = world.port()
    site.run([PYTHON, "-c", CYCLES, port, 200]).ok()
    pids = site.proxy.pid, worker(site.enclave)
    before = [(fds(pid), rss(pid)) for pid in pids]
    site.run([PYTHON, "-c", CYCLES, port, n], timeout=20 * TIMEOUT).ok()
    for pid, (few, small) in zip(pids, before):
        until(lambda: fds(pid) <= few, "%d let go of all fds" % pid)
        # sanitizers keep what was freed for a while
        assert rss(pid) <= small + 256 or SANITIZED
    assert not reachable(WORLD4, port)
    assert worker(site.enclave) == pids[1], "the worker died on the way"


def test_any_port(site):
    """Port 0: getsockname() tells the host's port before listen()."""
    proc = site.enclave.popen([PYTHON, "-c", ANY_PORT], stdout=subprocess.PIPE)
    port = int(proc.stdout.readline())
    got = run([PYTHON, "-c", "import socket, sys; s = socket.create_connection("
               "(sys.argv[1], int(sys.argv[2])), 10); print(s.recv(99).decode())",
               WORLD4, port]).ok().out
    assert got.strip() == WORLD4
    assert proc.wait(TIMEOUT) == 0
    proc.stdout.close()


def test_in_use(site, world):
    """A port that the enclave, or the host itself, has already."""
    got = site.run([PYTHON, "-c", IN_USE, world.port()]).ok()
    assert got.out == "EADDRINUSE\n"
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen(1)
        got = site.run([PYTHON, "-c", IN_USE, taken.getsockname()[1]])
        assert got.rc != 0 and "Address already in use" in got.err


def test_loopback_stays_inside(site, world):
    """A loopback listener is never exported; a wildcard one is reached from
    inside too."""
    port = world.port()
    inside = site.enclave.popen(
        [PYTHON, "-m", "http.server", port, "--bind", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = "http://127.0.0.1:%d/" % port
    until(lambda: site.run(["curl", "-sS", "-m", "5", "-o", "/dev/null",
                            url]).rc == 0, "the listener is up")
    assert not reachable(WORLD4, port)
    assert not reachable("127.0.0.1", port)
    os.killpg(inside.pid, signal.SIGKILL)
    inside.wait()
    with Inside(site, "python-threading", None) as server:
        got = site.run(["curl", "-sS", "-m", "10",
                        "http://127.0.0.1:%d/" % server.port]).ok().out
        assert got == "127.0.0.1\n"


# One process that starts fast. No SO_REUSEADDR: the port must be free when the
# one before is dead.
STORM = """
import socket, sys
s = socket.socket()
s.bind(("", int(sys.argv[1])))
s.listen(64)
while True:
    c, peer = s.accept()
    try:
        c.recv(4096)
        c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nhello\\n")
    except OSError:
        pass
    c.close()
"""

# Clients that come one after the other, whatever happens.
LOAD = """
import random, socket, sys, time
while True:
    try:
        s = socket.create_connection((sys.argv[1], int(random.choice(
            sys.argv[2:]))), 2)
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        s.recv(100)
        s.close()
    except OSError:
        time.sleep(0.005)
"""


class Storm:
    """Servers under load, and whom to kill of those that serve their clients."""

    def __init__(self, site, ports):
        self.site = site
        self.servers = {port: self._start(port) for port in ports}
        self.victims = ["worker", "proxy", *ports]
        self.load = subprocess.Popen(
            [PYTHON, "-c", LOAD, WORLD4, *map(str, ports)],
            start_new_session=True)

    def _start(self, port):
        return Inside(self.site, "storm", None, port=port).launch()

    def kill(self, victims):
        """All at once; those that do not come back by themselves are started."""
        dead = [port for port in self.servers if port in victims]
        for port in dead:
            self.servers[port].stop()
        pid = worker(self.site.enclave) if "worker" in victims else None
        if pid:
            os.kill(pid, signal.SIGKILL)
        if "proxy" in victims:
            self.site.proxy.kill()
            self.site.start_proxy()
        for port in dead:
            self.servers[port] = self._start(port)

    def serves(self):
        for server in self.servers.values():
            server.wait_ready()
            until(lambda: asks(server), "port %d serves" % server.port)

    def close(self):
        self.load.kill()
        self.load.wait()
        for server in self.servers.values():
            server.stop()


@pytest.mark.full
def test_random_kills(new_site, world, carrier, monkeypatch):
    """A thousand kill -9 of servers, worker and proxy, alone or together, at
    random moments under load: what comes back serves, and nothing is left."""
    monkeypatch.setitem(SERVERS, "storm", (
        lambda i: [PYTHON, "-S", "-E", "-c", STORM, i.port], None))
    kills = 1000 if carrier == "unix" else 100
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    site = new_site()
    storm = Storm(site, [world.port() for _ in range(4)])
    storm.serves()
    parent = supervisor(site.enclave)
    before = fds(parent), files_below(site.enclave.tmp)
    try:
        while kills > 0:
            victims = dice.sample(storm.victims, dice.randint(1, 6))
            kills -= len(victims)
            say("%d to go after %s" % (kills, victims))
            storm.kill(victims)
            if dice.random() < 0.3:
                storm.serves()
        storm.serves()
    finally:
        storm.close()
    until(lambda: carriers(site) == 0, "no connection is left")
    for port in storm.servers:
        until(lambda: not reachable(WORLD4, port), "the port is let go")
    assert len(site.enclave.processes("socket_vendor")) == 2
    assert supervisor(site.enclave) == parent
    assert (fds(parent), files_below(site.enclave.tmp)) == before
    assert site.proxy.fds() < 40
    assert fds(worker(site.enclave)) < 40
