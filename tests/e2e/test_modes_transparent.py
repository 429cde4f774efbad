# SPDX-License-Identifier: Apache-2.0
"""Scenarios 3 and 4 of the suite: programs that know nothing of proxies, redirected
by iptables and by nftables, IPv4 and IPv6."""

import errno
import socket

import pytest

import carrier as carriers
import modes
from harness import PYTHON, TIMEOUT, WORLD4, until
from modes import LOOPBACK, WORLD, Postgres, Redis
from servers import Peer, echo, read_to_eof

TOOLS = ["iptables", "nft"]


def scenario3(stage, tool, family, listen=None, outer=(), inner=()):
    """program -> redirect -> ip-to-vsock-transparent -> carrier ->
    vsock-to-ip-transparent -> server; what is redirected is all that goes to the
    world's address."""
    endpoint = stage.outward()
    out = stage.outside("vsock-to-ip-transparent", "-v", endpoint, *outer)
    ins = stage.inside("ip-to-vsock-transparent", "-i",
                       (listen or LOOPBACK[family]) + ":0", "-v", endpoint,
                       *inner)
    stage.sh(modes.redirect_rule(tool, family, WORLD[family], None, ins.port()))
    return ins, out


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tool", TOOLS)
def test_scenario_3(stage, ports, tool, family):
    ins, out = scenario3(stage, tool, family)
    modes.programs(stage.run, WORLD[family], ports)
    dst = "%s:%d" % (modes.bracket(WORLD[family]), ports["nginx"])
    for daemon, way in ((ins, "ip to vsock"), (out, "vsock to ip")):
        for line in ("Original destination: " + dst,
                     way + " IO copy done, from ",
                     ", with original_dst=%s from inbound TCP stream" % dst):
            until(lambda: line in daemon.log(), line)
    assert "Proxying to: " + dst in out.log()


@pytest.mark.parametrize("tool", TOOLS)
def test_mapped(stage, ports, tool):
    """IPv4 connections on a dual-stack listener have an IPv4 destination."""
    ins, _ = scenario3(stage, tool, 4, listen="[::]")
    modes.programs(stage.run, WORLD4, ports)
    assert "Original destination: %s:%d" % (WORLD4, ports["nginx"]) in ins.log()
    assert "ip to vsock IO copy done, from 100.64.0.1:" in ins.log()
    assert "::ffff:" not in ins.log()


@pytest.mark.parametrize("family", [4, 6])
def test_not_redirected(stage, family):
    """Straight to the listener is refused, instead of going round in circles."""
    ins, out = scenario3(stage, "iptables", family)
    before = ins.fds()
    for _ in range(3):
        stage.run([PYTHON, "-c", """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    assert s.recv(1) == b''
except ConnectionResetError:
    pass
""", LOOPBACK[family].strip("[]"), ins.port()]).ok()
    until(lambda: ins.log().count(
        "Failed to retrieve original destination from TCP stream") == 3,
        "all are logged")
    assert "Original destination" not in ins.log() + out.log()
    until(lambda: ins.fds() <= before, "their fds are closed")


@pytest.mark.parametrize("name", ["ip-to-vsock-transparent",
                                  "transparent-port-to-vsock"])
def test_redirected_into_itself(stage, name):
    """A rule that catches the forward's own connection to its target as well: a
    client must not take all fds with it."""
    target = "tcp:192.0.2.50"
    ins = stage.inside(name, "-i", "127.0.0.1:0", "-v", target + (
        "" if name.startswith("transparent") else ":9"))
    for dst in "192.0.2.50", WORLD4:
        stage.sh(modes.redirect_rule("iptables", 4, dst, None, ins.port()))
    before = ins.fds()
    assert stage.run(modes.curl(WORLD4, 9)).rc in modes.REFUSED
    until(lambda: "failed to connect to 192.0.2.50:9: that is the original "
          "destination itself" in ins.log(), "it is logged")
    until(lambda: ins.fds() <= before, "their fds are closed")
    assert ins.log().count("Original destination: 192.0.2.50:9") == 1


def test_no_conntrack(stage):
    """Without any rule there is nothing that could know: refused as well."""
    ins = stage.inside("ip-to-vsock-transparent", "-i", "127.0.0.1:0",
                       "-v", stage.outward())
    stage.run(modes.curl("127.0.0.1", ins.port()))
    until(lambda: "Failed to retrieve original destination from TCP stream" in
          ins.log(), "it is logged")


def test_destination_down(stage):
    """The host's side says which destination and why; others go on."""
    _, out = scenario3(stage, "iptables", 4)
    with Peer(echo) as peer:
        down = socket.socket()
        down.bind((WORLD4, 0))
        port = down.getsockname()[1]
        assert stage.run(modes.curl(WORLD4, port)).rc in modes.REFUSED
        until(lambda: "failed to connect to %s:%d: Connection refused" % (
            WORLD4, port) in out.log(), "it is logged")
        down.close()
        source = ("import socket, sys\n"
                  "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
                  "s.sendall(b'x'); print(s.recv(1))")
        got = stage.run([PYTHON, "-c", source, WORLD4, peer.port])
        assert got.ok().out == "b'x'\n"


def test_rules(stage, nginx):
    """Which destinations the enclave may have is the host's decision."""
    _, out = scenario3(stage, "iptables", 4,
                       outer=["--deny", "%s:%d" % (WORLD4, nginx.port)])
    assert stage.run(modes.curl(WORLD4, nginx.port)).rc in modes.REFUSED
    until(lambda: "not allowed by the rules" in out.log(), "it is logged")


# ---- the prefix on the wire ----


def test_prefix_is_the_suites(stage):
    """What the carrier carries ahead of the payload, byte by byte."""
    got = []
    endpoint = stage.outward()
    listener = carriers.listen(endpoint)
    ins = stage.inside("ip-to-vsock-transparent", "-i", "127.0.0.1:0",
                       "-v", endpoint)
    stage.sh(modes.redirect_rule("iptables", 4, "93.184.216.34", None, ins.port()))
    stage.run([PYTHON, "-c", "import socket\n"
               "s = socket.create_connection(('93.184.216.34', 80), 20)\n"
               "s.sendall(b'payload')"]).ok()
    conn, _ = listener.accept()
    with conn, listener:
        got.append(read_to_eof(conn))
    assert got == [bytes.fromhex("0422d8b85d5000") + b"payload"]


@pytest.mark.parametrize("cut", range(1, 9))
def test_prefix_in_parts(stage, cut):
    """The host's side takes it however it comes, with payload behind it."""
    endpoint = stage.outward()
    out = stage.outside("vsock-to-ip-transparent", "-v", endpoint)
    with Peer(echo) as peer:
        data = (b"\x04" + socket.inet_aton(peer.host)[::-1] +
                peer.port.to_bytes(2, "little") + b"payload")
        with carriers.connect(endpoint, TIMEOUT) as sock:
            before = out.fds()
            sock.sendall(data[:cut])
            until(lambda: out.fds() >= before, "it was accepted")
            sock.sendall(data[cut:])
            got = b""
            while len(got) < 7:
                got += sock.recv(7)
            assert got == b"payload"


@pytest.mark.parametrize("bad, says", [
    (b"\x05\x01\x00", "version is 5, expected 4 or 6"),
    (b"GET / HTTP/1.0\r\n\r\n", "version is 71, expected 4 or 6"),
    (b"\x04\x01\x00\x00", "ended before its destination was known"),
    (b"\x04\x00\x00\x00\x00\x00\x00", "failed to connect to 127.0.0.1:0"),
])
def test_bad_prefix(stage, bad, says):
    endpoint = stage.outward()
    out = stage.outside("vsock-to-ip-transparent", "-v", endpoint)
    with carriers.connect(endpoint, TIMEOUT) as sock:
        try:
            sock.sendall(bad)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        except OSError as error:  # the refusal was faster
            assert error.errno in (errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)
    # the address is canonical in the log, so that rules can be written from it
    until(lambda: says.replace("127.0.0.1:0", "") in out.log(), says)


# ---- scenario 4 ----


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tool", TOOLS)
def test_scenario_4(world, stage, tool, family):
    """Three servers in the enclave, each on its own port, reached through one
    transparent-port-to-vsock outside."""
    prefix = stage.prefix()
    servers = {"redis": Redis(world, ["127.0.0.1"], prefix=prefix),
               "postgres": Postgres(world, ["127.0.0.1"], prefix=prefix)}
    inner = {name: server.port for name, server in servers.items()}
    inner["nginx"] = world.port()
    web = stage.enclave.tmp + "/www"
    import os
    os.mkdir(web)
    with open(web + "/hello", "w", encoding="ascii") as page:
        page.write("Hello from outside.\n")
    httpd = modes.Daemon("httpd", prefix + [
        PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "--directory", web,
        inner["nginx"]], world.tmp)
    public = {name: world.port() for name in inner}
    for name, port in public.items():
        stage.inside("vsock-to-ip", "-v", stage.inward_port(port),
                     "-i", "127.0.0.1:%d" % inner[name])
    mode = stage.outside("transparent-port-to-vsock", "-i",
                         LOOPBACK[family] + ":0", "-v", stage.inward())
    ports = ",".join(map(str, public.values()))
    dst = {4: "10.77.0.2", 6: "fd77::1"}[family]
    rule = modes.redirect_rule(tool, family, dst, ports, mode.port())
    modes.sh(rule)
    try:
        until(lambda: modes.in_world(modes.curl(dst, public["nginx"])).rc == 0,
              "the server is up")
        modes.programs(modes.in_world, dst, public)
    finally:
        if tool == "iptables":
            modes.sh(rule.replace("-A OUTPUT", "-D OUTPUT"))
        else:
            modes.sh("nft delete table inet modes")
    assert "Original destination: %s:%d" % (
        modes.bracket(dst), public["redis"]) in mode.log()
    for server in list(servers.values()) + [httpd]:
        server.kill()
