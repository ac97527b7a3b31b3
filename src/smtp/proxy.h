/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The header that a proxy puts in front of a connection (HAProxy's PROXY protocol, versions 1 and
 * 2), and the command by which Postfix and nginx say the same (XCLIENT).  Pure, any thread. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"
#include "base/net.h"

#define SMTP_PROXY_V1_MAX   107  /* bytes with CRLF */
#define SMTP_PROXY_V2_EXTRA 2048 /* bytes behind the first 16: addresses and extensions */
#define SMTP_PROXY_FIRST    15   /* bytes that the shortest header has */

typedef enum SmtpProxyResult { SMTP_PROXY_MORE, SMTP_PROXY_DONE, SMTP_PROXY_BAD } SmtpProxyResult;

typedef struct SmtpProxy {
	bool has_addresses; /* false (UNKNOWN, LOCAL, not TCP over IP): those of the connection hold
			     */
	NetAddr source, destination;
	size_t len; /* of the header, bytes */
} SmtpProxy;

/* MORE: *ret_want is how many bytes, those that are here included, may be read without passing the
 * end of the header, more than `len`.  DONE fills in *ret_proxy.  The rest is untouched. */
K_MUST_CHECK SmtpProxyResult smtp_proxy_parse(const void *data, size_t len, SmtpProxy *ret_proxy,
					      size_t *ret_want);

/* What XCLIENT said; NULL or 0 where it did not. */
typedef struct SmtpXclient {
	char *addr, *dest_addr; /* IP literals */
	int port, dest_port;    /* -1: not said */
	char *login;
	bool login_said; /* "[UNAVAILABLE]" takes a login away */
} SmtpXclient;

/* "NAME=value ..." with values in xtext.  False, and nothing to clear, when it is malformed. */
K_MUST_CHECK bool smtp_xclient_parse(const char *arg, size_t len, SmtpXclient *ret_xclient);
void smtp_xclient_clear(SmtpXclient *xclient);
