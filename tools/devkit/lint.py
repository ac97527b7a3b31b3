# SPDX-License-Identifier: Apache-2.0
"""House rules that a script can check.

Every rule is tried on a bad sample, which it must refuse, and on a good one, which it must accept,
before it is applied to the tree.  Each rule and each of its samples counts as one test."""
import ast
import os
import re
import subprocess

from devkit import lint_layers, packages
from devkit.common import PYTHON, ROOT, Tally, read_text, say, step, tracked_files
from devkit.csource import blank_comments_and_strings, functions

FUNCTION_WARN, FUNCTION_FAIL, FILE_FAIL = 60, 100, 1000


class Rule:
    """`check(path, text)` yields (line, problem); `samples` are (path, text, is_good)."""

    def __init__(self, name, doc, wants, check, samples):
        self.name, self.doc, self.wants, self.check, self.samples = name, doc, wants, check, samples


def is_c(path):
    return path.endswith((".c", ".h")) and path.startswith(("src/", "tests/"))


def is_product(path):
    return path.endswith((".c", ".h")) and path.startswith("src/")


def first_line(path):
    with open(os.path.join(ROOT, path), "rb") as file:
        return file.readline(200).decode("utf-8", "replace")


def is_script(path, word):
    suffix = {"python": ".py", "sh": ".sh"}[word]
    if path.endswith(suffix):
        return True
    line = first_line(path) if "." not in os.path.basename(path) else ""
    return line.startswith("#!") and word in line


def is_python(path):
    return is_script(path, "python")


def is_shell(path):
    return is_script(path, "sh")


# ---- formatting ----

def check_format(path, text):
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", "--assume-filename",
                           os.path.join(ROOT, path)], input=text.encode(), cwd=ROOT, check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lines = re.findall(r"^[^:\n]*:(\d+):\d+: error", done.stderr.decode(), re.M)
    for line in lines[:3]:
        yield int(line), "not as clang-format would write it"
    if len(lines) > 3:
        yield int(lines[3]), f"... and {len(lines) - 3} more places"
    if done.returncode != 0 and not lines:
        yield 1, "clang-format: " + done.stderr.decode().strip()[:200]


# ---- banned functions ----

BANNED = [
    # pattern, what to use
    (r"(?:strcpy|strcat|sprintf|vsprintf|strncpy|strncat|gets)", "g_strlcpy, snprintf, GString"),
    (r"strtok(?:_r)?", "a scanner over a length"),
    (r"(?:atoi|atol|atoll|atof|sscanf)", "text_parse_* or g_ascii_strtoull with its end checked"),
    (r"(?:alloca|strdupa|strndupa|g_alloca|g_newa|g_newa0)", "g_new0"),
    (r"(?:system|popen)", "no shell"),
    (r"(?:setjmp|longjmp|sigsetjmp|siglongjmp)", "error returns"),
    (r"(?:signal|rand|srand|random|srandom|rand_r|drand48)", "sigaction, getrandom"),
    (r"(?:malloc|calloc|realloc|reallocarray|strdup|strndup|asprintf|vasprintf)",
     "g_new0, g_realloc, g_strdup, g_strdup_printf"),
    (r"is(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit)",
     "g_ascii_is*"),
    (r"(?:toupper|tolower|strcasecmp|strncasecmp|strcasestr)", "g_ascii_*"),
    (r"g_(?:thread|mutex|rec_mutex|rw_lock|cond|private|once|async_queue|main_loop|main_context"
     r"|main_current|byte_array|timeout_add|idle_add|atomic_int|atomic_pointer)\w*",
     "pthreads and C11 atomics; the worker's loop"),
]
BANNED_TYPES = re.compile(
    r"\b(GByteArray|GThread|GMutex|GRecMutex|GRWLock|GCond|GPrivate|GAsyncQueue|GMainLoop"
    r"|GMainContext|GThreadPool)\b")
BANNED_CALLS = [(re.compile(r"(?<![\w.>])(" + pattern + r")\s*\("), use)
                for pattern, use in BANNED]


def check_banned(_path, text):
    for number, line in enumerate(blank_comments_and_strings(text).splitlines(), 1):
        for pattern, use in BANNED_CALLS:
            for found in pattern.findall(line):
                yield number, f"{found}() is banned: {use}"
        for found in BANNED_TYPES.findall(line):
            yield number, f"{found} is banned: pthreads, C11 atomics, GString or capped buffers"
        if re.match(r"\s*#\s*include\s*<setjmp\.h>", line):
            yield number, "<setjmp.h> is banned in product code"


# ---- sizes ----

def size_exceptions():
    table = {}
    for line in read_text("tools/size-exceptions.txt").splitlines():
        if line.strip() and not line.startswith("#"):
            key, _, reason = line.partition(" ")
            table[key] = reason.strip()
    return table


def check_sizes(path, text):
    allowed = size_exceptions()
    lines = text.count("\n")
    if lines > FILE_FAIL and path not in allowed:
        yield lines, f"file of {lines} lines, at most {FILE_FAIL}"
    for name, start, length in functions(text):
        if length > FUNCTION_FAIL and f"{path}:{name}" not in allowed:
            yield start, f"function {name} of {length} lines, at most {FUNCTION_FAIL}"


def check_size_exceptions(_path, text):
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, _, reason = line.partition(" ")
        path, _, name = key.partition(":")
        if len(reason.split()) < 4:
            yield number, f"{key}: an exception needs a reason"
        elif not os.path.isfile(os.path.join(ROOT, path)):
            yield number, f"{path}: no such file"
        elif name and name not in [entry[0] for entry in functions(read_text(path))]:
            yield number, f"{key}: no such function"


# ---- licence line, words ----

def check_spdx(_path, text):
    head = text.splitlines()[:2]
    if not any("SPDX-License-Identifier: Apache-2.0" in line for line in head):
        yield 1, "no SPDX-License-Identifier: Apache-2.0 in the first two lines"


# Written in pieces so that this file does not contain what it forbids.
WORDS = [
    (re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b(?!@)"),
     "unfinished-work marker: finish it or write an issue"),
    (re.compile(r"(?<![\w.])/(?:" + "|".join(["wo" + "rk", "ro" + "ot"]) + r")/\w"),
     "a path of somebody's machine"),
    (re.compile(r"(?<![\w.])/home/(?!USER|NAME)\w"), "a path of somebody's machine"),
    (re.compile(r"/tmp/b-\w"), "a path of somebody's machine"),
    (re.compile(r"(?i)co-authored" + r"-by|\bgenerated (?:by|with) (?:an? )?(?:ai|assistant|model)\b"),
     "the tree speaks of the project alone"),
]


def is_text(path):
    return not path.startswith("tests/fuzz/corpus/") and not path.endswith((".png", ".gz", ".msg"))


def check_words(_path, text):
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, problem in WORDS:
            if pattern.search(line):
                yield number, problem


# ---- scripts, documents ----

def check_python(path, text):
    try:
        ast.parse(text, path)
    except SyntaxError as error:
        yield error.lineno or 1, f"Python: {error.msg}"


def check_shell(_path, text):
    shell = "bash" if text.splitlines()[:1] and "bash" in text.splitlines()[0] else "sh"
    done = subprocess.run([shell, "-n"], input=text.encode(), check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        yield 1, f"{shell} -n: " + done.stderr.decode().strip()[:200]


def check_links(path, text):
    """Relative links in Markdown lead somewhere."""
    prose = re.sub(r"```.*?```", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)
    for number, line in enumerate(prose.splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            name = target.partition("#")[0]
            if not name or re.match(r"[a-z]+:", name):
                continue
            if not os.path.exists(os.path.normpath(os.path.join(ROOT, os.path.dirname(path), name))):
                yield number, f"link to {target}, which is not there"


def check_readme_length(_path, text):
    if text.count("\n") >= 150:
        yield 150, "README.md has 150 lines or more"


def check_fuzzers(_path, text):
    """A fuzzer that is not in the list is never compiled."""
    folder = os.path.join(ROOT, "tests", "fuzz")
    for name in sorted(os.listdir(folder)):
        found = re.fullmatch(r"fuzz_(\w+)\.c", name)
        if found and f"['{found.group(1)}', " not in text:
            yield 1, f"{name} is not listed"


LONG_BODY = "".join("\tx++;\n" for _ in range(FUNCTION_FAIL))
RULES = [
    Rule("format", "clang-format", is_c, check_format, [
        ("src/sample.c", "int  x ;\n", False),
        ("src/sample.c", "int x;\n", True)]),
    Rule("layers", "who may include whom (tools/layers.txt)", is_product, lint_layers.check, [
        ("src/tx/sample.c", '#include "smtp/session.h"\n', False),
        ("src/filter/sample.c", '#include "conf/config.h"\n', False),
        ("src/smtp/sample.c", "#include <event2/event.h>\n", False),
        ("src/rest/sample.c", '#include "sample.h"\n#include "tx/tx.h"\n#include <curl/curl.h>\n',
         False),
        ("src/rest/sample.c", '#include "http/server.h"\n#include <glib.h>\n', True)]),
    Rule("banned", "functions that product code does not call", is_product, check_banned, [
        ("src/sample.c", "\tstrcpy(a, b);\n", False),
        ("src/sample.c", "\tx = malloc (3);\n", False),
        ("src/sample.c", "\tGMutex m;\n", False),
        ("src/sample.c", "\tif (isalpha(c))\n", False),
        ("src/sample.c", "\t/* strcpy(a, b) */ say(\"strcpy(a)\"); my_system(1); p->free(2);\n",
         True)]),
    Rule("sizes", f"functions up to {FUNCTION_FAIL} lines, files up to {FILE_FAIL}", is_c,
         check_sizes, [
             ("src/sample.c", "int\nlong_one(void)\n{\n" + LONG_BODY + "}\n", False),
             ("src/sample.c", "\n" * (FILE_FAIL + 1), False),
             ("src/sample.c", "int\nshort_one(void)\n{\n\treturn 1;\n}\n", True)]),
    Rule("exceptions", "exceptions to sizes have a reason and still exist",
         lambda path: path == "tools/size-exceptions.txt", check_size_exceptions, [
             ("sample", "src/main.c because\n", False),
             ("sample", "src/no-such-file.c it is a table of many rows\n", False),
             ("sample", "# nothing\n", True)]),
    Rule("spdx", "licence line", lambda path: is_c(path) or is_python(path) or is_shell(path),
         check_spdx, [
             ("src/sample.c", "int x;\n", False),
             ("src/sample.c", "/* SPDX-License-Identifier: Apache-2.0 */\n", True)]),
    Rule("words", "markers of unfinished work, paths of machines", is_text, check_words, [
        ("sample.md", "see /" + "work/main\n", False),
        ("sample.c", "/* TO" + "DO: later */\n", False),
        ("sample.md", "a framework/base path and the network\n", True)]),
    Rule("python", "Python parses", is_python, check_python, [
        ("sample.py", "def f(:\n", False),
        ("sample.py", "x = 1\n", True)]),
    Rule("shell", "shell parses", is_shell, check_shell, [
        ("sample.sh", "#!/bin/sh\nif true; then\n", False),
        ("sample.sh", "#!/bin/sh\ntrue\n", True)]),
    Rule("links", "relative links in Markdown", lambda path: path.endswith(".md"), check_links, [
        ("README.md", "[x](docs/no-such-page.md)\n", False),
        ("README.md", "[x](LICENSE) [y](https://example.com/)\n", True)]),
    Rule("fuzzers", "every fuzzer is built", lambda path: path == "tests/fuzz/meson.build",
         check_fuzzers, [("tests/fuzz/meson.build", "fuzzers = []\n", False)]),
    Rule("readme", "README under 150 lines", lambda path: path == "README.md", check_readme_length,
         [("README.md", "x\n" * 150, False), ("README.md", "x\n" * 149, True)]),
]


def try_samples(rule, tally):
    for number, (path, text, good) in enumerate(rule.samples, 1):
        problems = list(rule.check(path, text))
        tally.add(bool(problems) != good, f"{rule.name}: sample {number} judged wrongly")


def apply(rule, files, tally):
    problems = [f"{path}:{line}: {problem}" for path in files if rule.wants(path)
                for line, problem in rule.check(path, read_text(path))]
    for problem in problems:
        say(f"{problem} [{rule.name}]")
    tally.add(not problems, f"{rule.name}: {len(problems)} problems ({rule.doc})")


def warn_long_functions(files):
    for path in filter(is_product, files):
        for name, start, length in functions(read_text(path)):
            if FUNCTION_WARN < length <= FUNCTION_FAIL:
                say(f"{path}:{start}: warning: function {name} has {length} lines, "
                    f"{FUNCTION_WARN} is long")


def add_arguments(parser):
    parser.add_argument("rules", nargs="*", metavar="RULE",
                        help="only these: " + " ".join(rule.name for rule in RULES))
    parser.add_argument("--fix", action="store_true", help="let clang-format rewrite the files")
    parser.add_argument("--tally", metavar="FILE", help="also write `passed failed skipped` there")


def main(args):
    step("lint")
    packages.ensure("lint")
    names = [rule.name for rule in RULES]
    unknown = [name for name in args.rules if name not in names]
    if unknown:
        say("no such rule: " + " ".join(unknown))
        return 2
    files = tracked_files()
    if args.fix:
        subprocess.run(["clang-format", "-i", *filter(is_c, files)], cwd=ROOT, check=True)
    tally = Tally()
    for rule in RULES:
        if not args.rules or rule.name in args.rules:
            try_samples(rule, tally)
            apply(rule, files, tally)
    if not args.rules or "sizes" in args.rules:
        warn_long_functions(files)
    if args.tally:
        with open(args.tally, "w", encoding="utf-8") as file:
            file.write(f"{tally.passed} {tally.failed} {tally.skipped}\n")
    return tally.close()
