# SPDX-License-Identifier: Apache-2.0
"""A long queue: how long the start takes and what the process holds in memory."""
import time

from devkit import procs
from scene import Scene, wait_for


def restart(options):
    """kill -9 with many messages queued: start to listening, memory, then all are delivered."""
    goal = options.queue
    with Scene(options, "restart", size=300) as scene:
        koukan, result = scene.koukan, scene.result
        koukan.start()
        scene.sink.set_mode("4xx-rcpt")
        begin = time.monotonic()
        load = scene.load({"msa": 8, "rest": 8}, plain=True, backlog=1 << 60, limit=goal)
        while load.ledger.count() < goal and any(t.is_alive() for t in load.threads):
            wait_for(lambda: load.ledger.count() >= goal, 10)
            scene.say(f"{load.ledger.count()} queued after {time.monotonic() - begin:.0f} s, "
                      f"{procs.resident_bytes(koukan.pid) >> 20} MB resident")
        koukan.kill()
        result.kills += 1
        koukan.start()
        ready = koukan.runs[-1].ready
        time.sleep(2)
        result.note(f"{load.ledger.count()} queued: start to listening {ready * 1000:.0f} ms, "
                    f"{procs.resident_bytes(koukan.pid) >> 20} MB resident after 2 s")
        result.check(ready < 1.0, f"start to listening took {ready:.2f} s")
        # Ends earlier when nothing leaves any more; on a busy machine it takes its time.
        scene.finish(load, seconds=120 + goal / 50)
        return result
