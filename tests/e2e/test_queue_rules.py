# SPDX-License-Identifier: Apache-2.0
"""Rules of the queue at the edges: notifications beyond ASCII, senders that are gone, chains without
retries, failures before the message is there."""
import os
import sqlite3
import threading
import time

import queue_tool as tool
from devkit import procs
from mail import ALICE, Rest, message, token
from test_queue_bounce import parse, wait_bounce, with_notification


def restart(world, edit):
    world.stop_servers()
    world.start(edit_router=edit)


def test_bounce_to_an_address_outside_ascii(world):
    """RFC 6533: the notification is itself sent by SMTPUTF8, with the types that go with it."""
    sender, rcpt = "j\u00f6rg@example.com", "m\u00fcller@one.example"
    hop = world.hop(on_rcpt=lambda address: "550 5.1.1 no m\u00fcller" if address == rcpt else None)
    world.start(edit_router=with_notification)
    tool.submit(world, token(), rcpt, sender="notify", mail_from=sender)
    got = wait_bounce(hop)
    assert "SMTPUTF8" in got.mail_from and "8BITMIME" in got.mail_from and f"<{sender}>" in got.rcpts[0]
    parsed = parse(got)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "global-delivery-status"
    text, status, original = parsed.get_payload()
    assert (text.get_content_type(), status.get_content_type(), original.get_content_type()) == \
        ("text/plain", "message/global-delivery-status", "message/global-headers")
    assert f"Final-Recipient: utf-8; {rcpt}\r\nAction: failed\r\nStatus: 5.1.1\r\n" in got.text


def test_bounce_of_such_a_recipient_to_an_ascii_sender(world):
    """It must get through to everybody, so all of it is ASCII."""
    rcpt = "m\u00fcller@one.example"
    hop = world.hop(on_rcpt=lambda address: "550 5.1.1 no m\u00fcller" if address == rcpt else None)
    world.start(edit_router=with_notification)
    tool.submit(world, token(), rcpt, sender="notify")
    got = wait_bounce(hop)
    got.data.decode("ascii")
    assert "SMTPUTF8" not in got.mail_from
    assert parse(got).get_param("report-type") == "delivery-status"
    assert "Final-Recipient: utf-8; m\\x{FC}ller@one.example\r\n" in got.text


def test_all_recipients_refused(world):
    """A transaction of several recipients, over REST."""
    world.hop(on_rcpt=lambda _address: "550 5.1.1 no")
    world.start()
    with Rest(world.router_url) as rest:
        location = rest.create("submission", sender={"tag": "smtp-msa"}, mail_from={"m": ALICE},
                               rcpt_to=[{"m": "bob@one.example"}, {"m": "carol@two.example"}]
                               ).headers["location"]
        rest.wait(location, lambda tx: len(tx.get("rcpt_response", [])) == 2)
        rest.call("PUT", location + "/body", message(token()))
        tx = rest.final(location)
    assert tx["final_attempt_reason"] == "exploder/oneshot all rcpts failed"
    assert [response["code"] for response in tx["rcpt_response"]] == [550, 550]


def test_sender_that_is_gone(world):
    """Its mail is kept until the sender is back."""
    mark = token()
    world.hop(on_rcpt=lambda _address: "451 4.3.0 later")
    world.start(edit_router=with_notification)
    location = tool.submit(world, mark, "bob@one.example", sender="notify")
    tool.wait_attempts(world, location)
    restart(world, None)
    tool.run(world, "retry", "--all")
    procs.wait_until(lambda: "queue.put_off" in world.router_server.err(), "it to be put off")
    row = tool.wait_state(world, location, "queued")
    assert row["next_attempt"] > time.time() + 3000
    world.hops[0].on_rcpt = None
    restart(world, with_notification)
    tool.run(world, "retry", "--all")
    world.hops[0].wait_for(mark)


def test_retry_without_parameters_is_one_attempt(world):
    def edit(text):
        begin = text.index("    retry_params:", text.index("- name: submission\n  output_handler"))
        return text[:begin] + text[text.index("  chain:", begin):]
    hop = world.hop(on_rcpt=lambda _address: "451 4.3.0 later")
    world.start(edit_router=edit)
    location = tool.submit(world, token(), "bob@one.example")
    row = tool.wait_state(world, location, "final")
    assert (row["final_reason"], row["attempts"]) == ("oneshot", 1)
    time.sleep(2.5)
    assert len([line for line in hop.commands if line.startswith("MAIL")]) == 1


def test_failed_for_now_before_the_message_came(world):
    """The 200 of the upload makes it ours: it survives a crash and is retried."""
    mark = token()
    hop = world.hop(on_rcpt=lambda _address: "451 4.3.0 later")
    world.start()
    with Rest(world.router_url) as rest:
        location = rest.create(mail_from={"m": ALICE}, rcpt_to=[{"m": "bob@one.example"}]
                               ).headers["location"]
        rest.wait(location, lambda tx: tx.get("rcpt_response"))
        assert tool.rows(world, "--state", "any") == [], "nothing is ours yet"
        assert rest.call("PUT", location + "/body", message(mark)).status == 200
        world.router_server.kill()
        world.procs.remove(world.router_server)
        world.servers.remove(world.router_server)
    hop.on_rcpt = None
    world.start()
    hop.wait_for(mark)
    with Rest(world.router_url) as rest:
        tx = rest.final(location)
    assert tx["final_attempt_reason"] == "upstream response success"
    assert len(hop.with_text(mark)) == 1


def test_place_that_becomes_free_during_a_claim(world):
    """Its only place is given back while the store is being asked for others: the destination's next
    message follows at once, not with the next poll a second later."""
    go_on = threading.Event()

    def on_data(_message):
        go_on.wait(20)
    hop = world.hop(on_rcpt=lambda _address: "451 4.3.0 later", on_data=on_data)
    world.start(edit_router=lambda text: tool.slow_retries(text).replace(
        "koukan:\n", "koukan:\n  per_destination: 1\n"))
    database = sqlite3.connect(os.path.join(world.values["state_dir"], "koukan.db"),
                               isolation_level=None)
    pauses = []
    for turn in range(4):  # a busy machine may spoil one or two
        hop.on_rcpt = lambda _address: "451 4.3.0 later"
        go_on.clear()
        before = len(hop.taken)
        for _ in range(2):
            tool.wait_attempts(world, tool.submit(world, token(), "bob@one.example"))
        hop.on_rcpt = None
        data = len([line for line in hop.commands if line == "DATA"])
        tool.run(world, "retry", "--all")
        procs.wait_until(lambda: len([line for line in hop.commands if line == "DATA"]) > data,
                         "the first one to be under way")
        database.execute("BEGIN IMMEDIATE")
        time.sleep(1.3)  # by now the next poll has come to the locked store
        go_on.set()
        procs.wait_until(lambda: len(hop.taken) == before + 1, "the first one")
        procs.wait_until(lambda: world.router_server.err().count("upstream response success")
                         == 2 * turn + 1, "the router to know")
        database.execute("ROLLBACK")
        begin = time.monotonic()
        procs.wait_until(lambda: len(hop.taken) == before + 2, "the second one")
        pauses.append(time.monotonic() - begin)
        procs.wait_until(lambda: world.router_server.err().count("upstream response success")
                         == 2 * turn + 2, "the router to know of both")
        if pauses[-1] < 0.7:
            break
    database.close()
    assert pauses[-1] < 0.7, pauses
