/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Hosts, ports and addresses as values.  Pure, any thread. */
#include <glib.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/check.h"

/* Counted and immutable: what is handed over is shared, also between threads. */
typedef struct HostPort {
	const char *host; /* name or address literal without brackets; owned */
	uint16_t port;
	const char *name; /* the mail host (MX) that the address is of, or NULL; owned; told beside
		       the JSON, and without a part in comparisons */
	atomic_uint refs;
} HostPort;

HostPort *host_port_new(const char *host, uint16_t port);
HostPort *host_port_new_named(const char *host, uint16_t port, const char *name); /* or NULL */
HostPort *host_port_copy(const HostPort *hp); /* one more owner; NULL gives NULL */
void host_port_free(HostPort *hp);            /* NULL is fine */
bool host_port_equal(const HostPort *a, const HostPort *b);
/* "host:port", "[v6]:port", ":port" (host = "") or "port"; false on anything else. */
K_MUST_CHECK bool host_port_parse(const char *text, HostPort **ret_hp);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HostPort, host_port_free)

typedef struct NetAddr {
	struct sockaddr_storage storage;
	socklen_t len;
} NetAddr;

/* An IPv4 or IPv6 literal (no name lookup); IPv4-mapped IPv6 becomes IPv4. */
K_MUST_CHECK bool net_addr_parse(const char *literal, uint16_t port, NetAddr *ret_addr);
void net_addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, NetAddr *ret_addr);
uint16_t net_addr_port(const NetAddr *addr);
#define NET_ADDR_TEXT_MAX 64
void net_addr_format(const NetAddr *addr, char out[NET_ADDR_TEXT_MAX]); /* host only */
HostPort *net_addr_host_port(const NetAddr *addr);
bool net_is_literal(const char *host);
/* "192.0.2.0/24", "2001:db8::/32" or a bare address; false when `cidr` does not parse. */
typedef struct NetCidr {
	int family; /* AF_INET or AF_INET6 */
	uint8_t bytes[16];
	unsigned bits;
} NetCidr;
K_MUST_CHECK bool net_cidr_parse(const char *text, NetCidr *ret_cidr);
bool net_cidr_contains(const NetCidr *cidr, const char *literal);
bool net_is_loopback(const char *literal);
/* The reverse-lookup name of an address literal (RFC 1035 3.5, RFC 3596 2.5); NULL when it is
 * none.  Caller frees. */
char *net_reverse_name(const char *literal);
