# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL goes away; several servers on one database, one of them frozen or killed."""
import itertools
import os
import signal
import threading
import time

from devkit import procs
from faults import check_codes, flows, refusals
from load import Load
from scene import Scene, wait_for
from server import Koukan

LEASE = 10  # seconds: ten times session_refresh in tests/crash/config


def database_stop(options):
    """PostgreSQL is stopped with -m immediate, then stays away for a minute."""
    away = 8 if options.short else 60
    with Scene(options, "db-stop") as scene:
        koukan, result = scene.koukan, scene.result
        koukan.start()
        # Clients that wait for deliveries would not try while nothing can be stored.
        load = scene.load({"msa": 12, "rest": 12}, backlog=1 << 60)
        scene.bad_weather("up", "up", "4xx-rcpt")
        for _ in range(2 if options.short else 5):
            time.sleep(1 + scene.rng.random())
            scene.database.stop("immediate")
            scene.database.start()
        time.sleep(2)
        scene.good_weather()
        scene.sink.set_mode("4xx-rcpt")  # so that acceptance needs the store
        before = procs.resident_bytes(koukan.pid)
        scene.database.stop("immediate")
        stopped = time.monotonic()
        time.sleep(2 + away)
        # What was under way may still be answered with the next hop's own word.
        with scene.sink.lock:
            alone = [key for key, (when, _) in load.ledger.snapshot().items()
                     if when > stopped and not scene.sink.has(key)]
        result.check(not alone, f"acknowledged without a database: {alone[:5]}")
        for way in ("msa", "rest"):
            result.check(refusals(load.ledger, way) > 0, f"{way}: nobody was refused")
        growth = procs.resident_bytes(koukan.pid) - before
        scene.database.start()
        again = flows(scene, load, 20)
        result.check(again is not None and again < 10,
                     f"flows again after {again} s with the database back")
        result.note(f"away {away} s, resident {growth / 1048576:+.1f} MB; flows again after "
                    f"{again or 0:.1f} s")
        result.check(growth < 32 << 20, f"grew by {growth >> 20} MB while the database was away")
        result.check(koukan.is_alive(), "ended: " + koukan.server.tail(1500))
        # A delivery that could not be written down is repeated once: the stop is its death.
        check_codes(scene, load)
        scene.finish(load)
        return result


class Front:
    """What clients connect to: any replica that has not been killed, another one each time."""

    def __init__(self, replicas):
        self.replicas = replicas
        self.turns = itertools.count()

    def choose(self):
        live = [replica for replica in self.replicas if replica.is_alive()]
        if not live:
            raise OSError("no replica is alive")
        return live[next(self.turns) % len(live)]

    @property
    def msa(self):
        return self.choose().msa

    @property
    def rest(self):
        return self.choose().rest


def start_replicas(scene, count):
    replicas = [scene.koukan]
    for number in range(2, count + 1):
        replicas.append(scene.own(Koukan(
            scene.options.binary, os.path.join(scene.folder, f"server-{number}"),
            scene.database.url, scene.sink.port)))
    for replica in replicas:
        replica.start()
    return replicas


def frozen_replica(options):
    """Three replicas; one is frozen for longer than its lease and goes on, one dies for good."""
    total = options.messages or (1500 if options.short else 20000)
    with Scene(options, "replicas") as scene:
        result = scene.result
        replicas = start_replicas(scene, 3)
        load = Load(Front(replicas), scene.marks, {"msa": 8, "rest": 8}, sink=scene.sink,
                    limit=total)
        scene.bad_weather("up", "up", "4xx-rcpt", "4xx-data")
        scene.sink.delay = 0.01  # so that attempts are under way at any moment
        wait_for(lambda: load.started >= total // 4, 300)
        fill_hands(scene, replicas[1])
        frozen = threading.Thread(target=freeze, args=(scene, replicas[1], LEASE + 5))
        frozen.start()
        time.sleep(2)  # the next hop takes what is on its way, and the frozen one does not hear it
        scene.sink.delay = 0.01
        scene.bad_weather("up", "up", "4xx-rcpt", "4xx-data")
        wait_for(lambda: load.started >= total // 2, 300)
        replicas[2].kill()
        scene.say(f"killed one after {load.ledger.count()} acknowledged")
        result.kills += 1
        frozen.join()
        scene.good_weather()
        hanging = load.join(300)
        result.check(hanging == 0 and load.started == total,
                     f"{load.started} of {total} messages submitted, {hanging} clients hang")
        check_thawed(scene, replicas[1])
        verdict = scene.finish(load, replicas, restart=False)
        result.check(verdict.queued == 0, f"{verdict.queued} never left")
        return result


def fill_hands(scene, replica):
    """Until the replica has claimed stored messages and waits for the next hop's word on them."""
    scene.good_weather()
    scene.sink.set_mode("4xx-data")
    time.sleep(2)
    scene.sink.delay = 0.4  # below what account takes for "just after" the freeze
    scene.sink.set_mode("up")
    time.sleep(1)
    held = scene.database.sql("SELECT count(*) FROM tx t JOIN session s ON s.id=t.session WHERE "
                              f"s.live AND s.uri='{replica.rest}' AND t.final_reason IS NULL")
    scene.say(f"{held.strip()} leases of the one that is frozen")


def check_thawed(scene, replica):
    """It says that leases were lost, and works on, with a new session."""
    result, run = scene.result, replica.runs[-1]
    noticed = wait_for(lambda: replica.log("lease_lost"), 10)
    result.note(f"the frozen one wrote {len(noticed)} results of lost leases to its log only"
                if noticed else "the frozen one had no stored message under way")
    thawed = run.frozen[-1][1]
    extra = Load(replica, scene.marks, {"rest": 1}, sink=scene.sink, limit=20, plain=True)
    extra.join(30)

    def again():
        with scene.sink.lock:
            return [key for key in extra.ledger.acknowledged if any(
                copy.generation == run.generation and copy.time > thawed
                for copy in scene.sink.copies.get(key, ()))]
    # Any replica may have taken the odd one of them.
    result.check(wait_for(lambda: len(again()) > 10, 30),
                 f"the frozen one delivered {len(again())} of 20 messages after it went on")


def freeze(scene, replica, seconds):
    run = replica.runs[-1]
    start = time.monotonic()
    replica.server.popen.send_signal(signal.SIGSTOP)
    scene.say(f"frozen for {seconds} s")
    time.sleep(seconds)
    replica.server.popen.send_signal(signal.SIGCONT)
    run.frozen.append((start, time.monotonic()))
