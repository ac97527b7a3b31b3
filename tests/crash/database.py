# SPDX-License-Identifier: Apache-2.0
"""The two databases: a file, or a PostgreSQL server of our own in a scratch folder."""
import os
import re
import glob
import shutil
import sqlite3
import subprocess
import time

import letters
from devkit import procs
from devkit.procs import Failed

MARK = re.compile(letters.MARK)


class Sqlite:
    name = "sqlite"

    def __init__(self, folder, file="koukan.db"):
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(folder, file)

    @property
    def url(self):
        return "sqlite:///" + self.path

    def check(self):
        """Problems of the file; the server must not run."""
        if not os.path.exists(self.path):
            return ["no database file"]
        with sqlite3.connect(self.path) as database:
            rows = [row[0] for row in database.execute("PRAGMA integrity_check")]
        database.close()
        return [] if rows == ["ok"] else rows[:10]

    def queued(self):
        """Marks in rows that have no final reason; the server must not run."""
        with sqlite3.connect(self.path) as database:
            rows = database.execute("SELECT json FROM tx WHERE final_reason IS NULL").fetchall()
        database.close()
        return {mark for row in rows for mark in MARK.findall(text_of(row[0]))}

    def close(self):
        pass


def text_of(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def postgres_folder():
    """Where initdb and postgres are, or None."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    return os.path.dirname(found[-1]) if found else None


class Postgres:
    """A throw-away cluster on a Unix socket, run as the user postgres."""
    name = "postgresql"

    def __init__(self, folder, binary=None):
        self.bin, self.binary = postgres_folder(), binary
        if self.bin is None:
            raise Failed("PostgreSQL is not installed")
        self.folder = os.path.join(folder, "pg")
        os.makedirs(self.folder)
        self.data = os.path.join(self.folder, "data")
        if os.geteuid() == 0:
            self.open_path(folder)
            shutil.chown(self.folder, "postgres", "postgres")
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8",
                 "--no-locale", "--no-sync")
        self.server = None
        self.start()
        self.sql("CREATE DATABASE koukan", "postgres")

    @staticmethod
    def open_path(folder):
        """Scratch folders are ours alone; the other user must pass through."""
        os.chmod(folder, 0o755)

    def as_user(self, *argv):
        if os.geteuid() != 0:
            return list(argv)
        return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", *argv]

    def run(self, program, *arguments):
        done = subprocess.run(self.as_user(os.path.join(self.bin, program), *arguments),
                              cwd=self.folder, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise Failed(f"{program}: {done.stdout.decode('utf-8', 'replace')[-1000:]}")
        return done.stdout.decode("utf-8", "replace")

    @property
    def url(self):
        return f"postgresql://postgres@/koukan?host={self.folder}"

    def start(self):
        self.server = procs.Proc("postgres", self.as_user(
            os.path.join(self.bin, "postgres"), "-D", self.data, "-k", self.folder, "-h", "",
            "-c", "fsync=on", "-c", "max_connections=60"), self.folder, cwd=self.folder)
        procs.wait_until(self.is_ready, "PostgreSQL", 60, alive=self.server)

    def is_ready(self):
        return subprocess.run([os.path.join(self.bin, "pg_isready"), "-q", "-h", self.folder],
                              check=False).returncode == 0

    def stop(self, mode="fast"):
        """`immediate` is a crash of the database: no checkpoint, clients are cut."""
        self.run("pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-t", "60")
        self.server.finish(60)

    def sql(self, text, database="koukan"):
        return self.run("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text,
                        self.client(database))

    def client(self, database="koukan"):
        """What psql connects to; the tables are found without naming their schema."""
        return (f"host={self.folder} user=postgres dbname={database} "
                "options='-c search_path=koukan'")

    def check(self):
        """Problems of our own references; a damaged page would have failed a statement."""
        done = subprocess.run([self.binary, "store", "check", self.url], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return [] if done.returncode == 0 else [done.stdout.decode("utf-8", "replace")[-500:]]

    def queued(self):
        found = self.sql("SELECT json FROM tx WHERE final_reason IS NULL")
        return set(MARK.findall(found))

    def close(self):
        if self.server is not None and self.server.is_alive():
            try:
                self.stop("immediate")
            except Failed:
                self.server.kill()
                time.sleep(0.1)


def is_refused(url, binary, folder):
    """Why this binary cannot use that URL, or None: asked by starting a server with it."""
    from server import Koukan
    probe = Koukan(binary, os.path.join(folder, "probe-server"), url, 1)
    try:
        probe.start(wait=False)
        probe.wait_ready(10)
        return None
    except Failed:
        text = probe.server.err()
        return text.strip().splitlines()[-1] if text.strip() else "it does not start"
    finally:
        probe.close()
