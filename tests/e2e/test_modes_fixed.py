# SPDX-License-Identifier: Apache-2.0
"""vsock-to-ip and ip-to-vsock: real programs through both, IPv4 and IPv6, what is
logged, and what happens when the other end is down or slow."""

import socket
import time

import pytest

import content
import modes
from harness import PATIENCE, PYTHON, SILENT4, SLOWNESS, TIMEOUT, WORLD4, until
from modes import LOOPBACK, WORLD, Redis
from servers import HELLO, Peer, closed_port, echo, read_to_eof, reset


def chain(stage, target, family=4, inner=(), outer=()):
    """ip-to-vsock in the enclave, vsock-to-ip in the world; returns the port in
    the enclave, and both."""
    endpoint = stage.outward()
    out = stage.outside("vsock-to-ip", "-v", endpoint, "-i", target, *outer)
    ins = stage.inside("ip-to-vsock", "-i", LOOPBACK[family] + ":0",
                       "-v", endpoint, *inner)
    return ins.port(), ins, out


@pytest.mark.parametrize("family", [4, 6])
def test_programs(stage, ports, family):
    """curl, psql and redis-cli, each through a pair of its own."""
    host = modes.bracket(WORLD[family])
    here = {name: chain(stage, "%s:%d" % (host, port), family)[0]
            for name, port in ports.items()}
    modes.programs(stage.run, LOOPBACK[family].strip("[]"), here)


def test_into_the_enclave(stage, world):
    """The other way round: a server in the enclave, its clients outside."""
    redis = Redis(world, hosts=["127.0.0.1"], prefix=stage.prefix())
    stage.inside("vsock-to-ip", "-v", stage.inward_port(7000),
                 "-i", "127.0.0.1:%d" % redis.port)
    ins = stage.outside("ip-to-vsock", "-i", WORLD4 + ":0",
                        "-v", stage.inward_port(7000))
    got = modes.in_world(modes.redis(WORLD4, ins.port(), "ping"))
    assert got.ok().out == "PONG\n"
    redis.kill()


def test_name_as_target(stage, nginx):
    """A name is looked up at each connection (here in the hosts file)."""
    port, _, _ = chain(stage, "world.test:%d" % nginx.port)
    assert stage.run(modes.curl("127.0.0.1", port)).ok().out == HELLO


def test_name_that_is_not_there(stage):
    port, _, out = chain(stage, "nowhere.invalid:80")
    assert stage.run(modes.curl("127.0.0.1", port)).rc in modes.REFUSED
    until(lambda: "failed to connect to nowhere.invalid:80" in out.log(),
          "it is logged")
    assert out.alive()


def test_log_lines(stage, nginx):
    """In the form that users of the suite look for."""
    port, ins, out = chain(stage, "%s:%d" % (WORLD4, nginx.port))
    stage.run(modes.curl("127.0.0.1", port)).ok()
    target = "%s:%d" % (WORLD4, nginx.port)
    for line in ("Listening on: ", "Proxying to: " + target,
                 "vsock to ip IO copy done, from ", " to " + target,
                 "ip to vsock IO copy done, from " + target + " to "):
        until(lambda: line in out.log(), line)
    for line in ("Listening on: 127.0.0.1:%d" % port, "Proxying to: ",
                 "ip to vsock IO copy done, from 127.0.0.1:",
                 "vsock to ip IO copy done, from "):
        until(lambda: line in ins.log(), line)


# ---- the other end ----


def connect(stage, port, script, *args):
    """Run a Python client in the enclave; s is connected to the port. (A reset
    may come before it has noticed.)"""
    source = ("import socket, sys\n"
              "try:\n"
              "    s = socket.create_connection(('127.0.0.1', %d), %g)\n"
              "except ConnectionResetError:\n"
              "    print('ECONNRESET'); sys.exit()\n"
              "s.settimeout(%g)\n" % (port, PATIENCE, PATIENCE)) + script
    return stage.run([PYTHON, "-c", source, *args])


READ = """
try:
    got = b''
    while piece := s.recv(65536): got += piece
    print('EOF', len(got))
except OSError as e:
    import errno; print(errno.errorcode[e.errno])
"""


def test_target_down(stage):
    """Logged with address and errno; a neighbour on the same forward lives on,
    and the next connection finds a target that is up again."""
    with Peer(echo) as peer:
        port, _, out = chain(stage, "%s:%d" % (peer.host, peer.port))
        # one that stays open while the target goes away
        hold = connect(stage, port, "s.sendall(b'x'); print(s.recv(1))")
        assert hold.ok().out == "b'x'\n"
    keep, down = closed_port()
    with keep:
        port, ins, out = chain(stage, "%s:%d" % (WORLD4, down))
        got = connect(stage, port, READ).ok().out
        assert got in (["ECONNRESET\n"] if stage.carrier == "tcp"
                       else ["ECONNRESET\n", "EOF 0\n"])
        until(lambda: "failed to connect to %s:%d: Connection refused" % (
            WORLD4, down) in out.log(), "it is logged")
        keep.listen(1)
        got = connect(stage, port, "print('connected')").ok().out
        assert got == "connected\n"
        keep.accept()[0].close()


def test_target_by_name_down(stage):
    """Of a name the address too: it may not be the one that was meant."""
    keep, down = closed_port()
    with keep:
        port, _, out = chain(stage, "world.test:%d" % down)
        connect(stage, port, READ).ok()
        line = "failed to connect to world.test:%d (%s): Connection refused"
        # which of its addresses comes last is the machine's business
        until(lambda: any(line % (down, "%s:%d" % (modes.bracket(host), down))
                          in out.log() for host in WORLD.values()), "it is logged")


def test_carrier_down(stage, world):
    ins = stage.inside("ip-to-vsock", "-i", "127.0.0.1:0", "-v", stage.outward())
    assert connect(stage, ins.port(), READ).ok().out == "ECONNRESET\n"
    until(lambda: "failed to connect to " in ins.log(), "it is logged")


def test_connect_timeout(stage):
    port, _, out = chain(stage, SILENT4 + ":80",
                         outer=["--connect-timeout", "0.3"])
    start = time.monotonic()
    connect(stage, port, READ).ok()
    assert 0.3 <= time.monotonic() - start < 5 * SLOWNESS
    until(lambda: "%s:80: Connection timed out" % SILENT4 in out.log(),
          "it is logged")


def test_half_close(stage):
    """8 MiB up, EOF, and only then 1 MiB down; and the other way round."""
    sums = []

    def answer(conn):
        sums.append(len(read_to_eof(conn)))
        conn.sendall(content.data(1 << 20))

    script = ("s.sendall(b'x' * (8 << 20)); s.shutdown(socket.SHUT_WR)\n" + READ)
    with Peer(answer) as peer:
        port, _, _ = chain(stage, "%s:%d" % (peer.host, peer.port))
        assert connect(stage, port, script).ok().out == "EOF %d\n" % (1 << 20)
    assert sums == [8 << 20]

    def first(conn):
        conn.sendall(content.data(1 << 20))
        conn.shutdown(socket.SHUT_WR)
        sums.append(len(read_to_eof(conn)))

    with Peer(first) as peer:
        port, _, _ = chain(stage, "%s:%d" % (peer.host, peer.port))
        got = connect(stage, port, READ + "s.sendall(b'x' * (8 << 20))")
        assert got.ok().out == "EOF %d\n" % (1 << 20)
        until(lambda: sums == [8 << 20, 8 << 20], "the server has all of it")


def test_reset(stage, carrier):
    """A reset is no end of stream, where the carrier can tell them apart."""
    def script(conn):
        conn.recv(1)
        reset(conn)
    with Peer(script) as peer:
        port, _, out = chain(stage, "%s:%d" % (peer.host, peer.port))
        got = connect(stage, port, "s.sendall(b'x')" + READ).ok().out
    assert got in (["ECONNRESET\n"] if carrier == "tcp"
                   else ["ECONNRESET\n", "EOF 0\n"])
    until(lambda: "ip to vsock IO copy failed, from " in out.log(),
          "it is logged")


# ---- limits ----


def test_max_connections(stage):
    """The third waits until one of two has ended; nobody is refused."""
    with Peer(echo) as peer:
        port, ins, _ = chain(stage, "%s:%d" % (peer.host, peer.port),
                             inner=["--max-connections", "2"])
        got = connect(stage, port, """
others = [socket.create_connection(s.getpeername(), 20) for _ in range(2)]
s.sendall(b'1'); print(s.recv(1))
others[0].sendall(b'2'); print(others[0].recv(1))
others[1].sendall(b'3')
others[1].settimeout(0.5)
try:
    print(others[1].recv(1))
except TimeoutError:
    print('waits')
s.close()
others[1].settimeout(20)
print(others[1].recv(1))
""").ok().out
        assert got == "b'1'\nb'2'\nwaits\nb'3'\n"
        until(lambda: "2 connections, the limit; others wait" in ins.log(),
              "it is logged")


def test_idle_timeout(stage):
    def until_reset(conn):
        try:
            echo(conn)
        except ConnectionResetError:
            pass

    with Peer(until_reset) as peer:
        port, ins, _ = chain(stage, "%s:%d" % (peer.host, peer.port),
                             inner=["--idle-timeout", "0.5"])
        start = time.monotonic()
        got = connect(stage, port, """
import time
for i in range(4):
    s.sendall(b'x'); s.recv(1)
    time.sleep(0.25)  # activity, not a wait for something
""" + READ).ok().out
        assert got == "ECONNRESET\n"
        assert 1.2 <= time.monotonic() - start < TIMEOUT / 2
        until(lambda: ": --idle-timeout is over" in ins.log(), "it is logged")


# ---- start-up ----


@pytest.mark.parametrize("name, args, says", [
    ("vsock-to-ip", ["-v", "unix:/nonexistent/s", "-i", "127.0.0.1:1"],
     "Failed to bind listener to vsock: incorrect CID:port"),
    ("vsock-to-ip-transparent", ["-v", "unix:/nonexistent/s"],
     "Failed to bind listener to vsock: incorrect CID:port"),
    ("ip-to-vsock", ["-i", "192.0.2.1:80", "-v", "3:1"],
     "Failed to bind listener: malformed listening address:port"),
    ("ip-to-vsock-transparent", ["-i", "[2001:db8::7]:80", "-v", "3:1"],
     "Failed to bind listener: malformed listening address:port"),
    ("transparent-port-to-vsock", ["-i", "192.0.2.1:80", "-v", "3"],
     "Failed to bind listener: malformed listening address:port"),
])
def test_bind_fails(world, name, args, says):
    """Exit 1 at once, with the suite's words, the address and the errno."""
    got = modes.in_world([modes.command(world, name), *args])
    assert got.rc == 1
    assert says in got.err
    address = args[1].removeprefix("unix:")
    assert address in got.err
    assert got.err.rstrip().endswith(("No such file or directory",
                                      "Cannot assign requested address"))


def test_port_in_use(world):
    with Peer(echo) as peer:
        got = modes.in_world([
            modes.command(world, "ip-to-vsock"), "-v", "3:1",
            "-i", "%s:%d" % (peer.host, peer.port)])
    assert got.rc == 1
    assert "malformed listening address:port" in got.err
    assert "Address already in use" in got.err


@pytest.mark.parametrize("name, args, names", [
    ("vsock-to-ip", [], "--vsock-addr"),
    ("vsock-to-ip", ["-v", "3:1"], "--ip-addr"),
    ("ip-to-vsock", ["-i", "127.0.0.1:1", "-v", "3:x"], "'3:x'"),
    ("ip-to-vsock", ["-i", "127.0.0.1", "-v", "3:1"], "'127.0.0.1'"),
    ("vsock-to-ip-transparent", ["--frob"], "'--frob'"),
    ("ip-to-vsock-transparent", ["-i", "127.0.0.1:1"], "--vsock-addr"),
    ("transparent-port-to-vsock", ["-i", "127.0.0.1:1"], "--vsock"),
    ("transparent-port-to-vsock", ["-i", "127.0.0.1:1", "-v", "x"], "'x'"),
])
@pytest.mark.parametrize("as_link", [True, False])
def test_command_line_errors(world, name, args, names, as_link):
    """Exit 2, with a line that names what is wrong."""
    argv = ([modes.command(world, name)] if as_link
            else [world.bin + "/proxy", name])
    got = modes.in_world(argv + args)
    assert got.rc == 2
    assert names in got.err.splitlines()[0]
    assert got.out == ""
