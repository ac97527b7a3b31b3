/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/psl.h"

#include <glib.h>
#include <libpsl.h>
#include <string.h>

/* The list compares by bytes: lower case, no trailing dot. */
static char *
normal(const char *domain)
{
	char *lower = g_utf8_validate(domain, -1, NULL) ? g_utf8_strdown(domain, -1)
							: g_ascii_strdown(domain, -1);
	size_t len = strlen(lower);
	if (len > 0 && lower[len - 1] == '.')
		lower[len - 1] = '\0';
	return lower;
}

char *
psl_org_domain(const char *domain)
{
	char *name = normal(domain);
	const psl_ctx_t *list = psl_builtin();
	const char *org = list != NULL ? psl_registrable_domain(list, name) : NULL;
	if (org == NULL)
		return name;
	char *copy = g_strdup(org); /* a part of `name` */
	g_free(name);
	return copy;
}

PslAlignment
psl_alignment(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return PSL_OTHER;
	g_autofree char *name_a = normal(a), *name_b = normal(b);
	if (strcmp(name_a, name_b) == 0)
		return PSL_SAME;
	g_autofree char *org_a = psl_org_domain(a), *org_b = psl_org_domain(b);
	return strcmp(org_a, org_b) == 0 ? PSL_SAME_ORG : PSL_OTHER;
}
