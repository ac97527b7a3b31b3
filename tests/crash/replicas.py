# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL goes away; several servers on one database, one of them frozen or killed."""
import os
import signal
import time

from devkit import procs
from faults import check_codes, flows
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
        load = scene.load({"msa": 4, "rest": 4})
        scene.bad_weather("up", "up", "4xx-rcpt")
        for _ in range(2 if options.short else 5):
            time.sleep(1 + scene.rng.random())
            scene.database.stop("immediate")
            scene.database.start()
        time.sleep(2)
        before = procs.resident_bytes(koukan.pid)
        scene.database.stop("immediate")
        time.sleep(2)  # answers to what was under way
        count = load.ledger.count()
        time.sleep(away)
        result.check(load.ledger.count() == count, "acknowledged without a database: "
                     f"{load.ledger.count() - count}")
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


def frozen_replica(options):
    """Three replicas; one is frozen for longer than its lease and goes on, one is killed."""
    with Scene(options, "replicas") as scene:
        result = scene.result
        replicas = [scene.koukan]
        for number in (2, 3):
            replicas.append(scene.own(Koukan(
                options.binary, os.path.join(scene.folder, f"server-{number}"),
                scene.database.url, scene.sink.port)))
        for replica in replicas:
            replica.start()
        loads = [Load(replica, scene.marks, {"msa": 2, "rest": 2}, sink=scene.sink)
                 for replica in replicas]
        scene.bad_weather("up", "up", "4xx-rcpt", "4xx-data")
        time.sleep(3)
        freeze(scene, replicas[1], LEASE + 5)
        replicas[2].kill()
        result.kills += 1
        time.sleep(2 if options.short else 20)
        replicas[2].start()
        time.sleep(3)
        rows = wait_for(lambda: replicas[1].is_alive() and replicas[1].log("lease"), 10)
        result.note(f"the frozen one {'noticed' if rows else 'did not log'} its lost lease")
        merged = merge(loads)
        scene.finish(merged, replicas)
        return result


def freeze(scene, replica, seconds):
    run = replica.runs[-1]
    start = time.monotonic()
    replica.server.popen.send_signal(signal.SIGSTOP)
    scene.say(f"frozen for {seconds} s")
    time.sleep(seconds)
    replica.server.popen.send_signal(signal.SIGCONT)
    run.frozen.append((start, time.monotonic()))


def merge(loads):
    """One load that stands for all."""
    first = loads[0]
    for other in loads[1:]:
        other.end.set()
        other.join(60)
        with other.ledger.lock:
            first.ledger.acknowledged.update(other.ledger.acknowledged)
            first.ledger.refused.update(other.ledger.refused)
            first.ledger.unknown.update(other.ledger.unknown)
    return first
