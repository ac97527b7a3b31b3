/* SPDX-License-Identifier: Apache-2.0 */
/* SPF records and answers made to hurt: how much memory a check holds at each question, and how
 * many questions it asks. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <malloc.h>
#include <string.h>

#include "mailauth/spf.h"

#define MEMORY_MAX (1024 * 1024)
/* policies, terms, hosts of each mx, the client's names, the explanation and its name */
#define QUESTIONS_MAX (1 + 10 + 10 * 10 + 11 + 2)
#define LABEL63       "a23456789012345678901234567890123456789012345678901234567890123"
#define LONG_NAME     LABEL63 "." LABEL63 "." LABEL63 ".test" /* 196 bytes */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
size_t __sanitizer_get_current_allocated_bytes(void); /* sanitizer/allocator_interface.h */
static size_t
allocated(void)
{
	return __sanitizer_get_current_allocated_bytes();
}
#else
static size_t
allocated(void)
{
	return mallinfo2().uordblks;
}
#endif

static void
record_free(void *data)
{
	g_free(((DnsRecord *)data)->text);
	g_free(data);
}

static void
add(DnsAnswer *answer, char *text) /* text: moved */
{
	DnsRecord *record = g_new0(DnsRecord, 1);
	record->text = text;
	g_ptr_array_add(answer->records, record);
}

static char *
repeated(const char *head, const char *term, size_t count, const char *tail)
{
	GString *text = g_string_new(head);
	for (size_t i = 0; i < count; i++)
		g_string_append(text, term);
	g_string_append(text, tail);
	return g_string_free(text, FALSE);
}

typedef struct Hostile {
	const char *name;
	const char *term; /* of the record, `count` times behind "v=spf1" */
	size_t count;
	const char *tail;
	bool found; /* addresses are found (and are others) */
	SpfResult want;
} Hostile;

static const Hostile cases[] = {
	{"many terms", " a:" LONG_NAME, 80, " -all", true, SPF_PERMERROR},
	{"in vain", " a:" LONG_NAME, 80, " -all", false, SPF_PERMERROR},
	{"policies inside each other", " include:" LONG_NAME, 70, " -all", true, SPF_PERMERROR},
	{"policies instead of each other", " redirect=" LONG_NAME, 1, "", true, SPF_PERMERROR},
	{"hosts", " mx:" LONG_NAME, 80, " -all", true, SPF_PERMERROR},
	{"ten times all hosts", " mx:" LONG_NAME, 10, " -all", true, SPF_FAIL},
	{"names of the client", " ptr:" LONG_NAME, 80, " -all", true, SPF_PERMERROR},
	{"macros", " exists:%{s}.%{d}.%{h}.%{p}.%{l}", 400, " -all", false, SPF_PERMERROR},
	{"one long expansion", "%{s}%{d}%{h}", 1000, ".test", true, SPF_PASS},
	{"longest record", " ip4:203.0.113.1", 1000, " -all", true, SPF_FAIL},
	{"beyond the longest", " ip4:203.0.113.1", 1100, " -all", true, SPF_PERMERROR},
	{"explanation", "", 0, " -all exp=%{s}.%{d}", true, SPF_FAIL},
};

/* All that DNS lets somebody say. */
static void
make_answer(const Hostile *c, DnsType type, DnsAnswer *ret_answer)
{
	*ret_answer = (DnsAnswer){.status = DNS_OK,
				  .records = g_ptr_array_new_with_free_func(record_free)};
	if (type == DNS_TXT) {
		add(ret_answer, repeated(c->term[0] == '%' ? "v=spf1 exists:" : "v=spf1", c->term,
					 c->count, c->tail));
		for (unsigned i = 1; i < 4; i++)
			add(ret_answer, g_strnfill(16000, 'x'));
		return;
	}
	if (!c->found) {
		ret_answer->status = DNS_NODATA;
		return;
	}
	for (unsigned i = 0; i < (type == DNS_MX ? SPF_MX_MAX : DNS_RECORDS_MAX); i++)
		add(ret_answer, type == DNS_A ? g_strdup_printf("198.51.100.%u", i % 250)
					      : g_strdup_printf("n%u." LONG_NAME ".", i));
}

static void
run(const Hostile *c)
{
	g_autofree char *local = g_strnfill(64, 'u');
	g_autofree char *sender = g_strdup_printf("%s@" LONG_NAME, local);
	const SpfParams params = {.ip = "192.0.2.1", .helo = LONG_NAME, .mail_from = sender};
	size_t before = allocated();
	Spf *spf = spf_new(&params);
	const char *name;
	DnsType type;
	unsigned questions = 0;
	while (spf_next(spf, &name, &type)) {
		size_t held = allocated() - before;
		DnsAnswer answer;
		if (held > MEMORY_MAX || ++questions > QUESTIONS_MAX)
			fail_msg("%s: %zu bytes, question %u", c->name, held, questions);
		assert_true(strlen(name) <= SPF_NAME_TEXT_MAX || type == DNS_PTR);
		make_answer(c, type, &answer);
		spf_answer(spf, &answer);
		dns_answer_clear(&answer);
	}
	if (spf_result(spf) != c->want)
		fail_msg("%s: %s (%s)", c->name, spf_result_name(spf_result(spf)), spf_reason(spf));
	assert_true(spf_lookups(spf) <= SPF_LOOKUPS_MAX);
	assert_true(allocated() - before <= MEMORY_MAX);
	print_message("# %s: %u questions, %zu bytes at the end\n", c->name, questions,
		      allocated() - before);
	spf_free(spf);
}

static void
test_hostile(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
		run(&cases[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_hostile)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
