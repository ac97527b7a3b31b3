/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

const char *const one_rcpt[] = {"ok@b.example", NULL};
const char *const two_rcpts[] = {"ok@b.example", "two@b.example", NULL};

static char *
response_text(const Response *response)
{
	return response != NULL ? g_strdup_printf("%d %s", response->code, response->message)
				: NULL;
}

static void
job_look(void *arg, Tx *tx)
{
	Job *job = arg;
	bool done = tx->data_response != NULL ||
		    (tx->body == NULL && tx->rcpt_answers == tx_rcpt_count(tx) &&
		     tx->mail_response != NULL);
	if (!done || job->done)
		return;
	pthread_mutex_lock(&job->live->lock);
	job->mail = response_text(tx->mail_response);
	for (size_t i = 0; i < tx_rcpt_count(tx) && i < G_N_ELEMENTS(job->rcpt); i++)
		job->rcpt[i] = response_text(tx_rcpt(tx, i)->response);
	job->data = response_text(tx->data_response);
	job->done = true;
	pthread_cond_broadcast(&job->live->changed);
	pthread_mutex_unlock(&job->live->lock);
}

void
job_begin(void *arg)
{
	Job *job = arg;
	Live *live = job->live;
	g_autoptr(Mailbox) from = mailbox_new(job->from, NULL, 0);
	g_autoptr(HostPort)
		remote = job->host != NULL ? host_port_new_named(job->host, job->port, job->mx_name)
					   : NULL;
	job->tx = tx_new(worker_defers(live->worker));
	tx_set_hosts(job->tx, remote, NULL);
	tx_set_mail_from(job->tx, from);
	for (unsigned i = 0; job->rcpts[i] != NULL; i++) {
		g_autoptr(Mailbox) to = mailbox_new(job->rcpts[i], NULL, 0);
		tx_add_rcpt(job->tx, to);
	}
	if (job->body != NULL) {
		job->blob = blob_new_bytes(job->body, job->body_len);
		g_autoptr(TxBody) body = tx_body_new_raw(job->blob);
		tx_set_body(job->tx, body);
	}
	tx_watch(job->tx, &job->watch, job_look, job);
	job->tx_port = smtp_delivery_start(
		live->pool, job->output != NULL ? job->output : &live->output, job->tx);
}

void
job_start(Job *job, Live *live, uint16_t port, const char *const *rcpts, const char *body)
{
	*job = (Job){.live = live,
		     .port = port,
		     .host = "127.0.0.1",
		     .from = "alice@a.example",
		     .rcpts = rcpts,
		     .body = body,
		     .body_len = body != NULL ? strlen(body) : 0};
	live_run(live, job_begin, job);
}

static void
add_body(void *arg)
{
	Job *job = arg;
	job->blob = blob_new_bytes(job->body, job->body_len);
	g_autoptr(TxBody) body = tx_body_new_raw(job->blob);
	tx_set_body(job->tx, body);
}

static void
forget_answers(Job *job)
{
	g_clear_pointer(&job->mail, g_free);
	g_clear_pointer(&job->data, g_free);
	for (size_t i = 0; i < G_N_ELEMENTS(job->rcpt); i++)
		g_clear_pointer(&job->rcpt[i], g_free);
}

void
job_add_body(Job *job, const char *body)
{
	forget_answers(job);
	job->body = body;
	job->body_len = strlen(body);
	job->done = false;
	live_run(job->live, add_body, job);
}

static Job *waited_for;

static bool
job_is_done(const Live *live)
{
	(void)live;
	return waited_for->done;
}

void
job_wait(Job *job)
{
	waited_for = job;
	live_wait(job->live, job_is_done, "the end of a delivery");
}

static void
job_end(void *arg)
{
	Job *job = arg;
	tx_unwatch(&job->watch);
	tx_port_stop(job->tx_port);
	tx_unref(job->tx);
	blob_unref(job->blob);
}

void
job_clear(Job *job)
{
	live_run(job->live, job_end, job);
	forget_answers(job);
}

void
want(const char *name, const char *what, const char *got, const char *expected)
{
	/* a trailing '*': the rest does not matter */
	size_t len = expected != NULL ? strlen(expected) : 0;
	bool ok = got == NULL || expected == NULL       ? got == expected
		  : len > 0 && expected[len - 1] == '*' ? strncmp(got, expected, len - 1) == 0
							: strcmp(got, expected) == 0;
	if (!ok)
		fail_msg("%s: %s: got %s, want %s", name, what, got != NULL ? got : "(none)",
			 expected != NULL ? expected : "(none)");
}
