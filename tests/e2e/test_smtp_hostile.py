# SPDX-License-Identifier: Apache-2.0
"""Peers that mean harm, seen at the next hop: what smuggling comes to, byte for byte; STARTTLS
dialogues that are cut off anywhere; clients that dribble."""
import os
import socket
import ssl

import pytest

from devkit.procs import wait_until
from mail import BOB, Raw, message, submit, token
from test_smtp_client import SecureHop, output_keys
from test_smtp_server import client_context, make_certificate, with_keys
from world import World

# KOUKAN_CUTS=1: each byte of a dialogue with TLS, not every seventh of its handshake
EVERY = 1 if os.environ.get("KOUKAN_CUTS") else 7

# ---- smuggling ----

ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r.\r", b"\n.\r", b"\r\r.\r\r",
        b"\r\n.\r\r\n", b"\r\r\n.\r\n\r"]
NULS = [b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\0\n", b"\0.\0"]


@pytest.fixture(scope="module", params=["reject", "normalize", "normalize, then BDAT"])
def served(request, tmp_path_factory):
    it = World(tmp_path_factory.mktemp("served"))
    it.kind = request.param.partition(",")[0]
    edit = with_keys(bare_newline=it.kind, enable_bdat="true")
    if "BDAT" in request.param:
        it.next_hop = SecureHop(it.values["sink_port"], offers=("CHUNKING", "PIPELINING"))
        it.arrived = lambda mark: [each.raw for each in it.next_hop.find(mark)
                                   if each.verb == "BDAT"]
        it.hops.append(it.next_hop)
        it.start("serve", edit_gateway=lambda text: output_keys(enable_bdat="true")(edit(text)))
    else:
        it.next_hop = it.hop()
        it.arrived = lambda mark: [each.data for each in it.next_hop.with_text(mark)]
        it.start("serve", edit_gateway=edit)
    yield it
    it.close()


def normal(data):
    """Each CR, LF and CRLF becomes CRLF."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def evil(mark, end):
    """A message with an end of message in the middle, and commands behind it."""
    return (message(mark)[:-2] + end + b"MAIL FROM:<eve@example.org>\r\nRCPT TO:<%s>\r\nDATA\r\n"
            b"Subject: smuggled-%s\r\n\r\nbad\r\n" % (BOB.encode(), mark.encode()))


def stuffed(data):
    """As a client would that takes only CRLF for the end of a line."""
    return (b".." if data.startswith(b".") else b"") + data.replace(b"\r\n.", b"\r\n..")


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
@pytest.mark.parametrize("end", ENDS + NULS)
def test_smuggling(served, end, way):
    """Neither here nor at the next hop anything but CRLF.CRLF or the announced size ends it; what
    arrives there has no bare CR or LF, and is one message."""
    mark, after = token(), token()
    data = evil(mark, end)
    with Raw(served.ingress) as client:
        client.begin()
        if way == "DATA":
            # as it is: only where it would end by our own rule it is stuffed
            assert client.code("DATA") == 354
            client.send((stuffed(data) if b"\r\n.\r\n" in data else data) + b".\r\n")
        else:
            client.send(b"BDAT %d LAST\r\n" % len(data) + data)
        code, text = client.reply()
        assert client.works(after)[0] == 250  # and the session has obeyed nothing
    passes = served.kind == "normalize" and b"\0" not in data
    assert code == (250 if passes else 550), (code, text)
    served.next_hop.wait_for(after)
    hop = served.next_hop
    found = served.arrived(mark)
    assert len(found) == (1 if passes else 0)
    if passes:
        got = bytes(found[0])
        assert b"\n" not in got.replace(b"\r\n", b"") and b"\r" not in got.replace(b"\r\n", b"")
        unstuffed = way == "DATA" and b"\r\n.\r\n" not in data
        assert got.endswith(normal(data.replace(b"\r\n.", b"\r\n") if unstuffed else data)), got
    assert not any("eve@example.org" in command for command in hop.commands)


# ---- STARTTLS ----

@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secure")
    it = World(folder)
    it.next_hop = it.hop()
    cert, key = make_certificate(str(folder))
    it.context = client_context(cert)
    it.start("serve", edit_gateway=with_keys(cert=cert, key=key))
    yield it
    it.close()


class Cut(Exception):
    pass


class CutOff:
    """A client whose connection ends when `left` bytes of it are out (None: never)."""

    def __init__(self, port, left, piece=None):
        self.raw = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left, self.sent, self.tls, self.piece = left, 0, None, piece
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def out(self, data):
        allowed = data if self.left is None else data[:self.left]
        step = self.piece or max(1, len(allowed))
        for at in range(0, len(allowed), step):
            self.raw.sendall(allowed[at:at + step])
        self.sent += len(allowed)
        if self.left is not None:
            self.left -= len(allowed)
            if self.left <= 0:
                raise Cut

    def step(self, action):
        while True:
            try:
                value = action()
                self.out(self.outgoing.read())
                return value
            except ssl.SSLWantReadError:
                self.out(self.outgoing.read())
                data = self.raw.recv(65536)
                if not data:
                    raise Cut from None
                self.incoming.write(data)

    def shake(self, context):
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.step(self.tls.do_handshake)

    def say(self, text):
        if self.tls is None:
            self.out(text)
        else:
            self.tls.write(text)
            self.out(self.outgoing.read())

    def hear(self):
        """One whole reply."""
        got = b""
        while not got.endswith(b"\r\n") or got.split(b"\r\n")[-2][3:4] == b"-":
            got += (self.step(lambda: self.tls.read(4096)) if self.tls is not None
                    else self.raw.recv(4096))
        return got


def starttls_dialogue(world, client, mark):
    """Up to the answer to a message; its place in what the client has sent."""
    assert client.hear().startswith(b"220 ")
    client.say(b"EHLO c\r\n")
    assert b"STARTTLS" in client.hear()
    client.say(b"STARTTLS\r\n")
    assert client.hear().startswith(b"220 ")
    client.shake(world.context)
    for line in (b"EHLO c\r\n", b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<%s>\r\n" % BOB.encode(),
                 b"DATA\r\n"):
        client.say(line)
        assert client.hear()[:3] in (b"250", b"354")
    client.say(message(mark) + b".\r\n")
    assert client.hear().startswith(b"250 ")


def test_starttls_cut_off_anywhere(secure):
    """Nothing arrives unless all of it was said, and the server goes on."""
    whole = CutOff(secure.ingress, None)
    mark = token()
    starttls_dialogue(secure, whole, mark)
    whole.raw.close()
    secure.next_hop.wait_for(mark)
    marks, sessions = [], 1
    cuts = [*range(1, 40), *range(40, whole.sent - 30, EVERY), *range(whole.sent - 30, whole.sent)]
    for n in cuts:
        client = CutOff(secure.ingress, n)
        marks.append(token())
        with pytest.raises((Cut, OSError)):
            starttls_dialogue(secure, client, marks[-1])
        if n % 2:
            client.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.raw.close()
        sessions += 1
    wait_until(lambda: secure.smtp_server.err().count("smtp.session ") >= sessions,
               "the end of the sessions")
    after = token()
    assert submit(secure.ingress, after)[0] == 250
    secure.next_hop.wait_for(after)
    # a handshake is not of the same length each time, by two bytes or so
    late = [mark for mark in marks[:-8] if secure.next_hop.with_text(mark)]
    assert not late, late


def test_starttls_byte_by_byte(secure):
    client = CutOff(secure.ingress, None, piece=1)
    mark = token()
    starttls_dialogue(secure, client, mark)
    client.raw.close()
    secure.next_hop.wait_for(mark)


def test_injected_commands_are_never_obeyed(secure):
    """Cut in at any place behind STARTTLS: in the same packet, or before the handshake."""
    for pause in (False, True):
        for tail in (b"NOOP\r\n", b"EHLO evil\r\nMAIL FROM:<evil@example.com>\r\n", b"\r\n", b"X"):
            raw = socket.create_connection(("127.0.0.1", secure.ingress), timeout=20)
            lines = raw.makefile("rb")
            assert lines.readline().startswith(b"220 ")
            raw.sendall(b"EHLO c\r\n")
            while not lines.readline().startswith(b"250 "):
                pass
            raw.sendall(b"STARTTLS\r\n" + (b"" if pause else tail))
            assert lines.readline().startswith(b"220 ")
            if pause:
                raw.sendall(tail)  # behind the answer it is part of the handshake, and breaks it
                with pytest.raises(OSError):
                    secure.context.wrap_socket(raw, server_hostname="localhost")
                raw.close()
                continue
            with secure.context.wrap_socket(raw, server_hostname="localhost") as safe:
                safe.sendall(b"MAIL FROM:<a@example.com>\r\nQUIT\r\n")
                replies = safe.makefile("rb").read()
            assert replies.startswith(b"503 ") and replies.count(b"\r\n") == 2, replies
    assert not any("evil" in command for command in secure.next_hop.commands)
