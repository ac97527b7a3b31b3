# SPDX-License-Identifier: Apache-2.0
"""The arrows of tools/layers.txt."""
import functools
import os
import re

from devkit.common import ROOT, read_text

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


@functools.lru_cache(maxsize=None)
def rules():
    parts, homes = {}, {}
    for line in read_text("tools/layers.txt").splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        left, _, right = line.partition(":")
        if left.startswith("home "):
            homes[left[len("home "):]] = right.split()
        else:
            parts[left] = right.split()
    return parts, homes


def part_of(name):
    """The part that a path below src/ belongs to, most exact first."""
    stem = name.rsplit(".", 1)[0]
    folder = name.partition("/")[0] if "/" in name else stem
    parts = rules()[0]
    for part in parts:
        # conf/yaml also owns conf/yaml_int.h and the like.
        if "/" in part and (stem == part or stem.startswith(part + "_")):
            return part
    return folder


def is_within(name, part):
    """Is the header `name` covered by `part` of an allowed list?"""
    stem = name.rsplit(".", 1)[0]
    return stem == part or stem.startswith(part + "/") or ("/" in part and part_of(name) == part)


def check_own(number, own, name):
    parts = rules()[0]
    if own not in parts:
        yield number, f"{own} is not in tools/layers.txt"
        return
    allowed = parts[own]
    folder = own.partition("/")[0]
    same_folder = name.startswith(folder + "/")
    if same_folder and "/" not in own:
        return
    if same_folder and part_of(name) in parts and "/" in part_of(name):
        return
    if not any(is_within(name, part) for part in allowed):
        yield number, f'{own} may not include "{name}" (tools/layers.txt)'


def check_library(number, own, name):
    for prefix, owners in rules()[1].items():
        if name.startswith(prefix) and own not in owners and own.partition("/")[0] not in owners:
            yield number, f"<{name}> is at home in {', '.join(owners)}, not in {own}"


def check(path, text):
    own = part_of(path[len("src/"):])
    for number, line in enumerate(text.splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        kind, name = found.groups()
        if kind == "<":
            yield from check_library(number, own, name)
        elif "/" not in name and os.path.exists(os.path.join(ROOT, os.path.dirname(path), name)):
            yield number, f'"{name}": write it with its folder'
        elif "/" in name:
            yield from check_own(number, own, name)
