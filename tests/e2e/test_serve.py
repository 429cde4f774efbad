# SPDX-License-Identifier: Apache-2.0
"""Unmodified servers in the enclave serve clients of the host's port, IPv4 and
IPv6, and see the clients' real addresses."""

import os
import signal
import socket

import pytest

from compiled import compiled
from harness import PYTHON, TIMEOUT, WORLD4, WORLD6, until
from inbound import PROGRAMS, SERVERS, V4_ONLY, Inside, asks, reachable

HTTP = [name for name in SERVERS
        if name not in ("redis", "postgres", "memcached", "sshd", "python-tls")]


def marked(names):
    """Java's memory layout and AddressSanitizer's exclude each other. The sshd that
    serves a client is exec'ed, and knows its client by a filter on the socket: on
    TCP some kernels let only the network's owner have one."""
    return [pytest.param(name, marks=pytest.mark.no_asan("memory layout"))
            if name.startswith("java") else
            pytest.param(name, marks=pytest.mark.tcp_as_root("filter"))
            if name == "sshd" else name for name in names]


@pytest.fixture(scope="session")
def built(world):
    """The programs that need a compiler."""
    return compiled(world, "serve")


@pytest.mark.parametrize("name", marked(SERVERS))
def test_serves(site, built, name):
    with Inside(site, name, built) as server:
        server.ask(WORLD4)
        if name not in V4_ONLY:
            server.ask(WORLD6)
        else:
            assert not reachable(WORLD6, server.port)
    until(lambda: not reachable(WORLD4, server.port),
          "the port goes when the server does")


@pytest.mark.parametrize("name", marked(HTTP))
def test_under_load(site, built, name):
    """Twenty clients at a time, without one failure."""
    rounds = 2 if name in ("socat", "busybox-httpd") else 10
    with Inside(site, name, built) as server:
        site.world.run([PYTHON, PROGRAMS + "hammer.py", WORLD4, server.port, 20,
                        rounds], timeout=4 * TIMEOUT).ok()


def test_redis_benchmark(site, built):
    with Inside(site, "redis", built) as server:
        out = site.world.run(
            ["redis-benchmark", "-h", WORLD4, "-p", server.port, "-c", 50, "-n",
             5000, "-t", "set,get", "-q"], timeout=4 * TIMEOUT).ok().out
        assert "SET:" in out and "GET:" in out, out
        site.world.run(
            ["redis-benchmark", "-h", WORLD4, "-p", server.port, "-c", 20, "-n",
             1000, "-k", 0, "-t", "ping", "-q"], timeout=4 * TIMEOUT).ok()


def test_pgbench(site, built):
    """A fork and a connection for each transaction (-C), several at a time."""
    with Inside(site, "postgres", built) as server:
        server.ask()
        base = ["pgbench", "-h", WORLD4, "-p", server.port, "-U", "tester"]
        site.world.run(base + ["-i", "-q", "postgres"], timeout=4 * TIMEOUT).ok()
        out = site.world.run(base + ["-c", 8, "-j", 2, "-t", 20, "-C", "postgres"],
                             timeout=4 * TIMEOUT).ok().out
        assert "number of transactions actually processed: 160/160" in out, out


def test_storm(site, built):
    """100 clients x 100 connections without one failure."""
    with Inside(site, "nginx", built) as server:
        site.world.run([PYTHON, PROGRAMS + "hammer.py", WORLD4, server.port, 100,
                        100], timeout=8 * TIMEOUT).ok()


def test_small_backlog(site, built):
    """1000 clients at once against listen(fd, 5)."""
    inside = Inside(site, "python-threading", built)
    SERVERS["backlog"] = (
        lambda i: [PYTHON, PROGRAMS + "serve.py", "backlog", i.port],
        SERVERS["python-threading"][1])
    inside.name = "backlog"
    with inside as server:
        site.world.run([PYTHON, PROGRAMS + "hammer.py", WORLD4, server.port, 1000,
                        1], timeout=8 * TIMEOUT).ok()


def test_logs_real_addresses(site, built):
    with Inside(site, "nginx", built) as server:
        server.ask(WORLD4)
        server.ask(WORLD6)
        with open(server.dir + "/access.log", encoding="ascii") as log:
            clients = {line.split()[0] for line in log}
    assert {WORLD4, WORLD6} <= clients, clients


# Tells each client the address that it has reached.
REACHED = """
import socket, sys
s = socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6,
                         dualstack_ipv6=True)
while True:
    c, peer = s.accept()
    c.sendall(repr(c.getsockname()[:2]).encode())
    c.close()
"""


def test_address_that_was_reached(site, world):
    """getsockname() of an accepted connection, on a wildcard listener, is where
    the client went, and not the wildcard."""
    port = world.port()
    proc = site.enclave.popen([PYTHON, "-c", REACHED, port])
    until(lambda: reachable(WORLD4, port), "the server is up")
    for host, name in ((WORLD4, "::ffff:" + WORLD4), (WORLD6, WORLD6),
                       ("127.0.0.1", "::ffff:127.0.0.1")):
        with socket.create_connection((host, port), TIMEOUT) as conn:
            assert conn.recv(99).decode() == repr((name, port))
    os.killpg(proc.pid, signal.SIGKILL)
    proc.wait()


def test_restart_without_waiting(site, built):
    """A server that is killed binds the same port again at once: while the
    first one's port may still be on its way out, the second one's bind() must
    not fail."""
    port = site.world.port()
    for _ in range(20):
        with Inside(site, "nginx", built, port=port) as server:
            until(lambda: asks(server), "the new server answers")
            assert server.proc.poll() is None
