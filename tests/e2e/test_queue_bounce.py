# SPDX-License-Identifier: Apache-2.0
"""Retry schedules, final reasons and delivery status notifications."""
import email
import email.policy
import re
import time

import pytest

import queue_tool as tool
from devkit import procs
from mail import ALICE, Rest, message, submit, token

REFUSE = "550 5.1.1 no such user"


def bounces(hop):
    with hop.lock:
        return [message for message in hop.taken if "<>" in message.mail_from]


def wait_bounce(hop, seconds=30):
    return procs.wait_until(lambda: bounces(hop) and bounces(hop)[0], "a bounce", seconds)


def refuse(address):
    return REFUSE if address.startswith("nobody") else None


def parse(got):
    parsed = email.message_from_bytes(got.data, policy=email.policy.SMTP)
    assert not parsed.defects
    return parsed


def status_of(parsed):
    """The fields of the one recipient and those of the message."""
    assert parsed.get_content_type() == "multipart/report"
    text, status, original = parsed.get_payload()
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() == "text/rfc822-headers"
    assert not any(part.defects for part in (text, status, original))
    per_message, per_rcpt = status.get_payload()
    return per_message, per_rcpt, text.get_content(), original.get_payload()


def test_bounce_is_a_report(world, mode):
    """By SMTP submission: the refusal comes after the message was accepted for a second one."""
    hop = world.hop(on_data=lambda got: "554 5.6.0 not this" if "nobody" in got.rcpts[0] else None)
    world.start(mode)
    mark = token()
    code, text = submit(world.submission, mark, rcpts=["nobody@one.example", "bob@two.example"])
    assert code == 250, text
    got = wait_bounce(hop)
    assert f"<{ALICE}>" in got.rcpts[0]
    parsed = parse(got)
    assert parsed.get_param("report-type") == "delivery-status"
    assert parsed["auto-submitted"] == "auto-replied"
    assert parsed["in-reply-to"] == f"<{mark}@example.com>"
    assert parsed["message-id"].startswith("<") and parsed["message-id"].endswith("@example.com>")
    assert abs(parsed["date"].datetime.timestamp() - time.time()) < 120
    assert "mailer-daemon@example.com" in parsed["from"] and ALICE in parsed["to"]
    per_message, per_rcpt, text, original = status_of(parsed)
    assert per_message["reporting-mta"] == "dns; example.com" and per_message["arrival-date"]
    assert per_rcpt["final-recipient"] == "rfc822; nobody@one.example"
    assert (per_rcpt["action"], per_rcpt["status"]) == ("failed", "5.6.0")
    assert per_rcpt["diagnostic-code"].startswith("smtp; 554 5.6.0 not this")
    assert per_rcpt["last-attempt-date"]
    assert "nobody@one.example" in text and f"test {mark}" in original
    assert len(hop.with_text(f"end-{mark}")) == 1, "the other recipient has it once"
    time.sleep(1)
    assert len(bounces(hop)) == 1


NOTIFY = ("- name: oneshot\n", "- name: notify\n  output_chain: submission\n"
          "  retry: output_chain\n  notification: output_chain\n- name: oneshot\n")


def with_notification(text):
    return text.replace(*NOTIFY)


def test_built_message_has_its_headers_in_the_bounce(world):
    hop = world.hop(on_rcpt=refuse)
    world.start(edit_router=with_notification)
    with Rest(world.router_url) as rest:
        location = rest.create("notify", mail_from={"m": ALICE}, rcpt_to=[{"m": "nobody@x.example"}],
                               body={"message_builder": {
                                   "headers": [["subject", "built by hand"]],
                                   "text_body": [{"content_type": "text/plain",
                                                  "content": {"inline": "hi"}}]}}).headers["location"]
        assert rest.final(location)["final_attempt_reason"] == "upstream rcpt_response permfail"
    _, per_rcpt, _, original = status_of(parse(wait_bounce(hop)))
    assert per_rcpt["status"] == "5.1.1" and "subject: built by hand" in original


def test_bounce_is_retried(world):
    refused = []

    def on_mail(address):
        if address == "" and len(refused) < 2:
            refused.append(time.monotonic())
            return "451 4.3.2 not now"
        return None
    hop = world.hop(on_mail=on_mail, on_rcpt=refuse)
    world.start(edit_router=with_notification)
    tool.submit(world, token(), "nobody@one.example", sender="notify")
    wait_bounce(hop)
    assert len(refused) == 2 and refused[1] - refused[0] >= 0.9


def test_no_bounce_for_a_bounce(world):
    hop = world.hop(on_mail=lambda address: "550 5.7.1 no bounces here" if address == "" else None,
                    on_rcpt=refuse)
    world.start(edit_router=with_notification)
    tool.submit(world, token(), "nobody@one.example", sender="notify")

    def final():
        return [row for row in tool.rows(world, "--state", "final") if row["from"] == ""]
    row = procs.wait_until(final, "the bounce to fail")[0]
    assert row["final_reason"] == "upstream mail_response permfail"
    time.sleep(1.5)
    assert len(tool.rows(world, "--state", "any")) == 2
    assert len([line for line in hop.commands if line.startswith("MAIL FROM:<>")]) == 1


def test_delay_warning(world):
    hop = world.hop(on_rcpt=lambda address: "451 4.2.1 later" if "slow" in address else None)
    world.start(edit_router=lambda text: with_notification(text).replace(
        "    upstream_refresh: 1\n    notification",
        "    upstream_refresh: 1\n    delay_warning: 3\n    notification"))
    location = tool.submit(world, token(), "slow@one.example", sender="notify")
    _, per_rcpt, _, _ = status_of(parse(wait_bounce(hop)))
    assert (per_rcpt["action"], per_rcpt["status"]) == ("delayed", "4.2.1")
    assert per_rcpt["will-retry-until"]
    time.sleep(5)
    assert len(bounces(hop)) == 1, "once"
    with Rest(world.router_url) as rest:
        assert "final_attempt_reason" not in rest.get(location).json


# ---- schedule and final reasons ----

def schedule(text, attempts, deadline):
    return with_notification(text).replace("max_attempts: 30", f"max_attempts: {attempts}").replace(
        "deadline: 120", f"deadline: {deadline}")


def test_schedule_and_giving_up(world):
    """At least the configured pause between attempts, never more than the longest with its jitter;
    at the end one notification that says 4.4.7."""
    times = []

    def on_rcpt(address):
        if address.startswith("later"):
            times.append(time.monotonic())
            return "452 4.2.2 full"
        return None
    hop = world.hop(on_rcpt=on_rcpt)
    world.start(edit_router=lambda text: schedule(text, 4, 120))
    location = tool.submit(world, token(), "later@one.example", sender="notify")
    with Rest(world.router_url) as rest:
        tx = rest.final(location, 40)
    assert tx["final_attempt_reason"] == "retry policy max attempts" and tx["attempt_count"] == 4
    assert len(times) == 4
    pauses = [late - early for early, late in zip(times, times[1:])]
    # 1, 1 and 2 seconds.  Stored times are whole seconds: up to one of the sum is lost to that;
    # the first attempt may be the slowest in coming here; one comes from polling.
    assert all(0 <= pause <= 5 for pause in pauses) and sum(pauses) > 2.5, pauses
    former = tool.show(world, tool.name_of(location))["former_attempts"]
    assert [(entry["attempt"], entry["code"], entry["message"]) for entry in former] == \
        [(number, 452, "4.2.2 full") for number in (1, 2, 3)]
    assert re.search(r"attempts before:\n +1 +\d+s ago: 452 4.2.2 full\n",
                     tool.run(world, "show", tool.name_of(location)))
    _, per_rcpt, _, _ = status_of(parse(wait_bounce(hop)))
    assert per_rcpt["status"] == "4.4.7" and "452 4.2.2 full" in per_rcpt["diagnostic-code"]


@pytest.mark.parametrize("name, behaviour, reason", [
    ("delivered", {}, "upstream response success"),
    ("MAIL refused", {"on_mail": lambda _a: "550 5.7.1 no"}, "upstream mail_response permfail"),
    ("RCPT refused", {"on_rcpt": lambda _a: "550 5.1.1 no"}, "upstream rcpt_response permfail"),
    ("message refused", {"on_data": lambda _m: "554 5.6.0 no"}, "upstream response permfail"),
    ("deadline", {"on_mail": lambda _a: "451 later"}, "retry policy deadline"),
])
def test_final_reasons(world, name, behaviour, reason):
    world.hop(**behaviour)
    world.start(edit_router=lambda text: schedule(text, 30, 1 if name == "deadline" else 120))
    location = tool.submit(world, token(), "bob@one.example")
    with Rest(world.router_url) as rest:
        assert rest.final(location, 30)["final_attempt_reason"] == reason
    assert tool.show(world, tool.name_of(location))["final_reason"] == reason


def test_downstream_timeout_and_oneshot(world):
    world.hop(on_mail=lambda address: "451 later" if "once" in address else None)
    world.start(edit_router=lambda text: text.replace("downstream_timeout: 20",
                                                      "downstream_timeout: 1"))
    with Rest(world.router_url) as rest:
        empty = rest.create(mail_from={"m": ALICE}, rcpt_to=[{"m": "bob@one.example"}])
        tx = rest.final(empty.headers["location"])
        assert tx["final_attempt_reason"] == "downstream timeout"
    location = tool.submit(world, token(), "bob@one.example", sender="oneshot",
                           mail_from="once@example.com")
    tool.wait_state(world, location, "final")
    time.sleep(2)
    row = tool.show(world, tool.name_of(location))
    assert (row["final_reason"], row["attempts"]) == ("oneshot", 1)
    with Rest(world.router_url) as rest:
        tx = rest.get(location).json
        assert "final_attempt_reason" not in tx and tx["mail_response"]["code"] == 451


def test_restart_keeps_the_count_of_attempts(world):
    hop = world.hop(on_mail=lambda _address: "451 4.3.0 later")
    world.start(edit_router=lambda text: schedule(text, 4, 120))
    mark = token()
    location = tool.submit(world, mark, "bob@one.example", sender="notify")
    tool.wait_attempts(world, location, 2)
    world.stop_servers()
    before = len([line for line in hop.commands if line.startswith("MAIL")])
    world.start(edit_router=lambda text: schedule(text, 4, 120))
    with Rest(world.router_url) as rest:
        tx = rest.final(location, 40)
    assert tx["attempt_count"] == 4
    mails = [line for line in hop.commands if line.startswith(f"MAIL FROM:<{ALICE}>")]
    assert len(mails) == 4 and before >= 2
