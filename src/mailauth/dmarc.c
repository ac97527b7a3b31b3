/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/dmarc.h"

#include <string.h>

#include "mailauth/tags.h"

#define VERSION "DMARC1"

const char *const dmarc_result_names[] = {"none", "pass", "fail", "temperror", "permerror", NULL};
_Static_assert(G_N_ELEMENTS(dmarc_result_names) == DMARC_RESULTS + 1, "a name for each result");

const char *const dmarc_policy_names[] = {"none", "quarantine", "reject", NULL};
_Static_assert(G_N_ELEMENTS(dmarc_policy_names) == DMARC_POLICIES + 1, "a name for each policy");

char *
dmarc_name(const char *domain)
{
	return g_strconcat("_dmarc.", domain, NULL);
}

static bool
read_policy(const Tag *tag, DmarcPolicyKind *ret_kind)
{
	g_autofree char *text = tag_squeezed(tag);
	for (unsigned i = 0; text != NULL && i < DMARC_POLICIES; i++) {
		if (g_ascii_strcasecmp(text, dmarc_policy_names[i]) != 0)
			continue;
		*ret_kind = (DmarcPolicyKind)i;
		return true;
	}
	return false;
}

static bool
is_strict(const Tag *tag)
{
	return tag != NULL && tag->value_len == 1 && g_ascii_tolower(tag->value[0]) == 's';
}

static bool
read_record(const TagList *tags, DmarcRecord *record)
{
	const Tag *version = tags_find(tags, "v");
	int64_t percent;
	if (version != &tags->tags[0] || version->value_len != strlen(VERSION) ||
	    memcmp(version->value, VERSION, strlen(VERSION)) != 0)
		return false;
	bool valid = read_policy(tags_find(tags, "p"), &record->policy);
	record->subdomains = record->policy;
	if (valid && tags_find(tags, "sp") != NULL)
		valid = read_policy(tags_find(tags, "sp"), &record->subdomains);
	/* 6.6.3: who wants reports at least means to monitor. */
	if (!valid && tags_find(tags, "rua") == NULL)
		return false;
	if (!valid)
		record->policy = record->subdomains = DMARC_P_NONE;
	record->strict_dkim = is_strict(tags_find(tags, "adkim"));
	record->strict_spf = is_strict(tags_find(tags, "aspf"));
	if (tag_number(tags_find(tags, "pct"), &percent) && percent <= 100)
		record->percent = (unsigned)percent;
	return true;
}

bool
dmarc_record_parse(const char *text, DmarcRecord *ret_record)
{
	TagList tags;
	DmarcRecord record = {.percent = 100};
	if (!tags_parse(text, strlen(text), &tags))
		return false;
	bool ok = read_record(&tags, &record);
	tags_clear(&tags);
	if (ok)
		*ret_record = record;
	return ok;
}

bool
dmarc_answer_record(const DnsAnswer *answer, DmarcRecord *ret_record)
{
	const char *found = NULL;
	guint count = 0;
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *row = g_ptr_array_index(answer->records, i);
		const char *text = row->text + strspn(row->text, " \t");
		if (text[0] != 'v')
			continue;
		const char *at = text + 1 + strspn(text + 1, " \t");
		at += *at == '=' ? 1 + strspn(at + 1, " \t") : 0;
		if (strncmp(at, VERSION, strlen(VERSION)) != 0)
			continue;
		found = text;
		count++;
	}
	return count == 1 && dmarc_record_parse(found, ret_record);
}

bool
dmarc_is_aligned(PslAlignment alignment, bool strict)
{
	return alignment == PSL_SAME || (!strict && alignment == PSL_SAME_ORG);
}
