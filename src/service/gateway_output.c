/* SPDX-License-Identifier: Apache-2.0 */
/* smtp_output.hosts of the configuration as outputs of the SMTP client: TLS contexts, secrets and
 * addresses are read once, at start. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "service/gateway_int.h"

#define SECRET_MAX 1024 /* bytes; a line of AUTH has 12288 (RFC 4954 4) */

static Usec
at_most(Usec span, Usec limit)
{
	return limit > 0 && limit < span ? limit : span;
}

static void
set_timeouts(SmtpClientTimeouts *t, Usec limit)
{
	Usec *const phases[] = {&t->connect, &t->greeting, &t->ehlo, &t->tls,   &t->auth,
				&t->mail,    &t->rcpt,     &t->data, &t->block, &t->dot};
	for (size_t i = 0; i < G_N_ELEMENTS(phases); i++)
		*phases[i] = at_most(*phases[i], limit);
}

/* The first line of the file. */
static char *
read_secret(const char *path, GError **ret_error)
{
	char line[SECRET_MAX + 2];
	FILE *file = fopen(path, "re");
	if (file == NULL) {
		(void)error_set_errno(ret_error, K_ERROR_IO, errno, "auth_secret_file %s", path);
		return NULL;
	}
	bool got = fgets(line, sizeof(line), file) != NULL;
	(void)fclose(file);
	size_t len = got ? strcspn(line, "\r\n") : 0;
	char *secret = NULL;
	if (len == 0 || len > SECRET_MAX)
		error_set(
			ret_error, K_ERROR_CONFIG,
			"auth_secret_file %s: the first line must be a password of at most %d bytes",
			path, SECRET_MAX);
	else
		secret = g_strndup(line, len);
	explicit_bzero(line, sizeof(line));
	return secret;
}

/* The keys of the configuration stand in the order of the enum. */
_Static_assert(SMTP_TLS_NONE == 0 && SMTP_TLS_IMPLICIT == 4 && SMTP_TLS_POLICIES == 5, "tls:");

static bool
set_tls(GatewayOutput *output, const SmtpHostConf *host, GError **ret_error)
{
	SmtpOutputConf *conf = &output->conf;
	conf->tls_policy = (SmtpTlsPolicy)host->tls;
	conf->tls_name = host->tls_name;
	conf->tls_mx_name = host->tls_mx_name;
	bool verify = conf->tls_policy == SMTP_TLS_VERIFIED ||
		      (conf->tls_policy == SMTP_TLS_IMPLICIT &&
		       (host->tls_ca != NULL || host->tls_name != NULL || host->tls_mx_name));
	if (conf->tls_policy == SMTP_TLS_NONE)
		return true;
	output->tls = tls_client_new(verify ? TLS_VERIFY_NAME : TLS_VERIFY_NONE, host->tls_ca,
				     ret_error);
	conf->tls = output->tls;
	return output->tls != NULL;
}

/* For the log: an opportunistic output goes on in plain text. */
static void
on_tls_trouble(const SmtpOutputConf *conf, const SmtpTlsTrouble *trouble)
{
	log_warn(NULL, "smtp.tls", LOG_S("tag", conf->name), LOG_S("host", trouble->peer),
		 LOG_S("text", trouble->text), LOG_S("then", "plain text"));
}

static bool
output_init(GatewayOutput *output, const SmtpHostConf *host, GError **ret_error)
{
	SmtpOutputConf *conf = &output->conf;
	smtp_output_conf_init(conf);
	conf->name = host->tag;
	conf->ehlo_host = host->ehlo_host;
	conf->protocol = host->protocol == 1 ? SMTP_PROTOCOL_LMTP : SMTP_PROTOCOL_SMTP;
	conf->enable_bdat = host->enable_bdat;
	conf->chunk_size = (size_t)host->chunk_size;
	conf->per_destination = (unsigned)host->connections;
	conf->reuse_max = (unsigned)host->reuse_max;
	conf->reuse_idle = host->reuse_idle;
	conf->on_tls_trouble = on_tls_trouble;
	set_timeouts(&conf->timeouts, host->timeout);
	if (host->source != NULL && net_addr_parse(host->source, 0, &output->source))
		conf->source = &output->source;
	if (host->auth_user != NULL) {
		output->secret = read_secret(host->auth_secret_file, ret_error);
		conf->auth_user = host->auth_user;
		conf->auth_secret = output->secret;
		if (output->secret == NULL)
			return false;
	}
	return set_tls(output, host, ret_error);
}

void
gateway_outputs_init(Gateway *gateway)
{
	const GPtrArray *hosts = gateway->config->hosts;
	gateway->outputs = g_new0(GatewayOutput, hosts->len + 1);
	for (guint i = 0; i < hosts->len; i++) {
		const SmtpHostConf *host = hosts->pdata[i];
		GError **error = gateway->outputs_error == NULL ? &gateway->outputs_error : NULL;
		if (!output_init(&gateway->outputs[i], host, error) && error != NULL)
			g_prefix_error(error, "smtp_output %s: ", host->tag);
	}
}

void
gateway_outputs_clear(Gateway *gateway)
{
	for (guint i = 0; i < gateway->config->hosts->len; i++) {
		GatewayOutput *output = &gateway->outputs[i];
		tls_context_unref(output->tls);
		if (output->secret != NULL)
			explicit_bzero(output->secret, strlen(output->secret));
		g_free(output->secret);
	}
	g_free(gateway->outputs);
	g_clear_error(&gateway->outputs_error);
}

const SmtpOutputConf *
gateway_output(const Gateway *gateway, const char *tag)
{
	for (guint i = 0; i < gateway->config->hosts->len; i++) {
		if (g_strcmp0(gateway->outputs[i].conf.name, tag) == 0)
			return &gateway->outputs[i].conf;
	}
	return NULL;
}
