# SPDX-License-Identifier: Apache-2.0
"""Each socket call returns through the proxy what it returns over plain TCP.

programs/sockdiff.c plays a script of calls and prints every value, errno and poll
result. Here it runs in the world and in the enclave, and the two outputs are
compared line by line."""

import difflib

import pytest

from compiled import compiled
from harness import SILENT4, SLOW4, WORLD4, WORLD6
from servers import Peer, closed_port, echo

GROUPS = ["states", "nonblock", "refused", "reconnect",
          "bad_arguments", "options",
          "options_survive", "flags", "data", "addresses", "fastopen", "shutdown",
          "eintr", "eintr_restart", "timeouts", "epoll_level", "epoll_edge",
          "epoll_oneshot", "epoll_before", "dup_after", "dup_before", "fork",
          "vfork_exec", "exec_inherited", "close_connecting", "fd_reuse", "rlimit",
          "threads", "break_off", "v6"]


@pytest.fixture(scope="session")
def sockdiff(world):
    return compiled(world, "sockdiff") + "/sockdiff"


@pytest.fixture(scope="session")
def peers():
    """(port of the echo server, port where nobody listens)"""
    keep, closed = closed_port()
    with Peer(echo, host="::", resets=True) as peer, keep:
        # A client that goes away in the middle is part of the script.
        yield peer.port, closed


def play(runner, sockdiff, peers, group):
    argv = [sockdiff, group, WORLD4, WORLD6, peers[0], peers[1], SLOW4, SILENT4]
    return runner(argv).ok().out.splitlines()


@pytest.fixture(scope="session")
def expected(world, sockdiff, peers):
    """What plain TCP does, asked once for each group."""
    seen = {}

    def get(group):
        if group not in seen:
            seen[group] = play(world.run, sockdiff, peers, group)
        return seen[group]
    return get


def test_every_group_is_listed(world, sockdiff):
    assert world.run([sockdiff, "--list"]).ok().out.split() == GROUPS


# (carrier or None for any, group): the lines of plain TCP that differ, and what
# stands there instead. poll() is the kernel's own, the library has no part in it.
KNOWN = {
    # Linux 5.10 does not let shutdown() end a connect() that another thread waits
    # in; before and after it does, and so does the library.
    (None, "break_off"): {
        "shutdown(a.fd, how) = -1 Device or resource busy":
            "shutdown(a.fd, how) = 0",
        "the other thread's connect() = -1 Connection timed out":
            "the other thread's connect() = -1 Connection reset by peer"},
    # A vsock that is shut down for writing, and whose peer has ended too, is
    # not writable: there is nothing to write to it.
    ("vsock", "shutdown"): {"poll 0x2005: 1, 0x2015": "poll 0x2005: 1, 0x2011"},
}


@pytest.mark.parametrize("group", GROUPS)
def test_same_as_tcp(enclave, carrier, sockdiff, peers, expected, group):
    known = {**KNOWN.get((None, group), {}), **KNOWN.get((carrier, group), {})}
    real = [known.get(line, line) for line in expected(group)]
    got = play(enclave.run, sockdiff, peers, group)
    difference = list(difflib.unified_diff(
        real, got, "plain TCP", "through the proxy", lineterm="", n=1))
    assert not difference, "\n".join(difference)


@pytest.mark.full
@pytest.mark.parametrize("group", GROUPS)
def test_script_is_deterministic(world, sockdiff, peers, expected, group):
    """Two runs over plain TCP agree, or comparing would mean nothing."""
    assert play(world.run, sockdiff, peers, group) == expected(group)
