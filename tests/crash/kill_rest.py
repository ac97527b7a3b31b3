#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 during REST submissions: whatever got its 201 is delivered at least once.

Clients submit messages with inline bodies to `koukan serve`; the server is killed at random
moments and started again.  At the end every message that was answered 201 must be at the next hop,
unaltered.  Prints what was counted; exit code 1 when one is missing."""
import argparse
import os
import queue
import random
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(HERE)), "tools"))
sys.dont_write_bytecode = True


class Load:
    """Clients that submit until the marks run out; a refused or broken request is tried with a new
    connection until the server is back."""

    def __init__(self, url, messages, clients):
        from mail import token
        self.url = url
        self.marks = queue.SimpleQueue()
        for _ in range(messages):
            self.marks.put(token())
        self.lock = threading.Lock()
        self.acknowledged, self.unknown = set(), 0
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        from mail import Rest
        rest = None
        while True:
            try:
                mark = self.marks.get_nowait()
            except queue.Empty:
                return
            try:
                rest = rest or Rest(self.url, timeout=20)
                rest.submit(mark, rcpt="carol@elsewhere.example.net")
                with self.lock:
                    self.acknowledged.add(mark)
            except ConnectionRefusedError:  # down just now: certainly not taken
                rest = None
                self.marks.put(mark)
                time.sleep(0.02)
            except Exception:  # broken: whether it was taken is unknown, so it does not count
                with self.lock:
                    self.unknown += 1
                if rest:
                    rest.close()
                rest = None
                time.sleep(0.02)

    def count(self):
        with self.lock:
            return len(self.acknowledged)

    def is_busy(self):
        return any(thread.is_alive() for thread in self.threads)


def start_again(world):
    """Seconds from the start to listening."""
    begin = time.monotonic()
    world.start("serve")
    return time.monotonic() - begin


def kill_at_random(world, load, kills, messages):
    """Kills when about 1/(kills+1), 2/(kills+1)... of the messages are acknowledged."""
    slowest = 0.0
    for number in range(1, kills + 1):
        goal = messages * number // (kills + 1) + random.randint(0, max(1, messages // 20))
        while load.is_busy() and load.count() + load.unknown < goal:
            time.sleep(0.001)
        time.sleep(random.random() * 0.02)
        world.smtp_server.kill()
        world.procs.remove(world.smtp_server)
        world.servers.remove(world.smtp_server)
        slowest = max(slowest, start_again(world))
    for thread in load.threads:
        thread.join()
    return slowest


def verdict(hop, load, seconds):
    """Waits for the rest; (missing, altered, extra copies)."""
    from mail import message
    end = time.monotonic() + seconds
    copies = {}
    while time.monotonic() < end:
        copies = {}
        with hop.lock:
            for got in hop.taken:
                subject = got.data.partition(b"Subject: test ")[2][:16].decode()
                copies.setdefault(subject, []).append(got)
        if all(mark in copies for mark in load.acknowledged):
            break
        time.sleep(0.2)
    missing = [mark for mark in load.acknowledged if mark not in copies]
    altered = [mark for mark in load.acknowledged for got in copies.get(mark, [])
               if not got.data.endswith(message(mark, rcpt="carol@elsewhere.example.net"))]
    return missing, altered, sum(len(each) - 1 for each in copies.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--binary", help="default: the newest of build/*/koukan")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", help="scratch; default: a new one, removed afterwards")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    random.seed(seed)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="koukan-crash-") as scratch:
        return run(args, args.folder or scratch)


def run(args, folder):
    from world import World
    world = World(folder, binary=args.binary, log_level="info", max_attempts=100)
    try:
        hop = world.hop()
        world.start("serve")
        load = Load(world.router_url, args.messages, args.clients)
        slowest = kill_at_random(world, load, args.kills, args.messages)
        missing, altered, extra = verdict(hop, load, 60)
        print(f"{args.kills} kills; {load.count()} answered 201, {load.unknown} without an answer; "
              f"{len(missing)} missing, {len(altered)} altered, {extra} extra copies; "
              f"slowest restart {slowest:.2f} s")
        if missing or altered:
            print("missing:", *missing[:5], "altered:", *altered[:5])
            print(world.report())
        return 1 if missing or altered or not load.acknowledged else 0
    finally:
        world.close()


if __name__ == "__main__":
    sys.exit(main())
