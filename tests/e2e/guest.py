# SPDX-License-Identifier: Apache-2.0
"""An enclave that is a machine: a kernel of its own, and vsock for its only way
out.

Theory of operation

The tests run in the machine of tests/vm/run, which is the parent. qemu boots the
enclave in it, from what tests/vm/enclave has made, with the vsock device of the
parent's kernel (vhost): the parent is CID 2, the enclave CID 16.

What tests do in the enclave goes over a virtio serial port, a command at a time,
see tests/vm/enclave-init. (Over a PC's serial line some were never answered.) A
command has a token that nobody could know before, so an answer that comes too
late is not taken for another one's. One that is to go on by itself ends with "&"
and has its output in a file.
"""

import base64
import collections
import os
import secrets
import shlex
import time

import carrier as carriers
from harness import TIMEOUT, Daemon, Proxy, Result, run, say, text, until

CID = 16
HOST = 2  # the parent, as the enclave counts


class Guest:
    """The enclave's machine."""

    def __init__(self, world, image, port):
        """image: the folder made by tests/vm/enclave; port: the proxy's."""
        self.env = {"PROXY_PARENT_CID": HOST, "PROXY_PARENT_PORT": port}
        self.console = world.dir("guest") + "/console"
        path = world.dir("guest") + "/line"
        with carriers.listen("unix:" + path) as listener:
            self.qemu = Daemon("qemu", [
                "qemu-system-x86_64", "-accel", "kvm", "-accel", "tcg",
                "-cpu", "max", "-m", "384", "-nodefaults", "-no-reboot",
                "-display", "none", "-monitor", "none",
                "-kernel", image + "/kernel", "-initrd", image + "/initramfs",
                "-append", "console=ttyS0 quiet panic=-1",
                "-device", "vhost-vsock-pci,guest-cid=%d" % CID,
                "-serial", "file:" + self.console,
                "-chardev", "socket,id=line,path=" + path,
                "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=line"], world.tmp)
            listener.settimeout(TIMEOUT)
            self.line = listener.accept()[0]
        self.line.settimeout(1)
        self.answers = b""
        self._answer("ready", TIMEOUT)

    def _receive(self, end, what):
        """More of what the enclave says."""
        while True:
            if not self.qemu.alive():
                raise AssertionError("qemu ended: " + self.qemu.log())
            if time.monotonic() > end:
                with open(self.console, encoding="utf-8", errors="replace") as file:
                    say("--- console\n" + file.read()[-4000:])
                raise AssertionError("the enclave did not answer: %s" % what)
            try:
                piece = self.line.recv(65536)
            except TimeoutError:
                continue
            self.answers += piece
            return

    def _answer(self, token, timeout):
        """(status, output) of the command with that token."""
        end = time.monotonic() + timeout
        while True:
            while b"\n" not in self.answers:
                self._receive(end, token)
            head, _, self.answers = self.answers.partition(b"\n")
            whose, status, length = head.decode().split()
            while len(self.answers) < int(length):
                self._receive(end, token)
            output = self.answers[:int(length)]
            self.answers = self.answers[int(length):]
            if whose == token:
                return int(status), output

    def sh(self, command):
        """Run a line of shell in the enclave."""
        assert "\n" not in command
        token = secrets.token_hex(8)
        start = time.monotonic()
        self.line.sendall(b"%s timeout -s KILL %d sh -c %s\n" % (
            token.encode(), TIMEOUT - 10, shlex.quote(command).encode()))
        status, raw = self._answer(token, TIMEOUT)
        seconds = time.monotonic() - start
        say("guest$ %s\n[%d, %.3f s] %s" % (
            command, status, seconds, text(raw)[-2000:]))
        return Result([command], status, text(raw), "", raw, seconds)

    def proxify(self, *argv):
        """The words that run a program in the enclave through proxify."""
        env = ["%s=%s" % item for item in self.env.items()]
        return shlex.join(["env", *env, "proxify", *map(str, argv)])

    def run(self, *argv):
        """Run a program in the enclave through proxify."""
        return self.sh(self.proxify(*argv))

    def start(self, *argv):
        """Let a program run in the enclave through proxify, by itself."""
        self.sh("setsid %s >/tmp/%s.log 2>&1 &" % (
            self.proxify(*argv), argv[0])).ok()

    def write(self, path, content):
        """Make a file in the enclave."""
        self.sh("mkdir -p $(dirname %s) && echo %s | base64 -d >%s" % (
            path, base64.b64encode(content.encode()).decode(), path)).ok()

    def sha256(self, path):
        return self.sh("sha256sum <" + path).ok().out.split()[0]

    def kill(self):
        """As if its power were cut."""
        self.qemu.kill()
        self.line.close()


class Two:
    """The two machines: the parent's proxy, and the enclave."""

    def __init__(self, world, image, resolv_conf):
        self.world = world
        self.resolv_conf = resolv_conf
        self.port = carriers.vsock_port()
        self.start_proxy()
        self.guest = Guest(world, image, self.port)

    def start_proxy(self):
        self.proxy = Proxy(self.world, "vsock:any:%d" % self.port, [
            "--log", "debug", "--resolv-conf", self.resolv_conf])

    def carriers(self):
        """How many connections from the enclave the parent's kernel has."""
        out = run(["ss", "-Hn", "--vsock", "state", "all"]).ok().out
        return sum(" %d:" % CID in line for line in out.splitlines())

    def held(self):
        """What the proxy has open: how many of each kind."""
        folder = "/proc/%d/fd/" % self.proxy.pid
        return collections.Counter(
            os.readlink(folder + fd).partition("[")[0] for fd in os.listdir(folder))

    def rest(self):
        """End what in the enclave has to do with the proxy. Return what the proxy
        has open then: of sockets, only the one that it listens on."""
        self.guest.sh("killall -q -9 nginx socat curl socket_vendor")
        until(lambda: self.held()["socket:"] == 1 and not self.carriers(),
              "the proxy is at rest")
        return self.held()

    def close(self):
        self.guest.kill()
        assert self.proxy.stop() == 0
