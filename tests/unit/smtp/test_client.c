/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>

#include "job.h"
#include "live.h"

/* ---- scripted servers ---- */

typedef struct Script {
	const char *name;
	/* one step a line: "S line" sends it, "C prefix" wants such a line, "P text" wants exactly
	 * this in one piece (| is CRLF), "B" reads to the final dot, "X" closes, "A" accepts the
	 * next connection, "R text" sends without CRLF, "E" wants the end of the connection */
	const char *steps;
	const char *const *rcpts;
	const char *mail, *rcpt[2], *data;
} Script;

#define HI      "S 220 hi\nC EHLO client.example\n"
#define PLAIN   HI "S 250 x\n"
#define PIPE    HI "S 250-x\nS 250-SIZE 1000\nS 250 PIPELINING\n"
#define MAIL_OK "C MAIL FROM:<alice@a.example>\nS 250 2.1.0 sender\n"
#define RCPT_OK "C RCPT TO:<ok@b.example>\nS 250 2.1.5 rcpt\n"
#define DATA_OK "C DATA\nS 354 go\nB\n"
#define GROUP   "P MAIL FROM:<alice@a.example>|RCPT TO:<ok@b.example>|DATA|\n"
#define SENT    "message sent, not acknowledged)"

static const Script scripts[] = {
	{"plain",
	 PLAIN MAIL_OK RCPT_OK DATA_OK "S 250 2.0.0 queued as X\n",
	 one_rcpt,
	 "250 2.1.0 sender",
	 {"250 2.1.5 rcpt"},
	 "250 2.0.0 queued as X"},
	{"pipelined",
	 PIPE GROUP "S 250 s\nS 250 r\nS 354 go\nB\nS 250 done\n",
	 one_rcpt,
	 "250 s",
	 {"250 r"},
	 "250 done"},
	{"pipelined, one recipient refused",
	 PIPE "P MAIL FROM:<alice@a.example>|RCPT TO:<ok@b.example>|RCPT TO:<two@b.example>|DATA|\n"
	      "S 250 s\nS 550 5.1.1 no\nS 250 r\nS 354 go\nB\nS 250 done\n",
	 two_rcpts,
	 "250 s",
	 {"550 5.1.1 no", "250 r"},
	 "250 done"},
	{"pipelined, replies in one piece",
	 PIPE GROUP "R 250 s\\r\\n250 r\\r\\n354 go\\r\\n\nB\nS 250 done\n",
	 one_rcpt,
	 "250 s",
	 {"250 r"},
	 "250 done"},
	{"many lines",
	 "S 220-hi\nS 220 there\nC EHLO\nS 250-x\nS 250-\nS 250 HELP\nC MAIL\nS 250-a\nS "
	 "250 b\nC RCPT\nS 250-c\nS 250-\nS 250 d\nC DATA\nS 354-x\nS 354 y\nB\nS 250 z\n",
	 one_rcpt,
	 "250 a\nb",
	 {"250 c\n\nd"},
	 "250 z"},
	{"no EHLO",
	 HI "S 502 5.5.1 what\nC HELO client.example\nS 250 x\n" MAIL_OK RCPT_OK DATA_OK
	    "S 250 z\n",
	 one_rcpt,
	 "250 2.1.0 sender",
	 {"250 2.1.5 rcpt"},
	 "250 z"},
	{"neither",
	 HI "S 502 what\nC HELO\nS 504 no\nE\n",
	 one_rcpt,
	 "504 no",
	 {"503 5.5.1 failed precondition: MAIL"},
	 "503 *"},
	{"greeting 5xx",
	 "S 554 5.7.1 go away\nE\n",
	 one_rcpt,
	 "554 5.7.1 go away",
	 {"503 *"},
	 "503 *"},
	{"greeting 4xx", "S 450 4.7.1 later\nE\n", one_rcpt, "450 4.7.1 later", {"450 *"}, "450 *"},
	{"mail refused",
	 PLAIN "C MAIL\nS 550 5.7.1 no\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "550 5.7.1 no",
	 {"503 *"},
	 "503 *"},
	{"mail refused, pipelined",
	 PIPE GROUP "S 450 later\nS 503 no\nS 503 no\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "450 later",
	 {"450 *"},
	 "450 *"},
	{"rcpt refused",
	 PLAIN MAIL_OK "C RCPT\nS 550 5.1.1 no\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "250 2.1.0 sender",
	 {"550 5.1.1 no"},
	 "554 no valid recipients (SmtpEndpoint)"},
	{"rcpt refused for now",
	 PLAIN MAIL_OK "C RCPT\nS 450 4.2.0 no\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "250 2.1.0 sender",
	 {"450 4.2.0 no"},
	 "450 no valid recipients (SmtpEndpoint)"},
	{"rcpt refused, 354 all the same",
	 PIPE GROUP "S 250 s\nS 550 no\nS 354 go\nC .\nS 554 nothing\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "250 s",
	 {"550 no"},
	 "554 no valid recipients (SmtpEndpoint)"},
	{"rcpt refused, data refused",
	 PIPE GROUP "S 250 s\nS 550 no\nS 503 what\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "250 s",
	 {"550 no"},
	 "554 no valid recipients (SmtpEndpoint)"},
	{"data refused",
	 PLAIN MAIL_OK RCPT_OK "C DATA\nS 552 5.2.2 full\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "250 2.1.0 sender",
	 {"250 2.1.5 rcpt"},
	 "552 5.2.2 full"},
	{"message refused",
	 PLAIN MAIL_OK RCPT_OK DATA_OK "S 550 5.6.0 no\nC RSET\nS 250 x\n",
	 one_rcpt,
	 "250 2.1.0 sender",
	 {"250 2.1.5 rcpt"},
	 "550 5.6.0 no"},
	{"421 greeting", "S 421 4.3.2 busy\nE\n", one_rcpt, "421 4.3.2 busy", {"4*"}, "4*"},
	{"421 EHLO", HI "S 421 busy\nE\n", one_rcpt, "421 busy", {"4*"}, "4*"},
	{"421 MAIL", PLAIN "C MAIL\nS 421 busy\nE\n", one_rcpt, "421 busy", {"4*"}, "4*"},
	{"421 RCPT",
	 PLAIN MAIL_OK "C RCPT\nS 421 busy\nE\n",
	 two_rcpts,
	 "250 *",
	 {"421 busy", "421 busy"},
	 "4*"},
	{"421 DATA",
	 PLAIN MAIL_OK RCPT_OK "C DATA\nS 421 busy\nE\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "421 busy"},
	{"421 dot",
	 PLAIN MAIL_OK RCPT_OK DATA_OK "S 421 busy\nE\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "421 busy"},
	{"junk greeting",
	 "S HTTP/1.1 400 Bad Request\nE\n",
	 one_rcpt,
	 "450 4.5.0 next hop sent something that is no SMTP reply (message not sent)",
	 {"450 *"},
	 "450 *"},
	{"junk RCPT",
	 PLAIN MAIL_OK "C RCPT\nS \x01\x02\x03\nE\n",
	 one_rcpt,
	 "250 *",
	 {"450 *"},
	 "450 *"},
	{"junk dot",
	 PLAIN MAIL_OK RCPT_OK DATA_OK "S what\nE\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "450 4.5.0 next hop sent something that is no SMTP reply (" SENT},
	{"354 to MAIL", PLAIN "C MAIL\nS 354 go\nE\n", one_rcpt, "450 *", {"450 *"}, "450 *"},
	{"250 to DATA",
	 PLAIN MAIL_OK RCPT_OK "C DATA\nS 250 sure\nE\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "450 *"},
	{"354 to the dot",
	 PLAIN MAIL_OK RCPT_OK DATA_OK "S 354 more\nE\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "450 *"},
	{"a reply too many",
	 PLAIN "C MAIL\nS 250 s\nS 250 t\nS 250 u\nE\n",
	 one_rcpt,
	 "250 s",
	 {"250 t"},
	 "450 *"},
	{"codes differ",
	 PLAIN "C MAIL\nS 250-a\nS 251 b\nE\n",
	 one_rcpt,
	 "450 *",
	 {"450 *"},
	 "450 *"},
	{"closed at once",
	 "X\n",
	 one_rcpt,
	 "450 4.4.2 next hop closed the connection (message not sent)",
	 {"450 *"},
	 "450 *"},
	{"closed after MAIL",
	 PLAIN MAIL_OK "C RCPT\nX\n",
	 one_rcpt,
	 "250 *",
	 {"450 4.4.2 * (message not sent)"},
	 "450 *"},
	{"closed in the message",
	 PLAIN MAIL_OK RCPT_OK "C DATA\nS 354 go\nX\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "450 4.4.2 *"},
	{"closed after the dot",
	 PLAIN MAIL_OK RCPT_OK DATA_OK "X\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "450 4.4.2 next hop closed the connection (" SENT},
	{"silent greeting",
	 "E\n",
	 one_rcpt,
	 "450 4.4.2 timeout waiting for the greeting (message not sent)",
	 {"450 *"},
	 "450 *"},
	{"silent RCPT",
	 PLAIN MAIL_OK "C RCPT\nE\n",
	 one_rcpt,
	 "250 *",
	 {"450 4.4.2 timeout waiting for the reply to RCPT (message not sent)"},
	 "450 *"},
	{"silent dot",
	 PLAIN MAIL_OK RCPT_OK DATA_OK "E\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "450 4.4.2 timeout waiting for the reply to end of data (" SENT},
	{"half a reply",
	 PLAIN "C MAIL\nS 250-a\nE\n",
	 one_rcpt,
	 "450 4.4.2 timeout waiting for the reply to MAIL (message not sent)",
	 {"450 *"},
	 "450 *"},
	{"bare LF",
	 PLAIN "C MAIL\nR 250 ok\\n\nE\n",
	 one_rcpt,
	 "450 4.4.2 timeout waiting for the reply to MAIL (message not sent)",
	 {"450 *"},
	 "450 *"},
	{"answer to the dot before the dot",
	 PLAIN MAIL_OK RCPT_OK "C DATA\nR 354 go\\r\\n552 5.3.4 too big\\r\\n\nB\nC RSET\n",
	 one_rcpt,
	 "250 *",
	 {"250 *"},
	 "552 5.3.4 too big"},
};

static void
expect_piece(int fd, const char *text)
{
	GString *wanted = g_string_new(NULL);
	char buf[4096];
	for (const char *p = text; *p != '\0'; p++)
		g_string_append(wanted, *p == '|' ? "\r\n" : (char[]){*p, '\0'});
	ssize_t got = recv(fd, buf, sizeof(buf) - 1, 0);
	assert_true(got > 0);
	buf[got] = '\0';
	assert_string_equal(buf, wanted->str);
	g_string_free(wanted, TRUE);
}

static void
read_to_dot(int fd)
{
	for (;;) {
		g_autofree char *line = sock_line(fd);
		assert_non_null(line);
		if (strcmp(line, ".") == 0)
			return;
	}
}

/* The client closes, whatever it still sends before; but never a final dot. */
static void
expect_end(int fd)
{
	GString *rest = sock_rest(fd);
	assert_null(strstr(rest->str, "\r\n.\r\n"));
	g_string_free(rest, TRUE);
}

static void
play(int listener, const char *steps)
{
	g_auto(GStrv) lines = g_strsplit(steps, "\n", -1);
	int fd = sock_accept(listener);
	for (unsigned i = 0; lines[i] != NULL && lines[i][0] != '\0'; i++) {
		const char *arg = lines[i] + 2;
		g_autofree char *text = NULL;
		switch (lines[i][0]) {
		case 'S':
			text = g_strconcat(arg, "\r\n", NULL);
			sock_send(fd, text);
			break;
		case 'R':
			text = g_strcompress(arg);
			sock_send(fd, text);
			break;
		case 'C':
			script_expect(fd, arg);
			break;
		case 'P':
			expect_piece(fd, arg);
			break;
		case 'B':
			read_to_dot(fd);
			break;
		case 'E':
			expect_end(fd);
			break;
		case 'A':
			sock_close(fd);
			fd = sock_accept(listener);
			break;
		case 'X':
			sock_close(fd);
			return;
		default:
			fail_msg("step %s", lines[i]);
		}
	}
	sock_close(fd);
}

static void
short_client(Live *live)
{
	SmtpClientTimeouts *t = &live->output.timeouts;
	t->greeting = t->mail = t->rcpt = t->dot = 100 * USEC_PER_MS;
}

static void
test_scripts(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(scripts); i++) {
		const Script *s = &scripts[i];
		Live live;
		Job job;
		uint16_t port;
		live_case = s->name;
		int listener = sock_listen(&port);
		live_start(&live, strstr(s->name, "silent") != NULL ||
						  strstr(s->name, "half") != NULL ||
						  strstr(s->name, "LF") != NULL
					  ? short_client
					  : NULL);
		job_start(&job, &live, port, s->rcpts, "Subject: x\r\n\r\n.dot\r\n");
		play(listener, s->steps);
		job_wait(&job);
		want(s->name, "mail", job.mail, s->mail);
		for (unsigned r = 0; s->rcpts[r] != NULL; r++) {
			const char *star = strstr(s->rcpt[r], " * ");
			g_autofree char *head = star != NULL
							? g_strndup(s->rcpt[r],
								    (size_t)(star - s->rcpt[r]) + 2)
							: g_strdup(s->rcpt[r]);
			want(s->name, "rcpt", job.rcpt[r], head);
		}
		want(s->name, "data", job.data, s->data);
		job_clear(&job);
		live_stop(&live);
		sock_close(listener);
	}
}

/* ---- bad requests, nobody there ---- */

static void
test_bad_requests(void **state)
{
	static const struct {
		const char *host, *mail;
	} table[] = {
		{NULL, "400 SmtpEndpoint: bad request: no remote_host"},
		{"mx.example",
		 "400 SmtpEndpoint: bad request: remote_host.host is not a valid IP address"},
		{"127.0.0.1", "400 connect error Connection refused"},
	};
	Live live;
	uint16_t port;
	(void)state;
	live_start(&live, NULL);
	sock_close(sock_listen(&port)); /* a port where nobody listens */
	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		Job job = {.live = &live,
			   .port = port,
			   .host = table[i].host,
			   .from = "a@b",
			   .rcpts = one_rcpt,
			   .body = "x",
			   .body_len = 1};
		live_run(&live, job_begin, &job);
		job_wait(&job);
		want("bad request", "mail", job.mail, table[i].mail);
		assert_int_equal(job.rcpt[0][0], '4');
		assert_int_equal(job.data[0], '4');
		job_clear(&job);
	}
	live_stop(&live);
}

/* ---- against our own server ---- */

static void
deliver(Live *live, const char *body, size_t len)
{
	Job job = {.live = live,
		   .port = live->port,
		   .host = "127.0.0.1",
		   .from = "alice@a.example",
		   .rcpts = two_rcpts,
		   .body = body,
		   .body_len = len};
	live_run(live, job_begin, &job);
	job_wait(&job);
	want("own server", "mail", job.mail, "250 2.1.0 ok");
	want("own server", "rcpt", job.rcpt[1], "250 2.1.5 ok");
	want("own server", "data", job.data, "250 2.0.0 ok");
	job_clear(&job);
}

static void
test_own_server(void **state)
{
	Live live;
	(void)state;
	live_start(&live, NULL);
	GString *body = g_string_new(NULL);
	for (unsigned i = 0; body->len < 1024 * 1024; i++)
		g_string_append_printf(body, "%s line %u\r\n", i % 7 == 0 ? "." : "..", i);
	for (unsigned i = 0; i < 20; i++)
		deliver(&live, body->str, body->len);
	assert_int_equal(live.messages->len, 20);
	for (unsigned i = 0; i < 20; i++) {
		LiveMessage *message = g_ptr_array_index(live.messages, i);
		assert_int_equal(message->body->len, body->len);
		assert_memory_equal(message->body->str, body->str, body->len);
		assert_string_equal(message->rcpts, "ok@b.example two@b.example ");
	}
	g_string_free(body, TRUE);
	/* all of them over one connection */
	assert_int_equal(live.accepts, 1);
	assert_int_equal(live_pool_count(&live), 1);
	live_stop(&live);
}

static void
test_odd_bodies(void **state)
{
	static const struct {
		const char *body, *want;
	} table[] = {
		{"", ""},
		{"x", "x\r\n"},
		{".", ".\r\n"},
		{"a\nb\n", "a\r\nb\r\n"},
		{"\r\n.\r\n", "\r\n.\r\n"},
		{"a\r\n.\r\nQUIT\r\n", "a\r\n.\r\nQUIT\r\n"},
	};
	Live live;
	(void)state;
	live_start(&live, NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
		deliver(&live, table[i].body, strlen(table[i].body));
		LiveMessage *message = g_ptr_array_index(live.messages, i);
		assert_string_equal(message->body->str, table[i].want);
	}
	live_stop(&live);
}

/* A hop that reads slowly holds the message back; the connection would end if more was put into
 * it than it takes (write_max). */
static void
test_slow_reader(void **state)
{
	Live live;
	Job job;
	uint16_t port;
	int listener = sock_listen(&port), small = 8192;
	size_t len = 8 * 1024 * 1024;
	(void)state;
	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	live_start(&live, NULL);
	g_autofree char *body = g_strnfill(len, 'x');
	for (size_t at = 98; at + 1 < len; at += 100) {
		body[at] = '\r';
		body[at + 1] = '\n';
	}
	job_start(&job, &live, port, one_rcpt, body);
	int fd = sock_accept(listener);
	sock_send(fd, "220 hi\r\n");
	script_expect(fd, "EHLO");
	sock_send(fd, "250-x\r\n250 PIPELINING\r\n");
	script_expect(fd, "MAIL");
	script_expect(fd, "RCPT");
	script_expect(fd, "DATA");
	sock_send(fd, "250 x\r\n250 x\r\n354 x\r\n");
	g_usleep(100000); /* the kernel's buffers fill up */
	assert_int_equal(live_pool_count(&live), 1);
	char tail[5] = {0};
	uint64_t total = 0;
	while (memcmp(tail, "\r\n.\r\n", 5) != 0) {
		char buf[65536];
		ssize_t got = recv(fd, buf, sizeof(buf), 0);
		assert_true(got > 0);
		total += (uint64_t)got;
		for (ssize_t i = got > 5 ? got - 5 : 0; i < got; i++) {
			memmove(tail, tail + 1, 4);
			tail[4] = buf[i];
		}
	}
	sock_send(fd, "250 done\r\n");
	job_wait(&job);
	want("slow reader", "data", job.data, "250 done");
	assert_true(total >= len);
	job_clear(&job);
	live_stop(&live);
	sock_close(fd);
	sock_close(listener);
}

static void
two_uses(Live *live)
{
	live->output.reuse_max = 2;
}

static void
test_reuse_max(void **state)
{
	Live live;
	(void)state;
	live_start(&live, two_uses);
	for (unsigned i = 0; i < 5; i++)
		deliver(&live, "x\r\n", 3);
	assert_int_equal(live.accepts, 3);
	live_stop(&live);
}

static void
short_idle(Live *live)
{
	live->output.reuse_idle = 30 * USEC_PER_MS;
}

static bool
quit_came(const Live *live)
{
	return live->sessions_ended == 1;
}

static void
test_idle_ends(void **state)
{
	Live live;
	(void)state;
	live_start(&live, short_idle);
	deliver(&live, "x\r\n", 3);
	live_wait(&live, quit_came, "QUIT of the idle connection");
	assert_string_equal(live.last_reason, "quit");
	assert_int_equal(live_pool_count(&live), 0);
	live_stop(&live);
}

/* ---- reuse against scripts ---- */

static void
after_first(Live *live, int listener, uint16_t port, const char *second_steps, Job *second)
{
	Job first;
	job_start(&first, live, port, one_rcpt, "x\r\n");
	int fd = sock_accept(listener);
	sock_send(fd, "220 hi\r\n");
	script_expect(fd, "EHLO");
	sock_send(fd, "250 x\r\n");
	script_expect(fd, "MAIL");
	sock_send(fd, "250 x\r\n");
	script_expect(fd, "RCPT");
	sock_send(fd, "250 x\r\n");
	script_expect(fd, "DATA");
	sock_send(fd, "354 x\r\n");
	read_to_dot(fd);
	sock_send(fd, "250 x\r\n");
	job_wait(&first);
	job_clear(&first);
	/* no RSET behind a clean transaction */
	job_start(second, live, port, one_rcpt, "x\r\n");
	script_expect(fd, "MAIL");
	if (second_steps[0] != 'X')
		sock_send(fd, second_steps);
	sock_close(fd);
}

/* A reused connection that is dead before any reply is replaced once, unnoticed. */
static void
test_dead_reused(void **state)
{
	static const char *const ends[] = {"X", "421 4.4.2 idle too long\r\n"};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(ends); i++) {
		Live live;
		Job job;
		uint16_t port;
		int listener = sock_listen(&port);
		live_start(&live, NULL);
		after_first(&live, listener, port, ends[i], &job);
		play(listener, PLAIN MAIL_OK RCPT_OK DATA_OK "S 250 again\n");
		job_wait(&job);
		want("dead reused", "data", job.data, "250 again");
		job_clear(&job);
		live_stop(&live);
		sock_close(listener);
	}
}

/* Behind a reply it is not. */
static void
test_dead_reused_after_reply(void **state)
{
	Live live;
	Job job;
	uint16_t port;
	int listener = sock_listen(&port);
	(void)state;
	live_start(&live, NULL);
	after_first(&live, listener, port, "250 ok\r\n", &job);
	job_wait(&job);
	want("dead after reply", "mail", job.mail, "250 ok");
	want("dead after reply", "rcpt", job.rcpt[0], "450 4.4.2 *");
	job_clear(&job);
	live_stop(&live);
	sock_close(listener);
}

/* ---- a body that never becomes final ---- */

typedef struct Growing {
	Live *live;
	uint16_t port;
	Tx *tx;
	Blob *blob;
	TxPort *port_of_tx;
	bool data_answered;
	TxWatch watch;
} Growing;

static Growing *growing_now;

static void
growing_look(void *arg, Tx *tx)
{
	Growing *growing = arg;
	pthread_mutex_lock(&growing->live->lock);
	growing->data_answered = tx->data_response != NULL;
	pthread_cond_broadcast(&growing->live->changed);
	pthread_mutex_unlock(&growing->live->lock);
}

static void
growing_begin(void *arg)
{
	Growing *growing = arg;
	g_autoptr(Mailbox) from = mailbox_new("", NULL, 0);
	g_autoptr(Mailbox) to = mailbox_new("ok@b.example", NULL, 0);
	g_autoptr(HostPort) remote = host_port_new("127.0.0.1", growing->port);
	growing->tx = tx_new(worker_defers(growing->live->worker));
	tx_set_hosts(growing->tx, remote, NULL);
	tx_set_mail_from(growing->tx, from);
	tx_add_rcpt(growing->tx, to);
	growing->blob = blob_new(NULL);
	g_autoptr(TxBody) body = tx_body_new_raw(growing->blob);
	tx_set_body(growing->tx, body);
	tx_watch(growing->tx, &growing->watch, growing_look, growing);
	growing->port_of_tx = smtp_delivery_start(growing->live->pool, &growing->live->output,
						  growing->tx);
}

static void
growing_more(void *arg)
{
	Growing *growing = arg;
	g_autofree char *line = g_strnfill(1000, 'x');
	line[998] = '\r';
	line[999] = '\n';
	for (unsigned i = 0; i < 100; i++)
		k_assert(blob_append(growing->blob, line, 1000, NULL));
	tx_note_body(growing->tx);
}

static void
growing_cancel(void *arg)
{
	Growing *growing = arg;
	tx_cancel(growing->tx);
}

static void
growing_end(void *arg)
{
	Growing *growing = arg;
	tx_unwatch(&growing->watch);
	tx_port_stop(growing->port_of_tx);
	tx_unref(growing->tx);
	blob_unref(growing->blob);
}

static void
test_streaming(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 2; how++) {
		Live live;
		uint16_t port;
		int listener = sock_listen(&port);
		live_start(&live, NULL);
		Growing growing = {.live = &live, .port = port};
		live_run(&live, growing_begin, &growing);
		int fd = sock_accept(listener);
		sock_send(fd, "220 hi\r\n");
		script_expect(fd, "EHLO");
		sock_send(fd, "250-x\r\n250 PIPELINING\r\n");
		script_expect(fd, "MAIL FROM:<>");
		script_expect(fd, "RCPT");
		sock_send(fd, "250 x\r\n250 x\r\n");
		/* DATA begins when enough of the message is there, before it is final */
		live_run(&live, growing_more, &growing);
		script_expect(fd, "DATA");
		sock_send(fd, "354 x\r\n");
		for (unsigned i = 0; i < 100; i++)
			script_expect(fd, "xxxx");
		live_run(&live, growing_more, &growing);
		for (unsigned i = 0; i < 100; i++)
			script_expect(fd, "xxxx");
		live_run(&live, how == 0 ? growing_cancel : growing_end, &growing);
		GString *rest = sock_rest(fd);
		assert_int_equal(rest->len, 0);
		g_string_free(rest, TRUE);
		if (how == 0)
			live_run(&live, growing_end, &growing);
		sock_close(fd);
		live_stop(&live);
		sock_close(listener);
	}
}

static bool
data_answered(const Live *live)
{
	(void)live;
	return growing_now->data_answered;
}

static void
growing_finalize(void *arg)
{
	Growing *growing = arg;
	blob_finalize(growing->blob);
	tx_note_body(growing->tx);
}

/* The hop refuses a message before its end: the connection is closed without a final dot, and the
 * reply becomes the answer when the message is complete. */
static void
test_early_refusal(void **state)
{
	Live live;
	uint16_t port;
	int listener = sock_listen(&port);
	(void)state;
	live_start(&live, NULL);
	Growing growing = {.live = &live, .port = port};
	growing_now = &growing;
	live_run(&live, growing_begin, &growing);
	int fd = sock_accept(listener);
	sock_send(fd, "220 hi\r\n");
	script_expect(fd, "EHLO");
	sock_send(fd, "250-x\r\n250 PIPELINING\r\n");
	script_expect(fd, "MAIL FROM:<>");
	script_expect(fd, "RCPT");
	sock_send(fd, "250 x\r\n250 x\r\n");
	live_run(&live, growing_more, &growing);
	script_expect(fd, "DATA");
	sock_send(fd, "354 x\r\n");
	script_expect(fd, "xxxx");
	sock_send(fd, "552 5.3.4 too big\r\n");
	expect_end(fd);
	live_run(&live, growing_finalize, &growing);
	live_wait(&live, data_answered, "the answer to the message");
	assert_int_equal(growing.tx->data_response->code, 552);
	assert_string_equal(growing.tx->data_response->message, "5.3.4 too big");
	live_run(&live, growing_end, &growing);
	sock_close(fd);
	live_stop(&live);
	sock_close(listener);
}

/* ---- limits per destination ---- */

static void
one_connection(Live *live)
{
	live->output.per_destination = 1;
}

static void
test_per_destination(void **state)
{
	Live live;
	Job jobs[5];
	(void)state;
	live_start(&live, one_connection);
	for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++)
		job_start(&jobs[i], &live, live.port, one_rcpt, "x\r\n");
	for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
		job_wait(&jobs[i]);
		want("per destination", "data", jobs[i].data, "250 2.0.0 ok");
		job_clear(&jobs[i]);
	}
	assert_int_equal(live.accepts, 1);
	assert_int_equal(live.messages->len, 5);
	live_stop(&live);
}

/* One who waits may leave, and the others still get their turn. */
static void
test_leave_waiting(void **state)
{
	Live live;
	Job first, second, third;
	uint16_t port;
	int listener = sock_listen(&port);
	(void)state;
	live_start(&live, one_connection);
	job_start(&first, &live, port, one_rcpt, "x\r\n");
	job_start(&second, &live, port, one_rcpt, "x\r\n");
	job_start(&third, &live, port, one_rcpt, "x\r\n");
	int fd = sock_accept(listener);
	job_clear(&second);
	job_clear(&first);
	/* the connection on its way is for the third now */
	sock_send(fd, "220 hi\r\n");
	script_expect(fd, "EHLO");
	sock_send(fd, "250 x\r\n");
	script_expect(fd, "MAIL");
	sock_send(fd, "550 no\r\n");
	job_wait(&third);
	want("leave waiting", "mail", third.mail, "550 no");
	job_clear(&third);
	live_stop(&live);
	sock_close(fd);
	sock_close(listener);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_own_server),
		cmocka_unit_test(test_odd_bodies),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_reuse_max),
		cmocka_unit_test(test_idle_ends),
		cmocka_unit_test(test_dead_reused),
		cmocka_unit_test(test_dead_reused_after_reply),
		cmocka_unit_test(test_streaming),
		cmocka_unit_test(test_early_refusal),
		cmocka_unit_test(test_per_destination),
		cmocka_unit_test(test_leave_waiting),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
