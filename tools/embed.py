#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns text files into a C source with one string each.

usage: embed.py OUT.c HEADER NAME=FILE...

HEADER is what the source includes; it declares `extern const char NAME[]` for each NAME.
"""
import sys


def quote(line):
    """One line of the file as a C string literal."""
    out = []
    for byte in line:
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif char == "\n":
            out.append("\\n")
        elif char == "\t":
            out.append("\\t")
        elif 0x20 <= byte < 0x7F and char != "?":
            out.append(char)
        else:
            # Three octal digits always end the escape; '?' cannot begin a trigraph this way.
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def main():
    """Writes the source."""
    if len(sys.argv) < 4 or any("=" not in argument for argument in sys.argv[3:]):
        sys.exit(__doc__)
    out = ["/* Made by tools/embed.py: do not edit. */", f'#include "{sys.argv[2]}"']
    for argument in sys.argv[3:]:
        name, path = argument.split("=", 1)
        with open(path, "rb") as file:
            lines = file.read().splitlines(keepends=True)
        out.append("")
        out.append(f"const char {name}[] =")
        out += ["\t" + quote(line) for line in lines or [b""]]
        out[-1] += ";"
    with open(sys.argv[1], "w", encoding="ascii") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
