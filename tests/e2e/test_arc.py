# SPDX-License-Identifier: Apache-2.0
"""ARC against dkimpy in both directions, against public samples, and through the servers; and the
matchers of policies that look at the world."""
import glob
import os
import re
import smtplib

import dkim
import pytest

from mail import APP, BOB, message, submit, token
from nameserver import SERVFAIL, Nameserver
from test_mailauth import CORPUS, koukan, make_key, messages, txt_of, with_resolver

ID = "mx.us.test"


@pytest.fixture(name="zone")
def nameserver_fixture():
    server = Nameserver({})
    yield server
    server.close()


def awkward():
    """Some of the messages: what they are about is tried with all of them for DKIM."""
    return list(messages())[::3]


def we_seal(zone, key, data, selector="sel"):
    done = koukan("arc", "seal", "--key", key, "--domain", "example.com", "--selector", selector,
                  "--id", ID, "--dns", zone.address, "-", data=data)
    assert done.returncode == 0, done.stderr
    return done.stdout


def they_seal(zone, key, data):
    """dkimpy takes cv= from arc= in our own results; it knows no Ed25519 here."""
    with open(key, "rb") as file:
        secret = file.read()
    state = dkim.arc_verify(data, dnsfunc=txt_of(zone))[0].decode()
    data = re.sub(rb"(?m)^Authentication-Results: mx.us.test; arc=.*\r\n", b"", data)
    data = f"Authentication-Results: {ID}; arc={state}\r\n".encode() + data
    fields = dkim.arc_sign(data, b"sel", b"example.com", secret, ID.encode(),
                           include_headers=[b"from", b"to", b"subject"])
    return b"".join(fields) + data


def we_say(zone, data):
    done = koukan("arc", "verify", "--dns", zone.address, "-", data=data)
    result = [line for line in done.stdout.decode().splitlines() if line.startswith("result: ")]
    assert len(result) == 1, (done.stdout, done.stderr)
    assert (done.returncode == 0) == (result[0] == "result: pass")
    return result[0].split()[1]


def they_say(zone, data):
    """None is dkimpy's word for a chain that is known to have failed."""
    return (dkim.arc_verify(data, dnsfunc=txt_of(zone))[0] or b"fail").decode()


def test_dkimpy_verifies_what_we_seal(tmp_path, zone):
    key = make_key(tmp_path, zone)
    for number, data in enumerate(awkward()):
        results = f"Authentication-Results: {ID}; spf=pass smtp.mailfrom=a@b.test\r\n".encode()
        sealed = we_seal(zone, key, results + data)
        assert sealed.endswith(results + data)
        assert they_say(zone, sealed) == "pass", sealed
        if number % 3 == 0:
            again = we_seal(zone, key, sealed)
            assert b"i=2; " in again and b"cv=pass" in again
            assert they_say(zone, again) == "pass" and we_say(zone, again) == "pass", again


def test_we_verify_what_dkimpy_seals(tmp_path, zone):
    key = make_key(tmp_path, zone)
    for number, data in enumerate(awkward()):
        sealed = they_seal(zone, key, data)
        assert we_say(zone, sealed) == "pass", sealed
        changed = sealed.replace(b"folded", b"Folded")
        assert changed != sealed and we_say(zone, changed) == "fail"
        if number % 3 == 0:
            again = they_seal(zone, key, sealed)
            assert we_say(zone, again) == "pass", again


def test_chains_of_both(tmp_path, zone):
    """We and dkimpy in turn; a broken chain is sealed once more, then left alone."""
    theirs = make_key(tmp_path, zone, selector="sel")
    ours = make_key(tmp_path, zone, "--bits", "1024", selector="us")
    data = message(token())
    for turn in range(4):
        data = we_seal(zone, ours, data, "us") if turn % 2 else they_seal(zone, theirs, data)
        assert we_say(zone, data) == they_say(zone, data) == "pass", data
    broken = data.replace(b"\r\nSubject: ", b"\r\nSubject: [list] ")
    assert we_say(zone, broken) == they_say(zone, broken) == "fail"
    sealed = we_seal(zone, theirs, broken)
    assert sealed.startswith(b"ARC-Seal: i=5; a=rsa-sha256; cv=fail; ")
    assert we_say(zone, sealed) == they_say(zone, sealed) == "fail"
    done = koukan("arc", "seal", "--key", theirs, "--domain", "example.com", "--selector", "sel",
                  "--id", ID, "--dns", zone.address, "-", data=sealed)
    assert done.returncode == 1 and b"takes no further set" in done.stderr and not done.stdout
    zone.zone["us._domainkey.example.com"] = {"fault": SERVFAIL}
    assert we_say(zone, data) == "temperror"


def test_public_samples(zone):
    files = sorted(glob.glob(os.path.join(CORPUS, "arc-dmarc-stalwart", "arc", "*.txt")))
    if not files:
        pytest.skip("no arc-dmarc-stalwart in ../shared/testdata (KOUKAN_CORPUS)")
    for path in files:
        with open(path, "rb") as file:
            records, _, sample = file.read().replace(b"\r\n", b"\n").partition(b"\n\n")
        for line in records.decode().splitlines():
            name, _, text = line.partition(" ")
            zone.zone[name.lower().rstrip(".")] = {"TXT": [text]}
        assert we_say(zone, sample) == "pass", path
        assert we_say(zone, sample.replace(b"cv=none", b"cv=pass")) == "fail"


FILTERS = """  - filter: dkim_check
  - filter: dmarc_check
  - filter: arc_check
  - filter: policy_action
    tag: dmarc
    match:
      all:
      - {matcher: dmarc, result: fail}
      - not: {matcher: arc, sealers: [example.com]}
    action: REJECT
    message: 5.7.1 nobody vouches for this message
  - filter: auth_results
    authserv_id: mx.us.test
  - filter: arc_seal
    key: KEY
    domain: us.test
    selector: sel
    authserv_id: mx.us.test
"""


def test_forwarded_mail_passes(world, zone, tmp_path):
    """A list changes what p.test has signed; it has sealed what it got, and we believe it."""
    key = make_key(tmp_path, zone)
    zone.zone["sel._domainkey.us.test"] = zone.zone["sel._domainkey.example.com"]
    zone.zone["_dmarc.p.test"] = {"TXT": ["v=DMARC1; p=reject"]}
    place = "  - filter: exploder\n    msa: false\n"

    def edit(text):
        assert text.count(place) == 1
        return with_resolver(text.replace(place, FILTERS.replace("KEY", key) + place), zone)
    hop = world.hop()
    world.start(edit_router=edit)
    mark = token()
    data = message(mark, sender="joe@p.test")
    code, text = submit(world.ingress, mark, data=data)
    assert code == 550 and text.startswith("5.7.1 nobody vouches"), (code, text)
    sealed = we_seal(zone, key, f"Authentication-Results: {ID}; dmarc=pass\r\n".encode() + data)
    code, text = submit(world.ingress, mark, data=sealed)
    assert code == 250, text
    got = hop.wait_for(mark).data
    seal = got[got.index(b"ARC-Seal: "):]
    assert seal.startswith(b"ARC-Seal: i=2; a=rsa-sha256; cv=pass; d=us.test; ")
    assert b"ARC-Authentication-Results: i=2; mx.us.test;\r\n" in seal
    assert b"arc=pass\r\n\t smtp.remote-ip=127.0.0.1\r\n" in seal
    assert they_say(zone, seal) == we_say(zone, seal) == "pass", seal
    code, text = submit(world.ingress, mark, data=sealed.replace(b"Subject: ", b"Subject: [x] "))
    assert code == 550 and text.startswith("5.7.1 nobody vouches"), (code, text)
    mark = token()
    plain = message(mark, sender="joe@other.test")
    assert submit(world.ingress, mark, data=plain)[0] == 250
    got = hop.wait_for(mark).data
    assert b"ARC-Seal: i=1; a=rsa-sha256; cv=none; " in got
    assert they_say(zone, got[got.index(b"ARC-Seal: "):]) == "pass"


MATCHERS = """  - filter: policy_action
    tag: rate
    match: {matcher: rate, by: mail_from, window: 3600, count: 3}
    action: REJECT
    code: 450
    message: 4.7.1 too much mail from you
  - filter: policy_action
    tag: domain
    match: {matcher: mail_from_domain, domains: [bad.test], subdomains: yes}
    action: REJECT
    message: 5.7.1 not from there
  - filter: policy_action
    tag: rcpt
    mode: PER_RCPT
    match: {matcher: rcpt_domain, domains: [rest-application.example.com]}
    action: REJECT
    message: 5.1.2 not to there
  - filter: policy_action
    tag: size
    match: {matcher: size, over: 10k}
    action: REJECT
    message: 5.3.4 too big
  - filter: policy_action
    tag: subject
    match: {matcher: header, name: Subject, regex: '(?i)^you have won'}
    action: REJECT
    message: 5.7.1 no
"""


def test_matchers(world, zone):
    place = "  - filter: exploder\n    msa: false\n"

    def edit(text):
        assert text.count(place) == 1
        return with_resolver(text.replace(place, MATCHERS + place), zone)
    hop = world.hop()
    world.start(edit_router=edit)

    def outcome(sender="a@b.test", rcpt=BOB, data=None):
        mark = token()
        try:
            code, text = submit(world.ingress, mark, sender=sender, rcpts=[rcpt],
                                data=data or message(mark))
        except Exception as error:  # smtplib's, of MAIL or RCPT
            reply = getattr(error, "recipients", {}).get(rcpt) or error.args
            code, text = reply[0], reply[1].decode()
        if code == 250:
            hop.wait_for(mark)
        return code, text.split()[0]
    assert outcome("x@sub.bad.test") == (550, "5.7.1")
    assert outcome("x@bad.test") == (550, "5.7.1")
    assert outcome("x@notbad.test")[0] == 250
    assert outcome("y@b.test", rcpt=APP) == (550, "5.1.2")
    big = message(token(), body="x" * 70 + "\r\n" + "line\r\n" * 2000)
    assert outcome("z@b.test", data=big) == (550, "5.3.4")
    won = message(token()).replace(b"Subject: ", b"Subject: =?utf-8?q?You_have_w=6Fn?= ")
    assert outcome("w@b.test", data=won) == (550, "5.7.1")
    # both workers count together, upper and lower case are the same
    for sender in ("a@b.test", "A@b.test", "a@B.test"):
        assert outcome(sender)[0] == 250
    assert outcome() == (450, "4.7.1") and outcome() == (450, "4.7.1")
    assert outcome("c@b.test")[0] == 250


def test_listed_client(world, zone):
    """One list names us for something else, one does not answer, one lists us."""
    place = "  - filter: exploder\n    msa: false\n"
    filters = """  - filter: dnsbl_check
    zones: [zen.list.test, slow.list.test, last.list.test]
  - filter: policy_action
    tag: unknown
    match: {not: {matcher: dnsbl, zones: [slow.list.test]}}
    action: REJECT
    message: 5.7.1 what is unknown is neither true nor false
  - filter: policy_action
    tag: listed
    match: {matcher: dnsbl, codes: [127.0.0.2]}
    action: REJECT
    message: 5.7.1 listed
"""
    zone.zone["1.0.0.127.zen.list.test"] = {"A": ["127.0.0.3"]}
    zone.zone["1.0.0.127.slow.list.test"] = {"fault": SERVFAIL}

    def edit(text):
        assert text.count(place) == 1
        return with_resolver(text.replace(place, filters + place), zone)
    hop = world.hop()
    zone.zone["1.0.0.127.last.list.test"] = {"A": ["127.0.0.2", "127.0.0.4"]}
    world.start(edit_router=edit)
    with pytest.raises(smtplib.SMTPSenderRefused) as refused:
        submit(world.ingress, token())
    assert refused.value.smtp_code == 550 and refused.value.smtp_error == b"5.7.1 listed"
    assert not hop.taken
