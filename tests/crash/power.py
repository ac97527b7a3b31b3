# SPDX-License-Identifier: Apache-2.0
"""Power cuts: what the disk holds at the instant of an acknowledgement is copied, and a server is
started on the copy.

The store lies on an ext4 file system in a file.  The server is stopped (SIGSTOP) while clients get
their acknowledgements, then the file is copied: it holds what was written to the device, not what
is only in the page cache.  All that was acknowledged until then must be in the copy.  The control
does the same with flushes that do nothing, and must find losses: it shows that the experiment
would notice."""
import os
import shutil
import signal

import disk
from account import account, drain
from database import Sqlite
from devkit.common import say
from scene import Scene, Skip, wait_for
from server import Koukan, quiet_port
from sink import Sink

IMAGE_MEGABYTES = 64


def power_cut(options):
    """The block image is copied at the instant of a 250; the copy must hold all of them."""
    return cuts(options, "power", None)


def power_cut_control(options):
    """The same with flushes that do nothing: losses must be found."""
    return cuts(options, "power-control", "off")


def cuts(options, name, shim):
    missing = disk.can_loop(options.folder)
    if missing:
        raise Skip(missing)
    rounds = max(3, min(20, options.kills // 15))
    environment = None
    if shim:
        environment = {"LD_PRELOAD": disk.build_shim(options.folder), "FSYNC_SHIM": shim}
    image = disk.Image(options.folder, name + "-disk", IMAGE_MEGABYTES).attach()
    try:
        with Scene(options, name, store_folder=os.path.join(image.path, "state")) as scene:
            lossy = 0
            for number in range(1, rounds + 1):
                lossy += one_cut(scene, image, environment, number)
            finish(scene, rounds, lossy, shim)
            return scene.result
    finally:
        image.remove()


def one_cut(scene, image, environment, number):
    """1 when the copy had lost something.  Each cut has a database of its own."""
    koukan = scene.koukan
    scene.database.path = os.path.join(image.path, f"state-{number}", "koukan.db")
    os.makedirs(os.path.dirname(scene.database.path))
    koukan.values["url"] = scene.database.url
    scene.sink.set_mode("4xx-data" if number % 2 else "down")
    koukan.start(env=environment)
    load = scene.load({"msa": 6, "rest": 4}, plain=True, backlog=1 << 30)
    goal = scene.rng.choice((1, 5, 50, 300))
    wait_for(lambda: load.ledger.count() >= goal, 20, 0.0005)
    # The acknowledgements that the clients have now were given before the copy is made.
    koukan.server.popen.send_signal(signal.SIGSTOP)
    acknowledged = load.ledger.snapshot()
    copy = disk.Image(scene.folder, f"cut-{number}", 0)
    image.copy_to(copy)
    koukan.kill()
    load.stop()
    shutil.rmtree(os.path.dirname(scene.database.path))
    scene.result.kills += 1
    try:
        verdict = recover(scene, copy, number, acknowledged)
    finally:
        copy.remove()
    total = scene.result.verdict
    if total is None:
        scene.result.verdict = verdict
    else:
        total.add(verdict)
    say(f"{scene.name}: cut {number}: {len(acknowledged)} acknowledged, {len(verdict.lost)} lost")
    return 1 if verdict.lost else 0


class Kept:
    """A ledger of what was acknowledged before the cut."""

    def __init__(self, acknowledged):
        self.acknowledged, self.refused = acknowledged, {}

    def snapshot(self):
        return self.acknowledged


def recover(scene, copy, number, acknowledged):
    """A server on the copy, with a next hop of its own."""
    sink = scene.own(Sink(quiet_port(), scene.size))
    copy.attach()
    try:
        database = Sqlite(os.path.join(copy.path, f"state-{number}"))
        koukan = Koukan(scene.koukan.binary, os.path.join(scene.folder, f"recovered-{number}"),
                        database.url, sink.port)
        os.makedirs(os.path.dirname(database.path), exist_ok=True)
        koukan.start()
        try:
            drain(Kept(acknowledged), sink, 60.0, patience=4.0)
        finally:
            koukan.end()
        for problem in database.check():
            scene.result.fail(f"cut {number}: integrity: {problem}")
        return account(Kept(acknowledged), sink, koukan.runs, database.queued(), scene.folder)
    finally:
        copy.close()
        sink.close()


def finish(scene, rounds, lossy, shim):
    result, verdict = scene.result, scene.result.verdict
    result.note(f"{lossy} of {rounds} copies had lost something")
    if shim:
        result.check(lossy > 0, "the control lost nothing: the experiment proves nothing here")
        return
    for problem in verdict.problems():
        result.fail(problem)
    result.check(verdict.queued == 0, f"{verdict.queued} still queued")
