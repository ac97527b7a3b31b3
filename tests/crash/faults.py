# SPDX-License-Identifier: Apache-2.0
"""The disk is full, calls fail, the database is locked: the answer is a temporary refusal, nothing
that was acknowledged is lost, and mail flows again by itself afterwards."""
import os
import subprocess
import sys
import time

import disk
from devkit.procs import Failed
from scene import Scene, Skip, wait_for

REFUSALS = {"msa": {421, 451, 452}, "rest": {503, 507}}


def check_codes(scene, load):
    """Only temporary refusals; what was answered, as a note."""
    ledger = load.ledger
    codes = {}
    for (way, code), count in sorted(ledger.codes.items()):
        if code == 0 or (code == 550 and not load.plain):  # some recipients do not exist
            continue
        codes.setdefault(way, []).append(f"{code} x {count}")
        scene.result.check(code in REFUSALS[way], f"{way} was answered {code} ({count} times)")
    for way, texts in codes.items():
        times = sorted(seconds for each, seconds in ledger.refusals if each == way)
        scene.result.note(f"{way} refused with {', '.join(texts)}; after {times[len(times) // 2]:.2f}"
                          f" s in the middle, {times[-1]:.1f} s at most")


def refusals(ledger, way):
    with ledger.lock:
        return sum(count for (each, code), count in ledger.codes.items()
                   if each == way and code in REFUSALS[way])


def flows(scene, load, seconds):
    """Seconds until each way has acknowledged again, or None."""
    with load.ledger.lock:
        before = {way: sum(each == way for _, each in load.ledger.acknowledged.values())
                  for way in ("msa", "rest")}

    def grown():
        with load.ledger.lock:
            return all(sum(each == way for _, each in load.ledger.acknowledged.values()) > count
                       for way, count in before.items())
    begin = time.monotonic()
    return time.monotonic() - begin if wait_for(grown, seconds) else None


def disk_full(options):
    """The store's file system runs full and is emptied again."""
    missing = disk.can_mount(options.folder)
    if missing:
        raise Skip(missing)
    total = None
    for number in range(1, 3 if options.short else 4):
        volume = disk.Tmpfs(os.path.join(options.folder, f"small-{number}"), 24)
        try:
            with Scene(options, f"full-{number}", store_folder=os.path.join(volume.path, "s")
                       ) as scene:
                one_full(scene, volume, 2 << 20 if number != 2 else 0)
                result = scene.result
                if total is None:
                    total, total.name = result, "full"
                else:
                    total.notes += result.notes
                    total.problems += result.problems
                    total.verdict.add(result.verdict)
        finally:
            volume.close()
    return total


def one_full(scene, volume, leave):
    koukan, result = scene.koukan, scene.result
    koukan.start()
    scene.sink.set_mode("4xx-rcpt")
    load = scene.load({"msa": 4, "rest": 4}, plain=True, backlog=1 << 30)
    wait_for(lambda: load.ledger.count() > 200, 20)
    volume.fill(leave)
    for way in ("msa", "rest"):
        # More than the transactions that may be active at a time: none may stay behind.
        goal = 100 if scene.options.short else 2500
        result.check(wait_for(lambda way=way: refusals(load.ledger, way) > goal, 60),
                     f"{way}: only {refusals(load.ledger, way)} refusals on a full disk")
    stored = load.ledger.count()
    before = scene.sink.accepted
    scene.sink.set_mode("up")
    delivered = wait_for(lambda: scene.sink.accepted - before > stored // 2, 20)
    result.note(f"full with {stored} queued; deliveries on the full disk "
                f"{'went on' if delivered else 'stood still'}")
    result.check(koukan.is_alive(), "ended on a full disk: " + koukan.server.tail(1500))
    scene.sink.set_mode("4xx-rcpt")  # so that acceptance needs the store again
    time.sleep(0.5)
    os.unlink(os.path.join(volume.path, "ballast"))
    seconds = flows(scene, load, 15)
    if result.check(seconds is not None, "accepts nothing 15 s after there was space again"):
        result.note(f"accepts {seconds:.1f} s after there was space again, without a restart")
    check_codes(scene, load)
    # Deliveries are written down again and again until that succeeds; but as long as the disk was
    # full a finished one may have been unwritten, which is no excuse for a second copy.
    scene.finish(load, seconds=40)


FAULTS = [
    # call, what, seconds
    ("fdatasync", "error=EIO:when=6..8", 3),
    ("fdatasync", "error=EIO:when=5+7", 4),
    ("fdatasync", "error=ENOSPC:when=6..9", 3),
    ("pwrite64", "error=EIO:when=40..60", 3),
    ("pwrite64", "error=ENOSPC:when=40..200", 3),
    ("fsync", "error=EIO:when=1..3", 3),
    ("ftruncate", "error=EIO:when=2+", 3),
]


def errors(options):
    """Writes and flushes of the database fail with EIO and ENOSPC."""
    missing = disk.strace_missing()
    if missing:
        raise Skip(missing)
    from kills import strace
    with Scene(options, "errors") as scene:
        koukan, result = scene.koukan, scene.result
        koukan.start()
        load = scene.load({"msa": 4, "rest": 4})
        scene.bad_weather("up", "up", "4xx-rcpt", "down")
        for call, what, seconds in FAULTS[:5] if options.short else FAULTS:
            koukan.kill()
            before = refusals(load.ledger, "msa") + refusals(load.ledger, "rest")
            try:
                koukan.start(strace(call, what))
                koukan.runs[-1].failing = True
            except Failed:
                if koukan.is_alive():
                    raise
                scene.say(f"{call} {what}: refused to start")
            time.sleep(min(seconds, 2) if options.short else seconds)
            alive = koukan.is_alive()
            count = refusals(load.ledger, "msa") + refusals(load.ledger, "rest") - before
            scene.say(f"{call} {what}: {'alive' if alive else 'ended'}, {count} refusals, "
                      f"{load.ledger.count()} acknowledged")
            result.kills += 1
            if alive:
                seconds = flows(scene, load, 15)
                result.check(seconds is not None, f"{call} {what}: flows no more: "
                             + "\n".join(koukan.log("error")[-5:]))
            koukan.kill()  # what was acknowledged after the fault must be there, too
            koukan.start()
        check_codes(scene, load)
        scene.finish(load)
        return result


LOCKER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
database.execute("ROLLBACK")
"""


def locked(options):
    """Another process holds the SQLite file locked for 30 seconds."""
    seconds = 8 if options.short else 30
    with Scene(options, "locked") as scene:
        koukan, result = scene.koukan, scene.result
        koukan.start()
        load = scene.load({"msa": 4, "rest": 4}, plain=True)
        scene.sink.set_mode("4xx-rcpt")
        wait_for(lambda: load.ledger.count() > 50, 10)
        load.ledger.latencies.clear()
        with subprocess.Popen([sys.executable, "-c", LOCKER, scene.database.path, str(seconds)],
                              stdout=subprocess.PIPE) as locker:
            locker.stdout.readline()
            before = load.ledger.count()
            end = time.monotonic() + seconds - 1
            slowest = 0.0
            threads = thread_count(koukan.pid)
            while time.monotonic() < end and locker.poll() is None:
                now = time.monotonic()
                slowest = max([slowest, *(now - since for since, _, _ in
                                          list(load.busy.values()))])
                time.sleep(0.05)
            acknowledged = load.ledger.count() - before
            result.note(f"locked {seconds} s: {acknowledged} acknowledged, slowest answer "
                        f"{slowest:.1f} s, threads {threads} -> {thread_count(koukan.pid)}")
            locker.wait()
        again = flows(scene, load, 15)
        if result.check(again is not None, "accepts nothing 15 s after the lock was gone"):
            result.note(f"accepts {again:.1f} s after the lock was gone")
        result.check(slowest < 20, f"an answer took {slowest:.1f} s")
        check_codes(scene, load)
        scene.finish(load)
        return result


def thread_count(pid):
    return len(os.listdir(f"/proc/{pid}/task"))
