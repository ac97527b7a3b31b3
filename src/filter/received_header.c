/* SPDX-License-Identifier: Apache-2.0 */
/* Prepends a Received field (RFC 5321 4.4) to the message.  A large one flows on while it comes, a
 * small one is not worth the steps.  Names that come from peers are reduced to what cannot end a
 * clause or a line. */
#include "base/clock.h"
#include "filter/body_prefix.h"
#include "filter/filter.h"
#include "filter/kinds.h"
#include "mime/date.h"

#include <string.h>
#include <time.h>

#define NAME_MAX_BYTES 255         /* of a host name (RFC 1035 2.3.4) */
#define STREAM_MIN     (64 * 1024) /* held before the message begins to flow on */
#define REMOTE_HOST    "koukan.remote_host_filter.RemoteHostFilter"

typedef struct ReceivedConf {
	char *received_hostname;
	bool hold, tls;
} ReceivedConf;

static const ConfKey KEYS[] = {
	{.name = "received_hostname",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(ReceivedConf, received_hostname),
	 .doc = "Our name in the `by` clause; without it there is none."},
	{.name = "hold",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(ReceivedConf, hold),
	 .doc = "Keep a message until it is complete; otherwise a large one flows "
		"on while it comes."},
	{.name = "tls",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(ReceivedConf, tls),
	 .doc = "Tell protocol version and cipher of an encrypted connection in a comment behind "
		"the protocol."},
	{0}};

/* Appends a host name as peers gave it. */
static void
append_name(GString *out, const char *name)
{
	size_t at = out->len, len = strnlen(name, NAME_MAX_BYTES);
	g_string_append_len(out, name, (gssize)len);
	for (; at < out->len; at++) {
		char c = out->str[at];
		if (c <= 0x20 || c >= 0x7f || strchr("()<>;\"\\,", c) != NULL)
			out->str[at] = '?';
	}
}

/* Appends an address: UTF-8 stays (RFC 6531 3.7.3), controls and spaces do not. */
static void
append_address(GString *out, const char *address)
{
	size_t at = out->len;
	g_autofree char *valid = g_utf8_make_valid(address, -1);
	g_string_append(out, valid);
	for (; at < out->len; at++) {
		unsigned char c = (unsigned char)out->str[at];
		if (c <= 0x20 || c == 0x7f || c == ';')
			out->str[at] = '?';
	}
}

static bool
meta_true(const json_t *meta, const char *key)
{
	return json_is_true(json_object_get(meta, key));
}

static void
next_clause(GString *out)
{
	if (out->len > strlen("Received: "))
		g_string_append(out, "\r\n\t");
}

/* "from <ehlo> (<ptr> [<ip>])" */
static void
from_clause(GString *out, const Filter *filter)
{
	const Tx *tx = filter->down;
	if (tx->remote_host == NULL)
		return;
	const char *ip = tx->remote_host->host;
	const json_t *signal = filter_get_output(filter, REMOTE_HOST);
	const char *ptr = meta_true(signal, "fcrdns")
				  ? json_string_value(json_object_get(signal, "remote_hostname"))
				  : NULL;
	const char *ehlo = json_string_value(json_object_get(tx->smtp_meta, "ehlo_host"));
	if (tx->smtp_meta != NULL && (ehlo == NULL || *ehlo == '\0'))
		return;
	next_clause(out);
	g_string_append(out, "from ");
	if (tx->smtp_meta != NULL) {
		append_name(out, ehlo);
	} else if (ptr != NULL) {
		append_name(out, ptr);
	} else {
		g_string_append_c(out, '[');
		append_name(out, ip);
		g_string_append_c(out, ']');
	}
	g_string_append(out, " (");
	if (ptr != NULL) {
		append_name(out, ptr);
		g_string_append_c(out, ' ');
	}
	g_string_append_c(out, '[');
	append_name(out, ip);
	g_string_append(out, "])");
}

/* " (TLSv1.3 TLS_AES_256_GCM_SHA384)", as far as the client's connection is known. */
static void
append_tls(GString *out, const json_t *meta)
{
	const char *version = json_string_value(json_object_get(meta, SMTP_META_TLS_VERSION));
	const char *cipher = json_string_value(json_object_get(meta, SMTP_META_TLS_CIPHER));
	if (!meta_true(meta, "tls") || version == NULL)
		return;
	g_string_append(out, " (");
	append_name(out, version);
	if (cipher != NULL) {
		g_string_append_c(out, ' ');
		append_name(out, cipher);
	}
	g_string_append_c(out, ')');
}

static void
with_clause(GString *out, const Tx *tx, bool tls)
{
	next_clause(out);
	if (tx->smtp_meta == NULL) {
		g_string_append(out, "with X-RESTMTP");
		return;
	}
	const char *protocol = meta_true(tx->smtp_meta, "esmtp") ? "ESMTP" : "SMTP";
	if (tx->mail_from != NULL && mailbox_param(tx->mail_from, "SMTPUTF8") != NULL)
		protocol = "UTF8SMTP";
	g_string_append(out, "with ");
	g_string_append(out, protocol);
	g_string_append(out, meta_true(tx->smtp_meta, "tls") ? "S" : "");
	g_string_append(out, meta_true(tx->smtp_meta, "auth") ? "A" : "");
	if (tls)
		append_tls(out, tx->smtp_meta);
}

/* The date of this second; most messages of a thread come in the second of the one before. */
static const char *
date_now(void)
{
	static __thread char text[MIME_DATE_MAX];
	static __thread time_t made; /* for this second; 0: not yet */
	time_t now = (time_t)clock_wall_sec();
	if (made == now && made != 0)
		return text;
	struct tm tm;
	MimeDate date = {.unix_secs = now};
	/* An offset with seconds in it (none has been in use for a century) counts as UTC. */
	if (localtime_r(&now, &tm) != NULL && tm.tm_gmtoff % 60 == 0)
		date.tz_offset = (int)tm.tm_gmtoff;
	if (!mime_date_format(&date, text)) {
		date = (MimeDate){0}; /* the clock is beyond all calendars */
		k_assert(mime_date_format(&date, text));
	}
	made = now;
	return text;
}

static void
append_date(GString *out)
{
	g_string_append(out, ";\r\n\t");
	g_string_append(out, date_now());
	g_string_append(out, "\r\n");
}

static GString *
received_field(const Filter *filter)
{
	const ReceivedConf *conf = (const ReceivedConf *)filter->conf;
	const Tx *tx = filter->down;
	GString *out = g_string_sized_new(512);
	g_string_append(out, "Received: ");
	from_clause(out, filter);
	if (conf->received_hostname != NULL && *conf->received_hostname != '\0') {
		next_clause(out);
		g_string_append(out, "by ");
		append_name(out, conf->received_hostname);
	}
	with_clause(out, tx, conf->tls);
	if (tx_rcpt_count(tx) == 1) {
		next_clause(out);
		g_string_append(out, "for ");
		append_address(out, tx_rcpt(tx, 0)->to->addr);
	}
	append_date(out);
	return out;
}

/* The message in front of which the field can be put now. */
static bool
may_begin(const ReceivedConf *conf, const TxBody *body, unsigned news)
{
	if ((news & TX_NEW_BODY_FINAL) != 0)
		return true;
	return !conf->hold && body->builder == NULL && blob_len(body->raw) >= STREAM_MIN;
}

static FilterResult
received_update(Filter *filter, unsigned news)
{
	const TxBody *body = filter->down->body;
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) == 0)
		return FILTER_CONTINUE;
	if (body->raw == NULL) { /* still a builder: there is no message to prepend to */
		filter_pass_body(filter, news);
		return FILTER_CONTINUE;
	}
	if (filter->up->body != NULL) {
		tx_note_body(filter->up); /* the view has grown */
		return FILTER_CONTINUE;
	}
	if (!may_begin(filter->conf, body, news))
		return FILTER_CONTINUE;
	GString *field = received_field(filter);
	body_pass_prefixed(filter, body, field->str);
	g_string_free(field, TRUE);
	return FILTER_CONTINUE;
}

const FilterKind filter_received_header_kind = {
	.name = "received_header",
	.doc = "Prepends a `Received:` field to the message.",
	.flags = FILTER_PROXY,
	.conf_size = sizeof(ReceivedConf),
	.keys = KEYS,
	.update = received_update,
	.example = "- filter: received_header\n"
		   "  received_hostname: router.example.com\n",
};
