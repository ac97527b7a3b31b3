/* SPDX-License-Identifier: Apache-2.0 */
/* The client when a destination has no more connections: who waits, and who gives one back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "script.h"

#define HELLO  "S 220 hi\nC EHLO client.example\nS 250 x\n"
#define SENDER "C MAIL\nS 250 s\n"
#define RCPT   "C RCPT\nS 250 r\n"
#define BODY   "C DATA\nS 354 go\nB\n"
#define UNSENT "(message not sent)"

/* ---- connections per destination ---- */

static void
three_connections(Live *live)
{
	live->output.per_destination = 3;
	live->output.timeouts.mail = USEC_PER_SEC;
}

/* At the limit all get a connection; the one past it waits for the first that is free, and those
 * who came earlier are served earlier. */
static void
test_waiting_list(void **state)
{
	Live live;
	Job jobs[5];
	Hop *hops[3];
	uint16_t port;
	(void)state;
	live_case = "waiting list";
	hops[0] = hop_new(&port);
	live_start(&live, three_connections);
	for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++)
		job_start(&jobs[i], &live, port, one_rcpt, "x\r\n");
	assert_int_equal(live_pool_count(&live), 3);
	hop_play(hops[0], HELLO "C MAIL\nS 550 first\nC RSET\nS 250 x\n"); /* for the first */
	/* the fourth has it now; the fifth gives up before anybody else is done */
	hop_play(hops[0], "C MAIL\nS 550 fourth\n");
	job_wait(&jobs[0]);
	job_wait(&jobs[3]);
	want(live_case, "first", jobs[0].mail, "550 first");
	want(live_case, "fourth", jobs[3].mail, "550 fourth");
	hop_play(hops[0], "C RSET\n");
	job_wait(&jobs[4]);
	want(live_case, "fifth", jobs[4].mail,
	     "450 4.4.5 too many connections to the next hop " UNSENT);
	assert_int_equal(live_pool_count(&live), 3);
	for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++)
		job_clear(&jobs[i]);
	live_stop(&live);
	hop_free(hops[0]);
}

static void
one_connection(Live *live)
{
	live->output.per_destination = 1;
}

/* What the transaction without a message gets when its turn comes again. */
static const struct {
	const char *name;
	const char *const *rcpts;
	const char *first;  /* the hop's side of its envelope */
	const char *second; /* and when it comes back with the message */
	const char *data;
} parked[] = {
	{"taken again", one_rcpt, SENDER RCPT, SENDER RCPT BODY "S 250 done\n", "250 done"},
	{"two taken again", two_rcpts, SENDER RCPT RCPT, SENDER RCPT RCPT BODY "S 250 done\n",
	 "250 done"},
	{"one of two taken", two_rcpts, SENDER RCPT "C RCPT TO:<two@b.example>\nS 550 no\n",
	 SENDER "C RCPT TO:<ok@b.example>\nS 250 r\n" BODY "S 250 done\n", "250 done"},
	{"refused now", one_rcpt, SENDER RCPT, SENDER "C RCPT\nS 550 5.1.1 gone\nC RSET\n",
	 "550 5.1.1 gone"},
	{"one of two refused now", two_rcpts, SENDER RCPT RCPT,
	 SENDER "C RCPT\nS 550 5.1.1 gone\nC RSET\n",
	 "450 4.5.1 a recipient is refused now: 550 5.1.1 gone " UNSENT},
	{"sender refused now", one_rcpt, SENDER RCPT, "C MAIL\nS 451 4.3.2 busy\nC RSET\n",
	 "451 4.3.2 busy"},
	{"connection lost", one_rcpt, SENDER RCPT, SENDER "C RCPT\nX\n",
	 "450 4.4.2 next hop closed the connection " UNSENT},
	{"421 now", one_rcpt, SENDER RCPT, SENDER "C RCPT\nS 421 4.3.2 bye\n", "421 4.3.2 bye"},
};

/* The only connection is held by a transaction whose message does not come: it is taken back for
 * the next one, whose message is there. */
static void
test_parked(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(parked); i++) {
		Live live;
		Job slow, quick;
		uint16_t port;
		live_case = parked[i].name;
		Hop *hop = hop_new(&port);
		live_start(&live, one_connection);
		job_start(&slow, &live, port, parked[i].rcpts, NULL);
		hop_play(hop, HELLO);
		hop_play(hop, parked[i].first);
		job_wait(&slow);
		want(live_case, "rcpt", slow.rcpt[0], "250 r");
		job_start(&quick, &live, port, one_rcpt, "x\r\n");
		hop_play(hop, "C RSET\nS 250 x\n" SENDER RCPT BODY "S 250 quick\n");
		job_wait(&quick);
		want(live_case, "quick", quick.data, "250 quick");
		job_add_body(&slow, "x\r\n");
		hop_play(hop, parked[i].second);
		job_wait(&slow);
		want(live_case, "data", slow.data, parked[i].data);
		job_clear(&quick);
		job_clear(&slow);
		live_stop(&live);
		hop_free(hop);
	}
}

/* All recipients were refused: there is nothing to come back for. */
static void
test_parked_for_nothing(void **state)
{
	Live live;
	Job slow, quick;
	uint16_t port;
	(void)state;
	live_case = "parked for nothing";
	Hop *hop = hop_new(&port);
	live_start(&live, one_connection);
	job_start(&slow, &live, port, one_rcpt, NULL);
	hop_play(hop, HELLO SENDER "C RCPT\nS 550 no\n");
	job_wait(&slow);
	job_start(&quick, &live, port, one_rcpt, "x\r\n");
	hop_play(hop, "C RSET\nS 250 x\n" SENDER RCPT BODY);
	job_add_body(&slow, "x\r\n");
	job_wait(&slow);
	want(live_case, "data", slow.data, "554 no valid recipients (SmtpEndpoint)");
	hop_play(hop, "S 250 quick\n");
	job_wait(&quick);
	job_clear(&quick);
	job_clear(&slow);
	live_stop(&live);
	hop_free(hop);
}

/* Nobody loses a connection to others who have one of their own. */
static void
test_not_parked_without_need(void **state)
{
	Live live;
	Job slow;
	uint16_t port;
	(void)state;
	live_case = "not parked";
	Hop *hop = hop_new(&port);
	live_start(&live, one_connection);
	job_start(&slow, &live, port, one_rcpt, NULL);
	hop_play(hop, HELLO SENDER RCPT);
	job_wait(&slow);
	g_usleep((gulong)(2 * SMTP_QUIET_MAX));
	job_add_body(&slow, "x\r\n");
	hop_play(hop, BODY "S 250 done\n");
	job_wait(&slow);
	want(live_case, "data", slow.data, "250 done");
	job_clear(&slow);
	live_stop(&live);
	hop_free(hop);
}

/* The list at its limit, and one past it. */
static void
test_waiting_max(void **state)
{
	Live live;
	uint16_t port;
	g_autofree Job *jobs = g_new0(Job, SMTP_WAITING_MAX + 2);
	(void)state;
	live_case = "waiting list at its limit";
	Hop *hop = hop_new(&port);
	live_start(&live, one_connection);
	for (unsigned i = 0; i < SMTP_WAITING_MAX + 2; i++)
		job_start(&jobs[i], &live, port, one_rcpt, "x\r\n");
	job_wait(&jobs[SMTP_WAITING_MAX + 1]);
	want(live_case, "one past", jobs[SMTP_WAITING_MAX + 1].mail,
	     "450 4.4.5 too many connections to the next hop " UNSENT);
	assert_false(jobs[SMTP_WAITING_MAX].done);
	for (unsigned i = 0; i < SMTP_WAITING_MAX + 2; i++)
		job_clear(&jobs[SMTP_WAITING_MAX + 1 - i]);
	live_stop(&live);
	hop_free(hop);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waiting_list),
		cmocka_unit_test(test_parked),
		cmocka_unit_test(test_parked_for_nothing),
		cmocka_unit_test(test_not_parked_without_need),
		cmocka_unit_test(test_waiting_max),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
