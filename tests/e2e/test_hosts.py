# SPDX-License-Identifier: Apache-2.0
"""Several addresses of a destination, in order: which answers make us go on to the next one."""
import smtplib

import pytest

from devkit import procs
from hop import Hop
from mail import BOB, submit, token


def two_hosts(port):
    """In the ingress chain: 127.0.0.1 with the scripted hop, and another behind it."""
    def edit(text):
        head, mark, tail = text.rpartition("    static_hosts:\n")
        return head + mark + tail.replace(
            "  - filter: rest_output", f"    - host: 127.0.0.1\n      port: {port}\n"
            "  - filter: rest_output", 1)
    return edit


@pytest.fixture
def second():
    hop = Hop()
    yield hop
    hop.close()


@pytest.mark.parametrize("greeting", [
    "421 4.3.2 busy", "450 4.7.0 not now", "554 5.7.1 not you", "521 5.3.2 no mail here"])
def test_greetings_send_us_on(world, mode, second, greeting):
    """A host that does not talk to us says nothing about the message."""
    first = world.hop(greeting=greeting)
    world.start(mode, edit_router=two_hosts(second.port))
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    second.wait_for(mark)
    assert first.sessions == 1 and not first.taken


def test_last_greeting_stands(world, mode, second):
    """When all refuse, the last one's reply is the answer as it is."""
    second.greeting = "554 5.7.1 not you either"
    world.hop(greeting="554 5.7.1 not you")
    world.start(mode, edit_router=two_hosts(second.port))
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        submit(world.ingress, token())
    assert caught.value.recipients[BOB][0] >= 500
    assert 'code=554 text="5.7.1 not you either"' in world.router_server.err()


def test_refusals_of_the_sender_do_not(world, mode, second):
    """Behind MAIL a permanent refusal is about the message, a temporary one is not."""
    answers = iter(["550 5.7.1 not from you", "450 4.3.2 later"])
    first = world.hop(on_mail=lambda address: next(answers))
    world.start(mode, edit_router=two_hosts(second.port))
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        submit(world.ingress, token())
    assert caught.value.recipients[BOB][0] >= 500
    assert 'code=550 text="5.7.1 not from you"' in world.router_server.err()
    assert not second.sessions
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    second.wait_for(mark)
    assert not first.taken


def test_refused_connection(world, mode, second):
    """Nobody listens at the first address."""
    assert procs.can_bind(world.values["sink_port"])
    world.start(mode, edit_router=two_hosts(second.port))
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    second.wait_for(mark)
