# SPDX-License-Identifier: Apache-2.0
"""What the tests of the forwarding modes share: a stage and its servers.

Theory of operation

The modes stand in pairs, one on each side of the carrier. The enclave of
harness.py gets a loopback with an address and a default route on it, so that
connections to anywhere leave their program, can be redirected, and get no
further. The world keeps the real servers.

A Router is one more namespace with a network of its own behind it, for TPROXY,
which takes only what comes in from outside.
"""

import os
import subprocess

from carrier import vsock_port
from harness import (PATIENCE, TIMEOUT, WORLD4, WORLD6, Daemon, Enclave, full_path,
                     run, sh)

MODES = ["vsock-to-ip", "ip-to-vsock", "vsock-to-ip-transparent",
         "ip-to-vsock-transparent", "transparent-port-to-vsock"]

WORLD = {4: WORLD4, 6: WORLD6}
LOOPBACK = {4: "127.0.0.1", 6: "[::1]"}


def bracket(host):
    return "[%s]" % host if ":" in host else host


def command(world, name):
    """The command of a mode: a link to proxy."""
    path = os.path.join(world.bin, name)
    if not os.path.lexists(path):
        os.symlink("proxy", path)
    return path


def in_world(argv, **kw):
    env = dict(os.environ, PATH=full_path(), LC_ALL="C.UTF-8")
    return run(argv, env=env, note="world", **kw)


class Mode(Daemon):
    """A forwarding mode in the background, on one side of the carrier."""

    def __init__(self, world, name, args, prefix=(), lines=1):
        super().__init__(name, [command(world, name), *args], world.tmp,
                         prefix=prefix)
        self.wait_ready(
            lambda: self.log().lower().count("listening on") >= lines)

    def port(self):
        """Where it listens, if it was told port 0."""
        line = [l for l in self.log().splitlines() if "istening on" in l][0]
        return int(line.rpartition(":")[2])

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def finish(self):
        assert self.stop() == 0, self.log()


class Stage:
    """An enclave in which every address is reached, and then goes nowhere."""

    def __init__(self, world, carrier):
        self.world = world
        self.carrier = carrier
        self.enclave = Enclave(world, carrier)
        self.daemons = []
        self._paths = 0
        self.sh("""
            ip link set lo up
            ip addr add 100.64.0.1/32 dev lo
            ip route add default dev lo src 100.64.0.1
            ip -6 addr add fd64::1/128 dev lo nodad
            ip -6 route add default dev lo src fd64::1
        """)

    def sh(self, script):
        sh("nsenter --net=/proc/%d/ns/net sh -ec '%s'" % (
            self.enclave.holder.pid, script))

    def run(self, argv, **kw):
        return self.enclave.plain(argv, **kw)

    def outward(self):
        """A carrier endpoint that the world listens on."""
        if self.carrier == "unix":
            self._paths += 1
            return "unix:%s/out%d.sock" % (self.enclave.tmp, self._paths)
        if self.carrier == "vsock":
            return "vsock:local:%d" % vsock_port()
        return "%s:%d" % (self.enclave.endpoint.rpartition(":")[0],
                          self.world.port())

    def inward(self):
        """A carrier endpoint that the enclave listens on, without a port."""
        if self.carrier == "unix":
            return "unix:%s/in" % self.enclave.tmp
        if self.carrier == "vsock":
            return "vsock:local"
        host = self.enclave.endpoint.split(":")[1]
        return "tcp:%s2" % host[:-1]

    def inward_port(self, port):
        return self.inward() + ("_%d" if self.carrier == "unix" else ":%d") % port

    def outside(self, name, *args, **kw):
        """A mode in the world."""
        return self._add(Mode(self.world, name, args, **kw))

    def inside(self, name, *args, **kw):
        """A mode in the enclave."""
        return self._add(Mode(self.world, name, args, prefix=self.prefix(), **kw))

    def prefix(self):
        """Into the enclave's network alone: nsenter then becomes the program,
        which gets the signals."""
        return ["nsenter", "--net=/proc/%d/ns/net" % self.enclave.holder.pid, "--"]

    def _add(self, daemon):
        self.daemons.append(daemon)
        return daemon

    def close(self):
        try:
            for daemon in self.daemons:
                if daemon.alive():
                    daemon.finish()
        finally:
            self.enclave.close()


def redirect_rule(tool, family, dst, ports, to):
    """Shell that has connections to dst, from this namespace, redirected."""
    if tool == "iptables":
        return "ip%stables -w -t nat -A OUTPUT -p tcp -d %s %s " \
            "-j REDIRECT --to-ports %d" % (
                "6" if family == 6 else "", dst,
                "-m multiport --dports " + ports if ports else "", to)
    return """
        nft add table inet modes
        nft add chain inet modes output "{ type nat hook output priority -100; }"
        nft add rule inet modes output %s daddr %s %s redirect to :%d
    """ % ("ip6" if family == 6 else "ip", dst,
           "tcp dport { %s }" % ports if ports else "meta l4proto tcp", to)


# What curl says of a connection that was reset: it may come before curl has
# noticed that it is connected.
REFUSED = (7, 52, 56)


# ---- servers ----


class Redis(Daemon):
    def __init__(self, world, hosts=(WORLD4, WORLD6), port=None, prefix=()):
        self.port = port or world.port()
        super().__init__("redis", [
            "redis-server", "--port", self.port, "--bind", *hosts, "--save", "",
            "--daemonize", "no", "--protected-mode", "no",
            "--dir", world.dir("redis")], world.tmp, prefix=prefix)
        self.wait_ready(lambda: "Ready to accept" in self.log())


class Postgres(Daemon):
    """PostgreSQL, which refuses to be root: so it is somebody else, in a user
    namespace where that needs no privilege."""

    def __init__(self, world, hosts=(WORLD4, WORLD6), port=None, prefix=()):
        self.port = port or world.port()
        directory = world.dir("postgres")
        bin_dir = sorted(os.listdir("/usr/lib/postgresql"))[-1]
        bin_dir = "/usr/lib/postgresql/%s/bin/" % bin_dir
        somebody = ["unshare", "--user", "--map-user=999", "--map-group=999"]
        subprocess.run(
            somebody + [bin_dir + "initdb", "-D", directory + "/data", "-A",
                        "trust", "-U", "test", "--no-sync", "-E", "UTF8",
                        "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            timeout=TIMEOUT * 2, env=dict(os.environ, TZ="UTC"))
        with open(directory + "/data/pg_hba.conf", "w", encoding="ascii") as hba:
            hba.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
        super().__init__("postgres", somebody + [
            bin_dir + "postgres", "-D", directory + "/data", "-p", self.port,
            "-c", "listen_addresses=" + ",".join(hosts),
            "-c", "unix_socket_directories=", "-c", "fsync=off",
            "-c", "shared_buffers=16MB"], world.tmp, prefix=prefix)
        self.wait_ready(lambda: "ready to accept connections" in self.log())


def curl(host, port, path="/hello"):
    return ["curl", "-gsS", "--max-time", "%g" % PATIENCE,
            "http://%s:%d%s" % (bracket(host), port, path)]


def psql(host, port):
    """A query, and a result of some megabytes."""
    return ["psql", "-X", "-A", "-t", "-w", "-d",
            "host=%s port=%d user=test dbname=postgres connect_timeout=%d" % (
                host, port, PATIENCE),
            "-c", "select 6 * 7", "-c",
            "select length(string_agg(repeat(md5(i::text), 32), '')) "
            "from generate_series(1, 2000) i"]


PSQL_SAYS = "42\n2048000\n"


def redis(host, port, *words):
    return ["redis-cli", "-h", host, "-p", str(port), *words]


def programs(stage_run, host, ports):
    """curl, psql and redis-cli against nginx, PostgreSQL and redis."""
    from servers import HELLO
    assert stage_run(curl(host, ports["nginx"])).ok().out == HELLO
    assert stage_run(psql(host, ports["postgres"])).ok().out == PSQL_SAYS
    value = "x" * 100000
    got = stage_run(redis(host, ports["redis"], "-x", "set", "key"),
                    stdin=value.encode())
    assert got.ok().out == "OK\n"
    got = stage_run(redis(host, ports["redis"], "get", "key")).ok().out
    assert got == value + "\n"


# ---- TPROXY ----


class Router:
    """A namespace with a client network behind it.

    client (10.79.0.2, fd79::2) -- veth -- router (10.79.0.1, fd79::1)
    """

    def __init__(self, world):
        self.world = world
        self.router = self._namespace()
        self.client = self._namespace()
        self.in_router("""
            ip link set lo up
            ip link add down0 type veth peer name up0
            ip link set up0 netns %d
            ip addr add 10.79.0.1/24 dev down0
            ip -6 addr add fd79::1/64 dev down0 nodad
            ip link set down0 up
            echo 1 >/proc/sys/net/ipv4/ip_forward
            ip rule add fwmark 1 lookup 100
            ip route add local default dev lo table 100
            ip -6 rule add fwmark 1 lookup 100
            ip -6 route add local default dev lo table 100
        """ % self.client.pid)
        self._in(self.client, """
            ip link set lo up
            ip addr add 10.79.0.2/24 dev up0
            ip -6 addr add fd79::2/64 dev up0 nodad
            ip link set up0 up
            ip route add default via 10.79.0.1
            ip -6 route add default via fd79::1
        """)

    @staticmethod
    def _namespace():
        holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c",
             "mount -t sysfs sys /sys 2>/dev/null; echo ready; exec cat >/dev/null"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert holder.stdout.readline() == b"ready\n"
        return holder

    @staticmethod
    def prefix(holder):
        return ["nsenter", "--net=/proc/%d/ns/net" % holder.pid, "--"]

    def _in(self, holder, script):
        subprocess.run(self.prefix(holder) + ["sh", "-ec", script], check=True,
                       timeout=TIMEOUT)

    def in_router(self, script):
        self._in(self.router, script)

    def run_client(self, argv, **kw):
        env = dict(os.environ, PATH=full_path(), LC_ALL="C.UTF-8")
        return run(argv, env=env, prefix=self.prefix(self.client),
                   note="client", **kw)

    def mode(self, name, *args):
        return Mode(self.world, name, args, prefix=self.prefix(self.router))

    def close(self):
        for holder in (self.client, self.router):
            holder.kill()
            holder.wait()
            holder.stdin.close()
            holder.stdout.close()


def tproxy_rule(tool, family, port):
    """Shell that has the client network's connections redirected by TPROXY."""
    if tool == "iptables":
        return "ip%stables -w -t mangle -A PREROUTING -i down0 -p tcp " \
            "-j TPROXY --on-port %d --tproxy-mark 1" % (
                "6" if family == 6 else "", port)
    return """
        nft add table inet modes
        nft add chain inet modes pre \
            "{ type filter hook prerouting priority mangle; }"
        nft add rule inet modes pre iifname down0 meta nfproto ipv%d \
            meta l4proto tcp tproxy ip%s to :%d meta mark set 1
    """ % (family, "6" if family == 6 else "", port)
