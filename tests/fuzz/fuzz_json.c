/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON reader: what it accepts prints to something that it accepts as the same value. */
#include "fuzz.h"

#include "base/json.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(json_t) value = json_parse("fuzz", (const char *)data, size, &error);
	k_assert((value == NULL) == (error != NULL));
	if (value == NULL)
		return 0;
	g_autofree char *text = json_print(value);
	g_autoptr(GError) second = NULL;
	g_autoptr(json_t) again = json_parse("again", text, strlen(text), &second);
	k_assert(again != NULL && json_equal(value, again));
	return 0;
}
