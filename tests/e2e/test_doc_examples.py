# SPDX-License-Identifier: Apache-2.0
"""Each example of the reference is loaded as it stands and has a message run through it; each
filter, routing policy and matcher has one.

Examples may name what every set-up has: the rest_endpoint `gateway`, the host 192.0.2.25, the
sender `archive`, and files of FILES under /etc/koukan."""
import os
import re
import subprocess

import pytest
import yaml

from mail import ALICE, BOB, Rest, message, token
from nameserver import Nameserver
from world import BINARY

ENTRY = re.compile(r"^## (filter|policy|matcher): (\S+)\n(.*?)(?=^#|\Z)", re.M | re.S)
EXAMPLE = re.compile(r"^Example:\n\n```yaml\n(.*?)^```$", re.M | re.S)
INTERNAL = {("filter", "exploder_upstream")}  # no part of any configuration
PLACE = {"filter": "- filter: {}\n", "policy": "name: {}", "matcher": "matcher: {}"}

# Where an example does not end the chain.
TAIL = """\
- filter: router
  destination: {{endpoint: gateway, host_list: [{{host: next-hop, port: {port}}}]}}
- filter: dns_resolution
  suffix: ''
  static_hosts: [{{host: 127.0.0.1, port: {port}}}]
- filter: rest_output
"""
ENDS = ("rest_output", "exploder", "sync")
ZONE = {
    "example.com": {"MX": ["10 mx.example.com."], "TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
    "mx.example.com": {"A": ["10.9.8.7"]},  # refused as private, so nothing leaves this machine
    "_spf.forwarder.example.com": {"TXT": ["v=spf1 ip4:198.51.100.0/24 -all"]},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=none"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["client.example.com."]},
    "client.example.com": {"A": ["192.0.2.1"]},
}


def dkim_key(kind):
    def make(path):
        subprocess.run([BINARY, "dkim", "key", "--domain", "example.com", "--selector", "x",
                        "--type", kind, "--out", path], check=True, stdout=subprocess.DEVNULL)
    return make


# How the files that examples name come to be.
FILES = {"rsa.pem": dkim_key("rsa"), "ed25519.pem": dkim_key("ed25519")}


def reference():
    done = subprocess.run([BINARY, "config", "doc"], check=True, stdout=subprocess.PIPE, text=True)
    return ENTRY.findall(done.stdout)


def examples():
    return [(kind, name, text) for kind, name, section in reference()
            for text in EXAMPLE.findall(section)]


def test_each_has_an_example_that_uses_it():
    entries = reference()
    kinds = [kind for kind, _, _ in entries]
    assert all(kinds.count(kind) >= count for kind, count in
               (("filter", 19), ("policy", 3), ("matcher", 14))), kinds
    for kind, name, section in entries:
        if (kind, name) in INTERNAL:
            continue
        texts = EXAMPLE.findall(section)
        assert texts, f"{kind} {name} has no example: add `example` to its row"
        wanted = PLACE[kind].format(name)
        assert any(wanted in text for text in texts), f"the example of {kind} {name} has no {name}"


def localised(text, folder, port):
    """The example with the files and the host that there are here."""
    for name in re.findall(r"/etc/koukan/([\w.-]+)", text):
        path = os.path.join(folder, name)
        assert name in FILES, f"say in FILES how /etc/koukan/{name} is made"
        if not os.path.exists(path):
            FILES[name](path)
        text = text.replace("/etc/koukan/" + name, path)
    return text.replace("host: 192.0.2.25, port: 25", f"host: 127.0.0.1, port: {port}")


def indented(text):
    return "".join("  " + line + "\n" for line in text.splitlines())


def parts_of(number, text, folder, port):
    """A sender and its chain."""
    text = localised(text, folder, port)
    if yaml.safe_load(text)[-1]["filter"] not in ENDS:
        text += TAIL.format(port=port)
    return (f"- name: example{number}\n  output_chain: example{number}\n"
            "  upstream_sender: archive\n",
            f"- name: example{number}\n  chain:\n" + indented(text))


def with_examples(text, world, nameserver, wanted):
    """The router's file of the tests with a sender for each of the examples."""
    port = world.values["sink_port"]
    parts = [parts_of(number, example, world.folder, port) for number, example in wanted]
    senders = ("- name: archive\n  output_chain: archive\n"
               + "".join(sender for sender, _ in parts))
    chains = ("- name: archive\n  chain:\n" + indented(TAIL.format(port=port))
              + "".join(chain for _, chain in parts))
    for key, more in (("\nsender:\n", senders), ("\nendpoint:\n", chains)):
        assert text.count(key) == 1
        text = text.replace(key, key + more)
    return text.replace("  dns_timeout: 1\n",
                        f"  dns_timeout: 5\n  dns_forward: ['{nameserver.address}']\n")


@pytest.fixture(name="nameserver")
def nameserver_fixture():
    server = Nameserver(ZONE)
    yield server
    server.close()


def check_alone(world, nameserver, number, example):
    """The file with this example only: nothing in it is unknown."""
    path = world.config("router.yaml", lambda text: with_examples(text, world, nameserver,
                                                                  [(number, example)]))
    done = subprocess.run([BINARY, "config", "check", path], check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and "unknown" not in done.stdout, f"{example}\n{done.stdout}"


def run_message(world, number):
    """(mark, the finished transaction)"""
    mark = token()
    with Rest(world.router_url) as rest:
        answer = rest.create(f"example{number}", mail_from={"m": ALICE}, rcpt_to=[{"m": BOB}],
                             remote_host=["192.0.2.1", 4000],
                             smtp_meta={"ehlo_host": "client.example.com", "esmtp": True},
                             body={"inline": message(mark).decode()})
        return mark, rest.wait(answer.headers["location"], lambda tx: "data_response" in tx).json


def test_examples_load_and_run(world, nameserver):
    wanted = list(enumerate(text for _, _, text in examples()))
    for number, example in wanted:
        check_alone(world, nameserver, number, example)
    hop = world.hop()
    world.start(edit_router=lambda text: with_examples(text, world, nameserver, wanted))
    arrived = 0
    for number, example in wanted:
        mark, tx = run_message(world, number)
        responses = [tx.get("mail_response"), *tx.get("rcpt_response", []),
                     tx.get("data_response")]
        assert responses[0] is not None and responses[1] is not None, (example, tx)
        assert "internal error" not in str(responses), (example, tx)
        if all(response and 200 <= response["code"] < 300 for response in responses):
            hop.wait_for(mark)
            arrived += 1
        else:
            assert any(response and response["code"] >= 400 for response in responses), (example,
                                                                                         tx)
    # What refuses this message are the few whose purpose that is.
    assert arrived > len(wanted) / 2
