/* SPDX-License-Identifier: Apache-2.0 */
/* The client's TLS policies and AUTH against scripted servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "certs.h"
#include "script.h"

static Certs certs;
static TlsContext *tls_any, *tls_ca;
static unsigned troubles;
static char *last_trouble;

#define HI      "S 220 hi\nC EHLO client.example\n"
#define OFFER   HI "S 250-x\nS 250-SIZE 10\nS 250-PIPELINING\nS 250 STARTTLS\n"
#define UPGRADE OFFER "C STARTTLS\nS 220 go\nT\n"
#define MAIL                                                                                       \
	"C MAIL FROM:<alice@a.example>\nS 250 s\nC RCPT TO:<ok@b.example>\nS 250 r\n"              \
	"C DATA\nS 354 go\nB\nS 250 done\n"
#define AGAIN "C EHLO client.example\nS 250 x\n"

static void
on_trouble(const SmtpOutputConf *conf, const SmtpTlsTrouble *trouble)
{
	k_assert(conf != NULL && strcmp(trouble->peer, "127.0.0.1") == 0);
	troubles++;
	g_free(last_trouble);
	last_trouble = g_strdup(trouble->text);
}

static void
set(Live *live, SmtpTlsPolicy policy, TlsContext *tls, const char *name)
{
	live->output.tls_policy = policy;
	live->output.tls = tls;
	live->output.tls_name = name;
	live->output.timeouts.tls = 800 * USEC_PER_MS;
	live->output.on_tls_trouble = on_trouble;
}

static void
none(Live *live)
{
	set(live, SMTP_TLS_NONE, tls_any, NULL);
}
static void
opportunistic(Live *live)
{
	set(live, SMTP_TLS_OPPORTUNISTIC, tls_any, NULL);
}
static void
not_set_up(Live *live)
{
	set(live, SMTP_TLS_REQUIRED, NULL, NULL);
}
static void
required(Live *live)
{
	set(live, SMTP_TLS_REQUIRED, tls_any, NULL);
}
static void
verified(Live *live)
{
	set(live, SMTP_TLS_VERIFIED, tls_ca, "mx.example");
}
static void
verified_address(Live *live)
{
	set(live, SMTP_TLS_VERIFIED, tls_ca, NULL);
}
static void
other_name(Live *live)
{
	set(live, SMTP_TLS_VERIFIED, tls_ca, "mx.other.example");
}
static void
implicit(Live *live)
{
	set(live, SMTP_TLS_IMPLICIT, tls_any, NULL);
}

/* ---- TLS ---- */

#define ALL_OK  .mail = "250 s", .rcpt = {"250 r"}, .data = "250 done"
#define REFUSED .rcpt = {"450 *"}, .data = "450 *"

static const Case tls_cases[] = {
	/* what was offered before the handshake (PIPELINING, SIZE 10) is forgotten */
	{"opportunistic", UPGRADE AGAIN MAIL, opportunistic, ALL_OK},
	{"opportunistic, not offered", HI "S 250 x\n" MAIL, opportunistic, ALL_OK},
	{"none, offered", HI "S 250-x\nS 250 STARTTLS\n" MAIL, none, ALL_OK},
	{"required", UPGRADE AGAIN MAIL, required, ALL_OK},
	{"required, not offered", HI "S 250 x\nE\n", required,
	 .mail = "450 4.7.4 TLS is required, and next hop does not offer STARTTLS (message not sent)",
	 REFUSED},
	{"required, not offered by HELO", HI "S 502 x\nC HELO\nS 250 x\nE\n", required,
	 .mail = "450 4.7.4 TLS is required*", REFUSED},
	{"required, refused", OFFER "C STARTTLS\nS 454 4.7.0 not now\nE\n", required,
	 .mail = "450 4.7.4 next hop refused STARTTLS: 454 4.7.0 not now (message not sent)",
	 REFUSED},
	{"required, refused for good", OFFER "C STARTTLS\nS 554 5.7.3 no\nE\n", required,
	 .mail = "450 4.7.4 next hop refused STARTTLS: 554 5.7.3 no (message not sent)", REFUSED},
	{"required, 421", OFFER "C STARTTLS\nS 421 4.3.2 bye\nE\n", required,
	 .mail = "421 4.3.2 bye", .rcpt = {"4*"}, .data = "4*"},
	{"required, junk for a handshake", OFFER "C STARTTLS\nS 220 go\nS 250 what\nE\n", required,
	 .mail = "450 4.7.5 TLS handshake failed: *", REFUSED},
	{"required, silent handshake", OFFER "C STARTTLS\nS 220 go\nE\n", required,
	 .mail = "450 4.7.5 TLS handshake failed: timeout (message not sent)", REFUSED},
	{"required, closed instead of a handshake", OFFER "C STARTTLS\nS 220 go\nX\n", required,
	 .mail = "450 4.7.5 TLS handshake failed: *", REFUSED},
	{"required, not set up", OFFER "E\n", not_set_up,
	 .mail = "450 4.7.5 TLS is not set up here (message not sent)", REFUSED},
	{"verified", UPGRADE AGAIN MAIL, verified, ALL_OK},
	{"verified by address", UPGRADE AGAIN MAIL, verified_address, ALL_OK},
	{"verified, other name", OFFER "C STARTTLS\nS 220 go\nU\nE\n", other_name,
	 .mail = "450 4.7.5 TLS handshake failed: certificate: *", REFUSED},
	{"implicit", "T\nS 220 hi\n" AGAIN MAIL, implicit, ALL_OK},
	{"implicit, STARTTLS offered all the same", "T\n" HI "S 250-x\nS 250 STARTTLS\n" MAIL,
	 implicit, ALL_OK},
	{"implicit, plain server", "S 220 hi\nE\n", implicit,
	 .mail = "450 4.7.5 TLS handshake failed: *", REFUSED},
	{"EHLO refused inside", UPGRADE "C EHLO\nS 450 4.7.1 no\nE\n", required,
	 .mail = "450 4.7.1 no", REFUSED},
	/* injected behind the 220: dropped; the MAIL below would have PIPELINING otherwise */
	{"reply injected behind 220",
	 OFFER "C STARTTLS\nR 220 go\\r\\n250-x\\r\\n250 PIPELINING\\r\\n\nT\n" AGAIN MAIL,
	 required, ALL_OK},
	{"half a reply injected", OFFER "C STARTTLS\nR 220 go\\r\\n250-PIPEL\nT\n" AGAIN MAIL,
	 required, ALL_OK},
	{"reply to STARTTLS before STARTTLS", HI "R 250-x\\r\\n250 STARTTLS\\r\\n220 go\\r\\n\nE\n",
	 required,
	 .mail = "450 4.5.0 next hop sent a reply before it had the command (message not sent)",
	 REFUSED},
	{"slow handshake", OFFER "C STARTTLS\nD 220 go\\r\\n\nT\n" AGAIN MAIL, required, ALL_OK},
};

static void
test_tls(void **state)
{
	(void)state;
	hop_use_cert(certs.good);
	troubles = 0;
	cases_run(tls_cases, G_N_ELEMENTS(tls_cases));
	assert_int_equal(troubles, 0);
}

/* Opportunistic goes on in plain text, and says so. */
static const Case fallback_cases[] = {
	{"refused",
	 OFFER "C STARTTLS\nS 454 4.7.0 not now\n"
	       "P MAIL FROM:<alice@a.example>|RCPT TO:<ok@b.example>|DATA|\n"
	       "S 250 s\nS 250 r\nS 354 go\nB\nS 250 done\n",
	 opportunistic, ALL_OK},
	{"junk", OFFER "C STARTTLS\nS 220 go\nS what\nE\nA\n" HI "S 250-x\nS 250 STARTTLS\n" MAIL,
	 opportunistic, ALL_OK},
	{"closed", OFFER "C STARTTLS\nS 220 go\nA\n" HI "S 250-x\nS 250 STARTTLS\n" MAIL,
	 opportunistic, ALL_OK},
	{"silent", OFFER "C STARTTLS\nS 220 go\nE\nA\n" HI "S 250 x\n" MAIL, opportunistic, ALL_OK},
};

static void
test_fallback(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(fallback_cases); i++) {
		troubles = 0;
		cases_run(&fallback_cases[i], 1);
		assert_int_equal(troubles, 1);
		assert_true(g_str_has_prefix(last_trouble, i == 0 ? "next hop refused STARTTLS: 454"
								  : "TLS handshake failed: "));
	}
}

static const Case expired_cases[] = {
	{"expired", OFFER "C STARTTLS\nS 220 go\nU\nE\n", verified,
	 .mail = "450 4.7.5 TLS handshake failed: certificate: certificate has expired "
		 "(message not sent)",
	 REFUSED},
	{"expired, not verified", UPGRADE AGAIN MAIL, required, ALL_OK},
};

static void
test_expired(void **state)
{
	(void)state;
	hop_use_cert(certs.expired);
	cases_run(expired_cases, G_N_ELEMENTS(expired_cases));
	hop_use_cert(certs.good);
}

/* ---- AUTH ---- */

static void
auth(Live *live)
{
	none(live);
	live->output.auth_user = "user";
	live->output.auth_secret = "pass";
}

static void
auth_required(Live *live)
{
	auth(live);
	live->output.tls_policy = SMTP_TLS_REQUIRED;
}

#define PLAIN_LINE "C AUTH PLAIN AHVzZXIAcGFzcw==\n"

static const Case auth_cases[] = {
	{"PLAIN", HI "S 250-x\nS 250 AUTH LOGIN PLAIN\n" PLAIN_LINE "S 235 2.7.0 ok\n" MAIL, auth,
	 ALL_OK},
	{"PLAIN, old form", HI "S 250-x\nS 250 AUTH=PLAIN\n" PLAIN_LINE "S 235 ok\n" MAIL, auth,
	 ALL_OK},
	{"PLAIN, asked again",
	 HI "S 250-x\nS 250 AUTH PLAIN\n" PLAIN_LINE "S 334 \nC AHVzZXIAcGFzcw==\nS 235 ok\n" MAIL,
	 auth, ALL_OK},
	{"LOGIN",
	 HI "S 250-x\nS 250 AUTH CRAM-MD5 LOGIN\nC AUTH LOGIN\nS 334 VXNlcm5hbWU6\nC dXNlcg==\n"
	    "S 334 UGFzc3dvcmQ6\nC cGFzcw==\nS 235 ok\n" MAIL,
	 auth, ALL_OK},
	{"under TLS", UPGRADE "C EHLO\nS 250-x\nS 250 AUTH PLAIN\n" PLAIN_LINE "S 235 ok\n" MAIL,
	 auth_required, ALL_OK},
	{"offered before TLS only",
	 HI "S 250-x\nS 250-AUTH PLAIN\nS 250 STARTTLS\nC STARTTLS\nS 220 go\nT\n" AGAIN "E\n",
	 auth_required,
	 .mail = "450 4.7.4 next hop offers neither AUTH PLAIN nor LOGIN (message not sent)",
	 REFUSED},
	{"wrong", HI "S 250-x\nS 250 AUTH PLAIN\n" PLAIN_LINE "S 535 5.7.8 no\nE\n", auth,
	 .mail = "450 4.7.8 next hop refused our credentials: 535 5.7.8 no (message not sent)",
	 REFUSED},
	{"not now", HI "S 250-x\nS 250 AUTH LOGIN\nC AUTH LOGIN\nS 454 4.7.0 later\nE\n", auth,
	 .mail = "450 4.7.8 next hop refused our credentials: 454 4.7.0 later (message not sent)",
	 REFUSED},
	{"421", HI "S 250-x\nS 250 AUTH PLAIN\n" PLAIN_LINE "S 421 bye\nE\n", auth,
	 .mail = "421 bye", .rcpt = {"4*"}, .data = "4*"},
	{"asks without end",
	 HI "S 250-x\nS 250 AUTH PLAIN\n" PLAIN_LINE "S 334 \nC AHVz\nS 334 \nE\n", auth,
	 .mail = "450 4.5.0 next hop sent a question behind our credentials (message not sent)",
	 REFUSED},
	{"235 before our line", HI "R 250-x\\r\\n250 AUTH PLAIN\\r\\n235 ok\\r\\n\nE\n", auth,
	 .mail = "450 4.5.0 next hop sent a reply before it had the command (message not sent)",
	 REFUSED},
	{"none offered", HI "S 250 x\nE\n", auth, .mail = "450 4.7.4 *", REFUSED},
};

static void
test_auth(void **state)
{
	(void)state;
	cases_run(auth_cases, G_N_ELEMENTS(auth_cases));
}

/* 0.0.0.0 leads to this machine, and is no loopback address. */
static void
test_auth_in_clear(void **state)
{
	Live live;
	uint16_t port;
	(void)state;
	live_case = "AUTH in clear";
	Hop *hop = hop_new(&port);
	live_start(&live, auth);
	Job job = {.live = &live,
		   .port = port,
		   .host = "0.0.0.0",
		   .from = "a@b",
		   .rcpts = one_rcpt,
		   .body = "x",
		   .body_len = 1};
	live_run(&live, job_begin, &job);
	hop_play(hop, HI "S 250-x\nS 250 AUTH PLAIN\nE\n");
	job_wait(&job);
	want(live_case, "mail", job.mail,
	     "450 4.7.11 credentials are not sent without TLS (message not sent)");
	job_clear(&job);
	live_stop(&live);
	hop_free(hop);
}

/* A connection of another policy or identity is never reused: it is another output. */
static void
test_reuse_in_tls(void **state)
{
	Live live;
	Job job;
	uint16_t port;
	(void)state;
	live_case = "reuse in TLS";
	Hop *hop = hop_new(&port);
	live_start(&live, required);
	for (unsigned i = 0; i < 3; i++) {
		job_start(&job, &live, port, one_rcpt, "x\r\n");
		hop_play(hop, i == 0 ? UPGRADE AGAIN MAIL : MAIL);
		job_wait(&job);
		want(live_case, "data", job.data, "250 done");
		job_clear(&job);
	}
	live_stop(&live);
	hop_free(hop);
}

static void
verified_mx(Live *live)
{
	set(live, SMTP_TLS_VERIFIED, tls_ca, "mx.other.example");
	live->output.tls_mx_name = true;
}

/* The name of the host decides, where there is one, and a connection to one host is not lent to
 * a message for another at the same address. */
static void
test_mx_name(void **state)
{
	static const struct {
		const char *name, *steps, *mail;
	} table[] = {
		{"mx.example", UPGRADE AGAIN MAIL, "250 s"},
		{"MX.example", MAIL, "250 s"},
		{"evil.example", "A\n" OFFER "C STARTTLS\nS 220 go\nU\nE\n",
		 "450 4.7.5 TLS handshake failed: certificate: *"},
		{NULL, "A\n" OFFER "C STARTTLS\nS 220 go\nU\nE\n",
		 "450 4.7.5 TLS handshake failed: certificate: *"},
	};
	Live live;
	uint16_t port;
	(void)state;
	live_case = "name of the host";
	Hop *hop = hop_new(&port);
	live_start(&live, verified_mx);
	live.output.reuse_idle = 60 * USEC_PER_SEC;
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		Job job = {.live = &live,
			   .mx_name = table[i].name,
			   .port = port,
			   .host = "127.0.0.1",
			   .from = "alice@a.example",
			   .rcpts = one_rcpt,
			   .body = "x",
			   .body_len = 1};
		live_run(&live, job_begin, &job);
		hop_play(hop, table[i].steps);
		job_wait(&job);
		want(table[i].name != NULL ? table[i].name : "(none)", "mail", job.mail,
		     table[i].mail);
		job_clear(&job);
	}
	live_stop(&live);
	hop_free(hop);
}

static void
once_each(Live *live)
{
	set(live, SMTP_TLS_VERIFIED, tls_ca, "mx.example");
	live->output.reuse_max = 1;
}

/* Each connection but the first resumes the session of the one before; with another output, which
 * may verify something else, nothing is resumed. */
static void
test_resumption(void **state)
{
	Live live;
	Job job;
	uint16_t port;
	(void)state;
	live_case = "resumption";
	Hop *hop = hop_new(&port);
	live_start(&live, once_each);
	SmtpOutputConf first = live.output;
	for (unsigned i = 0; i < 4; i++) {
		job_start(&job, &live, port, one_rcpt, "x\r\n");
		hop_play(hop, i == 0 ? UPGRADE AGAIN MAIL : "A\n" UPGRADE AGAIN MAIL);
		job_wait(&job);
		want(live_case, "data", job.data, "250 done");
		job_clear(&job);
		assert_int_equal(hop_resumed(hop), i);
	}
	job = (Job){.live = &live,
		    .output = &first,
		    .port = port,
		    .host = "127.0.0.1",
		    .from = "a@b",
		    .rcpts = one_rcpt,
		    .body = "x",
		    .body_len = 1};
	live_run(&live, job_begin, &job);
	hop_play(hop, "A\n" UPGRADE AGAIN
		      "C MAIL\nS 250 s\nC RCPT\nS 250 r\nC DATA\nS 354 go\nB\nS 250 done\n");
	job_wait(&job);
	assert_int_equal(hop_resumed(hop), 3);
	job_clear(&job);
	live_stop(&live);
	hop_free(hop);
}

static void
many_names(Live *live)
{
	set(live, SMTP_TLS_REQUIRED, tls_any, NULL);
	live->output.reuse_max = 1;
	live->output.tls_mx_name = true;
}

/* A message to the host of that number; true when its session was resumed. */
static bool
resumes(Live *live, Hop *hop, uint16_t port, unsigned number)
{
	unsigned before = hop_resumed(hop);
	g_autofree char *name = g_strdup_printf("h%u.example", number);
	Job job = {.live = live,
		   .mx_name = name,
		   .port = port,
		   .host = "127.0.0.1",
		   .from = "alice@a.example",
		   .rcpts = one_rcpt,
		   .body = "x",
		   .body_len = 1};
	live_run(live, job_begin, &job);
	hop_play(hop, hop_fd(hop) < 0 ? UPGRADE AGAIN MAIL : "A\n" UPGRADE AGAIN MAIL);
	job_wait(&job);
	job_clear(&job);
	return hop_resumed(hop) > before;
}

/* At the limit all are kept; one more, and the oldest is gone. */
static void
test_tickets_max(void **state)
{
	Live live;
	uint16_t port;
	(void)state;
	live_case = "tickets";
	Hop *hop = hop_new(&port);
	live_start(&live, many_names);
	for (unsigned i = 0; i < SMTP_TICKETS_MAX; i++)
		assert_false(resumes(&live, hop, port, i));
	assert_true(resumes(&live, hop, port, 0)); /* now the newest */
	assert_false(resumes(&live, hop, port, SMTP_TICKETS_MAX));
	assert_false(resumes(&live, hop, port, 1));
	assert_true(resumes(&live, hop, port, 3));
	live_stop(&live);
	hop_free(hop);
}

static int
setup(void **state)
{
	(void)state;
	certs_make(&certs);
	tls_any = tls_client_new(TLS_VERIFY_NONE, NULL, NULL);
	tls_ca = tls_client_new(TLS_VERIFY_NAME, certs.ca, NULL);
	return tls_any != NULL && tls_ca != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	tls_context_unref(tls_any);
	tls_context_unref(tls_ca);
	certs_clear(&certs);
	g_free(last_trouble);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tls),           cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_expired),       cmocka_unit_test(test_auth),
		cmocka_unit_test(test_auth_in_clear), cmocka_unit_test(test_reuse_in_tls),
		cmocka_unit_test(test_resumption),    cmocka_unit_test(test_tickets_max),
		cmocka_unit_test(test_mx_name),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
