# SPDX-License-Identifier: Apache-2.0
"""SPF beside pyspf, on records put together at random, both asking one zone; and what records that
are made to hurt cost: look-ups on the wire, time, memory."""
import ipaddress
import os
import random
import re
import subprocess
import time

import pytest
import spf

from mail import Rest, message, token
from nameserver import SERVFAIL, Nameserver
from world import BINARY, RELEASE, World

# ---- the zone that both ask ----

HOSTS = {
    "a.test": {"A": ["192.0.2.2"], "AAAA": ["2001:db8::2"], "MX": ["10 b.test."]},
    "b.test": {"A": ["192.0.2.1", "192.0.2.70"], "AAAA": ["2001:db8::1", "2001:db8:1::70"]},
    "four.test": {"A": ["198.51.100.7"]},
    "six.test": {"AAAA": ["2001:db8::5"]},
    "mx.test": {"MX": ["10 a.test.", "20 four.test."]},
    "mxten.test": {"MX": [f"{n} h{n}.mxten.test." for n in range(10)]},
    "mxeleven.test": {"MX": [f"{n} h{n}.mxten.test." for n in range(11)]},
    **{f"h{n}.mxten.test": {"A": [f"203.0.113.{n + 1}"], "AAAA": [f"2001:db8:2::{n + 1}"]}
       for n in range(11)},
    "alias.test": {"CNAME": ["a.test."]},
    "temp.test": {"A": SERVFAIL, "AAAA": SERVFAIL, "MX": SERVFAIL, "TXT": SERVFAIL},
    "nothing.test": {"HINFO": []},
    "pass.test": {"TXT": ["v=spf1 +all"]},
    "fail.test": {"TXT": ["v=spf1 -all exp=why.test"]},
    "soft.test": {"TXT": ["v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ~all"]},
    "deep.test": {"TXT": ["v=spf1 include:deeper.test ?all"]},
    "deeper.test": {"TXT": ["v=spf1 a:a.test mx:mx.test include:soft.test -all"]},
    "re.test": {"TXT": ["v=spf1 redirect=soft.test"]},
    "bad.test": {"TXT": ["v=spf1 ip4:192.0.2.999 -all"]},
    "two.test": {"TXT": ["v=spf1 +all", "v=spf1 -all"]},
    "other.test": {"TXT": ["v=spf10 +all", "spf2.0/pra +all", "google-site=1"]},
    "loop.test": {"TXT": ["v=spf1 include:pool.test -all"]},
    "pool.test": {"TXT": ["v=spf1 include:loop.test -all"]},
    "why.test": {"TXT": ["%{i} is not one of %{d}"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["b.test.", "four.test."]},
    "2.2.0.192.in-addr.arpa": {"PTR": ["a.test."]},
    "7.100.51.198.in-addr.arpa": {"PTR": ["nowhere.test.", "four.test."]},
    "1.2.0.192.in-addr.ip.test": {"A": ["127.0.0.2"]},
    "joe.local.test": {"A": ["127.0.0.2"]},
    "helo.x.test": {"A": ["127.0.0.2"]},
}
IPS = ["192.0.2.1", "192.0.2.2", "192.0.2.77", "198.51.100.7", "203.0.113.10", "2001:db8::1",
       "2001:db8::5", "2001:db8:1::99", "::1"]
NAMES = ["a.test", "b.test", "four.test", "six.test", "mx.test", "alias.test", "nothing.test",
         "nowhere.test", "temp.test", "mxten.test", "mxeleven.test", "A.TEST", "a.test."]
POLICIES = ["pass.test", "fail.test", "soft.test", "deep.test", "re.test", "bad.test", "two.test",
            "other.test", "loop.test", "nowhere.test", "temp.test", "SOFT.test", "alias.test"]
MACROS = ["%{ir}.%{v}.ip.test", "%{l}.local.test", "%{h1r}.x.test", "%{d2}", "%{o}", "%{i}.test",
          "%{l1r-}.local.test", "%{d1r}.test", "%{p2}", "%{s}.test", "%%.test", "%{d}.%_.test",
          "%{L}.local.test", "%{ir-.}.ip.test", "%{x}.test", "%{d0}.test", "%.test", "%{d", "%{d3rr}"]
CIDRS = ["", "", "", "", "/0", "/24", "/32", "/33", "/024", "/", "//64", "//129", "/24//64", "//"]
SYNTAX = ["all", "ALL", "all.", "all:x", "what", "ip4", "ip4:", "ip6:::1/", "a:", "mx:", "exists",
          "exists:", "include", "include:", "redirect=", "exp=", "a:x", "a:.test", "a:a..test",
          "a:a.1", "a:a.-t", "ip4:1.2.3", "ip4:01.2.3.4", "ip6:1:2:3", "ip6:::1.2.3.4", "-", "=x",
          "+redirect=a.test", "ptr/24", "exists:a.test/24", "a,", "ip4:192.0.2.0/29,"]


def random_term(rng):
    kind = rng.randrange(20)
    name = rng.choice(NAMES)
    if kind < 4:
        return rng.choice(["a", "mx", "A", "Mx"]) + rng.choice(["", ":" + name]) + rng.choice(CIDRS)
    if kind < 7:
        return rng.choice(["ip4:192.0.2.", "ip4:198.51.100."]) + rng.choice(["0/24", "1", "64/26",
                                                                              "7", "2/31", "0/33"])
    if kind < 9:
        return "ip6:2001:db8::" + rng.choice(["/32", "1", "/64", "5/126", "/129", ":"])
    if kind < 12:
        return "include:" + rng.choice(POLICIES)
    if kind == 12:
        return rng.choice(["ptr", "ptr:a.test", "ptr:b.test", "ptr:test", "PTR:four.test"])
    if kind < 15:
        return rng.choice(["exists:", "a:", "include:", "mx:"]) + rng.choice(MACROS)
    if kind == 15:
        return rng.choice(["redirect=", "redirect="]) + rng.choice(POLICIES + MACROS)
    if kind == 16:
        return rng.choice(["exp=why.test", "exp=nowhere.test", "moo=cow", "x-y_z.1=%{d}", "u=%{x}"])
    if kind == 17:
        return rng.choice(SYNTAX)
    return "all"


def random_record(rng):
    terms = [rng.choice(["", "", "", "-", "~", "?", "+"]) + random_term(rng)
             for _ in range(rng.randrange(0, 7))]
    # A sign in front of a modifier makes it a bad mechanism, which is well tried by SYNTAX.
    terms = [term[1:] if "=" in term and rng.randrange(8) and term[:1] in "-~?+" else term
             for term in terms]
    if rng.randrange(2):
        terms.append(rng.choice(["-all", "~all", "?all", "+all"]))
    return rng.choice(["v=spf1 ", "v=spf1 ", "V=SPF1  "]) + " ".join(terms)


# ---- pyspf on the zone ----

def zone_look_up(zone):
    """What pyspf calls to ask the DNS."""
    def look_up(name, kind, *_arguments, **_keywords):
        name = name.lower().rstrip(".")
        rows = zone.get(name, {})
        for _ in range(5):
            if kind in rows or "CNAME" not in rows:
                break
            rows = zone.get(rows["CNAME"][0].rstrip("."), {})
        records = rows.get(kind, [])
        if records == SERVFAIL:
            raise spf.TempError("DNS SERVFAIL")
        found = []
        for row in records:
            if kind == "TXT":
                value = (row.encode(),)
            elif kind == "MX":
                value = (int(row.split()[0]), row.split()[1].rstrip("."))
            elif kind == "PTR":
                value = row.rstrip(".")
            else:
                value = ipaddress.ip_address(row).packed if kind == "AAAA" else row
            found.append(((name, kind), value))
        return found
    return look_up


# ---- where the two differ, and who is right ----

def unknown_twice(case):
    names = [match.lower() for match in re.findall(r" ([a-z][a-z0-9_.-]*)=", case.record, re.I)]
    return any(names.count(name) > 1 for name in names if name not in ("redirect", "exp"))


DIFFERENCES = [
    # reason, (ours, pyspf's), condition
    ("RFC 7208 6: only redirect and exp must not be repeated; pyspf wants no modifier twice",
     None, "permerror", unknown_twice),
    ("RFC 7208 7.1: the number of labels must not be zero; pyspf takes it for all of them",
     "permerror", None, lambda case: re.search(r"%\{[a-z]0", case.record, re.I)),
    ("RFC 7208 7.1: one r in a macro; pyspf takes more",
     "permerror", None, lambda case: re.search(r"%\{[a-z][0-9]*rr", case.record, re.I)),
    ("RFC 7208 5.7: exists needs a domain; pyspf forgets it behind a sign",
     "permerror", None, lambda case: re.search(r" [-+?~]exists( |$)", case.record, re.I)),
    ("RFC 7208 4.6.2: terms are evaluated one after the other; pyspf refuses a policy that includes "
     "itself even where an earlier term decides",
     None, "permerror", lambda case: re.search(r"include:%\{[do]", case.record, re.I)),
    ("RFC 7208 4.6.4: the client's names are looked up once; pyspf asks again, and counts the void "
     "look-up again, for each term that wants them",
     None, "permerror",
     lambda case: len(re.findall(r"[ +?~-]ptr\b|%\{p", case.record, re.I)) > 1),
]


def explained(case, ours, theirs):
    for _, our, their, condition in DIFFERENCES:
        if our in (None, ours) and their in (None, theirs) and condition(case):
            return True
    return False


# ---- many checks through a server ----

class Case:
    def __init__(self, rng, number):
        self.owner = f"r{number}x{rng.randrange(10**9)}.test"
        self.record = random_record(rng)
        self.ip = rng.choice(IPS)
        self.sender = rng.choice(["joe", "joe", "Joe-x", "a.b+c"]) + "@" + self.owner
        self.mark = token()

    def __str__(self):
        return f"{self.record!r} for {self.sender} from {self.ip}"


CHAIN = """\
- name: spf
  chain:
  - filter: spf_check
  - filter: auth_results
    authserv_id: mx.us.test
  - filter: router
    destination:
      endpoint: gateway
      host_list: [{{host: 127.0.0.1, port: {port}}}]
  - filter: rest_output
"""


class Checker(World):
    """A router whose sender `spf` checks and sends on; the result is in the header."""

    def __init__(self, folder):
        super().__init__(folder, log_level="info")
        self.next_hop = self.hop()
        self.nameserver = Nameserver(HOSTS)
        self.start(edit_router=self.edit)

    def edit(self, text):
        text = text.replace("\nsender:\n", "\nsender:\n- name: spf\n  output_chain: spf\n")
        text = text.replace("\nendpoint:\n", "\nendpoint:\n"
                            + CHAIN.format(port=self.values["sink_port"]))
        return text.replace("  dns_timeout: 1\n", "  dns_timeout: 30\n"
                            f"  dns_forward: ['{self.nameserver.address}']\n")

    def begin(self, rest, mark, ip, sender, helo="helo.example.com"):
        rest.create("spf", mail_from={"m": sender}, rcpt_to=[{"m": "bob@example.com"}],
                    remote_host=[ip, 4000], smtp_meta={"ehlo_host": helo, "esmtp": True},
                    body={"inline": message(mark).decode()})

    def result(self, mark, seconds=60):
        data = self.next_hop.wait_for(mark, seconds).data.decode()
        return re.search(r"mx\.us\.test;\s+spf=(\w+)", data).group(1)

    def close(self):
        super().close()
        self.nameserver.close()


@pytest.fixture(scope="module", name="checker")
def checker_fixture(tmp_path_factory):
    it = Checker(tmp_path_factory.mktemp("spf"))
    yield it
    it.close()


@pytest.mark.parametrize("count", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_as_pyspf_says(checker, monkeypatch, count):
    rng = random.Random(7208 + count)
    cases = [Case(rng, number) for number in range(count)]
    for case in cases:
        checker.nameserver.zone[case.owner] = dict(HOSTS["a.test"], TXT=[case.record])
    monkeypatch.setattr(spf, "DNSLookup", zone_look_up(checker.nameserver.zone))
    different, seen = [], set()
    with Rest(checker.router_url) as rest:
        for at in range(0, count, 50):
            for case in cases[at:at + 50]:
                checker.begin(rest, case.mark, case.ip, case.sender)
            for case in cases[at:at + 50]:
                ours = checker.result(case.mark)
                theirs = spf.check2(i=case.ip, s=case.sender, h="helo.example.com",
                                    querytime=0)[0]
                seen.add(ours)
                if ours != theirs and not explained(case, ours, theirs):
                    different.append(f"{case}: {ours}, pyspf says {theirs}")
    assert not different, f"{len(different)} of {count}\n" + "\n".join(different)
    assert seen >= {"pass", "fail", "softfail", "neutral", "permerror", "temperror"}


# ---- records made to hurt ----

def spf_record(*terms):
    return {"TXT": ["v=spf1 " + " ".join(terms)]}


def hostile_zone():
    names = [f"n{number}.hurt.test" for number in range(100)]
    zone = {
        "terms.test": spf_record(*(f"a:{name}" for name in names), "-all"),
        "exists.test": spf_record(*(f"exists:%{{i}}.{name}" for name in names), "-all"),
        "include.test": spf_record(*(f"include:i{n}.hurt.test" for n in range(100)), "-all"),
        "chain.test": spf_record("include:c0.hurt.test", "-all"),
        "redirect.test": spf_record("redirect=redirect.test"),
        "fan.test": spf_record(*["include:fan.test"] * 100),
        "voids.test": spf_record(*(f"a:v{n}.test" for n in range(100)), "-all"),
        "ptr.test": spf_record(*["ptr:x.test"] * 20, "-all"),
        "hosts.test": spf_record("mx:many.hurt.test", "-all"),
        "mx.test": spf_record(*(f"mx:m{n}.hurt.test" for n in range(20)), "-all"),
        "macros.test": spf_record("exists:" + "%{d}.%{s}.%{h}." * 600 + "test", "-all"),
        "long.test": spf_record(*["ip4:203.0.113.1"] * 1000, "-all"),
        "huge.test": spf_record("x=" + "y" * 60000, "-all"),
        "exp.test": spf_record("-all", "exp=why.hurt.test"),
        "why.hurt.test": {"TXT": ["%{d}%{s}" * 3000]},
        "many.hurt.test": {"MX": [f"1 n{n}.hurt.test." for n in range(100)]},
        "77.2.0.192.in-addr.arpa": {"PTR": [f"n{n}.hurt.test." for n in range(100)]},
    }
    for number, name in enumerate(names):
        zone[name] = {"A": ["203.0.113.9"]}
        zone[f"192.0.2.77.{name}"] = {"HINFO": []}
        zone[f"c{number}.hurt.test"] = spf_record(f"include:c{number + 1}.hurt.test", "-all")
        zone[f"i{number}.hurt.test"] = spf_record("?all")
        zone[f"m{number}.hurt.test"] = {"MX": [f"1 n{(10 * number + n) % 100}.hurt.test."
                                               for n in range(10)]}
    return zone


# domain -> result, questions at the name server beside the one for the policy itself.  Ten terms
# look up, two of them in vain; the hosts of one `mx` and the client's names are at most ten each
# beside that (RFC 7208 4.6.4).
HOSTILE = {
    "terms.test": ("permerror", 10),
    "exists.test": ("permerror", 3),
    "include.test": ("permerror", 10),
    "chain.test": ("permerror", 10),
    "redirect.test": ("permerror", 10),
    "fan.test": ("permerror", 10),
    "voids.test": ("permerror", 3),
    "ptr.test": ("permerror", 1 + 10),
    "hosts.test": ("permerror", 1),
    "mx.test": ("permerror", 10 + 10 * 10),
    "macros.test": ("fail", 1),
    "long.test": ("fail", 0),
    "huge.test": ("permerror", 0),
    "exp.test": ("fail", 1),
}


def run_check(binary, nameserver, domain):
    """(result, seconds)"""
    start = time.monotonic()
    done = subprocess.run([binary, "spf", "check", "--ip", "192.0.2.77", "--helo", "h." + "x" * 60,
                           "--from", f"{'u' * 64}@{domain}", "--dns", nameserver.address],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=100, check=False)
    result = re.search(rb"^result: (\w+)", done.stdout, re.M)
    assert result, (domain, done.stdout, done.stderr)
    return result.group(1).decode(), time.monotonic() - start


@pytest.fixture(scope="module", name="hostile")
def hostile_fixture():
    server = Nameserver(hostile_zone())
    yield server
    server.close()


@pytest.mark.parametrize("domain", HOSTILE)
def test_hostile_records_are_bounded(hostile, domain):
    """Counted where it counts, at the name server: what goes over the wire."""
    wanted, questions = HOSTILE[domain]
    hostile.asked.clear()
    result, seconds = run_check(BINARY, hostile, domain)
    assert result == wanted
    # What is truncated is asked again over TCP, which is the same question.
    asked = set(hostile.asked) - {(domain, "TXT")}
    assert len(asked) <= questions, asked
    assert seconds < 20


@pytest.mark.slow
def test_slow_answers_end_after_twenty_seconds(hostile):
    """Sixty questions and most of a second for the answer to each; no single one is too slow."""
    names = [f"late{n}.test" for n in range(10)]
    hostile.zone["late.test"] = spf_record(*(f"mx:{name}" for name in names), "-all")
    for name in names:
        hostile.zone[name] = {"MX": [f"1 h{n}.{name}." for n in range(5)], "delay": 0.6}
        for number in range(5):
            hostile.zone[f"h{number}.{name}"] = {"A": ["203.0.113.1"], "delay": 0.6}
    result, seconds = run_check(RELEASE or BINARY, hostile, "late.test")
    assert result == "temperror" and 19 < seconds < 23
