# SPDX-License-Identifier: Apache-2.0
"""vsock-mux: the guests of Firecracker and Cloud Hypervisor, whose vsock is a unix
socket on the host that takes a CONNECT line. The VMM is played by a script."""

import socket
import threading

import pytest

import modes
from harness import PYTHON, TIMEOUT, WORLD4, until
from servers import HELLO, echo


class Vmm:
    """CONNECT port: "OK n" and then the guest's server on that port, or nothing
    but a closed connection where nobody listens in the guest."""

    def __init__(self, world, guest):
        self.path = world.dir("vmm") + "/v.sock"
        self.guest = guest  # port: function of the connection
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        conn.settimeout(TIMEOUT)
        with conn:
            line = b""
            while not line.endswith(b"\n"):
                line += conn.recv(1)
            word, port = line.split()
            assert word == b"CONNECT"
            script = self.guest.get(int(port))
            if script:
                script(conn)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(TIMEOUT)
        self.listener.close()


def ok_then_echo(conn):
    conn.sendall(b"OK 1073741824\n")
    echo(conn)


def ok_and_speaks_first(conn):
    conn.sendall(b"OK 1073741825\n220 ready\r\n")
    echo(conn)


def in_parts(conn):
    for byte in b"OK 7\nx":
        conn.sendall(bytes([byte]))
    echo(conn)


@pytest.fixture
def vmm(world):
    vmm = Vmm(world, {52: ok_then_echo, 25: ok_and_speaks_first, 7: in_parts,
                      9: lambda conn: conn.sendall(b"EPERM\n")})
    yield vmm
    vmm.close()


def talk(port, data=b"hello"):
    with socket.create_connection((WORLD4, port), TIMEOUT) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        try:
            while piece := sock.recv(65536):
                got += piece
        except ConnectionResetError:
            return "reset"
        return got


@pytest.mark.parametrize("guest_port, wanted", [
    (52, b"hello"), (25, b"220 ready\r\nhello"), (7, b"xhello")])
def test_ip_to_vsock(world, vmm, guest_port, wanted):
    mode = modes.Mode(world, "ip-to-vsock", [
        "-i", WORLD4 + ":0", "-v", "vsock-mux:%s:%d" % (vmm.path, guest_port)])
    assert talk(mode.port()) == wanted
    big = b"x" * 3000000
    assert talk(mode.port(), big) == wanted.replace(b"hello", big)
    mode.finish()


@pytest.mark.parametrize("guest_port, why", [
    (53, "Connection refused"), (9, "the vsock multiplexer did not answer OK")])
def test_refused(world, vmm, guest_port, why):
    target = "vsock-mux:%s:%d" % (vmm.path, guest_port)
    mode = modes.Mode(world, "ip-to-vsock", ["-i", WORLD4 + ":0", "-v", target])
    try:
        assert talk(mode.port()) == "reset"
    except (ConnectionResetError, BrokenPipeError):
        pass
    until(lambda: "failed to connect to %s: %s" % (target, why) in mode.log(),
          "it is logged")
    mode.finish()


def test_port_of_the_client(world, vmm):
    """transparent-port-to-vsock into the guest: the port is in the CONNECT."""
    stage = modes.Stage(world, "unix")
    mode = stage.inside("transparent-port-to-vsock", "-i", "127.0.0.1:0",
                        "-v", "vsock-mux:" + vmm.path)
    stage.sh(modes.redirect_rule("iptables", 4, WORLD4, "25,52", mode.port()))
    source = ("import socket, sys\n"
              "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)\n"
              "s.sendall(b'hi'); s.shutdown(1)\n"
              "got = b''\n"
              "while p := s.recv(99): got += p\n"
              "print(got)")
    for port, wanted in ((52, "b'hi'\n"), (25, "b'220 ready\\r\\nhi'\n")):
        got = stage.run([PYTHON, "-c", source, WORLD4, port])
        assert got.ok().out == wanted
    stage.close()


def test_whole_program(world, nginx, vmm):
    """curl to a web server in the guest."""
    def to_nginx(conn):
        conn.sendall(b"OK 1\n")
        with socket.create_connection((WORLD4, nginx.port), TIMEOUT) as web:
            web.sendall(conn.recv(65536))
            conn.sendall(web.recv(65536))
    vmm.guest[80] = to_nginx
    mode = modes.Mode(world, "ip-to-vsock", [
        "-i", WORLD4 + ":0", "-v", "vsock-mux:%s:80" % vmm.path])
    assert modes.in_world(modes.curl(WORLD4, mode.port())).ok().out == HELLO
    mode.finish()
