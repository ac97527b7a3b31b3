# SPDX-License-Identifier: Apache-2.0
"""`auth`: what the checks of received mail and the signature of sent mail cost, as CPU of koukan
serve (all threads) per message of 4096 bytes, from smtp-source to smtp-sink:

  plain     no checks: SMTP in, exploder, one field added, SMTP out
  ingress   beside that remote_host, SPF, DKIM (RSA-2048, verified), DMARC, message_validation,
            Authentication-Results, and policies that refuse whatever does not pass each of them
  rsa       submission, signed with RSA-2048
  ed25519   submission, signed with Ed25519

Answers of the DNS are in the resolver's cache, as they are on a server that is in use; the first
messages, which fill it, are not counted."""
import os
import re
import statistics
import string
import subprocess
import sys

from devkit import build, packages, procs
from devkit.bench import CONFIGS, Subject
from devkit.common import ROOT, Failed, say, step

sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

SIZE = 4096
SIDES = {"plain": "plain", "ingress": "ingress", "rsa": "submission", "ed25519": "submission"}
LIMITS = {"ingress": 0.6, "rsa": 0.6, "ed25519": 0.3}  # ms
HEADER = ("From: Alice <alice@example.com>\nTo: Bob <bob@example.net>\nSubject: a benchmark\n"
          "Date: Fri, 13 Feb 2009 23:31:30 +0000\nMessage-ID: <bench@example.com>\n"
          "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n")
ZONE = {
    "example.com": {"TXT": ["v=spf1 mx include:_spf.example.com -all"],
                    "MX": ["10 mx.example.com."]},
    "mx.example.com": {"A": ["192.0.2.25"]},
    "_spf.example.com": {"TXT": ["v=spf1 ip4:192.0.2.0/24 ip4:127.0.0.1 ?all"]},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
}


def koukan(binary, *arguments, data=None):
    done = subprocess.run([binary, "dkim", *arguments], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failed(f"koukan dkim: {done.stderr.decode()}")
    return done.stdout


def make_key(binary, folder, kind):
    """(path of the key, its TXT record)"""
    path = os.path.join(folder, kind + ".pem")
    printed = koukan(binary, "key", "--domain", "example.com", "--selector", "bench", "--type",
                     kind, "--out", path, *(["--bits", "2048"] if kind == "rsa" else []))
    return path, "".join(re.findall(r'"([^"]*)"', printed.decode()))


def make_message(binary, folder, key):
    """The file that smtp-source sends; with a key: signed.  SIZE bytes on the wire."""
    def of(lines):
        text = HEADER + "the quick brown fox jumps over the lazy dog 0123456789\n" * lines
        data = text.encode()
        if key is None:
            return data
        return koukan(binary, "sign", "--key", key, "--domain", "example.com", "--selector",
                      "bench", "-", data=data.replace(b"\n", b"\r\n")).replace(b"\r\n", b"\n")
    lines = 1
    while len(of(lines + 1).replace(b"\n", b"\r\n")) <= SIZE:
        lines += 1
    path = os.path.join(folder, ("signed" if key else "unsigned") + ".msg")
    with open(path, "wb") as file:
        file.write(of(lines))
    return path


class AuthSubject(Subject):
    """koukan serve with one side of the configuration."""

    def __init__(self, name, group, binary, nameserver, key, message):
        super().__init__(name, group)
        folder = os.path.join(group.folder, name)
        os.makedirs(folder)
        values = {"folder": folder, "sink_port": self.sink.port, "side": SIDES[name], "key": key,
                  "gateway_port": procs.free_port(), "router_port": procs.free_port(),
                  "nameserver": nameserver}
        paths = []
        for file in ("gateway.yaml", "router.yaml"):
            with open(os.path.join(CONFIGS, "auth-" + file), encoding="utf-8") as source:
                text = string.Template(source.read()).substitute(values)
            paths.append(os.path.join(folder, file))
            with open(paths[-1], "w", encoding="utf-8") as out:
                out.write(text)
        self.servers = [group.add(procs.Server("serve", binary, ["serve", *paths], folder))]
        self.servers[0].wait_ready()
        self.port = self.servers[0].smtp_ports()[0]
        self.message = message

    def source(self, args, messages):
        return ["smtp-source", "-s", str(args.sessions), "-m", str(messages), "-F", self.message,
                "-f", "alice@example.com", "-t", "bob@example.net", "-M", "localhost",
                *(["-d"] if args.reuse else []), f"127.0.0.1:{self.port}"]


def table(made, args):
    say(f"{'':<10}{'CPU ms/msg':>12}{'(min-max)':>16}{'beyond plain':>14}{'at most':>9}"
        f"{'delivered/s':>13}{'arrived':>16}")
    plain = next((statistics.median(each.cpu) for each in made if each.name == "plain"), None)
    good = True
    for each in made:
        cpu, limit = statistics.median(each.cpu), LIMITS.get(each.name)
        good = good and each.arrived == each.sent and (limit is None or cpu <= limit)
        span = f"{min(each.cpu):.3f}-{max(each.cpu):.3f}"
        beyond = f"{cpu - plain:.3f}" if plain is not None else "-"
        say(f"{each.name:<10}{cpu:>12.3f}{span:>16}{beyond:>14}{limit or '-':>9}"
            f"{statistics.median(each.rates):>13.0f}{f'{each.arrived}/{each.sent}':>16}")
    say(f"{args.rounds} rounds of {args.messages} messages of {SIZE} bytes, {args.sessions} "
        f"sessions; medians; {os.cpu_count()} cores")
    return good


def one_way(args, made):
    for each in made:
        each.rates, each.cpu, each.arrived, each.sent = [], [], 0, 0
        each.round(args, max(args.sessions, args.messages // 10))  # warm
    for _ in range(args.rounds):
        for each in made:
            rate, cpu, arrived = each.round(args, args.messages)
            each.rates.append(rate)
            each.cpu.append(cpu)
            each.arrived += arrived
            each.sent += args.messages
    step("auth, " + ("sessions that stay open" if args.reuse else
                     "a new connection for each message"))
    return table(made, args)


def auth(args):
    packages.ensure("build", "bench", "test")
    binary = args.binary or build.binary("release")
    if not args.binary:
        build.build("release", ["koukan"], quiet=True)
    from nameserver import Nameserver  # wants dnspython, a package of the tests
    group = procs.Group("koukan-bench-")
    try:
        keys = {kind: make_key(binary, group.folder, kind) for kind in ("rsa", "ed25519")}
        records = {"bench._domainkey.example.com": {"TXT": [keys["rsa"][1]]}}
        nameserver = Nameserver(dict(ZONE, **records), ttl=3600)
        signed = make_message(binary, group.folder, keys["rsa"][0])
        unsigned = make_message(binary, group.folder, None)
        made = [AuthSubject(name, group, binary, nameserver.address,
                            keys.get(name, keys["rsa"])[0],
                            signed if name in ("plain", "ingress") else unsigned)
                for name in args.only or SIDES]
        ways = [False, True] if args.reuse is None else [args.reuse]
        good = True
        for args.reuse in ways:
            good = one_way(args, made) and good
        return 0 if good else 1
    finally:
        group.close()
