# SPDX-License-Identifier: Apache-2.0
"""The REST dialect to the letter: what existing clients, gateways and routers compare exactly."""
import json
import re

import pytest

from mail import ALICE, BOB, Rest, message, token

CREATE = "/senders/submission/transactions"
ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}
NO_TX = "/transactions/" + "A" * 24
KNOWN = {"remote_host", "local_host", "mail_from", "mail_response", "rcpt_to", "rcpt_response",
         "data_response", "attempt_count", "body", "notification", "retry", "cancelled",
         "final_attempt_reason", "sender", "filter_output"}


@pytest.fixture
def rest(shared):
    with Rest(shared.router_url) as it:
        yield it


@pytest.fixture
def gateway(shared):
    with Rest(f"http://127.0.0.1:{shared.values['gateway_port']}") as it:
        yield it


def check(answer):
    """What holds for each answer; the answer again."""
    kind = answer.headers.get("content-type")
    if kind == "application/json":
        tx = answer.json
        for key, value in tx.items():
            assert value is not None and value != [], key
        if answer.etag is not None:
            assert re.fullmatch(r"\d+", answer.etag)
            assert set(tx) <= KNOWN
            assert tx.get("mail_from", {}) == {} and tx.get("sender", {}) == {}
            assert all(rcpt == {} for rcpt in tx.get("rcpt_to", []))
            assert tx["body"]["blob_status"]["uri"].startswith("http://")
    elif answer.body:
        assert kind == "text/plain; charset=utf-8" and len(answer.body) < 200
        assert answer.status >= 400
    else:
        assert kind is None
    return answer


def text(answer):
    return answer.status, check(answer).body.decode()


# ---- the worked exchange of a gateway with a router ----

def compact(value):
    """Its one spelling: keys in their order, nothing between the tokens."""
    return json.dumps(value, separators=(",", ":")).encode()


KEYS = ("remote_host", "local_host", "mail_from", "mail_response", "rcpt_to", "rcpt_response",
        "data_response", "attempt_count", "body", "final_attempt_reason", "sender")


def reply_of(*members, **more):
    """The bytes of a transaction: what was there, and what has come."""
    values = dict(*members, **more)
    assert set(values) <= set(KEYS)
    return compact({key: values[key] for key in KEYS if key in values})


def test_worked_exchange(shared, rest):
    def get(etag):
        answer = check(rest.get(location, etag, wait=28))
        assert answer.status == 200 and int(answer.etag) > int(etag)
        assert answer.body == reply_of(answer.json)
        return answer

    def news(etag, key):
        """Reads until `key` is there: versions may be skipped, never repeated."""
        answer = get(etag)
        while key not in answer.json:
            answer = get(answer.etag)
        return answer
    created = check(rest.call("POST", "/senders/ingress/transactions", {
        "remote_host": ["198.51.100.7", 48920], "local_host": ["192.0.2.1", 25],
        "mail_from": {"m": "a@example.org", "e": [{"k": "SIZE", "p": "276"}]},
        "smtp_meta": {"ehlo_host": "mx.example.org", "esmtp": True, "tls": False, "auth": None},
        "sender": {"name": "ingress", "tag": "smtp-mx"}}, request_timeout="298"))
    assert created.status == 201 and created.etag == "1"
    location = created.headers["location"]
    assert re.fullmatch(re.escape(shared.router_url) + r"/transactions/[\w-]+", location)
    body = {"blob_status": {"uri": location + "/body"}}
    base = {"remote_host": ["198.51.100.7", 48920], "local_host": ["192.0.2.1", 25],
            "mail_from": {}, "body": body, "sender": {}}
    assert created.body == compact(base)
    answer = news("1", "mail_response")
    base.update(attempt_count=1, mail_response={"code": 250, "message": "MAIL ok (exploder noop)"})
    assert answer.body == reply_of(base)
    answer = check(rest.call("PATCH", location, {"rcpt_to": [{"m": "b@example.com"}]},
                             if_match=answer.etag))
    assert (answer.status, answer.body) == (200, reply_of(base, rcpt_to=[{}]))
    answer = news(answer.etag, "rcpt_response")
    ok = {"code": 250, "message": "recipient ok"}
    assert answer.body == reply_of(base, rcpt_to=[{}], rcpt_response=[ok])
    patched = check(rest.call("PATCH", location, {
        "rcpt_to_list_offset": 1, "rcpt_to": [{"m": "c@example.com"}]}, if_match=answer.etag))
    assert patched.status == 200
    assert patched.body == reply_of(base, rcpt_to=[{}, {}], rcpt_response=[ok])
    assert int(patched.etag) == int(answer.etag) + 1
    answer = patched
    while len(answer.json.get("rcpt_response", [])) < 2:
        answer = get(answer.etag)
    data = message(token())
    put = check(rest.call("PUT", location + "/body", data))
    size = len(data)
    assert (put.status, put.body) == (200, b"{}")
    assert put.headers["content-range"] == f"bytes 0-{size - 1}/{size}"
    answer = news(answer.etag, "data_response")
    while "final_attempt_reason" not in answer.json:
        answer = get(answer.etag)
    text = "2.0.0 taken by the hop (Exploder same response)"
    assert answer.body == reply_of(
        base, rcpt_to=[{}, {}], rcpt_response=[ok, ok], data_response={"code": 250, "message": text},
        body={"blob_status": {"finalized": True, "uri": location + "/body"}},
        final_attempt_reason="upstream response success")


def test_first_etags(rest, gateway):
    """1 at the router, whatever was created; so the first change is 2."""
    for tx in (ENVELOPE, dict(ENVELOPE, body={"inline": message(token()).decode()})):
        answer = rest.call("POST", CREATE, tx)
        assert (answer.status, answer.etag) == (201, "1")
    assert rest.call("POST", "/senders/oneshot/transactions", ENVELOPE).etag == "1"


def test_201_of_a_submission(shared, rest):
    answer = check(rest.call("POST", CREATE, ENVELOPE))
    location = answer.headers["location"]
    assert answer.body == json.dumps(
        {"mail_from": {}, "rcpt_to": [{}],
         "body": {"blob_status": {"uri": location + "/body"}}, "retry": {}, "sender": {}},
        separators=(",", ":")).encode()
    assert answer.headers["content-type"] == "application/json"
    rest.call("POST", location + "/cancel")


# ---- refusals: what the original answers with 500 is the 4xx that it is ----

@pytest.mark.parametrize("body,status,want", [
    (b"{", 400, None), (b"[]", 400, "no JSON object"), (b"", 400, None),
    (b'{"nonsense": 1}', 400, "invalid tx json"),
    (b'{"mail_from": null}', 400, "invalid tx json"),
    (b'{"rcpt_to": []}', 400, "invalid tx json"),
    (b'{"mail_from": {"x": 1}}', 400, "invalid tx json"),
    (b'{"rcpt_to": [{"m": "a@b.c"}, {}]}', 400, "invalid tx json"),
    (b'{"retry": {}}', 400, "invalid tx json"), (b'{"notification": {}}', 400, "invalid tx json"),
    (b'{"cancelled": true}', 400, "invalid tx json"),
    (b'{"data_response": {"code": 250}}', 400, "invalid tx json"),
    (b'{"sender": {"name": "x", "other": 1}}', 400,
     "tx json sender may only contain name,tag"),
    (b"{}", 400, "transaction creation to non-incremental endpoint must contain mail_from and "
                 "exactly 1 rcpt_to"),
    (json.dumps(dict(ENVELOPE, rcpt_to=[{"m": BOB}] * 2)).encode(), 400,
     "transaction creation to non-incremental endpoint must contain mail_from and exactly 1 "
     "rcpt_to"),
    (json.dumps(dict(ENVELOPE, sender={"tag": "unknown"})).encode(), 404,
     "unknown sender or tag"),
    (json.dumps(dict(ENVELOPE, body={"reuse_uri": NO_TX + "/body"})).encode(), 404, None),
    (json.dumps(dict(ENVELOPE, body={"reuse_uri": NO_TX + "/blob/x"})).encode(), 400, None),
    (json.dumps(dict(ENVELOPE, body={"message_builder": {"text_body": 1}})).encode(), 400, None),
    (json.dumps(dict(ENVELOPE, body={"message_builder": {"text_body": [{}]}})).encode(), 400, None),
])
def test_refused_creations(rest, body, status, want):
    got, said = text(rest.call("POST", CREATE, body, content_type="application/json"))
    assert got == status and said
    if want is not None:
        assert said == want


def test_an_incremental_chain_takes_nothing_at_all(rest):
    answer = check(rest.call("POST", "/senders/ingress/transactions", {"sender": {
        "tag": "smtp-mx"}}))
    assert answer.status == 201 and set(answer.json) == {"body", "sender"}
    rest.call("POST", answer.headers["location"] + "/cancel")


@pytest.mark.parametrize("method,path,headers,status,said", [
    ("GET", NO_TX, {}, 404, "unknown tx"),
    ("GET", NO_TX, {"if_none_match": "1", "request_timeout": "x"}, 404, "unknown tx"),
    ("PATCH", NO_TX, {}, 400, "etags required for update"),
    ("PATCH", NO_TX, {"if_match": "1"}, 404, "transaction not found"),
    ("PUT", NO_TX + "/body", {}, 404, "unknown transaction"),
    ("PUT", NO_TX + "/blob/x", {}, 404, "unknown transaction"),
    ("POST", NO_TX + "/cancel", {}, 200, ""),
    ("POST", NO_TX + "/message_builder", {}, 404, '{"detail":"Not Found"}'),
    ("POST", "/transactions", {}, 404, '{"detail":"Not Found"}'),
    ("GET", CREATE, {}, 405, '{"detail":"Method Not Allowed"}'),
    ("DELETE", NO_TX, {}, 405, '{"detail":"Method Not Allowed"}'),
])
def test_unknown_transactions_and_routes(rest, method, path, headers, status, said):
    answer = rest.call(method, path, b"" if method in ("PUT", "POST", "PATCH") else None,
                       **headers)
    assert (answer.status, answer.body.decode()) == (status, said)
    if status == 405:
        assert answer.headers["allow"]


def test_updates(shared, rest):
    created = rest.call("POST", "/senders/ingress/transactions", {
        "mail_from": {"m": ALICE}, "sender": {"tag": "smtp-mx"}, "remote_host": ["127.0.0.1", 1],
        "smtp_meta": {"ehlo_host": "x"}})
    location = created.headers["location"]
    settled = rest.wait(location, lambda tx: "mail_response" in tx)

    def patch(body, etag=settled.etag, **headers):
        if etag is not None:
            headers["if_match"] = etag
        return text(rest.call("PATCH", location, body, **headers))
    assert patch({"rcpt_to": [{"m": BOB}]}, None) == (400, "etags required for update")
    assert patch({"rcpt_to": [{"m": BOB}]}, "9999") == (412, "update conflict")
    assert "etag" not in rest.call("PATCH", location, {"rcpt_to": [{"m": BOB}]},
                                   if_match="9999").headers
    for body in ({"x": 1}, {"rcpt_to": []}, {"remote_host": ["127.0.0.1", 1]}, {"sender": {}},
                 {"smtp_meta": {}}, {"cancelled": True}, {"retry": {}}, {"notification": {}},
                 {"mail_response": {"code": 250}}, {"rcpt_to": None}, {"rcpt_to": [{}]}):
        assert patch(body) == (400, "invalid request"), body
    assert patch(b"{", content_type="application/json") == (400, "invalid request")
    assert patch(b"x", content_type="text/plain") == (400, "")
    status, said = patch({"rcpt_to_list_offset": 3, "rcpt_to": [{"m": BOB}]})
    assert status == 400 and said
    # What is there already may be said again, and changes nothing.
    again = rest.call("PATCH", location, {"mail_from": {"m": "other@example.com"}},
                      if_match=f'"{settled.etag}"')
    assert again.status == 200 and again.json["mail_from"] == {}
    # Keys that end in _list_offset are let pass.
    more = rest.call("PATCH", location, {"x_list_offset": 0, "rcpt_to": [{"m": BOB}]},
                     if_match=rest.get(location).etag)
    assert more.status == 200 and more.json["rcpt_to"] == [{}]
    beat = rest.call("PATCH", location, b"", if_match=rest.wait(
        location, lambda tx: "rcpt_response" in tx).etag)
    assert beat.status == 200 and check(beat)
    rest.call("POST", location + "/cancel")


def test_updates_of_a_one_shot_chain(rest):
    location = rest.create(**ENVELOPE).headers["location"]
    settled = rest.wait(location, lambda tx: "rcpt_response" in tx)
    assert text(rest.call("PATCH", location, {"rcpt_to": [{"m": BOB}]},
                          if_match=settled.etag)) == (
        400, "endpoint does not accept incremental updates")
    beat = rest.call("PATCH", location, b"", if_match=rest.get(location).etag)
    assert beat.status == 200, "but a heartbeat"
    rest.call("POST", location + "/cancel")


@pytest.mark.parametrize("data,headers,status,said,held", [
    (b"12345", {"content_range": "bytes 5-9/*"}, 416, "invalid range", "bytes */*"),
    (b"12345", {"content_range": "bytes 0-4"}, 400, "bad range", None),
    (b"12345", {"content_range": "lines 0-4/5"}, 400, "bad range", None),
    (b"", {"content_range": "bytes */5"}, 400, "bad range", None),
    (b"12345", {"content_range": "bytes 0-5/6"}, 400, "range does not match content-length",
     None),
    (b"", {"x_finalize_blob_length": "x"}, 400, "invalid x-finalize-blob-length", None),
    (b"", {"x_finalize_blob_length": "-1"}, 400, "invalid x-finalize-blob-length", None),
    (b"", {"x_finalize_blob_length": "5"}, 416, "invalid range", "bytes */*"),
])
def test_refused_uploads(rest, data, headers, status, said, held):
    location = rest.create(**ENVELOPE).headers["location"]
    answer = check(rest.call("PUT", location + "/body", data, **headers))
    assert (answer.status, answer.body.decode()) == (status, said)
    assert answer.headers.get("content-range") == held
    assert text(rest.call("PUT", location + "/blob/x", b"1")) == (404, "unknown blob")
    rest.call("POST", location + "/cancel")


def test_uploads_that_disagree(shared, rest):
    location = rest.create(**ENVELOPE).headers["location"]

    def put(data, **headers):
        answer = check(rest.call("PUT", location + "/body", data, **headers))
        return answer.status, answer.headers.get("content-range")
    data = message(token())
    size = len(data)
    assert put(data[:10], content_range=f"bytes 0-9/{size}") == (200, f"bytes 0-9/{size}")
    assert put(data[10:20], content_range=f"bytes 10-19/{size + 1}") == (416, f"bytes 0-9/{size}")
    assert put(data[11:20], content_range=f"bytes 11-19/{size}") == (416, f"bytes 0-9/{size}")
    assert put(data[5:20], content_range=f"bytes 5-19/{size}") == (200, f"bytes 0-19/{size}")
    assert put(b"", x_finalize_blob_length=20) == (416, f"bytes 0-19/{size}")
    assert put(data) == (200, f"bytes 0-{size - 1}/{size}"), "the whole of it, from the start"
    assert put(data) == (200, f"bytes 0-{size - 1}/{size}"), "and once more"
    rest.final(location)


def test_a_builder_has_no_body_to_upload(rest):
    """The original answers 500."""
    answer = rest.call("POST", CREATE, dict(ENVELOPE, body={"message_builder": {
        "headers": [["subject", "x"]], "text_body": [
            {"content_type": "text/plain", "content": {"create_id": "b"}}]}}))
    assert answer.status == 201, answer.body
    location = answer.headers["location"]
    assert answer.json["body"] == {"message_builder": {"blob_status": {
        "b": {"uri": location + "/blob/b"}}}}
    assert text(rest.call("PUT", location + "/body", b"x")) == (404, "unknown blob")
    rest.call("POST", location + "/cancel")


def test_an_empty_body(rest):
    """A message of no bytes, in one request: 500 in the original."""
    location = rest.create(**ENVELOPE).headers["location"]
    answer = rest.call("PUT", location + "/body", b"")
    assert (answer.status, answer.headers["content-range"]) == (200, "bytes */0")
    rest.call("POST", location + "/cancel")


def test_304(rest):
    location = rest.submit(token()).headers["location"]
    rest.final(location)
    etag = rest.get(location).etag
    for spelling in (etag, f'"{etag}"'):
        answer = rest.get(location, spelling, wait=0)
        assert (answer.status, answer.body, answer.etag) == (304, b"", spelling)
        assert "content-type" not in answer.headers
    for timeout in ("-5", "0"):
        assert rest.call("GET", location, if_none_match=etag,
                         request_timeout=timeout).status == 304


def test_the_gateways_side(shared, gateway):
    """Any sender, the tag decides; bodies by PUT alone; what is unknown is 404."""
    tx = {"mail_from": {"m": ALICE}, "remote_host": ["127.0.0.1", shared.values["sink_port"]],
          "sender": {"name": "x", "tag": "outbound"}}
    assert gateway.call("POST", "/senders/x/transactions",
                        dict(tx, sender={"tag": "unknown"})).status == 404
    assert gateway.call("POST", "/senders/x/transactions",
                        dict(tx, body={"inline": "x"})).status == 400
    answer = check(gateway.call("POST", "/senders/any/transactions", tx))
    assert answer.status == 201
    location = answer.headers["location"]
    answer = gateway.wait(location, lambda tx: "mail_response" in tx)
    answer = gateway.call("PATCH", location, {"rcpt_to": [{"m": BOB}]}, if_match=answer.etag)
    assert answer.status == 200
    answer = gateway.wait(location, lambda tx: "rcpt_response" in tx)
    assert text(gateway.call("PUT", location + "/blob/x", b"1")) == (404, "unknown blob")
    mark = token()
    assert gateway.call("PUT", location + "/body", message(mark)).status == 200
    answer = gateway.wait(location, lambda tx: "data_response" in tx)
    assert check(answer).json["data_response"]["code"] == 250
    assert gateway.call("GET", NO_TX).status == 404
    assert text(gateway.call("PATCH", NO_TX, b"", if_match="1")) == (404, "transaction not found")
    assert text(gateway.call("POST", NO_TX + "/cancel", b"")) == (404, "transaction not found")
    shared.next_hop.wait_for(mark)


def test_cancel(rest):
    created = rest.create(**ENVELOPE)
    location = created.headers["location"]
    answer = rest.call("POST", location + "/cancel", b"")
    assert (answer.status, answer.body) == (200, b"")
    tx = rest.final(location)
    assert tx["cancelled"] is True and tx["final_attempt_reason"] == "downstream cancelled"
    done = rest.submit(token()).headers["location"]
    before = rest.final(done)
    assert rest.call("POST", done + "/cancel", b"").status == 200
    assert rest.get(done).json == before, "what has ended stays as it is"
