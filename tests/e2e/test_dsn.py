# SPDX-License-Identifier: Apache-2.0
"""NOTIFY, RET, ENVID and ORCPT (RFC 3461) on their way: to a next hop that knows them, and into the
notifications that we send ourselves."""
import smtplib

import pytest

import queue_tool as tool
from devkit import procs
from mail import ALICE, Rest, message, token
from test_queue_bounce import bounces, parse, wait_bounce, with_notification

BOB = "bob@one.example"
WITH_DSN = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 50000000", "DSN")


def start(world, mode, **hop):
    hop = world.hop(**hop)
    world.start(mode, edit_router=with_notification, edit_gateway=lambda text: text.replace(
        "      tag: smtp-msa\n", "      tag: smtp-msa\n      dsn: true\n"))
    return hop


def send(world, mark, mail=(), rcpts=((BOB, ()),)):
    with smtplib.SMTP("127.0.0.1", world.submission, local_hostname="localhost",
                      timeout=30) as client:
        client.ehlo()
        assert client.has_extn("dsn")
        assert client.mail(ALICE, list(mail))[0] == 250
        for address, options in rcpts:
            code, text = client.rcpt(address, list(options))
            assert code == 250, text
        return client.data(message(mark))


def fields(got):
    """Per-message and per-recipient fields, and the third part."""
    _, status, original = parse(got).get_payload()
    per_message, per_rcpt = status.get_payload()
    return per_message, per_rcpt, original


def test_passed_on(world, mode):
    """The next hop has DSN: it gets everything and we say nothing."""
    hop = start(world, mode, extensions=WITH_DSN)
    mark = token()
    code, text = send(world, mark, ["RET=HDRS", "ENVID=QQ+2B1"],
                      [(BOB, ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;bob+40elsewhere"])])
    assert code == 250, text
    got = hop.wait_for(mark)
    assert " RET=HDRS" in got.mail_from and " ENVID=QQ+2B1" in got.mail_from
    assert got.rcpts[0].endswith(" NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob+40elsewhere")
    # a second message, for which a notice is owed, shows that the first had none
    assert send(world, token(), rcpts=[("nobody@one.example", ["NOTIFY=NEVER"])])[0] == 250
    assert not bounces(hop)


def test_relayed(world, mode):
    """The next hop does not have DSN: NOTIFY=SUCCESS is answered by us, and only that."""
    hop = start(world, mode)
    for notify in ("NOTIFY=NEVER", "NOTIFY=FAILURE", ""):
        mark = token()
        assert send(world, mark, rcpts=[(BOB, [notify] if notify else [])])[0] == 250
        assert "NOTIFY" not in hop.wait_for(mark).rcpts[0]
    mark = token()
    code, text = send(world, mark, ["RET=FULL", "ENVID=id+2D7"],
                      [(BOB, ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@x.example"])])
    assert code == 250, text
    hop.wait_for(mark)
    got = wait_bounce(hop)
    assert f"<{ALICE}>" in got.rcpts[0]
    per_message, per_rcpt, original = fields(got)
    assert per_message["original-envelope-id"] == "id-7"
    assert (per_rcpt["action"], per_rcpt["status"]) == ("relayed", "2.0.0")
    assert per_rcpt["original-recipient"] == "rfc822;first@x.example"
    assert per_rcpt["final-recipient"] == f"rfc822; {BOB}"
    assert original.get_content_type() == "text/rfc822-headers"
    assert mark in original.get_payload()
    assert len(bounces(hop)) == 1


def test_delivered_by_lmtp(world):
    """LMTP without DSN is the end of the way."""
    from test_smtp_client import SecureHop
    hop = SecureHop(world.values["sink_port"], lmtp=True)
    try:
        world.start(edit_gateway=lambda text: text.replace(
            "      tag: smtp-msa\n", "      tag: smtp-msa\n      dsn: true\n").replace(
                "      ehlo_host:", "      protocol: lmtp\n      ehlo_host:", 1))
        mark = token()
        assert send(world, mark, rcpts=[(BOB, ["NOTIFY=SUCCESS"])])[0] == 250
        hop.wait_for(mark)
        got = hop.wait_for("Action: delivered")
        assert "FROM:<>" in got.sender
    finally:
        hop.close()


REFUSED = "554 5.6.0 not this"


@pytest.mark.parametrize("ret, whole", [("RET=FULL", True), ("RET=HDRS", False)])
def test_failure_after_acceptance(world, mode, ret, whole):
    """One recipient has the message, the others fail: only those who want to know are told."""
    hop = start(world, mode, on_data=lambda got: None if "bob" in got.rcpts[0]
                or "<>" in got.mail_from else REFUSED)
    mark = token()
    code, text = send(world, mark, [ret, "ENVID=e1"], [
        (BOB, []), ("never@two.example", ["NOTIFY=NEVER"]),
        ("success@three.example", ["NOTIFY=SUCCESS"]),
        ("told@four.example", ["NOTIFY=FAILURE", "ORCPT=rfc822;told@old.example"])])
    assert code == 250, text
    got = wait_bounce(hop)
    per_message, per_rcpt, original = fields(got)
    assert per_message["original-envelope-id"] == "e1"
    assert per_rcpt["final-recipient"] == "rfc822; told@four.example"
    assert per_rcpt["original-recipient"] == "rfc822;told@old.example"
    assert (per_rcpt["action"], per_rcpt["status"]) == ("failed", "5.6.0")
    if whole:
        assert original.get_content_type() == "message/rfc822"
        inner = original.get_payload()[0]
        assert inner["subject"] == f"test {mark}" and f"end-{mark}" in inner.get_payload()
    else:
        assert original.get_content_type() == "text/rfc822-headers"
        assert f"end-{mark}" not in got.text
    with Rest(world.router_url):
        procs.wait_until(lambda: not tool.rows(world, "--state", "queued"), "an empty queue")
    assert len(bounces(hop)) == 1


def test_through_rest_and_the_queue(world):
    """From JSON into a row, through a retry, to the next hop and into the bounce."""
    tries = []

    def on_rcpt(address):
        if address == ALICE:
            return None
        tries.append(address)
        return "451 4.2.1 later" if len(tries) == 1 else "550 5.1.1 no such user"
    hop = start(world, "serve", on_rcpt=on_rcpt, extensions=WITH_DSN)
    mark = token()
    with Rest(world.router_url) as rest:
        location = rest.create("notify", mail_from={"m": ALICE, "e": [
            {"k": "ENVID", "p": "rest+2B1"}, {"k": "RET", "p": "FULL"}]},
            rcpt_to=[{"m": BOB, "e": [{"k": "NOTIFY", "p": "FAILURE"},
                                      {"k": "ORCPT", "p": "rfc822;o@x.example"}]}],
            body={"inline": message(mark).decode()}).headers["location"]
        assert rest.final(location)["final_attempt_reason"] == "upstream rcpt_response permfail"
    got = wait_bounce(hop)
    per_message, per_rcpt, original = fields(got)
    assert per_message["original-envelope-id"] == "rest+1"
    assert per_rcpt["original-recipient"] == "rfc822;o@x.example"
    assert original.get_content_type() == "message/rfc822"
    sent = [line for line in hop.commands if line.startswith("RCPT TO:<bob")]
    assert len(sent) == 2
    assert all(line.endswith(" NOTIFY=FAILURE ORCPT=rfc822;o@x.example") for line in sent)
