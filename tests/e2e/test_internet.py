# SPDX-License-Identifier: Apache-2.0
"""Two sites of config/examples/public-internet on an Internet of their own: they exchange mail and
every check passes; what is forged, relayed or unknown is refused.  Needs root (internet.py)."""
import base64
import concurrent.futures
import email
import http.client
import json
import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess

import pytest

from devkit import procs
from internet import DNS, CannotMake, Client, Internet, Site, TlsClient
from mail import message, token

pytestmark = pytest.mark.slow

SPOOFER, NAMELESS, LIAR, STRANGER = "203.0.113.66", "203.0.113.77", "203.0.113.78", "203.0.113.88"


def build(net):
    net.host("elsewhere", SPOOFER, NAMELESS, LIAR, STRANGER)
    net.sender_domain("spoof.example", SPOOFER)
    net.sender_domain("nameless.example", NAMELESS, reverse=False)
    net.sender_domain("liar.example", LIAR, reverse=False)
    net.reverse(LIAR, "mail.one.example")
    net.sender_domain("stranger.example", STRANGER)
    net.records += ["trap.example. 60 IN MX 10 trap-mx.example.", "trap-mx.example. 60 IN A 127.0.0.1",
                    "trap-mx.example. 60 IN A 10.1.2.3", "null.example. 60 IN MX 0 ."]
    net.one = Site(net, "one", "192.0.2.25", "2001:db8:1::25", "two.example", activated=True)
    net.two = Site(net, "two", "198.51.100.25", "2001:db8:2::25", "partner.example",
                   activated=False)
    for site in (net.one, net.two):
        site.finish_setup()
        site.start()
    net.dns = net.start_dns()
    for site in (net.one, net.two):
        site.wait_ready()


@pytest.fixture(name="net", scope="module")
def net_fixture():
    try:
        net = Internet()
    except CannotMake as error:
        pytest.skip(f"no network namespaces: {error}")
    try:
        build(net)
        yield net
    finally:
        net.close()


@pytest.fixture(autouse=True)
def show_servers(net, request):
    """What the servers said, when a test fails."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        print(net.world.report())


def trust(net):
    return ssl.create_default_context(cafile=net.ca)


def login(net, site, user="alice", implicit=False):
    """A user of the site at home, where addresses have no names."""
    home = net.hosts["elsewhere"]
    if implicit:
        client = TlsClient(home, site, trust(net))
    else:
        client = Client(home, site, 587, source=NAMELESS)
        client.starttls(context=trust(net))
    client.login(user, site.passwords[user])
    return client


def arrived(site, mark, seconds=20.0):
    got = site.mailboxes.wait_for(mark, seconds)
    return got, email.message_from_bytes(got.data)


def flat(text):
    return re.sub(r"\s+", " ", text)


def assert_all_passes(site, got, sender, user):
    """Authentication-Results and Received of mail that came from `sender`."""
    results = flat(got["Authentication-Results"])
    assert results.startswith(f"{site.mail_host};"), results
    assert len(got.get_all("Authentication-Results")) == 1
    assert re.search("iprev=pass policy.iprev=\"?(" + "|".join(map(re.escape, sender.addresses))
                     + ")", results), results
    mail_from = f"smtp.mailfrom={user}@{sender.domain}" if user else \
        f"smtp.helo={sender.mail_host}"
    assert f"spf=pass {mail_from}" in results, results
    for selector, kind in (("rsa2026", "rsa-sha256"), ("ed2026", "ed25519-sha256")):
        assert f"dkim=pass header.d={sender.domain} header.s={selector} header.a={kind}" \
            in results, results
    assert f"dmarc=pass header.from={sender.domain}" in results, results
    assert "fail" not in results and "error" not in results
    received = flat(got.get_all("Received")[0])
    assert received.startswith(f"from {sender.mail_host} ({sender.mail_host}. ["), received
    assert f"by {site.mail_host} with ESMTPS for" in received, received


def test_the_example_files_pass_the_check(net):
    for site in (net.one, net.two):
        done = subprocess.run(
            [net.binary, "config", "check", *(os.path.join(site.etc, name)
                                              for name in ("gateway.yaml", "router.yaml"))],
            check=False, stdout=subprocess.PIPE)
        assert done.stdout.decode() == "2 files: 0 errors, 0 warnings\n"


def test_the_gateways_have_no_more_rights_than_they_need(net):
    for site, capabilities in ((net.one, 0), (net.two, 1 << 10)):
        for server in (site.router, site.gateway):
            with open(f"/proc/{server.pid}/status", encoding="ascii") as file:
                status = dict(line.split(":\t", 1) for line in file.read().splitlines())
            assert set(status["Uid"].split()) == {"65534"} and status["Groups"].strip() == ""
            wanted = capabilities if server is site.gateway else 0
            assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapAmb")} == {wanted}


@pytest.mark.parametrize("implicit", [False, True], ids=["587", "465"])
def test_mail_and_reply(net, implicit):
    mark, back = token(), token()
    one, two = net.one, net.two
    with login(net, one, implicit=implicit) as client:
        client.sendmail("alice@one.example", ["bob@two.example"],
                        message(mark, sender="alice@one.example", rcpt="bob@two.example"))
    envelope, got = arrived(two, mark)
    assert envelope.mail_from.startswith("MAIL FROM:<alice@one.example>")
    assert_all_passes(two, got, one, "alice")
    first = flat(got.get_all("Received")[-1])
    assert "by mail.one.example with ESMTPSA for bob@two.example" in first, first
    with login(net, two, user="bob", implicit=implicit) as client:
        client.sendmail("bob@two.example", ["alice+reply@one.example"],
                        message(back, sender="bob@two.example", rcpt="alice+reply@one.example"))
    envelope, got = arrived(one, back)
    assert_all_passes(one, got, two, "bob")


def test_users_of_one_site(net):
    """Own mail takes the short way, with our own IP in no check."""
    mark = token()
    with login(net, net.one) as client:
        client.sendmail("alice@one.example", ["bob@one.example"],
                        message(mark, sender="alice@one.example", rcpt="bob@one.example"))
    _, got = arrived(net.one, mark)
    assert len(got.get_all("DKIM-Signature")) == 2 and "Authentication-Results" not in got


def test_the_commands_of_the_walk_through(net, tmp_path):
    """docs/public-internet.md: what to ask before and after the first mail."""
    mark = token()
    with login(net, net.one) as client:
        client.sendmail("alice@one.example", ["bob@two.example"],
                        message(mark, sender="alice@one.example", rcpt="bob@two.example"))
    envelope, _ = arrived(net.two, mark)
    (tmp_path / "message.eml").write_bytes(envelope.data)

    def koukan(*arguments):
        done = subprocess.run(net.hosts["elsewhere"].argv(net.tool, *arguments, "--dns", DNS),
                              check=False, stdout=subprocess.PIPE)
        assert done.returncode == 0, done.stdout.decode()
        return done.stdout.decode()

    assert "10 mail.one.example.: 192.0.2.25" in koukan("resolve", "one.example")
    for sender in ("alice@one.example", ""):
        for address in net.one.addresses:
            assert "result: pass" in koukan("spf", "check", "--ip", address, "--helo",
                                            "mail.one.example", "--from", sender)
    assert koukan("dkim", "verify", str(tmp_path / "message.eml")).count(": pass ") == 2


def test_programs_send_by_rest(net):
    one, mark = net.one, token()

    def post(sender, key):
        api = http.client.HTTPConnection("127.0.0.1", 8000, timeout=20)
        with one.host.inside():
            api.connect()
        headers = {"content-type": "application/json"}
        if key:
            with open(os.path.join(one.etc, f"{key}.apikey"), encoding="ascii") as file:
                headers["authorization"] = "Bearer " + file.readline().strip()
        text = message(mark, sender="shop@one.example", rcpt="bob@two.example").decode()
        api.request("POST", f"/senders/{sender}/transactions", json.dumps({
            "mail_from": {"m": "shop@one.example"}, "rcpt_to": [{"m": "bob@two.example"}],
            "body": {"inline": text}}), headers)
        status = api.getresponse().status
        api.close()
        return status

    assert post("submission", None) == 401
    assert post("ingress", "application") == 403
    assert post("submission", "monitoring") == 403
    assert post("submission", "application") == 201
    _, got = arrived(net.two, mark)
    assert_all_passes(net.two, got, one, "shop")


# ---- submission ----

def test_submission_needs_tls_and_a_password(net):
    home = net.hosts["elsewhere"]
    plain = base64.b64encode(b"\0alice\0" + net.one.passwords["alice"].encode()).decode()
    with Client(home, net.one, 587, source=NAMELESS) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH", "PLAIN " + plain)[0] == 538
        assert client.mail("alice@one.example")[0] == 530
        client.starttls(context=trust(net))
        client.ehlo()
        assert "auth" in client.esmtp_features
        assert client.mail("alice@one.example")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login("alice", "wrong")
        assert caught.value.smtp_code == 535
    with Client(home, net.one, 25, source=SPOOFER, ehlo="mail.spoof.example") as client:
        client.starttls(context=trust(net))
        client.ehlo()
        assert "auth" not in client.esmtp_features


def test_users_send_for_their_own_domain_only(net):
    with login(net, net.one) as client:
        code, text = client.mail("ceo@two.example")
        if code == 250:
            code, text = client.rcpt("bob@two.example")
        assert code == 550 and text.startswith(b"5.7.1"), (code, text)
        client.rset()
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("alice@one.example", ["bob@two.example"],
                            message(token(), sender="ceo@two.example", rcpt="bob@two.example"))
        assert caught.value.smtp_code == 550 and caught.value.smtp_error.startswith(b"5.7.1")


@pytest.mark.parametrize("domain, want, text", [
    ("trap.example", 550, b"5.1.2"),   # its MX is loopback and a private address
    ("null.example", 556, b"5.1.10"),  # RFC 7505
    ("nowhere.example", 550, b"5.1.2"),
])
def test_destinations_that_are_none(net, domain, want, text):
    before = net.one.mailboxes.sessions
    with login(net, net.one) as client:
        client.mail("alice@one.example")
        code, got = client.rcpt(f"x@{domain}")
        assert code == want and got.startswith(text), (code, got)
    assert net.one.mailboxes.sessions == before


# ---- port 25: who is it, is it so ----

def refusal(net, source, ehlo, sender, rcpt, data=None, tls=True):
    """How a session from elsewhere with site two ends: where, code, text."""
    with Client(net.hosts["elsewhere"], net.two, source=source, ehlo=ehlo) as client:
        if tls:
            client.starttls(context=trust(net))
        client.ehlo()
        for step, (code, text) in (("mail", client.mail(sender)), ("rcpt", client.rcpt(rcpt))):
            if code != 250:
                return step, code, text.decode()
        if data is None:
            return "rcpt", code, text.decode()
        code, text = client.data(data)
        return "data", code, text.decode()


SPOOF = "mail.spoof.example"


def test_the_third_host_is_no_outlaw(net):
    """Its own mail comes through: what is refused below is refused for what it claims."""
    mark = token()
    where, code, text = refusal(net, SPOOFER, SPOOF, "a@spoof.example", "bob@two.example",
                                message(mark, sender="a@spoof.example"))
    assert (where, code) == ("data", 250), text
    _, got = arrived(net.two, mark)
    results = flat(got["Authentication-Results"])
    assert "spf=pass" in results and "dkim=none" in results and "dmarc=none" in results


@pytest.mark.parametrize("sender, header, wanted, text", [
    ("alice@one.example", "alice@one.example", ("mail", "rcpt"), "5.7.23"),
    ("alice@mail.one.example", "alice@one.example", ("mail", "rcpt"), "5.7.23"),
    ("a@spoof.example", "alice@one.example", ("data",), "5.7.1"),
    ("a@spoof.example", "ceo@sub.one.example", ("data",), "5.7.1"),
    ("", "alice@one.example", ("data",), "5.7.1"),
])
def test_spoofed_mail_is_refused(net, sender, header, wanted, text):
    mark = token()
    forged = b"Authentication-Results: mail.two.example; dmarc=pass header.from=one.example\r\n"
    where, code, got = refusal(net, SPOOFER, SPOOF, sender, "bob@two.example",
                               forged + message(mark, sender=header))
    assert where in wanted and code == 550 and got.startswith(text + " "), (where, code, got)
    assert not net.two.mailboxes.with_text(mark)


def test_two_authors_are_none(net):
    data = message(token(), sender="a@spoof.example").replace(
        b"From: Alice <a@spoof.example>", b"From: a@spoof.example, alice@one.example")
    where, code, text = refusal(net, SPOOFER, SPOOF, "a@spoof.example", "bob@two.example", data)
    assert (where, code) == ("data", 550) and text.startswith(("5.7.1 ", "5.6.0 ")), text


def test_a_stolen_signature_does_not_cover_other_words(net):
    mark = token()
    with login(net, net.one) as client:
        client.sendmail("alice@one.example", ["bob@two.example"],
                        message(mark, sender="alice@one.example", rcpt="bob@two.example"))
    envelope, _ = arrived(net.two, mark)
    signed = envelope.data[envelope.data.index(b"DKIM-Signature"):]
    again = token()
    for data, wanted in ((signed, 250), (signed.replace(mark.encode(), again.encode()), 550)):
        where, code, text = refusal(net, SPOOFER, SPOOF, "a@spoof.example", "bob@two.example", data)
        assert (where, code) == ("data", wanted), text
    assert not net.two.mailboxes.with_text(again)


@pytest.mark.parametrize("rcpt, code, text", [
    ("bob@stranger.example", 550, "5.7.1 we do not relay"),
    ("bob%stranger.example@two.example", 550, "5.1.1"),
    ("nobody@two.example", 550, "5.1.1"),
    ("postmaster@two.example", 250, ""),
    ("abuse@two.example", 250, ""),
    ("Bob+lists@two.example", 250, ""),
])
def test_recipients(net, rcpt, code, text):
    where, got, words = refusal(net, SPOOFER, SPOOF, "a@spoof.example", rcpt, tls=False)
    assert (where, got) == ("rcpt", code) and words.startswith(text), (where, got, words)


@pytest.mark.parametrize("source, domain", [(NAMELESS, "nameless.example"), (LIAR, "liar.example")],
                         ids=["no name", "a name that leads elsewhere"])
def test_hosts_without_reverse_dns(net, source, domain):
    where, code, text = refusal(net, source, f"mail.{domain}", f"a@{domain}", "bob@two.example")
    assert where in ("mail", "rcpt") and code == 550 and text.startswith("5.7.25 "), text


def test_senders_that_cannot_be_answered(net):
    for domain in ("null.example", "nowhere.example"):
        where, code, text = refusal(net, SPOOFER, SPOOF, f"a@{domain}", "bob@two.example")
        assert where in ("mail", "rcpt") and code == 550 and text.startswith("5.1.8 "), text


# ---- later ----

def test_a_bounce_comes_back(net):
    """Accepted by two, refused by its mailboxes afterwards: the report goes over the Internet to the
    sender, from the null sender, and passes one's checks."""
    one, two = net.one, net.two
    mark = token()
    answers = ["451 4.2.2 full", "550 5.2.2 full for good"]

    def on_data(taken):
        if mark in taken.text and "alice@two.example" in taken.rcpts[0]:
            return answers.pop(0)
        return None
    two.mailboxes.on_data = on_data
    try:
        with Client(one.host, two, address=two.addresses[-1], ehlo=one.mail_host) as client:
            client.starttls(context=trust(net))
            refused = client.sendmail(
                "alice@one.example", ["bob@two.example", "alice@two.example"],
                message(mark, sender="alice@one.example", rcpt="bob@two.example"))
            assert refused == {}
        _, got = arrived(two, mark)
        assert f"policy.iprev={one.addresses[-1]}" in got["Authentication-Results"].replace('"', "")
        assert len(answers) == 1
        two.queue("retry", "--to", "alice@two.example")
        envelope, got = arrived(one, mark)
    finally:
        two.mailboxes.on_data = None
    assert envelope.mail_from.startswith("MAIL FROM:<>")
    assert envelope.rcpts[0].startswith("RCPT TO:<alice@one.example>")
    assert_all_passes(one, got, two, None)
    assert got.get_content_type() == "multipart/report"
    status = got.get_payload()[1].as_string()
    assert "Final-Recipient: rfc822;alice@two.example" in status.replace("; ", ";")
    assert "Action: failed" in status and "5.2.2" in status


def test_verified_tls_and_a_renewed_certificate(net):
    """One sends to two with a verified certificate only; with a wrong one the mail waits."""
    one, two = net.one, net.two
    tls = os.path.join(two.etc, "tls")

    def renew(name):
        net.certificate(name, tls)
        two.gateway.signal(signal.SIGHUP)
        assert two.notified.next().startswith("RELOADING=1\n")
        assert two.notified.next() == "READY=1"

    mark = token()
    renew("mail.wrong.example")
    try:
        procs.wait_until(lambda: not established(one, two), "idle connections to end")
        with login(net, one) as client:  # 250: ours now
            client.sendmail("alice@one.example", ["bob@two.example"],
                            message(mark, sender="alice@one.example", rcpt="bob@two.example"))
        listed = one.queue("list", "--to", "bob@two.example", "--json")
        assert "4.7.5" in one.queue("show", re.search(r'"id": ?"([^"]+)"', listed).group(1))
        assert not two.mailboxes.with_text(mark)
    finally:
        renew("mail.two.example")
    one.queue("retry", "--to", "bob@two.example")
    _, got = arrived(two, mark)
    assert_all_passes(two, got, one, "alice")


def established(one, two):
    """Connections of one's gateway to two's port 25, which are kept for the next message."""
    done = subprocess.run(one.host.argv("cat", "/proc/net/tcp", "/proc/net/tcp6"), check=False,
                          stdout=subprocess.PIPE)
    return [line for line in done.stdout.decode().splitlines()
            if re.match(r"\s*\d+: \S+ \S+:0019 01 ", line)]


def test_without_dns_nothing_is_refused_for_good(net):
    def send(rcpt):
        mark = token()
        with login(net, net.one) as client:
            client.sendmail("alice@one.example", [rcpt],
                            message(mark, sender="alice@one.example", rcpt=rcpt))
        return mark

    net.dns.stop()
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:  # both wait for the resolver
            outside = pool.submit(refusal, net, STRANGER, "mail.stranger.example",
                                  "a@stranger.example", "bob@two.example")
            sent = pool.submit(send, "x@stranger.example")
            where, code, text = outside.result()
            sent.result()
        assert where in ("mail", "rcpt") and code in (450, 451), (where, code, text)
        assert "x@stranger.example" in net.one.queue("list", "--to", "x@stranger.example")
        arrived(net.one, send("bob@one.example"))  # needs no DNS
    finally:
        net.dns = net.start_dns()
    # Tried again, as by a real sender: the resolver remembers for some seconds that it failed, and
    # the site takes 60 connections in a minute.
    procs.wait_until(lambda: refusal(net, STRANGER, "mail.stranger.example", "a@stranger.example",
                                     "bob@two.example")[:2] == ("rcpt", 250), "its next attempt",
                     pause=0.5)
    net.one.queue("cancel", "--all")


def test_nothing_is_left_of_it():
    """The namespaces, their processes and files go, also when a test has failed."""
    try:
        net = Internet()
    except CannotMake as error:
        pytest.skip(f"no network namespaces: {error}")
    try:
        net.host("alone", "192.0.2.1")
        with net.hosts["alone"].inside(), socket.create_server(("192.0.2.1", 25)):
            pass
        assert len(net.spaces) == 3
    finally:
        net.close()
    left = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    assert not any(name.startswith(net.tag) for name in left) and not os.path.exists(net.folder)
