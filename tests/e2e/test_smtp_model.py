# SPDX-License-Identifier: Apache-2.0
"""Random command sequences against a small model of an SMTP session: every reply code and every
delivered message must be what the model says.  A failure names its seed; KOUKAN_MODEL=N runs N
sequences (60)."""
import hashlib
import os
import random
import socket

import pytest

from mail import ALICE, BOB, Raw, message
from test_smtp_server import make_secrets, with_keys
from world import World

COUNT = int(os.environ.get("KOUKAN_MODEL", "60"))
LENGTH = 40
ERRORS_MAX = 9  # one more, and answers are delayed
BOB_PLAIN = "AGJvYgBzZWNyZXQ="


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    it = World(tmp_path_factory.mktemp("model"))
    it.next_hop = it.hop()
    users = make_secrets(it, bob=("secret", "--plain-sha256"))
    it.start("serve", edit_gateway=with_keys(enable_bdat="true", dsn="true", auth_secrets=users,
                                             auth_clear_loopback="true"))
    yield it
    it.close()


class Model:
    """What a session knows.  Each command returns the codes that it must get."""

    def __init__(self):
        self.greeted = self.esmtp = self.auth = self.closed = False
        self.errors = 0
        self.delivered = []
        self.forget()

    def forget(self):
        self.mail, self.rcpts, self.good, self.body, self.failed = False, 0, 0, b"", False
        self.chunks = False

    def error(self, *codes):
        self.errors += 1
        return codes

    def hello(self, esmtp):
        self.forget()
        self.greeted, self.esmtp = True, esmtp
        return (250,)

    def simple(self, code):
        return (code,) if code < 400 else self.error(code)

    def rset(self):
        self.forget()
        return (250,)

    def start(self, code):
        if not self.greeted or self.mail:
            return self.error(503)
        if code != 250:
            return self.error(code if self.esmtp or code == 501 else 555)
        self.mail = True
        return (250,)

    def start_esmtp(self):
        if self.greeted and not self.mail and not self.esmtp:
            return self.error(555)
        return self.start(250)

    def rcpt(self, code):
        if not self.mail or self.chunks:
            return self.error(503)
        if code == 501:
            return self.error(501)
        self.rcpts += 1
        if code != 250:
            return self.error(code)
        self.good += 1
        return (250,)

    def no_message(self):
        """The code that refuses a message now, or None."""
        if not self.mail or self.rcpts == 0:
            return 503
        return 554 if self.good == 0 else None

    def accept(self, body):
        self.delivered += [body] * self.good  # a copy for each recipient
        self.errors = 0
        self.forget()

    def data(self, body, pipelined):
        refusal = 503 if self.chunks else self.no_message()
        if refusal:
            self.closed = pipelined  # what stands behind it cannot be told from commands
            return self.error(refusal)
        self.accept(body)
        return (354, 250)

    def bdat(self, chunk, last, good):
        refusal = 503 if self.failed else self.no_message() if not self.chunks else None
        if refusal:
            return self.error(refusal)
        self.chunks = True
        if not good:
            codes = self.error(550)
            if last:
                self.forget()
            else:
                self.failed = True
            return codes
        self.body += chunk
        if last:
            self.accept(self.body)
        return (250,)

    def broken(self):
        self.closed = True
        return self.error(501)

    def login(self, cancel):
        if not self.esmtp or self.auth or self.mail:
            return self.error(503)
        if cancel:
            return (334,) + self.error(501)
        self.auth = True
        return (235,)

    def quit(self):
        self.closed = True
        return (221,)


def chunk_of(random_, body):
    size = random_.choice([0, 1, 7, 300])
    return body[:size]


def steps(random_, model, mark, pipelined):
    """Yields (bytes, codes) until the session has ended."""
    number = 0
    for _ in range(LENGTH):
        if model.closed or model.errors >= ERRORS_MAX:
            break
        number += 1
        body = message(f"{mark}-{number}", "a line\r\n..\r\n" * random_.randrange(4))
        plain = body + b".\r\n"
        stuffed = plain.replace(b"\r\n..", b"\r\n...")
        chunk, last = chunk_of(random_, body), random_.random() < 0.5
        head = b"BDAT %d%s\r\n"
        choices = [
            (6, b"EHLO c\r\n", lambda: model.hello(True)),
            (2, b"HELO c\r\n", lambda: model.hello(False)),
            (1, b"EHLO\r\n", lambda: model.simple(501)),
            (2, b"NOOP\r\n", lambda: model.simple(250)),
            (1, b"VRFY x\r\n", lambda: model.simple(252)),
            (1, b"EXPN x\r\n", lambda: model.simple(502)),
            (1, b"XYZZY\r\n", lambda: model.simple(500)),
            (1, b"NO\x01OP\r\n", lambda: model.simple(501)),
            (2, b"RSET\r\n", model.rset),
            (1, b"RSET x\r\n", lambda: model.simple(501)),
            (1, b"STARTTLS\r\n", lambda: model.simple(454)),
            (14, b"MAIL FROM:<%s>\r\n" % ALICE.encode(), lambda: model.start(250)),
            (2, b"MAIL FROM:<%s> RET=HDRS\r\n" % ALICE.encode(), model.start_esmtp),
            (1, b"MAIL FROM:<a b>\r\n", lambda: model.start(501)),
            (1, b"MAIL FROM:<a@b.example> SIZE=9999999999\r\n", lambda: model.start(552)),
            (16, b"RCPT TO:<%s>\r\n" % BOB.encode(), lambda: model.rcpt(250)),
            (3, b"RCPT TO:<bob@unknown.example.org>\r\n", lambda: model.rcpt(550)),
            (1, b"RCPT TO:<@>\r\n", lambda: model.rcpt(501)),
            (8, b"DATA\r\n", lambda: model.data(body, pipelined)),
            (6, head % (len(chunk), b"") + chunk, lambda: model.bdat(chunk, False, True)),
            (5, head % (len(body), b" LAST") + body, lambda: model.bdat(body, True, True)),
            (1, head % (5, b" LAST" if last else b"") + b"a\nb\r\n",
             lambda: model.bdat(b"", last, False)),
            (1, b"BDAT 5x\r\n", model.broken),
            (2, b"AUTH PLAIN %s\r\n" % BOB_PLAIN.encode(), lambda: model.login(False)),
            (1, b"AUTH PLAIN\r\n", lambda: model.login(True)),
            (1, b"QUIT\r\n", model.quit),
        ]
        _, text, act = random_.choices(choices, [choice[0] for choice in choices])[0]
        codes = act()
        more = b""
        if codes[0] == 354 or (text == b"DATA\r\n" and pipelined):
            more = stuffed
        elif codes[0] == 334:
            more = b"*\r\n"
        yield text, more, codes
    if not model.closed:
        yield b"QUIT\r\n", b"", model.quit()


def run(client, random_, model, mark, way):
    log = []
    if way == "at once":
        whole = list(steps(random_, model, mark, True))
        # a refused DATA ends the session only when something stands behind it, and that is so
        client.send(b"".join(text + more for text, more, _ in whole))
    else:
        whole = steps(random_, model, mark, False)
    for text, more, codes in whole:
        for at, code in enumerate(codes):
            part = text if at == 0 else more
            if way == "whole":
                client.send(part)
            elif way == "bytes":
                for byte in part[:400]:
                    client.send(bytes([byte]))
                client.send(part[400:])
            got = client.reply()
            log.append((part[:60], got))
            assert got[0] == code, (code, log[-8:])
    assert client.is_closed(), log[-3:]


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("way", ["whole", "at once", "bytes"])
def test_random_sessions(served, way):
    for seed in range(COUNT // 6 if way == "bytes" else COUNT):
        random_, model = random.Random(f"{way} {seed}"), Model()
        mark = f"m{seed}{way[0]}x{os.getpid()}"
        try:
            with Raw(served.ingress, ehlo=False) as client:
                run(client, random_, model, mark, way)
        except AssertionError as error:
            raise AssertionError(f"seed {seed!r}, {way}: {error}") from error
        want = sorted(digest(body) for body in model.delivered)
        got = sorted(digest(strip(it.data)) for it in served.next_hop.taken)
        served.next_hop.taken.clear()
        assert got == want, f"seed {seed!r}, {way}: {len(got)} messages, not {len(want)}"


def strip(data):
    """The message without the Received field that the server has put before it."""
    assert data.startswith(b"Received: ")
    head = data.index(b"\r\n")
    while data[head + 2:head + 3] == b"\t":
        head = data.index(b"\r\n", head + 2)
    return data[head + 2:]
