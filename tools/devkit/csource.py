# SPDX-License-Identifier: Apache-2.0
"""Just enough understanding of C source that follows .clang-format."""
import re

TOKENS = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank_comments_and_strings(text):
    """The text with comments, strings and characters emptied; line numbers stay."""
    def blank(match):
        token = match.group()
        if token[0] in "\"'":
            return token[0] * 2
        return "\n" * token.count("\n") or " "
    return TOKENS.sub(blank, text)


def functions(text):
    """(name, first line, number of lines) of each function: its name stands in column 1, the
    return type on the line before, and the braces of its body alone in column 1."""
    name = start = None
    in_body = False
    for number, line in enumerate(blank_comments_and_strings(text).splitlines(), 1):
        if in_body:
            if line == "}":
                yield name, start, number - start + 1
                name, in_body = None, False
            continue
        found = re.match(r"([A-Za-z_]\w*)\(", line)
        if found:
            name, start = found.group(1), number
        elif name and line == "{":
            in_body = True
        elif line.endswith((";", "}")):
            name = None
