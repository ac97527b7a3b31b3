/* SPDX-License-Identifier: Apache-2.0 */
/* Dialogues that end too early, after each of their bytes, by FIN and by RST; places that grow
 * scarce; passwords that must not be told apart by the time they take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "live.h"

/* bob: "secret" */
static const char users[] =
	"{\"bob\": \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"}";

#define BOB "AGJvYgBzZWNyZXQ="

static void
hostile(Live *live)
{
	live->conf.secrets = smtp_secrets_parse("users", users, strlen(users), NULL);
	live->conf.auth_clear_loopback = true;
	live->conf.auth_delay = 0;
	live->conf.chunking = true;
	live->conf.limits.error_delay = 0;
}

static void
behind_proxy(Live *live)
{
	hostile(live);
	live->conf.proxy_timeout = 5 * USEC_PER_SEC;
}

static void
with_xclient(Live *live)
{
	static NetCidr loopback;
	hostile(live);
	assert_true(net_cidr_parse("127.0.0.0/8", &loopback));
	live->conf.xclients = &loopback;
	live->conf.n_xclients = 1;
}

static bool
all_ended(const Live *live)
{
	return live->started == live->stopped && live->sessions_ended == live->expected;
}

/* ---- cut after byte n ---- */

typedef struct Script {
	const char *name;
	void (*tweak)(Live *live);
	const char *text;
	const char *end; /* behind this the (only) message is complete; NULL: there is none */
} Script;

#define ENVELOPE "MAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\n"

static const Script scripts[] = {
	{"AUTH PLAIN", hostile,
	 "EHLO c\r\nAUTH PLAIN\r\n" BOB "\r\n" ENVELOPE "BDAT 3 LAST\r\na\r\n", "LAST\r\na\r\n"},
	{"AUTH LOGIN", hostile,
	 "EHLO c\r\nAUTH LOGIN\r\nYm9i\r\nc2VjcmV0\r\nAUTH LOGIN Ym9i\r\nQUIT\r\n", NULL},
	{"AUTH that fails", hostile,
	 "EHLO c\r\nAUTH PLAIN AGJvYgB3cm9uZw==\r\nAUTH PLAIN\r\n*\r\n" ENVELOPE "RSET\r\nQUIT\r\n",
	 NULL},
	{"PROXY", behind_proxy,
	 "PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\nEHLO c\r\n" ENVELOPE "BDAT 3 LAST\r\na\r\n",
	 "LAST\r\na\r\n"},
	{"XCLIENT", with_xclient,
	 "EHLO c\r\nXCLIENT ADDR=192.0.2.7\r\nEHLO c\r\n" ENVELOPE
	 "BDAT 1\r\nx\nBDAT 2 LAST\r\n\r\n",
	 NULL},
	{"everything else", hostile,
	 "HELO c\r\nNOOP\r\nVRFY x\r\nHELP\r\nEHLO c\r\n" ENVELOPE "RSET\r\nSTARTTLS\r\n" ENVELOPE
	 "RCPT TO:<perm@b>\r\nEHLO c\r\n"
	 "QUIT\r\n",
	 NULL},
};

static void
cut_script(Live *live, const Script *script, size_t n, bool reset)
{
	size_t len = strlen(script->text);
	const char *end = script->end != NULL ? strstr(script->text, script->end) : NULL;
	size_t complete = end != NULL ? (size_t)(end - script->text) + strlen(script->end)
				      : len + 1;
	unsigned before = live->messages->len;
	int fd = sock_connect(live->port);
	live->expected++;
	sock_send_bytes(fd, script->text, n);
	if (reset) {
		struct linger linger = {.l_onoff = 1, .l_linger = 0};
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	} else {
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		g_string_free(sock_rest(fd), TRUE);
	}
	sock_close(fd);
	live_wait(live, all_ended, "the end of the session");
	/* what was complete when the client went may have arrived, nothing else has */
	assert_true(live->messages->len - before <= (n >= complete ? 1 : 0));
	if (n >= complete && !reset)
		assert_int_equal(live->messages->len - before, 1);
}

static void
test_cuts(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(scripts); i++) {
		Live live;
		live_case = scripts[i].name;
		live_start(&live, scripts[i].tweak);
		for (size_t n = 0; n <= strlen(scripts[i].text); n++) {
			cut_script(&live, &scripts[i], n, false);
			cut_script(&live, &scripts[i], n, true);
		}
		assert_int_equal(live_sessions(&live), 0);
		live_stop(&live);
		smtp_secrets_unref(live.conf.secrets);
	}
}

/* ---- scarce places ---- */

static void
few_places(Live *live)
{
	live->conf.limits.sessions_max = 10;
	live->conf.stress_timeout = 200 * USEC_PER_MS;
	live->conf.stress_total_timeout = 600 * USEC_PER_MS;
}

/* 8 of 10 places taken: who comes then, or says something then, is waited for less long. */
static void
test_stress(void **state)
{
	enum { CALM = 7 };
	Live live;
	int calm[CALM];
	(void)state;
	live_start(&live, few_places);
	for (int i = 0; i < CALM; i++) {
		calm[i] = sock_connect(live.port);
		assert_int_equal(sock_reply(calm[i], NULL), 220);
	}
	gint64 start = g_get_monotonic_time();
	int eighth = sock_connect(live.port);
	assert_int_equal(sock_reply(eighth, NULL), 220);
	g_autofree char *text = NULL;
	assert_int_equal(sock_reply(eighth, &text), 421);
	assert_true(g_str_has_prefix(text, "4.4.2 "));
	assert_true(g_get_monotonic_time() - start >= 190000);
	sock_close(eighth);
	/* the others have all the time they had */
	for (int i = 0; i < CALM; i++) {
		sock_send(calm[i], "NOOP\r\n");
		assert_int_equal(sock_reply(calm[i], NULL), 250);
	}
	/* also in the middle of a message, and whoever speaks while it is tight */
	eighth = sock_connect(live.port);
	sock_send(eighth, "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nDATA\r\n");
	for (int i = 0; i < 5; i++)
		(void)sock_reply(eighth, NULL);
	sock_send(calm[0], "NOOP\r\n");
	assert_int_equal(sock_reply(calm[0], NULL), 250);
	sock_send(eighth, "half a line");
	assert_int_equal(sock_reply(eighth, NULL), 421);
	assert_int_equal(sock_reply(calm[0], NULL), 421);
	sock_close(eighth);
	for (int i = 0; i < CALM; i++)
		sock_close(calm[i]);
	live_stop(&live);
}

/* A message that keeps coming, a byte at a time: it may while there are places, and is ended when
 * they grow scarce, also when it began before. */
static void
test_stress_dribble(void **state)
{
	enum { OTHERS = 7 };
	Live live;
	int others[OTHERS];
	struct timeval wait = {.tv_usec = 20000};
	(void)state;
	live_start(&live, few_places);
	int fd = sock_connect(live.port);
	sock_send(fd, "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@b>\r\nDATA\r\n");
	for (int i = 0; i < 5; i++)
		(void)sock_reply(fd, NULL);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	char c;
	gint64 start = g_get_monotonic_time();
	while (g_get_monotonic_time() - start < 900000) {
		sock_send(fd, "x");
		assert_int_equal(recv(fd, &c, 1, 0), -1);
	}
	for (int i = 0; i < OTHERS; i++)
		others[i] = sock_connect(live.port);
	while (recv(fd, &c, 1, 0) != 1) {
		assert_true(g_get_monotonic_time() - start < 5000000);
		(void)send(fd, "x", 1, MSG_NOSIGNAL);
	}
	assert_int_equal(c, '4');
	assert_int_equal(live.messages->len, 0);
	sock_close(fd);
	for (int i = 0; i < OTHERS; i++)
		sock_close(others[i]);
	live_stop(&live);
}

/* ---- peers that dribble ---- */

static void
impatient(Live *live)
{
	hostile(live);
	live->conf.command_timeout = 150 * USEC_PER_MS;
	live->conf.data_idle_timeout = 150 * USEC_PER_MS;
	live->conf.data_total_timeout = 400 * USEC_PER_MS;
}

static void
impatient_with_proxy(Live *live)
{
	impatient(live);
	live->conf.proxy_timeout = 150 * USEC_PER_MS;
}

typedef struct Dribble {
	const char *name;
	void (*tweak)(Live *live);
	const char *head, *tail; /* sent at once, then one by one and for ever */
	const char *last;        /* code of the last reply; NULL: none */
} Dribble;

#define TO_BODY "EHLO c\r\n" ENVELOPE

static const Dribble dribbles[] = {
	{"a command", impatient, "EHLO c\r\n", "MAIL FROM:<a", "421"},
	{"AUTH", impatient, "EHLO c\r\nAUTH PLAIN\r\n", "A", "421"},
	{"a message", impatient, TO_BODY "DATA\r\n", "x\r\n", "421"},
	{"a line of a message", impatient, TO_BODY "DATA\r\n", "x", "421"},
	{"a message that is refused", impatient, TO_BODY "DATA\r\n\n", "x\r\n", "421"},
	{"a chunk", impatient, TO_BODY "BDAT 1000000\r\n", "x", "421"},
	{"tiny chunks", impatient, TO_BODY, "BDAT 1\r\nx", "421"},
	{"a chunk out of order", impatient, "EHLO c\r\nBDAT 1000000\r\n", "x", "421"},
	{"a PROXY header", impatient_with_proxy, "", "PROXY TCP4 1.2.3.4 ", NULL},
};

static void
run_dribble(const Dribble *dribble)
{
	Live live;
	char last[4] = "", c;
	unsigned column = 0;
	live_case = dribble->name;
	live_start(&live, dribble->tweak);
	int fd = sock_connect(live.port);
	gint64 start = g_get_monotonic_time();
	struct timeval wait = {.tv_usec = 5000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	sock_send(fd, dribble->head);
	for (size_t i = 0;; i = (i + 1) % strlen(dribble->tail)) {
		ssize_t got;
		while ((got = recv(fd, &c, 1, 0)) == 1) {
			if (column < 3)
				last[column] = c;
			column = c == '\n' ? 0 : column + 1;
		}
		if (got == 0 || g_get_monotonic_time() - start > 3000000)
			break;
		if (send(fd, dribble->tail + i, 1, MSG_NOSIGNAL) != 1)
			break;
	}
	gint64 took = g_get_monotonic_time() - start;
	if (took > 2000000)
		fail_msg("%s: still there after %" G_GINT64_FORMAT " us", dribble->name, took);
	assert_true(took >= 140000);
	if (dribble->last != NULL)
		assert_string_equal(last, dribble->last);
	assert_int_equal(live.messages->len, 0);
	sock_close(fd);
	live_stop(&live);
	smtp_secrets_unref(live.conf.secrets);
}

static void
test_dribbles(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(dribbles); i++)
		run_dribble(&dribbles[i]);
}

static void
ten_places(Live *live)
{
	live->conf.limits.sessions_max = 10;
}

/* At the limit, one past it, and many past it. */
static void
test_places(void **state)
{
	enum { MAX = 10, MORE = 100 };
	Live live;
	int fds[MAX];
	(void)state;
	live_start(&live, ten_places);
	for (int i = 0; i < MAX; i++) {
		fds[i] = sock_connect(live.port);
		assert_int_equal(sock_reply(fds[i], NULL), 220);
	}
	for (int i = 0; i < MORE; i++) {
		int fd = sock_connect(live.port);
		g_autofree char *text = NULL;
		assert_int_equal(sock_reply(fd, &text), 421);
		assert_true(g_str_has_prefix(text, "4.3.2 "));
		sock_close(fd);
	}
	for (int i = 0; i < MAX; i++) {
		sock_send(fds[i], "NOOP\r\n");
		assert_int_equal(sock_reply(fds[i], NULL), 250);
		sock_close(fds[i]);
	}
	live_stop(&live);
}

/* ---- the time that a password takes ---- */

static int64_t
cpu_now(void)
{
	struct timespec now;
	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int
by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

/* Median of the CPU time, in nanoseconds: the machine's load does not count. */
static int64_t
time_of(const SmtpSecrets *secrets, const char *user, const char *password, int rounds)
{
	g_autofree int64_t *times = g_new0(int64_t, (gsize)rounds);
	for (int i = 0; i < rounds; i++) {
		int64_t start = cpu_now();
		assert_false(smtp_secrets_check(secrets, user, password, strlen(password)));
		times[i] = cpu_now() - start;
	}
	qsort(times, (size_t)rounds, sizeof(*times), by_size);
	return times[rounds / 2];
}

/* An unknown user costs what a wrong password costs. */
static void
test_timing(void **state)
{
	(void)state;
	g_autofree char *digest = smtp_secret_sha256("right");
	g_autofree char *crypted = smtp_secret_crypt("right", NULL);
	g_autofree char *scram = smtp_secret_scram("right", 20000, NULL);
	const struct {
		const char *name, *hash;
		int rounds;
	} forms[] = {{"sha256", digest, 1001}, {"crypt", crypted, 5}, {"scram", scram, 11}};
	for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
		g_autofree char *text = g_strdup_printf("{\"known\": \"%s\"}", forms[i].hash);
		SmtpSecrets *secrets = smtp_secrets_parse("users", text, strlen(text), NULL);
		assert_non_null(secrets);
		(void)time_of(secrets, "known", "wrong", 3); /* caches */
		double known = (double)time_of(secrets, "known", "wrong", forms[i].rounds);
		double unknown = (double)time_of(secrets, "nobody", "wrong", forms[i].rounds);
		if (unknown < known * 0.6 || unknown > known * 1.7)
			fail_msg("%s: known %.0f ns, unknown %.0f ns", forms[i].name, known,
				 unknown);
		smtp_secrets_unref(secrets);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cuts),   cmocka_unit_test(test_dribbles),
		cmocka_unit_test(test_stress), cmocka_unit_test(test_places),
		cmocka_unit_test(test_timing), cmocka_unit_test(test_stress_dribble),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
