# SPDX-License-Identifier: Apache-2.0
"""DKIM against dkimpy by the command line, public samples, SPF on a resolver, the filters in
servers.  Many messages: test_dkim_oracle.py; pyspf: test_spf_oracle.py."""
import glob
import os
import random
import re
import stat
import subprocess

import dkim
import pytest

from mail import BOB, message, submit, token
from nameserver import SERVFAIL, TRUNCATED, Nameserver
from world import BINARY, ROOT

CORPUS = os.environ.get("KOUKAN_CORPUS", os.path.join(os.path.dirname(ROOT), "shared", "testdata"))


def koukan(*arguments, data=None):
    return subprocess.run([BINARY, *arguments], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, check=False)


@pytest.fixture(name="zone")
def nameserver_fixture():
    server = Nameserver({})
    yield server
    server.close()


# ---- keys ----

def make_key(folder, zone, *arguments, selector="sel"):
    """A key of ours; its record goes into the zone as printed."""
    path = os.path.join(folder, f"{selector}.pem")
    done = koukan("dkim", "key", "--domain", "example.com", "--selector", selector, "--out", path,
                  *arguments)
    assert done.returncode == 0, done.stderr
    owner, _, rest = done.stdout.decode().partition(". IN TXT ")
    zone.zone[owner] = {"TXT": ["".join(re.findall(r'"([^"]*)"', rest))]}
    return path


def txt_of(zone):
    """The look-up function that dkimpy wants."""
    def look_up(name, timeout=5):
        rows = zone.zone.get(name.decode().lower().rstrip("."), {})
        return rows["TXT"][0].encode() if rows.get("TXT") else None
    return look_up


def test_key_is_private_and_never_overwritten(tmp_path, zone):
    path = make_key(tmp_path, zone)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    done = koukan("dkim", "key", "--domain", "example.com", "--selector", "s", "--out", path)
    assert done.returncode == 1 and b"exists" in done.stderr
    for wrong in (["--bits", "1023"], ["--bits", "4097"], ["--type", "dsa"]):
        done = koukan("dkim", "key", "--domain", "example.com", "--selector", "s", "--out",
                      path + "x", *wrong)
        assert done.returncode != 0 and not os.path.exists(path + "x")


# ---- messages of awkward shapes ----

HEADER = (b"From: Joe <joe@example.com>\r\nTo: sue@example.org\r\nSubject: =?utf-8?q?=C3=A9?=\r\n"
          b" folded\r\nX-Twice: 1\r\nX-Twice: 2\r\nMessage-ID: <1@example.com>\r\n"
          b"Date: Fri, 11 Jul 2003 21:00:37 -0700\r\n")
BODIES = [b"", b"\r\n", b"\r\n\r\n\r\n", b"text\r\n", b"no end", b" \r\n", b"a  b\t\tc \r\n",
          b"\r\n\r\nleading\r\n", b"trailing\r\n\r\n\r\n", b".\r\n..\r\n", b"\t\r\n \r\nx\r\n \t\r\n",
          b"long " * 5000 + b"\r\n", bytes(range(128, 256)) + b"\r\n", b"From me\r\n",
          b"x\r\n" * 3000, b"=20\r\n--b\r\n"]


def messages():
    rng = random.Random(6376)
    for body in BODIES:
        yield HEADER + b"\r\n" + body
    for _ in range(14):
        pieces = [rng.choice([b"a", b"bc", b" ", b"\t", b"\r\n", b"\r\n\r\n", b"."])
                  for _ in range(rng.randrange(60))]
        # dkimpy leaves white space at the very end where no line end follows; SMTP always has one.
        yield HEADER + b"\r\n" + b"".join(pieces) + b"\r\n"


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_dkimpy_verifies_what_we_sign(tmp_path, zone, kind):
    key = make_key(tmp_path, zone, "--type", kind)
    for message in messages():
        done = koukan("dkim", "sign", "--key", key, "--domain", "example.com", "--selector", "sel",
                      "-", data=message)
        assert done.returncode == 0, done.stderr
        # Without CRLF it is a file with the line ends of its system.
        assert dkim.verify(done.stdout, dnsfunc=txt_of(zone)), done.stdout


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_we_verify_what_dkimpy_signs(tmp_path, zone, kind):
    key = make_key(tmp_path, zone, "--type", kind)
    with open(key, "rb") as file:
        secret = file.read()
    if kind == "ed25519":  # dkimpy wants the bare seed
        der = subprocess.run(["openssl", "pkey", "-in", key, "-outform", "DER"], check=True,
                             stdout=subprocess.PIPE).stdout
        secret = __import__("base64").b64encode(der[-32:])
    forms = [(a, b) for a in (b"simple", b"relaxed") for b in (b"simple", b"relaxed")]
    for number, message in enumerate(messages()):
        field = dkim.sign(message, b"sel", b"example.com", secret,
                          canonicalize=forms[number % 4],
                          signature_algorithm=kind.encode() + b"-sha256",
                          include_headers=[b"from", b"to", b"subject", b"x-twice", b"x-absent"])
        done = koukan("dkim", "verify", "--dns", zone.address, "-", data=field + message)
        assert done.returncode == 0, (done.stdout, field + message)
        if len(message) > len(HEADER) + 4:
            changed = (field + message).replace(b"folded", b"Folded")
            done = koukan("dkim", "verify", "--dns", zone.address, "-", data=changed)
            assert done.returncode == 1 and b"fail" in done.stdout


def test_public_samples(zone):
    files = sorted(glob.glob(os.path.join(CORPUS, "dkim-stalwart", "dkim", "*.txt")))
    if not files:
        pytest.skip("no dkim-stalwart in ../shared/testdata (KOUKAN_CORPUS)")
    samples = []
    for path in files:
        with open(path, "rb") as file:
            records, _, message = file.read().replace(b"\r\n", b"\n").partition(b"\n\n")
        for line in records.decode().splitlines():
            name, _, text = line.partition(" ")
            zone.zone[name.lower().rstrip(".")] = {"TXT": [text]}
        samples.append(message)
    for path, record, owner in (
            ("dkim-dkimpy/ed25519test2.msg", "dkim-dkimpy/eximtest.dns", "sed._domainkey.test.ex"),
            ("dkim-mimekit/rfc8463-example.msg", None, None),
            ("dkim-dkimpy/rfc6376.signed.msg", None, None)):
        with open(os.path.join(CORPUS, path), "rb") as file:
            samples.append(file.read())
        if record:
            with open(os.path.join(CORPUS, record), encoding="ascii") as file:
                zone.zone[owner] = {"TXT": [file.read().strip()]}
    for message in samples:
        done = koukan("dkim", "verify", "--dns", zone.address, "-", data=message)
        assert done.returncode == 0 and b"fail" not in done.stdout, (done.stdout, message)


# ---- SPF ----

def check(zone, ip, sender, helo="helo.example.com"):
    done = koukan("spf", "check", "--ip", ip, "--helo", helo, "--from", sender, "--dns",
                  zone.address)
    last = done.stdout.decode().strip().splitlines()
    result = [line for line in last if line.startswith("result: ")][0].split()[1]
    assert (done.returncode == 0) == (result == "pass")
    return result, done.stdout.decode()


def test_spf_on_a_real_resolver(zone):
    zone.zone.update({
        "example.com": {"TXT": ["v=spf1 mx include:other.test -all exp=why.test", "unrelated"],
                        "MX": ["10 mx.example.com."]},
        "mx.example.com": {"A": ["192.0.2.1"]},
        "other.test": {"TXT": ["v=spf1 ip6:2001:db8::/32 " + "x=y " * 300 + "?all"]},
        "why.test": {"TXT": ["%{i} may not"]},
        "alias.test": {"CNAME": ["example.com."]},
        "broken.test": {"fault": SERVFAIL},
        "big.test": {"TXT": TRUNCATED},
    })
    assert check(zone, "192.0.2.1", "a@example.com")[0] == "pass"
    assert check(zone, "2001:db8::5", "a@example.com")[0] == "pass"
    result, text = check(zone, "192.0.2.9", "a@example.com")
    assert result == "fail" and "explanation: 192.0.2.9 may not" in text and "-all" in text
    assert check(zone, "192.0.2.1", "a@alias.test")[0] == "pass"
    assert check(zone, "192.0.2.1", "a@broken.test")[0] == "temperror"
    assert check(zone, "192.0.2.1", "a@nothere.test")[0] == "none"
    assert check(zone, "192.0.2.1", "", helo="example.com")[0] == "pass"


# ---- through the servers ----

def with_resolver(text, zone):
    return text.replace("  dns_timeout: 1\n", f"  dns_timeout: 5\n  dns_forward: ['{zone.address}']\n")


def test_submission_is_signed(world, zone, tmp_path):
    rsa = make_key(tmp_path, zone, "--bits", "2048", selector="rsa")
    ed25519 = make_key(tmp_path, zone, "--type", "ed25519", selector="ed")
    place = "  - filter: message_builder\n"
    filters = (f"  - filter: dkim_sign\n    key: {rsa}\n    domain: example.com\n    selector: rsa\n"
               f"    signatures: [{{key: {ed25519}, domain: example.com, selector: ed}}]\n")

    def edit(text):
        assert text.count(place) == 1
        return text.replace(place, place + filters)
    hop = world.hop()
    world.start(edit_router=edit)
    for body in ("hello\r\n", "..dots\r\n \r\ntrailing  \r\n\r\n", "x" * 998 + "\r\n",
                 "line\r\n" * 60000):
        mark = token()
        code, text = submit(world.submission, mark, rcpts=["bob@example.org"],
                            data=message(mark, body=body))
        assert code == 250, text
        got = hop.wait_for(mark).data
        verifier = dkim.DKIM(got)
        for index in (0, 1):
            assert verifier.verify(idx=index, dnsfunc=txt_of(zone)), got[:2000]
        done = koukan("dkim", "verify", "--dns", zone.address, "-", data=got)
        assert done.returncode == 0 and done.stdout.count(b": pass ") == 2, done.stdout


def test_spoofed_mail_is_refused(world, zone, tmp_path):
    key = make_key(tmp_path, zone)
    zone.zone.update({
        "example.com": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
        "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
        "forwarder.test": {"TXT": ["v=spf1 ip4:127.0.0.1 -all"]},
    })
    place = "  - filter: exploder\n    msa: false\n"
    filters = """  - filter: spf_check
  - filter: dkim_check
  - filter: dmarc_check
  - filter: policy_action
    tag: dmarc
    match: {all: [{matcher: dmarc, result: fail}, {matcher: dmarc, policy: reject}]}
    action: REJECT
    code: 550
    message: 5.7.1 the domain of From does not vouch for this message
  - filter: auth_results
    authserv_id: mx.us.test
"""

    def edit(text):
        assert text.count(place) == 1
        return with_resolver(text.replace(place, filters + place), zone)
    hop = world.hop()
    world.start(edit_router=edit)
    # unsigned, from an address that may not send for the domain of From
    for sender in ("alice@example.com", "any@forwarder.test"):
        code, text = submit(world.ingress, token(), sender=sender)
        assert code == 550 and text.startswith("5.7.1"), (code, text)
    # signed, forwarded, with results that somebody made up
    mark = token()
    forged = b"Authentication-Results: MX.us.test; dmarc=pass\r\n" + message(mark)
    done = koukan("dkim", "sign", "--key", key, "--domain", "example.com", "--selector", "sel", "-",
                  data=forged)
    code, text = submit(world.ingress, mark, sender="any@forwarder.test", rcpts=[BOB],
                        data=done.stdout.replace(b"MX.us.test", b"mx.us.test"))
    assert code == 550, "a changed header is no pass"
    done = koukan("dkim", "sign", "--key", key, "--domain", "example.com", "--selector", "sel", "-",
                  data=message(mark))
    code, text = submit(world.ingress, mark, sender="any@forwarder.test",
                        data=b"Authentication-Results: MX.us.test; dmarc=fail\r\n" + done.stdout)
    assert code == 250, text
    got = hop.wait_for(mark).data.decode()
    field = got[got.index("Authentication-Results: "):got.index("DKIM-Signature: ")]
    for part in ("mx.us.test;", "spf=pass", "smtp.mailfrom=any@forwarder.test", "dkim=pass",
                 "header.d=example.com", "dmarc=pass", "header.from=example.com"):
        assert part in field, field
    assert got.count("Authentication-Results") == 1 and got.endswith(done.stdout.decode())
