/* SPDX-License-Identifier: Apache-2.0 */
#include "smtp/proxy.h"

#include <string.h>

#include "base/text.h"
#include "smtp/dsn_param.h"
#include "smtp/secrets.h"

static const char v1_start[] = "PROXY ";
static const char v2_start[] = "\r\n\r\n\0\r\nQUIT\n";

#define V1_START 6
#define V2_START 12
#define V2_FIXED 16 /* with version, family and length */

/* ---- version 1 ----
 *
 * "PROXY" SP ("TCP4" / "TCP6") SP source SP destination SP port SP port CRLF
 * "PROXY" SP "UNKNOWN" [anything] CRLF                                       */

static bool
take_address(const char *host, const char *port, int family, NetAddr *ret_addr)
{
	uint64_t number = 0;
	NetAddr addr;
	/* the literal must be of the family that was announced, however it would be mapped */
	if ((strchr(host, ':') != NULL) != (family == AF_INET6) || !net_is_literal(host) ||
	    !text_parse_u64(port, strlen(port), UINT16_MAX, &number) ||
	    !net_addr_parse(host, (uint16_t)number, &addr))
		return false;
	*ret_addr = addr;
	return true;
}

static bool
parse_v1(const char *line, size_t len, SmtpProxy *proxy)
{
	if (memchr(line, '\0', len) != NULL || memchr(line, '\r', len) != NULL)
		return false;
	g_autofree char *text = g_strndup(line, len);
	if (strcmp(text, "PROXY UNKNOWN") == 0 || g_str_has_prefix(text, "PROXY UNKNOWN "))
		return true;
	g_auto(GStrv) words = g_strsplit(text, " ", 7);
	if (g_strv_length(words) != 6)
		return false;
	int family = strcmp(words[1], "TCP4") == 0   ? AF_INET
		     : strcmp(words[1], "TCP6") == 0 ? AF_INET6
						     : AF_UNSPEC;
	if (family == AF_UNSPEC || !take_address(words[2], words[4], family, &proxy->source) ||
	    !take_address(words[3], words[5], family, &proxy->destination))
		return false;
	proxy->has_addresses = true;
	return true;
}

static SmtpProxyResult
read_v1(const char *data, size_t len, SmtpProxy *ret_proxy, size_t *ret_want)
{
	SmtpProxy proxy = {0};
	size_t seen = MIN(len, (size_t)SMTP_PROXY_V1_MAX);
	const char *lf = memchr(data, '\n', seen);
	if (lf == NULL) {
		if (seen == SMTP_PROXY_V1_MAX)
			return SMTP_PROXY_BAD;
		size_t next = len + (data[len - 1] == '\r' ? 1 : 2);
		*ret_want = MAX((size_t)SMTP_PROXY_FIRST, MIN(next, (size_t)SMTP_PROXY_V1_MAX));
		return SMTP_PROXY_MORE;
	}
	if (lf == data || lf[-1] != '\r' || !parse_v1(data, (size_t)(lf - 1 - data), &proxy))
		return SMTP_PROXY_BAD;
	proxy.len = (size_t)(lf + 1 - data);
	*ret_proxy = proxy;
	return SMTP_PROXY_DONE;
}

/* ---- version 2 ---- */

static void
addr_v4(const uint8_t *host, const uint8_t *port, NetAddr *ret_addr)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	memcpy(&sin.sin_addr, host, 4);
	memcpy(&sin.sin_port, port, 2);
	net_addr_from_sockaddr((const struct sockaddr *)&sin, sizeof(sin), ret_addr);
}

static void
addr_v6(const uint8_t *host, const uint8_t *port, NetAddr *ret_addr)
{
	struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};
	memcpy(&sin6.sin6_addr, host, 16);
	memcpy(&sin6.sin6_port, port, 2);
	net_addr_from_sockaddr((const struct sockaddr *)&sin6, sizeof(sin6), ret_addr);
}

static bool
parse_v2(const uint8_t *head, const uint8_t *rest, size_t len, SmtpProxy *proxy)
{
	if (head[12] == 0x20) /* LOCAL: a health check; whatever else it says does not matter */
		return true;
	if (head[12] != 0x21)
		return false;
	switch (head[13]) {
	case 0x00: /* unspecified */
		return true;
	case 0x31: /* UNIX stream */
		return len >= 216;
	case 0x11:
		if (len < 12)
			return false;
		addr_v4(rest, rest + 8, &proxy->source);
		addr_v4(rest + 4, rest + 10, &proxy->destination);
		break;
	case 0x21:
		if (len < 36)
			return false;
		addr_v6(rest, rest + 32, &proxy->source);
		addr_v6(rest + 16, rest + 34, &proxy->destination);
		break;
	default: /* datagrams carry no SMTP */
		return false;
	}
	proxy->has_addresses = true;
	return true;
}

static SmtpProxyResult
read_v2(const uint8_t *data, size_t len, SmtpProxy *ret_proxy, size_t *ret_want)
{
	SmtpProxy proxy = {0};
	*ret_want = V2_FIXED;
	if (len < V2_FIXED)
		return SMTP_PROXY_MORE;
	size_t extra = (size_t)data[14] << 8 | data[15];
	if (extra > SMTP_PROXY_V2_EXTRA)
		return SMTP_PROXY_BAD;
	*ret_want = V2_FIXED + extra;
	if (len < V2_FIXED + extra)
		return SMTP_PROXY_MORE;
	if (!parse_v2(data, data + V2_FIXED, extra, &proxy))
		return SMTP_PROXY_BAD;
	proxy.len = V2_FIXED + extra;
	*ret_proxy = proxy;
	return SMTP_PROXY_DONE;
}

SmtpProxyResult
smtp_proxy_parse(const void *data, size_t len, SmtpProxy *ret_proxy, size_t *ret_want)
{
	if (len == 0) {
		*ret_want = SMTP_PROXY_FIRST;
		return SMTP_PROXY_MORE;
	}
	size_t want = 0;
	SmtpProxyResult result = SMTP_PROXY_BAD;
	if (memcmp(data, v1_start, MIN(len, (size_t)V1_START)) == 0)
		result = read_v1(data, len, ret_proxy, &want);
	else if (memcmp(data, v2_start, MIN(len, (size_t)V2_START)) == 0)
		result = read_v2(data, len, ret_proxy, &want);
	if (result == SMTP_PROXY_MORE)
		*ret_want = want;
	return result;
}

/* ---- XCLIENT ---- */

static bool
is_unavailable(const char *value)
{
	return text_equal_nocase(value, "[UNAVAILABLE]") ||
	       text_equal_nocase(value, "[TEMPUNAVAIL]");
}

static bool
take_host(char **out, const char *value)
{
	NetAddr addr;
	if (is_unavailable(value))
		return true;
	if (text_has_prefix_nocase(value, "IPV6:"))
		value += strlen("IPV6:");
	if (!net_addr_parse(value, 0, &addr))
		return false;
	char text[NET_ADDR_TEXT_MAX];
	net_addr_format(&addr, text);
	g_free(*out);
	*out = g_strdup(text);
	return true;
}

static bool
take_port(int *out, const char *value)
{
	uint64_t number = 0;
	if (is_unavailable(value))
		return true;
	if (!text_parse_u64(value, strlen(value), UINT16_MAX, &number))
		return false;
	*out = (int)number;
	return true;
}

static bool
take_login(SmtpXclient *xclient, const char *value)
{
	g_clear_pointer(&xclient->login, g_free);
	xclient->login_said = true;
	if (is_unavailable(value))
		return true;
	if (value[0] == '\0' || strlen(value) > SMTP_SECRET_MAX)
		return false;
	xclient->login = g_strdup(value);
	return true;
}

static bool
take_attribute(SmtpXclient *xclient, const char *name, const char *value)
{
	if (text_equal_nocase(name, "ADDR"))
		return take_host(&xclient->addr, value);
	if (text_equal_nocase(name, "DESTADDR"))
		return take_host(&xclient->dest_addr, value);
	if (text_equal_nocase(name, "PORT"))
		return take_port(&xclient->port, value);
	if (text_equal_nocase(name, "DESTPORT"))
		return take_port(&xclient->dest_port, value);
	if (text_equal_nocase(name, "LOGIN"))
		return take_login(xclient, value);
	/* known, and of no use here: names are looked up, and EHLO follows */
	return text_equal_nocase(name, "NAME") || text_equal_nocase(name, "HELO") ||
	       text_equal_nocase(name, "PROTO");
}

bool
smtp_xclient_parse(const char *arg, size_t len, SmtpXclient *ret_xclient)
{
	SmtpXclient xclient = {.port = -1, .dest_port = -1};
	g_autofree char *text = g_strndup(arg, len);
	g_auto(GStrv) words = g_strsplit(text, " ", 32);
	bool ok = strlen(text) == len && words[0] != NULL;
	for (unsigned i = 0; ok && words[i] != NULL; i++) {
		char *equals = strchr(words[i], '=');
		if (equals == NULL) {
			ok = false;
			break;
		}
		*equals = '\0';
		g_autofree char *value = smtp_xtext_decode(equals + 1);
		ok = value != NULL && take_attribute(&xclient, words[i], value);
	}
	if (!ok) {
		smtp_xclient_clear(&xclient);
		return false;
	}
	*ret_xclient = xclient;
	return true;
}

void
smtp_xclient_clear(SmtpXclient *xclient)
{
	g_clear_pointer(&xclient->addr, g_free);
	g_clear_pointer(&xclient->dest_addr, g_free);
	g_clear_pointer(&xclient->login, g_free);
}
