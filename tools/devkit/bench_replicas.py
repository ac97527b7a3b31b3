# SPDX-License-Identifier: Apache-2.0
"""`replicas`: 1, 2 and 3 koukan on one PostgreSQL server of our own (fsync on), in turns.

First Postfix's smtp-source submits to all of them, spread over eight recipient domains, while the
next hop is down: each 250 stands for a row that is stored.  Then the next hop is up, everything is
due, and the replicas deliver it out of the queue.  Acknowledged/s counts from the first connection
until the last 250, delivered/s from the first message at the next hop until the last.  CPU is the
user and system time of all koukan processes, and of PostgreSQL with its children, a message.  All
of them and the clients share this machine's cores."""
import os
import statistics
import string
import subprocess
import time

from devkit import build, packages, procs
from devkit.bench_store import CONFIGS
from devkit.common import Failed, say, step
from devkit.crash import harness

NUMBERS = (1, 2, 3)
DOMAINS = 8


def make_cluster(group):
    harness()
    import database
    scratch = os.path.join(group.folder, "cluster")
    os.makedirs(scratch)
    os.chmod(group.folder, 0o755)
    cluster = database.Postgres(scratch)
    group.add(cluster.server)
    return cluster


def start_koukan(group, binary, name, url, hop_port):
    folder = os.path.join(group.folder, name)
    os.makedirs(folder)
    values = {"folder": folder, "hop_port": hop_port, "gateway_port": procs.free_port(),
              "router_port": procs.free_port(), "url": url}
    paths = []
    for config in ("store-gateway.yaml", "replicas-router.yaml"):
        with open(os.path.join(CONFIGS, config), encoding="utf-8") as file:
            text = string.Template(file.read()).substitute(values)
        paths.append(os.path.join(folder, config))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(text)
    server = group.add(procs.Server(name, binary, ["serve", *paths], folder))
    server.wait_ready()
    return server


class Round:
    """`number` replicas on a database that is new."""

    def __init__(self, args, group, cluster, binary, number, name):
        self.args, self.cluster = args, cluster
        cluster.sql(f"CREATE DATABASE {name}", "postgres")
        self.database = name
        self.hop_port = procs.free_port()
        url = f"postgresql://postgres@/{name}?host={cluster.folder}"
        self.servers = [start_koukan(group, binary, f"{name}-{i}", url, self.hop_port)
                        for i in range(number)]
        self.group = group

    def cpu(self):
        return (sum(procs.cpu_seconds(server.pid) for server in self.servers),
                procs.cpu_seconds(self.cluster.server.pid, True))

    def submit(self):
        """Messages a second."""
        args, running = self.args, []
        begin = time.monotonic()
        for i in range(DOMAINS):
            port = self.servers[i % len(self.servers)].smtp_ports()[0]
            running.append(subprocess.Popen(
                ["smtp-source", "-s", str(max(1, args.sessions // DOMAINS)), "-m",
                 str(args.messages // DOMAINS), "-l", str(args.size), "-f", "alice@example.com",
                 "-t", f"bob@d{i}.example", "-M", "localhost", f"127.0.0.1:{port}"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        for each in running:
            text, _ = each.communicate()
            if each.returncode != 0:
                raise Failed(f"smtp-source: {text.decode()[-500:]}")
        return self.count() / (time.monotonic() - begin)

    def count(self):
        return self.args.messages // DOMAINS * DOMAINS

    def deliver(self):
        """Messages a second, out of the queue."""
        from devkit.bench import Sink
        sink = Sink(self.group, self.database, self.hop_port)
        wait = "session=0 AND NOT held AND final_reason IS NULL"
        procs.wait_until(lambda: int(self.cluster.sql(
            f"SELECT count(*) FROM tx WHERE {wait} AND attempts>0", self.database)) == self.count(),
            "the first attempts to be over", 60)
        # In one transaction, so that all are due at one moment.
        self.cluster.sql(f"BEGIN; UPDATE tx SET next_attempt=1 WHERE {wait}; "
                         "UPDATE dest SET due=1; COMMIT", self.database)
        procs.wait_until(lambda: sink.count() > 0, "the first delivery", 60)
        begin, first = time.monotonic(), sink.count()
        end = begin + 300
        while sink.count() < self.count() and time.monotonic() < end:
            time.sleep(0.005)
        rate = (sink.count() - first) / (time.monotonic() - begin)
        arrived = sink.count()
        sink.proc.stop()
        return rate, arrived

    def run(self):
        """(acknowledged/s, delivered/s, CPU ms of koukan, of PostgreSQL, arrived)"""
        cpu, server_cpu = self.cpu()
        acknowledged = self.submit()
        delivered, arrived = self.deliver()
        after, server_after = self.cpu()
        for server in self.servers:
            server.stop()
        count = self.count()
        return (acknowledged, delivered, (after - cpu) * 1000 / count,
                (server_after - server_cpu) * 1000 / count, arrived)


def table(results, args):
    say(f"{'replicas':>8}{'acknowl./s':>12}{'(min-max)':>14}{'delivered/s':>13}{'(min-max)':>14}"
        f"{'CPU ms/msg':>12}{'PostgreSQL':>12}{'arrived':>16}")
    good = True
    for number, rounds in results.items():
        columns = list(zip(*rounds))
        middle = [statistics.median(column) for column in columns]
        spans = [f"{min(column):.0f}-{max(column):.0f}" for column in columns]
        wanted = args.messages // DOMAINS * DOMAINS * len(rounds)
        good &= sum(columns[4]) == wanted
        say(f"{number:>8}{middle[0]:>12.0f}{spans[0]:>14}{middle[1]:>13.0f}{spans[1]:>14}"
            f"{middle[2]:>12.3f}{middle[3]:>12.3f}{f'{sum(columns[4])}/{wanted}':>16}")
    say(f"{args.rounds} rounds of {args.messages} messages of {args.size} bytes, {args.sessions} "
        f"sessions, {DOMAINS} recipient domains; medians; {os.cpu_count()} cores for all, so more "
        "replicas than cores show what sharing costs, not what machines would add")
    return good


def replicas(args):
    packages.ensure("build", "bench", "crash")
    binary = args.binary or build.binary("release")
    if not args.binary:
        build.build("release", ["koukan"], quiet=True)
    group = procs.Group("koukan-bench-")
    try:
        cluster = make_cluster(group)
        results = {number: [] for number in NUMBERS}
        for turn in range(args.rounds):
            for number in NUMBERS:
                one = Round(args, group, cluster, binary, number, f"r{turn}x{number}").run()
                results[number].append(one)
                say(f"round {turn + 1}, {number}: {one[0]:.0f} acknowledged/s, {one[1]:.0f} "
                    f"delivered/s, CPU {one[2]:.3f} ms and PostgreSQL {one[3]:.3f} ms a message")
        step("replicas")
        return 0 if table(results, args) else 1
    finally:
        group.close()
