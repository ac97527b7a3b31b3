/* SPDX-License-Identifier: Apache-2.0 */
/* The PROXY header and XCLIENT: the parsers, and sessions behind them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>

#include "live.h"
#include "smtp/proxy.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"

typedef struct Header {
	const char *data;
	size_t len;
	SmtpProxyResult want;
	const char *source; /* "host port"; NULL: none */
} Header;

#define H(data) data, sizeof(data) - 1

static const Header headers[] = {
	{H("PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n"), SMTP_PROXY_DONE, "192.0.2.1 56324"},
	{H("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"), SMTP_PROXY_DONE, "2001:db8::1 1"},
	{H("PROXY UNKNOWN\r\n"), SMTP_PROXY_DONE, NULL},
	{H("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), SMTP_PROXY_DONE, NULL},
	{H("PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 192.0.2.1 192.0.2.2 56324 25 1\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 192.0.2.1  192.0.2.2 1 25\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 2001:db8::1 192.0.2.2 1 25\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP6 192.0.2.1 2001:db8::1 1 25\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 host.example 192.0.2.2 1 25\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY UDP4 192.0.2.1 192.0.2.2 1 25\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY UNKNOWNx\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r \r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 25\r\n"), SMTP_PROXY_BAD, NULL},
	{H("EHLO client.example\r\n"), SMTP_PROXY_BAD, NULL},
	{H("PROXy TCP4 "), SMTP_PROXY_BAD, NULL},
	{H("\r\n\r\n\0\r\nQUIX"), SMTP_PROXY_BAD, NULL},
	{H(V2 "\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0\x19"), SMTP_PROXY_DONE,
	 "192.0.2.1 4660"},
	{H(V2 "\x21\x11\0\x0f\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0\x19\x04\0\0"), SMTP_PROXY_DONE,
	 "192.0.2.1 4660"},
	{H(V2 "\x21\x21\0\x24 \x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
	      " \x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01\0\x19"),
	 SMTP_PROXY_DONE, "2001:db8::1 1"},
	{H(V2 "\x20\0\0\0"), SMTP_PROXY_DONE, NULL},
	{H(V2 "\x21\0\0\0"), SMTP_PROXY_DONE, NULL},
	{H(V2 "\x21\x11\0\x0b\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0"), SMTP_PROXY_BAD, NULL},
	{H(V2 "\x21\x12\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\0\x19"), SMTP_PROXY_BAD, NULL},
	{H(V2 "\x11\x11\0\0"), SMTP_PROXY_BAD, NULL},
	{H(V2 "\x22\x11\0\0"), SMTP_PROXY_BAD, NULL},
	{H(V2 "\x21\x11\x08\x01"), SMTP_PROXY_BAD, NULL}, /* 2049 */
	{H(V2 "\x21\x11\x08\0"), SMTP_PROXY_MORE, NULL},  /* 2048 */
};

/* Reads as the session does: never more than what is asked for. */
static SmtpProxyResult
read_steps(const Header *header, SmtpProxy *ret_proxy)
{
	size_t at = 0, want = 0;
	for (;;) {
		SmtpProxyResult result = smtp_proxy_parse(header->data, at, ret_proxy, &want);
		if (result != SMTP_PROXY_MORE)
			return result;
		assert_true(want > at);
		if (want > header->len)
			return SMTP_PROXY_MORE;
		at = want;
	}
}

static void
test_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * G_N_ELEMENTS(headers); i++) {
		const Header *c = &headers[i / 2];
		SmtpProxy proxy = {0};
		size_t want = 0;
		SmtpProxyResult got = i % 2 == 0 ? smtp_proxy_parse(c->data, c->len, &proxy, &want)
						 : read_steps(c, &proxy);
		/* what is wrong may show only behind what may be read */
		if (got != c->want &&
		    !(i % 2 == 1 && c->want == SMTP_PROXY_BAD && got == SMTP_PROXY_MORE))
			fail_msg("%zu: %d", i / 2, (int)got);
		if (got != SMTP_PROXY_DONE)
			continue;
		assert_int_equal(proxy.len, c->len);
		assert_int_equal(proxy.has_addresses, c->source != NULL);
		if (c->source != NULL) {
			g_autoptr(HostPort) source = net_addr_host_port(&proxy.source);
			g_autofree char *text = g_strdup_printf("%s %u", source->host,
								(unsigned)source->port);
			assert_string_equal(text, c->source);
		}
	}
}

static void
test_v1_limit(void **state)
{
	(void)state;
	for (size_t len = SMTP_PROXY_V1_MAX; len <= SMTP_PROXY_V1_MAX + 1; len++) {
		g_autofree char *fill = g_strnfill(len - strlen("PROXY UNKNOWN \r\n"), 'x');
		g_autofree char *line = g_strconcat("PROXY UNKNOWN ", fill, "\r\n", NULL);
		SmtpProxy proxy;
		size_t want = 0;
		assert_int_equal(strlen(line), len);
		assert_int_equal(smtp_proxy_parse(line, len, &proxy, &want),
				 len == SMTP_PROXY_V1_MAX ? SMTP_PROXY_DONE : SMTP_PROXY_BAD);
	}
}

static void
test_xclient_parse(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		const char *addr, *login;
		int port;
	} cases[] = {
		{"ADDR=192.0.2.1", true, "192.0.2.1", NULL, -1},
		{"addr=IPV6:2001:db8::1 PORT=99 LOGIN=a+20b", true, "2001:db8::1", "a b", 99},
		{"NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE] HELO=x PROTO=ESMTP",
		 true, NULL, NULL, -1},
		{"ADDR=host.example", false, NULL, NULL, -1},
		{"ADDR", false, NULL, NULL, -1},
		{"PORT=65536", false, NULL, NULL, -1},
		{"FOO=1", false, NULL, NULL, -1},
		{"LOGIN=", false, NULL, NULL, -1},
		{"LOGIN=a+0Ab", false, NULL, NULL, -1},
		{"ADDR=192.0.2.1  PORT=1", false, NULL, NULL, -1},
	};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		SmtpXclient xclient;
		bool ok = smtp_xclient_parse(cases[i].text, strlen(cases[i].text), &xclient);
		if (ok != cases[i].ok)
			fail_msg("%s", cases[i].text);
		if (!ok)
			continue;
		assert_int_equal(g_strcmp0(xclient.addr, cases[i].addr), 0);
		assert_int_equal(g_strcmp0(xclient.login, cases[i].login), 0);
		assert_int_equal(xclient.port, cases[i].port);
		smtp_xclient_clear(&xclient);
	}
}

/* ---- sessions ---- */

static NetCidr networks[2];

static void
with_proxy(Live *live)
{
	live->conf.proxy_timeout = USEC_PER_SEC;
}

/* Each header in front of a dialogue, byte by byte, too; a bad one ends the connection. */
static void
test_sessions(void **state)
{
	Live live;
	(void)state;
	live_start(&live, with_proxy);
	for (size_t i = 0; i < 2 * G_N_ELEMENTS(headers); i++) {
		const Header *c = &headers[i / 2];
		if (c->want == SMTP_PROXY_MORE)
			continue;
		int fd = sock_connect(live.port);
		for (size_t at = 0; at < c->len; at += i % 2 == 0 ? c->len : 1)
			sock_send_bytes(fd, c->data + at, i % 2 == 0 ? c->len : 1);
		if (c->want == SMTP_PROXY_DONE) {
			sock_send(fd, "EHLO c\r\n");
			assert_int_equal(sock_reply(fd, NULL), 220);
			assert_int_equal(sock_reply(fd, NULL), 250);
		} else {
			(void)shutdown(fd, SHUT_WR); /* it may have closed already */
			char c1;
			assert_true(recv(fd, &c1, 1, 0) <= 0);
		}
		sock_close(fd);
	}
	live_stop(&live);
}

static void
quick_proxy(Live *live)
{
	live->conf.proxy_timeout = 50 * USEC_PER_MS;
}

static void
strange_proxy(Live *live)
{
	live->conf.proxy_timeout = 20 * USEC_PER_SEC;
	assert_true(net_cidr_parse("192.0.2.0/24", &networks[0]));
	live->conf.proxies = networks;
	live->conf.n_proxies = 1;
}

static bool
one_ended(const Live *live)
{
	return live->sessions_ended == 1;
}

static void
test_refused(void **state)
{
	static const struct {
		void (*tweak)(Live *live);
		const char *reason;
	} cases[] = {{quick_proxy, "no PROXY header in time"},
		     {strange_proxy, "PROXY header not believed"}};
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Live live;
		live_start(&live, cases[i].tweak);
		int fd = sock_connect(live.port);
		GString *rest = sock_rest(fd);
		assert_int_equal(rest->len, 0);
		g_string_free(rest, TRUE);
		live_wait(&live, one_ended, cases[i].reason);
		assert_string_equal(live.last_reason, cases[i].reason);
		sock_close(fd);
		live_stop(&live);
	}
}

static void
with_xclient(Live *live)
{
	assert_true(net_cidr_parse("127.0.0.0/8", &networks[0]));
	live->conf.xclients = networks;
	live->conf.n_xclients = 1;
	live->conf.limits.error_delay = 0;
}

static void
expect(int fd, const char *line, int code)
{
	g_autofree char *text = NULL;
	if (line != NULL) {
		sock_send(fd, line);
		sock_send(fd, "\r\n");
	}
	int got = sock_reply(fd, &text);
	if (got != code)
		fail_msg("%s: %d %s", line != NULL ? line : "the greeting", got, text);
}

static void
test_xclient(void **state)
{
	Live live;
	(void)state;
	live_start(&live, with_xclient);
	int fd = sock_connect(live.port);
	expect(fd, NULL, 220);
	expect(fd, "EHLO c", 250);
	expect(fd, "XCLIENT", 501);
	expect(fd, "XCLIENT ADDR=x", 501);
	expect(fd, "MAIL FROM:<a@b>", 250);
	expect(fd, "XCLIENT ADDR=192.0.2.9", 503);
	expect(fd, "RSET", 250);
	expect(fd, "XCLIENT ADDR=192.0.2.9 PORT=7 LOGIN=bob", 220);
	expect(fd, "MAIL FROM:<a@b>", 503); /* all is forgotten */
	expect(fd, "EHLO c", 250);
	expect(fd, "MAIL FROM:<a@b>", 250);
	assert_string_equal(live.last_meta, "{\"ehlo_host\":\"c\",\"esmtp\":true,\"tls\":false,"
					    "\"auth\":true,\"auth_user\":\"bob\"}");
	expect(fd, "QUIT", 221);
	sock_close(fd);
	live_stop(&live);
	/* a stranger */
	live_start(&live, NULL);
	fd = sock_connect(live.port);
	expect(fd, NULL, 220);
	expect(fd, "EHLO c", 250);
	expect(fd, "XCLIENT ADDR=192.0.2.9", 502);
	sock_close(fd);
	live_stop(&live);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers),       cmocka_unit_test(test_v1_limit),
		cmocka_unit_test(test_xclient_parse), cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_refused),       cmocka_unit_test(test_xclient),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
