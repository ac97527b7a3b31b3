/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <string.h>

#include "base/check.h"
#include "loop/dns.h"

/* RFC 1035 4.1.1:  ID, QR Opcode AA TC RD RA Z RCODE, QDCOUNT ANCOUNT NSCOUNT ARCOUNT */
#define HEADER_LEN     12
#define FLAG_QR        0x8000u
#define FLAG_TC        0x0200u
#define RCODE_MASK     0x000fu
#define RCODE_NXDOMAIN 3u
#define CLASS_IN       1
#define NAME_WIRE_MAX  255
#define LABEL_MAX      63
#define CNAMES_MAX     16 /* aliases followed */

/* A domain name in wire form without compression. */
typedef struct WireName {
	uint8_t bytes[NAME_WIRE_MAX];
	size_t len;
} WireName;

/* Where reading has come to. */
typedef struct Cursor {
	const uint8_t *packet;
	size_t len;
	size_t at;
} Cursor;

typedef struct RecordHead {
	WireName owner;
	uint16_t type;
	uint16_t class;
	size_t data; /* offset and length of the data */
	size_t data_len;
} RecordHead;

static bool
read_u16(Cursor *cursor, uint16_t *ret_value)
{
	if (cursor->len - cursor->at < 2)
		return false;
	const uint8_t *at = cursor->packet + cursor->at;
	*ret_value = (uint16_t)(at[0] << 8 | at[1]);
	cursor->at += 2;
	return true;
}

static bool
skip(Cursor *cursor, size_t len)
{
	if (cursor->len - cursor->at < len)
		return false;
	cursor->at += len;
	return true;
}

static bool
name_add_label(WireName *name, const uint8_t *label)
{
	size_t len = 1 + (size_t)label[0];
	if (len > NAME_WIRE_MAX - name->len)
		return false;
	memcpy(name->bytes + name->len, label, len);
	name->len += len;
	return true;
}

/* RFC 1035 4.1.4.  A pointer has to lead to a place before all that was read of this name so
 * far, hence reading ends. */
static bool
read_name(Cursor *cursor, WireName *ret_name)
{
	ret_name->len = 0;
	size_t at = cursor->at;
	size_t lowest = at; /* start of the piece being read */
	bool jumped = false;
	for (;;) {
		if (at >= cursor->len)
			return false;
		uint8_t label = cursor->packet[at];
		if ((label & 0xc0) == 0xc0) {
			if (cursor->len - at < 2)
				return false;
			size_t to = (size_t)(label & 0x3f) << 8 | cursor->packet[at + 1];
			if (to >= lowest)
				return false;
			if (!jumped)
				cursor->at = at + 2;
			jumped = true;
			at = lowest = to;
			continue;
		}
		if (label > LABEL_MAX || cursor->len - at < 1 + (size_t)label ||
		    !name_add_label(ret_name, cursor->packet + at))
			return false;
		at += 1 + (size_t)label;
		if (label == 0)
			break;
	}
	if (!jumped)
		cursor->at = at;
	return true;
}

/* ASCII case does not matter; a length byte is below 'A', so bytes can be compared blindly. */
static bool
name_equal(const WireName *a, const WireName *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (g_ascii_tolower((char)a->bytes[i]) != g_ascii_tolower((char)b->bytes[i]))
			return false;
	return true;
}

/* Presentation form (RFC 1035 5.1) with the trailing dot. */
static char *
name_text(const WireName *name)
{
	if (name->len == 1)
		return g_strdup(".");
	GString *text = g_string_sized_new(name->len + 8);
	for (size_t at = 0; name->bytes[at] != 0; at += 1 + (size_t)name->bytes[at]) {
		for (size_t i = 1; i <= name->bytes[at]; i++) {
			char c = (char)name->bytes[at + i];
			if (c == '.' || c == '\\' || c == '"' || c <= 0x20 || c > 0x7e)
				g_string_append_printf(text, "\\%03u", (unsigned)(uint8_t)c);
			else
				g_string_append_c(text, c);
		}
		g_string_append_c(text, '.');
	}
	return g_string_free(text, FALSE);
}

static bool
read_record(Cursor *cursor, RecordHead *ret_head)
{
	uint16_t data_len;
	if (!read_name(cursor, &ret_head->owner) || !read_u16(cursor, &ret_head->type) ||
	    !read_u16(cursor, &ret_head->class) || !skip(cursor, 4) || !read_u16(cursor, &data_len))
		return false;
	ret_head->data = cursor->at;
	ret_head->data_len = data_len;
	return skip(cursor, data_len);
}

/* A name that fills the data from `at` on. */
static bool
data_name(const Cursor *packet, const RecordHead *head, size_t skipped, WireName *ret_name)
{
	if (skipped >= head->data_len)
		return false;
	Cursor cursor = {packet->packet, head->data + head->data_len, head->data + skipped};
	return read_name(&cursor, ret_name) && cursor.at == head->data + head->data_len;
}

static char *
data_addr(const uint8_t *data, size_t len, int family)
{
	char text[INET6_ADDRSTRLEN];
	if (len != (family == AF_INET ? 4u : 16u) ||
	    inet_ntop(family, data, text, sizeof(text)) == NULL)
		return NULL;
	return g_strdup(text);
}

/* RFC 1035 3.3.14: one or more counted strings. */
static char *
data_txt(const uint8_t *data, size_t len)
{
	if (len == 0)
		return NULL;
	g_autoptr(GString) text = g_string_sized_new(len);
	for (size_t at = 0; at < len; at += 1 + (size_t)data[at]) {
		if (len - at < 1 + (size_t)data[at])
			return NULL;
		g_string_append_len(text, (const char *)data + at + 1, data[at]);
	}
	/* A NUL would hide what follows it; SUB is as wrong in every policy and hides nothing. */
	for (gsize i = 0; i < text->len; i++)
		if (text->str[i] == '\0')
			text->str[i] = 0x1a;
	return g_string_free(g_steal_pointer(&text), FALSE);
}

/* NULL when the data is malformed. */
static char *
data_text(const Cursor *packet, const RecordHead *head, uint16_t *ret_preference)
{
	const uint8_t *data = packet->packet + head->data;
	WireName name;
	switch ((DnsType)head->type) {
	case DNS_A:
		return data_addr(data, head->data_len, AF_INET);
	case DNS_AAAA:
		return data_addr(data, head->data_len, AF_INET6);
	case DNS_TXT:
		return data_txt(data, head->data_len);
	case DNS_MX:
		if (!data_name(packet, head, 2, &name))
			return NULL;
		*ret_preference = (uint16_t)(data[0] << 8 | data[1]);
		return name_text(&name);
	case DNS_PTR:
	case DNS_CNAME:
		return data_name(packet, head, 0, &name) ? name_text(&name) : NULL;
	}
	return NULL;
}

static void
record_free(gpointer data)
{
	DnsRecord *record = data;
	g_free(record->text);
	g_free(record);
}

/* Follows aliases from *target; *ret_moved tells that one was found in this pass. */
static bool
follow_alias(const Cursor *answers, uint16_t count, WireName *target, bool *ret_moved)
{
	Cursor cursor = *answers;
	*ret_moved = false;
	for (uint16_t i = 0; i < count; i++) {
		RecordHead head;
		if (!read_record(&cursor, &head))
			return false;
		if (head.type != DNS_CNAME || head.class != CLASS_IN ||
		    !name_equal(&head.owner, target))
			continue;
		if (!data_name(answers, &head, 0, target))
			return false;
		*ret_moved = true;
	}
	return true;
}

/* The records of `target`; what belongs to other names is not looked at. */
static bool
collect(const Cursor *answers, uint16_t count, DnsType type, const WireName *target,
	GPtrArray *records)
{
	Cursor cursor = *answers;
	for (uint16_t i = 0; i < count; i++) {
		RecordHead head;
		if (!read_record(&cursor, &head))
			return false;
		if (head.type != type || head.class != CLASS_IN || !name_equal(&head.owner, target))
			continue;
		uint16_t preference = 0;
		char *text = data_text(answers, &head, &preference);
		if (text == NULL)
			return false;
		if (records->len >= DNS_RECORDS_MAX) {
			g_free(text);
			break;
		}
		DnsRecord *record = g_new0(DnsRecord, 1);
		*record = (DnsRecord){.text = text, .preference = preference};
		g_ptr_array_add(records, record);
	}
	return true;
}

static bool
parse_answers(Cursor *cursor, uint16_t count, DnsType type, WireName *target, GPtrArray *records)
{
	bool moved = type != DNS_CNAME;
	for (int i = 0; moved; i++)
		if (i > CNAMES_MAX || !follow_alias(cursor, count, target, &moved))
			return false;
	return collect(cursor, count, type, target, records);
}

static DnsStatus
parse(Cursor *cursor, DnsType type, GPtrArray *records)
{
	uint16_t flags, questions, answers, asked_type, asked_class;
	WireName target;
	if (!skip(cursor, 2) || !read_u16(cursor, &flags) || !read_u16(cursor, &questions) ||
	    !read_u16(cursor, &answers) || !skip(cursor, 4))
		return DNS_TEMP;
	if ((flags & FLAG_QR) == 0 || (flags & FLAG_TC) != 0 || questions != 1)
		return DNS_TEMP;
	if (!read_name(cursor, &target) || !read_u16(cursor, &asked_type) ||
	    !read_u16(cursor, &asked_class) || asked_type != type || asked_class != CLASS_IN)
		return DNS_TEMP;
	if ((flags & RCODE_MASK) == RCODE_NXDOMAIN)
		return DNS_NXDOMAIN;
	if ((flags & RCODE_MASK) != 0 || !parse_answers(cursor, answers, type, &target, records))
		return DNS_TEMP;
	return records->len > 0 ? DNS_OK : DNS_NODATA;
}

void
dns_parse(const uint8_t *packet, size_t len, DnsType type, DnsAnswer *ret_answer)
{
	Cursor cursor = {.packet = packet, .len = len};
	*ret_answer = (DnsAnswer){.records = g_ptr_array_new_with_free_func(record_free)};
	ret_answer->status = parse(&cursor, type, ret_answer->records);
	if (ret_answer->status != DNS_OK)
		g_ptr_array_set_size(ret_answer->records, 0);
}

void
dns_answer_clear(DnsAnswer *answer)
{
	if (answer->records != NULL)
		g_ptr_array_unref(answer->records);
	*answer = (DnsAnswer){.status = DNS_TEMP};
}
