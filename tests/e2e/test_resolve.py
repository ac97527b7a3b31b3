# SPDX-License-Identifier: Apache-2.0
"""Where mail goes, by a name server with the faults of real ones."""
import subprocess

import pytest

from mail import Rest, token
from nameserver import SERVFAIL, SILENT, TRUNCATED, Nameserver
from world import BINARY

ZONE = {
    "ok.test": {"MX": ["20 b.test.", "10 a.test."]},
    "a.test": {"A": ["198.51.100.1"], "AAAA": ["2001:db8::1"]},
    "b.test": {"A": ["198.51.100.2"]},
    "implicit.test": {"A": ["198.51.100.3"]},
    "null.test": {"MX": ["0 ."], "A": ["198.51.100.4"]},
    "alias.test": {"CNAME": ["ok.test."]},
    "loop1.test": {"CNAME": ["loop2.test."]},
    "loop2.test": {"CNAME": ["loop1.test."]},
    "mxalias.test": {"MX": ["10 aka.test."]},
    "aka.test": {"CNAME": ["a.test."]},
    "dangling.test": {"MX": ["10 nowhere.test."]},
    "half.test": {"MX": ["10 nowhere.test.", "20 b.test."]},
    "nothing.test": {"TXT": ["no address"]},
    "servfail.test": {"MX": SERVFAIL},
    "private.test": {"MX": ["10 lan.test."]},
    "lan.test": {"A": ["127.0.0.1", "10.0.0.1"], "AAAA": ["::1"]},
    "us.test": {"MX": ["10 a.test.", "20 mx.us.test.", "30 b.test."]},
    "mx.us.test": {"A": ["198.51.100.9"]},
    "home.test": {"MX": ["10 mx.us.test."]},
    "many.test": {"MX": [f"{n} m{n}.test." for n in range(1, 60)]},
    **{f"m{n}.test": {"A": [f"198.51.100.{n}"]} for n in range(1, 60)},
    "silent.test": {"MX": SILENT},
    "cut.test": {"MX": ["10 a.test."], "fault": TRUNCATED},  # whole over TCP
    "lan2.test": {"MX": ["10 zero.test.", "20 link.test."]},
    "zero.test": {"A": ["0.0.0.0"]},
    "link.test": {"A": ["169.254.1.1"], "AAAA": ["fe80::1"]},
    "hostloop.test": {"MX": ["10 loop1.test."]},
}

CASES = [
    ("ok.test", "OK", ["198.51.100.1", "2001:db8::1", "198.51.100.2"]),
    ("implicit.test", "OK", ["198.51.100.3"]),
    ("null.test", "NX", []),
    ("alias.test", "OK", ["198.51.100.1", "2001:db8::1", "198.51.100.2"]),
    ("loop1.test", "TEMP", []),
    ("mxalias.test", "OK", ["198.51.100.1", "2001:db8::1"]),
    ("dangling.test", "TEMP", []),
    ("half.test", "OK", ["198.51.100.2"]),
    ("nothing.test", "TEMP", []),
    ("nowhere.test", "NX", []),
    ("servfail.test", "TEMP", []),
    ("private.test", "NX", []),
    ("us.test", "OK", ["198.51.100.1", "2001:db8::1"]),
    ("home.test", "NX", []),
    ("many.test", "OK", [f"198.51.100.{n}" for n in range(1, 11)]),
    ("bad name.test", "NX", []),
    ("cut.test", "OK", ["198.51.100.1", "2001:db8::1"]),
    ("lan2.test", "NX", []),
    ("hostloop.test", "TEMP", []),
]


@pytest.fixture(scope="module", name="server")
def nameserver_fixture():
    server = Nameserver(ZONE)
    yield server
    server.close()


def resolve(server, *arguments):
    done = subprocess.run([BINARY, "resolve", "--dns", server.address, "--own-name", "MX.us.test",
                           *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                          check=False, text=True)
    head, _, tail = done.stdout.partition("result: ")
    result, *addresses = tail.split()
    assert (done.returncode == 0) == (result == "OK")
    return result, addresses, head


@pytest.mark.parametrize("domain,result,addresses", CASES)
def test_resolve(server, domain, result, addresses):
    assert resolve(server, domain)[:2] == (result, addresses)


def test_it_says_why(server):
    assert "127.0.0.1 (refused: a loopback address)" in resolve(server, "private.test")[2]
    assert resolve(server, "--allow-private", "private.test")[:2] == (
        "OK", ["127.0.0.1", "10.0.0.1", "::1"])
    text = resolve(server, "us.test")[2]
    assert "(this is us)" in text and "not before ourselves" in text
    assert "null MX" in resolve(server, "null.test")[2]


# What the sender of a message is told; who has an address is not here, since nothing may leave
# this machine.
ANSWERS = {
    "nowhere.test": (550, "5.1.2 "),
    "null.test": (556, "5.1.10 "),
    "home.test": (550, "5.4.6 "),
    "private.test": (550, "5.1.2 "),
    "lan2.test": (550, "5.1.2 "),
    "dangling.test": (450, "4.4.3 "),
    "hostloop.test": (450, "4.4.3 "),
    "loop1.test": (450, "4.4.3 "),
    "nothing.test": (450, "4.4.3 "),
    "servfail.test": (450, "4.4.3 "),
    "silent.test": (450, "4.4.3 "),
    "[127.0.0.1]": (550, "5.1.2 "),
    "[IPv6:::1]": (550, "5.1.2 "),
}
CHAIN = """\
- name: direct
  chain:
  - filter: router
    policy: {name: dest_domain, destination: {endpoint: gateway}}
  - filter: dns_resolution
    suffix: ''
    own_name: mx.us.test
  - filter: rest_output
"""


def test_answers(world, server):
    def edit(text):
        text = text.replace("\nsender:\n", "\nsender:\n- name: direct\n  output_chain: direct\n")
        text = text.replace("\nendpoint:\n", "\nendpoint:\n" + CHAIN)
        return text.replace("  dns_timeout: 1\n",
                            f"  dns_timeout: 2\n  dns_forward: ['{server.address}']\n")
    world.start(edit_router=edit)
    with Rest(world.router_url) as rest:
        paths = {domain: rest.submit(token(), rcpt=f"bob@{domain}", sender="direct").headers["location"]
                 for domain in ANSWERS}
        for domain, (code, text) in ANSWERS.items():
            tx = rest.wait(paths[domain], lambda tx: "mail_response" in tx).json
            got = tx["mail_response"]
            assert got["code"] == code and got["message"].startswith(text), (domain, tx)


def test_silence_ends(server):
    assert resolve(server, "silent.test")[:2] == ("TEMP", [])
