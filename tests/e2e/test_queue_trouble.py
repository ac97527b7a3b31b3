# SPDX-License-Identifier: Apache-2.0
"""What a client is told, and what becomes of its message, when the store cannot write just then; and
a wall clock that jumps."""
import os
import shlex
import signal
import subprocess
import time

import pytest

import queue_tool as tool
from devkit import procs
from mail import ALICE, Rest, Raw, message, token
from test_queue_bounce import bounces, parse, status_of, wait_bounce, with_notification
from world import HERE

REFUSE = "550 5.1.1 no such user"
NOT_NOW = "451 4.3.2 not now"


class Faults:
    """Of the disk under the store of a world, and of its clock."""

    def __init__(self, world):
        self.folder = os.path.realpath(world.values["state_dir"])

    def begin(self, name):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8"):
            pass

    def end(self, name):
        os.unlink(os.path.join(self.folder, name))

    def has_begun(self, name):
        return os.path.exists(os.path.join(self.folder, name))

    def fill(self):
        self.begin("full")

    def empty(self):
        self.end("full")

    def set_clock(self, seconds):
        path = os.path.join(self.folder, "clock")
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(str(seconds))
        os.rename(path + ".new", path)


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("shim") / "faults.so")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", path, os.path.join(HERE, "fault_shim.c"),
                    "-ldl"], check=True)
    return path


@pytest.fixture
def faults(world, shim, monkeypatch):
    """Of a server that is started afterwards."""
    it = Faults(world)
    monkeypatch.setenv("LD_PRELOAD", shim)
    monkeypatch.setenv("KOUKAN_TEST_FAULTS", it.folder)
    monkeypatch.setenv("ASAN_OPTIONS",
                       os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
    return it


def refuse(address):
    return REFUSE if address.startswith("nobody") else None


def create(rest, rcpt, sender="notify"):
    return rest.create(sender, mail_from={"m": ALICE}, rcpt_to=[{"m": rcpt}]).headers["location"]


def crash(world):
    world.router_server.kill()
    world.procs.remove(world.router_server)
    world.servers.remove(world.router_server)


# ---- a submission that has failed before its message is there ----

def test_early_failure_is_notified_once_the_message_is_there(world, faults):
    hop = world.hop(on_rcpt=refuse)
    world.start(edit_router=with_notification)
    mark = token()
    with Rest(world.router_url) as rest:
        location = create(rest, "nobody@one.example")
        assert rest.final(location)["final_attempt_reason"] == "upstream rcpt_response permfail"
        faults.fill()
        for _ in range(2):
            assert rest.call("PUT", location + "/body", message(mark)).status == 507
        faults.empty()
        assert rest.call("PUT", location + "/body", message(mark)).status == 200
        _, per_rcpt, _, original = status_of(parse(wait_bounce(hop)))
        assert per_rcpt["status"] == "5.1.1" and f"test {mark}" in original
        assert rest.call("PUT", location + "/body", message(mark)).status == 200
    assert tool.wait_state(world, location, "final")["final_reason"] == \
        "upstream rcpt_response permfail"
    time.sleep(1)
    assert len(bounces(hop)) == 1


def test_acknowledged_notice_survives_a_crash(world):
    """The 200 of the upload says that the notification is on disk."""
    bounce_taken = []
    hop = world.hop(on_rcpt=refuse, on_mail=lambda address: None if address or bounce_taken
                    else NOT_NOW)
    world.start(edit_router=with_notification)
    with Rest(world.router_url) as rest:
        location = create(rest, "nobody@one.example")
        rest.final(location)
        assert rest.call("PUT", location + "/body", message(token())).status == 200
        crash(world)
    bounce_taken.append(True)
    world.start(edit_router=with_notification)
    wait_bounce(hop)



def test_nobody_is_told_of_a_message_that_never_came(world):
    hop = world.hop(on_rcpt=refuse)
    world.start(edit_router=with_notification)
    with Rest(world.router_url) as rest:
        location = create(rest, "nobody@one.example")
        rest.final(location)
        procs.wait_until(lambda: rest.get(location).status == 404, "it to be forgotten")
        assert rest.call("PUT", location + "/body", message(token())).status == 404
    assert not bounces(hop) and tool.rows(world, "--state", "any") == []


def test_late_upload_is_not_acknowledged(world):
    """Given up before the message came: its client still holds it, and must be told so."""
    world.hop()
    world.start(edit_router=lambda text: with_notification(text).replace(
        "downstream_timeout: 20", "downstream_timeout: 1"))
    with Rest(world.router_url) as rest:
        location = create(rest, "bob@one.example")
        assert rest.final(location)["final_attempt_reason"] == "downstream timeout"
        assert rest.call("PUT", location + "/body", message(token())).status == 503


# ---- a message of ours that fails while nothing can be written ----

def test_notice_is_repeated_until_it_is_stored(world, faults):
    """The recipient is refused just when the disk has become full."""
    def on_rcpt(address):
        if refuse(address):
            faults.fill()
        return refuse(address)
    hop = world.hop(on_rcpt=on_rcpt)
    world.start(edit_router=with_notification)
    location = tool.submit(world, token(), "nobody@one.example", sender="notify")
    procs.wait_until(lambda: world.router_server.err().count("store.insert_failed") >= 2,
                     "two vain attempts to store the notification")
    assert tool.show(world, tool.name_of(location))["final_reason"] is None
    faults.empty()
    wait_bounce(hop)
    tool.wait_state(world, location, "final")
    time.sleep(1)
    assert len(bounces(hop)) == 1


# ---- an upload that cannot be stored when it is complete ----

@pytest.mark.parametrize("answer, status", [(None, 200), ("451 4.3.0 later", 507),
                                            ("554 5.6.0 not this", 507)])
def test_full_at_the_end_of_the_upload(world, faults, answer, status):
    """While the store cannot take it the next hop's own word decides: what was delivered is
    acknowledged, whatever else is refused."""
    hop = world.hop(on_data=lambda got: None if "<>" in got.mail_from else answer)
    world.start(edit_router=lambda text: tool.slow_retries(with_notification(text)))
    mark = token()
    with Rest(world.router_url) as rest:
        location = create(rest, "bob@one.example")
        faults.fill()
        assert rest.call("PUT", location + "/body", message(mark)).status == status
        assert len(hop.with_text(f"end-{mark}")) == (1 if answer is None else 0)
        faults.empty()
        again = rest.call("PUT", location + "/body", message(mark)).status
        if answer is None:
            assert again == 200
            assert rest.final(location)["final_attempt_reason"] == "upstream response success"
        elif answer.startswith("4"):
            assert again == 503, "not stored, and not going to be"
        else:
            assert again == 200
            _, per_rcpt, _, _ = status_of(parse(wait_bounce(hop)))
            assert per_rcpt["status"] == "5.6.0"
    time.sleep(1)
    assert len(hop.with_text(f"end-{mark}")) == (1 if answer is None else 0)
    assert len(bounces(hop)) == (1 if again == 200 and answer else 0)


def test_answers_of_a_full_disk(world, faults):
    """SMTP 452 4.3.1, REST 507, and all flows again without a restart."""
    hop = world.hop(on_rcpt=lambda _address: "451 4.3.0 later")
    world.start(edit_router=tool.slow_retries)
    faults.fill()
    with Raw(world.submission) as smtp, Rest(world.router_url) as rest:
        smtp.begin("bob@one.example")
        assert smtp.code("DATA") == 354
        smtp.send(message(token()) + b".\r\n")
        code, text = smtp.reply()
        assert code in (451, 452) and text.startswith("4.3.1"), (code, text)
        tx = dict(mail_from={"m": ALICE}, rcpt_to=[{"m": "bob@one.example"}],
                  body={"inline": message(token()).decode()})
        assert rest.call("POST", "/senders/submission/transactions", tx).status == 507
        faults.empty()
        first, second = token(), token()
        smtp.begin("bob@one.example")
        assert smtp.code("DATA") == 354
        smtp.send(message(first) + b".\r\n")
        assert smtp.reply()[0] == 250
        rest.submit(second, rcpt="bob@one.example")
    hop.on_rcpt = None
    for mark in (first, second):
        tool.run(world, "retry", "--all")
        hop.wait_for(mark)
    assert len(tool.rows(world, "--state", "any")) == 2, "what was refused is not there"


# ---- an ordered end ----

def terminate(world):
    world.router_server.signal(signal.SIGTERM)
    if world.router_server is not world.smtp_server:
        world.smtp_server.signal(signal.SIGTERM)
    procs.wait_until(lambda: "server.stopping" in world.router_server.err(), "the stop",
                     alive=world.router_server)


def wait_end(world):
    assert world.router_server.finish(40) == 0, world.router_server.tail()
    world.procs.remove(world.router_server)
    world.servers.remove(world.router_server)


def test_end_on_a_busy_machine(world, faults):
    """A worker that gets no turn for a while is not taken for one that has nothing to do."""
    world.start("two")
    with Raw(world.ingress) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250
        faults.begin("slow")
        world.smtp_server.signal(signal.SIGTERM)
        procs.wait_until(lambda: "server.stopping" in world.smtp_server.err(), "the stop")
        assert 400 <= client.code("RCPT TO:<bob@one.example>") < 600, "cut without a word"
    assert world.smtp_server.finish() == 0


def test_end_waits_until_a_delivery_is_written(world, faults):
    """The disk is full just when the next hop takes the message: no reason to send it twice."""
    hop = world.hop(on_data=lambda _: faults.fill())
    world.start()
    mark = token()
    tool.submit(world, mark, "bob@one.example")

    def failures():
        return world.router_server.err().count("store.update_failed")
    procs.wait_until(lambda: failures() > 0, "a result that cannot be written")
    terminate(world)
    seen = failures()
    procs.wait_until(lambda: failures() > seen, "another try", alive=world.router_server)
    hop.on_data = None
    faults.empty()
    wait_end(world)
    world.start()
    other = token()
    tool.submit(world, other, "bob@one.example")
    hop.wait_for(other)
    assert len(hop.with_text(mark)) == 1


def test_what_is_claimed_at_the_end_waits_for_the_next_start(world, faults):
    """A claim that is being written when the end begins starts no delivery, which might be cut."""
    hop = world.hop(on_rcpt=later)
    world.start()
    mark = token()
    location = tool.submit(world, mark, "later@one.example")
    with Raw(world.ingress) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250  # holds up the end
        tool.wait_attempts(world, location)
        faults.begin("stall")
        procs.wait_until(lambda: faults.has_begun("stalled"), "the claim of its second attempt")
        hop.on_rcpt = None
        terminate(world)
        faults.end("stall")
        procs.wait_until(lambda: "queue.not_started" in world.router_server.err(), "its claim")
        assert client.code("NOOP") == 250
        assert not hop.with_text(mark)
    wait_end(world)
    world.start()
    hop.wait_for(mark)


# ---- the clock ----

DAY = 86400


def later(address):
    return "451 4.3.0 later" if address.startswith("later") else None


def test_clock_jumps_ahead(world, faults):
    """Old mail expires, once; mail of now goes on."""
    hop = world.hop(on_rcpt=later)
    world.start(edit_router=lambda text: with_notification(text).replace("deadline: 120",
                                                                        "deadline: 432000"))
    old = tool.submit(world, token(), "later@one.example", sender="notify")
    tool.wait_attempts(world, old)
    faults.set_clock(6 * DAY)
    with Rest(world.router_url) as rest:
        assert rest.final(old, 30)["final_attempt_reason"] == "retry policy deadline"
    _, per_rcpt, _, _ = status_of(parse(wait_bounce(hop)))
    assert per_rcpt["status"] == "4.4.7"
    new = tool.submit(world, token(), "later@two.example", sender="notify")
    tool.wait_attempts(world, new, 2)
    mark = token()
    tool.submit(world, mark, "bob@one.example")
    hop.wait_for(mark)
    assert len(bounces(hop)) == 1


@pytest.mark.parametrize("restart", [False, True])
def test_clock_goes_back(world, faults, restart):
    """What was planned by the wrong clock is not put off for as long as that was wrong."""
    mark = token()
    hop = world.hop(on_rcpt=later)
    faults.set_clock(6 * DAY)
    world.start()
    location = tool.submit(world, mark, "later@one.example")
    tool.wait_attempts(world, location)
    if restart:
        world.stop_servers()
    faults.set_clock(0)
    if restart:
        world.start()
    hop.on_rcpt = None
    hop.wait_for(mark)
