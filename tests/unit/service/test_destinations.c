/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "service/destinations.h"

/* However groups are claimed and ended, a destination that is not busy has room for a whole slice.
 */
static void
test_limit_holds(void **state)
{
	(void)state;
	static const unsigned limits[] = {1, 2, 3, 20, 21, 1000};
	for (size_t i = 0; i < G_N_ELEMENTS(limits); i++) {
		Destinations *all = destinations_new(limits[i]);
		unsigned running = 0, most = 0;
		for (unsigned round = 0; round < 50; round++) {
			g_autoptr(GPtrArray) busy = destinations_busy(all);
			if (busy == NULL) {
				for (unsigned k = 0; k < destinations_slice(all); k++, running++)
					destinations_enter(all, "x", DESTINATION_QUEUED);
			} else {
				assert_int_equal(busy->len, 1);
				assert_string_equal(g_ptr_array_index(busy, 0), "x");
			}
			most = MAX(most, running);
			assert_true(running <= limits[i]);
			for (unsigned k = 0; k <= round % 3 && running > 0; k++, running--)
				(void)destinations_leave(all, "x", DESTINATION_QUEUED);
		}
		assert_true(most >= destinations_slice(all));
		destinations_free(all);
	}
}

static void
test_leaving_frees_once(void **state)
{
	(void)state;
	Destinations *all = destinations_new(4); /* slice 2: busy from 3 on */
	for (int i = 0; i < 4; i++)
		destinations_enter(all, "x", DESTINATION_QUEUED);
	assert_false(destinations_leave(all, "x", DESTINATION_QUEUED)); /* 3: still busy */
	assert_true(destinations_leave(all, "x", DESTINATION_QUEUED));  /* 2: not any more */
	assert_false(destinations_leave(all, "x", DESTINATION_QUEUED));
	assert_int_equal(destinations_count(all, "x", DESTINATION_QUEUED), 1);
	destinations_free(all);
}

static void
test_kinds_and_names_are_apart(void **state)
{
	(void)state;
	Destinations *all = destinations_new(1);
	destinations_enter(all, "x", DESTINATION_FRESH);
	destinations_enter(all, NULL, DESTINATION_QUEUED);
	assert_int_equal(destinations_count(all, "x", DESTINATION_FRESH), 1);
	assert_int_equal(destinations_count(all, "x", DESTINATION_QUEUED), 0);
	assert_int_equal(destinations_count(all, "", DESTINATION_QUEUED), 1);
	assert_int_equal(destinations_count(all, "y", DESTINATION_QUEUED), 0);
	g_autoptr(GPtrArray) busy = destinations_busy(all);
	assert_int_equal(busy->len, 1);
	assert_string_equal(g_ptr_array_index(busy, 0), "");
	assert_false(destinations_leave(all, "x", DESTINATION_FRESH));
	assert_true(destinations_leave(all, NULL, DESTINATION_QUEUED));
	assert_null(destinations_busy(all));
	destinations_free(all);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit_holds),
		cmocka_unit_test(test_leaving_frees_once),
		cmocka_unit_test(test_kinds_and_names_are_apart),
	};
	return cmocka_run_group_tests_name("service-destinations", tests, NULL, NULL);
}
