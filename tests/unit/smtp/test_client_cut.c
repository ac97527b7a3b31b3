/* SPDX-License-Identifier: Apache-2.0 */
/* The client's dialogues, byte by byte and cut after every byte: plain, AUTH, BDAT, LMTP, TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "certs.h"
#include "script.h"

#define SENDER "C MAIL\nS 250 s\n"
#define RCPT   "C RCPT\nS 250 r\n"
#define BODY   "C DATA\nS 354 go\nB\n"
#define UNACK  "(message sent, not acknowledged)"

static Certs certs;
static TlsContext *tls_any;

/* ---- cut after every byte ---- */

/* A dialogue as the hop sees it: what it waits for (steps of script.h) and what it then says.  The
 * answers that a transaction has are those whose reply was complete. */
typedef struct CutPart {
	const char *waits, *says;
} CutPart;

typedef struct CutCase {
	const char *name;
	void (*tweak)(Live *live);
	const char *const *rcpts;
	/* parts from which on MAIL and RCPT have their 250, and the one behind the end of the
	 * message */
	unsigned mail, rcpt, end;
	CutPart parts[12];
} CutCase;

static void
cut_bdat(Live *live)
{
	live->output.enable_bdat = true;
}

static void
cut_lmtp(Live *live)
{
	live->output.protocol = SMTP_PROTOCOL_LMTP;
}

static void
cut_auth(Live *live)
{
	live->output.auth_user = "u";
	live->output.auth_secret = "p";
}

static void
cut_tls(Live *live)
{
	live->output.tls_policy = SMTP_TLS_REQUIRED;
	live->output.tls = tls_any;
}

static void
cut_implicit(Live *live)
{
	live->output.tls_policy = SMTP_TLS_IMPLICIT;
	live->output.tls = tls_any;
}

#define ENVELOPE                                                                                   \
	{"C MAIL\n", "250 s\r\n"},                                                                 \
	{                                                                                          \
		"C RCPT\n", "250 r\r\n"                                                            \
	}
#define MESSAGE                                                                                    \
	{"C DATA\n", "354 go\r\n"},                                                                \
	{                                                                                          \
		"B\n", "250 done\r\n"                                                              \
	}

static const CutCase cuts[] = {
	{"plain",
	 NULL,
	 one_rcpt,
	 3,
	 4,
	 5,
	 {{"", "220 hi\r\n"}, {"C EHLO\n", "250-x\r\n250 SIZE\r\n"}, ENVELOPE, MESSAGE}},
	{"PIPELINING",
	 NULL,
	 one_rcpt,
	 3,
	 4,
	 5,
	 {{"", "220 hi\r\n"}, {"C EHLO\n", "250-x\r\n250 PIPELINING\r\n"}, ENVELOPE, MESSAGE}},
	{"HELO",
	 NULL,
	 one_rcpt,
	 4,
	 5,
	 6,
	 {{"", "220 hi\r\n"},
	  {"C EHLO\n", "502 what\r\n"},
	  {"C HELO\n", "250 x\r\n"},
	  ENVELOPE,
	  MESSAGE}},
	{"AUTH PLAIN",
	 cut_auth,
	 one_rcpt,
	 4,
	 5,
	 6,
	 {{"", "220 hi\r\n"},
	  {"C EHLO\n", "250-x\r\n250 AUTH PLAIN\r\n"},
	  {"C AUTH PLAIN\n", "235 ok\r\n"},
	  ENVELOPE,
	  MESSAGE}},
	{"AUTH LOGIN",
	 cut_auth,
	 one_rcpt,
	 6,
	 7,
	 8,
	 {{"", "220 hi\r\n"},
	  {"C EHLO\n", "250-x\r\n250 AUTH LOGIN\r\n"},
	  {"C AUTH LOGIN\n", "334 VXNlcg==\r\n"},
	  {"C dQ==\n", "334 UGFzcw==\r\n"},
	  {"C cA==\n", "235 ok\r\n"},
	  ENVELOPE,
	  MESSAGE}},
	{"BDAT",
	 cut_bdat,
	 one_rcpt,
	 3,
	 4,
	 4,
	 {{"", "220 hi\r\n"},
	  {"C EHLO\n", "250-x\r\n250 CHUNKING\r\n"},
	  ENVELOPE,
	  {"C BDAT 3 LAST\nN x\\r\\n\n", "250 done\r\n"}}},
	{"LMTP",
	 cut_lmtp,
	 one_rcpt,
	 3,
	 4,
	 5,
	 {{"", "220 hi\r\n"}, {"C LHLO\n", "250-x\r\n250 SIZE\r\n"}, ENVELOPE, MESSAGE}},
	{"STARTTLS",
	 cut_tls,
	 one_rcpt,
	 5,
	 6,
	 7,
	 {{"", "220 hi\r\n"},
	  {"C EHLO\n", "250-x\r\n250 STARTTLS\r\n"},
	  {"C STARTTLS\n", "220 go\r\n"},
	  {"T\nC EHLO\n", "250-x\r\n250 SIZE\r\n"},
	  ENVELOPE,
	  MESSAGE}},
	{"implicit TLS",
	 cut_implicit,
	 one_rcpt,
	 3,
	 4,
	 5,
	 {{"T\n", "220 hi\r\n"}, {"C EHLO\n", "250-x\r\n250 SIZE\r\n"}, ENVELOPE, MESSAGE}},
};

static void
check_cut(const CutCase *c, const Job *job, unsigned part)
{
	want(live_case, "mail", job->mail, part >= c->mail ? "250 s" : "450 4.*");
	want(live_case, "rcpt", job->rcpt[0], part >= c->rcpt ? "250 r" : "450 *");
	want(live_case, "data", job->data, "450 *");
	if ((strstr(job->data, UNACK) != NULL) != (part == c->end))
		fail_msg("%s, part %u: %s", live_case, part, job->data);
}

/* Whatever the hop has said so far, a success is only what it said in full. */
static void
cut_one(const CutCase *c, unsigned part, size_t cut)
{
	Live live;
	Job job;
	uint16_t port;
	Hop *hop = hop_new(&port);
	live_start(&live, c->tweak);
	job_start(&job, &live, port, c->rcpts, "x\r\n");
	for (unsigned i = 0; i <= part; i++) {
		const CutPart *at = &c->parts[i];
		hop_play(hop, at->waits);
		hop_say(hop, at->says, i < part ? strlen(at->says) : cut);
	}
	hop_play(hop, "X\n");
	job_wait(&job);
	check_cut(c, &job, part);
	job_clear(&job);
	live_stop(&live);
	hop_free(hop);
}

static void
test_cut_everywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cuts); i++) {
		live_case = cuts[i].name;
		for (unsigned part = 0; cuts[i].parts[part].says != NULL; part++) {
			for (size_t cut = 0; cut < strlen(cuts[i].parts[part].says); cut++)
				cut_one(&cuts[i], part, cut);
		}
	}
}

/* The same dialogues in full, a byte at a time. */
static void
test_byte_by_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cuts); i++) {
		const CutCase *c = &cuts[i];
		Live live;
		Job job;
		uint16_t port;
		live_case = c->name;
		Hop *hop = hop_new(&port);
		live_start(&live, c->tweak);
		job_start(&job, &live, port, c->rcpts, "x\r\n");
		for (unsigned part = 0; c->parts[part].says != NULL; part++) {
			hop_play(hop, c->parts[part].waits);
			for (const char *p = c->parts[part].says; *p != '\0'; p++) {
				hop_say(hop, p, 1);
				g_usleep(100);
			}
		}
		job_wait(&job);
		want(live_case, "mail", job.mail, "250 s");
		want(live_case, "rcpt", job.rcpt[0], "250 r");
		want(live_case, "data", job.data, "250 done");
		job_clear(&job);
		live_stop(&live);
		hop_free(hop);
	}
}

/* LMTP with two recipients: fewer replies behind the dot than recipients. */
static void
test_cut_lmtp_replies(void **state)
{
	static const char replies[] = "250 one\r\n250 two\r\n";
	(void)state;
	live_case = "LMTP, two recipients";
	for (size_t cut = 0; cut < strlen(replies); cut++) {
		Live live;
		Job job;
		uint16_t port;
		Hop *hop = hop_new(&port);
		live_start(&live, cut_lmtp);
		job_start(&job, &live, port, two_rcpts, "x\r\n");
		hop_play(hop, "S 220 hi\nC LHLO\nS 250 x\n" SENDER RCPT RCPT BODY);
		hop_say(hop, replies, cut);
		hop_play(hop, "X\n");
		job_wait(&job);
		want(live_case, "first", job.rcpt[0], cut >= 9 ? "250 r" : "450 *");
		want(live_case, "second", job.rcpt[1], "450 *");
		want(live_case, "data", job.data, cut >= 9 ? "250 one" : "450 *");
		assert_non_null(strstr(job.rcpt[1], UNACK));
		job_clear(&job);
		live_stop(&live);
		hop_free(hop);
	}
}

static int
setup(void **state)
{
	(void)state;
	certs_make(&certs);
	hop_use_cert(certs.good);
	tls_any = tls_client_new(TLS_VERIFY_NONE, NULL, NULL);
	return tls_any != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	tls_context_unref(tls_any);
	certs_clear(&certs);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_everywhere),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_cut_lmtp_replies),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
