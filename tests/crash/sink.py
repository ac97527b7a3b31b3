# SPDX-License-Identifier: Apache-2.0
"""The next hop of the failure tests: it may be down, answer 4xx, or cut the connection, and it
writes down what it took, when, and from which run of the server."""
import collections
import hashlib
import random
import re
import socket
import threading
import time

import letters
from hop import Hop, address_of
from server import ADDRESS

FINAL_RCPT = re.compile(rb"^Final-Recipient: *rfc822; *<?([^>\s]+)>?\r$", re.M | re.I)
GENERATION = re.compile(r"run-(\d+)\.")

MODES = ("up", "4xx-rcpt", "4xx-data", "down", "cut")


class Copy:
    """One acceptance."""
    __slots__ = ("time", "generation", "cut", "digest")

    def __init__(self, generation, cut, digest):
        self.time, self.generation, self.cut = time.monotonic(), generation, cut
        self.digest = digest


class Sink(Hop):
    """`mode` is one of MODES.  In `cut` some messages are taken and the connection is cut before
    the 250, others are cut without being taken."""

    def __init__(self, port, size=None):
        self.mode = "up"
        self.size = size
        self.copies = collections.defaultdict(list)   # (mark, kind) -> [Copy]
        self.bounces = collections.defaultdict(list)  # (mark, kind) -> [Copy]
        self.altered = []                             # (mark, kind, data)
        self.strange = []                             # (sender, rcpt, data)
        self.attempts = collections.Counter()         # rcpt -> RCPT commands, kind "later"
        self.accepted = 0
        self.last = time.monotonic()
        self.delay = 0.0
        super().__init__(port, on_mail=self.judge_mail, on_rcpt=self.judge_rcpt,
                         on_data=self.judge_data, host=ADDRESS)
        self.taken = self.commands = self.cut = letters.Nothing()

    def serve(self, connection):
        # Pipelined commands are answered one by one: without this each answer waits for an ACK.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().serve(connection)

    def set_mode(self, mode):
        if mode == self.mode:
            return
        if self.mode == "down":  # before the mode says so: the next change tries again if it fails
            self.listener = socket.create_server((self.host, self.port), backlog=256)
            self.thread = threading.Thread(target=self.accept, daemon=True)
            self.thread.start()
        self.mode = mode
        if mode == "down":
            try:
                self.listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.listener.close()
            self.thread.join(timeout=5)

    def judge_mail(self, _):
        return "421 4.3.2 closing for now" if self.mode == "down" else None

    def judge_rcpt(self, address):
        if self.mode in ("4xx-rcpt", "down"):
            return "451 4.3.0 not now"
        if address.startswith("perm"):
            return "550 5.1.1 no such user"
        if address.startswith("later"):
            with self.lock:
                self.attempts[address] += 1
                return "450 4.2.0 greylisted" if self.attempts[address] <= 2 else None
        return None

    def judge_data(self, message):
        if self.delay:
            time.sleep(self.delay)
        if self.mode in ("4xx-data", "down"):
            return "451 4.3.0 not now"
        cut = self.mode == "cut" and random.random() < 0.5
        if self.mode == "cut" and not cut and random.random() < 0.5:
            return Hop.DROP
        self.note(message, cut)
        return Hop.DROP if cut else None

    def note(self, message, cut):
        found = GENERATION.search(message.ehlo)
        copy = Copy(int(found.group(1)) if found else -1, cut,
                    hashlib.sha256(message.data).hexdigest()[:16])
        sender = address_of(message.mail_from)
        rcpts = [address_of(command) for command in message.rcpts]
        with self.lock:
            self.accepted += 1
            self.last = copy.time
            for rcpt in rcpts:
                if sender == "":
                    self.note_bounce(message, rcpt, copy)
                else:
                    self.note_copy(message, sender, rcpt, copy)

    def note_bounce(self, message, rcpt, copy):
        address = letters.split_address(rcpt)
        found = FINAL_RCPT.findall(message.data)
        about = letters.split_address(found[0].decode()) if len(found) == 1 else None
        if address is None or about is None or about[1] != address[1]:
            self.strange.append(("", rcpt, message.data))
        else:
            self.bounces[about[1], about[0]].append(copy)

    def note_copy(self, message, sender, rcpt, copy):
        address = letters.split_address(rcpt)
        found = letters.SUBJECT.search(message.data)
        if address is None or found is None or found.group(1).decode() != address[1]:
            self.strange.append((sender, rcpt, message.data))
            return
        kind, mark = address
        if sender != letters.sender_of(mark) or not letters.is_intact(message.data, mark,
                                                                      self.size):
            self.altered.append((mark, kind, message.data))
        self.copies[mark, kind].append(copy)

    def has(self, key):
        return key in self.copies or key in self.bounces


class Weather(threading.Thread):
    """Changes the sink's mode at random until `stop`; then it is up."""

    def __init__(self, sink, rng, modes=("up", "up", "up", "4xx-rcpt", "4xx-data", "down", "cut")):
        super().__init__(daemon=True)
        self.sink, self.rng, self.modes = sink, rng, modes
        self.end = threading.Event()
        self.start()

    def run(self):
        while not self.end.wait(self.rng.uniform(0.1, 0.8)):
            self.sink.set_mode(self.rng.choice(self.modes))

    def stop(self):
        self.end.set()
        self.join()
        self.sink.set_mode("up")
