# SPDX-License-Identifier: Apache-2.0
"""The server is killed: at random, at chosen system calls, by SIGTERM."""
import math
import time

import disk
from devkit.procs import Failed
from scene import Scene, Skip, wait_for


def random_kills(options):
    """kill -9 at random moments under load, some of them while the server starts."""
    with Scene(options, "kills") as scene:
        koukan, result = scene.koukan, scene.result
        koukan.start()
        load = scene.load()
        scene.bad_weather()
        early = 0
        for number in range(1, options.kills + 1):
            time.sleep(scene.rng.choice((0.05, 0.2, 0.4, 0.8)) * scene.rng.random() + 0.01)
            if not koukan.is_alive():
                result.fail(f"ended by itself, code {koukan.server.popen.returncode}: "
                            + koukan.server.tail(1500))
                koukan.note_end("kill")
            koukan.kill()
            while scene.rng.random() < 0.1:
                early += 1
                koukan.start(wait=False)
                time.sleep(scene.rng.random() * 0.03)
                koukan.kill()
            koukan.start()
            if number % 25 == 0 or number == options.kills:
                scene.say(f"{number} kills, {load.ledger.count()} acknowledged, "
                          f"{len(load.ledger.unknown)} without an answer, "
                          f"{scene.sink.accepted} at the next hop")
        result.kills = options.kills + early
        result.note(f"{early} of the kills during the start; slowest start to listening "
                    f"{koukan.slowest_start() * 1000:.0f} ms")
        scene.finish(load)
        return result


# Not with --seccomp-bpf, which makes strace miscount `when`.
# Calls where something becomes durable or is said; `when` is counted in each thread by itself.
CALLS = ("fdatasync", "pwrite64", "write", "sendto", "sendmsg", "recvfrom", "read", "accept4",
         "epoll_wait", "openat", "close", "ftruncate", "flock", "fsync")


def strace(call, what, log="/dev/null"):
    return ("strace", "-f", "-qq", "-o", log, "-e", f"trace={call}", "-e",
            f"inject={call}:{what}")


def counts(rng, number):
    """About `number` different values of when=: the first ones, others up to some thousands."""
    small = range(1, 2 + number // 4)
    return sorted({*small, *(int(math.exp(rng.uniform(1, 8))) for _ in range(number - len(small)))})


def syscall_kills(options):
    """kill -9 when a chosen system call is entered for the n-th time."""
    missing = disk.strace_missing()
    if missing:
        raise Skip(missing)
    with Scene(options, "syscalls") as scene:
        koukan, result = scene.koukan, scene.result
        koukan.start()
        load = scene.load()
        scene.bad_weather()
        calls = options.calls or CALLS
        each = max(1, options.kills // (2 * len(calls))) if not options.when else 0
        for call in calls:
            died = 0
            for when in options.when or counts(scene.rng, each):
                koukan.kill()
                if not syscall_kill(koukan, call, when):
                    break  # not reached, so larger counts are not either
                died += 1
            result.kills += died
            scene.say(f"{call}: died {died} times; {load.ledger.count()} acknowledged")
            if not koukan.is_alive():
                koukan.start()
        scene.finish(load)
        return result


def syscall_kill(koukan, call, when):
    """A run that ends when `call` is entered for the `when`-th time in some thread; did it?"""
    try:
        koukan.start(strace(call, f"signal=SIGKILL:when={when}"))
    except Failed:
        if koukan.is_alive():
            raise
    died = bool(wait_for(lambda: not koukan.is_alive(), 3.0))
    koukan.kill()
    return died


def sigterm(options):
    """SIGTERM under load: nothing lost, nothing twice, within 30 seconds."""
    with Scene(options, "sigterm") as scene:
        koukan, result = scene.koukan, scene.result
        koukan.start()
        load = scene.load()
        # No cuts and no weather that kills: there is no excuse for a second copy.
        scene.bad_weather("up", "up", "4xx-rcpt", "4xx-data", "down")
        rounds = max(2, options.kills // 10)
        slowest = 0.0
        for number in range(1, rounds + 1):
            time.sleep(0.3 + scene.rng.random() * 0.7)
            scene.sink.delay = scene.rng.choice((0, 0, 0.05, 0.3))
            code, took = koukan.end(30)
            slowest = max(slowest, took)
            if not result.check(code == 0, f"SIGTERM {number}: exit code {code} after {took:.1f} s:"
                                f" {koukan.server.tail(1000)}"):
                break
            koukan.start()
        scene.sink.delay = 0
        result.note(f"{rounds} times SIGTERM, slowest end {slowest:.2f} s; "
                    f"{len(load.ledger.unknown)} recipients without an answer")
        scene.finish(load)
        return result
