/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/model.h"

#include <string.h>

static void
free_sender(void *data)
{
	sender_conf_free(data);
}

static void
free_rest_endpoint(void *data)
{
	rest_endpoint_conf_free(data);
}

ConfModel *
conf_model_new(void)
{
	ConfModel *model = g_new0(ConfModel, 1);
	model->senders = g_ptr_array_new_with_free_func(free_sender);
	model->rest_endpoints = g_ptr_array_new_with_free_func(free_rest_endpoint);
	return model;
}

void
conf_model_free(ConfModel *model)
{
	if (model == NULL)
		return;
	g_ptr_array_unref(model->senders);
	g_ptr_array_unref(model->rest_endpoints);
	g_free(model);
}

SenderConf *
sender_conf_new(void)
{
	SenderConf *sender = g_new0(SenderConf, 1);
	sender->tags = g_ptr_array_new_with_free_func(free_sender);
	return sender;
}

void
sender_conf_free(SenderConf *sender)
{
	if (sender == NULL)
		return;
	g_ptr_array_unref(sender->tags);
	g_free(sender->name);
	g_free(sender->tag);
	g_free(sender->output_chain);
	g_free(sender->upstream_sender);
	g_free(sender->upstream_tag);
	g_free(sender->remote_host);
	g_free(sender->smtp_meta);
	g_free(sender);
}

RestEndpointConf *
rest_endpoint_conf_new(void)
{
	RestEndpointConf *endpoint = g_new0(RestEndpointConf, 1);
	endpoint->max_inline = 65536;
	return endpoint;
}

void
rest_endpoint_conf_free(RestEndpointConf *endpoint)
{
	if (endpoint == NULL)
		return;
	g_free(endpoint->name);
	g_free(endpoint->endpoint);
	g_free(endpoint->sender);
	g_free(endpoint->tag);
	g_free(endpoint);
}

static const SenderConf *
find_tag(const SenderConf *sender, const char *tag)
{
	for (unsigned i = 0; i < sender->tags->len; i++) {
		const SenderConf *at = sender->tags->pdata[i];
		if (g_strcmp0(at->tag, tag) == 0)
			return at;
	}
	return sender->has_tags ? NULL : sender;
}

const SenderConf *
conf_model_sender(const ConfModel *model, const char *name, const char *tag)
{
	for (unsigned i = 0; i < model->senders->len; i++) {
		const SenderConf *sender = model->senders->pdata[i];
		if (g_strcmp0(sender->name, name) == 0)
			return tag == NULL ? sender : find_tag(sender, tag);
	}
	return NULL;
}

const RestEndpointConf *
conf_model_rest_endpoint(const ConfModel *model, const char *name)
{
	for (unsigned i = 0; i < model->rest_endpoints->len; i++) {
		const RestEndpointConf *endpoint = model->rest_endpoints->pdata[i];
		if (g_strcmp0(endpoint->name, name) == 0)
			return endpoint;
	}
	return NULL;
}
