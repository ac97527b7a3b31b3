/* SPDX-License-Identifier: Apache-2.0 */
/* The four filters that read or write messages, each alone in a chain before a terminal that
 * only looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "filter/chain.h"
#include "filter/kinds.h"
#include "loop/pool.h"
#include "loop/worker.h"
#include "mime/mime.h"

#define REMOTE_HOST "koukan.remote_host_filter.RemoteHostFilter"
#define VALIDATION  "koukan.message_validation_filter.MessageValidationFilter"

static Tx *end_tx;            /* what the terminal of the present chain sees */
static atomic_bool end_final; /* ... and it has a finished body */

static FilterResult
end_update(Filter *filter, unsigned news)
{
	end_tx = filter->down;
	if ((news & TX_NEW_BODY_FINAL) != 0)
		atomic_store(&end_final, true);
	return FILTER_CONTINUE;
}

static const FilterKind end_kind = {
	.name = "end", .doc = "", .flags = FILTER_TERMINAL, .update = end_update};

/* Stands in for the DNS one: a signal from the test. */
static const char *ptr_signal;
static FilterResult
signal_update(Filter *filter, unsigned news)
{
	if ((news & TX_NEW_MAIL_FROM) != 0 && ptr_signal != NULL)
		filter_set_output(filter, json_parse("x", ptr_signal, strlen(ptr_signal), NULL));
	return FILTER_CONTINUE;
}

static const FilterKind signal_kind = {
	.name = "signal", .output_name = REMOTE_HOST, .doc = "", .update = signal_update};

typedef struct Env {
	DeferQueue queue;
	FilterEnv env;
	ChainConf conf;
	FilterConf filters[3];
	Tx *tx;
	Chain *chain;
} Env;

static void
start(Env *e, const FilterKind *kind, const void *conf)
{
	*e = (Env){.env = {.hostname = "mx"}};
	e->filters[0] = (FilterConf){.kind = &signal_kind};
	e->filters[1] = (FilterConf){.kind = kind, .conf = (void *)(uintptr_t)conf};
	e->filters[2] = (FilterConf){.kind = &end_kind};
	e->conf.name = (char *)(uintptr_t) "test";
	e->conf.filters = g_ptr_array_new();
	for (int i = 0; i < 3; i++)
		g_ptr_array_add(e->conf.filters, &e->filters[i]);
	e->tx = tx_new(&e->queue);
	end_tx = NULL;
	atomic_store(&end_final, false);
}

static void
turn(Env *e)
{
	if (e->chain == NULL)
		e->chain = chain_new(&e->conf, e->tx, &e->env);
	assert_true(defer_run(&e->queue, 100));
}

static void
finish(Env *e)
{
	chain_free(e->chain);
	tx_unref(e->tx);
	assert_true(defer_run(&e->queue, 100));
	g_ptr_array_unref(e->conf.filters);
	ptr_signal = NULL;
}

static void
mail(Env *e, const char *from, bool utf8, unsigned rcpts, const char *rcpt)
{
	EsmtpParam param = {(char *)(uintptr_t) "smtputf8", NULL};
	Mailbox *m = mailbox_new(from, &param, utf8 ? 1 : 0);
	assert_true(tx_set_mail_from(e->tx, m));
	mailbox_unref(m);
	for (unsigned i = 0; i < rcpts; i++) {
		m = mailbox_new(rcpt, NULL, 0);
		tx_add_rcpt(e->tx, m);
		mailbox_unref(m);
	}
}

static void
set_raw(Tx *tx, const char *text, size_t len)
{
	g_autoptr(Blob) blob = blob_new_bytes(text, len);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_true(tx_set_body(tx, body));
}

static char *
end_text(void)
{
	assert_non_null(end_tx);
	assert_non_null(end_tx->body);
	size_t len;
	return blob_to_string(end_tx->body->raw, 1 << 24, &len, NULL);
}

/* ---- received_header ---- */

typedef struct ReceivedRow {
	const char *ehlo; /* NULL: no smtp_meta */
	const char *more; /* further members of smtp_meta */
	const char *ip;
	const char *signal;
	const char *hostname;
	bool utf8;
	unsigned rcpts;
	const char *rcpt;
	const char *want;
} ReceivedRow;

#define DATE "\r\n\tFri, 13 Feb 2009 23:31:30 +0000\r\n"

static const ReceivedRow RECEIVED[] = {
	{"client.example", ",\"esmtp\":true", "192.0.2.1",
	 "{\"fcrdns\":true,\"remote_hostname\":\"mx.example.org.\"}", "us.example", false, 1, "b@c",
	 "Received: from client.example (mx.example.org. [192.0.2.1])\r\n\tby us.example\r\n"
	 "\twith ESMTP\r\n\tfor b@c;" DATE},
	{"client.example", ",\"esmtp\":true", "192.0.2.1",
	 "{\"fcrdns\":false,\"remote_hostname\":\"mx.example.org.\"}", "us.example", false, 2,
	 "b@c",
	 "Received: from client.example ([192.0.2.1])\r\n\tby us.example\r\n\twith ESMTP;" DATE},
	{"client.example", ",\"esmtp\":true,\"tls\":true,\"auth\":true", "192.0.2.1", NULL, NULL,
	 false, 1, "b@c",
	 "Received: from client.example ([192.0.2.1])\r\n\twith ESMTPSA\r\n\tfor b@c;" DATE},
	{"client.example", "", "192.0.2.1", NULL, NULL, false, 1, "b@c",
	 "Received: from client.example ([192.0.2.1])\r\n\twith SMTP\r\n\tfor b@c;" DATE},
	{"client.example", ",\"esmtp\":true,\"tls\":true", "2001:db8::1", NULL, NULL, true, 1,
	 "\xc3\xa4@c",
	 "Received: from client.example ([2001:db8::1])\r\n\twith UTF8SMTPS\r\n\tfor \xc3\xa4@c;" DATE},
	{NULL, NULL, NULL, NULL, "us.example", false, 1, "b@c",
	 "Received: by us.example\r\n\twith X-RESTMTP\r\n\tfor b@c;" DATE},
	{NULL, NULL, NULL, NULL, NULL, false, 2, "b@c", "Received: with X-RESTMTP;" DATE},
	{NULL, NULL, "192.0.2.1", NULL, NULL, false, 2, "b@c",
	 "Received: from [192.0.2.1] ([192.0.2.1])\r\n\twith X-RESTMTP;" DATE},
	{NULL, NULL, "192.0.2.1", "{\"fcrdns\":true,\"remote_hostname\":\"m.example.\"}", NULL,
	 false, 2, "b@c",
	 "Received: from m.example. (m.example. [192.0.2.1])\r\n\twith X-RESTMTP;" DATE},
	{"", "", "192.0.2.1", NULL, NULL, false, 2, "b@c", "Received: with SMTP;" DATE},
	{"a", "", NULL, NULL, NULL, false, 2, "b@c", "Received: with SMTP;" DATE},
	/* with `tls` */
	{"c.example",
	 ",\"esmtp\":true,\"tls\":true,\"tls_version\":\"TLSv1.3\","
	 "\"tls_cipher\":\"TLS_AES_256_GCM_SHA384\"",
	 "192.0.2.1", NULL, NULL, false, 1, "b@c",
	 "Received: from c.example ([192.0.2.1])\r\n"
	 "\twith ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\tfor b@c;" DATE},
	{"c.example", ",\"esmtp\":true,\"tls\":true,\"tls_version\":\"TLSv1.2 (x\"", "192.0.2.1",
	 NULL, NULL, false, 2, "b@c",
	 "Received: from c.example ([192.0.2.1])\r\n\twith ESMTPS (TLSv1.2??x);" DATE},
	{"c.example", ",\"esmtp\":true,\"tls_version\":\"TLSv1.2\"", "192.0.2.1", NULL, NULL, false,
	 2, "b@c", "Received: from c.example ([192.0.2.1])\r\n\twith ESMTP;" DATE},
	/* injection */
	{"a\\r\\nX: (y) <z>;\\u0001\xc3\xa4", "", "192.0.2.1", NULL, NULL, false, 1, "b\r\nX: y;@c",
	 "Received: from a??X:??y???z????? ([192.0.2.1])\r\n\twith SMTP\r\n\tfor b??X:?y?@c;" DATE},
};

/* As received_header.c has it. */
typedef struct ReceivedConf {
	char *hostname;
	bool hold, tls;
} ReceivedConf;

static void
test_received(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(RECEIVED); i++) {
		const ReceivedRow *r = &RECEIVED[i];
		Env e;
		const ReceivedConf conf = {
			.hostname = (char *)(uintptr_t)r->hostname,
			.tls = r->more != NULL && strstr(r->more, "tls_version") != NULL,
		};
		start(&e, &filter_received_header_kind, &conf);
		ptr_signal = r->signal;
		if (r->ip != NULL) {
			HostPort *host = host_port_new(r->ip, 25);
			tx_set_hosts(e.tx, host, NULL);
			host_port_free(host);
		}
		if (r->ehlo != NULL) {
			g_autofree char *text = g_strdup_printf("{\"ehlo_host\":\"%s\"%s}", r->ehlo,
								r->more);
			g_autoptr(json_t) meta = json_parse("m", text, strlen(text), NULL);
			assert_non_null(meta);
			tx_set_smtp_meta(e.tx, meta);
		}
		mail(&e, "a@b", r->utf8, r->rcpts, r->rcpt);
		set_raw(e.tx, "X: y\r\n\r\nhi", 10);
		turn(&e);
		g_autofree char *got = end_text();
		g_autofree char *want = g_strconcat(r->want, "X: y\r\n\r\nhi", NULL);
		assert_string_equal(got, want);
		finish(&e);
	}
}

/* A growing body is kept back; the parsed form survives. */
static void
test_received_bodies(void **state)
{
	(void)state;
	Env e;
	const ReceivedConf conf = {0};
	start(&e, &filter_received_header_kind, &conf);
	mail(&e, "a@b", false, 1, "b@c");
	g_autoptr(Blob) blob = blob_new(NULL);
	g_autoptr(json_t) builder = json_object();
	g_autoptr(TxBody) body = tx_body_new_builder(builder, blob);
	g_autoptr(Blob) part = blob_new_bytes("p", 1);
	tx_body_add_part(body, "0", part);
	tx_set_body(e.tx, body);
	assert_true(blob_append(blob, "hi", 2, NULL));
	tx_note_body(e.tx);
	turn(&e);
	assert_non_null(end_tx);
	assert_null(end_tx->body);
	blob_finalize(blob);
	tx_note_body(e.tx);
	turn(&e);
	g_autofree char *got = end_text();
	assert_int_equal(strncmp(got, "Received: with X-RESTMTP\r\n\tfor b@c;", 35), 0);
	assert_string_equal(got + strlen(got) - 2, "hi");
	assert_ptr_equal(end_tx->body->builder, builder);
	assert_non_null(tx_body_part(end_tx->body, "0"));
	finish(&e);
}

/* From 64 KiB on a raw message flows, unless it is to be held. */
static void
test_received_flow(void **state)
{
	(void)state;
	for (int hold = 0; hold <= 1; hold++) {
		Env e;
		const ReceivedConf conf = {.hold = hold != 0};
		g_autofree char *data = g_strnfill(65536, 'x');
		start(&e, &filter_received_header_kind, &conf);
		mail(&e, "a@b", false, 1, "b@c");
		g_autoptr(Blob) blob = blob_new(NULL);
		g_autoptr(TxBody) body = tx_body_new_raw(blob);
		assert_true(blob_append(blob, data, 65535, NULL));
		tx_set_body(e.tx, body);
		turn(&e);
		assert_null(end_tx->body);
		assert_true(blob_append(blob, "x", 1, NULL));
		tx_note_body(e.tx);
		turn(&e);
		assert_int_equal(end_tx->body == NULL, hold);
		uint64_t before = hold ? 0 : blob_len(end_tx->body->raw);
		assert_true(blob_append(blob, "y", 1, NULL));
		tx_note_body(e.tx);
		turn(&e);
		assert_int_equal(end_tx->body == NULL, hold);
		if (!hold) {
			assert_int_equal(blob_len(end_tx->body->raw), before + 1);
			assert_false(tx_body_ready(end_tx));
		}
		blob_finalize(blob);
		tx_note_body(e.tx);
		turn(&e);
		assert_true(tx_body_ready(end_tx));
		g_autofree char *got = end_text();
		assert_int_equal(strncmp(got, "Received: with X-RESTMTP", 24), 0);
		assert_true(g_str_has_suffix(got, "xxy"));
		finish(&e);
	}
}

/* ---- message_validation ---- */

static void
test_validation(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		bool utf8;
		const char *want;
	} rows[] = {
		{"From: a@b\r\nDate: 6 Mar 2024 10:42:31 +0000\r\nMessage-ID: <a@b>\r\nReceived: x\r\n\r\n",
		 false, "{\"status\":3,\"received_header_count\":1}"},
		{"From: \xc3\xa4@b\r\nDate: 6 Mar 2024 10:42:31 +0000\r\nMessage-ID: <a@b>\r\n\r\n",
		 true, "{\"status\":3,\"received_header_count\":0}"},
		{"From: \xc3\xa4@b\r\nDate: 6 Mar 2024 10:42:31 +0000\r\nMessage-ID: <a@b>\r\n\r\n",
		 false,
		 "{\"status\":1,\"received_header_count\":0,\"err\":\"invalid text encoding in headers\"}"},
		{"hello", false,
		 "{\"status\":0,\"err\":\"couldn't find end of rfc822 headers in 1048576\"}"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		Env e;
		start(&e, &filter_message_validation_kind, NULL);
		mail(&e, "a@b", rows[i].utf8, 1, "b@c");
		set_raw(e.tx, rows[i].in, strlen(rows[i].in));
		turn(&e);
		json_t *signal = json_object_get(chain_outputs(e.chain), VALIDATION);
		assert_non_null(signal);
		g_autofree char *got = json_print(signal);
		assert_string_equal(got, rows[i].want);
		assert_true(atomic_load(&end_final));
		finish(&e);
	}
}

/* ---- message_builder ---- */

static TxBody *
builder_body(const char *spec, Blob *part)
{
	g_autoptr(json_t) json = json_parse("spec", spec, strlen(spec), NULL);
	assert_non_null(json);
	TxBody *body = tx_body_new_builder(json, NULL);
	if (part != NULL)
		tx_body_add_part(body, "b", part);
	return body;
}

#define GOOD_SPEC                                                                                  \
	"{\"headers\":[[\"subject\",\"x\"]],\"text_body\":[{\"content_type\":\"text/plain\","      \
	"\"content\":{\"create_id\":\"b\"}}]}"

static void
test_builder(void **state)
{
	(void)state;
	Env e;
	start(&e, &filter_message_builder_kind, NULL);
	mail(&e, "a@b", false, 1, "b@c");
	g_autoptr(Blob) part = blob_new(NULL);
	g_autoptr(TxBody) body = builder_body(GOOD_SPEC, part);
	tx_set_body(e.tx, body);
	turn(&e);
	assert_null(end_tx->body);
	assert_null(e.tx->data_response);
	assert_true(blob_append(part, "hi", 2, NULL));
	tx_note_body(e.tx);
	turn(&e);
	assert_null(end_tx->body);
	blob_finalize(part);
	tx_note_body(e.tx);
	turn(&e);
	g_autofree char *got = end_text();
	assert_string_equal(
		got, "subject: x\r\nContent-Transfer-Encoding: base64\r\nMIME-Version: 1.0\r\n"
		     "Content-Type: text/plain; charset=\"utf-8\"\r\n\r\naGk=\r\n");
	assert_null(end_tx->body->builder);
	finish(&e);
}

static void
test_builder_bad(void **state)
{
	(void)state;
	static const char text[] =
		"unexpected exception in MessageBuilder, likely invalid message_builder json";
	for (int final = 0; final < 2; final++) {
		Env e;
		start(&e, &filter_message_builder_kind, NULL);
		mail(&e, "a@b", false, 1, "b@c");
		g_autoptr(Blob) part = blob_new(NULL);
		g_autoptr(TxBody) body = builder_body(
			"{\"text_body\":[{\"content_type\":\"nonsense\",\"content\":{\"create_id\":\"b\"}}]}",
			part);
		if (final)
			blob_finalize(part);
		tx_set_body(e.tx, body);
		turn(&e);
		assert_null(end_tx != NULL ? end_tx->body : NULL);
		assert_non_null(e.tx->data_response);
		assert_int_equal(e.tx->data_response->code, 550);
		assert_int_equal(strncmp(e.tx->data_response->message, text, strlen(text)), 0);
		assert_non_null(strstr(e.tx->data_response->message, "text_body[0].content_type"));
		if (!final) {
			blob_finalize(part);
			tx_note_body(e.tx);
			turn(&e);
			assert_null(end_tx != NULL ? end_tx->body : NULL);
		}
		finish(&e);
	}
}

static void
test_builder_raw(void **state)
{
	(void)state;
	Env e;
	start(&e, &filter_message_builder_kind, NULL);
	mail(&e, "a@b", false, 1, "b@c");
	g_autoptr(Blob) blob = blob_new(NULL);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	assert_true(blob_append(blob, "X: y\r\n", 6, NULL));
	tx_set_body(e.tx, body);
	turn(&e);
	assert_ptr_equal(end_tx->body, body); /* growing bodies pass, too */
	assert_false(atomic_load(&end_final));
	blob_finalize(blob);
	tx_note_body(e.tx);
	turn(&e);
	assert_true(atomic_load(&end_final));
	finish(&e);
}

/* ---- message_parser ---- */

static void
test_parser(void **state)
{
	(void)state;
	for (int wanted = 0; wanted < 2; wanted++) {
		Env e;
		start(&e, &filter_message_parser_kind, NULL);
		mail(&e, "a@b", false, 1, "b@c");
		TxRoute *route = tx_route_new();
		route->receive_parsing = wanted != 0;
		route->max_inline = 100;
		tx_set_route(e.tx, route);
		g_autoptr(Blob) blob = blob_new(NULL);
		g_autoptr(TxBody) body = tx_body_new_raw(blob);
		assert_true(blob_append(blob, "X: y\r\n", 6, NULL));
		tx_set_body(e.tx, body);
		turn(&e);
		assert_ptr_equal(end_tx->body, wanted ? NULL : body);
		assert_true(blob_append(blob, "\r\nhi", 4, NULL));
		blob_finalize(blob);
		tx_note_body(e.tx);
		turn(&e);
		assert_true(atomic_load(&end_final));
		assert_ptr_equal(end_tx->body->raw, blob);
		assert_int_equal(end_tx->body->builder != NULL, wanted);
		if (wanted) {
			g_autofree char *got = json_print(end_tx->body->builder);
			assert_string_equal(
				got,
				"{\"parts\":{\"headers\":[[\"x\",\"y\"]],\"content_type\":"
				"\"text/plain\",\"content\":{\"inline\":\"hi\"}},\"text_body\":[{"
				"\"content_type\":\"text/plain\",\"content\":{\"inline\":\"hi\"}}]}");
		}
		finish(&e);
	}
}

/* ---- on the pool ---- */

typedef struct PoolTest {
	Env e;
	const FilterKind *kind;
	TxBody *body;
	bool abandon; /* the chain is freed while the job may run */
} PoolTest;

static void
pool_begin(void *arg)
{
	PoolTest *t = (PoolTest *)arg;
	TxRoute *route = tx_route_new();
	route->receive_parsing = true;
	tx_set_route(t->e.tx, route);
	mail(&t->e, "a@b", false, 1, "b@c");
	tx_set_body(t->e.tx, t->body);
	t->e.chain = chain_new(&t->e.conf, t->e.tx, &t->e.env);
}

static void
pool_abandon(void *arg)
{
	PoolTest *t = (PoolTest *)arg;
	g_clear_pointer(&t->e.chain, chain_free);
	atomic_store(&end_final, true);
}

static void
run_pool(PoolTest *t)
{
	Workers *workers = workers_new(1, NULL);
	Pool *pool = pool_new(1, NULL);
	assert_non_null(workers);
	assert_non_null(pool);
	Worker *worker = workers_get(workers, 0);
	start(&t->e, t->kind, NULL);
	tx_unref(t->e.tx);
	t->e.tx = tx_new(worker_defers(worker));
	t->e.env.worker = worker;
	t->e.env.pool = pool;
	worker_post(worker, pool_begin, t);
	assert_true(workers_start(workers, NULL));
	if (t->abandon)
		worker_post(worker, pool_abandon, t);
	for (int i = 0; i < 10000 && !atomic_load(&end_final); i++)
		usleep(1000);
	assert_true(atomic_load(&end_final));
	workers_stop(workers);
	pool_free(pool);
	if (!t->abandon) {
		assert_non_null(end_tx->body);
		assert_non_null(end_tx->body->raw);
		if (t->kind == &filter_message_parser_kind)
			assert_non_null(end_tx->body->builder);
		if (t->kind == &filter_message_validation_kind)
			assert_non_null(json_object_get(chain_outputs(t->e.chain), VALIDATION));
	}
	chain_free(t->e.chain);
	tx_unref(t->e.tx);
	workers_free(workers);
	g_ptr_array_unref(t->e.conf.filters);
}

static void
test_pool(void **state)
{
	(void)state;
	static const FilterKind *const kinds[] = {&filter_message_builder_kind,
						  &filter_message_parser_kind,
						  &filter_message_validation_kind};
	size_t len = 600000;
	g_autofree char *big = g_strnfill(len, 'x');
	memcpy(big, "X: y\r\n\r\n", 8);
	for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
		for (int abandon = 0; abandon < 2; abandon++) {
			g_autoptr(Blob) blob = blob_new_bytes(big, len);
			PoolTest t = {.kind = kinds[i], .abandon = abandon != 0};
			t.body = kinds[i] == &filter_message_builder_kind
					 ? builder_body(GOOD_SPEC, blob)
					 : tx_body_new_raw(blob);
			run_pool(&t);
			tx_body_unref(t.body);
		}
	}
}

/* ---- cancellation ---- */

static void
test_cancel(void **state)
{
	(void)state;
	static const FilterKind *const kinds[] = {
		&filter_received_header_kind, &filter_message_builder_kind,
		&filter_message_parser_kind, &filter_message_validation_kind};
	for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
		Env e;
		struct {
			char *hostname;
		} conf = {NULL};
		start(&e, kinds[i], &conf);
		mail(&e, "a@b", false, 1, "b@c");
		turn(&e);
		assert_false(end_tx->cancelled);
		tx_cancel(e.tx);
		turn(&e);
		assert_true(end_tx->cancelled);
		finish(&e);
	}
}

int
main(void)
{
	setenv("TZ", "UTC", 1);
	tzset();
	mime_init();
	clock_test_begin(1000000, INT64_C(1234567890) * USEC_PER_SEC);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_received),      cmocka_unit_test(test_received_bodies),
		cmocka_unit_test(test_received_flow), cmocka_unit_test(test_validation),
		cmocka_unit_test(test_builder),       cmocka_unit_test(test_builder_bad),
		cmocka_unit_test(test_builder_raw),   cmocka_unit_test(test_parser),
		cmocka_unit_test(test_pool),          cmocka_unit_test(test_cancel),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
