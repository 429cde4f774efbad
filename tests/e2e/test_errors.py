# SPDX-License-Identifier: Apache-2.0
"""A connection that fails, fails as it does on a real network: same errno, same
message, same exit status. The expected output is not written down here: the same
program is run in the world itself, and the two are compared."""

import concurrent.futures
import errno
import re
import time

import pytest

from harness import (NO_ROUTE4, NO_ROUTE6, PROHIBITED4, PYTHON, SILENT4,
                     UNREACHABLE4, UNREACHABLE6, WORLD4, WORLD6)
from servers import closed_port

PYTHON_CONNECT = """
import errno, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family)
%s
try:
    s.connect((host, port))
    print("connected")
except OSError as e:
    print(type(e).__name__, errno.errorcode.get(e.errno), e)
"""
BLOCKING = PYTHON_CONNECT % ""
# Longer than the kernel tries (tcp_syn_retries is 1 in the world): it is the
# network's error that is wanted, not Python's patience.
TIMED = PYTHON_CONNECT % "s.settimeout(25)"

NONBLOCKING = """
import errno, select, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family)
s.setblocking(False)
# Waits for POLLOUT alone, as everybody does: POLLIN may come a moment earlier.
first = select.poll()
first.register(s, select.POLLOUT)
p = select.poll()
p.register(s, select.POLLIN | select.POLLOUT)
rc = s.connect_ex((host, port))
if rc == errno.EINPROGRESS:
    first.poll(25000)
    events = p.poll(0)
    print(events[0][1] if events else "no event")
    rc = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    print(errno.errorcode.get(rc, rc))
    # taken once, it is gone
    print(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
else:
    # the kernel knew at once: only a local route can do that
    print("at once")
    print(errno.errorcode.get(rc, rc))
"""

CASES = {
    "refused": WORLD4,
    "refused-v6": WORLD6,
    "host-unreachable": UNREACHABLE4,
    "host-unreachable-v6": UNREACHABLE6,
    "network-unreachable": NO_ROUTE4,
    "network-unreachable-v6": NO_ROUTE6,
    "timed-out": SILENT4,
    "prohibited": PROHIBITED4,
}


@pytest.fixture(params=CASES, scope="module")
def target(request):
    """(host, port) of a destination that fails in the way named."""
    host = CASES[request.param]
    sock, port = closed_port(host if host in (WORLD4, WORLD6) else WORLD4)
    yield host, port
    sock.close()


def bracket(host):
    return "[%s]" % host if ":" in host else host


def both(world, enclave, argv):
    """The same program in the world and in the enclave, at the same time: some
    wait for a timeout. Returns the two results."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        real = pool.submit(world.run, argv)
        got = enclave.run(argv)
        return real.result(), got


def without_times(text):
    return re.sub(r"after \d+ ms", "after N ms", text)


def test_curl(world, enclave, target):
    argv = ["curl", "-sS", "http://%s:%d/" % (bracket(target[0]), target[1])]
    real, got = both(world, enclave, argv)
    assert real.rc != 0
    assert (got.rc, without_times(got.err)) == (real.rc, without_times(real.err))


@pytest.mark.parametrize("source", [BLOCKING, TIMED], ids=["blocking", "timed"])
def test_python(world, enclave, target, source):
    argv = [PYTHON, "-c", source, target[0], target[1]]
    real, got = both(world, enclave, argv)
    assert got.ok().out == real.ok().out
    assert "connected" not in got.out


def test_nonblocking(world, enclave, target):
    """poll()'s event bits, and SO_ERROR once and once only."""
    argv = [PYTHON, "-c", NONBLOCKING, target[0], target[1]]
    real, got = [r.ok().out.split("\n") for r in both(world, enclave, argv)]
    if real[0] == "at once":
        # A route that the host's kernel refuses at once is in the enclave an
        # answer that comes over the carrier: same errno, later.
        assert real[1] in got
    else:
        assert got == real


def test_not_allowed(new_site, web):
    """What the host's operator forbids is EACCES, at once, and logged."""
    site = new_site("--deny", WORLD4)
    argv = [PYTHON, "-c", BLOCKING, web.host, web.port]
    got = site.run(argv).ok()
    assert got.out == "PermissionError EACCES [Errno 13] Permission denied\n"
    curl = site.run(["curl", "-sS", web.url("/peer")])
    assert curl.rc == 7


def test_unknown_name(world, enclave):
    argv = ["curl", "-sS", "http://no-such-name.invalid/"]
    real, got = both(world, enclave, argv)
    assert (got.rc, got.err) == (real.rc, real.err)
    source = ("import socket\n"
              "try: socket.create_connection(('no-such-name.invalid', 80), 20)\n"
              "except OSError as e: print(type(e).__name__)\n")
    argv = [PYTHON, "-c", source]
    real, got = both(world, enclave, argv)
    assert got.ok().out == real.ok().out


TRY_ALL = """
import socket, sys
for timeout in (None, 20, None):
    s = socket.socket()
    s.settimeout(timeout)
    print(s.connect_ex(("%s", 80)))
    s.close()
try:
    socket.socket().bind(("0.0.0.0", 8080))
except OSError as e:
    print(e.errno)
""" % WORLD4


@pytest.mark.parametrize("level", [None, "error", "warn"])
def test_no_host_proxy(new_site, level):
    """ENETDOWN at once from every call, and one line of it where it is asked
    for: not one for each attempt, and none that nobody asked for."""
    site = new_site(start=False)
    started = time.monotonic()
    got = site.run([PYTHON, "-c", TRY_ALL], env={"PROXY_LOG": level}).ok()
    assert time.monotonic() - started < 10
    assert got.out.split() == [str(errno.ENETDOWN)] * 4
    said = [line for line in got.err.splitlines()
            if line.startswith("proxify: cannot reach the host proxy: ")]
    assert len(said) == (1 if level == "warn" else 0), got.err
    assert all(site.enclave.endpoint in line for line in said)


def test_no_host_proxy_without_vendor(new_site):
    """The same where the library makes the connection itself."""
    site = new_site(start=False)
    got = site.run([PYTHON, "-c", BLOCKING, WORLD4, "80"], options=["--no-vendor"],
                   env={"PROXY_LOG": "warn"}).ok()
    assert "ENETDOWN" in got.out
    assert got.err.count("cannot reach the host proxy") == 1, got.err
