# SPDX-License-Identifier: Apache-2.0
"""The REST API on the wire."""
import http.client
import json
import re
import socket
import threading
import time
import urllib.parse

import pytest

from mail import ALICE, BOB, Rest, message, token

ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}


@pytest.fixture
def rest(shared):
    with Rest(shared.router_url) as it:
        yield it


def upload(rest, uri, data, **headers):
    return rest.call("PUT", uri, data, **headers)


# ---- create ----

def test_create(shared, rest):
    answer = rest.create(**ENVELOPE)
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(re.escape(shared.router_url) + r"/transactions/[\w-]{20,}",
                        answer.headers["location"])
    assert re.fullmatch(r"\d+", answer.etag)
    tx = answer.json
    assert tx["mail_from"] == {} and tx["rcpt_to"] == [{}] and tx["sender"] == {}
    assert tx["retry"] == {}
    uri = tx["body"]["blob_status"]["uri"]
    assert uri == answer.headers["location"] + "/body"
    assert "finalized" not in tx["body"]["blob_status"]
    known = {"mail_from", "rcpt_to", "sender", "retry", "notification", "body", "attempt_count"}
    assert set(tx) <= known, "clients reject keys that they do not know"
    rest.call("POST", answer.headers["location"] + "/cancel")


def test_ids_do_not_repeat(rest):
    locations = [rest.create(**ENVELOPE).headers["location"] for _ in range(20)]
    assert len(set(locations)) == 20
    for location in locations:
        rest.call("POST", location + "/cancel")


@pytest.mark.parametrize("body,text", [
    (b"{", None), (b"", None), (b"[]", None), (b"nothing", None), (b'"x"', None),
    (b'{"mail_from": {"m": "a@b.c"}}', "non-incremental"),
    (b'{"mail_from": {"m": "a@b.c"}, "rcpt_to": []}', None),
    (b'{"mail_from": {"m": "a@b.c"}, "rcpt_to": [{"m": "x@y.z"}, {"m": "q@y.z"}]}',
     "non-incremental"),
    (b'{"mail_from": {"m": "a@b.c"}, "rcpt_to": [{"m": "x@y.z"}], "retry": {}}', None),
    (b'{"mail_from": {"m": "a@b.c"}, "rcpt_to": [{"m": "x@y.z"}], "nonsense": 1}', None),
    (b'{"mail_from": null, "rcpt_to": [{"m": "x@y.z"}]}', None),
    (b'{"mail_from": {"m": "a@b.c"}, "rcpt_to": [{"m": "x@y.z"}], "sender": {"retry": {}}}',
     "sender"),
    (b'{"mail_from": {"n": "a@b.c"}, "rcpt_to": [{"m": "x@y.z"}]}', None),
    (b'{"mail_from": {"m": "a@b.c"}, "mail_from": {"m": "a@b.c"}, "rcpt_to": [{"m": "x@y.z"}]}',
     None),
    (b'{"mail_from": {"m": "a@b.c\\ud800"}, "rcpt_to": [{"m": "x@y.z"}]}', None),
    (b"[" * 100000 + b"]" * 100000, None),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, None),
    (b'{"mail_from": {"m": "\xff\xfe"}, "rcpt_to": [{"m": "x@y.z"}]}', None),
])
def test_create_refuses(rest, body, text):
    answer = rest.call("POST", "/senders/submission/transactions", body,
                       content_type="application/json")
    assert answer.status == 400, (answer.status, answer.body)
    assert not answer.headers.get("content-type", "text/plain").startswith("application/json")
    if text:
        assert text in answer.body.decode()
    assert rest.submit(token()).status == 201, "and the connection or the next one goes on"


@pytest.mark.parametrize("path", ["/senders/nobody/transactions"])
def test_unknown_sender(rest, path):
    assert rest.call("POST", path, ENVELOPE).status in (400, 403, 404, 500)


def test_unknown_tag(rest):
    answer = rest.call("POST", "/senders/submission/transactions",
                       dict(ENVELOPE, sender={"tag": "nobody"}))
    assert answer.status in (400, 403, 404, 500)


@pytest.mark.parametrize("method,path,status", [
    ("GET", "/", 404), ("GET", "/nothing", 404), ("GET", "/transactions", 404),
    ("GET", "/transactions/unknown", 404), ("PUT", "/transactions/unknown/body", 404),
    ("DELETE", "/transactions/unknown", 405), ("GET", "/senders/submission/transactions", 405),
    ("GET", "/transactions/..%2f..%2fetc", 404), ("GET", "/transactions/%00", 400),
    ("POST", "/transactions/unknown/message_builder", 404)])
def test_routes(rest, method, path, status):
    answer = rest.call(method, path, b"" if method in ("PUT", "POST") else None)
    assert answer.status == status, answer.body
    if status == 405:
        assert "allow" in answer.headers


# ---- read, long poll ----

def test_read_and_304(shared, rest):
    mark = token()
    location = rest.submit(mark).headers["location"]
    rest.final(location)
    answer = rest.get(location)
    assert answer.status == 200
    again = rest.get(location, answer.etag, wait=1)
    assert (again.status, again.etag, again.body) == (304, answer.etag, b"")
    quoted = rest.get(location, f'"{answer.etag}"', wait=0)
    assert (quoted.status, quoted.etag.strip('"')) == (304, answer.etag)
    other = rest.get(location, "999999")
    assert (other.status, other.etag) == (200, answer.etag)
    tx = answer.json
    assert tx["attempt_count"] == 1
    assert tx["mail_response"]["code"] == 250 and tx["rcpt_response"][0]["code"] == 250
    assert tx["data_response"] == {"code": 250, "message": "2.0.0 taken by the hop"}
    assert tx["body"]["blob_status"]["finalized"] is True
    assert len(shared.next_hop.with_text(mark)) == 1


def test_bad_request_timeout(rest):
    location = rest.create(**ENVELOPE).headers["location"]
    etag = rest.get(location).etag
    answer = rest.call("GET", location, if_none_match=etag, request_timeout="soon")
    assert answer.status == 400
    rest.call("POST", location + "/cancel")


@pytest.mark.threads
def test_long_poll_wakes(shared, rest):
    created = rest.create(**ENVELOPE)
    location = created.headers["location"]
    settled = rest.wait(location, lambda tx: "rcpt_response" in tx)
    woken = {}

    def poll():
        with Rest(shared.router_url) as other:
            start = time.monotonic()
            answer = other.get(location, settled.etag, wait=20)
            woken.update(status=answer.status, seconds=time.monotonic() - start, tx=answer.json)
    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.3)  # so that the poll hangs; when it does not yet, the test is merely weaker
    assert thread.is_alive()
    mark = token()
    assert upload(rest, created.json["body"]["blob_status"]["uri"], message(mark)).status == 200
    thread.join(timeout=30)
    assert woken["status"] == 200 and woken["seconds"] < 15
    tx = rest.final(location)
    assert tx["data_response"]["code"] == 250


def test_long_poll_times_out_with_304(rest):
    location = rest.create(**ENVELOPE).headers["location"]
    settled = rest.wait(location, lambda tx: "rcpt_response" in tx)
    start = time.monotonic()
    answer = rest.get(location, settled.etag, wait=1)
    if answer.status == 200:  # a refresh may have fallen in between
        answer = rest.get(location, answer.etag, wait=1)
    assert answer.status == 304 and time.monotonic() - start < 10
    rest.call("POST", location + "/cancel")


def test_clients_gone_from_long_polls_are_forgotten(shared, rest):
    location = rest.create(**ENVELOPE).headers["location"]
    settled = rest.wait(location, lambda tx: "rcpt_response" in tx)
    parts = urllib.parse.urlsplit(shared.router_url)
    path = urllib.parse.urlsplit(location).path
    for _ in range(50):
        with socket.create_connection((parts.hostname, parts.port)) as poll:
            poll.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nIf-None-Match: {settled.etag}\r\n"
                         "Request-Timeout: 20\r\n\r\n".encode())
    assert rest.get(location).status == 200
    assert rest.call("POST", location + "/cancel").status == 200


# ---- update ----

def test_patch_on_an_incremental_chain(shared, rest):
    created = rest.create(mail_from={"m": ALICE}, sender={"tag": "smtp-msa"},
                          smtp_meta={"ehlo_host": "localhost", "esmtp": True, "tls": False},
                          remote_host=["127.0.0.1", 4711])
    location = created.headers["location"]
    answer = rest.wait(location, lambda tx: "mail_response" in tx)
    patched = patch(rest, location, answer.etag, {"rcpt_to": [{"m": "c@elsewhere.example.net"}]})
    assert patched.status == 200 and patched.json["rcpt_to"] == [{}]
    answer = rest.wait(location, lambda tx: len(tx.get("rcpt_response", [])) == 1)
    patched = patch(rest, location, answer.etag, {
        "rcpt_to_list_offset": 1, "rcpt_to": [{"m": "d@elsewhere.example.net"}]})
    assert patched.status == 200 and patched.json["rcpt_to"] == [{}, {}]
    answer = rest.wait(location, lambda tx: len(tx.get("rcpt_response", [])) == 2)
    assert [each["code"] for each in answer.json["rcpt_response"]] == [250, 250]
    mark = token()
    assert upload(rest, answer.json["body"]["blob_status"]["uri"], message(mark)).status == 200
    answer = rest.wait(location, lambda tx: "data_response" in tx)
    assert answer.json["data_response"]["code"] == 250
    shared.next_hop.wait_for(mark)


def patch(rest, location, etag, body):
    return rest.call("PATCH", location, body, if_match=etag)


def test_patch_with_an_old_etag_is_412(rest):
    created = rest.create(mail_from={"m": ALICE}, sender={"tag": "smtp-msa"},
                          smtp_meta={"ehlo_host": "localhost"}, remote_host=["127.0.0.1", 4711])
    location = created.headers["location"]
    answer = rest.wait(location, lambda tx: "mail_response" in tx)
    assert patch(rest, location, "999999", {"rcpt_to": [{"m": BOB}]}).status == 412
    assert rest.call("PATCH", location, {"rcpt_to": [{"m": BOB}]}).status == 400
    bad = patch(rest, location, answer.etag, {"rcpt_to_list_offset": 5, "rcpt_to": [{"m": BOB}]})
    assert bad.status in (400, 412)
    for body in ({"remote_host": ["127.0.0.1", 1]}, {"cancelled": True}, {"nonsense": 1},
                 {"rcpt_to": []}, {"rcpt_to": [{}]}):
        assert patch(rest, location, answer.etag, body).status == 400, body
    fresh = rest.get(location)
    beat = rest.call("PATCH", location, b"", if_match=fresh.etag)
    assert beat.status == 200 and beat.etag != fresh.etag, "a heartbeat bumps the version"
    assert rest.call("POST", location + "/cancel").status == 200


def test_patch_on_a_one_shot_chain(rest):
    created = rest.create(**ENVELOPE)
    location = created.headers["location"]
    etag = rest.get(location).etag
    assert patch(rest, location, etag, {"rcpt_to": [{"m": BOB}]}).status in (400, 412)
    rest.call("POST", location + "/cancel")


# ---- uploads ----

def body_uri(rest):
    created = rest.create(**ENVELOPE)
    return created.headers["location"], created.json["body"]["blob_status"]["uri"]


def test_upload_in_ranges(shared, rest):
    mark = token()
    data = message(mark, "r" * 78 + "\r\n" * 100)
    location, uri = body_uri(rest)
    cuts = [0, 10, 100, len(data)]
    for first, end in zip(cuts, cuts[1:]):
        total = len(data) if end == len(data) else "*"
        answer = upload(rest, uri, data[first:end], content_range=f"bytes {first}-{end - 1}/{total}")
        assert answer.status == 200, answer.body
        assert answer.headers["content-range"] == f"bytes 0-{end - 1}/{total}"
        assert answer.headers["content-type"] == "application/json" and answer.json == {}
    assert rest.final(location)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


def test_upload_with_a_gap_is_416_and_goes_on(shared, rest):
    mark = token()
    data = message(mark)
    location, uri = body_uri(rest)
    assert upload(rest, uri, data[:50], content_range="bytes 0-49/*").status == 200
    gap = upload(rest, uri, data[60:], content_range=f"bytes 60-{len(data) - 1}/{len(data)}")
    assert (gap.status, gap.headers["content-range"]) == (416, "bytes 0-49/*")
    overlap = upload(rest, uri, data[20:], content_range=f"bytes 20-{len(data) - 1}/{len(data)}")
    assert overlap.status == 200
    assert overlap.headers["content-range"] == f"bytes 0-{len(data) - 1}/{len(data)}"
    assert rest.final(location)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


def test_finalize_afterwards(shared, rest):
    mark = token()
    data = message(mark)
    location, uri = body_uri(rest)
    assert upload(rest, uri, data, content_range=f"bytes 0-{len(data) - 1}/*").status == 200
    wrong = upload(rest, uri, b"", x_finalize_blob_length=len(data) + 1)
    assert wrong.status == 416, (wrong.status, wrong.body)
    assert upload(rest, uri, b"", x_finalize_blob_length="many").status == 400
    assert upload(rest, uri, b"x", x_finalize_blob_length=len(data)).status == 400
    done = upload(rest, uri, b"", x_finalize_blob_length=len(data))
    assert done.status == 200, (done.status, done.body)
    assert rest.final(location)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


@pytest.mark.parametrize("value", [
    "bytes", "bytes 5", "bytes 5-1/9", "bytes 0-9/5", "lines 0-9/10", "bytes */10", "bytes a-b/c",
    "bytes 0-9/-1", "bytes 0-99999999999999999999/*"])
def test_bad_ranges(rest, value):
    location, uri = body_uri(rest)
    answer = upload(rest, uri, b"0123456789", content_range=value)
    assert answer.status in (400, 416), (answer.status, answer.body)
    rest.call("POST", location + "/cancel")


def test_upload_chunked(shared, rest):
    mark = token()
    data = message(mark)
    location, uri = body_uri(rest)
    rest.http.request("PUT", urllib.parse.urlsplit(uri).path, encode_chunked=True,
                      body=iter([data[:33], data[33:]]), headers={"transfer-encoding": "chunked"})
    response = rest.http.getresponse()
    assert (response.status, response.read()) == (200, b"{}")
    assert rest.final(location)["data_response"]["code"] == 250
    shared.next_hop.wait_for(mark)


def test_upload_cut_short_does_not_finish(shared, rest):
    """A PUT whose connection ends early leaves the body open; it can be repeated."""
    mark = token()
    data = message(mark)
    location, uri = body_uri(rest)
    parts = urllib.parse.urlsplit(uri)
    with socket.create_connection((parts.hostname, parts.port)) as cut:
        cut.sendall(f"PUT {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
                    .encode() + data[:40])
    tx = rest.get(location).json
    assert "finalized" not in tx["body"]["blob_status"] and "data_response" not in tx
    answer = upload(rest, uri, data)
    assert answer.status == 200, (answer.status, answer.body)
    assert rest.final(location)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)
    assert not shared.next_hop.cut


def test_large_upload(shared, rest):
    mark = token()
    data = message(mark, ("L" * 76 + "\r\n") * 130000)
    location, uri = body_uri(rest)
    assert upload(rest, uri, data).status == 200
    assert rest.final(location, 60)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


def test_message_builder_and_reuse(shared, rest):
    mark = token()
    builder = {
        "headers": [["from", [{"display_name": "Alice", "address": ALICE}]],
                    ["to", [{"address": BOB}]], ["subject", f"built {mark}"],
                    ["date", {"unix_secs": 1234567890, "tz_offset": 0}],
                    ["message-id", [f"{mark}@example.com"]]],
        "text_body": [{"content_type": "text/plain", "content": {"inline": f"hi {mark}"}}],
        "file_attachments": [{"content_type": "application/pdf", "filename": "a.pdf",
                              "content": {"create_id": "pdf"}}]}
    created = rest.create(**ENVELOPE, body={"message_builder": builder})
    status = created.json["body"]["message_builder"]["blob_status"]
    assert set(status) == {"inline0", "pdf"} and status["inline0"]["finalized"] is True
    assert upload(rest, status["pdf"]["uri"], b"%PDF-1.4").status == 200
    tx = rest.final(created.headers["location"])
    assert tx["data_response"]["code"] == 250, tx
    got = shared.next_hop.wait_for(f"built {mark}")
    import email
    parsed = email.message_from_bytes(got.data)
    assert [part.get_content_type() for part in parsed.walk()] == [
        "multipart/mixed", "text/plain", "application/pdf"]
    assert parsed.get_payload()[0].get_payload(decode=True).strip() == f"hi {mark}".encode()
    assert parsed.get_payload()[1].get_payload(decode=True) == b"%PDF-1.4"
    # The same attachment again, by reference.
    builder["file_attachments"][0]["content"] = {"reuse_uri": status["pdf"]["uri"]}
    builder["headers"][4] = ["message-id", [f"{mark}.2@example.com"]]
    again = rest.create(**ENVELOPE, body={"message_builder": builder})
    assert rest.final(again.headers["location"])["data_response"]["code"] == 250


def test_builder_adds_what_is_missing(shared, rest):
    """Date and Message-ID, the same in each attempt; what is there stays; Bcc never leaves."""
    import email
    mark, seen = token(), []

    def later(got):
        seen.append(email.message_from_bytes(got.data))
        return "451 later" if len(seen) == 1 else None
    shared.next_hop.on_data = later
    try:
        builder = {"headers": [["from", [{"address": ALICE}]], ["subject", mark],
                               ["bcc", [{"address": "secret@example.com"}]],
                               ["Resent-Bcc", "secret@example.com"]],
                   "text_body": [{"content_type": "text/plain", "content": {"inline": "hi"}}]}
        created = rest.create(**ENVELOPE, body={"message_builder": builder})
        assert rest.final(created.headers["location"])["attempt_count"] == 2
    finally:
        shared.next_hop.on_data = None
    first, second = seen
    assert first["date"] and first["date"] == second["date"]
    assert re.fullmatch(r"<[\w-]{22}@example\.com>", first["message-id"])
    assert first["message-id"] == second["message-id"]
    assert "secret" not in first.as_string()
    mark = token()
    builder["headers"] = [["Date", "Fri, 13 Feb 2009 23:31:30 +0000"], ["subject", mark],
                          ["message-id", [f"{mark}@own.example"]]]
    rest.final(rest.create(**ENVELOPE, body={"message_builder": builder}).headers["location"])
    got = email.message_from_bytes(shared.next_hop.wait_for(mark).data)
    assert got.get_all("date") == ["Fri, 13 Feb 2009 23:31:30 +0000"]
    assert got.get_all("message-id") == [f"<{mark}@own.example>"]


def test_body_reuse(shared, rest):
    mark = token()
    first = rest.submit(mark).headers["location"]
    assert rest.final(first)["data_response"]["code"] == 250
    again = rest.create(**ENVELOPE, body={"reuse_uri": first + "/body"})
    assert rest.final(again.headers["location"])["data_response"]["code"] == 250
    assert len(shared.next_hop.with_text(mark)) == 2
    for uri in ("/transactions/unknown/body", "/transactions/x/blob/", "nonsense"):
        answer = rest.call("POST", "/senders/submission/transactions",
                           dict(ENVELOPE, body={"reuse_uri": uri}))
        assert answer.status in (400, 404), (uri, answer.status, answer.body)


@pytest.mark.parametrize("size", [0, 1, 65536, 131072])
def test_inline_bodies_of_every_length(shared, rest, size):
    """Lengths around 64 KiB too, where the original waits for ever."""
    mark = token()
    data = message(mark, "")
    data = data[:-len(f"end-{mark}\r\n")] if size == 0 else data
    if size > len(data):
        data = message(mark, "i" * (size - len(data) - 2) + "\r\n")
        assert len(data) == size
    created = rest.submit(mark, data=data)
    assert created.json["body"]["blob_status"]["finalized"] is True
    assert rest.final(created.headers["location"])["data_response"]["code"] == 250


# ---- cancel ----

def test_cancel(shared, rest):
    mark = token()
    created = rest.create(**ENVELOPE)
    location = created.headers["location"]
    answer = rest.call("POST", location + "/cancel")
    assert (answer.status, answer.body) == (200, b"")
    tx = rest.final(location)
    assert tx["final_attempt_reason"] == "downstream cancelled" and tx["cancelled"] is True
    upload(rest, created.json["body"]["blob_status"]["uri"], message(mark))
    assert rest.call("POST", location + "/cancel").status == 200, "twice does no harm"
    after = token()
    rest.final(rest.submit(after).headers["location"])
    assert not shared.next_hop.with_text(mark)


@pytest.mark.threads
def test_cancel_races_delivery(shared, rest):
    """The final state and the next hop agree: cancelled means not delivered."""
    ends = {}
    for number in range(24):
        mark = token()
        location = rest.submit(mark).headers["location"]
        time.sleep(number % 8 / 1000)
        rest.call("POST", location + "/cancel")
        ends[mark] = rest.final(location)
    after = token()
    rest.final(rest.submit(after).headers["location"])
    for mark, tx in ends.items():
        delivered = len(shared.next_hop.with_text(mark))
        if tx["final_attempt_reason"] == "upstream response success":
            assert delivered == 1
        else:
            assert tx["final_attempt_reason"] == "downstream cancelled"
            accepted = tx.get("data_response", {}).get("code") == 250
            assert delivered == (1 if accepted else 0), tx


# ---- HTTP itself ----

def raw(shared, data, timeout=10.0):
    parts = urllib.parse.urlsplit(shared.router_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=timeout) as client:
        client.sendall(data)
        got = b""
        try:
            while True:
                piece = client.recv(65536)
                if not piece:
                    return got
                got += piece
        except (socket.timeout, ConnectionResetError):
            return got


BODY = json.dumps(ENVELOPE).encode()
POST = b"POST /senders/submission/transactions HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("head", [
    b"Content-Length: %d\r\nContent-Length: 1\r\n\r\n" % len(BODY),
    b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(BODY),
    b"Transfer-Encoding: chunked, identity\r\n\r\n", b"Transfer-Encoding: xchunked\r\n\r\n",
    b"Content-Length: -1\r\n\r\n", b"Content-Length: 1x\r\n\r\n", b"Content-Length : 3\r\n\r\n",
    b" Folded: x\r\nContent-Length: 1\r\n\r\n"])
def test_framing_that_could_smuggle_is_refused(shared, head):
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    got = raw(shared, POST + head + BODY + hidden, timeout=3)
    assert re.match(rb"HTTP/1\.[01] (400|501)\b", got) or got == b"", got
    assert len(re.findall(rb"HTTP/1\.[01] \d\d\d ", got)) <= 1, "no second request came out of one"


def test_header_and_path_limits(shared, rest):
    got = raw(shared, b"GET /" + b"p" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", timeout=3)
    assert re.match(rb"HTTP/1\.[01] (4\d\d)\b", got) or got == b"", got[:200]
    got = raw(shared, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"h" * 300000 + b"\r\n\r\n", timeout=3)
    assert re.match(rb"HTTP/1\.[01] (4\d\d)\b", got) or got == b"", got[:200]
    assert rest.get("/transactions/unknown").status == 404


def test_keep_alive(shared):
    with Rest(shared.router_url) as rest:
        for _ in range(5):
            rest.get("/transactions/unknown")
            first = rest.http.sock
            assert first is not None, "the connection stays open"


def test_gateway_side(shared):
    """The gateway's own REST listener: SMTP by PUT only."""
    with Rest(f"http://127.0.0.1:{shared.values['gateway_port']}") as gateway:
        mark = token()
        created = gateway.create("router", mail_from={"m": ALICE}, rcpt_to=[{"m": BOB}],
                                 remote_host=["127.0.0.1", shared.values["sink_port"]],
                                 sender={"name": "router", "tag": "outbound"})
        location = created.headers["location"]
        gateway.wait(location, lambda tx: "rcpt_response" in tx)
        uri = created.json["body"]["blob_status"]["uri"]
        assert gateway.call("PUT", uri, message(mark)).status == 200
        answer = gateway.wait(location, lambda tx: "data_response" in tx)
        assert answer.json["data_response"]["code"] == 250
        got = shared.next_hop.wait_for(mark)
        assert got.data == message(mark), "nothing is added here"
        assert gateway.get("/transactions/unknown").status in (404, 500)
        no_host = gateway.create("router", mail_from={"m": ALICE},
                                 sender={"name": "router", "tag": "outbound"})
        answer = gateway.wait(no_host.headers["location"], lambda tx: "mail_response" in tx)
        assert "no remote_host" in answer.json["mail_response"]["message"]


@pytest.mark.threads
def test_parallel_submissions(shared):
    import concurrent.futures
    marks = [token() for _ in range(80)]

    def one(mark):
        with Rest(shared.router_url) as rest:
            return rest.final(rest.submit(mark).headers["location"], 60)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        done = list(pool.map(one, marks))
    assert all(tx["final_attempt_reason"] == "upstream response success" for tx in done)
    assert all(len(shared.next_hop.with_text(mark)) == 1 for mark in marks)


def test_http_1_0_and_head(shared):
    got = raw(shared, b"GET /transactions/unknown HTTP/1.0\r\n\r\n", timeout=3)
    assert re.match(rb"HTTP/1\.[01] 404 ", got)
    parts = urllib.parse.urlsplit(shared.router_url)
    client = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    client.request("HEAD", "/transactions/unknown")
    assert client.getresponse().status in (404, 405)
    client.close()
