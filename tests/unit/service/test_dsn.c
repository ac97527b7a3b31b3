/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "mime/dsn.h"
#include "service/bounce.h"

static const char header[] = "From: a@example.com\r\nMessage-ID: <1@example.com>\r\n";

static GString *
build(const char *rcpt, int code, const char *text, const char *original, size_t len)
{
	const DsnInput input = {.mailer_daemon = "mailer-daemon@mx.example.net",
				.to = "a@example.com",
				.rcpt = rcpt,
				.code = code,
				.text = text,
				.unique = "0123456789abcdef",
				.arrival = 1709750551,
				.now = 1709754151,
				.header = original,
				.header_len = len};
	return dsn_build(&input);
}

static void
test_fields(void **state)
{
	(void)state;
	GString *dsn = build("b@example.net", 550, "5.1.1 no such user", header, strlen(header));
	static const char *const want[] = {
		"From: Mail Delivery Subsystem <mailer-daemon@mx.example.net>\r\n",
		"To: <a@example.com>\r\n",
		"Message-ID: <0123456789abcdef@mx.example.net>\r\n",
		"In-Reply-To: <1@example.com>\r\n",
		"References: <1@example.com>\r\n",
		"Auto-Submitted: auto-replied\r\n",
		"Content-Type: multipart/report; report-type=delivery-status;\r\n",
		"Reporting-MTA: dns; mx.example.net\r\n",
		"Final-Recipient: rfc822; b@example.net\r\n",
		"Action: failed\r\n",
		"Status: 5.1.1\r\n",
		"Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
		"\r\n\r\nFrom: a@example.com\r\n",
	};
	for (size_t i = 0; i < G_N_ELEMENTS(want); i++) {
		if (strstr(dsn->str, want[i]) == NULL)
			fail_msg("missing: %s", want[i]);
	}
	g_string_free(dsn, TRUE);
}

static void
test_status(void **state)
{
	(void)state;
	static const struct {
		int code;
		const char *text;
		DsnAction action;
		const char *want;
	} cases[] = {
		{550, "5.1.1 no such user", DSN_FAILED, "5.1.1"},
		{550, "5.7.999", DSN_FAILED, "5.7.999"},
		{550, "no such user", DSN_FAILED, "5.0.0"},
		{550, "", DSN_FAILED, "5.0.0"},
		{550, "4.2.2 of another class", DSN_FAILED, "5.0.0"},
		{550, "5.1.1000 too long", DSN_FAILED, "5.0.0"},
		{550, "5.1.1.1", DSN_FAILED, "5.0.0"},
		{550, "5.1", DSN_FAILED, "5.0.0"},
		{550, "5.1.", DSN_FAILED, "5.0.0"},
		{550, "5.1.1x", DSN_FAILED, "5.0.0"},
		{452, "4.2.2 over quota", DSN_FAILED, "4.4.7"},
		{452, "4.2.2 over quota", DSN_DELAYED, "4.2.2"},
		{452, "over quota", DSN_DELAYED, "4.0.0"},
		{250, "2.6.0 taken", DSN_RELAYED, "2.6.0"},
		{250, "taken", DSN_DELIVERED, "2.0.0"},
		{250, "5.1.1 of another class", DSN_RELAYED, "2.0.0"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		char got[DSN_STATUS_MAX];
		dsn_status(cases[i].code, cases[i].text, cases[i].action, got);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("%s: %s", cases[i].text, got);
	}
}

/* To an ASCII address all is ASCII; to another all is UTF-8 and says so (RFC 6533). */
static void
test_internationalized(void **state)
{
	(void)state;
	static const char original[] = "Subject: gr\xc3\xbc\xc3\x9f\r\n";
	DsnInput input = {.mailer_daemon = "d@mx.example.net",
			  .to = "a@example.com",
			  .rcpt = "j\xc3\xbcrgen+1@example.net",
			  .code = 550,
			  .text = "5.1.1 unbekannt: j\xc3\xbcrgen",
			  .unique = "0123",
			  .header = original,
			  .header_len = strlen(original)};
	GString *dsn = dsn_build(&input);
	for (size_t i = 0; i < dsn->len; i++)
		assert_true((unsigned char)dsn->str[i] < 0x80);
	assert_non_null(strstr(dsn->str, "Final-Recipient: utf-8; "
					 "j\\x{FC}rgen\\x{2B}1@example.net\r\n"));
	assert_non_null(strstr(dsn->str, "Content-Type: message/delivery-status\r\n"));
	g_string_free(dsn, TRUE);
	input.to = "\xc3\xa4@example.com";
	dsn = dsn_build(&input);
	assert_non_null(
		strstr(dsn->str, "Final-Recipient: utf-8; j\xc3\xbcrgen+1@example.net\r\n"));
	assert_non_null(strstr(dsn->str, "report-type=global-delivery-status"));
	assert_non_null(strstr(dsn->str, "Content-Type: message/global-headers\r\n"));
	assert_non_null(strstr(dsn->str, original));
	g_string_free(dsn, TRUE);
}

static void
test_delay(void **state)
{
	(void)state;
	const DsnInput input = {.mailer_daemon = "d@x",
				.to = "a@x",
				.rcpt = "b@y",
				.code = 450,
				.text = "4.2.1 later",
				.unique = "0",
				.action = DSN_DELAYED,
				.retry_until = 1709754151};
	GString *dsn = dsn_build(&input);
	assert_non_null(strstr(dsn->str, "(delay)\r\n"));
	assert_non_null(strstr(dsn->str, "Action: delayed\r\nStatus: 4.2.1\r\n"));
	assert_non_null(strstr(dsn->str, "Will-Retry-Until: Wed, 6 Mar 2024 19:42:31 "));
	g_string_free(dsn, TRUE);
}

/* Whatever the attempts were, the warning falls due before exactly one of them. */
static void
test_delay_is_due_once(void **state)
{
	(void)state;
	static const int64_t attempts[][6] = {
		{1000, 1060, 1150, 1400, 2000, 9000},
		{1000, 1099, 1100, 1101, 1102, 9000},
		{1000, 9000, 9001, 9002, 9003, 9004},
		{1000, 1100, 1200, 1300, 1400, 1500},
	};
	const EndpointConf off = {0}, on = {.delay_warning = 100 * USEC_PER_SEC};
	for (size_t i = 0; i < G_N_ELEMENTS(attempts); i++) {
		unsigned due = 0;
		for (size_t k = 0; k < 5; k++) {
			int64_t this_attempt = k == 0 ? 0 : attempts[i][k]; /* 0: at once */
			due += bounce_delay_is_due(&on, 1000, this_attempt, attempts[i][k + 1]);
			assert_false(
				bounce_delay_is_due(&off, 1000, this_attempt, attempts[i][k + 1]));
		}
		assert_int_equal(due, 1);
	}
}

/* What peers said, or an original full of rubbish, never breaks a line or a field. */
static void
test_hostile_input(void **state)
{
	(void)state;
	g_autofree char *huge = g_strnfill(100000, 'x');
	static const char rubbish[] = "Subject: a\r\nb\rc\nd\r\n";
	const struct {
		const char *rcpt, *text, *header;
	} cases[] = {
		{"b@x\r\nBcc: evil@x", "bad\r\nX-Evil: 1", header},
		{huge, huge, huge},
		{"\xff\xfe@x", "\x01\x02\x7f\xff", rubbish},
		{"", "", ""},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		GString *dsn = build(cases[i].rcpt, 450, cases[i].text, cases[i].header,
				     strlen(cases[i].header));
		assert_null(strstr(dsn->str, "\r\nBcc:"));
		assert_null(strstr(dsn->str, "\r\nX-Evil"));
		const char *line = dsn->str;
		for (const char *end; (end = strstr(line, "\r\n")) != NULL; line = end + 2)
			assert_true(end - line <= 998);
		for (size_t k = 0; k + 1 < dsn->len; k++)
			assert_false(dsn->str[k] != '\r' && dsn->str[k + 1] == '\n');
		g_string_free(dsn, TRUE);
	}
}

static void
test_header_len(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t want;
	} cases[] = {
		{"a: b\r\n\r\nbody", 6}, {"a: b\r\n", 0}, {"\r\n\r\n", 2}, {"", 0},
		{"a: b\n\nx", 0},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
		assert_int_equal(dsn_header_len(cases[i].text, strlen(cases[i].text)),
				 cases[i].want);
}

/* ---- when a notification is owed ---- */

typedef struct Owed {
	const char *name, *from;
	int rcpts, mail, rcpt, data;
	bool enabled, configured, cancelled, want;
} Owed;

static Tx *
make_failed(DeferQueue *queue, const Owed *c)
{
	Tx *tx = tx_new(queue);
	g_autoptr(Mailbox) from = mailbox_new(c->from, NULL, 0);
	g_autoptr(Mailbox) to = mailbox_new("b@example.net", NULL, 0);
	tx_set_mail_from(tx, from);
	for (int i = 0; i < c->rcpts; i++)
		tx_add_rcpt(tx, to);
	if (c->mail != 0)
		tx_answer_mail(tx, response_new(c->mail, NULL));
	for (int i = 0; c->rcpt != 0 && i < c->rcpts; i++)
		tx_answer_rcpt(tx, (size_t)i, response_new(c->rcpt, NULL));
	if (c->data != 0)
		tx_answer_data(tx, response_new(c->data, NULL));
	if (c->enabled)
		tx_enable_notification(tx, NULL);
	if (c->cancelled)
		tx_cancel(tx);
	return tx;
}

static void
test_owed(void **state)
{
	(void)state;
	static const Owed cases[] = {
		{"mail failed", "a@x", 1, 550, 550, 0, true, true, false, true},
		{"recipient failed", "a@x", 1, 250, 550, 0, true, true, false, true},
		{"message failed", "a@x", 1, 250, 250, 554, true, true, false, true},
		{"gave up on temporary", "a@x", 1, 250, 450, 0, true, true, false, true},
		{"delivered", "a@x", 1, 250, 250, 250, true, true, false, false},
		{"null sender", "", 1, 250, 550, 0, true, true, false, false},
		{"two recipients", "a@x", 2, 250, 550, 0, true, true, false, false},
		{"not asked for", "a@x", 1, 250, 550, 0, false, true, false, false},
		{"chain has none", "a@x", 1, 250, 550, 0, true, false, false, false},
		{"cancelled", "a@x", 1, 250, 550, 0, true, true, true, false},
		{"nothing failed", "a@x", 1, 250, 0, 0, true, true, false, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		DeferQueue queue = {0};
		const EndpointConf endpoint = {
			.notification_sender = cases[i].configured ? (char *)"submission" : NULL,
			.notification_tag = (char *)"notification"};
		g_autoptr(Tx) tx = make_failed(&queue, &cases[i]);
		g_autoptr(Tx) bounce = bounce_new(tx, &endpoint, "daemon@x", 1, BOUNCE_END);
		if ((bounce != NULL) != cases[i].want)
			fail_msg("%s", cases[i].name);
		if (bounce != NULL) {
			assert_string_equal(bounce->mail_from->addr, "");
			assert_string_equal(tx_rcpt(bounce, 0)->to->addr, "a@x");
			assert_string_equal(bounce->sender_tag, "notification");
			assert_true(tx_body_ready(bounce));
		}
		while (!defer_run(&queue, 10))
			;
	}
}

/* What the sender asked for by NOTIFY, RET, ENVID and ORCPT (RFC 3461). */
typedef struct Asked {
	const char *name, *notify, *ret, *envid, *orcpt;
	int data;
	TxHandover handover;
	BounceKind kind;
	const char *want; /* in the notification; NULL: there is none */
	const char *want_not;
} Asked;

static const char original_text[] = "From: a@x\r\nSubject: s\r\n\r\nbody text\r\n";

#define ENDED(data) data, TX_HANDOVER_NONE, BOUNCE_END
static const Asked asked[] = {
	{"nothing", NULL, NULL, NULL, NULL, ENDED(554), "Action: failed", "body text"},
	{"never", "NEVER", NULL, NULL, NULL, ENDED(554), NULL, NULL},
	{"success only", "SUCCESS", NULL, NULL, NULL, ENDED(554), NULL, NULL},
	{"failure", "success,failure", NULL, NULL, NULL, ENDED(554), "Action: failed", NULL},
	{"malformed", "perhaps", NULL, NULL, NULL, ENDED(554), "Action: failed", NULL},
	{"full", NULL, "FULL", NULL, NULL, ENDED(554),
	 "Content-Type: message/rfc822\r\n\r\nFrom: a@x\r\nSubject: s\r\n\r\nbody text\r\n\r\n--=_",
	 "text/rfc822-headers"},
	{"headers", NULL, "HDRS", NULL, NULL, ENDED(554), "text/rfc822-headers", "body text"},
	{"envid", NULL, NULL, "a+2Bb", NULL, ENDED(554), "Original-Envelope-Id: a+b\r\n", NULL},
	{"bad envid", NULL, NULL, "a+0Ab", NULL, ENDED(554), "Action: failed",
	 "Original-Envelope-Id"},
	{"orcpt", NULL, NULL, NULL, "rfc822;b+2Bc@y", ENDED(554),
	 "Original-Recipient: rfc822;b+c@y\r\nFinal-Recipient: rfc822; b@example.net\r\n", NULL},
	{"bad orcpt", NULL, NULL, NULL, "b@y", ENDED(554), "Action: failed", "Original-Recipient"},
	{"delay", "DELAY", NULL, NULL, NULL, 451, TX_HANDOVER_NONE, BOUNCE_DELAY, "Action: delayed",
	 NULL},
	{"no delay", "FAILURE", NULL, NULL, NULL, 451, TX_HANDOVER_NONE, BOUNCE_DELAY, NULL, NULL},
	{"full of a delay", NULL, "FULL", NULL, NULL, 451, TX_HANDOVER_NONE, BOUNCE_DELAY,
	 "text/rfc822-headers", "body text"},
	{"relayed", "SUCCESS", "FULL", NULL, NULL, 250, TX_HANDOVER_RELAYED, BOUNCE_END,
	 "Action: relayed\r\nStatus: 2.0.0\r\n", "body text"},
	{"delivered", "SUCCESS", NULL, NULL, NULL, 250, TX_HANDOVER_DELIVERED, BOUNCE_END,
	 "Action: delivered\r\n", NULL},
	{"passed on", "SUCCESS", NULL, NULL, NULL, 250, TX_HANDOVER_NONE, BOUNCE_END, NULL, NULL},
	{"relayed, not asked", "FAILURE", NULL, NULL, NULL, 250, TX_HANDOVER_RELAYED, BOUNCE_END,
	 NULL, NULL},
	{"relayed, no word", NULL, NULL, NULL, NULL, 250, TX_HANDOVER_RELAYED, BOUNCE_END, NULL,
	 NULL},
};

static Mailbox *
mailbox_with(const char *addr, const char *k1, const char *v1, const char *k2, const char *v2)
{
	EsmtpParam params[2];
	size_t n = 0;
	if (v1 != NULL)
		params[n++] = (EsmtpParam){(char *)k1, (char *)v1};
	if (v2 != NULL)
		params[n++] = (EsmtpParam){(char *)k2, (char *)v2};
	return mailbox_new(addr, params, n);
}

static void
test_asked(void **state)
{
	(void)state;
	const EndpointConf endpoint = {.notification_sender = (char *)"submission"};
	for (size_t i = 0; i < G_N_ELEMENTS(asked); i++) {
		const Asked *c = &asked[i];
		DeferQueue queue = {0};
		g_autoptr(Tx) tx = tx_new(&queue);
		g_autoptr(Mailbox) from = mailbox_with("a@x", "ret", c->ret, "ENVID", c->envid);
		g_autoptr(Mailbox)
			to = mailbox_with("b@example.net", "NOTIFY", c->notify, "ORCPT", c->orcpt);
		g_autoptr(Blob) raw = blob_new_bytes(original_text, strlen(original_text));
		g_autoptr(TxBody) body = tx_body_new_raw(raw);
		tx_set_mail_from(tx, from);
		tx_add_rcpt(tx, to);
		tx_set_body(tx, body);
		tx_enable_notification(tx, NULL);
		tx_answer_mail(tx, response_new(250, NULL));
		tx_answer_rcpt(tx, 0, response_new(250, NULL));
		tx_set_handover(tx, c->handover);
		tx_answer_data(tx, response_new(c->data, NULL));
		g_autoptr(Tx) bounce = bounce_new(tx, &endpoint, "daemon@x", 1, c->kind);
		if ((bounce != NULL) != (c->want != NULL))
			fail_msg("%s: %s", c->name, bounce != NULL ? "one" : "none");
		size_t len = 0;
		g_autofree char *text = NULL;
		if (bounce != NULL)
			text = blob_to_string(bounce->body->raw, 65536, &len, NULL);
		if (text != NULL && strstr(text, c->want) == NULL)
			fail_msg("%s: missing %s in %s", c->name, c->want, text);
		if (text != NULL && c->want_not != NULL && strstr(text, c->want_not) != NULL)
			fail_msg("%s: %s in %s", c->name, c->want_not, text);
		while (!defer_run(&queue, 10))
			;
	}
}

static void
test_may_return(void **state)
{
	(void)state;
	g_autofree char *at = g_strnfill(998, 'x'), *past = g_strnfill(999, 'x');
	g_autofree char *at_limit = g_strconcat(at, "\r\n", NULL);
	g_autofree char *past_limit = g_strconcat(past, "\r\n", NULL);
	const struct {
		const char *text;
		bool want;
	} table[] = {
		{"a: b\r\n\r\nc\r\n", true}, {"", false},         {"a: b", false},
		{"a: b\n", false},           {"a\rb\r\n", false}, {"a\r", false},
		{"a\xc3\xa4\r\n", false},    {at_limit, true},    {past_limit, false},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		if (dsn_may_return(table[i].text, strlen(table[i].text)) != table[i].want)
			fail_msg("case %zu", i);
	}
	assert_false(dsn_may_return("a\0b\r\n", 5));
}

/* A message that was submitted as JSON has its header fields returned, too. */
static void
test_builder_header(void **state)
{
	(void)state;
	DeferQueue queue = {0};
	const Owed owed = {"", "a@x", 1, 250, 550, 0, true, true, false, true};
	const EndpointConf endpoint = {.notification_sender = (char *)"submission"};
	g_autoptr(Tx) tx = make_failed(&queue, &owed);
	g_autoptr(json_t) builder = json_pack("{s:[[s,s]], s:[{s:s, s:{s:s}}]}", "headers",
					      "subject", "hello there", "text_body", "content_type",
					      "text/plain", "content", "create_id", "gone");
	g_autoptr(TxBody) body = tx_body_new_builder(builder, NULL);
	tx_set_body(tx, body);
	g_autoptr(Tx) bounce = bounce_new(tx, &endpoint, "daemon@x", 1, BOUNCE_END);
	char text[4096];
	size_t got = 0;
	assert_true(blob_read(bounce->body->raw, 0, text, sizeof(text) - 1, &got, NULL));
	text[got] = '\0';
	const char *part = strstr(text, "text/rfc822-headers\r\n");
	assert_non_null(part);
	assert_non_null(strstr(part, "hello there"));
	while (!defer_run(&queue, 10))
		;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_internationalized),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_delay_is_due_once),
		cmocka_unit_test(test_builder_header),
		cmocka_unit_test(test_hostile_input),
		cmocka_unit_test(test_header_len),
		cmocka_unit_test(test_owed),
		cmocka_unit_test(test_asked),
		cmocka_unit_test(test_may_return),
	};
	return cmocka_run_group_tests_name("service-dsn", tests, NULL, NULL);
}
