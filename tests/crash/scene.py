# SPDX-License-Identifier: Apache-2.0
"""What every experiment has: a folder, a next hop, a server, clients, and an end where everything
is counted."""
import os
import random
import shutil
import time

import letters
from account import account, drain
from database import Postgres, Sqlite
from devkit.common import say
from load import Load
from server import Koukan, quiet_port
from sink import Sink, Weather

WAYS = {"msa": 6, "rest": 4, "mx": 3}


class Skip(Exception):
    """The experiment cannot be done here; the text says why."""


class Result:
    """One line of the final table."""

    def __init__(self, name):
        self.name = name
        self.kills = 0
        self.verdict = None
        self.notes = []
        self.problems = []
        self.skipped = None
        self.seconds = 0.0

    @property
    def ok(self):
        return not self.problems

    def note(self, text):
        self.notes.append(text)

    def fail(self, text):
        self.problems.append(text)

    def check(self, condition, text):
        if not condition:
            self.fail(text)
        return condition


class Scene:
    """`with Scene(options, name) as scene`: closed in any case; on trouble the folder is kept."""

    def __init__(self, options, name, store_folder=None, size=None, **values):
        self.options, self.name = options, name
        self.result = Result(name)
        self.folder = os.path.join(options.folder, name)
        os.makedirs(self.folder)
        self.rng = random.Random(f"{options.seed} {name}")
        self.marks = letters.Marks(f"{options.seed} {name} {time.time_ns()}")
        self.size = size
        self.parts = []  # closed in reverse order
        try:
            self.database = self.own(
                Postgres(self.folder, options.binary) if options.store == "postgresql" else
                Sqlite(store_folder or os.path.join(self.folder, "state")))
            self.sink = self.own(Sink(quiet_port(), size))
            self.koukan = self.own(Koukan(options.binary, os.path.join(self.folder, "server"),
                                          self.database.url, self.sink.port, **values))
        except BaseException:
            self.close()
            raise
        self.weather = None

    def own(self, part):
        self.parts.append(part)
        return part

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.weather is not None:
            self.weather.stop()
        self.close()
        if kind is None and self.result.ok and not self.options.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self.options.keep_folder = True

    def close(self):
        for part in reversed(self.parts):
            part.close()
        self.parts = []

    # ---- parts of experiments ----

    def say(self, text):
        say(f"{self.name}: {text}")

    def load(self, ways=None, **more):
        return Load(self.koukan, self.marks, WAYS if ways is None else ways, sink=self.sink,
                    size=self.size, **more)

    def bad_weather(self, *modes):
        self.weather = Weather(self.sink, self.rng, *([modes] if modes else []))

    def good_weather(self):
        if self.weather is not None:
            self.weather.stop()
            self.weather = None
        self.sink.set_mode("up")

    def finish(self, load, servers=None, seconds=120.0, restart=True):
        """Good weather, everything delivered, servers stopped, everything counted."""
        servers = servers or [self.koukan]
        self.good_weather()
        hanging = load.stop()
        self.result.check(hanging == 0, f"{hanging} clients hang: {list(load.busy.values())[:3]}")
        for server in servers:
            if restart and not server.is_alive():
                server.start()
        left = drain(load.ledger, self.sink, seconds / 4)
        if left:
            released = sum(server.release_held() for server in servers if server.is_alive())
            self.say(f"{released} rows were held and are released")
            left = drain(load.ledger, self.sink, seconds)
        for server in servers:
            if server.is_alive():
                code, took = server.end()
                self.result.check(code == 0, f"exit code {code} at the end, after {took:.1f} s")
        for problem in self.database.check():
            self.result.fail(f"integrity: {problem}")
        queued = self.database.queued()
        runs = [run for server in servers for run in server.runs]
        verdict = account(load.ledger, self.sink, runs, queued, self.folder)
        self.result.verdict = verdict
        self.say(verdict.line())
        if left:
            self.say(f"{left} did not leave within {seconds:g} s; {len(queued)} rows are queued")
        for problem in verdict.problems():
            self.result.fail(problem)
        if verdict.queued and verdict.queued > len(load.ledger.acknowledged) // 100:
            self.result.fail(f"{verdict.queued} acknowledged messages were still queued")
        if verdict.refused:
            self.result.note(f"{len(verdict.refused)} delivered although their client was refused")
            for key in verdict.refused[:2]:
                code = load.ledger.refused[key][1]
                self.say(f"refused with {code}, yet delivered: {key[0]} {key[1]}")
                for line in self.koukan.log(key[0])[:4]:
                    self.say("  " + line[:300])
        if verdict.longest:
            self.result.note(f"longest 250-to-death of a duplicate {verdict.longest * 1000:.0f} ms")
        return verdict


def wait_for(condition, seconds, step=0.01):
    """The first true value of condition(), or its last one."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)
