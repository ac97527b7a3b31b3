/* SPDX-License-Identifier: Apache-2.0 */
/* The message by BDAT, and over LMTP with several recipients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "script.h"
#include "smtp/text_writer.h"

static const char *const three_rcpts[] = {"ok@b.example", "two@b.example", "three@b.example", NULL};
static const char *const four_rcpts[] = {"ok@b.example", "two@b.example", "three@b.example",
					 "four@b.example", NULL};

/* ---- text for BDAT ---- */

static void
test_text_writer(void **state)
{
	static const struct {
		const char *in, *out;
		bool binary;
	} table[] = {
		{"", "", false},
		{"x", "x\r\n", false},
		{"a\r\nb\r\n", "a\r\nb\r\n", false},
		{"a\nb\rc", "a\r\nb\r\nc\r\n", false},
		{"\r\r\n\n", "\r\n\r\n\r\n", false},
		{"\n.\n", "\r\n.\r\n", false},
		{"x\r", "x\r\n", false},
		{"\r\n", "\r\n", false},
		{".\r\n..\r\n", ".\r\n..\r\n", false},
		{"a\nb\rc", "a\nb\rc", true},
		{"x\r", "x\r", true},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		size_t len = strlen(table[i].in);
		/* in pieces of every size */
		for (size_t piece = 1; piece <= len + 1; piece++) {
			SmtpTextWriter writer;
			GString *out = g_string_new(NULL);
			smtp_text_writer_init(&writer, table[i].binary);
			for (size_t at = 0; at < len; at += piece)
				smtp_text_write(&writer, table[i].in + at, MIN(piece, len - at),
						out);
			smtp_text_write_end(&writer, out);
			assert_string_equal(out->str, table[i].out);
			g_string_free(out, TRUE);
		}
	}
}

/* ---- BDAT ---- */

static void
bdat(Live *live)
{
	live->output.enable_bdat = true;
	live->output.chunk_size = SMTP_CHUNK_MIN;
}

static void
bdat_lmtp(Live *live)
{
	bdat(live);
	live->output.protocol = SMTP_PROTOCOL_LMTP;
}

static void
one_by_one(Live *live)
{
	bdat(live);
	live->output.no_pipelining = true;
}

#define HI      "S 220 hi\nC EHLO client.example\n"
#define CHUNKS  HI "S 250-x\nS 250-CHUNKING\nS 250 PIPELINING\n"
#define MAIL    "C MAIL FROM:<alice@a.example>\nC RCPT TO:<ok@b.example>\nS 250 s\nS 250 r\n"
#define MAIL_1  "C MAIL FROM:<alice@a.example>\nS 250 s\nC RCPT TO:<ok@b.example>\nS 250 r\n"
#define ALL_OK  .mail = "250 s", .rcpt = {"250 r"}, .data = "250 done"
#define NOT_YET "450 4.4.2 next hop closed the connection (message not sent)"

static const Case bdat_cases[] = {
	{"small, bytes as they are", CHUNKS MAIL "C BDAT 7 LAST\nN .x\\r\\n.\\r\\n\nS 250 done\n",
	 bdat, .body = ".x\r\n.\n", ALL_OK},
	{"empty", CHUNKS MAIL "C BDAT 0 LAST\nS 250 done\n", bdat, .body = "", ALL_OK},
	{"without PIPELINING",
	 HI "S 250-x\nS 250 CHUNKING\n" MAIL_1 "C BDAT 3 LAST\nN x\\r\\n\nS 250 done\n", bdat,
	 .body = "x", ALL_OK},
	{"not offered", HI "S 250 x\n" MAIL_1 "C DATA\nS 354 go\nB\nS 250 done\n", bdat, ALL_OK},
	{"not with LMTP",
	 "S 220 hi\nC LHLO\nS 250-x\nS 250 CHUNKING\n" MAIL_1 "C DATA\nS 354 go\nB\nS 250 done\n",
	 bdat_lmtp, ALL_OK},
	{"not wanted", HI "S 250-x\nS 250 CHUNKING\n" MAIL_1 "C DATA\nS 354 go\nB\nS 250 done\n",
	 NULL, ALL_OK},
	{"no recipient, no chunk", CHUNKS "C MAIL\nC RCPT\nS 250 s\nS 550 no\nC RSET\nS 250 x\n",
	 bdat, .mail = "250 s", .rcpt = {"550 no"},
	 .data = "554 no valid recipients (SmtpEndpoint)"},
	{"refused", CHUNKS MAIL "C BDAT 3 LAST\nN x\\r\\n\nS 552 5.2.2 full\nC RSET\nS 250 x\n",
	 bdat, .body = "x", .mail = "250 s", .rcpt = {"250 r"}, .data = "552 5.2.2 full"},
	{"354 to BDAT", CHUNKS MAIL "C BDAT 3 LAST\nN x\\r\\n\nS 354 go\nE\n", bdat, .body = "x",
	 .mail = "250 s", .rcpt = {"250 r"},
	 .data = "450 4.5.0 next hop sent a reply that does not fit the command (message sent, not "
		 "acknowledged)"},
	{"lost behind LAST", CHUNKS MAIL "C BDAT 3 LAST\nN x\\r\\n\nX\n", bdat, .body = "x",
	 .mail = "250 s", .rcpt = {"250 r"},
	 .data = "450 4.4.2 next hop closed the connection (message sent, not acknowledged)"},
};

static void
test_bdat(void **state)
{
	(void)state;
	cases_run(bdat_cases, G_N_ELEMENTS(bdat_cases));
}

/* Two chunks and a bit, replies in between. */
static void
test_chunks(void **state)
{
	g_autofree char *body = g_strnfill(2 * SMTP_CHUNK_MIN + 10, 'x');
	g_autofree char *whole = g_strnfill(SMTP_CHUNK_MIN, 'x');
	(void)state;
	g_autofree char *together = g_strdup_printf(
		CHUNKS MAIL "C BDAT 4096\nN %s\nC BDAT 4096\nN %s\nC BDAT 12 LAST\nN "
			    "xxxxxxxxxx\\r\\n\nS 250 a\nS 250 b\nS 250 done\n",
		whole, whole);
	g_autofree char *apart = g_strdup_printf(
		CHUNKS MAIL_1 "C BDAT 4096\nN %s\nS 250 a\nC BDAT 4096\nN %s\nS 250 b\n"
			      "C BDAT 12 LAST\nN xxxxxxxxxx\\r\\n\nS 250 done\n",
		whole, whole);
	g_autofree char *refused = g_strdup_printf(
		CHUNKS MAIL "C BDAT 4096\nN %s\nS 452 4.3.1 full\nC BDAT 4096\nN %s\nC BDAT 12 "
			    "LAST\nN xxxxxxxxxx\\r\\n\nS 503 a\nS 503 b\nC RSET\nS 250 x\n",
		whole, whole);
	g_autofree char *refused_apart = g_strdup_printf(
		CHUNKS MAIL_1 "C BDAT 4096\nN %s\nS 552 5.3.4 big\nC RSET\nS 250 x\n", whole);
	g_autofree char *lost = g_strdup_printf(CHUNKS MAIL_1 "C BDAT 4096\nN %s\nX\n", whole);
	const Case cases[] = {
		{"together", together, bdat, .body = body, ALL_OK},
		{"apart", apart, one_by_one, .body = body, ALL_OK},
		{"first chunk refused", refused, bdat, .body = body, .mail = "250 s",
		 .rcpt = {"250 r"}, .data = "452 4.3.1 full"},
		{"first chunk refused, alone", refused_apart, one_by_one, .body = body,
		 .mail = "250 s", .rcpt = {"250 r"}, .data = "552 5.3.4 big"},
		{"lost before LAST", lost, one_by_one, .body = body, .mail = "250 s",
		 .rcpt = {"250 r"}, .data = NOT_YET},
	};
	cases_run(cases, G_N_ELEMENTS(cases));
}

/* ---- a body that grows ---- */

typedef struct Growing {
	Live *live;
	uint16_t port;
	Tx *tx;
	Blob *blob;
	TxPort *tx_port;
	size_t more; /* bytes */
} Growing;

static void
growing_begin(void *arg)
{
	Growing *growing = arg;
	g_autoptr(Mailbox) from = mailbox_new("alice@a.example", NULL, 0);
	g_autoptr(Mailbox) to = mailbox_new("ok@b.example", NULL, 0);
	g_autoptr(HostPort) remote = host_port_new("127.0.0.1", growing->port);
	growing->tx = tx_new(worker_defers(growing->live->worker));
	tx_set_hosts(growing->tx, remote, NULL);
	tx_set_mail_from(growing->tx, from);
	tx_add_rcpt(growing->tx, to);
	growing->blob = blob_new(NULL);
	g_autoptr(TxBody) body = tx_body_new_raw(growing->blob);
	tx_set_body(growing->tx, body);
	growing->tx_port = smtp_delivery_start(growing->live->pool, &growing->live->output,
					       growing->tx);
}

static void
growing_more(void *arg)
{
	Growing *growing = arg;
	g_autofree char *text = g_strnfill(growing->more, 'x');
	k_assert(blob_append(growing->blob, text, growing->more, NULL));
	tx_note_body(growing->tx);
}

static void
growing_finalize(void *arg)
{
	Growing *growing = arg;
	blob_finalize(growing->blob);
	tx_note_body(growing->tx);
}

static void
growing_end(void *arg)
{
	Growing *growing = arg;
	tx_port_stop(growing->tx_port);
	tx_unref(growing->tx);
	blob_unref(growing->blob);
}

/* Chunks leave as whole ones come; LAST only behind the end, and never without one. */
static void
test_streaming(void **state)
{
	g_autofree char *whole = g_strnfill(SMTP_CHUNK_MIN, 'x');
	g_autofree char *chunk = g_strdup_printf("C BDAT 4096\nN %s\nS 250 c\n", whole);
	(void)state;
	for (unsigned complete = 0; complete < 2; complete++) {
		Live live;
		Growing growing = {.live = &live};
		live_case = complete ? "streaming" : "streaming, broken off";
		Hop *hop = hop_new(&growing.port);
		live_start(&live, bdat);
		live_run(&live, growing_begin, &growing);
		hop_play(hop, CHUNKS MAIL);
		growing.more = 64 * 1024; /* as much as it takes to begin */
		live_run(&live, growing_more, &growing);
		for (unsigned i = 0; i < 16; i++)
			hop_play(hop, chunk);
		growing.more = SMTP_CHUNK_MIN - 1; /* waits for a byte more */
		live_run(&live, growing_more, &growing);
		growing.more = 2;
		live_run(&live, growing_more, &growing);
		hop_play(hop, chunk);
		if (complete) {
			live_run(&live, growing_finalize, &growing);
			hop_play(hop, "C BDAT 3 LAST\nN x\\r\\n\nS 250 done\n");
		}
		live_run(&live, growing_end, &growing);
		hop_play(hop, complete ? "O\n" : "E\n");
		live_stop(&live);
		hop_free(hop);
	}
}

/* ---- LMTP ---- */

static void
lmtp(Live *live)
{
	live->output.protocol = SMTP_PROTOCOL_LMTP;
}

#define LHLO   "S 220 hi\nC LHLO client.example\nS 250 x\n"
#define RCPT   "C RCPT\nS 250 r\n"
#define NOT    "C RCPT\nS 550 5.1.1 no\n"
#define BODY   "C DATA\nS 354 go\nB\n"
#define SENDER "C MAIL\nS 250 s\n"

static const Case lmtp_cases[] = {
	{"one", LHLO SENDER RCPT BODY "S 250 stored\n", lmtp, .data = "250 stored"},
	{"one, refused after the dot", LHLO SENDER RCPT BODY "S 552 5.2.2 full\n", lmtp,
	 .rcpt = {"250 r"}, .data = "552 5.2.2 full"},
	{"all take it", LHLO SENDER RCPT RCPT RCPT BODY "S 250 a\nS 250 b\nS 250 c\n", lmtp,
	 three_rcpts, .rcpt = {"250 r", "250 r", "250 r"}, .data = "250 a"},
	{"replies in one piece", LHLO SENDER RCPT RCPT BODY "R 250 a\\r\\n250 b\\r\\n\n", lmtp,
	 two_rcpts, .rcpt = {"250 r", "250 r"}, .data = "250 a"},
	{"one refuses at RCPT, one after the dot, one for now",
	 LHLO SENDER RCPT NOT RCPT RCPT BODY "S 250 a\nS 552 5.2.2 full\nS 452 4.2.2 later\n", lmtp,
	 four_rcpts, .rcpt = {"250 r", "550 5.1.1 no", "552 5.2.2 full", "452 4.2.2 later"},
	 .data = "250 a"},
	{"the last takes it", LHLO SENDER RCPT RCPT BODY "S 452 4.2.2 later\nS 250 b\n", lmtp,
	 two_rcpts, .rcpt = {"452 4.2.2 later", "250 r"}, .data = "250 b"},
	{"nobody takes it", LHLO SENDER RCPT RCPT BODY "S 552 5.2.2 full\nS 452 4.2.2 later\n",
	 lmtp, two_rcpts, .rcpt = {"552 5.2.2 full", "452 4.2.2 later"}, .data = "452 4.2.2 later"},
	{"fewer replies than recipients", LHLO SENDER RCPT RCPT RCPT BODY "S 250 a\nX\n", lmtp,
	 three_rcpts,
	 .rcpt = {"250 r",
		  "450 4.4.2 next hop closed the connection (message sent, not acknowledged)",
		  "450 4.4.2 *"},
	 .data = "250 a"},
	{"no reply at all", LHLO SENDER RCPT RCPT BODY "X\n", lmtp, two_rcpts,
	 .rcpt = {"450 4.4.2 *", "450 4.4.2 *"},
	 .data = "450 4.4.2 next hop closed the connection (message sent, not acknowledged)"},
	{"421 in the middle", LHLO SENDER RCPT RCPT BODY "S 250 a\nS 421 bye\nE\n", lmtp, two_rcpts,
	 .rcpt = {"250 r", "421 bye"}, .data = "250 a"},
	{"more replies than recipients",
	 LHLO SENDER RCPT RCPT BODY "S 250 a\nS 250 b\nS 250 c\nE\n", lmtp, two_rcpts,
	 .rcpt = {"250 r", "250 r"}, .data = "250 a"},
	{"nobody at RCPT", LHLO SENDER NOT NOT "C RSET\nS 250 x\n", lmtp, two_rcpts,
	 .rcpt = {"550 5.1.1 no", "550 5.1.1 no"},
	 .data = "554 no valid recipients (SmtpEndpoint)"},
	{"nobody at RCPT, and 354",
	 "S 220 hi\nC LHLO\nS 250-x\nS 250 PIPELINING\nC MAIL\nC RCPT\nC RCPT\nC DATA\n"
	 "S 250 s\nS 550 a\nS 550 b\nS 354 go\nE\n",
	 lmtp, two_rcpts, .rcpt = {"550 a", "550 b"},
	 .data = "554 no valid recipients (SmtpEndpoint)"},
	{"DATA refused", LHLO SENDER RCPT NOT "C DATA\nS 451 4.3.0 no\nC RSET\nS 250 x\n", lmtp,
	 two_rcpts, .rcpt = {"250 r", "550 5.1.1 no"}, .data = "451 4.3.0 no"},
	{"lost before the dot", LHLO SENDER RCPT NOT "C DATA\nX\n", lmtp, two_rcpts,
	 .rcpt = {"450 4.4.2 next hop closed the connection (message not sent)", "550 5.1.1 no"},
	 .data = "450 *"},
	{"LHLO refused", "S 220 hi\nC LHLO\nS 500 what\nE\n", lmtp, .mail = "500 what"},
};

static void
test_lmtp(void **state)
{
	(void)state;
	cases_run(lmtp_cases, G_N_ELEMENTS(lmtp_cases));
}

/* The answers to RCPT were asked for before the message was there: one answer for all. */
static void
mixed(const char *name, const char *replies, const char *data)
{
	Live live;
	Job job;
	uint16_t port;
	live_case = name;
	Hop *hop = hop_new(&port);
	live_start(&live, lmtp);
	job_start(&job, &live, port, three_rcpts, NULL);
	hop_play(hop, LHLO SENDER RCPT RCPT RCPT);
	job_wait(&job);
	job_add_body(&job, "x\r\n");
	hop_play(hop, BODY);
	hop_play(hop, replies);
	job_wait(&job);
	for (unsigned i = 0; i < 3; i++)
		want(name, "rcpt", job.rcpt[i], "250 r");
	want(name, "data", job.data, data);
	job_clear(&job);
	live_stop(&live);
	hop_free(hop);
}

static void
test_lmtp_mixed(void **state)
{
	static const struct {
		const char *name, *replies, *data;
	} table[] = {
		{"all", "S 250 a\nS 250 b\nS 250 c\n", "250 a"},
		{"one for now", "S 250 a\nS 452 4.2.2 b\nS 550 c\n",
		 "452 4.2.2 b (1 of 3 recipients have the message)"},
		{"one for good", "S 250 a\nS 552 5.2.2 b\nS 250 c\n",
		 "552 5.2.2 b (2 of 3 recipients have the message)"},
		{"none", "S 552 a\nS 552 b\nS 452 c\n", "452 c"},
		{"one missing", "S 250 a\nS 250 b\nX\n",
		 "450 4.4.2 next hop closed the connection (message sent, not acknowledged) (2 of 3 "
		 "recipients have the message)"},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
		mixed(table[i].name, table[i].replies, table[i].data);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_writer), cmocka_unit_test(test_bdat),
		cmocka_unit_test(test_chunks),      cmocka_unit_test(test_streaming),
		cmocka_unit_test(test_lmtp),        cmocka_unit_test(test_lmtp_mixed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
