# SPDX-License-Identifier: Apache-2.0
"""Installs exactly the Debian packages that a verb needs and that are missing."""
import glob
import os
import shutil
import subprocess
import tempfile

from devkit.common import ROOT, Failed, run, say

SETS = {
    "build": [
        "gcc", "libc6-dev", "meson", "ninja-build", "pkg-config",
        "libcmocka-dev", "libcurl4-openssl-dev", "libevent-dev", "libfyaml-dev",
        "libglib2.0-dev", "libgmime-3.0-dev", "libgnutls28-dev", "libjansson-dev",
        "liblua5.4-dev", "libmicrohttpd-dev", "libpcre2-dev", "libpq-dev", "libpsl-dev",
        "libsqlite3-dev", "libssl-dev", "libunbound-dev",
    ],
    "clang": ["clang", "libclang-rt-14-dev", "llvm-14"],
    "lint": ["clang-format", "git"],
    "test": ["curl", "iproute2", "libnet-ssleay-perl", "make", "msmtp", "nsd", "openssl",
             "postfix", "postgresql", "python3-authres", "python3-dkim", "python3-dnspython",
             "python3-nacl", "python3-pytest", "python3-pytest-xdist", "python3-spf", "python3-yaml",
             "swaks"],
    "bench": ["postfix"],
    "crash": ["e2fsprogs", "gcc", "libc6-dev", "mount", "strace"],
}

UNPACKED = ["exim4-daemon-light"]  # conflicts with postfix


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


def mask_nsd():
    """Only the program is wanted: no name server starts now or at the next boot."""
    units = "/etc/systemd/system"
    if os.path.isdir(units):
        run(as_root(["ln", "-sfn", "/dev/null", os.path.join(units, "nsd.service")]))


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
    if "nsd" in lacking:
        mask_nsd()
    install = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y",
                       "--no-install-recommends", *lacking])
    if run(install, check=False, quiet=True).returncode == 0:
        return
    # The usual reason on a fresh machine: there are no package lists yet.
    run(as_root(["apt-get", "update"]))
    run(install)


def unpacked(name):
    """Where `unpack` puts a package."""
    return os.path.join(ROOT, "build", "unpacked", name)


def unpack(*names):
    """Debian packages that cannot be installed beside others, as files below build/unpacked.  When
    one cannot be had the tests that want it are skipped."""
    for name in names:
        folder = unpacked(name)
        if os.path.isdir(folder) or shutil.which("dpkg-deb") is None:
            continue
        with tempfile.TemporaryDirectory(prefix="koukan-deb-") as scratch:
            for command in (["apt-get", "download", name], ["apt-get", "update"],
                            ["apt-get", "download", name]):
                fetched = glob.glob(os.path.join(scratch, "*.deb"))
                if not fetched:
                    run(as_root(command) if command[1] == "update" else command, cwd=scratch,
                        check=False, quiet=True)
            fetched = glob.glob(os.path.join(scratch, "*.deb"))
            if fetched:
                say(f"unpacking {name}")
                whole = os.path.join(scratch, "whole")
                run(["dpkg-deb", "-x", fetched[0], whole], quiet=True)
                os.makedirs(os.path.dirname(folder), exist_ok=True)
                shutil.move(whole, folder)
            else:
                say(f"{name} cannot be had: its tests are skipped")
