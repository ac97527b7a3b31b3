/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "loop/dns.h"

/* clang-format off: one case a line, bytes grouped by field. */
/* Pieces of packets.  The question, and so the name "example.org", starts at offset 12. */
#define HEAD(flags, questions, answers)                                                            \
	"\x12\x34" flags "\0" questions "\0" answers "\0\0"                                        \
	"\0\0"
#define ANSWER "\x81\x80"
#define ORG                                                                                        \
	"\x07"                                                                                     \
	"example"                                                                                  \
	"\x03"                                                                                     \
	"org"                                                                                      \
	"\0"
#define ASK(type) ORG "\0" type "\0\x01"
#define ME        "\xc0\x0c"
#define RR(type, len)                                                                              \
	"\0" type "\0\x01"                                                                         \
	"\0\0\x0e\x10"                                                                             \
	"\0" len
#define A     "\x01"
#define CNAME "\x05"
#define PTR   "\x0c"
#define MX    "\x0f"
#define TXT   "\x10"
#define AAAA  "\x1c"
#define CASE(name, type, want, bytes)                                                              \
	{                                                                                          \
		name, type, want, bytes, sizeof(bytes) - 1                                         \
	}

static const struct {
	const char *name;
	DnsType type;
	const char *want;
	const char *bytes;
	size_t len;
} cases[] = {
	CASE("A", DNS_A, "ok 192.0.2.1",
	     HEAD(ANSWER, A, A) ASK(A) ME RR(A, "\x04") "\xc0\0\x02\x01"),
	CASE("two A", DNS_A, "ok 192.0.2.2 192.0.2.1",
	     HEAD(ANSWER, A, "\x02") ASK(A)
		     ME RR(A, "\x04") "\xc0\0\x02\x02" ME RR(A, "\x04") "\xc0\0\x02\x01"),
	CASE("AAAA", DNS_AAAA, "ok 2001:db8::1",
	     HEAD(ANSWER, A, A) ASK(AAAA)
		     ME RR(AAAA, "\x10") "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"),
	CASE("MX", DNS_MX, "ok 10:mx.example.org. 20:mx2.",
	     HEAD(ANSWER, A, "\x02") ASK(MX)
		     ME RR(MX, "\x07") "\0\x0a\x02mx\xc0\x0c" ME RR(MX, "\x07") "\0\x14\x03mx2\0"),
	CASE("null MX", DNS_MX, "ok 0:.", HEAD(ANSWER, A, A) ASK(MX) ME RR(MX, "\x03") "\0\0\0"),
	CASE("PTR", DNS_PTR, "ok a.b.",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x05") "\x01"
							    "a\x01"
							    "b\0"),
	CASE("TXT joined", DNS_TXT, "ok v=spf1 -all",
	     HEAD(ANSWER, A, A) ASK(TXT) ME RR(TXT, "\x0d") "\x06"
							    "v=spf1"
							    "\x05"
							    " -all"),
	CASE("TXT empty string", DNS_TXT, "ok ",
	     HEAD(ANSWER, A, A) ASK(TXT) ME RR(TXT, "\x01") "\0"),
	CASE("TXT with NUL", DNS_TXT,
	     "ok a\x1a"
	     "b",
	     HEAD(ANSWER, A, A) ASK(TXT) ME RR(TXT, "\x04") "\x03"
							    "a\0b"),
	CASE("odd bytes in a name", DNS_PTR, "ok a\\046b\\032\\255c.",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x08") "\x06"
							    "a.b \xff"
							    "c\0"),
	CASE("alias", DNS_A, "ok 192.0.2.9",
	     HEAD(ANSWER, A, "\x02") ASK(A)
		     ME RR(CNAME, "\x03") "\x01"
					  "z\0"
					  "\x01"
					  "z\0" RR(A, "\x04") "\xc0\0\x02\x09"),
	CASE("alias after its target", DNS_A, "ok 192.0.2.9",
	     HEAD(ANSWER, A, "\x02")
		     ASK(A) "\x01"
			    "Z\0" RR(A, "\x04") "\xc0\0\x02\x09" ME RR(CNAME, "\x03") "\x01"
										      "z\0"),
	CASE("alias to nothing", DNS_A, "nodata",
	     HEAD(ANSWER, A, A) ASK(A) ME RR(CNAME, "\x03") "\x01"
							    "z\0"),
	CASE("alias asked for", DNS_CNAME, "ok z.",
	     HEAD(ANSWER, A, A) ASK(CNAME) ME RR(CNAME, "\x03") "\x01"
								"z\0"),
	CASE("alias to itself", DNS_A, "temp", HEAD(ANSWER, A, A) ASK(A) ME RR(CNAME, "\x02") ME),
	CASE("aliases in a ring", DNS_A, "temp",
	     HEAD(ANSWER, A, "\x02") ASK(A) ME RR(CNAME, "\x03") "\x01"
								 "z\0"
								 "\x01"
								 "z\0" RR(CNAME, "\x02") ME),
	CASE("other names ignored", DNS_A, "nodata",
	     HEAD(ANSWER, A, A) ASK(A) "\x01"
				       "z\0" RR(A, "\x04") "\xc0\0\x02\x09"),
	CASE("other types ignored", DNS_A, "nodata",
	     HEAD(ANSWER, A, A) ASK(A) ME RR(TXT, "\x01") "\0"),
	CASE("other class ignored", DNS_A, "nodata",
	     HEAD(ANSWER, A, A) ASK(A) ME "\0\x01\0\x03"
					  "\0\0\0\0"
					  "\0\x04"
					  "\xc0\0\x02\x09"),
	CASE("no answers", DNS_MX, "nodata", HEAD(ANSWER, A, "\0") ASK(MX)),
	CASE("NXDOMAIN", DNS_MX, "nxdomain", HEAD("\x81\x83", A, "\0") ASK(MX)),
	CASE("SERVFAIL", DNS_MX, "temp", HEAD("\x81\x82", A, "\0") ASK(MX)),
	CASE("REFUSED", DNS_MX, "temp", HEAD("\x81\x85", A, "\0") ASK(MX)),
	CASE("not an answer", DNS_MX, "temp", HEAD("\x01\x80", A, "\0") ASK(MX)),
	CASE("truncated answer", DNS_MX, "temp", HEAD("\x83\x80", A, "\0") ASK(MX)),
	CASE("no question", DNS_A, "temp", HEAD(ANSWER, "\0", "\0")),
	CASE("two questions", DNS_A, "temp", HEAD(ANSWER, "\x02", "\0") ASK(A) ASK(A)),
	CASE("another question", DNS_A, "temp", HEAD(ANSWER, A, "\0") ASK(MX)),
	CASE("empty", DNS_A, "temp", ""),
	CASE("header cut", DNS_A, "temp", "\x12\x34\x81\x80\0\x01\0\0\0\0\0"),
	CASE("answer missing", DNS_A, "temp", HEAD(ANSWER, A, A) ASK(A)),
	CASE("data cut", DNS_A, "temp", HEAD(ANSWER, A, A) ASK(A) ME RR(A, "\x04") "\xc0\0\x02"),
	CASE("A of 3 bytes", DNS_A, "temp",
	     HEAD(ANSWER, A, A) ASK(A) ME RR(A, "\x03") "\xc0\0\x02"),
	CASE("A of 5 bytes", DNS_A, "temp",
	     HEAD(ANSWER, A, A) ASK(A) ME RR(A, "\x05") "\xc0\0\x02\x01\x01"),
	CASE("AAAA of 4 bytes", DNS_AAAA, "temp",
	     HEAD(ANSWER, A, A) ASK(AAAA) ME RR(AAAA, "\x04") "\xc0\0\x02\x01"),
	CASE("MX without name", DNS_MX, "temp",
	     HEAD(ANSWER, A, A) ASK(MX) ME RR(MX, "\x02") "\0\x0a"),
	CASE("MX of 1 byte", DNS_MX, "temp", HEAD(ANSWER, A, A) ASK(MX) ME RR(MX, "\x01") "\0"),
	CASE("MX with a tail", DNS_MX, "temp",
	     HEAD(ANSWER, A, A) ASK(MX) ME RR(MX, "\x05") "\0\x0a" ME "x"),
	CASE("name past its data", DNS_PTR, "temp",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x02") "\x01"
							    "a\0\0\0\0"),
	CASE("TXT empty", DNS_TXT, "temp", HEAD(ANSWER, A, A) ASK(TXT) ME RR(TXT, "\0")),
	CASE("TXT string past the end", DNS_TXT, "temp",
	     HEAD(ANSWER, A, A) ASK(TXT) ME RR(TXT, "\x02") "\x05"
							    "a"),
	CASE("one bad record spoils all", DNS_A, "temp",
	     HEAD(ANSWER, A, "\x02") ASK(A)
		     ME RR(A, "\x04") "\xc0\0\x02\x02" ME RR(A, "\x01") "\xc0"),
	CASE("pointer to itself", DNS_A, "temp",
	     HEAD(ANSWER, A, "\0") "\xc0\x0c"
				   "\0" A "\0\x01"),
	CASE("pointer forward", DNS_A, "temp",
	     HEAD(ANSWER, A, "\0") "\xc0\x0e"
				   "\0" A "\0\x01"),
	CASE("pointers in a ring", DNS_PTR, "temp",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x06") "\x01"
							    "a\xc0\x29\xc0\x27"),
	CASE("label and pointer back to it", DNS_PTR, "temp",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x04") "\x01"
							    "a\xc0\x29"),
	CASE("pointer past the end", DNS_PTR, "temp",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x02") "\xff\xff"),
	CASE("pointer cut", DNS_PTR, "temp", HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x01") "\xc0"),
	CASE("pointer into the header", DNS_PTR, "ok .",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x02") "\xc0\x04"),
	CASE("label type 01", DNS_PTR, "temp",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x02") "\x41\0"),
	CASE("label type 10", DNS_PTR, "temp",
	     HEAD(ANSWER, A, A) ASK(PTR) ME RR(PTR, "\x02") "\x80\0"),
};

/* clang-format on */

static char *
show(const DnsAnswer *answer, DnsType type)
{
	static const char *const names[] = {"ok", "nodata", "nxdomain", "temp"};
	_Static_assert(G_N_ELEMENTS(names) == DNS_STATUSES, "one name a status");
	GString *text = g_string_new(names[answer->status]);
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = answer->records->pdata[i];
		g_string_append_c(text, ' ');
		if (type == DNS_MX)
			g_string_append_printf(text, "%u:", record->preference);
		g_string_append(text, record->text);
	}
	return g_string_free(text, FALSE);
}

static void
test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		/* In memory of just the right size, so that the sanitizer sees a step too far. */
		g_autofree uint8_t *packet = g_memdup2(cases[i].bytes, cases[i].len);
		DnsAnswer answer;
		dns_parse(packet, cases[i].len, cases[i].type, &answer);
		g_autofree char *got = show(&answer, cases[i].type);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("%s: \"%s\" is not \"%s\"", cases[i].name, got, cases[i].want);
		dns_answer_clear(&answer);
	}
}

/* Every packet of the table, cut after each byte: no answer that was not whole is taken. */
static void
test_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		for (size_t len = 0; len < cases[i].len; len++) {
			g_autofree uint8_t *packet = g_memdup2(cases[i].bytes, len);
			DnsAnswer answer;
			dns_parse(packet, len, cases[i].type, &answer);
			assert_int_equal(answer.status, DNS_TEMP);
			assert_int_equal(answer.records->len, 0);
			dns_answer_clear(&answer);
		}
	}
}

/* ---- the limits ---- */

static GByteArray *
answer_head(unsigned type, unsigned answers)
{
	GByteArray *packet = g_byte_array_new();
	uint8_t head[] = {0,
			  0,
			  0x81,
			  0x80,
			  0,
			  1,
			  (uint8_t)(answers >> 8),
			  (uint8_t)answers,
			  0,
			  0,
			  0,
			  0,
			  1,
			  'q',
			  0,
			  0,
			  (uint8_t)type,
			  0,
			  1};
	g_byte_array_append(packet, head, sizeof(head));
	return packet;
}

static void
test_records_max(void **state)
{
	(void)state;
	static const unsigned counts[] = {DNS_RECORDS_MAX, DNS_RECORDS_MAX + 1, 3000};
	for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
		g_autoptr(GByteArray) packet = answer_head(DNS_A, counts[i]);
		for (unsigned n = 0; n < counts[i]; n++) {
			uint8_t rr[] = {0xc0,      12, 0,  1, 0,
					1,         0,  0,  0, 0,
					0,         4,  10, 0, (uint8_t)(n >> 8),
					(uint8_t)n};
			g_byte_array_append(packet, rr, sizeof(rr));
		}
		DnsAnswer answer;
		dns_parse(packet->data, packet->len, DNS_A, &answer);
		assert_int_equal(answer.status, DNS_OK);
		assert_int_equal(answer.records->len, DNS_RECORDS_MAX);
		dns_answer_clear(&answer);
	}
}

/* A name of `len` bytes in wire form, in labels of 63. */
static void
append_name(GByteArray *packet, size_t len)
{
	for (size_t left = len - 1; left > 0;) {
		uint8_t label = (uint8_t)MIN(left - 1, (size_t)63);
		g_byte_array_append(packet, &label, 1);
		for (uint8_t i = 0; i < label; i++)
			g_byte_array_append(packet, (const uint8_t *)"x", 1);
		left -= 1 + (size_t)label;
	}
	g_byte_array_append(packet, (const uint8_t *)"", 1);
}

static void
test_name_max(void **state)
{
	(void)state;
	static const struct {
		size_t len;
		DnsStatus want;
	} names[] = {{254, DNS_OK}, {255, DNS_OK}, {256, DNS_TEMP}, {1000, DNS_TEMP}};
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autoptr(GByteArray) packet = answer_head(DNS_PTR, 1);
		uint8_t rr[] = {0xc0,
				12,
				0,
				DNS_PTR,
				0,
				1,
				0,
				0,
				0,
				0,
				(uint8_t)(names[i].len >> 8),
				(uint8_t)names[i].len};
		g_byte_array_append(packet, rr, sizeof(rr));
		append_name(packet, names[i].len);
		DnsAnswer answer;
		dns_parse(packet->data, packet->len, DNS_PTR, &answer);
		assert_int_equal(answer.status, names[i].want);
		dns_answer_clear(&answer);
	}
}

/* Aliases: 16 are followed, 17 are not. */
static void
test_aliases_max(void **state)
{
	(void)state;
	for (unsigned count = 16; count <= 17; count++) {
		g_autoptr(GByteArray) packet = answer_head(DNS_A, count + 1);
		/* In reverse order, so that each pass finds one. */
		uint8_t address[] = {
			1, (uint8_t)('a' + count - 1), 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2,
			1};
		g_byte_array_append(packet, address, sizeof(address));
		for (unsigned n = count; n > 0; n--) {
			uint8_t owner = n == 1 ? 'q' : (uint8_t)('a' + n - 2);
			uint8_t rr[] = {1, owner, 0, 0, 5,
					0, 1,     0, 0, 0,
					0, 0,     3, 1, (uint8_t)('a' + n - 1),
					0};
			g_byte_array_append(packet, rr, sizeof(rr));
		}
		DnsAnswer answer;
		dns_parse(packet->data, packet->len, DNS_A, &answer);
		assert_int_equal(answer.status, count == 16 ? DNS_OK : DNS_TEMP);
		dns_answer_clear(&answer);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),       cmocka_unit_test(test_cut),
		cmocka_unit_test(test_records_max), cmocka_unit_test(test_name_max),
		cmocka_unit_test(test_aliases_max),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
