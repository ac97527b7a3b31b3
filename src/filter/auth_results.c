/* SPDX-License-Identifier: Apache-2.0 */
/* Authentication-Results (RFC 8601): puts what the filters before it found out in front of the
 * message, and takes out fields that came with it in our name (section 5). */
#include <string.h>

#include "base/json.h"
#include "filter/body_job.h"
#include "filter/body_prefix.h"
#include "filter/kinds.h"
#include "mailauth/authres.h"
#include "mailauth/spf.h"
#include "mime/header.h"

#define REMOTE_OUTPUT "koukan.remote_host_filter.RemoteHostFilter"
#define SPF_OUTPUT    "koukan.spf_check_filter.SpfCheckFilter"
#define DKIM_OUTPUT   "koukan.dkim_check_filter.DkimCheckFilter"
#define PIECE         ((size_t)64 * 1024)

typedef struct AuthConf {
	char *authserv_id;
} AuthConf;

typedef struct Work {
	Blob *raw;
	char *id, *field;
	Blob *made; /* NULL: it could not be read or written */
	GError *error;
} Work;

typedef struct AuthState {
	BodyJob *job;
	bool done;
} AuthState;

/* ---- the field ---- */

static void
add_auth(AuthRes *res, const Tx *tx)
{
	const char *user = json_get_str(tx->smtp_meta, SMTP_META_AUTH_USER);
	if (user == NULL)
		return;
	authres_add(res, "auth", "pass");
	authres_prop(res, "smtp.auth", user);
}

static void
add_iprev(AuthRes *res, const Filter *filter)
{
	static const char *const by_status[] = {"fail", "temperror", "permerror"};
	const json_t *output = filter_get_output(filter, REMOTE_OUTPUT);
	json_int_t status = json_integer_value(json_object_get(output, "status"));
	if (output == NULL || filter->down->remote_host == NULL || status < 0 || status > 2)
		return;
	bool pass = json_is_true(json_object_get(output, "fcrdns"));
	authres_add(res, "iprev", pass ? "pass" : by_status[status]);
	authres_prop(res, "policy.iprev", filter->down->remote_host->host);
}

static void
add_spf(AuthRes *res, const Filter *filter)
{
	const Tx *tx = filter->down;
	const json_t *result = json_object_get(filter_get_output(filter, SPF_OUTPUT),
					       "mail_from_result");
	json_int_t value = json_integer_value(result);
	if (!json_is_integer(result) || value < 0 || value >= SPF_RESULTS)
		return;
	authres_add(res, "spf", spf_result_name((SpfResult)value));
	if (tx->mail_from != NULL && tx->mail_from->addr[0] != '\0')
		authres_prop(res, "smtp.mailfrom", tx->mail_from->addr);
	else
		authres_prop(res, "smtp.helo", json_get_str(tx->smtp_meta, "ehlo_host"));
}

static void
add_dkim(AuthRes *res, const Filter *filter)
{
	static const char *const by_status[] = {"temperror", "pass", "fail", "permerror"};
	const json_t *output = filter_get_output(filter, DKIM_OUTPUT);
	const json_t *results = json_object_get(output, "results");
	if (output != NULL && json_array_size(results) == 0)
		authres_add(res, "dkim", "none");
	for (size_t i = 0; i < json_array_size(results); i++) {
		const json_t *result = json_array_get(results, i);
		const json_t *tags = json_object_get(result, "tags");
		json_int_t status = json_integer_value(json_object_get(result, "status"));
		if (status < 0 || status >= (json_int_t)G_N_ELEMENTS(by_status))
			continue;
		authres_add(res, "dkim", by_status[status]);
		authres_prop(res, "header.d", json_get_str(result, "domain"));
		authres_prop(res, "header.s", json_get_str(tags, "s"));
		authres_prop(res, "header.a", json_get_str(tags, "a"));
	}
}

static void
add_dmarc(AuthRes *res, const Filter *filter)
{
	const json_t *output = filter_get_output(filter, "dmarc");
	const char *result = json_get_str(output, "result");
	if (result == NULL)
		return;
	authres_add(res, "dmarc", result);
	authres_prop(res, "header.from", json_get_str(output, "domain"));
}

/* RFC 8617 10.1: with the address that the chain came from. */
static void
add_arc(AuthRes *res, const Filter *filter)
{
	const char *result = json_get_str(filter_get_output(filter, "arc"), "result");
	if (result == NULL)
		return;
	authres_add(res, "arc", result);
	if (filter->down->remote_host != NULL)
		authres_prop(res, "smtp.remote-ip", filter->down->remote_host->host);
}

static char *
make_field(const Filter *filter, const char *id)
{
	AuthRes *res = authres_new(id);
	add_auth(res, filter->down);
	add_iprev(res, filter);
	add_spf(res, filter);
	add_dkim(res, filter);
	add_dmarc(res, filter);
	add_arc(res, filter);
	return authres_end(res);
}

/* ---- the message ---- */

/* Appends the header without the fields of our name; false: there are none. */
static bool
cut_forged(const char *data, size_t len, const char *id, GString *out)
{
	MimeHeader header;
	MimeHeaderFault fault = mime_header_scan_lenient(data, len, &header);
	size_t kept = 0; /* up to here it is in `out`, or left out */
	bool any = false;
	(void)fault; /* what stands behind it is no field for readers either */
	for (size_t i = 0; i < header.n_fields; i++) {
		const MimeField *field = &header.fields[i];
		if (!mime_field_is(field, AUTHRES_FIELD) ||
		    !authres_is_of(field->value, field->value_len, id))
			continue;
		size_t start = (size_t)(field->name - data);
		size_t end = (size_t)(field->value - data) + field->value_len;
		end += end < len && data[end] == '\r' ? 1 : 0;
		end += end < len && data[end] == '\n' ? 1 : 0;
		g_string_append_len(out, data + kept, (gssize)(start - kept));
		kept = end;
		any = true;
	}
	g_string_append_len(out, data + kept, (gssize)(len - kept));
	mime_header_clear(&header);
	return any;
}

static bool
copy_rest(Blob *to, const Blob *from, uint64_t at, GError **ret_error)
{
	g_autofree char *piece = g_malloc(PIECE);
	for (;;) {
		size_t got;
		if (!blob_read(from, at, piece, PIECE, &got, ret_error))
			return false;
		if (got == 0)
			return true;
		if (!blob_append(to, piece, got, ret_error))
			return false;
		at += got;
	}
}

static Blob *
rewrite(const Work *w, const GString *head, uint64_t rest, GError **ret_error)
{
	g_autoptr(Blob) made = blob_new(NULL);
	if (!blob_append(made, w->field, strlen(w->field), ret_error) ||
	    !blob_append(made, head->str, head->len, ret_error) ||
	    !copy_rest(made, w->raw, rest, ret_error))
		return NULL;
	blob_finalize(made);
	return g_steal_pointer(&made);
}

static void
work_run(void *arg)
{
	Work *w = arg;
	size_t room = (size_t)MIN(blob_len(w->raw), (uint64_t)MIME_HEADER_BLOCK_MAX), got;
	g_autofree char *data = g_malloc(room + 1);
	if (!blob_read(w->raw, 0, data, room, &got, &w->error))
		return;
	size_t end = mime_header_end(data, got);
	size_t len = end > 0 ? end : got;
	g_autoptr(GString) head = g_string_new(NULL);
	if (cut_forged(data, len, w->id, head))
		w->made = rewrite(w, head, len, &w->error);
	else
		w->made = blob_new_prefixed(w->field, strlen(w->field), w->raw);
}

static void
work_free(void *arg)
{
	Work *w = arg;
	blob_unref(w->raw);
	blob_unref(w->made);
	g_free(w->id);
	g_free(w->field);
	g_clear_error(&w->error);
	g_free(w);
}

static BodyJob *
start(Filter *filter, Blob *raw)
{
	const AuthConf *conf = filter->conf;
	Work *w = g_new0(Work, 1);
	w->raw = blob_ref(raw);
	w->id = g_strdup(conf->authserv_id != NULL ? conf->authserv_id
						   : filter_env(filter)->hostname);
	w->field = make_field(filter, w->id);
	return body_job_start(filter, blob_len(raw), work_run, work_free, w);
}

static FilterResult
auth_results_update(Filter *filter, unsigned news)
{
	AuthState *state = filter->state;
	const TxBody *body = filter->down->body;
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) == 0)
		return FILTER_CONTINUE;
	if (body->raw == NULL) {
		filter_pass_body(filter, news);
		return FILTER_CONTINUE;
	}
	if ((news & TX_NEW_BODY_FINAL) == 0 || state->done)
		return FILTER_CONTINUE;
	if (state->job == NULL)
		state->job = start(filter, body->raw);
	if (state->job != NULL && !state->job->finished)
		return FILTER_WAIT;
	state->done = true;
	const Work *w = state->job != NULL ? state->job->arg : NULL;
	if (w != NULL && w->made != NULL)
		body_pass_raw(filter, body, w->made);
	else
		filter_fail(filter, w != NULL && w->error != NULL ? w->error->message
								  : "the pool takes no more work");
	g_clear_pointer(&state->job, body_job_free);
	return FILTER_CONTINUE;
}

static void
auth_results_close(Filter *filter)
{
	AuthState *state = filter->state;
	g_clear_pointer(&state->job, body_job_free);
}

static const ConfKey auth_keys[] = {
	{.name = "authserv_id",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(AuthConf, authserv_id),
	 .doc = "Who says so; the same on all servers of a site; default `koukan.hostname`."},
	{0},
};

const FilterKind filter_auth_results_kind = {
	.name = "auth_results",
	.doc = "Prepends an `Authentication-Results:` field with what remote_host, spf_check, "
	       "dkim_check, dmarc_check and arc_check found out in this chain, and removes those in our name "
	       "that came with the message.",
	.flags = FILTER_PROXY,
	.conf_size = sizeof(AuthConf),
	.keys = auth_keys,
	.state_size = sizeof(AuthState),
	.update = auth_results_update,
	.close = auth_results_close,
	.example = "- filter: spf_check\n"
		   "- filter: dkim_check\n"
		   "- filter: auth_results\n"
		   "  authserv_id: mx.example.com\n",
};
