/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* For proxies that change the message: `up` gets `raw` in place of the original of `body`, with the
 * parsed form that `body` may have.  Own worker only. */
#include "filter/filter.h"

void body_pass_raw(Filter *filter, const TxBody *body, Blob *raw);
/* The same with these fields, each with its line end, in front. */
void body_pass_prefixed(Filter *filter, const TxBody *body, const char *fields);
