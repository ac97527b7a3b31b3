/* SPDX-License-Identifier: Apache-2.0 */
/* koukan store: the database without a server. */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "store/store.h"

static const char usage[] =
	"usage: koukan store init|migrate|check URL\n"
	"\n"
	"init     creates the database and its schema; nothing happens when it is there\n"
	"migrate  brings the schema of an older version up to date\n"
	"check    reads everything and reports what is damaged; exit code 1 when something is\n"
	"\n"
	"URL is what `storage: url:` says in router.yaml, or the path of an SQLite file.  Stop the\n"
	"routers that use the database first.\n";

static int
migrate(const char *verb, const char *url)
{
	g_autoptr(GError) error = NULL;
	if (!store_migrate(url, &error)) {
		fprintf(stderr, "koukan store %s: %s\n", verb, error->message);
		return 1;
	}
	printf("%s: the schema is up to date\n", url);
	return 0;
}

static int
check(const char *url)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *report = NULL;
	bool sound = store_check(url, &report, &error);
	if (report != NULL && *report != '\0')
		printf("%s%s", report, g_str_has_suffix(report, "\n") ? "" : "\n");
	if (sound)
		return 0;
	fprintf(stderr, "koukan store check: %s\n",
		error != NULL ? error->message : "the database is damaged");
	return 1;
}

int
cmd_store(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(usage, stdout);
			return 0;
		}
	}
	const char *verb = argc > 1 ? argv[1] : "";
	if (argc == 3 && argv[2][0] != '-') {
		if (strcmp(verb, "init") == 0 || strcmp(verb, "migrate") == 0)
			return migrate(verb, argv[2]);
		if (strcmp(verb, "check") == 0)
			return check(argv[2]);
	}
	fputs(usage, stderr);
	return 2;
}
