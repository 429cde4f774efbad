# SPDX-License-Identifier: Apache-2.0
"""200 non-blocking connects from one thread, half of them to an address that
answers after 300 ms: all are done in under 600 ms, the near ones do not wait for
the far ones, and no turn of the event loop takes longer than 20 ms."""

import re

import pytest

from compiled import compiled
from harness import (BUILD, PRELOAD_EXTRA, PROXY_BUILD, SLOW4, SLOWNESS, WORLD4)
from servers import Peer, read_to_eof

# The sanitizers' own cost is not what is measured.
FACTOR = 5 if PRELOAD_EXTRA or PROXY_BUILD != BUILD else 1
# An emulated machine is slow by itself, and has both ends to play.
FACTOR *= SLOWNESS ** 2
ATTEMPTS = 3  # two busy processors may delay anybody for 20 ms


@pytest.fixture(scope="module")
def nbconnect(world):
    return compiled(world, "nbconnect") + "/nbconnect"


def measure(runner, nbconnect):
    with Peer(read_to_eof, resets=True) as peer:  # by clients that go at once
        result = runner([nbconnect, WORLD4, SLOW4, peer.port, 200]).ok()
    pairs = re.findall(r"([a-z-]+) ([\d.]+)", result.out)
    return {name: float(value) for name, value in pairs}


def good(found):
    return (found["done"] == 200 and found["slow-last"] < 600 * FACTOR and
            found["fast-last"] < 300 * FACTOR and
            found["longest-turn"] < 20 * FACTOR)


def test_200_at_once(enclave, nbconnect):
    found = []
    for _ in range(ATTEMPTS):
        found.append(measure(enclave.run, nbconnect))
        # the gate never opens early
        assert found[-1]["slow-first"] >= 300
        if good(found[-1]):
            return
    raise AssertionError(found)


def test_the_measure_itself(world, nbconnect):
    """Over plain TCP the same program is well within the limits."""
    found = measure(world.run, nbconnect)
    assert found["slow-first"] >= 300
    assert found["longest-turn"] < 20 * FACTOR
