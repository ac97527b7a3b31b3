/* SPDX-License-Identifier: Apache-2.0 */
/* SPF: the first line is sender and HELO with a space between, the others are answers in turn,
 * whose first byte tells the status ('x' no such name, 'n' no data, 't' no answer) or otherwise
 * begins a record; records of one answer are separated by '|'.  The limits of RFC 7208 hold
 * whatever the answers are. */
#include "fuzz.h"

#include "mailauth/spf.h"

/* policies, terms, hosts of each mx, the client's names, the explanation twice */
#define QUESTIONS_MAX (11 + 10 + 10 * 10 + 11 + 2)

static void
record_free(void *data)
{
	g_free(((DnsRecord *)data)->text);
	g_free(data);
}

static void
make_answer(const char *line, DnsAnswer *ret_answer)
{
	*ret_answer = (DnsAnswer){.status = DNS_OK,
				  .records = g_ptr_array_new_with_free_func(record_free)};
	if (line == NULL || *line == '\0' || *line == 'x')
		ret_answer->status = DNS_NXDOMAIN;
	else if (*line == 'n')
		ret_answer->status = DNS_NODATA;
	else if (*line == 't')
		ret_answer->status = DNS_TEMP;
	if (ret_answer->status != DNS_OK)
		return;
	g_auto(GStrv) texts = g_strsplit(line, "|", DNS_RECORDS_MAX);
	for (char **text = texts; *text != NULL; text++) {
		DnsRecord *record = g_new0(DnsRecord, 1);
		record->text = g_strdup(*text);
		g_ptr_array_add(ret_answer->records, record);
	}
}

static void
check_result(const Spf *spf, unsigned questions)
{
	k_assert(spf_is_done(spf) && spf_result(spf) < SPF_RESULTS);
	k_assert(questions <= QUESTIONS_MAX && spf_lookups(spf) <= SPF_LOOKUPS_MAX);
	k_assert(spf_path(spf)->len <= SPF_PATH_LINES && spf_reason(spf) != NULL);
	const char *text = spf_explanation(spf);
	k_assert(text == NULL || (spf_result(spf) == SPF_FAIL && strlen(text) <= SPF_EXPLAIN_MAX));
	for (; text != NULL && *text != '\0'; text++)
		k_assert(*text >= 0x20 && *text < 0x7f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned mode = fuzz_take_byte(&data, &size);
	g_autofree char *text = size > 0 ? fuzz_string(data, size) : g_strdup("");
	g_auto(GStrv) lines = g_strsplit(text, "\n", 200);
	char *helo = lines[0] != NULL ? strchr(lines[0], ' ') : NULL;
	if (helo != NULL)
		*helo++ = '\0';
	const SpfParams params = {
		.ip = mode % 2 == 0 ? "192.0.2.1" : "2001:db8::1",
		.mail_from = lines[0],
		.helo = helo,
		.now = 1700000000,
	};
	Spf *spf = spf_new(&params);
	const char *name;
	DnsType type;
	unsigned questions = 0, next = 1;
	while (spf_next(spf, &name, &type)) {
		DnsAnswer answer;
		k_assert(strlen(name) <= 8192 && questions++ < QUESTIONS_MAX);
		bool more = lines[0] != NULL && lines[next] != NULL;
		make_answer(more ? lines[next] : NULL, &answer);
		next += more ? 1 : 0;
		spf_answer(spf, &answer);
		g_ptr_array_unref(answer.records);
	}
	check_result(spf, questions);
	spf_free(spf);
	return 0;
}
