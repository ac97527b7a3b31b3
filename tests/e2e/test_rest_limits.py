# SPDX-License-Identifier: Apache-2.0
"""How much a REST client may ask for: at each limit, and one past it."""
import contextlib
import json
import socket
import time

import pytest

from access import rest_section
from mail import ALICE, BOB, Rest, message, token
from world import World

ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}
MESSAGE_MAX = 200000
CREATE = "/senders/submission/transactions"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    it = World(tmp_path_factory.mktemp("limits"))
    it.next_hop = it.hop()
    edit = rest_section(uri_max=300, head_max=2000, connections_max=30, head_timeout=1,
                        body_timeout=1, uploads_max=3)
    it.start("serve", edit_router=lambda text: edit(text) + f"  message_max: {MESSAGE_MAX}\n")
    yield it
    it.close()


@pytest.fixture
def rest(small):
    with Rest(small.router_url) as it:
        yield it


def text_of(size):
    head = f"From: <{ALICE}>\r\nTo: <{BOB}>\r\nSubject: {token()}\r\n\r\n"
    lines = ("x" * 70 + "\r\n") * (size // 72 + 1)
    return (head + lines)[:size - 2] + "\r\n"


@pytest.mark.parametrize("size,status", [(MESSAGE_MAX, 201), (MESSAGE_MAX + 1, 413),
                                         (MESSAGE_MAX + 1000, 413)])
def test_inline(rest, size, status):
    answer = rest.call("POST", CREATE, dict(ENVELOPE, body={"inline": text_of(size)}))
    assert answer.status == status, answer.body


@pytest.mark.parametrize("style", ["whole", "chunked", "ranges", "total"])
@pytest.mark.parametrize("size,status", [(MESSAGE_MAX, 200), (MESSAGE_MAX + 1, 413)])
def test_upload(rest, style, size, status):
    location = rest.create(**ENVELOPE).headers["location"]
    data = text_of(size).encode()
    if style == "whole":
        answer = rest.call("PUT", location + "/body", data)
    elif style == "chunked":
        answer = rest.call("PUT", location + "/body", iter([data[:50], data[50:]]))
    elif style == "ranges":
        half = size // 2
        first = rest.call("PUT", location + "/body", data[:half],
                          content_range=f"bytes 0-{half - 1}/*")
        assert first.status == 200
        answer = rest.call("PUT", location + "/body", data[half:],
                           content_range=f"bytes {half}-{size - 1}/*")
        if answer.status == 200:
            answer = rest.call("PUT", location + "/body", b"", x_finalize_blob_length=size)
    else:
        answer = rest.call("PUT", location + "/body", data[:100],
                           content_range=f"bytes 0-99/{size}")
    assert answer.status == status, answer.body
    rest.call("POST", location + "/cancel")


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("depth,status", [(62, 400), (64, 400), (10000, 400)])
def test_json_depth(rest, depth, status):
    """Never a 5xx; what is too deep says so."""
    body = json.dumps(dict(ENVELOPE, smtp_meta=0)).replace("0", nested(depth))
    answer = rest.call("POST", CREATE, body.encode(), content_type="application/json")
    assert answer.status == status
    assert (b"deep" in answer.body) == (depth >= 64), answer.body
    good = json.dumps(dict(ENVELOPE, smtp_meta=0)).replace(": 0", ': {"a": ' + nested(62) + "}")
    answer = rest.call("POST", CREATE, good.encode(), content_type="application/json")
    assert answer.status == 201, answer.body
    rest.call("POST", answer.headers["location"] + "/cancel")


@pytest.mark.parametrize("length,status", [(300, 404), (301, 414), (5000, 414)])
def test_target(rest, length, status):
    assert rest.call("GET", "/" + "x" * (length - 1)).status == status
    assert rest.call("GET", "/healthz").status == 200, "the next one is answered"


def test_head(small):
    for total, status in ((2000, b"200"), (2001, b"431"), (9000, b"431")):
        with socket.create_connection(("127.0.0.1", small.values["router_port"]),
                                      timeout=20) as raw:
            fixed = "Host: a\r\nConnection: close\r\nX: \r\n"
            raw.sendall(("GET /healthz HTTP/1.1\r\n" + fixed.replace(
                "X: ", "X: " + "x" * (total - len(fixed))) + "\r\n").encode())
            assert raw.makefile("rb").readline().split()[1] == status


GET = b"GET /healthz HTTP/1.1\r\n"
BAD_HEADS = {
    "no host": GET + b"\r\n", "two hosts": GET + b"Host: a\r\nHost: b\r\n\r\n",
    "bare line feeds": GET.replace(b"\r", b"") + b"Host: a\n\n",
    "one bare line feed": GET + b"Host: a\nX: b\r\n\r\n",
    "behind the request line": GET.replace(b"\r", b"") + b"Host: a\r\n\r\n",
    "bare return": GET + b"Host: a\rX: b\r\n\r\n",
    "continued": GET + b"Host: a\r\nX: b\r\n c\r\n\r\n",
    "continued at the end": GET + b"Host: a\r\nX: b\r\n\tc\r\n\r\n",
    "space before colon": GET + b"Host : a\r\n\r\n",
    "NUL": GET + b"Host: a\r\nX: a\0b\r\nY: c\r\n\r\n",
    "both lengths": GET.replace(b"GET", b"POST")
    + b"Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": GET.replace(b"GET", b"POST")
    + b"Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "odd encoding": GET.replace(b"GET", b"POST")
    + b"Host: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "line feed before a body": GET.replace(b"GET", b"POST")
    + b"Host: a\r\nContent-Length: 2\n\r\nab",
}


@pytest.mark.parametrize("name", BAD_HEADS)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_each_head_is_judged(small, name, before):
    """The first of a connection and any later one: 400, once, and the end of it."""
    with socket.create_connection(("127.0.0.1", small.values["router_port"]),
                                  timeout=20) as raw:
        file = raw.makefile("rb")
        for _ in range(before):
            raw.sendall(GET + b"Host: a\r\n\r\n")
            assert file.readline().split()[1] == b"200"
            while file.readline() != b"\r\n":
                pass
            assert file.readline() == b"ok\n"
        raw.sendall(BAD_HEADS[name])
        raw.shutdown(socket.SHUT_WR)
        rest = file.read()
        assert rest.startswith(b"HTTP/1.1 400 ") and rest.count(b"HTTP/1.") == 1, rest


def test_connections(small):
    """Of all workers together: what is beyond the limit of one gets 503."""
    with contextlib.ExitStack() as stack:
        seen = []
        for _ in range(2 * 30 + 12):
            raw = stack.enter_context(socket.create_connection(
                ("127.0.0.1", small.values["router_port"]), timeout=20))
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            try:
                seen.append(raw.recv(4096)[9:12])
            except ConnectionResetError:
                seen.append(b"503")
        assert set(seen) == {b"200", b"503"} and seen.count(b"200") <= 60


def test_slow_heads_and_bodies(small, rest):
    heads = (b"GET /healthz HTT", b"POST " + CREATE.encode() +
             b" HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    for head in heads:
        with socket.create_connection(("127.0.0.1", small.values["router_port"]),
                                      timeout=20) as raw:
            raw.sendall(head)
            begin = time.monotonic()
            answer = raw.recv(4096)
            assert time.monotonic() - begin < 15
            assert answer == b"" or b" 408 " in answer, answer
    assert rest.call("GET", "/healthz").status == 200


def test_uploads_at_a_time(small, rest):
    """Three POST whose bodies do not come; the fourth is told to wait."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            raw = stack.enter_context(socket.create_connection(
                ("127.0.0.1", small.values["router_port"]), timeout=20))
            raw.sendall(b"POST " + CREATE.encode()
                        + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{")
        end = time.monotonic() + 10
        answer = None
        while time.monotonic() < end:
            answer = rest.call("POST", CREATE, ENVELOPE)
            if answer.status == 429:
                break
            rest.call("POST", answer.headers["location"] + "/cancel")
        assert answer.status == 429 and int(answer.headers["retry-after"]) >= 1
        assert rest.call("GET", "/nothing").status == 404, "reading is something else"
    end = time.monotonic() + 20
    while rest.call("POST", CREATE, ENVELOPE).status != 201:
        assert time.monotonic() < end, "what has gone does not count for ever"


def test_requests_in_a_minute(world):
    world.hop()
    world.start("serve", edit_router=rest_section(requests_per_minute=5))
    with Rest(world.router_url) as rest:
        seen = [rest.call("GET", "/nothing") for _ in range(8)]
        assert [answer.status for answer in seen[:6]] == [404] * 5 + [429]
        assert 1 <= int(seen[5].headers["retry-after"]) <= 12
        assert rest.call("GET", "/healthz").status == 200
    with Rest(world.router_url) as rest:
        assert rest.call("GET", "/nothing").status == 429, "another connection, the same client"


def test_a_normal_message_still_passes(small, rest):
    mark = token()
    rest.submit(mark)
    small.next_hop.wait_for(mark)
