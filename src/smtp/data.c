/* SPDX-License-Identifier: Apache-2.0 */
/* Reader:
 *   BOL  --'.'--> DOT --CR--> DOT_CR --LF--> END
 *   BOL  --else-> LINE        DOT, DOT_CR --else--> LINE (the dot is dropped)
 *   LINE --CR at the end of the piece--> CR --LF--> BOL, --else--> LINE
 *   LINE --CRLF-> BOL
 * Bytes are looked at by memchr and plain loops over whole pieces, never one call per byte. */
#include "smtp/data.h"

#include <glib.h>
#include <string.h>

void
smtp_data_reader_init(SmtpDataReader *reader)
{
	*reader = (SmtpDataReader){.in_header = true};
}

static unsigned char
or_of_bytes(const char *data, size_t len)
{
	unsigned char all = 0;
	for (size_t i = 0; i < len; i++)
		all |= (unsigned char)data[i];
	return all;
}

static void
hand_up(SmtpDataReader *reader, const char *data, size_t len, SmtpDataFn *fn, void *arg)
{
	if (len == 0)
		return;
	if ((reader->seen & SMTP_DATA_NUL) == 0 && memchr(data, '\0', len) != NULL)
		reader->seen |= SMTP_DATA_NUL;
	if ((reader->seen & SMTP_DATA_8BIT) == 0 && (or_of_bytes(data, len) & 0x80) != 0)
		reader->seen |= SMTP_DATA_8BIT;
	reader->bytes += len;
	fn(arg, data, len);
}

/* `len` more octets of the line under way. */
static void
note_octets(SmtpDataReader *reader, const char *data, size_t len)
{
	reader->line += len;
	if (reader->in_header && reader->field_len < sizeof(reader->field)) {
		size_t room = sizeof(reader->field) - reader->field_len;
		size_t take = len < room ? len : room;
		memcpy(reader->field + reader->field_len, data, take);
		reader->field_len += (unsigned)take;
	}
}

static bool
is_received(const SmtpDataReader *reader)
{
	return reader->field_len == sizeof(reader->field) &&
	       g_ascii_strncasecmp(reader->field, "Received:", 9) == 0;
}

/* The line ended with CRLF; `bytes` are handed up with it. */
static void
note_line(SmtpDataReader *reader, uint64_t bytes)
{
	if (reader->line > reader->longest)
		reader->longest = reader->line;
	if (reader->in_header) {
		if (reader->line == 0) {
			reader->in_header = false;
			reader->header_len = bytes;
		} else if (is_received(reader)) {
			reader->received++;
		}
		reader->field_len = 0;
	}
	reader->line = 0;
	reader->state = SMTP_DATA_BOL;
}

static void
note_bare(SmtpDataReader *reader, unsigned what)
{
	reader->seen |= what;
	note_octets(reader, what == SMTP_DATA_BARE_CR ? "\r" : "\n", 1);
	if (reader->line > reader->longest)
		reader->longest = reader->line;
	reader->state = SMTP_DATA_LINE;
}

/* State LINE: up to the next LF or the end; returns the place behind it. */
static const char *
read_line_part(SmtpDataReader *reader, const char *p, const char *start, const char *end)
{
	const char *lf = memchr(p, '\n', (size_t)(end - p));
	const char *stop = lf != NULL ? lf : end;
	bool cr = stop > p && stop[-1] == '\r';
	size_t len = (size_t)(stop - p) - (cr ? 1 : 0);

	if ((reader->seen & SMTP_DATA_BARE_CR) == 0 && memchr(p, '\r', len) != NULL)
		reader->seen |= SMTP_DATA_BARE_CR;
	note_octets(reader, p, len);
	if (lf == NULL) {
		if (cr)
			reader->state = SMTP_DATA_CR;
		if (reader->line > reader->longest)
			reader->longest = reader->line;
		return end;
	}
	if (cr)
		note_line(reader, reader->bytes + (uint64_t)(lf + 1 - start));
	else
		note_bare(reader, SMTP_DATA_BARE_LF);
	return lf + 1;
}

size_t
smtp_data_read(SmtpDataReader *reader, const char *data, size_t len, SmtpDataFn *fn, void *arg)
{
	const char *p = data, *start = data, *end = data + len;

	while (p < end && reader->state != SMTP_DATA_END) {
		switch (reader->state) {
		case SMTP_DATA_BOL:
			if (*p == '.' && !reader->literal) {
				hand_up(reader, start, (size_t)(p - start), fn, arg);
				start = ++p;
				reader->state = SMTP_DATA_DOT;
			} else {
				reader->state = SMTP_DATA_LINE;
			}
			break;
		case SMTP_DATA_LINE:
			p = read_line_part(reader, p, start, end);
			break;
		case SMTP_DATA_CR:
			if (*p == '\n') {
				p++;
				note_line(reader, reader->bytes + (uint64_t)(p - start));
			} else {
				note_bare(reader, SMTP_DATA_BARE_CR);
			}
			break;
		case SMTP_DATA_DOT:
			if (*p == '\r') {
				start = ++p;
				reader->state = SMTP_DATA_DOT_CR;
			} else {
				reader->state = SMTP_DATA_LINE;
			}
			break;
		case SMTP_DATA_DOT_CR:
			if (*p == '\n') {
				start = ++p;
				reader->state = SMTP_DATA_END;
			} else {
				hand_up(reader, "\r", 1, fn, arg);
				note_bare(reader, SMTP_DATA_BARE_CR);
			}
			break;
		case SMTP_DATA_END:
			k_unreachable();
		}
	}
	hand_up(reader, start, (size_t)(p - start), fn, arg);
	return (size_t)(p - data);
}

void
smtp_data_reader_finish(SmtpDataReader *reader)
{
	if (reader->state == SMTP_DATA_CR)
		note_bare(reader, SMTP_DATA_BARE_CR);
	if (reader->in_header && is_received(reader))
		reader->received++;
}

void
smtp_data_writer_init(SmtpDataWriter *writer)
{
	*writer = (SmtpDataWriter){.bol = true};
}

static void
put(SmtpDataFn *fn, void *arg, const char *from, const char *to)
{
	if (to > from)
		fn(arg, from, (size_t)(to - from));
}

static const char *
find(const char *p, const char *end, char c)
{
	const char *hit = p < end ? memchr(p, c, (size_t)(end - p)) : NULL;
	return hit != NULL ? hit : end;
}

void
smtp_data_write(SmtpDataWriter *writer, const char *data, size_t len, SmtpDataFn *fn, void *arg)
{
	const char *p = data, *end = data + len;
	if (len == 0)
		return;
	if (writer->cr_held) {
		fn(arg, "\r\n", 2);
		writer->cr_held = false;
		writer->bol = true;
		if (*p == '\n')
			p++;
	}
	const char *start = p;
	/* The next CR and LF are remembered: a body with only one kind of them stays linear. */
	const char *cr = find(p, end, '\r'), *lf = find(p, end, '\n');
	while (p < end) {
		if (writer->bol && *p == '.') {
			put(fn, arg, start, p);
			fn(arg, ".", 1);
			start = p;
		}
		if (cr < p)
			cr = find(p, end, '\r');
		if (lf < p)
			lf = find(p, end, '\n');
		const char *stop = cr < lf ? cr : lf;
		writer->bol = stop < end;
		if (stop == end) {
			p = end;
		} else if (stop == cr && lf == cr + 1 && lf < end) {
			p = lf + 1;
		} else {
			put(fn, arg, start, stop);
			writer->cr_held = stop + 1 == end && *stop == '\r';
			if (!writer->cr_held)
				fn(arg, "\r\n", 2);
			p = start = stop + 1;
		}
	}
	put(fn, arg, start, end);
}

void
smtp_newline_fix(SmtpNewline *newline, const char *data, size_t len, SmtpDataFn *fn, void *arg)
{
	const char *p = data, *end = data + len;
	if (len == 0)
		return;
	if (newline->cr_held) {
		fn(arg, "\r\n", 2);
		newline->cr_held = false;
		if (*p == '\n')
			p++;
	}
	const char *start = p;
	/* as in smtp_data_write: each byte is searched once for either */
	const char *cr = find(p, end, '\r'), *lf = find(p, end, '\n');
	while (p < end) {
		if (cr < p)
			cr = find(p, end, '\r');
		if (lf < p)
			lf = find(p, end, '\n');
		const char *stop = cr < lf ? cr : lf;
		if (stop == end) {
			p = end;
		} else if (stop == cr && lf == cr + 1 && lf < end) {
			p = lf + 1;
		} else {
			put(fn, arg, start, stop);
			newline->cr_held = stop + 1 == end && *stop == '\r';
			if (!newline->cr_held)
				fn(arg, "\r\n", 2);
			p = start = stop + 1;
		}
	}
	put(fn, arg, start, end);
}

void
smtp_newline_end(SmtpNewline *newline, SmtpDataFn *fn, void *arg)
{
	if (newline->cr_held)
		fn(arg, "\r\n", 2);
	newline->cr_held = false;
}

void
smtp_data_write_end(SmtpDataWriter *writer, SmtpDataFn *fn, void *arg)
{
	if (writer->cr_held || !writer->bol)
		fn(arg, "\r\n.\r\n", 5);
	else
		fn(arg, ".\r\n", 3);
	writer->cr_held = false;
	writer->bol = true;
}
