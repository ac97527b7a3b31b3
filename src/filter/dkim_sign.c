/* SPDX-License-Identifier: Apache-2.0 */
/* Signs the finished message by DKIM (behaviour spec 9.5; RFC 6376, 8463).  Beyond the original:
 * Ed25519, several signatures, forms and lifetime to choose, From oversigned. */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "filter/body_job.h"
#include "filter/body_prefix.h"
#include "filter/kinds.h"
#include "mailauth/dkim_name.h"
#include "mailauth/dkim_sign.h"

#define FAILED         "signing failed (DkimSignFilter" /* sic */
#define SIGNATURES_MAX 10

typedef struct SignatureConf {
	char *key, *domain, *selector;
	DkimKeyFile *file;
} SignatureConf;

typedef struct DkimSignConf {
	char *key, *domain, *selector;
	const YamlNode *list;
	int header_form, body_form; /* CanonForm */
	GPtrArray *oversign;
	Usec lifetime;
	GPtrArray *signatures; /* SignatureConf* */
} DkimSignConf;

typedef struct Work {
	Blob *raw;
	DkimSigner *signers;
	size_t n;
	GPtrArray *strings; /* what signers point to: the configuration may go while the pool works;
			       first the oversigned names and a NULL */
	char *fields;
	GError *error;
} Work;

typedef struct SignState {
	BodyJob *job;
	bool done;
} SignState;

/* ---- signing ---- */

static void
work_run(void *arg)
{
	Work *w = arg;
	w->fields = dkim_sign(w->signers, w->n, w->raw, (int64_t)clock_wall_sec(), &w->error);
}

static void
work_free(void *arg)
{
	Work *w = arg;
	for (size_t i = 0; i < w->n; i++)
		dkim_key_unref(w->signers[i].key);
	g_free(w->signers);
	g_ptr_array_unref(w->strings);
	blob_unref(w->raw);
	g_free(w->fields);
	g_clear_error(&w->error);
	g_free(w);
}

static const char *
keep(Work *w, const char *text)
{
	char *copy = g_strdup(text);
	g_ptr_array_add(w->strings, copy);
	return copy;
}

static BodyJob *
start(Filter *filter, Blob *raw)
{
	const DkimSignConf *conf = filter->conf;
	Work *w = g_new0(Work, 1);
	w->strings = g_ptr_array_new_with_free_func(g_free);
	w->raw = blob_ref(raw);
	w->n = conf->signatures->len;
	w->signers = g_new0(DkimSigner, w->n);
	for (guint i = 0; i < conf->oversign->len; i++)
		(void)keep(w, g_ptr_array_index(conf->oversign, i));
	g_ptr_array_add(w->strings, NULL);
	for (guint i = 0; i < w->n; i++) {
		SignatureConf *signature = g_ptr_array_index(conf->signatures, i);
		w->signers[i] = (DkimSigner){
			.key = dkim_key_file_get(signature->file),
			.domain = keep(w, signature->domain),
			.selector = keep(w, signature->selector),
			.header_form = (CanonForm)conf->header_form,
			.body_form = (CanonForm)conf->body_form,
			.lifetime = (int64_t)(conf->lifetime / USEC_PER_SEC),
		};
	}
	for (guint i = 0; i < w->n; i++) /* the array has moved while it grew */
		w->signers[i].oversign = (const char *const *)w->strings->pdata;
	return body_job_start(filter, blob_len(raw), work_run, work_free, w);
}

static void
refuse(Filter *filter)
{
	Response *response = response_new(500, FAILED);
	tx_fill_in_flight(filter->down, response);
	response_unref(response);
}

static FilterResult
dkim_sign_update(Filter *filter, unsigned news)
{
	SignState *state = filter->state;
	const TxBody *body = filter->down->body;
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) == 0)
		return FILTER_CONTINUE;
	if (body->raw == NULL) { /* still a builder: nothing to sign */
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
	if (w == NULL)
		filter_fail(filter, "the pool takes no more work");
	else if (w->fields != NULL)
		body_pass_prefixed(filter, body, w->fields);
	else if (g_error_matches(w->error, K_ERROR, K_ERROR_INPUT))
		refuse(filter);
	else
		filter_fail(filter, w->error->message);
	g_clear_pointer(&state->job, body_job_free);
	return FILTER_CONTINUE;
}

static void
dkim_sign_close(Filter *filter)
{
	SignState *state = filter->state;
	g_clear_pointer(&state->job, body_job_free);
}

/* ---- configuration ---- */

static const char *const form_names[] = {"simple", "relaxed", NULL};
_Static_assert(CANON_SIMPLE == 0 && CANON_RELAXED == 1, "form_names goes by CanonForm");

static const ConfKey signature_keys[] = {
	{.name = "key",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SignatureConf, key),
	 .flags = CONF_REQUIRED,
	 .doc = "Path of the private key."},
	{.name = "domain",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SignatureConf, domain),
	 .flags = CONF_REQUIRED,
	 .doc = "Signing domain (d=)."},
	{.name = "selector",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(SignatureConf, selector),
	 .flags = CONF_REQUIRED,
	 .doc = "Selector of the key (s=)."},
	{0},
};

static void
signature_free(void *data)
{
	SignatureConf *signature = data;
	dkim_key_file_free(signature->file);
	conf_clear(signature, signature_keys);
	g_free(signature);
}

static void
add_signature(DkimSignConf *conf, SignatureConf *signature, const YamlNode *node, /* moved */
	      ConfReport *report)
{
	g_autoptr(GError) error = NULL;
	g_ptr_array_add(conf->signatures, signature);
	signature->file = dkim_key_file_new(signature->key, &error);
	if (signature->file == NULL)
		conf_error(report, node, "DKIM key: %s", error->message);
	if (!dkim_domain_ok(signature->domain, 2))
		conf_error(report, node, "'%s' is no domain to sign for", signature->domain);
	if (!dkim_domain_ok(signature->selector, 1))
		conf_error(report, node, "'%s' is no selector", signature->selector);
}

static void
read_list(DkimSignConf *conf, ConfReport *report)
{
	if (yaml_kind(conf->list) != YAML_LIST && yaml_kind(conf->list) != YAML_NULL)
		conf_error(report, conf->list, "'signatures' is a list of maps");
	for (unsigned i = 0; i < yaml_count(conf->list); i++) {
		const YamlNode *node = yaml_item(conf->list, i);
		SignatureConf *signature = g_new0(SignatureConf, 1);
		if (conf_fill(signature, signature_keys, node, NULL, report))
			add_signature(conf, signature, node, report);
		else
			signature_free(signature);
	}
}

static void
dkim_sign_conf_check(void *data, const YamlNode *node, const ConfModel *model, ConfReport *report)
{
	(void)model;
	DkimSignConf *conf = data;
	conf->signatures = g_ptr_array_new_with_free_func(signature_free);
	if (yaml_get(node, "oversign") == NULL)
		g_ptr_array_add(conf->oversign, g_strdup("From"));
	if (conf->key != NULL && (conf->domain == NULL || conf->selector == NULL)) {
		conf_error(report, node, "a key needs 'domain' and 'selector'");
	} else if (conf->key != NULL) {
		SignatureConf *signature = g_new0(SignatureConf, 1);
		*signature = (SignatureConf){.key = g_strdup(conf->key),
					     .domain = g_strdup(conf->domain),
					     .selector = g_strdup(conf->selector)};
		add_signature(conf, signature, node, report);
	}
	read_list(conf, report);
	if (conf->signatures->len > SIGNATURES_MAX)
		conf_error(report, node, "more than %d signatures", SIGNATURES_MAX);
	for (guint i = 0; i < conf->oversign->len; i++)
		if (!dkim_field_name_ok(g_ptr_array_index(conf->oversign, i)))
			conf_error(report, node, "'%s' is no field name",
				   (const char *)g_ptr_array_index(conf->oversign, i));
	conf->list = NULL; /* the document goes when the configuration is loaded */
}

static void
dkim_sign_conf_free(void *data)
{
	DkimSignConf *conf = data;
	g_clear_pointer(&conf->signatures, g_ptr_array_unref);
}

static const ConfKey dkim_sign_keys[] = {
	{.name = "key",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DkimSignConf, key),
	 .doc = "Path of the private key, RSA or Ed25519, in PEM; read again when it changes.  "
		"Without 'key' and 'signatures' the filter is disabled."},
	{.name = "domain",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DkimSignConf, domain),
	 .doc = "Signing domain (d=)."},
	{.name = "selector",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(DkimSignConf, selector),
	 .doc = "Selector of the key (s=)."},
	{.name = "signatures",
	 .type = CONF_NODE,
	 .offset = CONF_KEY(DkimSignConf, list),
	 .doc = "More signatures: a list of maps with key, domain and selector."},
	{.name = "header_canonicalization",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DkimSignConf, header_form),
	 .def = "relaxed",
	 .names = form_names,
	 .doc = "Form of the header that is signed."},
	{.name = "body_canonicalization",
	 .type = CONF_ENUM,
	 .offset = CONF_KEY(DkimSignConf, body_form),
	 .def = "simple",
	 .names = form_names,
	 .doc = "Form of the body that is signed; relaxed survives changes of white space."},
	{.name = "oversign",
	 .type = CONF_STRINGS,
	 .offset = CONF_KEY(DkimSignConf, oversign),
	 .doc = "Fields that nobody can add later without breaking the signature; default From."},
	{.name = "expire",
	 .type = CONF_SECONDS,
	 .offset = CONF_KEY(DkimSignConf, lifetime),
	 .def = "0",
	 .min = 0,
	 .max = 315360000,
	 .doc = "How long the signature counts (x=), seconds; 0: without limit."},
	{0},
};

/* Without a key it is no filter at all, so that the body need not be finished for it. */
static FilterResult
disabled_update(Filter *filter, unsigned news)
{
	(void)filter;
	(void)news;
	return FILTER_CONTINUE;
}

static const FilterKind disabled_kind = {
	.name = "dkim_sign",
	.conf_size = sizeof(DkimSignConf),
	.keys = dkim_sign_keys,
	.conf_free = dkim_sign_conf_free,
	.update = disabled_update,
};

static const FilterKind *
dkim_sign_variant(const void *data)
{
	const DkimSignConf *conf = data;
	return conf->signatures->len > 0 ? &filter_dkim_sign_kind : &disabled_kind;
}

const FilterKind filter_dkim_sign_kind = {
	.name = "dkim_sign",
	.doc = "Signs messages (DKIM); `koukan dkim key` makes the key and its DNS record.",
	.flags = FILTER_PROXY,
	.conf_size = sizeof(DkimSignConf),
	.keys = dkim_sign_keys,
	.conf_check = dkim_sign_conf_check,
	.conf_free = dkim_sign_conf_free,
	.variant = dkim_sign_variant,
	.state_size = sizeof(SignState),
	.update = dkim_sign_update,
	.close = dkim_sign_close,
	.example = "- filter: dkim_sign\n"
		   "  key: /etc/koukan/rsa.pem\n"
		   "  domain: example.com\n"
		   "  selector: rsa2026\n"
		   "  signatures:\n"
		   "  - {key: /etc/koukan/ed25519.pem, domain: example.com, selector: ed2026}\n"
		   "  body_canonicalization: relaxed\n"
		   "  oversign: [From, To, Subject]\n",
};
