# SPDX-License-Identifier: Apache-2.0
"""Installs exactly the Debian packages that a verb needs and that are missing."""
import os
import shutil
import subprocess

from devkit.common import Failed, run, say

SETS = {
    "build": [
        "gcc", "libc6-dev", "meson", "ninja-build", "pkg-config",
        "libcmocka-dev", "libcurl4-openssl-dev", "libevent-dev", "libfyaml-dev",
        "libglib2.0-dev", "libgmime-3.0-dev", "libgnutls28-dev", "libjansson-dev",
        "liblua5.4-dev", "libmicrohttpd-dev", "libpq-dev", "libpsl-dev", "libsqlite3-dev", "libssl-dev",
        "libunbound-dev",
    ],
    "clang": ["clang", "libclang-rt-14-dev", "llvm-14"],
    "lint": ["clang-format", "git"],
    "test": ["curl", "make", "msmtp", "postfix", "postgresql", "python3-dkim", "python3-dnspython",
             "python3-nacl", "python3-pytest", "python3-spf", "python3-yaml", "swaks"],
    "bench": ["postfix"],
    "crash": ["e2fsprogs", "gcc", "libc6-dev", "mount", "strace"],
}


def missing(names):
    """Those of `names` that dpkg does not call installed."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    present = set()
    for line in done.stdout.decode().splitlines():
        name, _, status = line.partition(" ")
        if status == "installed":
            present.add(name)
    return [name for name in names if name not in present]


def as_root(argv):
    if os.geteuid() == 0:
        return argv
    if shutil.which("sudo") is None:
        raise Failed("missing packages need root: install them, or install sudo")
    return ["sudo", *argv]


def preseed_postfix():
    """Only Postfix's programs are wanted: no configuration, so no mail service starts."""
    subprocess.run(as_root(["debconf-set-selections"]), check=False,
                   input=b"postfix postfix/main_mailer_type select No configuration\n")


def ensure(*sets):
    """Makes sure that the packages of these sets are there.  Costs one dpkg-query when they are."""
    if shutil.which("dpkg-query") is None:
        say("no dpkg here: not a Debian system, so the packages are up to you")
        return
    wanted = sorted({name for key in sets for name in SETS[key]})
    lacking = missing(wanted)
    if not lacking:
        return
    say("installing " + " ".join(lacking))
    if "postfix" in lacking:
        preseed_postfix()
    install = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y",
                       "--no-install-recommends", *lacking])
    if run(install, check=False, quiet=True).returncode == 0:
        return
    # The usual reason on a fresh machine: there are no package lists yet.
    run(as_root(["apt-get", "update"]))
    run(install)
