/* SPDX-License-Identifier: Apache-2.0 */
/*      instance = [CFWS] "i" [CFWS] "=" [CFWS] 1*2DIGIT [CFWS]       1 to 50
 *      arc-authres = "ARC-Authentication-Results:" instance ";" authres-payload
 *      the other two are tag lists with i= */
#include <string.h>

#include "mailauth/arc_int.h"
#include "mime/addr.h"

static const char bad_instance[] = "an instance (i=) is missing or not 1 to 50";

/* 0: none. */
static unsigned
number(const char *text, size_t len)
{
	unsigned value = 0;
	if (len == 0 || len > 2)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isdigit(text[i]))
			return 0;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	return value <= ARC_SETS_MAX ? value : 0;
}

static unsigned
results_instance(const MimeField *field)
{
	g_autofree char *value = mime_field_unfold(field);
	const char *at = value;
	if (!mime_skip_cfws(&at) || *at++ != 'i' || !mime_skip_cfws(&at) || *at++ != '=' ||
	    !mime_skip_cfws(&at))
		return 0;
	size_t digits = strspn(at, "0123456789");
	unsigned instance = number(at, digits);
	at += digits;
	return mime_skip_cfws(&at) && *at == ';' ? instance : 0;
}

static ArcCv
cv_of(const TagList *tags)
{
	static const char *const names[] = {NULL, "none", "pass", "fail"};
	const Tag *tag = tags_find(tags, "cv");
	for (ArcCv cv = ARC_CV_NONE; tag != NULL && cv <= ARC_CV_FAIL; cv++)
		if (strlen(names[cv]) == tag->value_len &&
		    g_ascii_strncasecmp(names[cv], tag->value, tag->value_len) == 0)
			return cv;
	return ARC_CV_BAD;
}

static unsigned
tags_instance(const MimeField *field, ArcCv *ret_cv)
{
	TagList tags;
	if (!tags_parse(field->value, field->value_len, &tags))
		return 0;
	const Tag *tag = tags_find(&tags, "i");
	unsigned instance = tag != NULL ? number(tag->value, tag->value_len) : 0;
	*ret_cv = cv_of(&tags);
	tags_clear(&tags);
	return instance;
}

static void
find_fault(ArcSets *sets, const char *fault)
{
	if (sets->fault == NULL)
		sets->fault = fault;
}

/* NULL: the field belongs to no set. */
static ArcSet *
set_of(ArcSets *sets, unsigned instance)
{
	if (instance == 0) {
		find_fault(sets, bad_instance);
		return NULL;
	}
	sets->count = MAX(sets->count, instance);
	return &sets->sets[instance - 1];
}

static void
add(ArcSets *sets, const MimeField **place, const MimeField *field)
{
	if (*place != NULL)
		find_fault(sets, "an instance has a field twice");
	else
		*place = field;
}

static void
collect_field(ArcSets *sets, const MimeField *field)
{
	ArcCv cv = ARC_CV_BAD;
	if (mime_field_is(field, ARC_RESULTS_NAME)) {
		ArcSet *set = set_of(sets, results_instance(field));
		if (set != NULL)
			add(sets, &set->results, field);
	} else if (mime_field_is(field, ARC_MESSAGE_NAME)) {
		ArcSet *set = set_of(sets, tags_instance(field, &cv));
		if (set != NULL)
			add(sets, &set->message, field);
	} else if (mime_field_is(field, ARC_SEAL_NAME)) {
		ArcSet *set = set_of(sets, tags_instance(field, &cv));
		if (set == NULL)
			return;
		set->cv = set->seal == NULL ? cv : set->cv;
		add(sets, &set->seal, field);
	}
}

/* 5.2, steps 2 and 3. */
static void
check(ArcSets *sets)
{
	if (sets->count > 0 && sets->sets[sets->count - 1].cv == ARC_CV_FAIL)
		sets->fault = "the newest seal says that the chain has failed";
	for (unsigned i = 0; i < sets->count; i++) {
		const ArcSet *set = &sets->sets[i];
		if (set->results == NULL || set->message == NULL || set->seal == NULL)
			find_fault(sets, "a set is not complete");
		else if (set->cv != (i == 0 ? ARC_CV_NONE : ARC_CV_PASS))
			find_fault(sets, "cv= of a seal is not what it has to be");
	}
}

void
arc_sets_collect(const MimeHeader *header, ArcSets *ret_sets)
{
	*ret_sets = (ArcSets){0};
	for (size_t i = 0; i < header->n_fields; i++)
		if (header->fields[i].name_len >= strlen(ARC_SEAL_NAME))
			collect_field(ret_sets, &header->fields[i]);
	check(ret_sets);
}
