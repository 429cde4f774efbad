# SPDX-License-Identifier: Apache-2.0
"""The stage that the end-to-end tests play on.

Theory of operation

The whole run sits in a network, mount and process namespace of its own
(enter_sandbox()), with a user namespace too when it was not started by root.
Its loopback carries the private addresses below: that namespace is "the world",
with the real servers and the host proxy. Nothing can leave it, and what a test
leaves behind dies with it.

An Enclave is a network namespace nested in that one, without any interface but
a loopback that is down. The carrier is a unix socket, which needs no network,
TCP over a veth pair that has no other address than the proxy's, or vsock where
the machine has its loopback (tests/vm/run boots one that has).

Far addresses are played by farnet.py, see there: one answers a SYN after 300 ms,
one never.

Rules: no test sleeps to wait for something, it polls with until(); every wait
ends after TIMEOUT; ports come from the kernel, or from World.port() for servers
that have to be told one (the namespace belongs to us alone, so nobody else can
take it). What was run and logged is kept in a transcript, printed when a test
fails.
"""

import atexit
import dataclasses
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import carrier as carriers

PYTHON = "/usr/bin/python3"
HERE = os.path.dirname(os.path.abspath(__file__))

# The one timeout: how long anything may take before it counts as hung.
TIMEOUT = float(os.environ.get("E2E_TIMEOUT", "30"))
# How much slower this machine is than one that needs no more than the default:
# deadlines that are part of a test are stretched by it.
SLOWNESS = max(1.0, TIMEOUT / 30)
# What programs in a test wait at most: less than the test waits for them.
PATIENCE = 20 * SLOWNESS

BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(HERE, "../../build")))
# The proxy of another build (the ThreadSanitizer one), beside everything else
# from BUILD.
PROXY_BUILD = os.path.abspath(os.environ.get("PROXY_BUILD", BUILD))
# A sanitizer's runtime that foreign programs need in front of our library.
PRELOAD_EXTRA = os.environ.get("PRELOAD_EXTRA", "")

WORLD4 = "10.77.0.1"
WORLD4B = "10.77.0.2"
WORLD6 = "fd77::1"
SLOW4 = "10.77.30.1"  # answers a SYN after 300 ms
SLOW_SECONDS = 0.3
SILENT4 = "10.77.32.1"  # never answers
UNREACHABLE4 = "10.77.40.1"  # EHOSTUNREACH
PROHIBITED4 = "10.77.40.2"  # EACCES
NO_ROUTE4 = "192.0.2.1"  # ENETUNREACH
UNREACHABLE6 = "fd77:40::1"
NO_ROUTE6 = "2001:db8::1"

PROGRAMS = {
    "proxy": "proxy/proxy",
    "proxify": "proxify/proxify",
    "socket_vendor": "vendor/socket_vendor",
    "libproxy_preload.so": "preload/libproxy_preload.so",
}

transcript = []
_logs = []  # (name, path) of the daemons of the running test


def say(line):
    transcript.append(line)


def until(condition, what, timeout=None):
    """Poll until condition() is true; fail naming what was waited for."""
    end = time.monotonic() + (timeout or TIMEOUT)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("timed out waiting until " + what)
        time.sleep(0.01)


# ---- the sandbox ----


def enter_sandbox():
    """Start this Python again, with the same arguments, in namespaces of its
    own. Returns at once when that has happened already."""
    if os.environ.get("E2E_SANDBOX"):
        return
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child",
            "--mount-proc"]
    if os.geteuid() != 0:
        argv += ["--user", "--map-root-user"]
    env = dict(os.environ, E2E_SANDBOX="1", PATH=full_path())
    # sys.orig_argv, which Python has from 3.10 on
    with open("/proc/self/cmdline", encoding="utf-8") as cmdline:
        own = cmdline.read().rstrip("\0").split("\0")
    argv += [PYTHON, "-B"] + own[1:]
    os.execvpe("unshare", argv, env)


def in_user_namespace():
    """Was the run started by an ordinary user? Then root is nobody else's here,
    and there are no other users and groups to change to."""
    with open("/proc/self/uid_map", encoding="ascii") as uid_map:
        return uid_map.read().split()[2] == "1"


def glibc():
    """(major, minor)"""
    version = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
    return tuple(map(int, version.split(".")))


def full_path():
    """PATH with the system directories that an ordinary user's lacks."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    have = path.split(":")
    return ":".join(have + [d for d in ("/usr/sbin", "/sbin") if d not in have])


def sh(command):
    subprocess.run(["sh", "-ec", command], check=True, timeout=TIMEOUT)


# ---- running programs ----


@dataclasses.dataclass
class Result:
    """How a program ended. A signal is reported as a shell does: 128 + n."""

    argv: list
    rc: int
    out: str
    err: str
    raw: bytes
    seconds: float

    def ok(self):
        assert self.rc == 0, "%s: exit %d, stderr: %s" % (
            " ".join(map(str, self.argv)), self.rc, self.err)
        return self


def run(argv, env=None, stdin=None, timeout=None, cwd=None, prefix=(), note=""):
    """Run a program to its end and keep what it printed."""
    timeout = timeout or TIMEOUT
    argv = [str(a) for a in argv]
    start = time.monotonic()
    proc = subprocess.Popen(
        list(prefix) + argv, env=env, cwd=cwd, start_new_session=True,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = proc.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        os.killpg(proc.pid, signal.SIGKILL)
        # What holds the pipes open beyond the group is the test's finding:
        # do not wait for it.
        try:
            out, err = proc.communicate(timeout=1)
        except subprocess.TimeoutExpired as late:
            out, err = late.stdout or b"", late.stderr or b""
            proc.stdout.close()
            proc.stderr.close()
        say("%s$ %s\n!! killed after %g s\n%s%s" % (
            note, " ".join(argv), timeout, text(out), text(err)))
        raise AssertionError("%s: not done after %g s" % (argv, timeout))
    seconds = time.monotonic() - start
    rc = proc.returncode
    result = Result(argv, rc if rc >= 0 else 128 - rc, text(out), text(err), out,
                    seconds)
    say("%s$ %s\n[%d, %.3f s] %s%s" % (
        note, " ".join(argv), result.rc, seconds, result.out[-2000:],
        result.err[-2000:]))
    return result


def text(raw):
    return raw.decode("utf-8", "replace")


# ---- daemons ----


def cpu_seconds(pid):
    """User and system time that a process has used."""
    with open("/proc/%d/stat" % pid) as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Daemon:
    """A program that runs in the background, its output in a log file."""

    def __init__(self, name, argv, directory, env=None, prefix=()):
        self.name = name
        self.log_path = tempfile.mktemp(".log", name + "-", directory)
        _logs.append((name, self.log_path))
        say("+ " + " ".join(map(str, argv)))
        with open(self.log_path, "wb") as log:
            self.proc = subprocess.Popen(
                list(prefix) + [str(a) for a in argv], env=env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        atexit.register(self.kill)

    @property
    def pid(self):
        return self.proc.pid

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def alive(self):
        return self.proc.poll() is None

    def wait_ready(self, ready):
        def check():
            if not self.alive():
                raise AssertionError("%s ended with %s: %s" % (
                    self.name, self.proc.returncode, self.log()))
            return ready()
        until(check, self.name + " is ready")

    def signal(self, number):
        os.kill(self.proc.pid, number)

    def wait(self, timeout=None):
        return self.proc.wait(timeout or TIMEOUT)

    def kill(self):
        if self.alive():
            os.killpg(self.proc.pid, signal.SIGKILL)
            self.proc.wait()

    def stop(self):
        """End it as an administrator would; anything but a clean end fails."""
        if self.alive():
            self.signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(self.name + " did not end on SIGTERM")
        return self.proc.returncode


def daemon_logs():
    """The end of each daemon's log, for the report of a failed test."""
    out = []
    for name, path in _logs:
        try:
            with open(path, encoding="utf-8", errors="replace") as log:
                out.append("--- %s (%s)\n%s" % (name, path, log.read()[-4000:]))
        except FileNotFoundError:
            pass
    return "\n".join(out)


def forget_logs():
    _logs[:] = [(name, path) for name, path in _logs if name.startswith("world")]
    transcript.clear()


def listening(host, port):
    """Does a connection to a TCP port succeed?"""
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False


# ---- the world ----


class World:
    """Addresses, routes and servers outside the enclave."""

    def __init__(self):
        # Not below a directory of root's: servers may run as someone else.
        self.tmp = tempfile.mkdtemp(prefix="e2e-", dir="/tmp")
        os.chmod(self.tmp, 0o755)
        atexit.register(shutil.rmtree, self.tmp, True)
        self._port = 20000  # below ip_local_port_range
        self._links = 0
        self.bin = self._plain_folder()
        sh("""
            mount --make-rprivate /
            ip link set lo up
            ip addr add 10.77.0.1/32 dev lo
            ip addr add 10.77.0.2/32 dev lo
            ip addr add fd77::1/128 dev lo nodad
            ip route add unreachable 10.77.40.1
            ip route add prohibit 10.77.40.2
            ip -6 route add unreachable fd77:40::1
            echo 1 >/proc/sys/net/ipv4/tcp_syn_retries
            ip link add far0 type veth peer name far1
            ip link set far0 address 02:77:00:00:00:01
            ip link set far0 up
            ip link set far1 up
            ip addr add 10.77.29.1/30 dev far0
            ip neigh add 10.77.29.2 lladdr 02:77:00:00:00:99 dev far0 nud permanent
            ip route add 10.77.30.0/23 via 10.77.29.2 src 10.77.0.1
            ip route add 10.77.32.0/24 via 10.77.29.2 src 10.77.0.1
        """)
        self._names()
        self.farnet = Daemon(
            "world-farnet", [PYTHON, "-B", HERE + "/farnet.py"], self.tmp)
        self.farnet.wait_ready(lambda: "ready" in self.farnet.log())
        self.nodns = Daemon(
            "world-nodns", [PYTHON, "-B", HERE + "/nodns.py", WORLD4], self.tmp)
        self.nodns.wait_ready(lambda: "ready" in self.nodns.log())

    def _names(self):
        """Names for the host proxy; every other name is unknown."""
        hosts = self.tmp + "/hosts"
        with open(hosts, "w", encoding="ascii") as file:
            file.write("127.0.0.1 localhost\n"
                       "10.77.0.1 world.test\n"
                       "10.77.40.1 half-dead.test\n10.77.0.1 half-dead.test\n"
                       "10.77.32.1 half-silent.test\n"
                       "10.77.0.1 half-silent.test\n")
        resolv = self.tmp + "/resolv.conf"
        with open(resolv, "w", encoding="ascii") as file:
            file.write("nameserver 10.77.0.1\n")
        for path, target in ((hosts, "/etc/hosts"), (resolv, "/etc/resolv.conf")):
            if os.path.exists(target):
                sh("mount --bind %s %s" % (path, target))

    def _plain_folder(self):
        """The four files in one folder, as in a container image: from a meson
        build directory, an installed prefix, or such a folder."""
        folder = os.path.join(self.tmp, "bin")
        os.mkdir(folder)
        for name, built in PROGRAMS.items():
            base = PROXY_BUILD if name == "proxy" else BUILD
            found = [p for p in (os.path.join(base, built),
                                 os.path.join(base, "bin", name),
                                 os.path.join(base, name))
                     if os.path.isfile(p)]
            # lib64 is meson's choice where Debian's own is not known
            for lib in ("lib", "lib64"):
                found += glob.glob("%s/%s/**/%s" % (base, lib, name), recursive=True)
            found += glob.glob(base + "/libexec/**/" + name, recursive=True)
            if not found:
                raise AssertionError("no %s below BUILD=%s" % (name, base))
            shutil.copy2(found[0], folder)
        return folder

    def port(self):
        self._port += 1
        return self._port

    def dir(self, prefix):
        return tempfile.mkdtemp(prefix=prefix + "-", dir=self.tmp)

    def run(self, argv, **kw):
        """Run a program in the world itself: the real network to compare with."""
        env = dict(os.environ, PATH=full_path(), HOME=self.tmp, LC_ALL="C.UTF-8")
        env.update(kw.pop("env", {}))
        return run(argv, env=env, note="world", **kw)


# ---- the host proxy ----


class Proxy(Daemon):
    """The host proxy. It listens on a unix socket, on vsock, or on the TCP
    address that the enclave's link leads to."""

    def __init__(self, world, endpoint, args=(), env=None, prefix=()):
        self.endpoint = endpoint
        argv = [world.bin + "/proxy", "--listen", endpoint] + list(args)
        super().__init__("proxy", argv, world.tmp,
                         env=dict(os.environ, **(env or {})), prefix=prefix)
        self.wait_ready(self._ready)

    def _ready(self):
        try:
            self.connect().close()
            return True
        except OSError:
            return False

    def connect(self):
        """A raw carrier connection."""
        return carriers.connect(self.endpoint, TIMEOUT)

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def rss(self):
        """Private memory in bytes."""
        total = 0
        with open("/proc/%d/smaps_rollup" % self.pid) as smaps:
            for line in smaps:
                if line.startswith(("Private_Clean", "Private_Dirty")):
                    total += int(line.split()[1]) * 1024
        return total


# ---- the enclave ----


class Enclave:
    """A network namespace without an interface, and the programs in it."""

    def __init__(self, world, carrier):
        self.world = world
        self.carrier = carrier
        self.tmp = world.dir("enclave")
        self.vendor_path = os.path.join(self.tmp, "vendor", "vendor.sock")
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child",
             "--mount-proc", "sh", "-c", "echo ready; exec cat >/dev/null"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self.holder.stdout.readline() == b"ready\n"
        self.endpoint = self._link()
        self.env = {
            "PATH": full_path(),
            "HOME": self.tmp,
            "TMPDIR": self.tmp,
            "LC_ALL": "C.UTF-8",
            "PROXY_ENDPOINT": self.endpoint,
            "SOCKET_VENDOR_PATH": self.vendor_path,
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS",
                     "LSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def _link(self):
        """The carrier's endpoint, seen from the enclave."""
        if self.carrier == "unix":
            return "unix:%s/carrier.sock" % self.tmp
        if self.carrier == "vsock":
            return "vsock:local:%d" % carriers.vsock_port()
        assert self.carrier == "tcp"
        self.world._links += 1
        n = self.world._links
        sh("""
            ip link add car%d type veth peer name up0
            ip link set up0 netns %d
            ip addr add 10.78.%d.1/30 dev car%d
            ip link set car%d up
            nsenter --net=/proc/%d/ns/net sh -ec '
                ip addr add 10.78.%d.2/30 dev up0
                ip link set up0 up'
        """ % (n, self.holder.pid, n, n, n, self.holder.pid, n))
        return "tcp:10.78.%d.1:%d" % (n, self.world.port())

    def prefix(self):
        proc = "/proc/%d/ns/" % self.holder.pid
        return ["nsenter", "--net=" + proc + "net", "--mount=" + proc + "mnt",
                "--pid=" + proc + "pid_for_children", "--wd=" + self.tmp, "--"]

    def environ(self, extra, preload):
        env = dict(self.env)
        if preload and PRELOAD_EXTRA:
            env["LD_PRELOAD"] = PRELOAD_EXTRA
        for name, value in extra.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = str(value)
        return env

    def plain(self, argv, env=None, **kw):
        """Run a program in the enclave as it is."""
        return run(argv, env=self.environ(env or {}, False), prefix=self.prefix(),
                   note="enclave", **kw)

    def run(self, argv, options=(), env=None, **kw):
        """Run a program in the enclave through proxify."""
        return run([self.world.bin + "/proxify", *options, *argv],
                   env=self.environ(env or {}, True), prefix=self.prefix(),
                   note="enclave", **kw)

    def popen(self, argv, env=None, **kw):
        """Start a program in the enclave through proxify."""
        argv = [str(a) for a in (self.world.bin + "/proxify", *argv)]
        say("enclave$ %s &" % " ".join(argv))
        return subprocess.Popen(
            self.prefix() + argv, env=self.environ(env or {}, True),
            start_new_session=True, **kw)

    def processes(self, name):
        """Pids, as the world counts them, of the enclave's processes."""
        mine = os.readlink("/proc/%d/ns/net" % self.holder.pid)
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink("/proc/%s/ns/net" % pid) != mine:
                    continue
                with open("/proc/%s/cmdline" % pid, "rb") as cmdline:
                    argv0 = cmdline.read().split(b"\0")[0]
                if os.path.basename(argv0) == name.encode():
                    found.append(int(pid))
            except OSError:
                continue
        return sorted(found)

    def close(self):
        # A clean end first, so that a sanitizer can look for leaks.
        vendors = self.processes("socket_vendor")
        for pid in vendors:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        try:
            if vendors:
                until(lambda: not self.processes("socket_vendor"),
                      "the vendor ends on SIGTERM")
        finally:
            self.holder.kill()
            self.holder.wait()
            self.holder.stdin.close()
            self.holder.stdout.close()
            shutil.rmtree(self.tmp, ignore_errors=True)


class Site:
    """An enclave with its host proxy: what most tests need."""

    def __init__(self, world, carrier, proxy_args=(), start=True):
        self.world = world
        self.carrier = carrier
        self.enclave = Enclave(world, carrier)
        self.proxy = None
        self.proxy_args = proxy_args
        if start:
            self.start_proxy()

    def start_proxy(self, args=None, endpoint=None, **kw):
        self.proxy = Proxy(
            self.world, endpoint or self.enclave.endpoint,
            self.proxy_args if args is None else args, **kw)
        return self.proxy

    def run(self, argv, **kw):
        return self.enclave.run(argv, **kw)

    def close(self):
        try:
            self.enclave.close()
        finally:
            if self.proxy and self.proxy.alive():
                rc = self.proxy.stop()
                assert rc == 0, "proxy ended with %s" % rc


# ---- sanitizers ----


def sanitizer_reports():
    """What the sanitizers wrote to log_path since the last call, as text."""
    pattern = os.environ.get("E2E_SANITIZER_LOG")
    if not pattern:
        return ""
    out = []
    for path in glob.glob(pattern + "*"):
        with open(path, encoding="utf-8", errors="replace") as report:
            out.append(report.read())
        os.unlink(path)
    return "\n".join(out)
