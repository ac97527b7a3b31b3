/* SPDX-License-Identifier: Apache-2.0 */
/* The resolver against a small server of our own on 127.0.0.1, in forward mode, and with what
 * it answers by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <event2/event.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/dns.h"

typedef struct Rig {
	Workers *workers;
	Worker *worker;
	int server;
	struct event *server_event;
	unsigned asked;
	Dns *dns;
	GString *seen;
	bool inside; /* a call into dns.h */
	bool nested;
	const char *next; /* asked from inside the callback */
} Rig;

/* ---- the server: the first label says what to answer ---- */

static size_t
add_rr(uint8_t *out, uint16_t type, const void *data, uint16_t len)
{
	uint8_t head[] = {0xc0, 12, (uint8_t)(type >> 8), (uint8_t)type, 0, 1, 0, 0,
			  0,    60, (uint8_t)(len >> 8),  (uint8_t)len};
	memcpy(out, head, sizeof(head));
	memcpy(out + sizeof(head), data, len);
	return sizeof(head) + len;
}

static void
on_question(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	Rig *rig = arg;
	uint8_t packet[1500];
	struct sockaddr_storage from;
	socklen_t from_len = sizeof(from);
	ssize_t got = recvfrom(fd, packet, 512, 0, (struct sockaddr *)&from, &from_len);
	if (got < 17)
		return;
	rig->asked++;
	size_t end = 12;
	while (packet[end] != 0 && end < 300)
		end += 1 + (size_t)packet[end];
	uint16_t type = (uint16_t)(packet[end + 1] << 8 | packet[end + 2]);
	size_t len = end + 5;
	size_t label = MIN((size_t)packet[12], (size_t)31);
	char name[32] = {0};
	memcpy(name, packet + 13, label);
	g_autofree char *lower = g_ascii_strdown(name, -1); /* 0x20 */
	if (strcmp(lower, "silent") == 0)
		return;
	uint8_t rcode = strcmp(lower, "gone") == 0 ? 3 : strcmp(lower, "broken") == 0 ? 2 : 0;
	uint8_t answers = 0;
	if (strcmp(lower, "www") == 0 && type == DNS_A) {
		len += add_rr(packet + len, type, "\x7f\0\0\x09", 4);
		answers = 1;
	} else if (strcmp(lower, "mail") == 0 && type == DNS_MX) {
		len += add_rr(packet + len, type,
			      "\0\x14\x02"
			      "b2\0",
			      6);
		len += add_rr(packet + len, type,
			      "\0\x0a\x02"
			      "b1\xc0\x0c",
			      7);
		answers = 2;
	} else if (strcmp(lower, "9") == 0 && type == DNS_PTR) {
		len += add_rr(packet + len, type, "\x03www\x01t\0", 7);
		answers = 1;
	}
	packet[2] = 0x81;
	packet[3] = 0x80 | rcode;
	packet[6] = 0;
	packet[7] = answers;
	memset(packet + 8, 0, 4);
	sendto(fd, packet, len, 0, (struct sockaddr *)&from, from_len);
}

static void
rig_open(Rig *rig, Usec timeout)
{
	*rig = (Rig){0};
	rig->workers = workers_new(1, NULL);
	rig->worker = workers_get(rig->workers, 0);
	rig->seen = g_string_new(NULL);
	NetAddr addr;
	assert_true(net_addr_parse("127.0.0.1", 0, &addr));
	rig->server = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(rig->server, (struct sockaddr *)&addr.storage, addr.len), 0);
	addr.len = sizeof(addr.storage);
	assert_int_equal(getsockname(rig->server, (struct sockaddr *)&addr.storage, &addr.len), 0);
	rig->server_event = event_new(worker_base(rig->worker), rig->server, EV_READ | EV_PERSIST,
				      on_question, rig);
	event_add(rig->server_event, NULL);
	g_autoptr(GPtrArray) forward = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(forward, g_strdup_printf("127.0.0.1@%u", net_addr_port(&addr)));
	GError *trouble = NULL;
	rig->dns = dns_new(rig->worker, &(DnsConfig){.forward = forward, .timeout = timeout},
			   &trouble);
	assert_null(trouble);
	assert_non_null(rig->dns);
}

static void
rig_close(Rig *rig)
{
	assert_false(rig->nested);
	dns_free(rig->dns);
	event_free(rig->server_event);
	close(rig->server);
	workers_free(rig->workers);
	g_string_free(rig->seen, TRUE);
}

static void
on_answer(void *arg, const DnsAnswer *answer)
{
	Rig *rig = arg;
	static const char *const names[] = {"ok", "nodata", "nxdomain", "temp"};
	if (rig->inside)
		rig->nested = true;
	g_string_append(rig->seen, names[answer->status]);
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = answer->records->pdata[i];
		g_string_append_printf(rig->seen, " %u:%s", record->preference, record->text);
	}
	g_string_append_c(rig->seen, ';');
	const char *next = rig->next;
	rig->next = NULL;
	if (next != NULL) {
		rig->inside = true;
		(void)dns_query(rig->dns, next, DNS_A, on_answer, rig);
		rig->inside = false;
	}
}

static DnsQuery *
ask(Rig *rig, const char *name, DnsType type)
{
	rig->inside = true;
	DnsQuery *query = dns_query(rig->dns, name, type, on_answer, rig);
	rig->inside = false;
	return query;
}

static void
await(Rig *rig, const char *want)
{
	Deadline limit = clock_after(20 * USEC_PER_SEC);
	while (rig->seen->len < strlen(want) && !clock_passed(limit))
		worker_test_turn(rig->worker, 10 * USEC_PER_MS);
	assert_string_equal(rig->seen->str, want);
	g_string_truncate(rig->seen, 0);
}

static void
test_answers(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, 0);
	g_autofree char *long_label = g_strnfill(63, 'l');
	g_autofree char *label_63 = g_strdup_printf("%s.t", long_label);
	g_autofree char *label_64 = g_strdup_printf("%sl.t", long_label);
	g_autofree char *name_253 = g_strdup_printf("%s.%s.%s.%.59s.t", long_label, long_label,
						    long_label, long_label);
	g_autofree char *name_254 = g_strdup_printf("%s.%s.%s.%.60s.t", long_label, long_label,
						    long_label, long_label);
	assert_int_equal(strlen(name_253), 253);
	const struct {
		const char *name;
		DnsType type;
		const char *want;
		bool asked; /* the server sees it */
	} cases[] = {
		{"www.example.org", DNS_A, "ok 0:127.0.0.9;", true},
		{"www.example.org.", DNS_A, "ok 0:127.0.0.9;", false}, /* from the cache */
		{"WWW.example.ORG", DNS_A, "ok 0:127.0.0.9;", false},
		{"www.example.org", DNS_AAAA, "nodata;", true},
		{"mail.example.org", DNS_MX, "ok 20:b2. 10:b1.mail.example.org.;", true},
		{"gone.example.org", DNS_MX, "nxdomain;", true},
		{"broken.example.org", DNS_MX, "temp;", true},
		/* zones that the library would answer itself */
		{"www.koukan.test", DNS_A, "ok 0:127.0.0.9;", true},
		{"9.2.1.10.in-addr.arpa", DNS_PTR, "ok 0:www.t.;", true},
		/* built in */
		{"localhost", DNS_A, "ok 0:127.0.0.1;", false},
		{"localhost", DNS_AAAA, "ok 0:::1;", false},
		{"1.0.0.127.in-addr.arpa", DNS_PTR, "ok 0:localhost.;", false},
		/* cannot be asked */
		{"", DNS_A, "nxdomain;", false},
		{".", DNS_A, "nxdomain;", false},
		{"a..b", DNS_A, "nxdomain;", false},
		{".a", DNS_A, "nxdomain;", false},
		{"a b.t", DNS_A, "nxdomain;", false},
		{"a\\046b.t", DNS_A, "nxdomain;", false},
		{"b\xc3\xbc"
		 "cher.t",
		 DNS_A, "nxdomain;", false},
		{label_63, DNS_A, "nodata;", true},
		{label_64, DNS_A, "nxdomain;", false},
		{name_253, DNS_A, "nodata;", true},
		{name_254, DNS_A, "nxdomain;", false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		unsigned before = rig.asked;
		(void)ask(&rig, cases[i].name, cases[i].type);
		assert_string_equal(rig.seen->str, "");
		await(&rig, cases[i].want);
		if ((rig.asked > before) != cases[i].asked)
			fail_msg("%s: server asked %u times", cases[i].name, rig.asked - before);
	}
	rig_close(&rig);
}

static void
test_next_inside(void **state)
{
	(void)state;
	/* A question from inside an answer, from the network and from the cache. */
	Rig rig;
	rig_open(&rig, 0);
	rig.next = "www.other.org";
	(void)ask(&rig, "www.example.org", DNS_A);
	Deadline start = clock_mono();
	await(&rig, "ok 0:127.0.0.9;ok 0:127.0.0.9;");
	rig.next = "www.example.org";
	(void)ask(&rig, "www.example.org", DNS_A);
	await(&rig, "ok 0:127.0.0.9;ok 0:127.0.0.9;");
	assert_true(clock_mono() - start < 10 * USEC_PER_SEC);
	rig_close(&rig);
}

static void
test_timeout(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, 100 * USEC_PER_MS);
	Deadline start = clock_mono();
	(void)ask(&rig, "silent.example.org", DNS_A);
	await(&rig, "temp;");
	assert_true(clock_mono() - start >= 100 * USEC_PER_MS);
	assert_true(clock_mono() - start < 5 * USEC_PER_SEC);
	/* The resolver still works on it; others are not held up, and the end is clean. */
	(void)ask(&rig, "www.example.org", DNS_A);
	await(&rig, "ok 0:127.0.0.9;");
	rig_close(&rig);
}

static void
test_cancel(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, 0);
	dns_cancel(NULL);
	dns_cancel(ask(&rig, "www.example.org", DNS_A));
	dns_cancel(ask(&rig, "localhost", DNS_A)); /* answered already, not told */
	dns_cancel(ask(&rig, "a..b", DNS_A));
	for (int i = 0; i < 10; i++)
		worker_test_turn(rig.worker, 5 * USEC_PER_MS);
	assert_string_equal(rig.seen->str, "");
	(void)ask(&rig, "www.example.org", DNS_A);
	await(&rig, "ok 0:127.0.0.9;");
	/* Freed with open questions: silence. */
	(void)ask(&rig, "silent.example.org", DNS_A);
	(void)ask(&rig, "www.third.org", DNS_A);
	(void)ask(&rig, "localhost", DNS_A);
	worker_test_turn(rig.worker, 0);
	g_string_truncate(rig.seen, 0);
	dns_free(rig.dns);
	rig.dns = NULL;
	for (int i = 0; i < 5; i++)
		worker_test_turn(rig.worker, 5 * USEC_PER_MS);
	assert_string_equal(rig.seen->str, "");
	rig_close(&rig);
}

/* ---- taps, and a resolver without a network ---- */

typedef struct Tap {
	DnsTap tap; /* first */
	Dns *dns;
	GString *seen;
} Tap;

static void
on_tap(DnsTap *tap, const char *name, DnsType type, const DnsAnswer *answer, Usec took)
{
	assert_true(took >= 0);
	g_string_append_printf(((Tap *)tap)->seen, "%s %s %s %u;", name, dns_type_name(type),
			       dns_status_name(answer->status), answer->records->len);
}

static void
on_second(void *arg, const DnsAnswer *answer)
{
	(void)answer;
	++*(int *)arg;
}

typedef struct First {
	Dns *dns;
	int done;
} First;

static void
on_first(void *arg, const DnsAnswer *answer)
{
	First *first = arg;
	assert_int_equal(answer->records->len, 1);
	(void)dns_query(first->dns, "second.test", DNS_MX, on_second, &first->done);
}

static void
source(void *arg, const char *name, DnsType type, DnsAnswer *answer)
{
	assert_string_equal(arg, "source");
	answer->status = type == DNS_A ? DNS_OK : DNS_NXDOMAIN;
	if (type == DNS_A)
		dns_record_add(answer, name, 0);
}

static void
test_tap_and_source(void **state)
{
	(void)state;
	Workers *workers = workers_new(1, NULL);
	Worker *worker = workers_get(workers, 0);
	Dns *dns = dns_new_source(worker, source, (char *)"source");
	Tap tap = {.tap = {on_tap}, .seen = g_string_new(NULL)};
	First first = {.dns = dns};
	int untapped = 0;
	assert_null(dns_tap(dns, &tap.tap));
	(void)dns_query(dns, "first.test", DNS_A, on_first, &first);
	DnsQuery *cancelled = dns_query(dns, "third.test", DNS_A, on_second, &untapped);
	assert_ptr_equal(dns_tap(dns, NULL), &tap.tap);
	dns_cancel(cancelled);
	(void)dns_query(dns, "fourth.test", DNS_A, on_second, &untapped);
	assert_string_equal(tap.seen->str, ""); /* never inside the call */
	for (int i = 0; i < 10 && (first.done == 0 || untapped == 0); i++)
		worker_test_turn(worker, USEC_PER_MS);
	assert_int_equal(untapped, 1);
	assert_int_equal(first.done, 1);
	/* What follows from an answer belongs to the same tap. */
	assert_string_equal(tap.seen->str, "first.test A OK 1;second.test MX NXDOMAIN 0;");
	assert_null(dns_tap(dns, NULL));
	g_string_free(tap.seen, TRUE);
	dns_free(dns);
	workers_free(workers);
}

static void
test_config(void **state)
{
	(void)state;
	Workers *workers = workers_new(1, NULL);
	Worker *worker = workers_get(workers, 0);
	g_autoptr(GPtrArray) forward = g_ptr_array_new();
	g_ptr_array_add(forward, (char *)"not an address");
	GError *trouble = NULL;
	assert_null(dns_new(worker, &(DnsConfig){.forward = forward}, &trouble));
	assert_true(g_error_matches(trouble, K_ERROR, K_ERROR_DNS));
	assert_non_null(strstr(trouble->message, "not an address"));
	g_clear_error(&trouble);
	/* Full recursion, and the system's file, at least set up. */
	Dns *dns = dns_new(worker, &(DnsConfig){0}, &trouble);
	assert_null(trouble);
	dns_free(dns);
	dns = dns_new(worker, &(DnsConfig){.use_system = true}, &trouble);
	if (g_file_test("/etc/resolv.conf", G_FILE_TEST_EXISTS))
		assert_null(trouble);
	g_clear_error(&trouble);
	dns_free(dns);
	dns_free(NULL);
	workers_free(workers);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers), cmocka_unit_test(test_next_inside),
		cmocka_unit_test(test_timeout), cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_config),  cmocka_unit_test(test_tap_and_source),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
