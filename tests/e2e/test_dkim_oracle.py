# SPDX-License-Identifier: Apache-2.0
"""DKIM beside dkimpy on many messages, over SMTP and through a Postfix that they pass on the way:

    test -> submission, signed eight times -> Postfix -> ingress, verified -> hop, dkimpy verifies
    test, signed by dkimpy                 -> Postfix -> ingress, verified -> hop

A sample in the quick run, 500 messages of each in the full one.  What SMTP cannot carry (no line
end at the end, lines over 998 bytes) is in test_mailauth.py, by way of the command line."""
import base64
import concurrent.futures
import os
import random
import re
import shutil
import smtplib
import subprocess
import tempfile

import dkim
import pytest

from devkit import postfix, procs
from nameserver import Nameserver
from world import BINARY, World

FORMS = [(a, b) for a in ("simple", "relaxed") for b in ("simple", "relaxed")]
KINDS = ("rsa", "ed25519")
COUNTS = [40, pytest.param(500, marks=pytest.mark.slow)]
CONNECTIONS = 6
SENDER, RCPT = "alice@example.com", "bob@example.com"


# ---- messages ----

def random_line(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return b""
    if kind == 1:
        return rng.choice([b" ", b"\t", b" \t ", b".", b"..", b". ", b"-- ", b"From x"])
    if kind == 2:
        return bytes(rng.choice(range(0xa1, 0xff)) for _ in range(rng.randrange(1, 60)))
    if kind == 3:
        return b"x" * rng.choice([72, 76, 500, 997, 998])
    words = [rng.choice([b"a", b"bc", b"lorem", b"=3D", b"{}", b"\xc3\xa9", b"\x0c", b"\x7f"])
             for _ in range(rng.randrange(1, 12))]
    return rng.choice([b" ", b"  ", b"\t", b" \t"]).join(words) + rng.choice([b"", b" ", b"\t "])


def random_body(rng):
    shape = rng.randrange(10)
    if shape == 0:
        return b""
    if shape == 1:
        return b"\r\n" * rng.randrange(1, 6)
    if shape == 2:
        return (random_line(rng)[:60] + b"\r\n") * rng.choice([1000, 3000])
    lines = [random_line(rng) for _ in range(rng.randrange(1, 30))]
    return b"\r\n".join(lines) + b"\r\n" * rng.choice([1, 1, 2, 5])


def random_field(rng):
    name = rng.choice(["Subject", "SUBJECT", "subject", "Comments", "Keywords", "X-Mixed-Case",
                       "List-Id", "Reply-To", "In-Reply-To", "X-Twice", "x-twice"])
    value = rng.choice([
        "", " ", " plain", "no space", "  two  spaces ", "\ttab\tand\ttab", " =?utf-8?q?=C3=A9?=",
        " folded\r\n once", " folded\r\n\ttwice\r\n  again ", " a:b;c=d (comment)", " trailing \t",
        " long " + "word " * 150, " <x@example.org>", "\r\n behind an empty line"])
    return f"{name}:{value}\r\n".encode()


def random_message(rng, mark):
    """Fields in any order; each as often as RFC 5322 lets it, others twice."""
    fields = [b"From: Joe <alice@example.com>\r\n", b"To: <bob@example.com>\r\n",
              b"Date: Fri, 11 Jul 2003 21:00:37 -0700\r\n",
              f"Message-ID: <{mark}@example.com>\r\n".encode()]
    seen = set()
    for _ in range(rng.randrange(6)):
        field = random_field(rng)
        name = field.partition(b":")[0].lower()
        if name.startswith(b"x-") or name not in seen:
            seen.add(name)
            fields.append(field)
    rng.shuffle(fields)
    return b"".join(fields) + b"\r\n" + random_body(rng)


# ---- keys ----

class Keys:
    """A key of ours of each kind, and the zone with their records under the selectors `KINDn`."""

    def __init__(self, folder):
        self.paths, self.secrets, self.zone = {}, {}, {}
        for kind in KINDS:
            path = self.paths[kind] = os.path.join(folder, kind + ".pem")
            done = subprocess.run([BINARY, "dkim", "key", "--domain", "example.com", "--selector",
                                   "x", "--type", kind, "--out", path],
                                  check=True, stdout=subprocess.PIPE, text=True)
            record = "".join(re.findall(r'"([^"]*)"', done.stdout))
            for number in range(len(FORMS)):
                name = f"{kind}{number}._domainkey.example.com"
                self.zone[name] = {"TXT": [record]}
            self.secrets[kind] = self.secret(kind)

    def secret(self, kind):
        """As dkimpy wants it: PEM, or the bare seed."""
        if kind == "rsa":
            with open(self.paths[kind], "rb") as file:
                return file.read()
        der = subprocess.run(["openssl", "pkey", "-in", self.paths[kind], "-outform", "DER"],
                             check=True, stdout=subprocess.PIPE).stdout
        return base64.b64encode(der[-32:])

    def look_up(self, name, timeout=5):
        rows = self.zone.get(name.decode().lower().rstrip("."))
        return rows["TXT"][0].encode() if rows else None


# ---- the site ----

class Site(World):
    """One `serve` with both sides, and Postfix between them."""

    def __init__(self, folder):
        super().__init__(folder)
        self.next_hop = self.hop()
        self.keys = Keys(self.folder)
        self.nameserver = Nameserver(self.keys.zone)
        self.ingress_port = procs.free_port()
        # Its processes run as another user, for whom pytest's folders are closed.
        self.queue = tempfile.mkdtemp(prefix="koukan-postfix-")
        self.postfix = postfix.Postfix(self.queue, self.ingress_port)

    def run(self):
        self.start(edit_gateway=self.gateway, edit_router=self.router)
        self.postfix.set("local_header_rewrite_clients", "")
        self.postfix.start()

    def gateway(self, text):
        return text.replace('["127.0.0.1", 0]', f'["127.0.0.1", {self.ingress_port}]', 1)

    def router(self, text):
        sign, check = "  - filter: message_builder\n", "  - filter: exploder\n    msa: false\n"
        to_hop = f"    - host: 127.0.0.1\n      port: {self.values['sink_port']}\n"
        gateway = "      name: address_list\n      domains:\n      - rest-application.example.com\n" \
                  "      - short-circuit.example.com\n"
        for part in (sign, check, gateway):
            assert text.count(part) == 1, part
        head, middle, tail = text.partition("- name: ingress_exploder\n")
        assert head.count(to_hop) == 1
        head = head.replace(to_hop, to_hop.replace(str(self.values["sink_port"]),
                                                   str(self.postfix.port)))
        text = head.replace(sign, sign + self.signers()) + middle + tail
        text = text.replace(check, "  - filter: dkim_check\n  - filter: auth_results\n"
                            "    authserv_id: mx.us.test\n" + check)
        return text.replace("  dns_timeout: 1\n", "  dns_timeout: 5\n"
                            f"  dns_forward: ['{self.nameserver.address}']\n")

    def signers(self):
        return "".join(
            f"  - filter: dkim_sign\n    key: {self.keys.paths['rsa']}\n    domain: example.com\n"
            f"    selector: rsa{number}\n    signatures:\n    - {{key: {self.keys.paths['ed25519']},"
            f" domain: example.com, selector: ed25519{number}}}\n"
            f"    header_canonicalization: {header}\n    body_canonicalization: {body}\n"
            for number, (header, body) in enumerate(FORMS))

    def send(self, port, messages):
        """Over a few connections at a time; each must be taken."""
        messages = list(messages)
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            for done in [pool.submit(self.send_some, port, messages[at::CONNECTIONS])
                         for at in range(CONNECTIONS)]:
                done.result()

    @staticmethod
    def send_some(port, messages):
        with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=60) as client:
            client.ehlo()
            for message in messages:
                assert client.mail(SENDER, ["BODY=8BITMIME"])[0] == 250
                assert client.rcpt(RCPT)[0] == 250
                # smtplib's data() would change lone CR and LF, of which there are none here
                code, text = client.data(message)
                assert code == 250, (text, message)

    def close(self):
        self.postfix.stop()
        self.nameserver.close()
        shutil.rmtree(self.queue)
        super().close()


@pytest.fixture(scope="module", name="site")
def site_fixture(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("Postfix's master needs root")
    it = Site(tmp_path_factory.mktemp("site"))
    it.run()
    yield it
    it.close()


def results_of(data):
    """Our Authentication-Results field, unfolded, and the message as it was behind Postfix."""
    assert data.count(b"Authentication-Results: ") == 1
    field = re.search(rb"^Authentication-Results: (.*?)\r\n(?![ \t])", data, re.M | re.S)
    return re.sub(r"\s+", " ", field.group(1).decode())


def wanted(rng, count, prefix):
    """{mark: message}"""
    marks = [f"{prefix}-{count}-{number}-{rng.randrange(10**9)}" for number in range(count)]
    return {mark: random_message(rng, mark) for mark in marks}


@pytest.mark.parametrize("count", COUNTS)
def test_what_we_sign(site, count):
    """Each in all four pairs of canonical forms, RSA and Ed25519."""
    messages = wanted(random.Random(6376 + count), count, "ours")
    site.send(site.submission, messages.values())
    for mark in messages:
        got = site.next_hop.wait_for(f"<{mark}@").data
        assert b"by bench.example.com (Postfix)" in got, "it came through Postfix"
        assert results_of(got).count("dkim=pass") == 8, (mark, got[:6000])
        verifier = dkim.DKIM(got)
        for index in range(8):
            assert verifier.verify(idx=index, dnsfunc=site.keys.look_up), (mark, index, got[:6000])
        assert got.count(b"DKIM-Signature: ") == 8


@pytest.mark.parametrize("count", COUNTS)
def test_what_dkimpy_signs(site, count):
    rng = random.Random(8463 + count)
    messages = wanted(rng, count, "theirs")
    signed = []
    for number, message in enumerate(messages.values()):
        kind = KINDS[number // len(FORMS) % 2]
        names = sorted({line.partition(b":")[0].lower() for line in
                        re.sub(rb"\r\n[ \t]", b" ", message.partition(b"\r\n\r\n")[0]).split(b"\r\n")})
        covered = [name for name in names if rng.randrange(4) and name != b"from"
                   and name not in dkim.DKIM.SHOULD_NOT]
        absent = rng.choice([[], [b"x-absent"], [b"from"]])  # the latter: oversigned
        field = dkim.sign(message, f"{kind}{number % len(FORMS)}".encode(), b"example.com",
                          site.keys.secrets[kind], signature_algorithm=kind.encode() + b"-sha256",
                          canonicalize=tuple(form.encode() for form in FORMS[number % len(FORMS)]),
                          include_headers=[b"from", *covered, *absent])
        signed.append(field + message)
    site.send(site.postfix.port, signed)
    for mark in messages:
        got = site.next_hop.wait_for(f"<{mark}@").data
        found = results_of(got)
        assert found.count("dkim=pass") == 1 and "header.d=example.com" in found, (mark, got[:6000])
