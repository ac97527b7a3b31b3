/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/pattern.h"

#include <glib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define NESTING_MAX 50 /* of parentheses */
#define REASON_MAX  256

struct Pattern {
	pcre2_code *code;
};

static pcre2_code *
compile(const char *text, int *ret_code, size_t *ret_offset)
{
	pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
	k_assert(ctx != NULL);
	pcre2_set_max_pattern_length(ctx, PATTERN_MAX);
	pcre2_set_parens_nest_limit(ctx, NESTING_MAX);
	PCRE2_SIZE offset = 0;
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
					 PCRE2_UTF | PCRE2_MATCH_INVALID_UTF |
						 PCRE2_NEVER_BACKSLASH_C,
					 ret_code, &offset, ctx);
	pcre2_compile_context_free(ctx);
	*ret_offset = offset;
	return code;
}

Pattern *
pattern_new(const char *text, char **ret_fault, size_t *ret_offset)
{
	int why = 0;
	size_t offset = 0;
	pcre2_code *code = compile(text, &why, &offset);
	if (code == NULL) {
		char reason[REASON_MAX];
		(void)pcre2_get_error_message(why, (PCRE2_UCHAR *)reason, sizeof(reason));
		*ret_fault = g_strdup(reason);
		*ret_offset = offset;
		return NULL;
	}
	Pattern *pattern = g_new0(Pattern, 1);
	pattern->code = code;
	return pattern;
}

void
pattern_free(Pattern *pattern)
{
	if (pattern == NULL)
		return;
	pcre2_code_free(pattern->code);
	g_free(pattern);
}

/* The interpreter and not the compiled form: only it keeps to all three bounds. */
PatternResult
pattern_match(const Pattern *pattern, const char *text, size_t len)
{
	pcre2_match_context *ctx = pcre2_match_context_create(NULL);
	/* Only whether it matches is asked for: one pair of offsets will do. */
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	k_assert(ctx != NULL && data != NULL);
	pcre2_set_match_limit(ctx, PATTERN_STEPS_MAX);
	pcre2_set_depth_limit(ctx, PATTERN_DEPTH_MAX);
	pcre2_set_heap_limit(ctx, PATTERN_HEAP_MAX / 1024);
	int found = pcre2_match(pattern->code, (PCRE2_SPTR)text, MIN(len, PATTERN_TEXT_MAX), 0,
				PCRE2_NO_JIT, data, ctx);
	pcre2_match_data_free(data);
	pcre2_match_context_free(ctx);
	if (found >= 0)
		return PATTERN_YES;
	return found == PCRE2_ERROR_NOMATCH ? PATTERN_NO : PATTERN_LIMIT;
}
