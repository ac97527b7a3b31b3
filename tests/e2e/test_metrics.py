# SPDX-License-Identifier: Apache-2.0
"""GET /metrics: Prometheus' text format, and numbers that are true."""
import re

import pytest

from access import bearer, make_key, rest_section
from mail import Rest, submit, token
from nameserver import Nameserver

LINE = re.compile(r"(\w+)(?:\{([^{}]*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def read(rest, **headers):
    """{(name, labels): number}, after looking at the format itself."""
    answer = rest.call("GET", "/metrics", **headers)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.body.decode()
    assert text.endswith("\n")
    found, types, helped = {}, {}, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in helped, f"{name} twice"
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types and kind in ("counter", "gauge", "histogram")
            types[name] = kind
        else:
            name, labels, value = LINE.fullmatch(line).groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            family = family if types.get(family) == "histogram" else name
            assert family in types, f"{line}: no TYPE before it"
            assert (types[family] == "counter") == name.endswith("_total"), line
            key = (name, ",".join(f"{k}={v}" for k, v in LABEL.findall(labels or "")))
            assert key not in found, f"{key} twice"
            found[key] = float(value)
    assert helped == set(types)
    return found


def histogram(numbers, name, labels=""):
    """(count, sum); the buckets only grow and end in the count."""
    prefix = labels + "," if labels else ""
    buckets = [value for (key, where), value in numbers.items()
               if key == name + "_bucket" and where.startswith(prefix + "le=")]
    assert buckets and buckets == sorted(buckets)
    assert buckets[-1] == numbers[name + "_count", labels]
    return numbers[name + "_count", labels], numbers[name + "_sum", labels]


@pytest.mark.threads
def test_what_is_counted(world, mode):
    hop = world.hop(on_rcpt=lambda rcpt: {"perm@example.com": "550 no",
                                          "temp@example.com": "450 not yet"}.get(rcpt))
    world.start(mode)
    with Rest(world.router_url) as rest:
        before = read(rest)
        marks = [token() for _ in range(5)]
        for mark in marks:
            location = rest.submit(mark).headers["location"]
            rest.final(location)
            hop.wait_for(mark)
        failed = rest.submit(token(), rcpt="perm@example.com").headers["location"]
        assert "final_attempt_reason" in rest.final(failed)
        later = rest.submit(token(), rcpt="temp@example.com").headers["location"]
        rest.wait(later, lambda tx: tx.get("attempt_count", 0) >= 2)
        assert submit(world.ingress, token())[0] == 250
        assert rest.call("GET", "/nothing").status == 404
        after = read(rest)

        def grown(name, labels=""):
            return after[name, labels] - before[name, labels]
        assert grown("koukan_transactions_ended_total", "outcome=success") >= 5
        assert grown("koukan_transactions_ended_total", "outcome=failed") == 1
        assert grown("koukan_transactions_created_total", "via=rest") == 7 + (mode == "two")
        assert grown("koukan_retries_total") >= 1
        assert grown("koukan_rest_responses_total", "class=2xx") >= 7
        assert grown("koukan_rest_responses_total", "class=4xx") == 1
        assert grown("koukan_store_commits_total") >= 7
        if mode == "serve":
            assert grown("koukan_smtp_messages_total", "outcome=accepted") == 1
            assert histogram(after, "koukan_smtp_message_seconds")[0] == 1
        assert after["koukan_http_connections", ""] >= 1
        assert after["koukan_store_leaseholder", ""] == 1
        queued = sum(after["koukan_queue_transactions", f"state={state}"]
                     for state in ("queued", "leased"))
        assert queued >= 1, "the one that is tried again"
        assert after["koukan_queue_transactions", "state=final"] >= 6
        assert 0 <= after["koukan_queue_oldest_seconds", ""] < 100
        posts, seconds = histogram(after, "koukan_rest_request_seconds", "method=POST")
        assert posts >= 7 and 0 < seconds < 60
        batches, jobs = histogram(after, "koukan_store_batch_jobs")
        assert jobs >= batches >= 7
        assert histogram(after, "koukan_store_commit_seconds")[1] > 0
        assert histogram(after, "koukan_attempt_seconds")[0] >= 7
        rest.call("POST", later + "/cancel")


def test_dns_is_counted(world):
    hop = world.hop()
    server = Nameserver({"example.com": {"TXT": ["v=spf1 include:absent.example -all"]}})
    try:
        world.start("serve", edit_router=lambda text: text.replace(
            "  - filter: received_header\n", "  - filter: spf_check\n  - filter: received_header\n")
            .replace("  dns_timeout: 1\n", f"  dns_timeout: 5\n  dns_forward: ['{server.address}']\n"))
        mark = token()
        assert submit(world.ingress, mark)[0] == 250
        hop.wait_for(mark)
        with Rest(world.router_url) as rest:
            numbers = read(rest)
        assert numbers["koukan_dns_answers_total", "status=ok"] >= 1
        assert numbers["koukan_dns_answers_total", "status=nxdomain"] >= 1
        count, seconds = histogram(numbers, "koukan_dns_lookup_seconds")
        assert count >= 2 and 0 < seconds < 20
    finally:
        server.close()


def test_of_a_gateway(world):
    world.hop()
    world.start("two")
    assert submit(world.ingress, token())[0] == 250
    with Rest(f"http://127.0.0.1:{world.values['gateway_port']}") as gateway:
        numbers = read(gateway)
        assert numbers["koukan_smtp_messages_total", "outcome=accepted"] == 1
        assert not any(name.startswith("koukan_queue") for name, _ in numbers)
        assert gateway.call("POST", "/metrics", b"").status == 404


def test_who_may_read_them(world):
    world.hop()
    (reader, line1), (app, line2) = make_key(), make_key()
    world.start("serve", edit_router=rest_section(["name: reader", line1, "metrics: yes"],
                                                  ["name: app", line2, "senders: [submission]"]))
    with Rest(world.router_url) as rest:
        assert rest.call("GET", "/metrics").status == 401
        assert rest.call("GET", "/metrics", **bearer(app)).status == 404
        numbers = read(rest, **bearer(reader))
        assert numbers["koukan_rest_refused_total", "reason=unauthenticated"] == 1
        assert rest.call("POST", "/senders/submission/transactions", {},
                         **bearer(reader)).status == 403

