/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The ESMTP parameters of delivery status notifications (RFC 3461 4; ORCPT of RFC 6533 3).  They
 * are checked here and carried on as they came.  Pure, any thread. */
#include <stdbool.h>
#include <stddef.h>

#include "tx/address.h"

#define SMTP_DSN_ENVID_MAX 100 /* bytes as sent (RFC 3461 5.4) */
#define SMTP_DSN_ORCPT_MAX 500

/* xtext = *( xchar / "+" 2( DIGIT / "A".."F" ) ), and what it stands for is printable ASCII. */
bool smtp_xtext_is_valid(const char *text);
/* The value of an xtext; NULL when it is none.  Caller frees. */
char *smtp_xtext_decode(const char *text);

typedef enum SmtpDsnParam {
	SMTP_DSN_OTHER, /* not a parameter of RFC 3461 for this command */
	SMTP_DSN_OK,
	SMTP_DSN_BAD, /* its value is malformed: 501 */
} SmtpDsnParam;

/* RET=FULL|HDRS and ENVID=xtext; `value` NULL: none was given. */
SmtpDsnParam smtp_dsn_mail_param(const char *keyword, const char *value);
/* NOTIFY=NEVER|(SUCCESS|FAILURE|DELAY)[,...] and ORCPT=addr-type;xtext. */
SmtpDsnParam smtp_dsn_rcpt_param(const char *keyword, const char *value);

/* What the sender wants to hear of; without NOTIFY, or with one that is malformed, failures and
 * what we warn of anyway (RFC 3461 4.1).  0: NEVER. */
#define SMTP_NOTIFY_SUCCESS 1U
#define SMTP_NOTIFY_FAILURE 2U
#define SMTP_NOTIFY_DELAY   4U
unsigned smtp_dsn_notify(const Mailbox *to);
/* RET=FULL was given. */
bool smtp_dsn_wants_full(const Mailbox *from);
/* The values of ENVID, and of ORCPT as "type;address", decoded; NULL: none, or malformed. */
char *smtp_dsn_envid(const Mailbox *from);
char *smtp_dsn_orcpt(const Mailbox *to);
