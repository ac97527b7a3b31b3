# SPDX-License-Identifier: Apache-2.0
"""The messages of the failure tests: all bytes follow from a message's mark."""
import hashlib
import itertools
import random
import re

MARK = r"m[0-9a-f]{8}x[0-9a-f]+"
SUBJECT = re.compile(rb"^Subject: crash (" + MARK.encode() + rb")\r$", re.M)
ADDRESS = re.compile(r"^([a-z]+\d*)-(" + MARK + r")@")
# What the router of these tests may put in front of a message: Received fields.
ADDED = re.compile(rb"(?:Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*")

# 90 of 100 are about 1 KiB; the others pass the limits of memory and of one chunk.
SIZES = [1000] * 90 + [20000] * 8 + [90000, 300000]


class Nothing:
    """A list that keeps nothing, where a base class collects what would be gigabytes."""

    def append(self, _):
        pass


def make_pool():
    """A megabyte of lines, some beginning with a dot, some not in ASCII."""
    rng = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz     ABCDEFGH.,0123456789"
    lines = []
    for number in range(14000):
        first = {0: ".", 1: "..", 2: "\u00e4\u00f6\u00fc \u20ac "}.get(number % 23, "")
        lines.append(first + "".join(rng.choices(letters, k=rng.randint(10, 120))) + "\r\n")
    return "".join(lines).encode()


POOL = make_pool()


class Marks:
    """Unique marks; `seed` makes a run's sizes and kinds repeatable."""

    def __init__(self, seed):
        self.prefix = "m" + hashlib.sha256(str(seed).encode()).hexdigest()[:8] + "x"
        self.numbers = itertools.count()

    def next(self):
        return f"{self.prefix}{next(self.numbers):x}"


def number_of(mark, salt):
    """A number that is the same each time for the same mark and use."""
    digest = hashlib.blake2b((salt + mark).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def sender_of(mark):
    return f"s-{mark}@example.com"


def rcpt(kind, number, mark):
    return f"{kind}{number}-{mark}@elsewhere.example.net"


def split_address(address):
    """(kind with number, mark), or None for an address that is not of these tests."""
    found = ADDRESS.match(address)
    return found.groups() if found else None


def message(mark, size=None):
    """The whole message as it is submitted."""
    if size is None:
        size = SIZES[number_of(mark, "size") % len(SIZES)]
    at = POOL.index(b"\r\n", number_of(mark, "at") % (len(POOL) - size - 4096)) + 2
    body = POOL[at:POOL.index(b"\r\n", at + size) + 2] if size else b""
    return (f"From: Alice <{sender_of(mark)}>\r\nTo: <someone@elsewhere.example.net>\r\n"
            f"Subject: crash {mark}\r\nDate: Fri, 13 Feb 2009 23:31:30 +0000\r\n"
            f"Message-ID: <{mark}@example.com>\r\nMIME-Version: 1.0\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
            f"\r\n").encode() + body + f"end-{mark}\r\n".encode()


def is_intact(data, mark, size=None):
    """Is `data` what was submitted, apart from documented added header fields in front?"""
    want = message(mark, size)
    return data.endswith(want) and ADDED.fullmatch(data, 0, len(data) - len(want)) is not None
