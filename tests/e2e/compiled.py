# SPDX-License-Identifier: Apache-2.0
"""The programs of tests/e2e/programs that need a compiler.

	compiled.py DIR [NAME...]

makes those, or all of them, in DIR; with E2E_COMPILED=DIR the tests take them
from there. A compiler under emulation takes longer than the tests, and not every
Debian that the tests run in has all the compilers.
"""

import os
import shutil
import subprocess
import sys

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")


def _run(argv, **env):
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=300,
                   env=dict(os.environ, **env))


def _c(name, *flags, sources=()):
    def make(out):
        _run(["cc", "-std=gnu11", "-D_GNU_SOURCE", *flags, "-o", out + "/" + name] +
             ["%s/%s.c" % (PROGRAMS, s) for s in sources or (name,)])
    return make


def _serve(out):
    shutil.copy(PROGRAMS + "/Serve.java", out)
    _run(["javac", "-d", out, out + "/Serve.java"])
    _run(["rustc", "-O", "-o", out + "/serve", PROGRAMS + "/serve.rs"])


def _fetch(out):
    shutil.copy(PROGRAMS + "/Fetch.java", out)
    _run(["javac", "-d", out, out + "/Fetch.java"])
    _run(["rustc", "-O", "-o", out + "/fetch", PROGRAMS + "/fetch.rs"])


def _lookups(out):
    shutil.copy(PROGRAMS + "/Lookup.java", out)
    _run(["javac", "-d", out, out + "/Lookup.java"])
    _run(["musl-gcc", "-static", "-O", "-o", out + "/lookup-musl",
          PROGRAMS + "/lookup.c"])
    _run(["go", "build", "-o", out + "/lookup-go", PROGRAMS + "/lookup.go"],
         HOME=out, GOCACHE=out + "/cache", GOFLAGS="-mod=mod", GOTOOLCHAIN="local",
         CGO_ENABLED="0")


MAKERS = {
    "crowd": _c("crowd", "-O2"),
    "fetch": _fetch,
    "lookups": _lookups,
    "nbconnect": _c("nbconnect", "-O2"),
    "resinit": _c("resinit", "-O1"),
    "sockdiff": _c("sockdiff", "-O1", "-g", "-pthread", sources=(
        "sockdiff", "sockdiff_connect", "sockdiff_data", "sockdiff_fds")),
    "serve": _serve,
}


def compiled(world, name):
    """The folder in which the program of that name is, compiled."""
    there = os.environ.get("E2E_COMPILED")
    if there:
        return os.path.join(there, name)
    out = world.dir(name)
    MAKERS[name](out)
    return out


def main():
    for name in sys.argv[2:] or MAKERS:
        out = os.path.join(sys.argv[1], name)
        os.makedirs(out, exist_ok=True)
        MAKERS[name](out)


if __name__ == "__main__":
    main()
