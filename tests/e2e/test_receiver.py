# SPDX-License-Identifier: Apache-2.0
"""koukan receiver: an application as routers expect one, strict where the existing example is."""
import json
import os
import re

import pytest

from mail import ALICE, APP, Rest, message, token
from peer import check_growth, check_read

PATH = "/senders/router/transactions"
ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": APP}], "sender": {"name": "router"},
            "smtp_meta": {"ehlo_host": "x"}, "filter_output": {"a.B": {"x": 1}}}
SPEC = {"parts": {"headers": [["subject", "x"]], "content_type": "multipart/mixed", "parts": [
            {"content_type": "text/plain", "content": {"inline": "hi"}},
            {"content_type": "image/png", "content": {"create_id": "0"}}]},
        "text_body": [{"content_type": "text/plain", "content": {"inline": "hi"}}],
        "file_attachments": [{"content_type": "image/png", "filename": "a.png",
                              "content": {"create_id": "0"}}]}


@pytest.fixture
def receiver(world):
    it = world.receiver()
    it.folder = os.path.join(world.folder, "received")
    with Rest(f"http://127.0.0.1:{world.values['receiver_port']}") as it.rest:
        yield it


def create(rest):
    answer = rest.call("POST", PATH, ENVELOPE)
    assert answer.status == 201
    return answer


def test_a_message_with_parts(receiver):
    rest, data = receiver.rest, message(token())
    created = create(rest)
    location, tx = created.headers["location"], created.json
    assert created.etag == "1" and created.headers["content-type"] == "application/json"
    assert tx == {
        "mail_from": {}, "mail_response": {"code": 250, "message": "ok"}, "rcpt_to": [{}],
        "rcpt_response": [{"code": 250, "message": "ok"}], "sender": {}, "filter_output": {},
        "body": {"blob_status": {"uri": location + "/body", "finalized": False},
                 "message_builder": {"uri": location + "/message_builder"}}}
    seen = [tx]

    def take(answer):
        assert answer.status == 200 and answer.etag, answer.body
        check_read(answer.json)
        check_growth(seen[-1], answer.json)
        seen.append(answer.json)
    take(rest.call("PATCH", location, b"", if_match="1"))
    take(rest.call("PATCH", location, {"filter_output": {"c.D": 2}}, if_match="2"))
    take(rest.call("POST", location + "/message_builder", SPEC, if_match="3"))
    status = seen[-1]["body"]["message_builder"]["blob_status"]
    assert status == {"0": {"uri": location + "/blob/0", "finalized": False}}
    assert rest.call("PUT", status["0"]["uri"], b"\x89PNG").json == {}
    assert "data_response" not in rest.get(location).json
    assert rest.call("PUT", location + "/body", data).status == 200
    take(rest.get(location))
    assert seen[-1]["data_response"] == {"code": 250, "message": "ok"}
    assert seen[-1]["body"]["blob_status"]["finalized"] is True
    name = location.rsplit("/", 1)[1]
    files = {each[len(name) + 1:]: os.path.join(receiver.folder, each)
             for each in os.listdir(receiver.folder) if each.startswith(name)}
    assert {"msg", "0", "msg.json", "tx.json", "inline0"} <= set(files)
    assert open(files["msg"], "rb").read() == data
    assert open(files["0"], "rb").read() == b"\x89PNG"
    saved = json.load(open(files["tx.json"], encoding="utf-8"))
    assert saved["mail_from"] == {"m": ALICE} and saved["body_path"] == files["msg"]
    assert saved["message_builder_json_path"] == files["msg.json"]
    assert saved["filter_output"] == {"a.B": {"x": 1}, "c.D": 2}


def test_refusals(receiver):
    rest = receiver.rest

    def said(answer):
        return answer.status, answer.body.decode()
    assert said(rest.call("POST", PATH, b"{}", content_type="text/plain")) == (
        415, "bad content-type")
    for bad in (b"{", b"[]", b""):
        assert said(rest.call("POST", PATH, bad, content_type="application/json")) == (
            400, "bad json")
    location = create(rest).headers["location"]
    for bad in ({"rcpt_to": [{"m": APP}]}, {"filter_output": {}, "mail_from": {"m": ALICE}}):
        assert said(rest.call("PATCH", location, bad)) == (400,
                                                           "only accept update filter_output")
    reuse = {"text_body": [{"content_type": "a/b", "content": {"reuse_uri": "/x"}}]}
    assert said(rest.call("POST", location + "/message_builder", reuse)) == (
        400, "bad blob in message builder json")
    location = create(rest).headers["location"]
    assert said(rest.call("PUT", location + "/blob/0", b"x")) == (404, "blob not found")
    assert rest.call("POST", location + "/message_builder", SPEC).status == 200
    assert said(rest.call("PUT", location + "/body", b"x", content_range="bytes 0-0/*")) == (
        400, "receiver does not accept chunked PUT")
    for where, what in (("/blob/0", "blob"), ("/body", "body")):
        assert rest.call("PUT", location + where, b"x").status == 200
        assert said(rest.call("PUT", location + where, b"x")) == (400, f"{what} already exists")
    other = create(rest).headers["location"]
    assert said(rest.call("POST", other + "/cancel", b"")) == (200, "")
    assert said(rest.call("PUT", other + "/body", b"x")) == (400, "transaction cancelled")
    for method in ("GET", "PATCH"):
        assert rest.call(method, "/transactions/unknown", b"" if method == "PATCH" else None
                         ).status == 404
    assert not [name for name in os.listdir(receiver.folder) if name.endswith(".upload")]


def test_the_page(receiver):
    """The newest first, at most a hundred, and nobody's text is markup."""
    rest = receiver.rest
    for number in range(101):
        answer = rest.call("POST", PATH, dict(ENVELOPE, mail_from={
            "m": f"<b>{number}&\"'@example.com"}))
        assert rest.call("PUT", answer.headers["location"] + "/body", b"x" * number).status == 200
    page = rest.call("GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == "default-src 'none'"
    text = page.body.decode()
    assert "<b>" not in text
    senders = [int(each) for each in re.findall(r"&lt;b&gt;(\d+)&amp;", text)]
    assert senders == list(range(100, 0, -1))
    assert text.count(f"<td>{APP}</td>") == 100 and "<td>57</td>" in text
