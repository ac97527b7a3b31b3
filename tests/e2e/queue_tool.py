# SPDX-License-Identifier: Apache-2.0
"""`koukan queue` over a test's router, and what a queue test needs besides."""
import json
import subprocess

from devkit import procs
from mail import ALICE, Rest, message


def run(world, *arguments, code=0, url=None):
    """Standard output of the command, which must end with `code`."""
    done = subprocess.run([world.binary, "queue", *arguments, "--url", url or world.router_url],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout.decode() if code == 0 else done.stderr.decode()


def rows(world, *arguments):
    return json.loads(run(world, "list", "--json", *arguments))["transactions"]


def stats(world):
    return json.loads(run(world, "stats", "--json"))


def show(world, name):
    return json.loads(run(world, "show", name, "--json"))


def name_of(location):
    return location.rsplit("/", 1)[1]


def submit(world, mark, rcpt, sender="submission", mail_from=ALICE):
    """One REST submission; the path of the transaction."""
    with Rest(world.router_url) as rest:
        return rest.create(sender, mail_from={"m": mail_from}, rcpt_to=[{"m": rcpt}],
                           body={"inline": message(mark, rcpt=rcpt).decode()}).headers["location"]


def wait_attempts(world, location, count=1, seconds=30):
    """Until so many attempts have failed and the queue has it again."""
    name = name_of(location)

    def parked():
        row = show(world, name)
        return row["state"] == "queued" and row["attempts"] >= count and row
    return procs.wait_until(parked, f"{count} attempts of {name}", seconds)


def wait_state(world, location, state, seconds=30):
    """Also of one that has no row yet."""
    name = name_of(location)

    def found():
        return next((row for row in rows(world, "--state", state, "--limit", "1000")
                     if row["id"] == name), None)
    return procs.wait_until(found, f"{name} to be {state}", seconds)


def slow_retries(text):
    """A router file whose retries are not going to happen during a test."""
    return text.replace("min_attempt_time: 1", "min_attempt_time: 100").replace(
        "max_attempt_time: 2", "max_attempt_time: 100").replace("deadline: 120", "deadline: 9000")
