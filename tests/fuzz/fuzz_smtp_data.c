/* SPDX-License-Identifier: Apache-2.0 */
/* The message between 354 and the dot.  The same bytes cut at any place give the same message;
 * the writer's output has no bare CR or LF, ends in the only CRLF.CRLF that it contains, and reads
 * back as the input with its bare CR and LF mended. */
#include "fuzz.h"

#include "smtp/data.h"

static void
collect(void *arg, const char *data, size_t len)
{
	g_string_append_len(arg, data, (gssize)len);
}

/* Reads in pieces of `piece` bytes; how many were taken. */
static size_t
read_all(SmtpDataReader *reader, const char *data, size_t size, size_t piece, GString *out)
{
	size_t taken = 0;
	smtp_data_reader_init(reader);
	while (taken < size && !smtp_data_ended(reader)) {
		size_t len = MIN(piece, size - taken);
		size_t used = smtp_data_read(reader, data + taken, len, collect, out);
		k_assert(used == len || smtp_data_ended(reader));
		taken += used;
	}
	k_assert(reader->bytes == out->len);
	return taken;
}

static void
check_cuts(const char *data, size_t size, size_t piece)
{
	SmtpDataReader whole, cut;
	g_autoptr(GString) one = g_string_new(NULL);
	g_autoptr(GString) two = g_string_new(NULL);
	size_t taken = read_all(&whole, data, size, size, one);
	k_assert(read_all(&cut, data, size, piece, two) == taken);
	k_assert(g_string_equal(one, two));
	k_assert(whole.seen == cut.seen && whole.longest == cut.longest &&
		 whole.received == cut.received && whole.header_len == cut.header_len &&
		 whole.state == cut.state);
	if (smtp_data_ended(&whole))
		k_assert(taken >= 3 && memcmp(data + taken - 3, ".\r\n", 3) == 0 &&
			 (taken == 3 || memcmp(data + taken - 5, "\r\n", 2) == 0));
}

/* Each bare CR and LF made CRLF, the last line ended. */
static GString *
mend(const char *data, size_t size)
{
	GString *out = g_string_new(NULL);
	for (size_t i = 0; i < size; i++) {
		if (data[i] == '\r' && i + 1 < size && data[i + 1] == '\n')
			i++;
		if (data[i] == '\r' || data[i] == '\n')
			g_string_append(out, "\r\n");
		else
			g_string_append_c(out, data[i]);
	}
	if (out->len > 0 && out->str[out->len - 1] != '\n')
		g_string_append(out, "\r\n");
	return out;
}

static void
check_writing(const char *data, size_t size, size_t piece)
{
	g_autoptr(GString) wire = g_string_new(NULL);
	SmtpDataWriter writer;
	smtp_data_writer_init(&writer);
	for (size_t done = 0; done < size; done += piece)
		smtp_data_write(&writer, data + done, MIN(piece, size - done), collect, wire);
	smtp_data_write_end(&writer, collect, wire);
	SmtpDataReader reader;
	g_autoptr(GString) back = g_string_new(NULL);
	k_assert(read_all(&reader, wire->str, wire->len, wire->len, back) == wire->len);
	k_assert(smtp_data_ended(&reader));
	k_assert((reader.seen & (SMTP_DATA_BARE_CR | SMTP_DATA_BARE_LF)) == 0);
	g_autoptr(GString) want = mend(data, size);
	k_assert(g_string_equal(back, want));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece = 1 + fuzz_take_byte(&data, &size) % 16;
	if (size == 0)
		return 0;
	check_cuts((const char *)data, size, piece);
	check_writing((const char *)data, size, piece);
	return 0;
}
