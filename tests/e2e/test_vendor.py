# SPDX-License-Identifier: Apache-2.0
"""socket_vendor: one per enclave, up again after a crash, and closed to others.

The front-end's messages are written down here a second time, from
common/vendor_msg.h: what a stranger sends must be refused whatever it is."""

import errno
import os
import signal
import socket
import struct
import subprocess

import pytest

from harness import PYTHON, TIMEOUT, until
from servers import HELLO, Peer, echo

MAGIC = 0x70786679
REQUEST_SIZE = 1024
RESULT_SIZE = 80
PING, CONNECT = 2, 1


def request(op=PING, size=REQUEST_SIZE, magic=MAGIC, version=1):
    return struct.pack("=IHHI", magic, version, op, size).ljust(REQUEST_SIZE, b"\0")


@pytest.fixture
def vendor(new_site):
    """A site whose vendor runs."""
    site = new_site()
    site.run(["true"]).ok()
    assert site.enclave.processes("socket_vendor")
    return site


def dial(site):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(TIMEOUT)
    sock.connect(site.enclave.vendor_path)
    return sock


def answer(site, message, fds=()):
    """What the vendor says to one message; b"" when it hangs up."""
    with dial(site) as sock:
        try:
            if fds:
                socket.send_fds(sock, [message], fds)
            else:
                sock.send(message)
            return sock.recv(4096)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def alive(site):
    reply = answer(site, request())
    return len(reply) == RESULT_SIZE and struct.unpack_from("=i", reply, 12)[0] == 0


def test_two_launchers_one_vendor(new_site):
    """Many proxify at once in a fresh enclave: one vendor, and all work."""
    site = new_site()
    procs = [site.enclave.popen(["echo", "ran"], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE) for _ in range(10)]
    for proc in procs:
        out, err = proc.communicate(timeout=TIMEOUT)
        assert (proc.returncode, out, err) == (0, b"ran\n", b"")
    # a supervisor and its worker
    until(lambda: len(site.enclave.processes("socket_vendor")) == 2,
          "only one vendor is left")


def test_worker_crash(vendor, nginx):
    """kill -9 of the worker: the listening socket is there all the while."""
    first = vendor.enclave.processes("socket_vendor")
    worker = max(first)
    for _ in range(5):
        os.kill(worker, signal.SIGKILL)
        fetched = vendor.run([PYTHON, "-c", NONBLOCKING_FETCH, *address(nginx)]).ok()
        assert fetched.out == HELLO
        now = until(lambda: [p for p in vendor.enclave.processes("socket_vendor")
                             if p != worker and p != min(first)],
                    "there is another worker")
        worker = now[-1]


NONBLOCKING_FETCH = """
import select, socket, sys
s = socket.socket()
s.setblocking(False)
s.connect_ex((sys.argv[1], int(sys.argv[2])))
assert select.select([], [s], [], 20)[1]
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
s.setblocking(True)
s.sendall(b"GET /hello HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")
answer = b""
while piece := s.recv(4096):
    answer += piece
sys.stdout.write(answer.partition(b"\\r\\n\\r\\n")[2].decode())
"""


def address(server):
    return ["10.77.0.1", server.port]


def test_streams_survive_the_worker(vendor):
    """A connected stream does not pass through the vendor."""
    source = ("import socket, sys\n"
              "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)\n"
              "print('ready', flush=True); sys.stdin.readline()\n"
              "s.sendall(b'still here'); print(s.recv(100).decode())\n")
    with Peer(echo) as peer:
        proc = vendor.enclave.popen(
            [PYTHON, "-c", source, peer.host, peer.port],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert proc.stdout.readline() == b"ready\n"
        for pid in vendor.enclave.processes("socket_vendor"):
            os.kill(pid, signal.SIGKILL)
        out, _ = proc.communicate(b"\n", timeout=TIMEOUT)
        assert out == b"still here\n"


def test_vendor_killed_whole(vendor, nginx):
    """Supervisor and worker gone: the next proxify starts a new one."""
    for pid in vendor.enclave.processes("socket_vendor"):
        os.kill(pid, signal.SIGKILL)
    got = vendor.run([PYTHON, "-c", NONBLOCKING_FETCH, *address(nginx)]).ok()
    assert got.out == HELLO


@pytest.mark.parametrize("message", [
    b"x", b"", b"\0" * REQUEST_SIZE, request() + b"x", request()[:-1],
    request(magic=1), request(version=2), request(op=99), request(size=12),
    request(CONNECT), os.urandom(REQUEST_SIZE), b"\xff" * REQUEST_SIZE,
    os.urandom(64000)],
    ids=["short", "empty", "zero", "long", "cut", "magic", "version", "op", "size",
         "no-destination", "random", "ones", "huge"])
def test_bad_message(vendor, message):
    """Refused without an fd, and the next front-end is served."""
    reply = answer(vendor, message)
    assert reply == b"" or struct.unpack_from("=i", reply, 12)[0] != 0
    assert alive(vendor)


def test_stray_fds_are_closed(vendor):
    worker = max(vendor.enclave.processes("socket_vendor"))

    def fds():
        return len(os.listdir("/proc/%d/fd" % worker))
    assert alive(vendor)
    before = until(fds, "the worker is there")
    a, b = socket.socketpair()
    with a, b:
        for count in (1, 3, 100):
            for _ in range(20):
                answer(vendor, request(), [a.fileno()] * count)
                answer(vendor, b"junk", [a.fileno()] * count)
    assert alive(vendor)
    until(lambda: fds() <= before, "the stray fds are closed")


def test_clients_that_say_nothing_are_no_harm(vendor, nginx):
    """Connections that send nothing, or leave at once."""
    idle = [dial(vendor) for _ in range(200)]
    for _ in range(200):
        dial(vendor).close()
    got = vendor.run([PYTHON, "-c", NONBLOCKING_FETCH, *address(nginx)]).ok()
    assert got.out == HELLO
    for sock in idle:
        sock.close()


def test_socket_is_for_its_owner(vendor):
    """The folder can be written by its owner only, and another uid is refused."""
    folder = os.path.dirname(vendor.enclave.vendor_path)
    mode = os.stat(folder).st_mode
    assert mode & 0o022 == 0
    # Another uid, where this namespace has one.
    code = ("import os, socket, sys\n"
            "os.setresuid(1, 1, 1)\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "s.connect(sys.argv[1])\n"
            "try: s.send(sys.stdin.buffer.read())\n"
            "except BrokenPipeError: pass  # it was refused before\n"
            "sys.stdout.buffer.write(s.recv(4096))\n")
    with open("/proc/self/uid_map", encoding="ascii") as uid_map:
        if uid_map.read().split()[2] == "1":
            return  # a user namespace with one user: nobody to refuse
    os.chmod(vendor.world.tmp, 0o755)
    os.chmod(vendor.enclave.tmp, 0o755)
    os.chmod(folder, 0o755)
    os.chmod(vendor.enclave.vendor_path, 0o777)
    got = vendor.enclave.plain(
        [PYTHON, "-c", code, vendor.enclave.vendor_path], stdin=request()).ok()
    assert len(got.raw) == RESULT_SIZE
    assert struct.unpack_from("=i", got.raw, 12)[0] == errno.EACCES
    assert alive(vendor)


def test_folder_others_can_write_is_refused(new_site):
    """A vendor does not put its socket where somebody else could put his."""
    site = new_site()
    folder = os.path.dirname(site.enclave.vendor_path)
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    result = site.run(["echo", "ran"])
    assert (result.rc, result.out) == (125, "")
    assert folder in result.err


def test_cancelled_connects_leave_nothing(vendor):
    """A program that gives up on its connects: the vendor gives up too."""
    from harness import SILENT4
    worker = max(vendor.enclave.processes("socket_vendor"))
    source = ("import socket, sys\n"
              "socks = []\n"
              "for i in range(100):\n"
              "    s = socket.socket(); s.setblocking(False)\n"
              "    s.connect_ex((sys.argv[1], 80)); socks.append(s)\n")
    before = len(os.listdir("/proc/%d/fd" % worker))
    vendor.run([PYTHON, "-c", source, SILENT4]).ok()
    until(lambda: len(os.listdir("/proc/%d/fd" % worker)) <= before,
          "the worker has closed what it had for them")


def test_ends_on_sigterm(vendor):
    """And takes its socket away, so that the next one starts without a word."""
    for pid in vendor.enclave.processes("socket_vendor")[:1]:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not vendor.enclave.processes("socket_vendor"), "it is gone")
    assert not os.path.exists(vendor.enclave.vendor_path)
    assert vendor.run(["echo", "again"]).ok().out == "again\n"
