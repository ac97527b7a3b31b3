/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness.h"

#include <event2/event.h>
#include <stdio.h>

static void
fake_stop(TxPort *port)
{
	((FakePort *)port)->stopped = true;
}

static const TxPortOps fake_ops = {.name = "fake", .stop = fake_stop};

static FakePort *
fake_new(Harness *h, Tx *tx)
{
	FakePort *fake = g_new0(FakePort, 1);
	fake->port.ops = &fake_ops;
	fake->tx = tx_ref(tx);
	g_ptr_array_add(h->opened, fake);
	return fake;
}

static Harness *
of_ports(TxPorts *ports)
{
	return (Harness *)((char *)ports - offsetof(Harness, ports));
}

static TxPort *
fake_open_url(TxPorts *ports, const char *url, Tx *tx, const TxPortOptions *options)
{
	FakePort *fake = fake_new(of_ports(ports), tx);
	fake->url = g_strdup(url);
	fake->options = *options;
	return &fake->port;
}

static TxPort *
fake_open_sender(TxPorts *ports, const char *sender, const char *tag, Tx *tx)
{
	Harness *h = of_ports(ports);
	if (h->busy)
		return NULL;
	FakePort *fake = fake_new(h, tx);
	fake->sender = g_strdup(sender);
	fake->tag = g_strdup(tag);
	tx_set_sender(tx, sender, tag);
	return &fake->port;
}

static void
fake_free(void *data)
{
	FakePort *fake = data;
	tx_unref(fake->tx);
	g_free(fake->url);
	g_free(fake->sender);
	g_free(fake->tag);
	g_free(fake);
}

Harness *
harness_new(void)
{
	Harness *h = g_new0(Harness, 1);
	GError *error = NULL;
	h->workers = workers_new(1, &error);
	assert_non_null(h->workers);
	Worker *worker = workers_get(h->workers, 0);
	h->queue = worker_defers(worker);
	h->ports = (TxPorts){.open_url = fake_open_url, .open_sender = fake_open_sender};
	h->model = conf_model_new();
	h->opened = g_ptr_array_new_with_free_func(fake_free);
	h->report = conf_report_new();
	h->env = (FilterEnv){
		.worker = worker,
		.ports = &h->ports,
		.model = h->model,
		.hostname = "test.example",
	};
	h->tx = tx_new(h->queue);
	tx_set_sender(h->tx, "submission", "msa");
	log_set(LOG_LEVELS, LOG_LOGFMT);
	return h;
}

void
harness_free(Harness *h)
{
	chain_free(h->chain);
	for (guint i = 0; i < h->opened->len; i++)
		assert_true(harness_port(h, i)->stopped);
	tx_unref(h->tx);
	chain_conf_free(h->conf);
	yaml_doc_free(h->doc);
	g_ptr_array_unref(h->opened);
	conf_report_free(h->report);
	conf_model_free(h->model);
	workers_free(h->workers);
	g_free(h);
}

SenderConf *
harness_sender(Harness *h, const char *name, const char *upstream_tag)
{
	SenderConf *sender = sender_conf_new();
	sender->name = g_strdup(name);
	sender->output_chain = g_strdup("chain");
	sender->upstream_sender = g_strdup(name);
	sender->upstream_tag = g_strdup(upstream_tag);
	g_ptr_array_add(h->model->senders, sender);
	return sender;
}

RestEndpointConf *
harness_endpoint(Harness *h, const char *name, const char *url, const char *sender)
{
	RestEndpointConf *endpoint = rest_endpoint_conf_new();
	endpoint->name = g_strdup(name);
	endpoint->endpoint = g_strdup(url);
	endpoint->sender = g_strdup(sender);
	endpoint->max_inline = 65536;
	g_ptr_array_add(h->model->rest_endpoints, endpoint);
	return endpoint;
}

void
harness_conf(Harness *h, const char *yaml)
{
	GError *error = NULL;
	h->doc = yaml_load_text("test", yaml, &error);
	if (h->doc == NULL)
		fail_msg("%s", error->message);
	h->conf = chain_conf_new("test", yaml_root(h->doc), h->model, NULL, h->report);
	assert_non_null(h->conf);
}

void
harness_start(Harness *h)
{
	h->chain = chain_new(h->conf, h->tx, &h->env);
}

void
harness_chain(Harness *h, const char *yaml)
{
	harness_conf(h, yaml);
	for (guint i = 0; i < h->report->problems->len; i++) {
		const ConfProblem *problem = g_ptr_array_index(h->report->problems, i);
		if (problem->severity == CONF_ERROR)
			fail_msg("%s: %s", problem->where, problem->text);
	}
	harness_start(h);
}

static void
plain_conf_free(void *data)
{
	g_free(data); /* kinds given by hand own their configuration */
}

void
harness_kinds(Harness *h, const FilterKind *first, ...)
{
	h->conf = g_new0(ChainConf, 1);
	h->conf->name = g_strdup("test");
	h->conf->filters = g_ptr_array_new_with_free_func(plain_conf_free);
	va_list args;
	va_start(args, first);
	for (const FilterKind *kind = first; kind != NULL;
	     kind = va_arg(args, const FilterKind *)) {
		FilterConf *filter = g_new0(FilterConf, 1);
		filter->kind = kind;
		g_ptr_array_add(h->conf->filters, filter);
		h->conf->incremental = (kind->flags & FILTER_INCREMENTAL) != 0;
	}
	va_end(args);
	harness_start(h);
}

void
harness_turn(Harness *h)
{
	for (int i = 0; i < 100 && !defer_is_empty(h->queue); i++)
		(void)defer_run(h->queue, 16);
	assert_true(defer_is_empty(h->queue));
}

void
harness_wait(Harness *h, bool (*done)(Harness *h))
{
	Deadline give_up = clock_after(5 * USEC_PER_SEC);
	harness_turn(h);
	while (!done(h)) {
		if (clock_passed(give_up))
			fail_msg("the condition did not come true");
		event_base_loop(worker_base(h->env.worker), EVLOOP_ONCE);
		harness_turn(h);
	}
}

FakePort *
harness_port(Harness *h, guint index)
{
	assert_true(index < h->opened->len);
	return g_ptr_array_index(h->opened, index);
}

void
harness_mail(Harness *h, const char *from)
{
	g_autoptr(Mailbox) mailbox = mailbox_new(from, NULL, 0);
	tx_set_mail_from(h->tx, mailbox);
}

void
harness_rcpt(Harness *h, const char *to)
{
	g_autoptr(Mailbox) mailbox = mailbox_new(to, NULL, 0);
	tx_add_rcpt(h->tx, mailbox);
}

void
harness_body(Harness *h, const char *text)
{
	g_autoptr(Blob) blob = blob_new_bytes(text, strlen(text));
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	tx_set_body(h->tx, body);
}

json_t *
harness_output(Harness *h, const char *name)
{
	return json_object_get(chain_outputs(h->chain), name);
}

char *
harness_text(const Response *response)
{
	if (response == NULL)
		return g_strdup("-");
	return g_strdup_printf("%d %s", response->code, response->message);
}
