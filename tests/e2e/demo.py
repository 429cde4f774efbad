# SPDX-License-Identifier: Apache-2.0
"""The demonstration that tools/quickstart ends with.

Runs each program twice in a namespace without a network, plainly and through
proxify, against servers outside, and prints both outcomes as a table. Exits 1 if
any program is not stopped by the one or not carried by the other."""

import shutil
import sys

import harness
import servers
from harness import HERE, PYTHON, WORLD4, WORLD6

PROGRAMS = HERE + "/programs/"
URLLIB = ("import sys, urllib.request as r;"
          "sys.stdout.write(r.urlopen(sys.argv[1], timeout=20).read().decode())")


def build_programs(world):
    out = world.dir("programs")
    harness.run(["javac", "-d", out, PROGRAMS + "Fetch.java"], timeout=120).ok()
    harness.run(["rustc", "-O", "-o", out + "/fetch", PROGRAMS + "fetch.rs"],
                timeout=120).ok()
    return out


def commands(nginx, built, clone):
    """(what to print, how to run it, what it must print)"""
    host, port, url = WORLD4, nginx.port, nginx.url()
    hello = servers.HELLO
    java = ["java", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", built, "Fetch"]
    node = ["node", PROGRAMS + "fetch.js"]
    many = ["curl", "-sS", "--parallel", "--parallel-immediate",
            "--parallel-max", "50", "-w", "%{http_code}\n"]
    many += ["-o", "/dev/null", url] * 50
    return [
        ("curl, IPv4", ["curl", "-sS", url], hello),
        ("curl, IPv6", ["curl", "-sS", nginx.url(host=WORLD6)], hello),
        ("curl, 50 transfers at once", many, "200\n" * 50),
        ("git clone http://", ["sh", "-c", "git clone -q %s %s && cat %s/README" % (
            nginx.url("/project.git"), clone, clone)], "readme\n"),
        ("Python, urllib", [PYTHON, "-c", URLLIB, url], hello),
        ("Python, 20 asyncio streams",
         [PYTHON, PROGRAMS + "aiofetch.py", host, port, 20], hello),
        ("Node, fetch", node + ["fetch", host, port], hello),
        ("Node, net", node + ["net", host, port], hello),
        ("Java, HttpClient", java + ["httpclient", host, port], hello),
        ("Java, NIO", java + ["nio", host, port], hello),
        ("Java, Socket", java + ["socket", host, port], hello),
        ("Rust, std", [built + "/fetch", host, port], hello),
        ("busybox wget", ["busybox", "wget", "-q", "-O-", url], hello),
    ]


def outcome(result, wanted):
    if result.rc == 0 and result.out == wanted:
        return "fetched"
    return "fails, exit %d" % result.rc


def main():
    harness.enter_sandbox()
    world = harness.World()
    nginx = servers.Nginx(world)
    built = build_programs(world)
    site = harness.Site(world, "unix")
    enclave = site.enclave

    print("\nOutside: nginx on %s and %s, and the host proxy on a unix socket.\n"
          "Inside, all the network there is (ip -o link):" % (WORLD4, WORLD6))
    print("    " + enclave.plain(["ip", "-o", "link"]).ok().out.strip()
          .replace("\\", "\n    ").strip())
    print("\n%-28s %-16s %s" % ("program", "as it is", "with proxify"))
    print("%-28s %-16s %s" % ("-" * 28, "-" * 16, "-" * 12))
    good = total = 0
    clone = enclave.tmp + "/clone"
    for title, argv, wanted in commands(nginx, built, clone):
        before = outcome(enclave.plain(argv), wanted)
        shutil.rmtree(clone, ignore_errors=True)
        after = outcome(enclave.run(argv), wanted)
        total += 1
        good += before != "fetched" and after == "fetched"
        print("%-28s %-16s %s" % (title, before, after), flush=True)
    site.close()
    print("\n%d of %d programs have no network of their own and reach the world "
          "through proxify." % (good, total))
    if good != total:
        print("\n" + "\n".join(harness.transcript), file=sys.stderr)
        print("\n" + harness.daemon_logs(), file=sys.stderr)
    return 0 if good == total else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
