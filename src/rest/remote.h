/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A TxPort over HTTP: the client side of the REST dialect (behaviour spec section 5) for one
 * transaction towards a router, a gateway or a receiver.  One host per port: trying several hosts
 * is the caller's business.  Own worker only. */
#include "http/client.h"
#include "tx/port.h"

/* `url`: creation URL.  Watches `tx`; its sender_name/sender_tag, remote_host, envelope, smtp_meta
 * and, with the option, filter_output go into the POST.  `options` is copied. */
TxPort *remote_port_start(HttpClient *client, Worker *worker, const char *url, Tx *tx,
			  const TxPortOptions *options);
