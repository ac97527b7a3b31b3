# SPDX-License-Identifier: Apache-2.0
"""What became of each message: lost, altered, duplicated, bounced, queued."""
import os
import time

import letters

# A copy is explained by a death when it was taken at most this long before the death of the run
# that delivered it: longer than the commit of a delivery can take, even on a busy machine.
WINDOW = 2.0


class Verdict:
    """The sums of one experiment; `problems` are lines that name each fault."""

    def __init__(self):
        self.acknowledged = self.delivered = self.bounced = self.queued = 0
        self.lost, self.altered = [], []
        self.explained = self.cut = 0
        self.unexplained = []    # (key, copies)
        self.contradictions = [] # delivered and bounced
        self.strange = 0
        self.unacknowledged = 0  # delivered although the client got no answer
        self.refused = []        # delivered, its answer not cut, although the client was refused
        self.longest = 0.0       # seconds between an explained copy and the death

    def add(self, other):
        """The sums of several parts of one experiment."""
        for name in ("acknowledged", "delivered", "bounced", "queued", "explained", "cut",
                     "strange", "unacknowledged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("lost", "altered", "unexplained", "contradictions", "refused"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)

    @property
    def ok(self):
        return not (self.lost or self.altered or self.unexplained or self.contradictions
                    or self.strange)

    def problems(self):
        lines = [f"LOST {mark} {kind} ({note})" for (mark, kind), note in self.lost]
        lines += [f"ALTERED {mark} {kind} ({path})" for mark, kind, path in self.altered]
        for key, copies in self.unexplained:
            what = "BOUNCE " if key[1].startswith("perm") else ""
            lines.append(f"DUPLICATE {what}{key[0]} {key[1]}: " + ", ".join(
                f"run {copy.generation} at {copy.time:.3f}{' (cut)' if copy.cut else ''}"
                for copy in copies))
        lines += [f"BOTH delivered and bounced {mark} {kind}" for mark, kind in
                  self.contradictions]
        if self.strange:
            lines.append(f"{self.strange} messages at the next hop that nobody sent")
        return lines

    def line(self):
        return (f"{self.acknowledged} acknowledged, {self.delivered} delivered, {self.bounced} "
                f"bounced, {self.queued} queued, {len(self.lost)} lost, {len(self.altered)} "
                f"altered, duplicates: {self.explained} explained by a death, {self.cut} by a cut, "
                f"{len(self.unexplained)} unexplained; {self.unacknowledged} delivered without an "
                f"answer to the client, {len(self.refused)} after a refusal")


def drain(ledger, sink, seconds=60.0, patience=15.0, alive=None):
    """Waits until all that was acknowledged is at the sink, as long as some arrives."""
    wanted = ledger.snapshot()
    end = time.monotonic() + seconds
    progress = time.monotonic()
    left = None
    while time.monotonic() < end:
        with sink.lock:
            missing = sum(not sink.has(key) for key in wanted)
            last = sink.last
        if missing == 0:
            time.sleep(0.5)  # a second copy would come soon
            return 0
        if left is None or missing < left:
            left, progress = missing, time.monotonic()
        if time.monotonic() - max(progress, last) > patience or (alive and not alive()):
            return missing
        time.sleep(0.1)
    return left


def death_gap(copy, runs):
    """Seconds from the copy to the death of the run that delivered it; None: no death near.  While
    the writes of a run fail its deliveries stay unwritten, however long that takes."""
    run = runs.get(copy.generation)
    if run is None or run.how != "kill" or (run.end - copy.time >= WINDOW and not run.failing):
        return None
    return run.end - copy.time


def is_before_freeze(copy, runs):
    """Was the run that delivered it frozen before it could write that down?  It may itself deliver
    the message again, once it goes on and finds its lease gone."""
    run = runs.get(copy.generation)
    return run is not None and any(start - WINDOW < copy.time < start + 0.5
                                   for start, _ in run.frozen)


def is_around_freeze(copy, runs):
    """Was it delivered by a run that was frozen just after or has just been thawed?"""
    run = runs.get(copy.generation)
    return run is not None and any(
        start - WINDOW < copy.time < start + 0.5 or end - 0.5 < copy.time < end + WINDOW
        for start, end in run.frozen)


def count_duplicates(verdict, key, copies, runs):
    for before, after in zip(copies, copies[1:]):
        gap = death_gap(before, runs)
        other = before.generation != after.generation
        if before.cut:
            verdict.cut += 1
        elif gap is not None and other:
            verdict.explained += 1
            verdict.longest = max(verdict.longest, gap)
        elif is_before_freeze(before, runs) or (other and (
                is_around_freeze(before, runs) or is_around_freeze(after, runs))):
            verdict.explained += 1
        else:
            verdict.unexplained.append((key, copies))


def account(ledger, sink, runs, queued=(), folder=None):
    """`runs`: server runs; `queued`: marks that are still in the database."""
    verdict = Verdict()
    runs = {run.generation: run for run in runs}
    with sink.lock:
        for key, (when, way) in ledger.acknowledged.items():
            verdict.acknowledged += 1
            if key in sink.copies:
                verdict.delivered += 1
            elif key in sink.bounces:
                verdict.bounced += 1
            elif key[0] in queued:
                verdict.queued += 1
            else:
                verdict.lost.append((key, f"{way} at {when:.3f}"))
        for key in sink.copies:
            if key in sink.bounces:
                verdict.contradictions.append(key)
            if key in ledger.refused:
                if not any(copy.cut for copy in sink.copies[key]):
                    verdict.refused.append(key)
            elif key not in ledger.acknowledged:
                verdict.unacknowledged += 1
        for table in (sink.copies, sink.bounces):
            for key, copies in table.items():
                count_duplicates(verdict, key, copies, runs)
        verdict.strange = len(sink.strange)
        for number, (mark, kind, data) in enumerate(sink.altered):
            path = os.path.join(folder, f"altered-{number}.eml") if folder else "-"
            if folder and number < 20:
                with open(path, "wb") as file:
                    file.write(data)
                with open(path + ".want", "wb") as file:
                    file.write(letters.message(mark, sink.size))
            verdict.altered.append((mark, kind, path))
    return verdict
