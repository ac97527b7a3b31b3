# SPDX-License-Identifier: Apache-2.0
"""Much at a time by REST: large uploads in little memory, uploads that break off, thousands of long
polls."""
import hashlib
import os
import resource
import select
import socket
import time
import urllib.parse

import pytest

from access import rest_section
from devkit import procs
from hop import Hop
from mail import ALICE, BOB, Rest, message, token
from world import RELEASE, World

ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}
LARGE = 100 * 1000 * 1000
GROWTH = 20e6
POLLS = 5000
needs_release = pytest.mark.skipif(RELEASE is None or not os.path.exists(RELEASE),
                                   reason="no release binary (./dev build)")


class DigestHop(Hop):
    """Keeps of each message its length and digest only."""

    def read_data(self, lines, message):  # pylint: disable=redefined-outer-name
        digest, size, header = hashlib.sha256(), 0, True
        for line in lines:
            if line == b".\r\n":
                message.data, message.size = digest.digest(), size
                return message
            line = line[1:] if line.startswith(b".") else line
            header = header and not line.startswith(b"From:")  # what was added in front
            if not header:
                digest.update(line)
                size += len(line)
        return None


def large_message(mark):
    """(pieces of bytes, total, digest)"""
    head = message(mark, "")
    line = b"l" * 988 + b"\r\n"
    pieces = [head] + [line * 100] * ((LARGE - len(head)) // 99000)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return pieces, sum(map(len, pieces)), digest.digest()


def peak_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def forget_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def put_whole(rest, uri, pieces, total):
    return rest.call("PUT", uri, iter(pieces), content_length=total)


def put_chunked(rest, uri, pieces, total):
    del total
    return rest.call("PUT", uri, iter(pieces))


def put_ranges(rest, uri, pieces, total, end_known=True):
    at, answer = 0, None
    for start in range(0, len(pieces), 50):
        data = b"".join(pieces[start:start + 50])
        last = end_known and at + len(data) == total
        answer = rest.call("PUT", uri, data, content_range=f"bytes {at}-{at + len(data) - 1}/"
                                                           f"{total if last else '*'}")
        at += len(data)
        assert answer.status == 200 and answer.headers["content-range"].startswith(
            f"bytes 0-{at - 1}/")
    return answer


def put_finalized(rest, uri, pieces, total):
    put_ranges(rest, uri, pieces, total, False)
    return rest.call("PUT", uri, b"", x_finalize_blob_length=total)


@needs_release
@pytest.mark.slow
@pytest.mark.parametrize("put", [put_whole, put_chunked, put_ranges, put_finalized])
def test_100_mb_in_little_memory(tmp_path, put):
    """Stored and delivered byte for byte; the highest that memory ever was counts."""
    world = World(tmp_path, binary=RELEASE, log_level="info", message_max=2 * LARGE,
                  smtp_timeout=300)
    hop = DigestHop(world.values["sink_port"])
    world.hops.append(hop)
    try:
        world.start("serve", edit_router=lambda text: text.replace(
            "data_timeout: 20", "data_timeout: 300").replace(
            "downstream_timeout: 20", "downstream_timeout: 300")
            + f"  message_max: {2 * LARGE}\n")
        pid = world.router_server.pid
        with Rest(world.router_url, timeout=300) as rest:
            rest.final(rest.submit(token()).headers["location"])
            mark = token()
            pieces, total, digest = large_message(mark)
            forget_peak(pid)
            before = procs.resident_bytes(pid)
            created = rest.create(**ENVELOPE)
            answer = put(rest, created.json["body"]["blob_status"]["uri"], pieces, total)
            assert answer.status == 200, answer.body
            assert answer.headers["content-range"] == f"bytes 0-{total - 1}/{total}"
            tx = rest.final(created.headers["location"], 240)
            assert tx["data_response"]["code"] == 250, tx
            grown = peak_bytes(pid) - before
        print(f"{put.__name__}: resident memory grew by {grown / 1e6:.1f} MB at most")
        assert hop.taken[-1].data == digest
        assert grown < GROWTH, grown
    finally:
        world.close()


# ---- uploads that break off ----

class Cut:
    """A PUT whose connection ends after some of its bytes."""

    def __init__(self, uri, data, sent, headers=(), reset=False):
        parts = urllib.parse.urlsplit(uri)
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as raw:
            raw.sendall((f"PUT {parts.path} HTTP/1.1\r\nHost: a\r\n" + "".join(
                f"{line}\r\n" for line in headers) + "\r\n").encode() + data[:sent])
            if reset:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def held(rest, uri, size):
    """How much the server has, by asking with a range that is far behind; None: not yet known,
    since another upload is still at work."""
    answer = rest.call("PUT", uri, b"x", content_range=f"bytes {size}-{size}/*")
    if answer.status != 416:
        return None
    range_held = answer.headers["content-range"]
    return 0 if range_held == "bytes */*" else int(range_held[8:].split("/")[0]) + 1


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("style", ["whole", "chunked", "range", "later range"])
def test_broken_off_uploads_go_on(shared, style, reset):
    """Nothing is finished, what has come is held (or not), and the rest completes it."""
    mark = token()
    data = message(mark, ("b" * 76 + "\r\n") * 5000)
    size, sent, first = len(data), 200000, 0
    with Rest(shared.router_url) as rest:
        created = rest.create(**ENVELOPE)
        location, uri = created.headers["location"], created.json["body"]["blob_status"]["uri"]
        if style == "later range":
            first = 100000
            assert rest.call("PUT", uri, data[:first],
                             content_range=f"bytes 0-{first - 1}/*").status == 200
        length = f"content-length: {size - first}"
        headers = {"whole": [length], "chunked": ["transfer-encoding: chunked"],
                   "range": [length, f"content-range: bytes 0-{size - 1}/{size}"],
                   "later range": [length, f"content-range: bytes {first}-{size - 1}/{size}"]}
        body = data[first:]
        if style == "chunked":
            body = f"{size:x}\r\n".encode() + data
        Cut(uri, body, sent, headers[style], reset)
        procs.wait_until(lambda: held(rest, uri, size) is not None, "the server to notice")
        tx = rest.get(location).json
        assert "finalized" not in tx["body"]["blob_status"] and "data_response" not in tx
        have = held(rest, uri, size)
        assert first <= have <= first + sent
        answer = rest.call("PUT", uri, data[have:],
                           content_range=f"bytes {have}-{size - 1}/{size}")
        assert (answer.status, answer.headers["content-range"]) == (
            200, f"bytes 0-{size - 1}/{size}")
        assert rest.final(location)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)
    assert not shared.next_hop.cut


def test_two_writers_make_no_hole(shared):
    """Ranges of two connections, in turns and overlapping: what is finished is the message."""
    mark = token()
    data = message(mark, ("w" * 76 + "\r\n") * 300)
    with Rest(shared.router_url) as one, Rest(shared.router_url) as two:
        created = one.create(**ENVELOPE)
        uri = created.json["body"]["blob_status"]["uri"]
        at, size, turn = 0, len(data), 0
        while at < size:
            start, end = max(0, at - 50), min(size, at + 1500)
            answer = (one, two)[turn % 2].call(
                "PUT", uri, data[start:end], content_range=f"bytes {start}-{end - 1}/{size}")
            assert answer.status == 200 and answer.headers["content-range"].startswith(
                f"bytes 0-{end - 1}/")
            hole = (two, one)[turn % 2].call("PUT", uri, b"?" * 10,
                                             content_range=f"bytes {end + 5}-{end + 14}/{size}")
            assert hole.status in (400, 416)
            at, turn = end, turn + 1
        assert one.final(created.headers["location"])["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


# ---- long polls ----

def connections(rest):
    text = rest.call("GET", "/metrics").body.decode()
    return next(float(line.split()[1]) for line in text.splitlines()
                if line.startswith("koukan_http_connections "))


class Polls:
    """Long polls of one version."""

    def __init__(self, url, location, etag, count):
        parts = urllib.parse.urlsplit(url)
        request = (f"GET {urllib.parse.urlsplit(location).path} HTTP/1.1\r\nHost: a\r\n"
                   f"if-none-match: {etag}\r\nrequest-timeout: 30\r\n\r\n").encode()
        self.sockets = []
        self.poll = select.poll()
        for _ in range(count):
            raw = socket.create_connection((parts.hostname, parts.port), timeout=30)
            self.sockets.append(raw)
            raw.sendall(request)
            self.poll.register(raw, select.POLLIN)

    def answered(self):
        return len(self.poll.poll(0))

    def codes(self):
        return [raw.recv(65536)[9:12] for raw in self.sockets]

    def close(self):
        for raw in self.sockets:
            raw.close()
        self.sockets = []


@pytest.fixture
def many_files():
    """As many descriptors as may be, for this process and what it starts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4 * POLLS:
        pytest.skip("too few descriptors allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def patient(text):
    text = text.replace("downstream_timeout: 20", "downstream_timeout: 300").replace(
        "upstream_refresh: 1\n", "upstream_refresh: 100\n")
    return rest_section(connections_max=2 * POLLS)(text)


@needs_release
@pytest.mark.slow
def test_5000_long_polls(tmp_path, many_files):  # pylint: disable=unused-argument
    """All hang at once; all wake; and when their clients go, they are forgotten."""
    world = World(tmp_path, binary=RELEASE, log_level="info")
    polls = None
    try:
        world.hop()
        world.start("serve", edit_router=patient)
        pid = world.router_server.pid
        with Rest(world.router_url) as rest:
            location = rest.create(**ENVELOPE).headers["location"]
            rest.wait(location, lambda tx: "rcpt_response" in tx)
            etag, files = rest.get(location).etag, procs.open_files(pid)
            before = procs.resident_bytes(pid)
            polls = Polls(world.router_url, location, etag, POLLS)
            procs.wait_until(lambda: connections(rest) >= POLLS, "all to be there", 25)
            assert polls.answered() == 0
            grown = procs.resident_bytes(pid) - before
            print(f"{grown / POLLS / 1024:.1f} KiB a poll")
            assert rest.submit(token()).status == 201, "others are served meanwhile"
            # Clients that go away.
            polls.close()
            procs.wait_until(lambda: connections(rest) < 10, "them to be forgotten", 30)
            procs.wait_until(lambda: procs.open_files(pid) <= files + 10, "their sockets", 30)
            # And news for all.
            etag = rest.get(location).etag
            polls = Polls(world.router_url, location, etag, POLLS)
            procs.wait_until(lambda: connections(rest) >= POLLS, "all to be there", 25)
            assert polls.answered() == 0
            begin = time.monotonic()
            assert rest.call("POST", location + "/cancel").status == 200
            codes = polls.codes()
            print(f"all woken within {time.monotonic() - begin:.2f} s")
            assert set(codes) == {b"200"}
    finally:
        if polls is not None:
            polls.close()
        world.close()
