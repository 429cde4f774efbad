# SPDX-License-Identifier: Apache-2.0
"""Bytes with a known SHA-256, of any length, without storing them.

One pseudo-random block over and over. Its length is a prime, so that a buffer
that is lost, doubled or swapped anywhere changes the sum, whatever its size.
"""

import functools
import hashlib
import sys

BLOCK_SIZE = 1048573


@functools.lru_cache(None)
def block():
    chunks = [hashlib.sha256(b"%d" % i).digest() for i in range(32768)]
    return b"".join(chunks)[:BLOCK_SIZE]


def pieces(size):
    while size > 0:
        piece = memoryview(block())[:size]
        yield piece
        size -= len(piece)


@functools.lru_cache(None)
def sha256(size):
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


def data(size):
    return b"".join(pieces(size))


if __name__ == "__main__":
    for part in pieces(int(sys.argv[1])):
        sys.stdout.buffer.write(part)
