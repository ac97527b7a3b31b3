# SPDX-License-Identifier: Apache-2.0
"""A queue of a million deferred messages: filled by bulk statements with copies of one row that the
server itself has stored, then the server must start at once, stay small, and let what becomes due
leave in time."""
import json
import random
import subprocess
import sqlite3
import threading
import time

import letters
from database import text_of
from devkit import procs
from devkit.procs import Failed
from scene import Scene, wait_for

DESTINATIONS = 10000
START_MAX = 1.0        # seconds to listening
RESIDENT_MAX = 200     # MiB, at any time
LATE_MAX = 2.0         # seconds after its time
SIZE = 700             # bytes of a body, about
BATCH = 20000

# In the order of both tables; `n` and what is NULL is left out.
COLUMNS = ("id", "sender", "tag", "json", "builder", "responses", "mail_from", "rcpt",
           "destination", "creation", "last_update", "next_attempt", "attempts", "version", "body")


class Template:
    """The row of one deferred message; copies have another mark, domain, time and body."""

    def __init__(self, row):
        self.row = dict(zip(COLUMNS, row))
        self.row["json"] = text_of(self.row["json"])
        found = letters.split_address(self.row["rcpt"])
        if found is None or self.row["next_attempt"] == 0:
            raise Failed(f"not the row of a deferred message: {self.row}")
        self.mark = found[1]

    def copy(self, mark, domain, due, body):
        def renamed(text):
            return text and text.replace(self.mark, mark).replace("elsewhere.example.net", domain)
        row = dict(self.row)
        row.update(id="AA" + mark.rjust(20, "0"), json=renamed(row["json"]),
                   mail_from=renamed(row["mail_from"]), rcpt=renamed(row["rcpt"]),
                   destination=domain, next_attempt=due, body=body)
        return tuple(row[name] for name in COLUMNS)


class SqliteFill:
    """The server must not run."""

    def __init__(self, database):
        self.file = sqlite3.connect(database.path, isolation_level=None)
        self.file.execute("PRAGMA synchronous=OFF")

    def template(self):
        return self.file.execute(f"SELECT {', '.join(COLUMNS)} FROM tx").fetchone()

    def first_blob(self):
        return self.file.execute("SELECT coalesce(max(id), 0)+1 FROM blob").fetchone()[0]

    def add(self, rows, blobs):
        self.file.execute("BEGIN")
        self.file.executemany("INSERT INTO blob (id, len, refs, data) VALUES (?, ?, 1, ?)",
                              [(number, len(data), data) for number, data in blobs])
        self.file.executemany(
            f"INSERT INTO tx ({', '.join(COLUMNS)}, leased) VALUES "
            f"({', '.join('?' for _ in COLUMNS)}, 0)", rows)
        self.file.execute("COMMIT")

    def settle(self):
        """What the server would have written down besides the rows."""
        self.file.execute(
            "INSERT OR REPLACE INTO dest (name, due) SELECT destination, min(next_attempt) FROM tx "
            "WHERE leased=0 AND held=0 AND final_reason IS NULL GROUP BY destination")
        self.file.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self):
        self.file.close()


def pg_text(value):
    """One field of COPY."""
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace(
        "\r", "\\r")


class PostgresFill:
    def __init__(self, database):
        self.database = database

    def template(self):
        row = json.loads(self.database.sql(
            f"SELECT row_to_json(x) FROM (SELECT {', '.join(COLUMNS)} FROM tx) x"))
        return tuple(row[name] for name in COLUMNS)

    def first_blob(self):
        """The sequence counts thousands: more of them than any fill wants are taken."""
        return 1000 * (int(self.database.sql(
            "SELECT setval('blob_id', nextval('blob_id') + 100000)")) - 99999)

    def copy(self, table, columns, lines):
        argv = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c",
                f"COPY {table} ({', '.join(columns)}) FROM STDIN", self.database.client()]
        done = subprocess.run(argv, input="".join(lines).encode(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise Failed(f"psql: {done.stdout.decode('utf-8', 'replace')[-1000:]}")

    def add(self, rows, blobs):
        self.copy("blob", ("id", "len", "refs", "data"),
                  [f"{number}\t{len(data)}\t1\t{pg_text(data)}\n" for number, data in blobs])
        self.copy("tx", (*COLUMNS, "session", "held", "crashes"),
                  ["\t".join(map(pg_text, row)) + "\t0\tf\t0\n" for row in rows])

    def settle(self):
        self.database.sql(
            "INSERT INTO dest (name, due) SELECT destination, min(next_attempt) FROM "
            "tx WHERE session=0 AND NOT held AND final_reason IS NULL GROUP BY destination "
            "ON CONFLICT (name) DO UPDATE SET due=excluded.due")

    def close(self):
        pass


class Filler:
    """Rows of a queue, and the marks of those that are due soon."""

    def __init__(self, scene, fill):
        self.scene, self.fill = scene, fill
        self.template = Template(fill.template())
        self.blob = fill.first_blob()
        self.rng = random.Random(scene.options.seed)

    def domain(self, number):
        """A tenth of all is for one destination."""
        return "big.example" if number % 10 == 0 else f"d{number % DESTINATIONS}.example"

    def add(self, dues):
        """A row for each of the times; their marks."""
        rows, blobs, marks = [], [], []
        for due in dues:
            mark = self.scene.marks.next()
            body = letters.message(mark, SIZE)
            rows.append(self.template.copy(mark, self.domain(self.rng.randrange(1 << 30)), due,
                                           self.blob))
            blobs.append((self.blob, body))
            marks.append(mark)
            self.blob += 1
        self.fill.add(rows, blobs)
        return marks

    def deferred(self, count):
        """Due between half an hour and an hour from now, as the longest pause of a retry allows."""
        begin = time.monotonic()
        now = int(time.time())
        for done in range(0, count, BATCH):
            self.add([now + self.rng.randrange(1800, 3600)
                      for _ in range(min(BATCH, count - done))])
            if done % 200000 == 0 and done:
                self.scene.say(f"{done} rows after {time.monotonic() - begin:.0f} s")
        self.scene.say(f"{count} rows after {time.monotonic() - begin:.0f} s")


def seed(scene):
    """One message that the next hop defers, stored by the server itself."""
    koukan = scene.koukan
    koukan.start()
    scene.sink.set_mode("4xx-rcpt")
    load = scene.load({"rest": 1}, plain=True, limit=1)
    wait_for(lambda: load.ledger.count() == 1, 20)
    load.stop()
    deferred = wait_for(lambda: koukan.log("tx.retry"), 20)
    code, _ = koukan.end()
    if not deferred or code != 0:
        raise Failed(f"no deferred message to copy: {koukan.server.tail(2000)}")
    scene.sink.set_mode("up")


def make_fill(scene):
    return (PostgresFill if scene.database.name == "postgresql" else SqliteFill)(scene.database)


def peak_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) >> 10
    return 0


def queue_tool(scene, *arguments):
    """Seconds that the command took."""
    begin = time.monotonic()
    done = subprocess.run([scene.koukan.binary, "queue", *arguments, "--url", scene.koukan.rest],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    scene.result.check(done.returncode == 0, f"queue {arguments[0]}: exit code {done.returncode}: "
                       f"{done.stdout.decode('utf-8', 'replace')[-300:]}")
    return time.monotonic() - begin


def watch_due(scene, dues, what):
    """Waits until the marks are at the sink; how late the latest was."""
    result = scene.result
    shift = time.time() - time.monotonic()  # the sink has the monotonic clock
    last = max(dues.values())

    def missing():
        with scene.sink.lock:
            return [mark for mark in dues if (mark, "ok1") not in scene.sink.copies]
    wait_for(lambda: not missing(), max(0.0, last - time.time()) + 30, 0.05)
    left = missing()
    result.check(not left, f"{what}: {len(left)} of {len(dues)} did not leave within 30 s")
    with scene.sink.lock:
        late = [scene.sink.copies[mark, "ok1"][0].time + shift - due
                for mark, due in dues.items() if (mark, "ok1") in scene.sink.copies]
        twice = sum(len(scene.sink.copies[mark, "ok1"]) > 1 for mark in dues)
    result.check(not twice, f"{what}: {twice} left twice")
    if not late:
        return 0.0
    result.check(min(late) > -0.1, f"{what}: one left {-min(late):.2f} s before its time")
    return max(late)


def start_and_check(scene, what):
    koukan, result = scene.koukan, scene.result
    koukan.start()
    ready = koukan.runs[-1].ready
    result.check(ready < START_MAX, f"{what}: start to listening took {ready:.2f} s")
    return ready


def million(options):
    """A million deferred rows: start, memory, and whether what is due leaves in time."""
    count = 20000 if options.short else options.rows
    several, burst = (5, 500) if options.short else (20, 5000)
    with Scene(options, "million", size=SIZE) as scene:
        result = scene.result
        seed(scene)
        fill = make_fill(scene)
        filler = Filler(scene, fill)
        filler.deferred(count)
        begin = time.monotonic()
        fill.settle()
        # Once more with the rows that are soon due, which must not be due before the server is up.
        first = int(time.time() + 2 * (time.monotonic() - begin)) + (6 if options.short else 25)
        dues = {mark: first + at for at in range(several) for mark in filler.add([first + at])}
        bursts = {mark: first + several + 3
                  for mark in filler.add([first + several + 3] * burst)}
        fill.settle()
        fill.close()
        ready = start_and_check(scene, "first start")
        result.check(time.time() < first, "the rows were due before the start: the fill took long")
        scene.koukan.kill()
        result.kills += 1
        again = start_and_check(scene, "start after a kill")
        pid = scene.koukan.pid
        time.sleep(2)
        resident = procs.resident_bytes(pid) >> 20
        operator = []
        thread = threading.Thread(target=lambda: operator.extend(
            (queue_tool(scene, "stats", "--json"),
             queue_tool(scene, "list", "--state", "queued", "--to", "@d77.example"))))
        thread.start()  # long questions must not delay mail
        late = watch_due(scene, dues, "due one by one")
        result.check(late <= LATE_MAX, f"a due message left {late:.2f} s after its time")
        begin = time.time()
        burst_late = watch_due(scene, bursts, "due at once")
        thread.join()
        peak = peak_mib(pid)
        result.check(peak < RESIDENT_MAX, f"{peak} MiB resident")
        result.note(f"{count} deferred: start to listening {ready * 1000:.0f} ms, after a kill "
                    f"{again * 1000:.0f} ms; {resident} MiB resident, {peak} MiB at most")
        result.note(f"{several} due one by one: {late:.2f} s late at most; {burst} due at once: all"
                    f" gone {burst_late:.1f} s after their time")
        result.note(f"meanwhile queue stats took {operator[0]:.2f} s, queue list "
                    f"{operator[1]:.2f} s" if len(operator) == 2 else "queue stats failed")
        check_end(scene, count + 1, begin)
        return result


def check_end(scene, wanted, _):
    """What is deferred is all there, unaltered; nothing else has left."""
    koukan, result = scene.koukan, scene.result
    code, took = koukan.end()
    result.check(code == 0, f"exit code {code} at the end, after {took:.1f} s")
    begin = time.monotonic()
    done = subprocess.run([koukan.binary, "store", "check", scene.database.url], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode("utf-8", "replace")
    result.check(done.returncode == 0, f"store check: {text[-500:]}")
    left = [int(line.split()[1]) for line in text.splitlines() if line.startswith("queued: ")]
    # The seed's own message left as soon as the next hop was up.
    result.check(left and wanted - 1 <= left[0] <= wanted,
                 f"{left} rows are queued, not {wanted}")
    result.note(f"koukan store check: {time.monotonic() - begin:.1f} s")
    with scene.sink.lock:
        result.check(not scene.sink.altered and not scene.sink.strange,
                     f"{len(scene.sink.altered)} altered, {len(scene.sink.strange)} strange")
