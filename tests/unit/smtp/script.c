/* SPDX-License-Identifier: Apache-2.0 */
#include "script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define BYTE_PAUSE 2000 /* microseconds between bytes of a slow server */

struct Hop {
	int listener, fd; /* fd -1: no connection */
	SSL_CTX *ctx;
	SSL *ssl;
	unsigned resumed;
};

static const char *cert_path;

void
hop_use_cert(const char *path)
{
	cert_path = path;
}

Hop *
hop_new(uint16_t *ret_port)
{
	Hop *hop = g_new0(Hop, 1);
	hop->listener = sock_listen(ret_port);
	hop->fd = -1;
	return hop;
}

int
hop_fd(const Hop *hop)
{
	return hop->fd;
}

unsigned
hop_resumed(const Hop *hop)
{
	return hop->resumed;
}

static void
hang_up(Hop *hop)
{
	if (hop->ssl != NULL) {
		SSL_set_shutdown(hop->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		SSL_free(hop->ssl);
	}
	hop->ssl = NULL;
	if (hop->fd >= 0)
		sock_close(hop->fd);
	hop->fd = -1;
}

void
hop_free(Hop *hop)
{
	hang_up(hop);
	SSL_CTX_free(hop->ctx);
	sock_close(hop->listener);
	g_free(hop);
}

/* ---- bytes ---- */

static void
shake_hands(Hop *hop, bool succeeds)
{
	if (hop->ctx == NULL)
		hop->ctx = SSL_CTX_new(TLS_server_method());
	assert_int_equal(SSL_CTX_use_certificate_chain_file(hop->ctx, cert_path), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey_file(hop->ctx, cert_path, SSL_FILETYPE_PEM), 1);
	SSL_CTX_set_options(hop->ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
	/* the client's verdict reaches a TLS 1.2 server within the handshake */
	if (!succeeds)
		SSL_CTX_set_max_proto_version(hop->ctx, TLS1_2_VERSION);
	hop->ssl = SSL_new(hop->ctx);
	SSL_set_fd(hop->ssl, hop->fd);
	int rc = SSL_accept(hop->ssl);
	if ((rc == 1) != succeeds)
		fail_msg("%s: handshake: %d", live_case, rc);
	hop->resumed += rc == 1 && SSL_session_reused(hop->ssl) == 1 ? 1 : 0;
	ERR_clear_error();
}

static void
say(Hop *hop, const char *text, size_t len)
{
	if (hop->ssl == NULL)
		sock_send_bytes(hop->fd, text, len);
	else if (len > 0)
		assert_int_equal(SSL_write(hop->ssl, text, (int)len), (int)len);
}

void
hop_say(Hop *hop, const char *text, size_t len)
{
	say(hop, text, len);
}

static ssize_t
hear(Hop *hop, char *buf, size_t room)
{
	struct pollfd pfd = {.fd = hop->fd, .events = POLLIN};
	if ((hop->ssl == NULL || SSL_pending(hop->ssl) == 0) && poll(&pfd, 1, LIVE_WAIT_MS) != 1)
		fail_msg("%s: nothing came within %d ms", live_case, LIVE_WAIT_MS);
	return hop->ssl != NULL ? SSL_read(hop->ssl, buf, (int)room) : recv(hop->fd, buf, room, 0);
}

/* CRLF cut; NULL at the end.  Caller frees. */
static char *
hear_line(Hop *hop)
{
	GString *line = g_string_new(NULL);
	char c;
	while (hear(hop, &c, 1) == 1) {
		g_string_append_c(line, c);
		if (g_str_has_suffix(line->str, "\r\n")) {
			g_string_truncate(line, line->len - 2);
			return g_string_free(line, FALSE);
		}
	}
	g_string_free(line, TRUE);
	return NULL;
}

static void
expect_line(Hop *hop, const char *prefix)
{
	g_autofree char *line = hear_line(hop);
	if (line == NULL || !g_str_has_prefix(line, prefix))
		fail_msg("%s: got %s, want %s", live_case, line != NULL ? line : "(end)", prefix);
}

static void
expect_bytes(Hop *hop, const char *text, size_t len)
{
	GString *got = g_string_new(NULL);
	char c;
	while (got->len < len && hear(hop, &c, 1) == 1)
		g_string_append_c(got, c);
	if (got->len != len || memcmp(got->str, text, len) != 0)
		fail_msg("%s: got '%s', want '%s'", live_case, got->str, text);
	g_string_free(got, TRUE);
}

static void
expect_piece(Hop *hop, const char *text)
{
	GString *wanted = g_string_new(text);
	char buf[4096];
	g_string_replace(wanted, "|", "\r\n", 0);
	ssize_t got = hear(hop, buf, sizeof(buf) - 1);
	assert_true(got > 0);
	buf[got] = '\0';
	if (strcmp(buf, wanted->str) != 0)
		fail_msg("%s: got '%s', want '%s'", live_case, buf, wanted->str);
	g_string_free(wanted, TRUE);
}

static void
read_to_dot(Hop *hop)
{
	for (;;) {
		g_autofree char *line = hear_line(hop);
		if (line == NULL)
			fail_msg("%s: the message ended without a dot", live_case);
		if (strcmp(line, ".") == 0)
			return;
	}
}

static void
expect_end(Hop *hop)
{
	GString *rest = g_string_new("\r\n");
	char buf[4096];
	ssize_t got;
	while ((got = hear(hop, buf, sizeof(buf))) > 0)
		g_string_append_len(rest, buf, got);
	if (strstr(rest->str, "\r\n.\r\n") != NULL || strstr(rest->str, " LAST\r\n") != NULL)
		fail_msg("%s: the end of a message: %s", live_case, rest->str);
	g_string_free(rest, TRUE);
}

/* ---- steps ---- */

static void
say_slowly(Hop *hop, const char *text)
{
	for (; *text != '\0'; text++) {
		say(hop, text, 1);
		g_usleep(BYTE_PAUSE);
	}
}

static void
say_lines(Hop *hop, const char *arg)
{
	char *text = NULL;
	unsigned long count = strtoul(arg, &text, 10);
	g_autofree char *line = g_strconcat(text + 1, "\r\n", NULL);
	for (unsigned long i = 0; i < count; i++)
		say(hop, line, strlen(line));
}

static void
step(Hop *hop, char kind, const char *arg)
{
	g_autofree char *text = strchr("RDN", kind) != NULL ? g_strcompress(arg)
							    : g_strconcat(arg, "\r\n", NULL);
	switch (kind) {
	case 'S':
	case 'R':
		say(hop, text, strlen(text));
		break;
	case 'D':
		say_slowly(hop, text);
		break;
	case 'L':
		say_lines(hop, arg);
		break;
	case 'C':
		expect_line(hop, arg);
		break;
	case 'P':
		expect_piece(hop, arg);
		break;
	case 'N':
		expect_bytes(hop, text, strlen(text));
		break;
	case 'B':
		read_to_dot(hop);
		break;
	case 'T':
	case 'U':
		shake_hands(hop, kind == 'T');
		break;
	case 'E':
		expect_end(hop);
		break;
	case 'X':
	case 'A':
		hang_up(hop);
		if (kind == 'A')
			hop->fd = sock_accept(hop->listener);
		break;
	default:
		assert_int_equal(kind, 'O');
	}
}

void
hop_play(Hop *hop, const char *steps)
{
	g_auto(GStrv) lines = g_strsplit(steps, "\n", -1);
	if (hop->fd < 0)
		hop->fd = sock_accept(hop->listener);
	for (unsigned i = 0; lines[i] != NULL && lines[i][0] != '\0'; i++)
		step(hop, lines[i][0], lines[i][1] != '\0' ? lines[i] + 2 : "");
}

/* ---- tables ---- */

static void
check(const Case *c, const char *what, const char *got, const char *expected)
{
	if (expected != NULL)
		want(c->name, what, got, expected);
	else if (got == NULL)
		fail_msg("%s: no answer to %s", c->name, what);
}

void
cases_run(const Case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const Case *c = &cases[i];
		const char *const *rcpts = c->rcpts != NULL ? c->rcpts : one_rcpt;
		Live live;
		Job job;
		uint16_t port;
		live_case = c->name;
		Hop *hop = hop_new(&port);
		live_start(&live, c->tweak);
		job_start(&job, &live, port, rcpts,
			  c->body != NULL ? c->body : "Subject: x\r\n\r\n.dot\r\n");
		hop_play(hop, c->steps);
		job_wait(&job);
		check(c, "mail", job.mail, c->mail);
		for (unsigned r = 0; rcpts[r] != NULL; r++)
			check(c, "rcpt", job.rcpt[r], c->rcpt[r]);
		check(c, "data", job.data, c->data);
		job_clear(&job);
		live_stop(&live);
		hop_free(hop);
	}
}
