/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies that come as JSON (behaviour spec 3.5, 4.10): the text itself, somebody else's body, or a
 * message-builder spec whose parts may be somebody else's. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/text.h"
#include "rest/api_int.h"

#define JSON_MIN     (1024 * 1024)
#define JSON_DEFAULT ((size_t)100 * 1024 * 1024)

size_t
rest_json_max(const RestHost *host)
{
	if (!host->accepts_body_json)
		return JSON_MIN;
	if (host->blobs.size_max == 0 || host->blobs.size_max > JSON_DEFAULT)
		return JSON_DEFAULT;
	/* Escapes make text longer. */
	return (size_t)host->blobs.size_max + (size_t)host->blobs.size_max / 2 + JSON_MIN;
}

typedef struct Resolve {
	RestHost *host;
	Worker *worker;
	const RestPrincipal *who;
	Defer defer;
	RestBodyDoneFn *done;
	void *arg;
	TxRequest request; /* with a reference to the JSON */
	GPtrArray *uris;   /* to look up; borrowed from the JSON */
	guint next;
	GHashTable *found;   /* uri -> Blob * */
	char *domain;        /* of the envelope sender; for a Message-ID */
	RestVerdict verdict; /* failed already; status 0: not */
	char *text;          /* of the verdict */
	TxBody *body;
} Resolve;

static void
destroy_blob(void *blob)
{
	blob_unref(blob);
}

static void
finish(void *arg)
{
	Resolve *r = arg;
	r->done(r->arg, &r->verdict, r->body);
	tx_body_unref(r->body);
	tx_request_clear(&r->request);
	g_ptr_array_free(r->uris, TRUE);
	g_hash_table_destroy(r->found);
	g_free(r->domain);
	g_free(r->text);
	g_free(r);
}

static void
fail(Resolve *r, int status, const char *text)
{
	g_free(r->text);
	r->text = g_strdup(text);
	r->verdict = (RestVerdict){.status = status, .text = r->text};
}

static Blob *
reuse_found(void *arg, const char *tx_id, const char *blob_id)
{
	const Resolve *r = arg;
	g_autofree char *key = g_strdup_printf("%s/%s", tx_id, blob_id != NULL ? blob_id : "");
	Blob *blob = g_hash_table_lookup(r->found, key);
	return blob != NULL ? blob_ref(blob) : NULL;
}

static bool
too_big(const Resolve *r, uint64_t len)
{
	return r->host->blobs.size_max != 0 && len > r->host->blobs.size_max;
}

static void
build_inline(Resolve *r)
{
	const json_t *text = json_object_get(r->request.body, "inline");
	if (too_big(r, json_string_length(text))) {
		fail(r, 413, "message too large");
		return;
	}
	g_autoptr(Blob) blob = blob_new_bytes(json_string_value(text), json_string_length(text));
	r->body = tx_body_new_raw(blob);
}

static void
build_reused(Resolve *r)
{
	g_autofree char *id = NULL;
	g_autofree char *name = NULL;
	const char *uri = g_ptr_array_index(r->uris, 0);
	if (!tx_parse_blob_uri(uri, &id, &name))
		k_unreachable(); /* it was looked up */
	g_autoptr(Blob) blob = reuse_found(r, id, NULL);
	r->body = tx_body_new_raw(blob);
}

/* ---- fields that every message has (RFC 5322 3.6) ---- */

static bool
has_field(const json_t *headers, const char *name)
{
	for (size_t i = 0; i < json_array_size(headers); i++) {
		const json_t *entry = json_array_get(headers, i);
		if (text_equal_nocase(json_string_value(json_array_get(entry, 0)), name))
			return true;
	}
	return false;
}

static json_t *
make_message_id(const char *domain)
{
	uint8_t random[16];
	ids_random(random, sizeof(random));
	g_autofree char *unique = text_base64url(random, sizeof(random));
	g_autofree char *id = g_strdup_printf("%s@%s", unique, domain);
	return json_pack("[s, [s]]", "message-id", id);
}

/* Date and Message-ID, when the description does not name them.  Here and not when the message is
 * built: each attempt, on whatever replica, builds the same message. */
static void
add_missing_fields(json_t *builder, const char *domain)
{
	json_t *headers = json_object_get(builder, "headers");
	if (json_object_size(builder) == 0 || (headers != NULL && !json_is_array(headers)))
		return; /* nothing to be built; or it is refused as it is */
	if (headers == NULL) {
		headers = json_array();
		json_object_set_new(builder, "headers", headers);
	}
	if (!has_field(headers, "date"))
		json_array_append_new(headers, json_pack("[s, {s:I}]", "date", "unix_secs",
							 (json_int_t)clock_wall_sec()));
	if (!has_field(headers, "message-id"))
		json_array_append_new(headers, make_message_id(domain));
}

/* What may stand on the right of a Message-ID without further ado. */
static char *
id_domain(const Tx *tx)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
	const char *addr = tx != NULL && tx->mail_from != NULL ? tx->mail_from->addr : "";
	const char *at = strrchr(addr, '@');
	size_t len = at != NULL ? strspn(at + 1, letters) : 0;
	bool sound = len > 0 && at[1 + len] == '\0' && at[1] != '.' && at[len] != '.' &&
		     strstr(at, "..") == NULL;
	return g_strdup(sound ? at + 1 : "localhost");
}

static void
build_builder(Resolve *r)
{
	g_autoptr(GError) error = NULL;
	const json_t *spec = json_object_get(r->request.body, "message_builder");
	r->body = tx_body_from_builder(spec, reuse_found, r, &r->host->blobs, &error);
	if (r->body == NULL)
		fail(r, 400, error->message);
	else if (too_big(r, tx_body_len(r->body)))
		fail(r, 413, "message too large");
	if (r->verdict.status != 0)
		g_clear_pointer(&r->body, tx_body_unref);
	else
		add_missing_fields(r->body->builder, r->domain);
}

static void
build(Resolve *r)
{
	if (r->request.form == TX_BODY_INLINE)
		build_inline(r);
	else if (r->request.form == TX_BODY_REUSE)
		build_reused(r);
	else
		build_builder(r);
	if (r->verdict.status == 0)
		r->verdict.status = 200;
}

static void look_up(Resolve *r);

static void
on_reused(void *arg, const RestVerdict *verdict, Blob *blob)
{
	Resolve *r = arg;
	if (verdict->status != 200) {
		fail(r, verdict->status, verdict->text);
		finish(r);
		return;
	}
	g_autofree char *id = NULL;
	g_autofree char *name = NULL;
	if (!tx_parse_blob_uri(g_ptr_array_index(r->uris, r->next), &id, &name))
		k_unreachable();
	char *key = g_strdup_printf("%s/%s", id, name != NULL ? name : "");
	g_hash_table_replace(r->found, key, blob_ref(blob));
	r->next++;
	look_up(r);
	if (r->verdict.status != 0)
		finish(r);
}

/* Asks for the next foreign blob; when there is none left builds, and a verdict is there. */
static void
look_up(Resolve *r)
{
	if (r->next >= r->uris->len) {
		build(r);
		return;
	}
	g_autofree char *id = NULL;
	g_autofree char *name = NULL;
	bool as_body = r->request.form == TX_BODY_REUSE;
	if (!tx_parse_blob_uri(g_ptr_array_index(r->uris, r->next), &id, &name))
		fail(r, 400, "bad reuse_uri");
	else if (as_body != (name == NULL))
		fail(r, 400,
		     as_body ? "only a body can be reused as body"
			     : "only a named blob can be reused as part");
	else
		r->host->reuse(r->host, r->worker, id, name, r->who, on_reused, r);
}

void
rest_body_resolve(RestCall *call, const TxRequest *request, RestBodyDoneFn *done, void *arg)
{
	k_assert(request->form != TX_BODY_NONE);
	Resolve *r = g_new0(Resolve, 1);
	*r = (Resolve){.host = rest_call_host(call),
		       .worker = call->owner,
		       .who = call->who,
		       .done = done,
		       .arg = arg,
		       .request = *request};
	json_incref(r->request.body);
	r->domain = id_domain(call->tx);
	r->found = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, destroy_blob);
	if (request->form == TX_BODY_REUSE) {
		r->uris = g_ptr_array_new();
		const char *uri = json_get_str(request->body, "reuse_uri");
		g_ptr_array_add(r->uris, (char *)(uintptr_t)uri);
	} else if (request->form == TX_BODY_BUILDER) {
		r->uris = tx_builder_reuse_uris(json_object_get(request->body, "message_builder"));
	} else {
		r->uris = g_ptr_array_new();
	}
	defer_init(&r->defer, finish, r);
	look_up(r);
	if (r->verdict.status != 0)
		defer_queue(worker_defers(r->worker), &r->defer);
}
