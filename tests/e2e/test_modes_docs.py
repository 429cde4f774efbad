# SPDX-License-Identifier: Apache-2.0
"""What is said about the commands: --help, the man pages and the README agree with
each other and with the programs, options and defaults alike."""

import os
import re

import pytest

import modes
from harness import HERE
from modes import MODES

ROOT = os.path.dirname(os.path.dirname(HERE))
COMMANDS = ["proxy", "proxify", "socket_vendor"] + MODES


def help_of(world, name):
    path = world.bin + "/" + name
    if name in MODES:
        path = modes.command(world, name)
    return modes.in_world([path, "--help"]).ok().out


def options(text):
    """name: (everything that is said of it, as one line) out of --help."""
    found, name = {}, None
    for line in text.splitlines():
        start = re.match(r"\s+(?:-\w, )?--([a-z_-]+)", line)
        if start:
            name = start.group(1)
            found[name] = ""
        elif not line.startswith("  "):
            name = None
        if name:
            found[name] += " " + " ".join(line.split())
    for more in re.findall(r", --([a-z-]+)$", text, re.M):
        found[more] = ""  # "--help, --version"
    return found


def page_of(name):
    """The source of a man page without its mark-up."""
    with open("%s/man/%s.1" % (ROOT, name), encoding="utf-8") as file:
        text = file.read()
    text = re.sub(r"\\f[BIR]", "", text)
    for mark, plain in ((r"\-", "-"), (r"\(aq", "'"), (r"\e", "\\")):
        text = text.replace(mark, plain)
    return re.sub(r"^\.(B|I|BR|RB|BI|RI|IR)\s+", "", text, flags=re.M)


def paragraphs(page):
    """option: what the page says of it."""
    found = {}
    for part in page.split("\n.TP\n")[1:]:
        head, _, body = part.partition("\n")
        body = body.partition("\n.SH")[0]
        for name in re.findall(r"--([a-z_-]+)", head):
            found[name] = " ".join(body.split())
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_page_has_every_option(world, name):
    said = options(help_of(world, name))
    page = paragraphs(page_of(name))
    assert {"help", "version"} <= set(said)
    if name == "proxy":
        said["config"] = ""  # of `run`
    assert set(page) == set(said)


@pytest.mark.parametrize("name", COMMANDS)
def test_page_has_every_default(world, name):
    """Each option ends with its default, and it is the one that --help says."""
    page = paragraphs(page_of(name))
    for option, text in options(help_of(world, name)).items():
        if option in ("help", "version"):
            continue
        assert "Default: " in page[option], option
        default = re.search(r"\(default:? ([^:),]+)", text)
        if default:
            wanted = default.group(1).rstrip(":").strip()
            assert wanted in page[option], option


@pytest.mark.parametrize("name", COMMANDS)
def test_page_is_well_formed(name):
    got = modes.in_world(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z",
                          "%s/man/%s.1" % (ROOT, name)])
    assert (got.rc, got.err) == (0, "")


def test_configuration_settings(world):
    """The page names all settings of the process, and its example works."""
    page = page_of("proxy")
    process = page.partition("Ahead of the first section:")[2].partition(
        "Everything else")[0]
    named = set(re.findall(r"[a-z][a-z_-]+", process)) - {"and"}
    path = world.dir("settings") + "/x.ini"
    for setting in sorted(named | {"max-connections", "listen"}):
        with open(path, "w", encoding="ascii") as file:
            file.write(setting + " = ?\n")
        got = modes.in_world([world.bin + "/proxy", "run", "-c", path])
        assert got.rc == 2
        assert ("unknown setting" not in got.err) == (setting in named), setting
    example = re.search(r"\n(workers = .*?)\n\.fi", page, re.S).group(1)
    # up to the listeners: there may be no vsock here
    with open(path, "w", encoding="ascii") as file:
        file.write(example + "\n[socks5]\nlisten = unix:/nonexistent/x\n")
    got = modes.in_world([world.bin + "/proxy", "run", "-c", path])
    assert got.rc == 1, got.err
    assert "cannot listen on" in got.err


@pytest.mark.parametrize("name", MODES)
def test_help(world, name):
    """As a link and as a mode: the same, on stdout, with status 0."""
    as_link = help_of(world, name)
    as_mode = modes.in_world([world.bin + "/proxy", name, "--help"]).ok()
    assert as_mode.err == ""
    assert as_link.splitlines()[0].startswith("Usage: %s " % name)
    assert as_mode.out.splitlines()[1:] == as_link.splitlines()[1:]
    version = modes.in_world([modes.command(world, name), "-V"]).ok().out
    assert re.fullmatch(r"%s \d+\.\d+\.\d+\n" % name, version)


def test_readme_has_the_modes():
    with open(ROOT + "/README.md", encoding="utf-8") as file:
        rows = [line for line in file if line.startswith("| `")]
    for name in MODES:
        assert any(row.startswith("| `%s " % name) for row in rows), name
