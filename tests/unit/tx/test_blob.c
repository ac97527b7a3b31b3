/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "tx/blob.h"

#define LIMIT 1000

static char *dir;

static Blob *
new_small(uint64_t size_max)
{
	BlobLimits limits = {.memory_max = LIMIT, .size_max = size_max, .spill_dir = dir};
	return blob_new(&limits);
}

static char *
pattern(size_t len)
{
	char *bytes = g_malloc(len + 1);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)(i * 31 + i / 251);
	return bytes;
}

static void
append(Blob *blob, const char *data, size_t len)
{
	g_autoptr(GError) error = NULL;
	if (!blob_append(blob, data, len, &error))
		fail_msg("%s", error->message);
}

static void
assert_holds(const Blob *blob, const char *want, size_t len)
{
	assert_int_equal(blob_len(blob), len);
	size_t got;
	g_autofree char *text = blob_to_string(blob, len, &got, NULL);
	assert_non_null(text);
	assert_int_equal(got, len);
	assert_memory_equal(text, want, len);
	assert_int_equal(text[len], '\0');
}

static bool
in_memory(const Blob *blob)
{
	size_t n;
	return blob_peek(blob, 0, &n) != NULL;
}

static unsigned
files_in_dir(void)
{
	g_autoptr(GDir) handle = g_dir_open(dir, 0, NULL);
	unsigned n = 0;
	while (g_dir_read_name(handle) != NULL)
		n++;
	return n;
}

/* Sizes around the limit, in pieces of several sizes; all reads at all cuts agree. */
static void
test_boundary(void **state)
{
	(void)state;
	static const size_t SIZES[] = {0,         1,     511,       512,       513,
				       LIMIT - 1, LIMIT, LIMIT + 1, LIMIT * 3, LIMIT * 50};
	static const size_t PIECES[] = {1, 7, 999, 1000, 1001, 100000};
	g_autofree char *data = pattern(LIMIT * 50);
	for (size_t s = 0; s < G_N_ELEMENTS(SIZES); s++) {
		for (size_t p = 0; p < G_N_ELEMENTS(PIECES); p++) {
			g_autoptr(Blob) blob = new_small(0);
			for (size_t at = 0; at < SIZES[s]; at += PIECES[p])
				append(blob, data + at, MIN(PIECES[p], SIZES[s] - at));
			assert_holds(blob, data, SIZES[s]);
			assert_false(blob_is_final(blob));
			assert_int_equal(blob_total(blob), -1);
			assert_int_equal(in_memory(blob), SIZES[s] > 0 && SIZES[s] <= LIMIT);
			blob_finalize(blob);
			assert_true(blob_is_final(blob));
			assert_int_equal(blob_total(blob), SIZES[s]);
			assert_holds(blob, data, SIZES[s]);
		}
	}
	assert_int_equal(files_in_dir(), 0); /* files have no names */
}

static void
test_short_reads(void **state)
{
	(void)state;
	static const size_t SIZES[] = {LIMIT, LIMIT + 1};
	g_autofree char *data = pattern(LIMIT + 1);
	for (size_t s = 0; s < G_N_ELEMENTS(SIZES); s++) {
		g_autoptr(Blob) blob = new_small(0);
		append(blob, data, SIZES[s]);
		char buf[64];
		size_t got = 99;
		assert_true(blob_read(blob, SIZES[s] - 10, buf, sizeof buf, &got, NULL));
		assert_int_equal(got, 10);
		assert_memory_equal(buf, data + SIZES[s] - 10, 10);
		assert_true(blob_read(blob, SIZES[s], buf, sizeof buf, &got, NULL));
		assert_int_equal(got, 0);
		assert_true(blob_read(blob, UINT64_MAX, buf, sizeof buf, &got, NULL));
		assert_int_equal(got, 0);
		assert_true(blob_read(blob, 5, buf, 0, &got, NULL));
		assert_int_equal(got, 0);
		assert_true(blob_read(blob, 5, buf, 3, &got, NULL));
		assert_int_equal(got, 3);
		assert_memory_equal(buf, data + 5, 3);
	}
}

static void
test_peek(void **state)
{
	(void)state;
	g_autoptr(Blob) blob = new_small(0);
	size_t n = 9;
	assert_null(blob_peek(blob, 0, &n));
	assert_int_equal(n, 0);
	append(blob, "hello", 5);
	assert_memory_equal(blob_peek(blob, 1, &n), "ello", 4);
	assert_int_equal(n, 4);
	assert_null(blob_peek(blob, 5, &n));
	assert_int_equal(n, 0);
	assert_null(blob_peek(blob, UINT64_MAX, &n));
}

static void
test_size_max(void **state)
{
	(void)state;
	static const uint64_t MAXES[] = {10, LIMIT, LIMIT + 1, LIMIT * 3};
	g_autofree char *data = pattern(LIMIT * 3 + 1);
	for (size_t i = 0; i < G_N_ELEMENTS(MAXES); i++) {
		g_autoptr(Blob) blob = new_small(MAXES[i]);
		append(blob, data, (size_t)MAXES[i] - 1);
		g_autoptr(GError) error = NULL;
		assert_false(blob_append(blob, data, 2, &error));
		assert_true(g_error_matches(error, K_ERROR, K_ERROR_FULL));
		assert_int_equal(blob_len(blob), MAXES[i] - 1);
		append(blob, data + MAXES[i] - 1, 1); /* at the limit */
		assert_holds(blob, data, (size_t)MAXES[i]);
		assert_false(blob_append(blob, data, 1, NULL));
		append(blob, data, 0);
	}
}

static void
test_total(void **state)
{
	(void)state;
	g_autoptr(Blob) blob = new_small(0);
	append(blob, "abc", 3);
	assert_false(blob_set_total(blob, 2));
	assert_int_equal(blob_total(blob), -1);
	assert_true(blob_set_total(blob, 5));
	assert_true(blob_set_total(blob, 5));
	assert_false(blob_set_total(blob, 6));
	assert_int_equal(blob_total(blob), 5);
	g_autoptr(GError) error = NULL;
	assert_false(blob_append(blob, "xyz", 3, &error));
	assert_true(g_error_matches(error, K_ERROR, K_ERROR_INPUT));
	append(blob, "de", 2);
	assert_false(blob_is_final(blob));
	blob_finalize(blob);
	assert_true(blob_is_final(blob));
	assert_true(blob_set_total(blob, 5));
	assert_false(blob_set_total(blob, 4));
	assert_holds(blob, "abcde", 5);

	g_autoptr(Blob) huge = new_small(0);
	assert_false(blob_set_total(huge, (uint64_t)INT64_MAX + 1));
	assert_true(blob_set_total(huge, INT64_MAX)); /* allocates nothing */
	append(huge, "a", 1);

	g_autoptr(Blob) empty = new_small(0);
	assert_true(blob_set_total(empty, 0));
	blob_finalize(empty);
	assert_holds(empty, "", 0);
}

static void
test_bytes(void **state)
{
	(void)state;
	g_autoptr(Blob) blob = blob_new_bytes("a\0b", 3);
	assert_true(blob_is_final(blob));
	assert_int_equal(blob_total(blob), 3);
	assert_holds(blob, "a\0b", 3);
	g_autoptr(Blob) empty = blob_new_bytes(NULL, 0);
	assert_true(blob_is_final(empty));
	assert_holds(empty, "", 0);
	g_autoptr(Blob) defaults = blob_new(NULL);
	g_autofree char *data = pattern(BLOB_MEMORY_DEFAULT + 1);
	append(defaults, data, BLOB_MEMORY_DEFAULT);
	assert_true(in_memory(defaults));
	append(defaults, data + BLOB_MEMORY_DEFAULT, 1);
	assert_false(in_memory(defaults));
	assert_holds(defaults, data, BLOB_MEMORY_DEFAULT + 1);
	blob_unref(NULL);
}

/* Views over memory, over a file, over a view; read at each cut. */
static void
test_views(void **state)
{
	(void)state;
	static const size_t SIZES[] = {0, 20, LIMIT + 20};
	g_autofree char *data = pattern(LIMIT + 20);
	for (size_t s = 0; s < G_N_ELEMENTS(SIZES); s++) {
		Blob *base = new_small(0);
		append(base, data, SIZES[s]);
		blob_finalize(base);
		Blob *inner = blob_new_prefixed("Received: x\r\n", 13, base);
		Blob *none = blob_new_prefixed("", 0, inner);
		g_autoptr(Blob) view = blob_new_prefixed("X: y\r\n", 6, none);
		blob_unref(base); /* the view keeps them */
		blob_unref(inner);
		blob_unref(none);
		g_autoptr(GString) want = g_string_new("X: y\r\nReceived: x\r\n");
		g_string_append_len(want, data, (gssize)SIZES[s]);
		assert_true(blob_is_final(view));
		assert_int_equal(blob_total(view), want->len);
		assert_holds(view, want->str, want->len);
		for (size_t at = 0; at <= want->len; at++) {
			char buf[16];
			size_t got;
			assert_true(blob_read(view, at, buf, sizeof buf, &got, NULL));
			assert_int_equal(got, MIN(sizeof buf, want->len - at));
			assert_memory_equal(buf, want->str + at, got);
			size_t n;
			const char *peek = blob_peek(view, at, &n);
			if (peek != NULL)
				assert_memory_equal(peek, want->str + at, n);
			else
				assert_true(at == want->len || SIZES[s] > LIMIT);
		}
	}
}

/* Ranges of memory, of a file and of a view over either; views over ranges. */
static void
test_ranges(void **state)
{
	(void)state;
	static const size_t SIZES[] = {20, LIMIT + 20};
	g_autofree char *data = pattern(LIMIT + 20);
	for (size_t s = 0; s < G_N_ELEMENTS(SIZES); s++) {
		Blob *base = new_small(0);
		append(base, data, SIZES[s]);
		Blob *view = blob_new_prefixed("X: y\r\n", 6, base);
		for (size_t from = 0; from <= SIZES[s]; from++) {
			size_t len = (SIZES[s] - from) / 2;
			g_autoptr(Blob) range = blob_new_range(base, from, len);
			assert_true(blob_is_final(range)); /* although the base grows */
			assert_int_equal(blob_total(range), len);
			assert_holds(range, data + from, len);
			g_autoptr(Blob) above = blob_new_prefixed("ab", 2, range);
			g_autoptr(GString) want = g_string_new("ab");
			g_string_append_len(want, data + from, (gssize)len);
			assert_holds(above, want->str, len + 2);
			g_autoptr(Blob) inside = blob_new_range(view, from + 3, 3);
			g_autoptr(GString) all = g_string_new("X: y\r\n");
			g_string_append_len(all, data, (gssize)SIZES[s]);
			assert_holds(inside, all->str + from + 3, 3);
		}
		g_autoptr(Blob) last = blob_new_range(view, SIZES[s], 6);
		blob_unref(view); /* the range keeps them */
		blob_unref(base);
		assert_holds(last, data + SIZES[s] - 6, 6);
		size_t len;
		assert_null(blob_peek(last, 6, &len));
		assert_int_equal(len, 0);
	}
}

/* A view grows with what it stands in front of, in memory and in the file, and ends with it. */
static void
test_growing_view(void **state)
{
	(void)state;
	static const size_t STEPS[] = {0, 1, LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 20};
	g_autofree char *data = pattern(LIMIT + 20);
	g_autoptr(GString) want = g_string_new("Y: z\r\nX: y\r\n");
	g_autoptr(Blob) base = new_small(0);
	g_autoptr(Blob) inner = blob_new_prefixed("X: y\r\n", 6, base);
	g_autoptr(Blob) view = blob_new_prefixed("Y: z\r\n", 6, inner);
	for (size_t i = 0; i < G_N_ELEMENTS(STEPS); i++) {
		size_t held = want->len - 12;
		append(base, data + held, STEPS[i] - held);
		g_string_append_len(want, data + held, (gssize)(STEPS[i] - held));
		assert_false(blob_is_final(view));
		assert_int_equal(blob_total(view), -1);
		assert_false(blob_set_total(view, want->len + 1)); /* only its end is appended to */
		assert_false(blob_set_total(view, want->len - 1));
		assert_holds(view, want->str, want->len);
	}
	assert_true(blob_set_total(base, LIMIT + 20));
	assert_int_equal(blob_total(view), want->len);
	assert_false(blob_is_final(view));
	blob_finalize(base);
	assert_true(blob_is_final(view));
	blob_finalize(view); /* nothing happens */
	assert_int_equal(blob_total(view), want->len);
	assert_true(blob_set_total(view, want->len));
	assert_false(blob_set_total(view, want->len + 1));
	assert_holds(view, want->str, want->len);
}

static void
test_many_views(void **state)
{
	(void)state;
	Blob *blob = blob_new_bytes("z", 1);
	for (int i = 0; i < 100000; i++) {
		Blob *view = blob_new_prefixed("a", 1, blob);
		blob_unref(blob);
		blob = view;
	}
	assert_int_equal(blob_len(blob), 100001);
	blob_unref(blob); /* does not recurse */
}

static void
test_to_string_limit(void **state)
{
	(void)state;
	g_autoptr(Blob) blob = blob_new_bytes("abc", 3);
	size_t len;
	g_autofree char *text = blob_to_string(blob, 3, &len, NULL);
	assert_string_equal(text, "abc");
	g_autoptr(GError) error = NULL;
	assert_null(blob_to_string(blob, 2, &len, &error));
	assert_true(g_error_matches(error, K_ERROR, K_ERROR_FULL));
}

static void
test_bad_dir(void **state)
{
	(void)state;
	BlobLimits limits = {.memory_max = 10, .spill_dir = "/nonexistent/spill"};
	g_autoptr(Blob) blob = blob_new(&limits);
	append(blob, "0123456789", 10);
	g_autoptr(GError) error = NULL;
	assert_false(blob_append(blob, "x", 1, &error));
	assert_true(g_error_matches(error, K_ERROR, K_ERROR_IO));
	assert_holds(blob, "0123456789", 10); /* nothing is lost */
}

static void
test_file_full(void **state)
{
	(void)state;
	struct rlimit old, small;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 4 * LIMIT;
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
	sigaction(SIGXFSZ, &ignore, &before);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	g_autofree char *data = pattern(4 * LIMIT + 1);
	g_autoptr(Blob) blob = new_small(0);
	append(blob, data, 3 * LIMIT);
	g_autoptr(GError) error = NULL;
	bool ok = blob_append(blob, data + 3 * LIMIT, LIMIT + 1, &error);
	uint64_t held = blob_len(blob);
	bool fits = blob_append(blob, data + 3 * LIMIT, LIMIT, NULL);
	setrlimit(RLIMIT_FSIZE, &old);
	sigaction(SIGXFSZ, &before, NULL);
	assert_false(ok);
	assert_true(g_error_matches(error, K_ERROR, K_ERROR_FULL));
	assert_int_equal(held, 3 * LIMIT);
	assert_true(fits);
	assert_holds(blob, data, 4 * LIMIT);
}

static void
test_stored_id(void **state)
{
	(void)state;
	g_autoptr(Blob) blob = blob_new_bytes("abc", 3);
	assert_int_equal(blob_stored_id(blob), 0);
	blob_set_stored_id(blob, 42);
	assert_int_equal(blob_stored_id(blob), 42);
	blob_set_stored_id(blob, 42);
	g_autoptr(Blob) view = blob_new_prefixed("x", 1, blob);
	assert_int_equal(blob_stored_id(view), 0); /* other bytes */
}

static int
set_up(void **state)
{
	(void)state;
	dir = g_dir_make_tmp("koukan-blob-XXXXXX", NULL);
	return dir != NULL ? 0 : -1;
}

static int
tear_down(void **state)
{
	(void)state;
	int rc = g_rmdir(dir);
	g_free(dir);
	return rc;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boundary),   cmocka_unit_test(test_short_reads),
		cmocka_unit_test(test_peek),       cmocka_unit_test(test_size_max),
		cmocka_unit_test(test_total),      cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_views),      cmocka_unit_test(test_growing_view),
		cmocka_unit_test(test_many_views), cmocka_unit_test(test_to_string_limit),
		cmocka_unit_test(test_bad_dir),    cmocka_unit_test(test_file_full),
		cmocka_unit_test(test_stored_id),  cmocka_unit_test(test_ranges),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
