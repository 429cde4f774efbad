# SPDX-License-Identifier: Apache-2.0
"""10 000 connections through each mode: resets, half-closes and full transfers
mixed. Every byte is accounted for at both ends, and no fd is left."""

import os
import socket

import pytest

import modes
from harness import HERE, PYTHON, TIMEOUT, Daemon, until
from modeload import plan
from modes import MODES

COUNT = {"unix": 10000, "tcp": 2000, "vsock": 2000}
if os.environ.get("E2E_SANITIZER_LOG"):  # takes a multiple of the time
    COUNT = {"unix": 2000, "tcp": 1000, "vsock": 1000}

DST4 = "10.77.0.9"


class Server(Daemon):
    def __init__(self, stage, endpoint, prefix=b""):
        super().__init__("load-server", stage.prefix() + [
            PYTHON, "-B", HERE + "/modeload.py", "server", endpoint,
            "--prefix", prefix.hex()], stage.world.tmp)
        self.wait_ready(lambda: "ready" in self.log())

    def results(self):
        assert self.stop() == 0
        return self.log().splitlines()[1:]


def carrier_endpoint(stage):
    """All of this is in one namespace, so a carrier is a socket of it."""
    if stage.carrier == "tcp":
        return "tcp:127.0.0.1:%d" % stage.world.port()
    return stage.outward()


def parse(lines):
    out = {}
    for line in lines:
        assert not line.startswith("error"), line
        number, up, down, end = line.split(" ", 3)
        assert int(number) not in out
        out[int(number)] = (int(up), int(down), end)
    return out


def check(count, client, server, resets_show):
    """Each number once at each end, with the same counts and the right end."""
    assert sorted(client) == list(range(count))
    assert sorted(server) == list(range(count))
    for number in range(count):
        kind, up, down = plan(number)
        assert client[number][:2] == (up, down), number
        assert server[number][:2] == (up, down), number
        ends = {0: ("EOF", "EOF"), 1: ("EOF", "EOF"),
                2: ("reset", "reset"), 3: ("reset", "last")}[kind]
        got = (client[number][2], server[number][2])
        if not resets_show:
            # a unix socket says so only where something was left unread
            ends = tuple("EOF" if e == "reset" else e for e in ends)
            got = tuple("EOF" if e == "reset" else e for e in got)
        assert got == ends, number


@pytest.mark.parametrize("name", MODES)
def test_load(stage, name):
    count = COUNT[stage.carrier]
    world, carrier = stage.world, carrier_endpoint(stage)
    port = world.port()
    prefix = b"\x04" + socket.inet_aton("127.0.0.1")[::-1] + \
        port.to_bytes(2, "little")
    tcp, ahead, expect = "tcp:127.0.0.1:%d" % port, b"", b""

    if name == "vsock-to-ip":
        args, connect, listen = ["-v", carrier, "-i", tcp[4:]], carrier, tcp
    elif name == "vsock-to-ip-transparent":
        args, connect, listen, ahead = ["-v", carrier], carrier, tcp, prefix
    elif name == "ip-to-vsock":
        args, connect, listen = ["-i", tcp[4:], "-v", carrier], tcp, carrier
    elif name == "ip-to-vsock-transparent":
        args = ["-i", "127.0.0.1:0", "-v", carrier]
        connect, listen = "tcp:%s:80" % DST4, carrier
        expect = b"\x04" + socket.inet_aton(DST4)[::-1] + b"\x50\x00"
    else:
        place = {"unix": carrier, "tcp": "tcp:127.0.0.1",
                 "vsock": "vsock:local"}[stage.carrier]
        args = ["-i", "127.0.0.1:0", "-v", place]
        connect = "tcp:%s:%d" % (DST4, port)
        listen = place + ("_%d" if stage.carrier == "unix" else ":%d") % port

    server = Server(stage, listen, expect)
    mode = stage.inside(name, *args, "--log", "info")
    if DST4 in connect:
        stage.sh(modes.redirect_rule("iptables", 4, DST4, None, mode.port()))
    before = mode.fds()
    got = stage.run([PYTHON, "-B", HERE + "/modeload.py", "client", connect, count,
                     "--prefix", ahead.hex()], timeout=TIMEOUT * 10).ok()
    until(lambda: mode.fds() <= before, "no fd is left")
    check(count, parse(got.out.splitlines()), parse(server.results()),
          resets_show=stage.carrier == "tcp")
    assert mode.alive()
