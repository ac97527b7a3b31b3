/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The strict look at a request head before anything of its body is read (RFC 9110 5.5, 7.2; RFC
 * 9112 3.2, 6.1-6.3): what could make two readers of the same bytes see different requests is
 * refused.  Pure. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct HttpFraming {
	unsigned hosts, lengths, encodings; /* how many fields of that name */
	int64_t length;                     /* Content-Length; -1 without one */
	size_t bytes;                       /* of the fields, with colons, spaces and line ends */
	const char *bad;                    /* the first fault, NULL so far */
} HttpFraming;

void http_framing_init(HttpFraming *framing);
/* Each header field in turn. */
void http_framing_add(HttpFraming *framing, const char *name, size_t name_len, const char *value,
		      size_t value_len);
/* After the last: NULL when the head is sound, else what is wrong.  `version`: "HTTP/1.1". */
const char *http_framing_end(HttpFraming *framing, const char *version);
/* A head as raw bytes, from the request line on.  *ret_complete says whether its end is among them;
 * only then is it judged: NULL when it is sound, else what is wrong.  Beyond the fields themselves:
 * lines end in CRLF and nothing else, a name is followed by its colon at once, no line continues
 * another, no NUL anywhere. */
const char *http_head_check(const char *data, size_t len, bool *ret_complete);
