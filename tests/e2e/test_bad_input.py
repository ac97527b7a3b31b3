# SPDX-License-Identifier: Apache-2.0
"""What peers do wrong, and next hops that are down or say no."""
import smtplib

import pytest

from devkit import procs
from hop import Hop
from mail import ALICE, APP, BOB, Raw, Rest, message, submit, token
from world import World

ELSEWHERE = "carol@elsewhere.example.net"


# ---- next hops ----

def test_ingress_with_next_hop_down_is_temporary(world, mode):
    world.start(mode)
    mark = token()
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        submit(world.ingress, mark)
    code, text = refused.value.recipients[BOB]
    assert 400 <= code < 500, (code, text)


@pytest.mark.threads
def test_submission_with_next_hop_down_is_retried(world, mode):
    """Accepted while the next hop is down; delivered once when it comes up."""
    world.start(mode)
    mark = token()
    code, text = submit(world.submission, mark, rcpts=[ELSEWHERE])
    assert code == 250, text
    hop = world.hop()
    hop.wait_for(mark, 30)
    # A second copy would come with the next attempt, at most 2 s later: a sentinel message that
    # went through the same path shows that the queue has been looked at again.
    later = token()
    assert submit(world.submission, later, rcpts=[ELSEWHERE])[0] == 250
    hop.wait_for(later)
    assert len(hop.with_text(mark)) == 1


def test_rest_submission_with_next_hop_down_is_retried(world, mode):
    world.start(mode)
    mark = token()
    with Rest(world.router_url) as rest:
        location = rest.submit(mark, rcpt=ELSEWHERE).headers["location"]
        tx = rest.wait(location, lambda tx: tx.get("attempt_count", 0) >= 2, 30).json
        assert "final_attempt_reason" not in tx
        hop = world.hop()
        tx = rest.final(location, 30)
    assert tx["final_attempt_reason"] == "upstream response success"
    assert tx["attempt_count"] >= 3 and len(hop.with_text(mark)) == 1


def test_retries_end(tmp_path):
    world = World(tmp_path, max_attempts=2)
    try:
        world.start()
        with Rest(world.router_url) as rest:
            tx = rest.final(rest.submit(token(), rcpt=ELSEWHERE).headers["location"], 30)
        assert tx["final_attempt_reason"] == "retry policy max attempts"
        assert tx["attempt_count"] == 2
    finally:
        world.close()


@pytest.mark.parametrize("reply,where", [
    ("550 5.1.1 no such user", "rcpt"), ("450 4.2.2 full", "rcpt"),
    ("554 5.6.0 not that", "data"), ("451 4.3.0 later", "data")])
def test_ingress_hands_on_the_next_hops_own_answer(world, mode, reply, where):
    world.hop(**{"on_" + where: lambda _: reply})
    world.start(mode)
    with Raw(world.ingress) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250
        code, text = client.command(f"RCPT TO:<{BOB}>")
        if where == "data":
            assert (code, client.code("DATA")) == (250, 354)
            client.send(message(token()) + b".\r\n")
            code, text = client.reply()
        assert f"{code} {text}" == reply
        assert client.code("RSET") == 250


def test_unknown_domain_is_refused_at_rcpt(world, mode):
    hop = world.hop()
    world.start(mode)
    with Raw(world.ingress) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250
        code, text = client.command("RCPT TO:<bob@unknown.example.org>")
        assert code == 550 and "mailbox does not exist" in text
        assert client.code(f"RCPT TO:<{BOB}>") == 250, "the session and the transaction live on"
        assert client.code("DATA") == 354
        mark = token()
        client.send(message(mark) + b".\r\n")
        assert client.reply()[0] == 250
    assert len(hop.with_text(mark)) == 1


def test_unknown_user_of_the_application(shared):
    with Raw(shared.ingress) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250
        assert client.code("RCPT TO:<eve@rest-application.example.com>") == 550


def test_next_hop_that_cuts_the_line(world, mode):
    """Dropped after the dot: temporary for the client, nothing claimed."""
    world.hop(on_data=lambda _: Hop.DROP)
    world.start(mode)
    with Raw(world.ingress) as client:
        client.begin()
        assert client.code("DATA") == 354
        client.send(message(token()) + b".\r\n")
        code, text = client.reply()
        assert 400 <= code < 500, (code, text)
        assert client.code("NOOP") == 250


def test_client_that_vanishes_in_data(world, mode):
    """The next hop never sees a final dot: no truncated message anywhere."""
    hop = world.hop()
    world.start(mode)
    mark = token()
    client = Raw(world.ingress)
    client.begin()
    assert client.code("DATA") == 354
    client.send(message(mark, "x" * 70 + "\r\n" * 5000)[:200000])
    client.reset()
    after = token()
    assert submit(world.ingress, after)[0] == 250
    hop.wait_for(after)
    assert not hop.with_text(mark)


# ---- limits of the SMTP server, each at the limit and one past it ----

def test_command_line_limit(shared):
    with Raw(shared.ingress) as client:
        client.send("NOOP " + "x" * (2048 - 5) + "\r\n")
        assert client.reply()[0] == 250
        client.send("NOOP " + "x" * (2048 - 4) + "\r\n")
        assert client.reply()[0] == 500
        assert client.works(token())[0] == 250


def test_line_without_end_is_cut_off(shared):
    with Raw(shared.ingress) as client:
        try:
            for _ in range(64):
                client.send("x" * 16384)
            code = client.reply()[0]
            while code in (500, 501, 502):
                code = client.reply()[0]
        except (ConnectionResetError, BrokenPipeError):
            code = 0
        assert code in (421, 0)
    assert submit(shared.ingress, token())[0] == 250


def test_recipient_limit(tmp_path):
    # Whether the next hop takes that many at a time is not the point: do not wait for it.
    world = World(tmp_path, rcpt_max=100, exploder_rcpt_timeout=0.05)
    try:
        world.hop()
        world.start()
        with Raw(world.submission) as client:
            assert client.code(f"MAIL FROM:<{ALICE}>") == 250
            for number in range(100):
                assert client.code(f"RCPT TO:<u{number}@elsewhere.example.net>") == 250, number
            code, text = client.command("RCPT TO:<u100@elsewhere.example.net>")
            assert code == 452 and "4.5.3" in text
            assert client.code("RSET") == 250
            assert client.works(token())[0] == 250
    finally:
        world.close()


def test_message_size_limit(tmp_path):
    limit = 200000
    world = World(tmp_path, message_max=limit)
    try:
        hop = world.hop()
        world.start()
        with Raw(world.ingress) as client:
            assert f"SIZE {limit}" in client.extensions
            assert client.code(f"MAIL FROM:<{ALICE}> SIZE={limit + 1}") == 552
            assert client.code(f"MAIL FROM:<{ALICE}> SIZE={limit}") == 250
            assert client.code("RSET") == 250
            mark = token()
            exact = message(mark, "")
            filler = limit - len(exact)
            body = "y" * 70 + "\r\n"
            body = body * (filler // len(body)) + "z" * (filler % len(body) - 2) + "\r\n"
            exact = message(mark, body)
            assert len(exact) == limit
            client.begin()
            assert client.code("DATA") == 354
            client.send(exact + b".\r\n")
            assert client.reply()[0] == 250
            hop.wait_for(mark)
            client.begin()
            assert client.code("DATA") == 354
            client.send(message(token(), "y" + body) + b".\r\n")
            code, text = client.reply()
            assert code == 552 and "5.3.4" in text, (code, text)
            assert client.works(token())[0] == 250
    finally:
        world.close()


def test_error_flood_ends_the_session(shared):
    with Raw(shared.ingress) as client:
        codes = []
        for _ in range(40):
            codes.append(client.code("BOGUS"))
            if codes[-1] in (0, 421):
                break
        assert codes[0] == 500 and codes[-1] == 421 and 10 <= len(codes) <= 30, codes
        assert client.is_closed()
    assert submit(shared.ingress, token())[0] == 250


# ---- syntax and end of data ----

@pytest.mark.parametrize("line,codes", [
    ("", (500, 501)), ("   ", (500, 501)), ("MAIL", (501,)), ("MAIL FROM:", (501,)),
    ("MAIL FROM:alice@example.com", (501, 250)), ("MAIL FROM:<alice@example.com", (501,)),
    ("MAIL FROM:<alice@example.com> SIZE=1x", (501,)),
    ("MAIL FROM:<alice@example.com> SIZE=99999999999999999999999", (501, 552)),
    ("MAIL FROM:<alice@example.com> NOSUCH=1", (555,)),
    ("RCPT TO:<bob@example.com>", (503,)), ("DATA", (503,)), ("RSET now", (501,)),
    ("VRFY", (501,)), ("VRFY bob", (252,)), ("EXPN list", (502,)), ("TURN", (500, 502)),
    ("MAIL FROM:<al\u00efce@example.com>", (553, 501)),
    ("HELO", (501,)), ("EHLO", (501,)),
])
def test_odd_commands(shared, line, codes):
    with Raw(shared.ingress) as client:
        assert client.code(line) in codes
        assert client.code("RSET") == 250
        assert client.works(token())[0] == 250


@pytest.mark.parametrize("data", [
    b"NO\x00OP\r\n", b"MAIL FROM:<a\x00b@example.com>\r\n", b"\xff\xfe\xfd\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n"])
def test_binary_rubbish_in_commands(shared, data):
    with Raw(shared.ingress) as client:
        client.send(data)
        assert client.reply()[0] in (500, 501, 502, 553, 555)
        assert client.works(token())[0] == 250


def test_bare_line_feed_does_not_end_a_command(shared):
    with Raw(shared.ingress) as client:
        client.send(b"NOOP\nNOOP\nQUIT\r\n")
        assert client.reply()[0] in (500, 501)
        assert client.code("NOOP") == 250


@pytest.mark.parametrize("end", [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r.\r", b"\n.\r",
    b"\r\n\x00.\r\n", b"\r\n.\x00\r\n"])
def test_only_crlf_dot_crlf_ends_data(shared, end):
    """Smuggling (CVE-2023-51764 and kin): what looks like an end is none, or the message is
    refused; the commands hidden behind it are never obeyed."""
    smuggled, mark = token(), token()
    inner = (f"MAIL FROM:<eve@example.org>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n".encode()
             + message(smuggled, sender="eve@example.org"))
    with Raw(shared.ingress) as client:
        client.begin()
        assert client.code("DATA") == 354
        client.send(message(mark)[:-2] + end + inner + b"\r\n.\r\n")
        code, text = client.reply()
        assert code in (250, 500, 501, 550, 554, 552, 521), (code, text)
        assert client.code("NOOP") == 250
        assert client.works(token())[0] == 250
    for got in shared.next_hop.with_text(smuggled):
        assert mark.encode() in got.data, "the hidden message became one of its own"


def test_dots_are_transparent(shared):
    mark = token()
    body = ".\r\n..\r\n.x\r\n\r\n.\r\n"
    data = message(mark, body)
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    with Raw(shared.ingress) as client:
        client.begin()
        assert client.code("DATA") == 354
        client.send(stuffed + b".\r\n")
        assert client.reply()[0] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


@pytest.mark.threads
def test_one_byte_at_a_time(shared):
    mark = token()
    script = (f"MAIL FROM:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n").encode()
    with Raw(shared.ingress) as client:
        for byte in script:
            client.send(bytes([byte]))
        assert [client.reply()[0] for _ in range(3)] == [250, 250, 354]
        for byte in message(mark) + b".\r\n":
            client.send(bytes([byte]))
        assert client.reply()[0] == 250
    shared.next_hop.wait_for(mark)


def test_pipelining(shared):
    first, second = token(), token()
    with Raw(shared.ingress) as client:
        assert "PIPELINING" in client.extensions
        client.send(f"MAIL FROM:<{ALICE}>\r\nRCPT TO:<bob@unknown.example.org>\r\n"
                    f"RCPT TO:<{BOB}>\r\nDATA\r\n")
        assert [client.reply()[0] for _ in range(4)] == [250, 550, 250, 354]
        client.send(message(first) + f".\r\nMAIL FROM:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\n"
                    "DATA\r\n".encode())
        assert [client.reply()[0] for _ in range(4)] == [250, 250, 250, 354]
        client.send(message(second) + b".\r\nQUIT\r\n")
        assert [client.reply()[0] for _ in range(2)] == [250, 221]
        assert client.is_closed()
    assert shared.next_hop.with_text(first) and shared.next_hop.with_text(second)


def test_pipelined_data_without_recipients(shared):
    with Raw(shared.ingress) as client:
        client.send(f"MAIL FROM:<{ALICE}>\r\nRCPT TO:<bob@unknown.example.org>\r\nDATA\r\n")
        codes = [client.reply()[0] for _ in range(3)]
        assert codes[:2] == [250, 550] and codes[2] in (503, 554), codes
        assert client.code("RSET") == 250
        assert client.works(token())[0] == 250


def test_commands_and_extensions(shared):
    with Raw(shared.ingress) as client:
        for name in ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"):
            assert name in client.extensions
        assert any(name.startswith("SIZE ") for name in client.extensions)
        assert client.code("HELP") in (211, 214, 250)
        assert client.code("noop") == 250
        assert client.code(f"mail from:<{ALICE}>") == 250
        assert client.code(f"MAIL FROM:<{ALICE}>") == 503
        assert client.code("EHLO again") == 250, "EHLO resets"
        assert client.code("RCPT TO:<bob@example.com>") == 503
        assert client.code("QUIT") == 221
    with Raw(shared.ingress, ehlo=False) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 503
        assert client.code("HELO localhost") == 250
        assert client.works(token())[0] == 250


def test_null_sender_and_utf8(shared):
    mark = token()
    with Raw(shared.ingress) as client:
        client.begin(sender="")
        assert client.code("DATA") == 354
        client.send(message(mark) + b".\r\n")
        assert client.reply()[0] == 250
    assert "<>" in shared.next_hop.wait_for(mark).mail_from
    mark = token()
    with Raw(shared.ingress) as client:
        assert client.code("MAIL FROM:<al\u00efce@example.com> SMTPUTF8 BODY=8BITMIME") == 250
        assert client.code(f"RCPT TO:<{BOB}>") == 250
        assert client.code("DATA") == 354
        client.send(message(mark, "gr\u00fc\u00dfe\r\n") + b".\r\n")
        assert client.reply()[0] == 250
    got = shared.next_hop.wait_for(mark)
    assert "al\u00efce@example.com" in got.mail_from and "SMTPUTF8" in got.mail_from


# ---- what the message is made of ----

def test_message_without_needed_fields_is_refused_at_submission(shared):
    with Raw(shared.submission) as client:
        client.begin()
        assert client.code("DATA") == 354
        client.send(b"this is no header at all\r\nnor this\r\n.\r\n")
        code, _ = client.reply()
        assert 500 <= code < 600
        assert client.works(token())[0] == 250


def test_bad_addresses_are_refused(shared):
    with Raw(shared.submission) as client:
        code = client.code("MAIL FROM:<alice>")
        assert code in (250, 501)
        if code == 250:
            assert client.code(f"RCPT TO:<{BOB}>") in (501, 503)
            client.code("RSET")
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250
        assert client.code("RCPT TO:<bob>") == 501
        assert client.code(f"RCPT TO:<{BOB}>") == 250


# ---- many at once ----

@pytest.mark.threads
def test_parallel_sessions(shared):
    import concurrent.futures
    marks = [token() for _ in range(60)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(lambda mark: submit(shared.ingress, mark)[0], marks))
    assert codes == [250] * 60
    assert all(len(shared.next_hop.with_text(mark)) == 1 for mark in marks)


@pytest.mark.threads
def test_parallel_clients_that_misbehave(shared):
    """Connections that are cut at every place do no harm to others, and leave no descriptor."""
    import concurrent.futures
    before = procs.open_files(shared.smtp_server.pid)
    script = (f"EHLO x\r\nMAIL FROM:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n").encode()
    script += message(token(), "cut me\r\n" * 50)

    def cut(length):
        client = Raw(shared.ingress, ehlo=False)
        client.send(script[:length])
        (client.reset if length % 2 else client.close)()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(cut, range(0, len(script), 7)))
        assert all(code == 250 for code in
                   pool.map(lambda mark: submit(shared.ingress, mark)[0],
                            [token() for _ in range(10)]))
    procs.wait_until(lambda: procs.open_files(shared.smtp_server.pid) <= before + 24,
                     "descriptors to be closed")


def test_application_receiver_down_is_temporary(world, mode):
    world.start(mode)
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        submit(world.ingress, token(), rcpts=[APP])
    assert 400 <= refused.value.recipients[APP][0] < 500
