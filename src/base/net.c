/* SPDX-License-Identifier: Apache-2.0 */
#include "base/net.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/text.h"

HostPort *
host_port_new_named(const char *host, uint16_t port, const char *name)
{
	size_t size = strlen(host) + 1;
	size_t name_size = name != NULL ? strlen(name) + 1 : 0;
	HostPort *hp = g_malloc(sizeof(HostPort) + size + name_size); /* the texts lie behind it */
	char *text = (char *)(hp + 1);
	hp->host = memcpy(text, host, size);
	hp->port = port;
	hp->name = name != NULL ? memcpy(text + size, name, name_size) : NULL;
	atomic_init(&hp->refs, 1);
	return hp;
}

HostPort *
host_port_new(const char *host, uint16_t port)
{
	return host_port_new_named(host, port, NULL);
}

HostPort *
host_port_copy(const HostPort *hp)
{
	if (hp == NULL)
		return NULL;
	HostPort *shared = (HostPort *)hp; /* only its count changes */
	atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
	return shared;
}

void
host_port_free(HostPort *hp)
{
	if (hp != NULL && atomic_fetch_sub_explicit(&hp->refs, 1, memory_order_acq_rel) == 1)
		g_free(hp);
}

bool
host_port_equal(const HostPort *a, const HostPort *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return a->port == b->port && text_equal_nocase(a->host, b->host);
}

static bool
is_v6_literal(const char *text)
{
	struct in6_addr addr;
	return inet_pton(AF_INET6, text, &addr) == 1;
}

/* What may stand before ":port": a name, an IPv4 literal, "*" or nothing. */
static bool
is_host_text(const char *text, size_t len)
{
	if (!text_is_printable_ascii(text, len))
		return false;
	for (size_t i = 0; i < len; i++)
		if (strchr(" :[]/@\"", text[i]) != NULL)
			return false;
	return true;
}

bool
host_port_parse(const char *text, HostPort **ret_hp)
{
	const char *colon = strrchr(text, ':');
	const char *port_text = colon != NULL ? colon + 1 : text;
	uint64_t port;
	if (!text_parse_u64(port_text, strlen(port_text), UINT16_MAX, &port))
		return false;
	size_t len = colon != NULL ? (size_t)(colon - text) : 0;
	g_autofree char *host = NULL;
	if (len > 0 && text[0] == '[') {
		if (len < 2 || text[len - 1] != ']')
			return false;
		host = g_strndup(text + 1, len - 2);
		if (!is_v6_literal(host))
			return false;
	} else {
		if (!is_host_text(text, len))
			return false;
		host = g_strndup(text, len);
	}
	*ret_hp = host_port_new(host, (uint16_t)port);
	return true;
}

static void
set_v4(NetAddr *addr, const void *bytes, in_port_t port)
{
	*addr = (NetAddr){.len = sizeof(struct sockaddr_in)};
	struct sockaddr_in *in = (struct sockaddr_in *)&addr->storage;
	in->sin_family = AF_INET;
	in->sin_port = port;
	memcpy(&in->sin_addr, bytes, 4);
}

/* The family's address as bytes; NULL for other families. */
static const uint8_t *
addr_bytes(const NetAddr *addr)
{
	switch (addr->storage.ss_family) {
	case AF_INET:
		return (const uint8_t *)&((const struct sockaddr_in *)&addr->storage)->sin_addr;
	case AF_INET6:
		return (const uint8_t *)&((const struct sockaddr_in6 *)&addr->storage)->sin6_addr;
	default:
		return NULL;
	}
}

static void
unmap(NetAddr *addr)
{
	if (addr->storage.ss_family != AF_INET6)
		return;
	struct sockaddr_in6 in6 = *(const struct sockaddr_in6 *)&addr->storage;
	if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
		set_v4(addr, in6.sin6_addr.s6_addr + 12, in6.sin6_port);
}

bool
net_addr_parse(const char *literal, uint16_t port, NetAddr *ret_addr)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, literal, &v4) == 1) {
		set_v4(ret_addr, &v4, htons(port));
		return true;
	}
	if (inet_pton(AF_INET6, literal, &v6) != 1)
		return false;
	*ret_addr = (NetAddr){.len = sizeof(struct sockaddr_in6)};
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret_addr->storage;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	in6->sin6_addr = v6;
	unmap(ret_addr);
	return true;
}

void
net_addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, NetAddr *ret_addr)
{
	k_assert(len <= sizeof(ret_addr->storage));
	*ret_addr = (NetAddr){.len = len};
	if (len > 0)
		memcpy(&ret_addr->storage, sa, len);
	unmap(ret_addr);
}

uint16_t
net_addr_port(const NetAddr *addr)
{
	switch (addr->storage.ss_family) {
	case AF_INET:
		return ntohs(((const struct sockaddr_in *)&addr->storage)->sin_port);
	case AF_INET6:
		return ntohs(((const struct sockaddr_in6 *)&addr->storage)->sin6_port);
	default:
		return 0;
	}
}

static void
format_v4(const uint8_t bytes[4], char *out)
{
	for (int i = 0; i < 4; i++) {
		unsigned byte = bytes[i];
		if (byte >= 100)
			*out++ = (char)('0' + byte / 100);
		if (byte >= 10)
			*out++ = (char)('0' + byte / 10 % 10);
		*out++ = (char)('0' + byte % 10);
		*out++ = i < 3 ? '.' : '\0';
	}
}

void
net_addr_format(const NetAddr *addr, char out[NET_ADDR_TEXT_MAX])
{
	const uint8_t *bytes = addr_bytes(addr);
	if (addr->storage.ss_family == AF_INET)
		format_v4(bytes, out);
	else if (bytes == NULL ||
		 inet_ntop(addr->storage.ss_family, bytes, out, NET_ADDR_TEXT_MAX) == NULL)
		out[0] = '\0';
}

HostPort *
net_addr_host_port(const NetAddr *addr)
{
	char text[NET_ADDR_TEXT_MAX];
	net_addr_format(addr, text);
	return host_port_new(text, net_addr_port(addr));
}

bool
net_is_literal(const char *host)
{
	NetAddr addr;
	return net_addr_parse(host, 0, &addr);
}

static void
clear_host_bits(uint8_t *bytes, size_t len, unsigned bits)
{
	for (size_t i = 0; i < len; i++) {
		unsigned here = bits > 8 * i ? MIN(8u, bits - (unsigned)(8 * i)) : 0;
		bytes[i] &= (uint8_t)(0xff00u >> here);
	}
}

bool
net_cidr_parse(const char *text, NetCidr *ret_cidr)
{
	const char *slash = strchr(text, '/');
	g_autofree char *host = slash != NULL ? g_strndup(text, (size_t)(slash - text))
					      : g_strdup(text);
	NetAddr addr;
	if (!net_addr_parse(host, 0, &addr))
		return false;
	NetCidr cidr = {.family = addr.storage.ss_family};
	unsigned width = cidr.family == AF_INET ? 32 : 128;
	/* "::ffff:192.0.2.0/120" counts its bits in the IPv6 form. */
	unsigned mapped = cidr.family == AF_INET && strchr(host, ':') != NULL ? 96 : 0;
	uint64_t bits = width + mapped;
	if (slash != NULL && !text_parse_u64(slash + 1, strlen(slash + 1), width + mapped, &bits))
		return false;
	if (bits < mapped)
		return false;
	cidr.bits = (unsigned)bits - mapped;
	memcpy(cidr.bytes, addr_bytes(&addr), width / 8);
	clear_host_bits(cidr.bytes, width / 8, cidr.bits);
	*ret_cidr = cidr;
	return true;
}

bool
net_cidr_contains(const NetCidr *cidr, const char *literal)
{
	NetAddr addr;
	if (!net_addr_parse(literal, 0, &addr) || addr.storage.ss_family != cidr->family)
		return false;
	size_t width = cidr->family == AF_INET ? 4 : 16;
	uint8_t bytes[16];
	memcpy(bytes, addr_bytes(&addr), width);
	clear_host_bits(bytes, width, cidr->bits);
	return memcmp(bytes, cidr->bytes, width) == 0;
}

bool
net_is_loopback(const char *literal)
{
	NetAddr addr;
	if (!net_addr_parse(literal, 0, &addr))
		return false;
	const uint8_t *bytes = addr_bytes(&addr);
	if (addr.storage.ss_family == AF_INET)
		return bytes[0] == 127;
	return memcmp(bytes, &in6addr_loopback, sizeof(in6addr_loopback)) == 0;
}

char *
net_reverse_name(const char *literal)
{
	NetAddr addr;
	if (!net_addr_parse(literal, 0, &addr))
		return NULL;
	const uint8_t *b = addr_bytes(&addr);
	if (addr.storage.ss_family == AF_INET)
		return g_strdup_printf("%u.%u.%u.%u.in-addr.arpa", b[3], b[2], b[1], b[0]);
	GString *name = g_string_sized_new(80);
	for (int i = 15; i >= 0; i--)
		g_string_append_printf(name, "%x.%x.", b[i] & 15u, b[i] >> 4);
	g_string_append(name, "ip6.arpa");
	return g_string_free(name, FALSE);
}
