# SPDX-License-Identifier: Apache-2.0
"""Measures beside Postfix, on the same machine, in the same run, interleaved.

`relay`: Postfix's smtp-source -> X -> smtp-sink, where X is

  nothing      smtp-source straight to smtp-sink: what the two can do at most; its CPU is that of
               smtp-sink, a bare receiver: what a message costs here without any transport
  serve        koukan serve: gateway and router in one process (cut-through: the 250 is the sink's)
  two          koukan gateway and koukan router as two processes, HTTP between them
  postfix      Postfix, which queues on disk before its 250

Twice: with a new connection for each message, and with sessions that stay open (--reuse,
--no-reuse: only one of them).

Delivered/s counts from the first connection of smtp-source until the sink has taken the last
message.  CPU is the user and system time of the servers' processes, all threads, from
/proc/PID/stat; for Postfix that of its master, of the children that the master has waited for and
of those alive.  Arrived is what smtp-sink counted.  What machines do differs: compare the ratios.

`store`: submissions that are stored before their 250, since the next hop is down; SQLite,
PostgreSQL and Postfix's queue.  Acknowledged/s, CPU, and p50 and p99 of the 250.

`latency`: from the client's final dot to the 250, through the same X as `relay`.

`rest`: messages submitted by REST, stored before their 201, delivered by SMTP: rates, CPU, and p50
and p99 of the 201.

`replicas`: 1, 2 and 3 servers on one PostgreSQL: stored before the 250, then delivered out of the
queue.

`auth`: CPU of the checks of received mail (SPF, DKIM, DMARC) and of signing what is submitted."""
import argparse
import os
import re
import statistics
import string
import subprocess
import time

from devkit import build, packages, postfix, procs
from devkit.common import ROOT, Failed, say, step

CONFIGS = os.path.join(ROOT, "tests", "bench")


class Sink:
    """smtp-sink, counting."""

    def __init__(self, group, name, port=None):
        self.port = port or procs.free_port()
        self.proc = group.add(procs.Proc(
            "sink-" + name, ["smtp-sink", "-c", "-m", "500", *self.user(), f"127.0.0.1:{self.port}",
                             "1000"],
            group.folder))
        procs.wait_until(lambda: not procs.can_bind(self.port), "smtp-sink", alive=self.proc)
        self.name = name

    @staticmethod
    def user():
        return ["-u", "nobody"] if os.geteuid() == 0 else []

    def count(self):
        """The counters are rewritten in place: `sess=3 quit=3 mesg=3`, each after a return."""
        with open(self.proc.out_path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 200))
            found = re.findall(rb"mesg=(\d+)", file.read())
        return int(found[-1]) if found else 0


class Subject:
    """One X: where mail goes in, its sink, and how much CPU it has used."""

    def __init__(self, name, group):
        self.name, self.sink = name, Sink(group, name)
        self.port = self.sink.port
        self.servers = []
        self.rates, self.cpu, self.arrived, self.sent = [], [], 0, 0

    def cpu_seconds(self):
        servers = self.servers or [self.sink.proc]
        return sum(procs.cpu_seconds(server.pid) for server in servers)

    def source(self, args, messages):
        return ["smtp-source", "-s", str(args.sessions), "-m", str(messages), "-l", str(args.size),
                "-f", "alice@example.com", "-t", "bob@example.com", "-M", "localhost",
                *(["-d"] if args.reuse else []), f"127.0.0.1:{self.port}"]

    def round(self, args, messages):
        """(delivered a second, CPU ms a message, arrived)"""
        before, cpu = self.sink.count(), self.cpu_seconds()
        start = time.monotonic()
        sent = subprocess.run(self.source(args, messages), check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if sent.returncode != 0:
            raise Failed(f"{self.name}: smtp-source: {sent.stdout.decode()[-500:]}\n"
                         + "\n".join(server.tail(2000) for server in self.servers))
        end = time.monotonic() + 60
        while self.sink.count() - before < messages and time.monotonic() < end:
            time.sleep(0.001)
        seconds = time.monotonic() - start
        arrived = self.sink.count() - before
        return arrived / seconds, (self.cpu_seconds() - cpu) * 1000 / messages, arrived


def write_configs(folder, sink_port):
    values = {"folder": folder, "sink_port": sink_port, "gateway_port": procs.free_port(),
              "router_port": procs.free_port()}
    paths = []
    os.makedirs(folder)
    for name in ("gateway.yaml", "router.yaml"):
        with open(os.path.join(CONFIGS, name), encoding="utf-8") as file:
            text = string.Template(file.read()).substitute(values)
        paths.append(os.path.join(folder, name))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(text)
    return paths


def make_koukan(name, group, binary):
    subject = Subject(name, group)
    folder = os.path.join(group.folder, name)
    gateway, router = write_configs(folder, subject.sink.port)
    starts = ([("serve", ["serve", gateway, router])] if name == "serve" else
              [("router", ["router", router]), ("gateway", ["gateway", gateway])])
    for title, arguments in starts:
        subject.servers.append(group.add(procs.Server(title, binary, arguments, folder)))
    for server in subject.servers:
        server.wait_ready()
    subject.port = subject.servers[-1].smtp_ports()[0]
    return subject


class PostfixSubject(Subject):
    def __init__(self, group):
        super().__init__("postfix", group)
        self.postfix = postfix.Postfix(group.folder, self.sink.port)
        self.postfix.start()
        self.port = self.postfix.port
        group.add(self.postfix.master)

    def cpu_seconds(self):
        return self.postfix.cpu_seconds()


def subjects(args, group, binary):
    made = []
    for name in args.only or ["nothing", "serve", "two", "postfix"]:
        if name == "nothing":
            made.append(Subject(name, group))
        elif name != "postfix":
            made.append(make_koukan(name, group, binary))
        elif os.geteuid() != 0:
            say("postfix is left out: its master process needs root")
        else:
            made.append(PostfixSubject(group))
    return made


def table(made, args):
    reference = next((each for each in made if each.name == "postfix"), None)
    header = f"{'':<10}{'delivered/s':>13}{'(min-max)':>16}{'CPU ms/msg':>12}"
    say(header + (f"{'rate/Postfix':>14}{'CPU/Postfix':>13}" if reference else "")
        + f"{'arrived':>16}")
    for each in made:
        rate, cpu = statistics.median(each.rates), statistics.median(each.cpu)
        span = f"{min(each.rates):.0f}-{max(each.rates):.0f}"
        line = f"{each.name:<10}{rate:>13.0f}{span:>16}"
        line += f"{cpu:>12.3f}"
        if reference:
            line += f"{rate / statistics.median(reference.rates):>14.2f}"
            line += f"{cpu / statistics.median(reference.cpu):>13.3f}"
        say(line + f"{f'{each.arrived}/{each.sent}':>16}")
    say(f"{args.rounds} rounds of {args.messages} messages of {args.size} bytes, {args.sessions} "
        f"sessions; medians; {os.cpu_count()} cores")


def relay(args):
    args.sessions = args.sessions or 10
    packages.ensure("build", "bench")
    binary = args.binary or build.binary("release")
    if not args.binary:
        build.build("release", ["koukan"], quiet=True)
    ways = [False, True] if args.reuse is None else [args.reuse]
    codes = []
    for args.reuse in ways:
        codes.append(relay_one_way(args, binary))
    return max(codes)


def relay_one_way(args, binary):
    group = procs.Group("koukan-bench-")
    try:
        made = subjects(args, group, binary)
        for each in made:
            each.round(args, max(args.sessions, args.messages // 10))  # warm
        for number in range(args.rounds):
            for each in made:
                rate, cpu, arrived = each.round(args, args.messages)
                each.rates.append(rate)
                each.cpu.append(cpu)
                each.arrived += arrived
                each.sent += args.messages
                say(f"round {number + 1} {each.name:<8} {rate:8.0f}/s {cpu:7.3f} ms CPU, "
                    f"{arrived} arrived")
        step("relay, " + ("sessions that stay open" if args.reuse else
                          "a new connection for each message"))
        table(made, args)
        return 0 if all(each.arrived == each.sent for each in made) else 1
    finally:
        group.close()


def add_arguments(parser):
    parser.add_argument("what", choices=["relay", "store", "latency", "rest", "replicas", "auth"])
    parser.add_argument("--messages", type=int, default=3000, metavar="N", help="a round (3000)")
    parser.add_argument("--sessions", type=int, metavar="N",
                        help="at a time (relay, latency: 10, else 50)")
    parser.add_argument("--size", type=int, default=1024, metavar="BYTES", help="each (1024)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(3)")
    parser.add_argument("--reuse", action=argparse.BooleanOptionalAction,
                        help="relay: sessions that stay open for many messages (both)")
    parser.add_argument("--only", nargs="+", choices=["nothing", "serve", "two", "postfix",
                                                           "sqlite", "postgresql", "plain",
                                                           "ingress", "rsa", "ed25519"])
    parser.add_argument("--fsync-ms", type=float, default=0, metavar="MS",
                        help="store: added to each flush")
    parser.add_argument("--hop", choices=["down", "4xx"], default="down",
                        help="store: the next hop refuses connections, or answers 4xx")
    parser.add_argument("--pause-ms", type=int, default=20, metavar="MS",
                        help="latency: of a session between two messages (20)")
    parser.add_argument("--binary", metavar="FILE", help="this one instead of a release build")


def main(args):
    if args.what == "store":
        from devkit import bench_store
        args.sessions = args.sessions or 50
        return bench_store.store(args)
    if args.what == "latency":
        from devkit import bench_latency
        return bench_latency.latency(args)
    if args.what == "rest":
        from devkit import bench_rest
        return bench_rest.rest(args)
    if args.what == "auth":
        from devkit import bench_auth
        args.sessions = args.sessions or 10
        return bench_auth.auth(args)
    if args.what == "replicas":
        from devkit import bench_replicas
        args.sessions = args.sessions or 50
        return bench_replicas.replicas(args)
    return relay(args)
