# SPDX-License-Identifier: Apache-2.0
"""Outcomes by recipient: partial failures, retries, bounces, and what survives a crash."""
import email
import signal

import pytest

from devkit import procs
from mail import ALICE, Raw, Rest, message, submit, token

OK, LATER, NEVER = "ok@a.example.net", "later@b.example.net", "never@c.example.net"


def rcpts_of(messages):
    return sorted(rcpt.partition("<")[2].partition(">")[0]
                  for each in messages for rcpt in each.rcpts)


class Moody:
    """A next hop that answers by recipient; `later@` works from the third attempt on."""

    def __init__(self, where):
        self.where, self.attempts = where, 0

    def rcpt(self, address):
        return self.verdict(address) if self.where == "rcpt" else None

    def data(self, got):
        return self.verdict(got.rcpts[0]) if self.where == "data" else None

    def verdict(self, address):
        if "never@" in address:
            return "550 5.1.1 never"
        if "later@" in address:
            self.attempts += 1
            if self.attempts < 3:
                return "451 4.3.0 later"
        return None


@pytest.mark.threads
def test_partial_failure_after_the_message(world, mode):
    """One recipient accepted, one temporary, one permanent at the dot: the client gets one 250; the
    first is delivered once, the second is tried again, the third gives one bounce."""
    moody = Moody("data")
    hop = world.hop(on_rcpt=moody.rcpt, on_data=moody.data)
    world.start(mode)
    mark = token()
    code, text = submit(world.submission, mark, rcpts=[OK, LATER, NEVER])
    assert code == 250, text
    procs.wait_until(lambda: LATER in rcpts_of(hop.with_text(mark)), "the retried copy", 30)
    bounce = wait_for_bounce(hop, NEVER)
    assert "550 5.1.1 never" in bounce.text
    got = [rcpt for rcpt in rcpts_of(hop.with_text(mark)) if rcpt != ALICE]
    assert got == sorted([OK, LATER]), "each exactly once"


def wait_for_bounce(hop, about):
    def find():
        with hop.lock:
            found = [each for each in hop.taken if "<>" in each.mail_from and about in each.text]
        return found
    found = procs.wait_until(find, f"a bounce about {about}", 30)
    assert len(found) == 1
    bounce = found[0]
    assert rcpts_of([bounce]) == [ALICE]
    parsed = email.message_from_bytes(bounce.data)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    kinds = [part.get_content_type() for part in parsed.walk()]
    assert "message/delivery-status" in kinds
    return bounce


def test_refusals_at_rcpt_are_told_at_once(world, mode):
    """Permanent refusals of the next hop stay refusals; temporary ones are taken over."""
    moody = Moody("rcpt")
    hop = world.hop(on_rcpt=moody.rcpt, on_data=moody.data)
    world.start(mode)
    mark = token()
    with Raw(world.submission) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250
        codes = [client.code(f"RCPT TO:<{rcpt}>") for rcpt in (OK, LATER, NEVER)]
        assert codes == [250, 250, 550]
        assert client.code("DATA") == 354
        client.send(message(mark) + b".\r\n")
        assert client.reply()[0] == 250
    procs.wait_until(lambda: rcpts_of(hop.with_text(mark)) == sorted([OK, LATER]), "two copies", 30)


def test_bounce_when_retries_end(tmp_path):
    from world import World
    world = World(tmp_path, max_attempts=2)
    try:
        hop = world.hop(on_data=lambda got: "451 4.3.0 not now" if "never@" in got.rcpts[0]
                        else None)
        world.start()
        mark = token()
        assert submit(world.submission, mark, rcpts=[NEVER])[0] == 250
        bounce = wait_for_bounce(hop, NEVER)
        assert "451 4.3.0 not now" in bounce.text and mark in bounce.text
    finally:
        world.close()


def test_no_bounce_for_the_null_sender(tmp_path):
    from world import World
    world = World(tmp_path, max_attempts=2)
    try:
        hop = world.hop(on_data=lambda got: "451 4.3.0 not now" if "never@" in got.rcpts[0]
                        else None)
        world.start()
        mark = token()
        assert submit(world.submission, mark, sender="", rcpts=[NEVER])[0] == 250
        procs.wait_until(lambda: "retry policy max attempts" in world.smtp_server.err(),
                         "the last attempt", 30)
        after = token()
        assert submit(world.submission, after, rcpts=[OK])[0] == 250
        hop.wait_for(after)
        assert not any("<>" in each.mail_from for each in hop.taken)
    finally:
        world.close()


@pytest.mark.threads
def test_accepted_submissions_survive_kill_9(world, mode):
    """The next hop is down; what got its 250 is delivered after kill -9 and restart."""
    world.start(mode)
    marks = [token() for _ in range(10)]
    for mark in marks:
        assert submit(world.submission, mark, rcpts=[OK])[0] == 250
    for server in list(world.servers):
        server.signal(signal.SIGKILL)
        server.finish()
        world.procs.remove(server)
    world.servers = []
    hop = world.hop()
    world.start(mode)
    for mark in marks:
        hop.wait_for(mark, 30)
    assert all(hop.with_text(mark)[0].data.endswith(message(mark)) for mark in marks)


def test_cut_through_needs_no_disk(world):
    """Ingress mail that the next hop answers leaves no row behind."""
    import sqlite3
    hop = world.hop()
    world.start()
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    hop.wait_for(mark)
    world.stop_servers()
    import glob
    import os
    files = glob.glob(os.path.join(world.values["state_dir"], "*.db"))
    assert files
    with sqlite3.connect(files[0]) as database:
        tables = [row[0] for row in database.execute(
            "select name from sqlite_master where type = 'table'")]
        for table in tables:
            columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
            if "rcpt" in columns:
                assert database.execute(f"select count(*) from {table}").fetchone()[0] == 0


def test_rest_outcome_of_a_refusal(world, mode):
    moody = Moody("rcpt")
    world.hop(on_rcpt=moody.rcpt)
    world.start(mode)
    with Rest(world.router_url) as rest:
        tx = rest.final(rest.submit(token(), rcpt=NEVER).headers["location"])
    assert tx["final_attempt_reason"] == "upstream rcpt_response permfail"
    assert tx["rcpt_response"] == [{"code": 550, "message": "5.1.1 never"}]


def test_next_hop_connections_are_reused(world):
    hop = world.hop()
    world.start()
    for _ in range(10):
        assert submit(world.ingress, token())[0] == 250
    assert len(hop.taken) == 10 and hop.sessions < 10, hop.sessions
