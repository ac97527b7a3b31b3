# SPDX-License-Identifier: Apache-2.0
"""`koukan sink` as a peer that misbehaves on request, seen by smtplib, by a raw socket and by
`koukan smtp`; and what `koukan smtp` makes of each fault."""
import base64
import json
import smtplib
import ssl
import time

import pytest

from mail import ALICE, BOB, Raw, message, token
from test_smtp_client import certs, koukan_smtp  # noqa: F401  certs is a fixture


def start(world, *arguments):
    proc = world.start_proc(f"sink{len(world.procs)}", "sink", "0", "--json", *arguments)
    proc.wait_listening()
    return proc, int(proc.out().split("listening on ")[1].split("\n")[0].rpartition(":")[2])


def taken(proc):
    return [json.loads(line) for line in proc.out().splitlines()[1:]]


@pytest.mark.parametrize("fault, expected", [
    ("greeting:554 5.3.2 no service", "MAIL FROM:<alice@example.com>: 554 5.3.2 no service"),
    ("greeting:drop", "4.4.2 next hop closed the connection (message not sent)"),
    ("greeting:junk", "450 4.5.0 next hop sent something that is no SMTP reply"),
    ("ehlo:half", "4.4.2 next hop closed the connection (message not sent)"),
    ("ehlo:many", "450 4.5.0 next hop sent something that is no SMTP reply"),
    ("mail:451 4.3.0 not now", "MAIL FROM:<alice@example.com>: 451 4.3.0 not now"),
    ("mail:long", "450 4.5.0 next hop sent a reply line that is too long"),
    ("mail:twice", "450 4.5.0 next hop sent a reply that"),
    ("rcpt:550 5.1.1 nobody", "RCPT TO:<bob@example.com>: 550 5.1.1 nobody"),
    ("rcpt:421 4.3.2 bye", "RCPT TO:<bob@example.com>: 421 4.3.2 bye"),
    ("data:554 5.7.1 not you", "DATA: 554 5.7.1 not you"),
    ("data:drop", "4.4.2 next hop closed the connection (message not sent)"),
    ("message:drop", "(message sent, not acknowledged)"),
    ("message:half", "(message sent, not acknowledged)"),
    ("message:junk", "(message sent, not acknowledged)"),
    ("message:552 5.2.2 full", "DATA: 552 5.2.2 full"),
])
def test_faults(world, fault, expected):
    _, port = start(world, "--fault", fault)
    done = koukan_smtp(world, port=port)
    text = done.stdout.decode()
    assert done.returncode == 1 and expected in text, text


@pytest.mark.parametrize("fault", ["mail:delay=300", "rcpt:slow=20", "ehlo:slow=2"])
def test_slow_but_right(world, fault):
    proc, port = start(world, "--fault", fault)
    began = time.monotonic()
    done = koukan_smtp(world, port=port)
    assert done.returncode == 0, done.stdout.decode()
    assert time.monotonic() - began >= 0.3 and len(taken(proc)) == 1


def test_hang_and_every_third(world):
    proc, port = start(world, "--fault", "rcpt:hang")
    with Raw(port) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250
        client.send(f"RCPT TO:<{BOB}>\r\n")
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.reply()
    proc, port = start(world, "--fault", "message/3:452 4.3.1 later")
    done = koukan_smtp(world, "--count", "31", "--connections", "1", port=port)
    text = done.stdout.decode()
    assert "accepted 20, refused 0, failed for now 10, not acknowledged 0" in text, text


def test_lmtp(world):
    proc, port = start(world, "--lmtp", "--fault", "message/2:452 4.2.2 full")
    done = koukan_smtp(world, "--lmtp", port=port, rcpts=("a@x.example", "b@x.example"))
    text = done.stdout.decode()
    assert "TO:<a@x.example>: 250 " in text and "TO:<b@x.example>: 452 4.2.2 full" in text, text
    assert taken(proc)[0]["rcpt_to"] == ["a@x.example", "b@x.example"]


def test_tls_and_auth(world, certs):  # noqa: F811
    world.write("secrets.json", "{}")
    server = ["--tls", certs["hop.pem"], certs["hop.key"], "--auth",
              world.folder + "/secrets.json", "--bdat"]
    proc, port = start(world, *server, "--fault", "quit:delay=1")
    context = ssl.create_default_context(cafile=certs["ca.pem"])
    for mechanism in ("auth_plain", "auth_login"):
        with smtplib.SMTP("localhost", port, timeout=20) as client:
            client.starttls(context=context)
            client.ehlo()
            client.user, client.password = "anybody", "anything"
            code, _ = client.auth(mechanism[5:].upper(), getattr(client, mechanism))
            assert code == 235
            client.sendmail(ALICE, [BOB], message(token()))
    done = koukan_smtp(world, "--tls-ca", certs["ca.pem"], "--bdat", "--auth-user", "u",
                       "--auth-password-stdin", port=port, host="localhost", text=b"pw\n")
    assert done.returncode == 0, done.stdout.decode()
    assert len(taken(proc)) == 3
    # a handshake that fails: required is not sent, opportunistic goes in plain
    proc, port = start(world, *server, "--fault", "tls:junk")
    done = koukan_smtp(world, "--starttls", port=port)
    assert done.returncode == 1 and "4.7.5 TLS handshake failed" in done.stdout.decode()
    assert koukan_smtp(world, port=port).returncode == 0
    # TLS from the first byte
    proc, port = start(world, *server, "--smtps", "--fault", "quit:delay=1")
    done = koukan_smtp(world, "--tls", "--tls-ca", certs["ca.pem"], port=port, host="localhost")
    assert done.returncode == 0, done.stdout.decode()


def test_bytes_of_the_message(world):
    """Dots, and chunks with dots: what is stored is what was sent."""
    proc, port = start(world, "--bdat", "--fault", "quit:delay=1")
    text = "Subject: x\r\n\r\n.\r\n..\r\n.x\r\n"
    with Raw(port) as client:
        client.begin()
        assert client.code("DATA") == 354
        client.send(text.replace("\r\n.", "\r\n..") + ".\r\n")
        assert client.reply()[0] == 250
        client.begin()
        client.send("BDAT 16\r\n" + text[:16])
        assert client.reply()[0] == 250
        client.send(f"BDAT {len(text) - 16} LAST\r\n" + text[16:])
        assert client.reply()[0] == 250
        assert client.code("BDAT 0 LAST") == 503
        auth = base64.b64encode(b"\0u\0p").decode()
        assert client.code("AUTH PLAIN " + auth) == 235
    assert [each["body"] for each in taken(proc)] == [text, text]


@pytest.mark.parametrize("fault", ["", "mail", "mail:", "mail:99", "mail:600 x", "mail:delay",
                                   "mail:delay=0", "mail/0:drop", "nowhere:drop", "mail:dropped"])
def test_bad_faults(world, fault):
    proc = world.start_proc("sink", "sink", "0", "--fault", fault)
    assert proc.popen.wait(timeout=20) == 2 and "usage: koukan sink" in proc.err()
    world.procs.remove(proc)
