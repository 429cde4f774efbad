# SPDX-License-Identifier: Apache-2.0
"""The suites of tools/check.

Each is a function that takes its log and the command line, and returns how many
cases passed and failed; runs.py has what they are made of. The end of the log of
one in which something failed is printed.

What the suites share is built first. Then they run in two lanes at a time: tests
of real programs mostly wait, while analysers, fuzzers and the virtual machine
compute, and give way (nice) so that the deadlines of the former hold.
"""

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import threading
import time

from runs import (BUILDS, CARRIERS, OUT, PYTHON, ROOT, JOBS, Failed, Log, build,
                  build_dir, each_file, meson_tests, pytest, ready, sources, unit)


def suite_build(log, args):
    """gcc, clang and the sanitizers, every warning an error."""
    names = ["gcc"] if args.fast else list(BUILDS)
    for name in names:
        build(log, name)
    return len(names), 0


# ---- tests ----


def suite_unit(log, args):
    """Unit tests, gcc."""
    return unit(log, build(log, "gcc"))


def suite_e2e(log, args):
    """Real programs in namespaces, over each carrier; with --slow also what
    takes minutes: a gigabyte, a thousand kills."""
    options = ["--carrier=unix"] if args.fast else ["--full"] if args.slow else []
    return pytest(log, "e2e", build(log, "gcc"), options)


def suite_install(log, args):
    """meson install: the installed layout works from where it was put, and
    DESTDIR is honoured. (That a plain folder works is what e2e runs on.)"""
    path = build(log, "gcc")
    prefix = os.path.join(OUT, "prefix")
    dest = os.path.join(OUT, "destdir")
    for old in (prefix, dest, build_dir("install")):
        shutil.rmtree(old, ignore_errors=True)
    log.run(["meson", "install", "-C", path, "--no-rebuild", "--destdir", dest])
    names = {name for _, _, files in os.walk(dest) for name in files}
    modes = {"vsock-to-ip", "ip-to-vsock", "vsock-to-ip-transparent",
             "ip-to-vsock-transparent", "transparent-port-to-vsock"}
    wanted = {"proxy", "proxify", "socket_vendor", "libproxy_preload.so"} | modes
    wanted |= {name + ".1" for name in modes | {"proxy", "proxify", "socket_vendor"}}
    if not wanted <= names:
        raise Failed("not installed: %s" % ", ".join(sorted(wanted - names)))
    log.run(["meson", "setup", build_dir("install"), "--werror",
             "--prefix", prefix, "-Dtests=false"])
    log.run(["meson", "install", "-C", build_dir("install")])
    passed, failed = pytest(log, "install", prefix, [
        "--carrier=unix", "tests/e2e/test_curl.py", "tests/e2e/test_a_stage.py"])
    return passed + 1, failed


# ---- the virtual machine ----

# What shows the most of vsock in the least time: under emulation everything
# takes ten times as long. (The whole of tests/e2e runs there too, by hand.)
# Not among them: test_proxy.py::test_nothing_leaks, which over vsock now and then
# finds fds that are still open at its deadline, for a reason yet to be found.
VM_E2E = [
    "test_a_stage.py", "test_curl.py", "test_transfer.py", "test_half_close.py",
    "test_reset.py", "test_sockdiff.py", "test_nonblocking.py", "test_crowd.py",
    "test_vsock.py",
    "test_errors.py::test_curl", "test_errors.py::test_nonblocking",
    "test_proxy.py::test_payload_with_the_request",
    "test_proxy.py::test_back_pressure",
    "test_proxy.py::test_client_gone_before_the_answer",
    "test_proxy.py::test_out_of_fds", "test_proxy.py::test_drain",
    "test_serve.py::test_serves[vsock-nginx]",
    "test_serve.py::test_serves[vsock-redis]",
    "test_serve.py::test_serves[vsock-python-threading]",
    "test_serve.py::test_under_load[vsock-nginx]",
    "test_recovery.py::test_kill[vsock-both-nginx]",
    "test_recovery.py::test_idle_pool[vsock]",
    "test_modes_fixed.py::test_half_close[vsock]",
    "test_modes_fixed.py::test_into_the_enclave[vsock]",
    "test_modes_transparent.py::test_prefix_is_the_suites[vsock]",
    "test_modes_transparent.py::test_scenario_3[vsock-nft-4]",
    "test_modes_transparent.py::test_scenario_4[vsock-iptables-6]",
    "test_names_programs.py::test_addresses[vsock-getent]",
    "test_names_programs.py::test_addresses[vsock-go]",
    "test_names_programs.py::test_dig_other_types[vsock]",
    "test_names_programs.py::test_fetch_by_name[vsock]",
]


# Of these files, without --slow: what something else in them shows too.
VM_LEFT_OUT = [
    # 10 MiB are ten windows of a vsock
    "test_transfer.py::test_down[vsock-104857600]",
    "test_transfer.py::test_up[vsock-104857600]",
    # test_vsock.py::test_range_idle has 10 000
    "test_crowd.py::test_idle[vsock-2000]",
]


# ... and of those what an older or newer kernel may do in its own way: the calls of
# a stream socket, and a case or two of each of the product's parts.
KERNELS_E2E = [
    "test_curl.py", "test_half_close.py", "test_reset.py",
    "test_nonblocking.py", "test_vsock.py",
    "test_transfer.py::test_down[vsock-65537]",
    "test_transfer.py::test_up[vsock-65537]",
    "test_transfer.py::test_down[vsock-104857600]",
    "test_transfer.py::test_up[vsock-104857600]",
    "test_sockdiff.py::test_same_as_tcp",
    "test_errors.py::test_nonblocking",
    "test_proxy.py::test_drain",
    "test_serve.py::test_serves[vsock-nginx]",
    "test_serve.py::test_serves[vsock-redis]",
    "test_serve.py::test_serves[vsock-python-threading]",
    "test_recovery.py::test_kill[vsock-both-nginx]",
    "test_modes_fixed.py::test_into_the_enclave[vsock]",
    "test_modes_transparent.py::test_scenario_3[vsock-nft-4]",
    "test_names_programs.py::test_addresses[vsock-getent]",
    "test_names_programs.py::test_fetch_by_name[vsock]",
]


def in_vm(kernel):
    """What makes an argv, with its environment, one that runs in the virtual
    machine, with that kernel."""
    def machine(argv, env, out):
        inside = ["%s=%s" % item for item in sorted(env.items())]
        return (["tests/vm/run", "-k", kernel, "-t", "2400", "-m", "3072", "env"] +
                inside + argv, {"VM_OUT": out})
    return machine


vm_programs = threading.Lock()


def vm_env(log):
    """Programs that need a compiler are compiled here, not there; and the one
    timeout is longer by what the emulation costs."""
    programs = os.path.join(OUT, "vm-programs")
    with vm_programs:
        if programs not in ready:
            log.run([PYTHON, "-B", "tests/e2e/compiled.py", programs])
            ready.add(programs)
    return {"E2E_COMPILED": programs, "E2E_TIMEOUT": "120"}


def vm_suite(name, kernel, cases):
    """A suite of cases over vsock, with that kernel."""
    def suite(log, args):
        options = ["--carrier=vsock"] + ["tests/e2e/" + case for case in cases]
        if not args.slow:
            options += ["--deselect=tests/e2e/" + case for case in VM_LEFT_OUT]
        return pytest(log, name, build(log, "gcc"), options, vm_env(log),
                      in_vm(kernel))
    suite.__doc__ = "Over vsock, in a virtual machine with kernel %s." % kernel
    return suite


# ---- other libcs ----

LIBC_E2E = [
    "test_a_stage.py", "test_curl.py", "test_git.py", "test_half_close.py",
    "test_transfer.py", "test_reset.py", "test_sockdiff.py", "test_nonblocking.py",
    "test_errors.py::test_python", "test_errors.py::test_nonblocking",
    "test_local.py", "test_proxify.py", "test_vendor.py", "test_programs.py",
    "test_serve.py", "test_names_conf.py", "test_names_programs.py",
    "test_recovery.py",
]

# What the trees of tests/libc/root do not have, or what is not their libc's.
NOT_THERE = ["java", "node", "rust", "gunicorn", "postgres", "pgbench", "sshd",
             "musl", "go]", "by_the_stub", "random_kills"]

# Debian's releases by their glibc.
RELEASES = {"2.31": "bullseye", "2.41": "trixie"}


def newest_symbol(log, path):
    """The newest version of a symbol of glibc's that a file needs."""
    _, text = log.run(["objdump", "-T", path])
    return max(tuple(map(int, version.split("."))) for version in
               re.findall(r"GLIBC_([\d.]+)", text))


def libc_suite(libc):
    """A suite of everything built and run in another Debian release."""
    name = "glibc-" + libc

    def suite(log, args):
        log.inside = ["tests/libc/run", "-b", OUT, RELEASES[libc]]
        path = build(log, name)
        programs = os.path.join(path, "programs")
        log.run([PYTHON, "-B", "tests/e2e/compiled.py", programs,
                 "crowd", "nbconnect", "resinit", "sockdiff"])
        results = [unit(log, path), pytest(log, name, path, [
            "--carrier=unix", "-k", " and ".join("not " + x for x in NOT_THERE),
            *("tests/e2e/" + case for case in LIBC_E2E)], {
                "E2E_COMPILED": programs})]
        if libc == "2.31":  # what it needs there is what it needs at all
            needs = newest_symbol(log, path + "/preload/libproxy_preload.so")
            results.append((needs <= (2, 17), needs > (2, 17)))
        return sum(r[0] for r in results), sum(r[1] for r in results)
    suite.__doc__ = "Built and run with glibc %s, of Debian's %s." % (
        libc, RELEASES[libc])
    return suite


def suite_two_machines(log, args):
    """Two machines: in that virtual machine boots another, the enclave."""
    path = build(log, "gcc")
    enclave = os.path.join(OUT, "enclave")
    log.run(["tests/vm/enclave", path, enclave])
    return pytest(log, "two-machines", path, ["tests/e2e/test_two_machines.py"],
                  {"VM_ENCLAVE": enclave, "E2E_TIMEOUT": "240"}, in_vm("6.1"))


# ---- sanitizers ----

TSAN_SUPPRESSIONS = os.path.join(ROOT, "tests/tsan.supp")


def sanitizer_env(name, extra=None):
    pattern = os.path.join(OUT, "logs", name + "-report")
    common = "log_path=%s:exitcode=99:" % pattern
    env = {
        "E2E_SANITIZER_LOG": pattern,
        "E2E_TIMEOUT": "90",
        # the preload library comes before the runtime, on purpose; the leaks
        # of foreign programs are their own (daemons are checked, see Enclave)
        "ASAN_OPTIONS": common + "verify_asan_link_order=0:detect_leaks=0:"
                                 "detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": common + "print_stacktrace=1",
        "TSAN_OPTIONS": common + "second_deadlock_stack=1:suppressions=" +
                        TSAN_SUPPRESSIONS,
    }
    return dict(env, **(extra or {}))


def library(name):
    out = subprocess.run(["gcc", "-print-file-name=" + name],
                         capture_output=True, text=True, check=True)
    return os.path.realpath(out.stdout.strip())


def suite_asan_unit(log, args):
    """Unit tests under AddressSanitizer and UBSan, leaks included."""
    return unit(log, build(log, "asan"), timeout_factor=4)


def suite_asan_e2e(log, args):
    """End-to-end under AddressSanitizer and UBSan, over one carrier: it takes
    three times as long as without."""
    stub = os.path.join(OUT, "noswift.so")
    log.run(["gcc", "-shared", "-fPIC", "-o", stub,
             "tests/e2e/programs/noswift.c"])
    env = sanitizer_env(
        "asan", {"PRELOAD_EXTRA": library("libasan.so") + ":" + stub})
    return pytest(log, "asan-e2e", build(log, "asan"), ["--carrier=unix"], env=env)


def suite_ubsan_e2e(log, args):
    """UBSan alone, for the programs that AddressSanitizer's runtime breaks."""
    return pytest(log, "ubsan-e2e", build(log, "ubsan"), ["-m", "no_asan"],
                  env=sanitizer_env("ubsan"))


def suite_tsan_unit(log, args):
    """Unit tests under ThreadSanitizer."""
    return unit(log, build(log, "tsan"),
                {"TSAN_OPTIONS": "suppressions=" + TSAN_SUPPRESSIONS},
                timeout_factor=6)


# What keeps several of the proxy's threads busy, or ends them.
TSAN_E2E = ["test_curl.py", "test_transfer.py", "test_half_close.py",
            "test_errors.py", "test_proxy.py", "test_nonblocking.py",
            "test_modes_fixed.py", "test_modes_transparent.py",
            "test_modes_proxyproto.py", "test_modes_config.py",
            "test_modes_load.py"]


def suite_tsan_e2e(log, args):
    """The proxy's threads under ThreadSanitizer, the rest as built by gcc."""
    env = sanitizer_env("tsan", {"PROXY_BUILD": build(log, "tsan")})
    return pytest(log, "tsan-e2e", build(log, "gcc"),
                  ["tests/e2e/" + name for name in TSAN_E2E], env=env)


# ---- fuzzing ----


def suite_fuzz(log, args):
    """Each parser of bytes from outside: a minute each with --slow, else ten
    seconds."""
    suite = "fuzz" if args.slow else "fuzz-short"
    passed, failed, _ = meson_tests(log, build(log, "clang"), suite)
    if not passed + failed:
        raise Failed("no fuzz targets")
    return passed, failed


# ---- analysers ----


def suite_format(log, args):
    """clang-format has nothing to change."""
    return each_file(log, sources(), lambda name: [
        "clang-format", "--dry-run", "-Werror", name])


def suite_tidy(log, args):
    """clang-tidy, with the checks of .clang-tidy; of the tests' own sources only
    with --slow."""
    path = build(log, "clang")
    files = [name for name in sources("*.c")
             if args.slow or not name.startswith("tests/")]

    def command(name):
        argv = ["clang-tidy", "--quiet", "--warnings-as-errors=*", name]
        if name.startswith("tests/e2e/"):  # not meson's
            return argv + ["--", "-std=gnu11", "-D_GNU_SOURCE"]
        return argv + ["-p", path]
    return each_file(log, files, command)


CPPCHECK_SUPPRESS = [
    # a library's static functions and the X-macro lists are used where cppcheck,
    # which looks at one file at a time, does not see it
    "unusedFunction",
    # system headers are the compiler's business
    "missingIncludeSystem",
    # matches nothing in some configurations, which is no fault
    "unmatchedSuppression",
    # glibc deprecates readdir_r, and readdir is safe on a DIR of one's own;
    # names of users are read from the command line, by one thread
    "readdirCalled",
    "getpwnamCalled",
    # these pass bad arguments on purpose, to see what comes back
    "nullPointer:tests/e2e/programs/*",
    "nullPointer:tests/unit/test_preload_*",
    "invalidFunctionArg:tests/e2e/programs/*",
    "invalidFunctionArg:tests/unit/test_preload_*",
    # anonymous memory is mapped with fd -1, as mmap(2) says
    "invalidFunctionArg:preload/slot.c",
    # callbacks of libev, check and pthreads have their types from those
    # libraries, const or not
    "constParameterCallback",
]


def suite_cppcheck(log, args):
    """cppcheck over every source."""
    argv = ["cppcheck", "--quiet", "--error-exitcode=1", "--std=c11", "-j", JOBS,
            "--enable=warning,performance,portability", "--inline-suppr",
            "--inconclusive", "-I", ".", "-D_GNU_SOURCE", "-D__linux__",
            # not gnu: 2.10's has accept4() insist on an address to fill
            "-DPROXIFY_VERSION=\"0\"", "--library=posix"]
    argv += ["--suppress=" + name for name in CPPCHECK_SUPPRESS]
    code, _ = log.run(argv + sources("*.c"), check=False)
    return (0, 1) if code else (1, 0)


def suite_shell(log, args):
    """The scripts parse."""
    scripts = ["tools/deps", "tools/quickstart", "tools/check", ".ci/run",
               "tests/vm/run", "tests/vm/kernel", "tests/vm/initramfs",
               "tests/vm/init", "tests/vm/bench", "tests/vm/enclave",
               "tests/vm/enclave-init", "tests/libc/root", "tests/libc/run",
               "tools/archive"]

    def command(name):
        with open(os.path.join(ROOT, name), encoding="utf-8") as script:
            return [script.readline().rstrip().removeprefix("#!"), "-n", name]
    return each_file(log, scripts, command)


# ---- the exported symbols ----


def documented_symbols():
    """The hooks that preload/symbols.h lists."""
    with open(os.path.join(ROOT, "preload/symbols.h"), encoding="utf-8") as file:
        return set(re.findall(r"^HOOK(?:_OPT)?\((\w+)\)", file.read(), re.M))


def suite_symbols(log, args):
    """libproxy_preload.so exports what preload/symbols.h lists, and no more."""
    path = build(log, "gcc") + "/preload/libproxy_preload.so"
    _, text = log.run(["nm", "-D", "--defined-only", path])
    exported = {line.split()[-1].split("@")[0] for line in text.splitlines()}
    listed = documented_symbols()
    with open(log.path, "a", encoding="utf-8") as out:
        for name in sorted(exported - listed):
            out.write("exported, but not listed: %s\n" % name)
        for name in sorted(listed - exported):
            out.write("listed, but not exported: %s\n" % name)
    wrong = len(exported ^ listed)
    return len(exported & listed), wrong


# name, function, when, lane. In the order they run: what is quick and fails
# first, first.
FIRST, WAITS, COMPUTES = range(3)
FAST, USUAL, SLOW = range(3)  # always; without --fast; with --slow
SUITES = [
    ("build", suite_build, FAST, FIRST),
    ("shell", suite_shell, FAST, FIRST),
    ("symbols", suite_symbols, FAST, FIRST),
    ("e2e", suite_e2e, FAST, WAITS),
    ("install", suite_install, FAST, WAITS),
    ("asan-e2e", suite_asan_e2e, USUAL, WAITS),
    ("ubsan-e2e", suite_ubsan_e2e, USUAL, WAITS),
    ("tsan-e2e", suite_tsan_e2e, USUAL, WAITS),
    ("format", suite_format, FAST, COMPUTES),
    ("unit", suite_unit, FAST, COMPUTES),
    ("cppcheck", suite_cppcheck, USUAL, COMPUTES),
    ("asan-unit", suite_asan_unit, USUAL, COMPUTES),
    ("tsan-unit", suite_tsan_unit, USUAL, COMPUTES),
    ("vm", vm_suite("vm", "6.1", VM_E2E), USUAL, COMPUTES),
    ("fuzz", suite_fuzz, USUAL, COMPUTES),
    ("tidy", suite_tidy, USUAL, COMPUTES),
    ("glibc-2.31", libc_suite("2.31"), SLOW, COMPUTES),
    ("glibc-2.41", libc_suite("2.41"), SLOW, COMPUTES),
    ("two-machines", suite_two_machines, SLOW, COMPUTES),
    ("vm-5.10", vm_suite("vm-5.10", "5.10", KERNELS_E2E), SLOW, COMPUTES),
    ("vm-6.12", vm_suite("vm-6.12", "6.12", KERNELS_E2E), SLOW, COMPUTES),
]


def may_run(name):
    """Another Debian's file tree is root's to make."""
    return os.geteuid() == 0 or not name.startswith("glibc-")


def run_suite(name, function, lane, args):
    """Return (name, passed, failed, seconds, cases by carrier) and say how it
    went."""
    log = Log(name, lane == COMPUTES)
    start = time.monotonic()
    log.say(function.__doc__.split("\n")[0])
    try:
        passed, failed = function(log, args)
    except Exception as error:  # whatever it is, the suite did not pass
        log.say(repr(error))
        passed, failed = 0, 1
    seconds = time.monotonic() - start
    log.say("%d passed, %d failed, %.0f s" % (passed, failed, seconds))
    if failed:
        log.say("the end of %s:\n%s----" % (
            log.path, log.tail(200 if os.environ.get("CI") else 60)))
    return name, passed, failed, seconds, log.carriers


def run_lane(queues, args, results):
    """Run what is in these queues, one after the other."""
    for queue in queues:
        while queue:
            try:
                name, function, _, lane = queue.popleft()
            except IndexError:
                break  # the other lane has taken the last one
            results.append(run_suite(name, function, lane, args))


def run_suites(chosen, args):
    """Run them; return what run_suite() returned for each, in their order. The
    lane that is done first helps the other one out, but with nothing that waits:
    two of those would be in each other's way."""
    results = []
    queues = [collections.deque(suite for suite in SUITES if (
        suite[3] == lane and suite[0] in chosen)) for lane in (FIRST, WAITS, COMPUTES)]
    run_lane(queues[:1], args, results)
    lanes = [threading.Thread(target=run_lane, args=(mine, args, results))
             for mine in (queues[1:], queues[2:])]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    order = [suite[0] for suite in SUITES]
    return sorted(results, key=lambda result: order.index(result[0]))


def main():
    parser = argparse.ArgumentParser(
        prog="tools/check", description="Run every test.")
    parser.add_argument("--fast", action="store_true",
                        help="leave out what takes minutes")
    parser.add_argument("--slow", action="store_true",
                        help="add what takes long: all that CI runs")
    parser.add_argument("--only", metavar="SUITE[,SUITE]",
                        help="of " + ", ".join(suite[0] for suite in SUITES))
    args = parser.parse_args()
    if args.fast and args.slow:
        parser.error("--fast and --slow exclude each other")
    only = args.only.split(",") if args.only else None
    unknown = set(only or []) - {suite[0] for suite in SUITES}
    if unknown:
        parser.error("no such suite: " + ", ".join(sorted(unknown)))

    most = FAST if args.fast else SLOW if args.slow else USUAL
    # what an ordinary user cannot have is left out
    results = run_suites([name for name, _, when, _ in SUITES if (
        name in only if only else when <= most and may_run(name))], args)
    print(("\n%-10s" + " %8s" * 6) % (
        "suite", "passed", "failed", "seconds", *CARRIERS))
    for name, passed, failed, seconds, carriers in results:
        print(("%-10s %8d %8d %8.0f" + " %8s" * 3) % (
            name, passed, failed, seconds,
            *(carriers[c] or "" for c in CARRIERS)))
    passed = sum(r[1] for r in results)
    failed = sum(r[2] for r in results)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
