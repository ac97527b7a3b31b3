/* SPDX-License-Identifier: Apache-2.0 */
/* The REST API, row by row of the behaviour spec's sections 4.3 to 4.7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/ids.h"
#include "world.h"

#define ENVELOPE "\"mail_from\":{\"m\":\"a@x\"},\"rcpt_to\":[{\"m\":\"b@y\"}]"
#define JSON     "content-type", "application/json"
#define BUILDER                                                                                    \
	"{" ENVELOPE ",\"body\":{\"message_builder\":{\"text_body\":[{\"content_type\":"           \
	"\"text/plain\",\"content\":{\"create_id\":\"b1\"}},{\"content_type\":\"text/html\","      \
	"\"content\":{\"inline\":\"hi\"}}]}}}"

static int
set_up(void **state)
{
	(void)state;
	world.service = "http://service/x";
	world_open();
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	world_close();
	return 0;
}

static char *
id_of(const Reply *reply)
{
	assert_int_equal(reply->status, 201);
	const char *slash = strrchr(reply->location, '/');
	return g_strdup(slash + 1);
}

static char *
create(const char *sender, const char *json)
{
	g_auto(Reply) reply = {0};
	g_autofree char *path = g_strdup_printf("/senders/%s/transactions", sender);
	ask(&reply, "POST", path, HEADERS(JSON), json);
	return id_of(&reply);
}

/* "/transactions/ID<tail>" */
static char *
tx_path(const char *id, const char *tail)
{
	return g_strconcat("/transactions/", id, tail, NULL);
}

static char *
current_etag(const char *id)
{
	g_auto(Reply) reply = {0};
	g_autofree char *path = tx_path(id, "");
	ask(&reply, "GET", path, NULL, NULL);
	assert_int_equal(reply.status, 200);
	return g_steal_pointer(&reply.etag);
}

/* ---- routes ---- */

static void
test_routes(void **state)
{
	(void)state;
	static const struct {
		const char *method, *path;
		int want;
		const char *body, *allow;
	} CASES[] = {
		{"GET", "/", 404, "{\"detail\":\"Not Found\"}", NULL},
		{"GET", "/transactions", 404, "{\"detail\":\"Not Found\"}", NULL},
		{"DELETE", "/transactions/AAx", 405, "{\"detail\":\"Method Not Allowed\"}",
		 "GET, PATCH"},
		{"GET", "/transactions/AAx/body", 405, "{\"detail\":\"Method Not Allowed\"}",
		 "PUT"},
		{"POST", "/transactions/AAx/message_builder", 404, "{\"detail\":\"Not Found\"}",
		 NULL},
		{"GET", "/senders/x/transactions", 405, "{\"detail\":\"Method Not Allowed\"}",
		 "POST"},
		{"GET", "/transactions/..%2f..%2fetc", 404, "{\"detail\":\"Not Found\"}", NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_auto(Reply) reply = {0};
		ask(&reply, CASES[i].method, CASES[i].path, NULL, NULL);
		if (reply.status != CASES[i].want || strcmp(reply.body, CASES[i].body) != 0)
			fail_msg("%s %s: %d %s", CASES[i].method, CASES[i].path, reply.status,
				 reply.body);
		assert_string_equal(reply.type, "application/json");
		assert_int_equal(g_strcmp0(reply.allow, CASES[i].allow), 0);
	}
}

/* ---- POST ---- */

static const struct Post {
	const char *name, *sender, *json;
	int want;
	const char *text; /* of an error; NULL: do not look */
} POSTS[] = {
	{"empty object", "inc", "{}", 201, NULL},
	{"envelope", "inc", "{" ENVELOPE "}", 201, NULL},
	{"one shot", "one", "{" ENVELOPE "}", 201, NULL},
	{"inline", "inc", "{" ENVELOPE ",\"body\":{\"inline\":\"x: y\\r\\n\\r\\nz\"}}", 201, NULL},
	{"empty inline", "inc", "{" ENVELOPE ",\"body\":{\"inline\":\"\"}}", 201, NULL},
	{"builder", "inc", BUILDER, 201, NULL},
	{"unknown body form", "inc", "{" ENVELOPE ",\"body\":{\"what\":1}}", 201, NULL},
	{"meta", "inc",
	 "{\"remote_host\":[\"192.0.2.1\",25],\"local_host\":[\"192.0.2.2\",25],\"smtp_meta\":"
	 "{\"ehlo_host\":\"h\",\"auth\":null},\"sender\":{\"name\":\"other\",\"tag\":\"t\"}}",
	 201, NULL},
	{"no JSON", "inc", "{", 400, NULL},
	{"nothing", "inc", "", 400, NULL},
	{"array", "inc", "[]", 400, NULL},
	{"twice", "inc", "{\"mail_from\":{\"m\":\"a\"},\"mail_from\":{\"m\":\"a\"}}", 400, NULL},
	{"unknown sender", "nobody", "{" ENVELOPE "}", 404, "unknown sender"},
	{"unknown sender before validity", "nobody", "{\"x\":1}", 404, "unknown sender"},
	{"bad tag", "inc", "{" ENVELOPE ",\"sender\":{\"tag\":\"bad\"}}", 404, "unknown tag"},
	{"unknown key", "inc", "{\"x\":1}", 400, "invalid tx json"},
	{"retry", "inc", "{\"retry\":{}}", 400, "invalid tx json"},
	{"null", "inc", "{\"mail_from\":null}", 400, "invalid tx json"},
	{"no rcpt", "inc", "{\"rcpt_to\":[]}", 400, "invalid tx json"},
	{"rcpt object", "inc", "{\"rcpt_to\":{\"m\":\"b\"}}", 400, "invalid tx json"},
	{"no m", "inc", "{\"mail_from\":{}}", 400, "invalid tx json"},
	{"response", "inc", "{\"mail_response\":{\"code\":250}}", 400, "invalid tx json"},
	{"more sender", "inc", "{\"sender\":{\"name\":\"a\",\"yaml\":{}}}", 400,
	 "tx json sender may only contain name,tag"},
	{"more sender, worse tx", "inc", "{\"x\":1,\"sender\":{\"yaml\":{}}}", 400,
	 "invalid tx json"},
	{"one shot, no rcpt", "one", "{\"mail_from\":{\"m\":\"a\"}}", 400,
	 "transaction creation to non-incremental endpoint must contain mail_from and exactly 1 "
	 "rcpt_to"},
	{"one shot, two", "one",
	 "{\"mail_from\":{\"m\":\"a\"},\"rcpt_to\":[{\"m\":\"b\"},{\"m\":\"c\"}]}", 400, NULL},
	{"reuse unknown", "inc",
	 "{" ENVELOPE ",\"body\":{\"reuse_uri\":\"/transactions/AAx/body\"}}", 404, NULL},
	{"reuse no uri", "inc", "{" ENVELOPE ",\"body\":{\"reuse_uri\":\"/etc/passwd\"}}", 400,
	 "bad reuse_uri"},
	{"reuse blob as body", "inc",
	 "{" ENVELOPE ",\"body\":{\"reuse_uri\":\"/transactions/AAx/blob/b\"}}", 400,
	 "only a body can be reused as body"},
	{"builder part without content", "inc",
	 "{" ENVELOPE ",\"body\":{\"message_builder\":{\"text_body\":[{}]}}}", 400, NULL},
	{"builder reuse unknown", "inc",
	 "{" ENVELOPE ",\"body\":{\"message_builder\":{\"text_body\":[{\"content\":{\"reuse_uri\":"
	 "\"/transactions/AAx/blob/b\"}}]}}}",
	 404, NULL},
	{"builder reuse body", "inc",
	 "{" ENVELOPE ",\"body\":{\"message_builder\":{\"text_body\":[{\"content\":{\"reuse_uri\":"
	 "\"/transactions/AAx/body\"}}]}}}",
	 400, "only a named blob can be reused as part"},
	{"host refuses", "refuse", "{" ENVELOPE "}", 507, "disk full"},
};

static void
test_post(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(POSTS); i++) {
		g_auto(Reply) reply = {0};
		g_autofree char *path = g_strdup_printf("/senders/%s/transactions",
							POSTS[i].sender);
		ask(&reply, "POST", path, NULL, POSTS[i].json);
		if (reply.status != POSTS[i].want)
			fail_msg("%s: %d %s", POSTS[i].name, reply.status, reply.body);
		if (POSTS[i].text != NULL)
			assert_string_equal(reply.body, POSTS[i].text);
		if (reply.status == 201) {
			assert_string_equal(reply.type, "application/json");
			assert_true(g_str_has_prefix(reply.location, world.base));
			assert_non_null(reply.etag);
			assert_non_null(json_object_get(reply.json, "sender"));
			assert_null(json_object_get(reply.json, "smtp_meta"));
			assert_non_null(json_object_get(reply.json, "body"));
		} else {
			assert_string_equal(reply.type, "text/plain; charset=utf-8");
			assert_null(reply.etag);
		}
	}
}

static void
test_post_answer(void **state)
{
	(void)state;
	g_auto(Reply) reply = {0};
	ask(&reply, "POST", "/senders/inc/transactions", HEADERS(JSON), "{" ENVELOPE "}");
	g_autofree char *id = id_of(&reply);
	g_autofree char *want = g_strdup_printf(
		"{\"mail_from\":{},\"rcpt_to\":[{}],\"body\":{\"blob_status\":{\"uri\":"
		"\"http://service/transactions/%s/body\"}},\"sender\":{}}",
		id);
	assert_string_equal(reply.body, want);
	g_autofree char *location = g_strdup_printf("%s/transactions/%s", world.base, id);
	assert_string_equal(reply.location, location);
	/* One that is not incremental has its body from the start. */
	ask(&reply, "POST", "/senders/one/transactions", HEADERS(JSON), "{" ENVELOPE "}");
	g_autofree char *uri = g_strdup_printf("%s/body", reply.location);
	const json_t *status = json_object_get(json_object_get(reply.json, "body"), "blob_status");
	assert_string_equal(json_get_str(status, "uri"), uri);
	assert_null(json_object_get(status, "finalized"));
}

/* ---- GET ---- */

static void
answer_mail(Tx *tx, void *arg)
{
	(void)arg;
	tx_answer_mail(tx, response_new(250, "mail ok"));
}

static void
answer_rcpt(Tx *tx, void *arg)
{
	tx_answer_rcpt(tx, (size_t)(uintptr_t)arg, response_new(250, "rcpt ok"));
}

static void
begin_attempt(Tx *tx, void *arg)
{
	(void)arg;
	tx_begin_attempt(tx);
}

static void
drop(Tx *tx, void *arg)
{
	(void)arg;
	rest_table_remove(rest_table(&world.host, worker_current()), tx);
}

static void
test_get(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{}");
	g_autofree char *live = tx_path(id, "");
	g_autofree char *etag = current_etag(id);
	g_autofree char *quoted = g_strdup_printf("\"%s\"", etag);
	g_autofree char *zero = g_strdup_printf("0%s", etag);
	const struct {
		const char *name, *path, *etag, *timeout;
		int want;
		const char *text, *want_etag;
	} CASES[] = {
		{"plain", live, NULL, NULL, 200, NULL, etag},
		{"timeout alone is ignored", live, NULL, "x", 200, NULL, etag},
		{"other etag", live, "77", "5", 200, NULL, etag},
		{"no number", live, "abc", NULL, 200, NULL, etag},
		{"leading zero", live, zero, "0", 200, NULL, etag},
		{"same, no wait", live, etag, "0", 304, NULL, etag},
		{"quoted", live, quoted, "0", 304, NULL, quoted},
		{"negative", live, etag, "-3", 304, NULL, etag},
		{"bad timeout", live, etag, "1.5", 400, "invalid request-timeout header", NULL},
		{"bad timeout text", live, etag, "soon", 400, "invalid request-timeout header",
		 NULL},
		{"unknown", "/transactions/AAabc", NULL, NULL, 404, "unknown tx", NULL},
		{"bad id", "/transactions/%20", NULL, NULL, 404, "unknown tx", NULL},
		{"stored", "/transactions/AAold", NULL, NULL, 200, NULL, "40"},
		{"stored, other etag", "/transactions/AAold", "1", "5", 200, NULL, "40"},
		{"stored, same: at once", "/transactions/ABold", "40", "10", 304, NULL, "40"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_auto(Reply) reply = {0};
		const char *headers[5] = {0};
		size_t n = 0;
		if (CASES[i].etag != NULL) {
			headers[n++] = "if-none-match";
			headers[n++] = CASES[i].etag;
		}
		if (CASES[i].timeout != NULL) {
			headers[n++] = "request-timeout";
			headers[n++] = CASES[i].timeout;
		}
		ask(&reply, "GET", CASES[i].path, headers, NULL);
		if (reply.status != CASES[i].want)
			fail_msg("%s: %d %s", CASES[i].name, reply.status, reply.body);
		assert_int_equal(g_strcmp0(reply.etag, CASES[i].want_etag), 0);
		if (CASES[i].text != NULL)
			assert_string_equal(reply.body, CASES[i].text);
		if (reply.status == 304)
			assert_string_equal(reply.body, "");
	}
}

/* Elsewhere: the raw answer, since our client follows it. */
static void
test_moved(void **state)
{
	(void)state;
	static const struct {
		const char *request, *want;
	} CASES[] = {
		{"GET /transactions/ABelse HTTP/1.1\r\n",
		 "location: http://other:81/transactions/ABelse\r\n"},
		{"PUT /transactions/ABelse/body HTTP/1.1\r\ncontent-length: 0\r\n",
		 "location: http://other:81/transactions/ABelse/body\r\n"},
		{"PUT /transactions/AAelse/blob/a/b%20c HTTP/1.1\r\ncontent-length: 0\r\n",
		 "location: http://other:81/transactions/AAelse/blob/a/b%20c\r\n"},
		{"PATCH /transactions/AAelse HTTP/1.1\r\nif-match: 1\r\ncontent-length: 0\r\n",
		 "location: http://other:81/transactions/AAelse\r\n"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_autofree char *request = g_strdup_printf("%shost: a\r\n\r\n", CASES[i].request);
		int fd = raw_connect(world.port);
		raw_send(fd, request, strlen(request));
		g_autofree char *got = raw_read(fd, "\r\n\r\n", 5000);
		assert_int_equal(raw_status(got), 308);
		if (strstr(got, CASES[i].want) == NULL)
			fail_msg("%s: %s", CASES[i].request, got);
		close(fd);
	}
}

/* A long poll under way: asked in the background. */
typedef struct Poll {
	Reply reply;
	char *url;
	HttpHeader headers[3];
	char *etag;
} Poll;

static void
poll_begin(Poll *poll, const char *id, const char *etag, const char *timeout)
{
	*poll = (Poll){.url = g_strdup_printf("%s/transactions/%s", world.base, id),
		       .etag = g_strdup(etag)};
	poll->headers[0] = (HttpHeader){"if-none-match", poll->etag};
	poll->headers[1] = (HttpHeader){"request-timeout", timeout};
	poll->headers[2] = (HttpHeader){"connection", "close"};
	poll->reply.done = (Latch)LATCH_INIT;
	poll->reply.spec = (HttpCallSpec){.method = "GET",
					  .url = poll->url,
					  .headers = poll->headers,
					  .n_headers = 3,
					  .timeout = 20 * USEC_PER_SEC};
	on_worker(workers_get(world.workers, 0), start_ask, &poll->reply);
}

static void
poll_end(Poll *poll)
{
	assert_true(latch_wait(&poll->reply.done, 1));
	g_free(poll->url);
	g_free(poll->etag);
}

static void
count_waiting(Tx *tx, void *arg)
{
	unsigned *count = arg;
	*count = 0;
	for (const TxWatch *watch = tx->watches; watch != NULL; watch = watch->next)
		(*count)++;
}

/* Until the server has `want` polls waiting. */
static void
wait_for_polls(const char *id, unsigned want)
{
	unsigned count = 0;
	for (int i = 0; i < 2000; i++) {
		assert_true(with_tx(id, count_waiting, &count));
		if (count >= want)
			return;
		usleep(1000);
	}
	fail_msg("%u polls instead of %u", count, want);
}

static void
test_long_poll(void **state)
{
	(void)state;
	for (int round = 0; round < 8; round++) { /* over all pairs of workers */
		g_autofree char *id = create("inc", "{" ENVELOPE "}");
		g_autofree char *etag = current_etag(id);
		Poll polls[3];
		for (size_t i = 0; i < G_N_ELEMENTS(polls); i++)
			poll_begin(&polls[i], id, etag, "10");
		wait_for_polls(id, 3);
		assert_true(with_tx(id, answer_mail, NULL));
		assert_true(with_tx(id, answer_rcpt, NULL));
		for (size_t i = 0; i < G_N_ELEMENTS(polls); i++) {
			poll_end(&polls[i]);
			assert_int_equal(polls[i].reply.status, 200);
			assert_string_not_equal(polls[i].reply.etag, etag);
			reply_clear(&polls[i].reply);
		}
	}
	/* News that is not all yet comes as well, a little later. */
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *etag = current_etag(id);
	Poll poll;
	poll_begin(&poll, id, etag, "10");
	wait_for_polls(id, 1);
	assert_true(with_tx(id, begin_attempt, NULL));
	poll_end(&poll);
	assert_int_equal(poll.reply.status, 200);
	assert_non_null(strstr(poll.reply.body, "\"attempt_count\":1"));
	reply_clear(&poll.reply);
}

static void
test_long_poll_ends(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *etag = current_etag(id);
	g_autofree char *path = tx_path(id, "");
	g_autofree char *quoted = g_strdup_printf("\"%s\"", etag);
	/* By its time. */
	g_auto(Reply) reply = {0};
	Deadline begin = clock_mono();
	ask(&reply, "GET", path, HEADERS("if-none-match", quoted, "request-timeout", "1"), NULL);
	assert_int_equal(reply.status, 304);
	assert_string_equal(reply.etag, quoted);
	assert_true(clock_mono() - begin >= USEC_PER_SEC);
	/* By its client, who leaves. */
	g_autofree char *request = g_strdup_printf(
		"GET %s HTTP/1.1\r\nhost: a\r\nif-none-match: %s\r\n\r\n", path, etag);
	int fd = raw_connect(world.port);
	raw_send(fd, request, strlen(request));
	wait_for_polls(id, 1);
	close(fd);
	unsigned count = 1;
	for (int i = 0; i < 5000 && count > 0; i++) {
		assert_true(with_tx(id, count_waiting, &count));
		usleep(1000);
	}
	assert_int_equal(count, 0);
	/* By the transaction's leaving the table. */
	Poll poll;
	poll_begin(&poll, id, etag, "10");
	wait_for_polls(id, 1);
	assert_true(with_tx(id, drop, NULL));
	poll_end(&poll);
	assert_int_equal(poll.reply.status, 304);
	reply_clear(&poll.reply);
	ask(&reply, "GET", path, NULL, NULL);
	assert_int_equal(reply.status, 404);
}

static void
test_inactive(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *etag = current_etag(id);
	g_autofree char *path = tx_path(id, "");
	atomic_store(&world.inactive, true);
	g_auto(Reply) reply = {0};
	ask(&reply, "GET", path, HEADERS("if-none-match", etag, "request-timeout", "9"), NULL);
	assert_int_equal(reply.status, 304);
	ask(&reply, "PATCH", path, HEADERS(JSON, "if-match", etag),
	    "{\"rcpt_to_list_offset\":1,"
	    "\"rcpt_to\":[{\"m\":\"c\"}]}");
	assert_int_equal(reply.status, 400);
	assert_string_equal(reply.body, "RestHandler.patch_tx bad request");
	atomic_store(&world.inactive, false);
}

/* ---- PATCH ---- */

static void
test_patch(void **state)
{
	(void)state;
	g_autofree char *inc = create("inc", "{\"mail_from\":{\"m\":\"a\"}}");
	g_autofree char *one = create("one", "{" ENVELOPE "}");
	g_autofree char *inc_path = tx_path(inc, ""), *one_path = tx_path(one, "");
	const char *const TYPED = "application/json";
	const struct {
		const char *name, *path, *type, *etag, *body; /* etag "=": the current one */
		int want;
		const char *text;
	} CASES[] = {
		{"other type", inc_path, "text/plain", "=", "{}", 400, ""},
		{"parameters", inc_path, "application/json; charset=utf-8", "=", "{}", 400, ""},
		{"no type", inc_path, NULL, "=", "{}", 400, ""},
		{"no JSON", inc_path, TYPED, "=", "{", 400, "invalid request"},
		{"empty JSON", inc_path, TYPED, "=", "", 400, "invalid request"},
		{"array", inc_path, TYPED, "=", "[]", 400, "invalid request"},
		{"unknown key", inc_path, TYPED, "=", "{\"x\":1}", 400, "invalid request"},
		{"remote_host", inc_path, TYPED, "=", "{\"remote_host\":[\"h\",1]}", 400,
		 "invalid request"},
		{"smtp_meta", inc_path, TYPED, "=", "{\"smtp_meta\":{}}", 400, "invalid request"},
		{"sender", inc_path, TYPED, "=", "{\"sender\":{}}", 400, "invalid request"},
		{"cancelled", inc_path, TYPED, "=", "{\"cancelled\":true}", 400, "invalid request"},
		{"retry", inc_path, TYPED, "=", "{\"retry\":{}}", 400, "invalid request"},
		{"no etag", inc_path, TYPED, NULL, "{}", 400, "etags required for update"},
		{"no etag, worse JSON", inc_path, TYPED, NULL, "{\"x\":1}", 400, "invalid request"},
		{"unknown", "/transactions/AAabc", TYPED, "1", "{}", 404, "transaction not found"},
		{"unknown, bad JSON", "/transactions/AAabc", TYPED, "1", "{\"x\":1}", 400,
		 "invalid request"},
		{"unknown, no etag", "/transactions/AAabc", TYPED, NULL, "{}", 400,
		 "etags required for update"},
		{"not incremental", one_path, TYPED, "=",
		 "{\"rcpt_to_list_offset\":1,\"rcpt_to\":[{\"m\":\"c\"}]}", 400,
		 "endpoint does not accept incremental updates"},
		{"not incremental: heartbeat", one_path, NULL, "=", "", 200, NULL},
		{"conflict", inc_path, TYPED, "99", "{\"rcpt_to\":[{\"m\":\"b\"}]}", 412,
		 "update conflict"},
		{"conflict, heartbeat", inc_path, NULL, "99", "", 412, "update conflict"},
		{"offset", inc_path, TYPED, "=",
		 "{\"rcpt_to_list_offset\":1,\"rcpt_to\":[{\"m\":\"b\"}]}", 400, NULL},
		{"first", inc_path, TYPED, "=", "{\"rcpt_to\":[{\"m\":\"b\"}]}", 200, NULL},
		{"no offset", inc_path, TYPED, "=", "{\"rcpt_to\":[{\"m\":\"b\"}]}", 400, NULL},
		{"second", inc_path, TYPED, "=",
		 "{\"rcpt_to_list_offset\":1,\"rcpt_to\":[{\"m\":\"c\"}]}", 200, NULL},
		{"again mail_from", inc_path, TYPED, "=", "{\"mail_from\":{\"m\":\"other\"}}", 200,
		 NULL},
		{"heartbeat", inc_path, NULL, "=", "", 200, NULL},
		{"other offset key", inc_path, TYPED, "=", "{\"x_list_offset\":3}", 200, NULL},
		{"filter output", inc_path, TYPED, "=", "{\"filter_output\":{\"f\":{}}}", 200,
		 NULL},
		{"stored", "/transactions/AAold", TYPED, "40", "{}", 400,
		 "RestHandler.patch_tx bad request"},
		{"stored, conflict", "/transactions/AAold", TYPED, "39", "{}", 412,
		 "update conflict"},
		{"stored, heartbeat", "/transactions/AAold", NULL, "40", "", 200, NULL},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(CASES); i++) {
		g_auto(Reply) reply = {0};
		g_autofree char *etag = NULL;
		if (g_strcmp0(CASES[i].etag, "=") == 0)
			etag = current_etag(CASES[i].path == one_path ? one : inc);
		else
			etag = g_strdup(CASES[i].etag);
		const char *headers[5] = {0};
		size_t n = 0;
		if (CASES[i].type != NULL) {
			headers[n++] = "content-type";
			headers[n++] = CASES[i].type;
		}
		if (etag != NULL) {
			headers[n++] = "if-match";
			headers[n++] = etag;
		}
		ask(&reply, "PATCH", CASES[i].path, headers, CASES[i].body);
		if (reply.status != CASES[i].want)
			fail_msg("%s: %d %s", CASES[i].name, reply.status, reply.body);
		if (CASES[i].text != NULL)
			assert_string_equal(reply.body, CASES[i].text);
		if (reply.status == 200)
			assert_non_null(reply.etag);
		else
			assert_null(reply.etag);
	}
	g_auto(Reply) reply = {0};
	ask(&reply, "GET", inc_path, NULL, NULL);
	assert_int_equal(json_array_size(json_object_get(reply.json, "rcpt_to")), 2);
}

static void
check_body(Tx *tx, void *arg)
{
	size_t len = 0;
	g_autofree char *text = blob_to_string(tx->body->raw, 10000000, &len, NULL);
	assert_true(blob_is_final(tx->body->raw));
	assert_string_equal(text, (const char *)arg);
}

static void
test_patch_body(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *etag = current_etag(id);
	g_autofree char *path = tx_path(id, "");
	g_auto(Reply) reply = {0};
	int completed = atomic_load(&world.completed);
	ask(&reply, "PATCH", path, HEADERS(JSON, "if-match", etag),
	    "{\"body\":{\"inline\":\"text\"}}");
	assert_int_equal(reply.status, 200);
	assert_int_equal(atomic_load(&world.completed), completed + 1);
	assert_true(with_tx(id, check_body, (void *)(uintptr_t) "text"));
	assert_true(json_is_true(json_object_get(
		json_object_get(json_object_get(reply.json, "body"), "blob_status"), "finalized")));
	/* By reference, from any worker to any other. */
	for (int i = 0; i < 6; i++) {
		g_autofree char *json = g_strdup_printf(
			"{" ENVELOPE ",\"body\":{\"reuse_uri\":\"%s/transactions/%s/body\"}}",
			world.base, id);
		g_autofree char *copy = create("inc", json);
		assert_true(with_tx(copy, check_body, (void *)(uintptr_t) "text"));
	}
	/* Not finished. */
	g_autofree char *open = create("one", "{" ENVELOPE "}");
	g_autofree char *json = g_strdup_printf(
		"{" ENVELOPE ",\"body\":{\"reuse_uri\":\"/transactions/%s/body\"}}", open);
	ask(&reply, "POST", "/senders/inc/transactions", NULL, json);
	assert_int_equal(reply.status, 409);
}

/* ---- PUT ---- */

typedef struct Put {
	const char *name, *range, *finalize, *data;
	int want;
	const char *want_range; /* or text of an error without one */
} Put;

static void
run_puts(const char *sender, const char *json, const char *tail, const Put *puts, size_t n)
{
	g_autofree char *id = create(sender, json);
	g_autofree char *path = tx_path(id, tail);
	for (size_t i = 0; i < n; i++) {
		g_auto(Reply) reply = {0};
		const char *headers[5] = {0};
		size_t k = 0;
		if (puts[i].range != NULL) {
			headers[k++] = "content-range";
			headers[k++] = puts[i].range;
		}
		if (puts[i].finalize != NULL) {
			headers[k++] = "x-finalize-blob-length";
			headers[k++] = puts[i].finalize;
		}
		ask(&reply, "PUT", path, headers, puts[i].data);
		if (reply.status != puts[i].want)
			fail_msg("%s %s: %d %s %s", sender, puts[i].name, reply.status, reply.body,
				 reply.range);
		const char *got = reply.range != NULL ? reply.range : reply.body;
		if (strcmp(got, puts[i].want_range) != 0)
			fail_msg("%s: %s", puts[i].name, got);
		if (reply.status == 200)
			assert_string_equal(reply.body, "{}");
	}
}

static void
test_put(void **state)
{
	(void)state;
	static const Put WHOLE[] = {
		{"whole", NULL, NULL, "hello", 200, "bytes 0-4/5"},
		{"again", NULL, NULL, "hello", 200, "bytes 0-4/5"},
		{"longer", NULL, NULL, "hello!", 416, "bytes 0-4/5"},
		{"shorter", NULL, NULL, "hell", 416, "bytes 0-4/5"},
		{"range again", "bytes 0-4/5", NULL, "hello", 200, "bytes 0-4/5"},
		{"range again, open", "bytes 2-3/*", NULL, "ll", 200, "bytes 0-4/5"},
		{"range, other total", "bytes 0-4/6", NULL, "hello", 416, "bytes 0-4/5"},
		{"finalize again", NULL, "5", "", 200, "bytes 0-4/5"},
		{"finalize other", NULL, "6", "", 416, "bytes 0-4/5"},
	};
	static const Put EMPTY[] = {
		{"empty", NULL, NULL, "", 200, "bytes */0"},
		{"empty again", NULL, NULL, "", 200, "bytes */0"},
		{"more", NULL, NULL, "x", 416, "bytes */0"},
	};
	static const Put RANGES[] = {
		{"ahead", "bytes 5-6/*", NULL, "ab", 416, NULL},
		{"first", "bytes 0-2/*", NULL, "abc", 200, "bytes 0-2/*"},
		{"gap", "bytes 4-5/*", NULL, "ab", 416, "bytes 0-2/*"},
		{"gap with total", "bytes 4-5/6", NULL, "ab", 416, "bytes 0-2/*"},
		{"overlap", "bytes 1-4/*", NULL, "XXde", 200, "bytes 0-4/*"},
		{"inside", "bytes 0-1/*", NULL, "XX", 200, "bytes 0-4/*"},
		{"total", "bytes 5-6/9", NULL, "fg", 200, "bytes 0-6/9"},
		{"other total", "bytes 7-7/8", NULL, "h", 416, "bytes 0-6/9"},
		{"past the total", "bytes 7-9/*", NULL, "hij", 416, "bytes 0-6/9"},
		{"last", "bytes 7-8/9", NULL, "hi", 200, "bytes 0-8/9"},
		{"repeat", "bytes 7-8/9", NULL, "hi", 200, "bytes 0-8/9"},
	};
	static const Put FINALIZE[] = {
		{"first", "bytes 0-2/*", NULL, "abc", 200, "bytes 0-2/*"},
		{"no number", NULL, "x", "", 400, "invalid x-finalize-blob-length"},
		{"with body", NULL, "3", "abc", 400, "x-finalize-blob-length with non-empty PUT"},
		{"too long", NULL, "4", "", 416, "bytes 0-2/*"},
		{"too short", NULL, "2", "", 416, "bytes 0-2/*"},
		{"right", NULL, "3", "", 200, "bytes 0-2/3"},
	};
	static const Put BAD[] = {
		{"unit", "lines 0-2/*", NULL, "abc", 400, "bad range"},
		{"star", "bytes */3", NULL, "abc", 400, "bad range"},
		{"backwards", "bytes 2-0/*", NULL, "abc", 400, "bad range"},
		{"total below", "bytes 0-2/2", NULL, "abc", 400, "bad range"},
		{"rubbish", "bytes a-b/c", NULL, "abc", 400, "bad range"},
		{"sign", "bytes +0-2/3", NULL, "abc", 400, "bad range"},
		{"overflow", "bytes 0-99999999999999999999/*", NULL, "abc", 400, "bad range"},
		{"length", "bytes 0-3/*", NULL, "abc", 400, "range does not match content-length"},
		{"after all", NULL, NULL, "abc", 200, "bytes 0-2/3"},
	};
	static const char *const SENDERS[] = {"inc", "one"};
	for (int round = 0; round < 4; round++) {
		for (size_t i = 0; i < G_N_ELEMENTS(SENDERS); i++) {
			const char *json = "{" ENVELOPE "}";
			/* Before there is a body there is nothing to report. */
			Put ranges[G_N_ELEMENTS(RANGES)];
			memcpy(ranges, RANGES, sizeof(RANGES));
			ranges[0].want_range = "bytes */*";
			run_puts(SENDERS[i], json, "/body", WHOLE, G_N_ELEMENTS(WHOLE));
			run_puts(SENDERS[i], json, "/body", EMPTY, G_N_ELEMENTS(EMPTY));
			run_puts(SENDERS[i], json, "/body", ranges, G_N_ELEMENTS(ranges));
			run_puts(SENDERS[i], json, "/body", FINALIZE, G_N_ELEMENTS(FINALIZE));
			run_puts(SENDERS[i], json, "/body", BAD, G_N_ELEMENTS(BAD));
		}
		run_puts("inc", BUILDER, "/blob/b1", WHOLE, G_N_ELEMENTS(WHOLE));
		static const Put UNKNOWN[] = {{"unknown", NULL, NULL, "x", 404, "unknown blob"}};
		run_puts("inc", BUILDER, "/blob/b2", UNKNOWN, 1);
		run_puts("inc", BUILDER, "/body", UNKNOWN, 1);
		run_puts("inc", "{}", "/blob/b1", UNKNOWN, 1);
	}
}

static void
test_put_unknown(void **state)
{
	(void)state;
	g_auto(Reply) reply = {0};
	ask(&reply, "PUT", "/transactions/AAabc/body", NULL, "x");
	assert_int_equal(reply.status, 404);
	assert_string_equal(reply.body, "unknown transaction");
	ask(&reply, "PUT", "/transactions/ABold/body", NULL, "the same again");
	assert_int_equal(reply.status, 200);
	assert_string_equal(reply.range, "bytes 0-13/14");
	ask(&reply, "PUT", "/transactions/ABold/blob/x", NULL, "x");
	assert_int_equal(reply.status, 404);
}

static void
check_size(Tx *tx, void *arg)
{
	size_t want = *(const size_t *)arg;
	assert_int_equal(blob_len(tx->body->raw), want);
	for (uint64_t at = 0; at < want; at += 4099) {
		char byte = 0;
		size_t got = 0;
		assert_true(blob_read(tx->body->raw, at, &byte, 1, &got, NULL));
		assert_int_equal(byte, (char)('a' + at % 26));
	}
}

/* Large enough for several pieces, from every worker to every other. */
static void
test_put_large(void **state)
{
	(void)state;
	static const size_t SIZES[] = {65536, 262144, 262145, 3000000, 5000000, 5000001};
	g_autofree char *data = g_malloc(5000001);
	for (size_t i = 0; i < 5000001; i++)
		data[i] = (char)('a' + i % 26);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < G_N_ELEMENTS(SIZES); i++) {
			g_autofree char *id = create("inc", "{" ENVELOPE "}");
			g_autofree char *path = tx_path(id, "/body");
			g_auto(Reply) reply = {0};
			ask_bytes(&reply, "PUT", path, NULL, data, SIZES[i]);
			size_t size = SIZES[i];
			if (size > 5000000) {
				assert_int_equal(reply.status, 413);
				continue;
			}
			assert_int_equal(reply.status, 200);
			assert_true(with_tx(id, check_size, &size));
		}
	}
}

/* Chunked, which ignores a content-range, and cut off in the middle; then repeated. */
static void
test_put_chunked(void **state)
{
	(void)state;
	for (int round = 0; round < 6; round++) {
		g_autofree char *id = create("inc", "{" ENVELOPE "}");
		g_autofree char *head = g_strdup_printf(
			"PUT /transactions/%s/body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
			"content-range: bytes 7-9/*\r\n\r\n3\r\nabc\r\n",
			id);
		int fd = raw_connect(world.port);
		raw_send(fd, head, strlen(head));
		usleep(5000);
		close(fd);
		fd = raw_connect(world.port);
		raw_send(fd, head, strlen(head));
		raw_send(fd, "2\r\nde\r\n0\r\n\r\n", 13);
		g_autofree char *got = raw_read(fd, "{}", 5000);
		assert_int_equal(raw_status(got), 200);
		assert_non_null(strstr(got, "content-range: bytes 0-4/5\r\n"));
		close(fd);
		assert_true(with_tx(id, check_body, (void *)(uintptr_t) "abcde"));
	}
}

static void
test_put_complete(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *path = tx_path(id, "/body");
	g_auto(Reply) reply = {0};
	int completed = atomic_load(&world.completed);
	atomic_store(&world.complete_status, 507);
	ask(&reply, "PUT", path, NULL, "hello");
	assert_int_equal(reply.status, 507);
	atomic_store(&world.complete_status, 0);
	/* Repeated, the host is asked again: only it knows whether that may be acknowledged. */
	ask(&reply, "PUT", path, NULL, "hello");
	assert_int_equal(reply.status, 200);
	assert_int_equal(atomic_load(&world.completed), completed + 2);
	/* With two blobs the last one completes. */
	g_autofree char *two = create(
		"inc", "{" ENVELOPE ",\"body\":{\"message_builder\":{\"text_body\":[{\"content\":{"
		       "\"create_id\":\"a\"}},{\"content\":{\"create_id\":\"b\"}}]}}}");
	g_autofree char *a = tx_path(two, "/blob/a"), *b = tx_path(two, "/blob/b");
	completed = atomic_load(&world.completed);
	ask(&reply, "PUT", a, NULL, "1");
	assert_int_equal(reply.status, 200);
	assert_int_equal(atomic_load(&world.completed), completed);
	ask(&reply, "PUT", b, NULL, "2");
	assert_int_equal(reply.status, 200);
	assert_int_equal(atomic_load(&world.completed), completed + 1);
}

/* A client that names the version it knows learns the one that its upload made. */
static void
test_put_etag(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *etag = current_etag(id);
	g_autofree char *path = tx_path(id, "/body");
	g_auto(Reply) reply = {0};
	ask(&reply, "PUT", path, HEADERS("content-range", "bytes 0-1/*", "koukan-version", etag),
	    "ab");
	assert_int_equal(reply.status, 200);
	g_autofree char *first = current_etag(id);
	assert_string_equal(reply.etag, first);
	ask(&reply, "PUT", path, HEADERS("content-range", "bytes 2-3/4", "koukan-version", first),
	    "cd");
	g_autofree char *last = current_etag(id);
	assert_string_equal(reply.etag, last);
	assert_string_not_equal(first, last);
	ask(&reply, "PUT", path, HEADERS("koukan-version", first), "abcd");
	assert_int_equal(reply.status, 200);
	assert_null(reply.etag);
}

/* ---- cancel, drain ---- */

static void
test_cancel(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *path = tx_path(id, "/cancel");
	g_auto(Reply) reply = {0};
	ask(&reply, "POST", path, NULL, NULL);
	assert_int_equal(reply.status, 200);
	assert_string_equal(reply.body, "");
	assert_null(reply.type);
	g_autofree char *get = tx_path(id, "");
	ask(&reply, "GET", get, NULL, NULL);
	assert_true(json_is_true(json_object_get(reply.json, "cancelled")));
	ask(&reply, "POST", "/transactions/AAabc/cancel", NULL, NULL);
	assert_int_equal(reply.status, 404); /* as the host said */
	assert_string_equal(reply.body, "transaction not found");
}

static void
test_no_body_json(void **state)
{
	(void)state;
	world.host.accepts_body_json = false;
	g_auto(Reply) reply = {0};
	ask(&reply, "POST", "/senders/inc/transactions", NULL,
	    "{" ENVELOPE ",\"body\":{\"inline\":\"x\"}}");
	assert_int_equal(reply.status, 400);
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *etag = current_etag(id);
	g_autofree char *path = tx_path(id, "");
	ask(&reply, "PATCH", path, HEADERS(JSON, "if-match", etag),
	    "{\"body\":{\"inline\":\"x\"}}");
	assert_int_equal(reply.status, 400);
	world.host.accepts_body_json = true;
}

static void
test_drain(void **state)
{
	(void)state;
	g_autofree char *id = create("inc", "{" ENVELOPE "}");
	g_autofree char *etag = current_etag(id);
	g_autofree char *path = tx_path(id, "");
	Poll poll;
	poll_begin(&poll, id, etag, "10");
	wait_for_polls(id, 1);
	rest_api_drain(world.api);
	poll_end(&poll);
	assert_int_equal(poll.reply.status, 304);
	reply_clear(&poll.reply);
	g_auto(Reply) reply = {0};
	ask(&reply, "GET", path, HEADERS("if-none-match", etag), NULL);
	assert_int_equal(reply.status, 304);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_post),
		cmocka_unit_test(test_post_answer),
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_moved),
		cmocka_unit_test(test_long_poll),
		cmocka_unit_test(test_long_poll_ends),
		cmocka_unit_test(test_inactive),
		cmocka_unit_test(test_patch),
		cmocka_unit_test(test_patch_body),
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_put_unknown),
		cmocka_unit_test(test_put_large),
		cmocka_unit_test(test_put_chunked),
		cmocka_unit_test(test_put_complete),
		cmocka_unit_test(test_put_etag),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_no_body_json),
		cmocka_unit_test(test_drain),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
